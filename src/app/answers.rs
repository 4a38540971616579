//! Answers in flight: how many each recipient has, and how many there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::limits::Limits;

/// The answers in flight.
#[derive(Debug)]
pub(super) struct Answers {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<Arc<str>, usize>,
}

/// One answer, which counts until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    answers: Arc<Answers>,
    recipient: Arc<str>,
}

impl Answers {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, counts: Mutex::default() }
    }

    pub(super) fn begin(self: &Arc<Self>, recipient: &str) -> Result<InFlight> {
        let mut counts = self.counts();
        let own = counts.of.get(recipient).copied().unwrap_or_default();
        if own >= self.limits.recipient_answers {
            return Err(Error::too_many_requests(
                "Too many answers to this recipient are in flight; read some of them, or try again later.",
            ));
        }
        if counts.all >= self.limits.answers {
            return Err(Error::unavailable("Too many answers are in flight; try again later."));
        }
        counts.all += 1;
        let recipient: Arc<str> = recipient.into();
        counts.of.insert(Arc::clone(&recipient), own + 1);
        Ok(InFlight { answers: Arc::clone(self), recipient })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut counts = self.answers.counts();
        counts.all -= 1;
        match counts.of.get_mut(&self.recipient) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(counts.of.remove(&self.recipient)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn a_recipient_has_a_share_of_all_answers() {
        let limits = Limits { answers: 5, recipient_answers: 3, ..Limits::default() };
        let answers = Arc::new(Answers::new(limits));
        let refused = |recipient| answers.begin(recipient).map(drop).unwrap_err().code();
        let mut greedy: Vec<_> = (0..3).map(|_| answers.begin("greedy").unwrap()).collect();
        assert_eq!(refused("greedy"), ErrorCode::RequestLimitExceeded);
        let others = [answers.begin("one").unwrap(), answers.begin("two").unwrap()];
        assert_eq!(refused("three"), ErrorCode::TemporarilyUnavailable);
        assert_eq!(refused("greedy"), ErrorCode::RequestLimitExceeded);
        greedy.pop();
        greedy.push(answers.begin("greedy").unwrap());
        assert_eq!(refused("greedy"), ErrorCode::RequestLimitExceeded);
        drop((greedy, others));
        assert!(answers.counts().of.is_empty() && answers.counts().all == 0);
    }
}
