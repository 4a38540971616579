//! How many connections this process can have: each takes a file descriptor, of which the system allows only so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connections::RESERVE;

/// Descriptors of the process itself: its log, the listener, connections to AWS, and the reserve for `/health`.
const OWN: u64 = 48 + RESERVE as u64;

/// What a connection may need: its socket, and a file or a connection to a bucket for what it asks for.
const EACH: u64 = 2;

/// The fewest connections, however few descriptors there are.
const FEWEST: u64 = 8;

/// How many of these connections the process can have. Raises its limit as far as that needs and the system lets it.
pub(crate) fn connections(wanted: usize) -> usize {
    let needed = OWN.saturating_add(EACH.saturating_mul(wanted as u64));
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current.map(|current| current.max(needed.min(maximum.unwrap_or(u64::MAX))));
    if raised != current && setrlimit(Resource::Nofile, Rlimit { current: raised, maximum }).is_err() {
        tracing::debug!("the limit of open files cannot be raised");
    }
    let there = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = usize::try_from(possible(there)).unwrap_or(usize::MAX);
    if possible < wanted {
        tracing::warn!(
            "{possible} connections at once instead of {wanted}, because this process may open only {there} files; \
             raise that with ulimit -n"
        );
    }
    possible.min(wanted)
}

fn possible(descriptors: u64) -> u64 {
    (descriptors.saturating_sub(OWN) / EACH).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_what_they_ask_for() {
        for (descriptors, connections) in [(0, 8), (64, 8), (128, 32), (1024, 480), (65_536, 32_736)] {
            assert_eq!(possible(descriptors), connections);
        }
    }
}
