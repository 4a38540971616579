//! What one table, recipient or sender may cost: every limit of this server, in one place.
//!
//! `docs/limits.md` has a row for each field, with its default, its unit and its reason; a test keeps the two together.

use std::time::Duration;

/// The limits of a server. The defaults are far from anything that a real table or client meets.
///
/// Sizes are in bytes. A request that meets a limit gets a clear error, and nothing else is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest `_last_checkpoint` file that is read. A larger one counts as damaged, and the log is listed.
    pub last_checkpoint_bytes: u64,
    /// How many connections `serve` has at once. At the limit, a new one takes the place of one without a request;
    /// where all have one, it is answered 503, or the answer of `/health`.
    pub connections: usize,
    /// How many of them come from one address; one /64 of IPv6 counts as one address.
    pub connections_per_address: usize,
    /// How long a client of `serve` may take from its connection, or from the first byte of a request, to the end of
    /// the request's header.
    pub header_timeout: Duration,
    /// The largest header of a request to `serve`, with the request line.
    pub header_bytes: usize,
    /// How long a connection of `serve` stays open without a request.
    pub idle_timeout: Duration,
    /// How long a client of `serve` may take nothing of its answer.
    pub send_timeout: Duration,
    /// The largest body of a request.
    pub body_bytes: usize,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// How long a query goes on: pages and refreshed answers that follow on one another end so many seconds after the
    /// first one, with tokens of any age.
    pub query_life_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            last_checkpoint_bytes: 1 << 20,
            connections: 1024,
            connections_per_address: 512,
            header_timeout: Duration::from_secs(10),
            header_bytes: 64 << 10,
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(60),
            body_bytes: 1 << 20,
            body_timeout: Duration::from_secs(30),
            query_life_seconds: 7 * 24 * 60 * 60,
        }
    }
}
