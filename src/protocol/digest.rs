//! Short digests, to tell things apart that nobody would want to confuse.

use sha2::{Digest, Sha256};

/// The first eight bytes of the SHA-256 of `bytes`, as a number.
pub fn short_digest(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
