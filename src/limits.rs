//! What one table, recipient or sender may cost: every limit of this server, in one place.
//!
//! `docs/limits.md` has a row for each field, with its default, its unit and its reason; a test keeps the two together.

/// The limits of a server. The defaults are far from anything that a real table or client meets.
///
/// Sizes are in bytes. A request that meets a limit gets a clear error, and nothing else is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest `_last_checkpoint` file that is read. A larger one counts as damaged, and the log is listed.
    pub last_checkpoint_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { last_checkpoint_bytes: 1 << 20 }
    }
}
