//! Files that a checkpoint names more than once.
//!
//! Delta's protocol has each file once in a checkpoint, and the kernel relies on it. Some writers broke the rule, and a
//! client would read the rows of such a file twice. A digest of each file tells that it seems to be named again; only
//! then, a second pass with longer digests tells which files really are, so that no file is left out by chance.

use std::collections::HashSet;

use ahash::RandomState;

use super::actions::Batch;

/// The files that were read so far, in 9 to 18 bytes each.
#[derive(Default)]
pub(super) struct Seen {
    digests: HashSet<u64, RandomState>,
    hasher: RandomState,
    files: u64,
}

/// A file that seems to be named again.
pub(super) struct Suspect {
    /// How many files of its batch come before it.
    pub(super) number: u64,
    /// Its row.
    pub(super) row: usize,
}

impl Seen {
    /// How many files were read.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Reads the files of the next batch.
    pub(super) fn read(&mut self, batch: &Batch) -> Vec<Suspect> {
        let mut suspects = Vec::new();
        let mut number = 0;
        for row in batch.selected_rows() {
            if !self.digests.insert(batch.digest(row, &self.hasher)) {
                suspects.push(Suspect { number, row });
            }
            number += 1;
        }
        self.files += number;
        suspects
    }
}

/// Which files of a version are named again, by their numbers in the order of the log.
#[derive(Default)]
pub(super) struct Repeats {
    digests: HashSet<[u64; 2], RandomState>,
    hashers: [RandomState; 2],
    files: u64,
    repeated: HashSet<u64>,
}

impl Repeats {
    /// Reads the files of the next batch.
    pub(super) fn read(&mut self, batch: &Batch) {
        for row in batch.selected_rows() {
            if !self.digests.insert(self.hashers.each_ref().map(|hasher| batch.digest(row, hasher))) {
                self.repeated.insert(self.files);
            }
            self.files += 1;
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.repeated.contains(&number)
    }
}
