//! Files that a checkpoint or a commit names more than once.
//!
//! Delta's protocol has each file once in a checkpoint, and the kernel relies on it. Some writers broke the rule, and a
//! client would read the rows of such a file twice. A digest of each file tells that it seems to be named again; only
//! then, a second pass with longer digests tells which files really are, so that no file is left out by chance.
//!
//! A commit, too, has one action for each file. Of several, Spark reads the last and the kernel the first. Small commits are
//! put right when they are read; large ones are streamed, and only recognised here.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use ahash::RandomState;
use buoyant_kernel::arrow::array::{Array, ArrayRef, AsArray, StructArray};
use buoyant_kernel::arrow::datatypes::Int32Type;
use buoyant_kernel::engine::arrow_data::ArrowEngineData;
use buoyant_kernel::{DeltaResult, EngineData, Error as KernelError, FileDataReadResultIterator};

use super::actions::Batch;

/// The files that were read so far.
#[derive(Default)]
pub(super) struct Seen {
    digests: Digests,
    hasher: RandomState,
    files: u64,
}

/// A set that may say of a few digests that they were there before though they were not: it keeps 32 bits of each. A set
/// of the standard library takes seven times the memory while it grows, which a list of a million files would show.
#[derive(Default)]
struct Digests {
    /// Open addressing, where 0 is a free slot. A table that is full stays, and the next one has four times its slots.
    tables: Vec<Vec<u32>>,
    /// How many digests are in the last table.
    used: usize,
}

/// The slots of the first table, a power of two.
const FIRST_SLOTS: usize = 1 << 14;

impl Digests {
    /// Puts a digest in; `false` if it seems to be there.
    fn insert(&mut self, digest: u64) -> bool {
        let (mark, home) = (((digest >> 32) as u32).max(1), digest as u32 as usize);
        let slots = self.tables.last().map_or(0, Vec::len);
        if self.used >= slots / 4 * 3 {
            self.tables.push(vec![0; (slots * 4).max(FIRST_SLOTS)]);
            self.used = 0;
        }
        let Some((last, full)) = self.tables.split_last_mut() else { return true };
        if full.iter().any(|table| find(table, mark, home).is_none()) {
            return false;
        }
        let Some(free) = find(last, mark, home).and_then(|at| last.get_mut(at)) else { return false };
        *free = mark;
        self.used += 1;
        true
    }
}

/// The free slot for a mark; `None` if the mark is there.
fn find(table: &[u32], mark: u32, home: usize) -> Option<usize> {
    let start = home & (table.len() - 1);
    let slots = (start..table.len()).chain(0..start);
    slots.zip(table.iter().skip(start).chain(table)).find_map(|(at, &slot)| match slot {
        0 => Some(Some(at)),
        slot => (slot == mark).then_some(None),
    })?
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

/// The actions of one commit, batch by batch. Ends with an error where an action seems to be about the same file as one
/// before it, or changes the protocol or the metadata once more.
pub(super) fn without_repeats(batches: FileDataReadResultIterator) -> FileDataReadResultIterator {
    let mut commit = Commit::default();
    Box::new(batches.map(move |batch| {
        let batch = batch?;
        commit.read(batch.as_ref())?;
        Ok(batch)
    }))
}

#[derive(Default)]
struct Commit {
    digests: HashSet<u64, RandomState>,
    hasher: RandomState,
    protocols: usize,
    metadata: usize,
}

impl Commit {
    fn read(&mut self, batch: &dyn EngineData) -> DeltaResult<()> {
        let Some(batch) = batch.any_ref().downcast_ref::<ArrowEngineData>() else { return Ok(()) };
        let action =
            |name| batch.record_batch().column_by_name(name).and_then(|action| action.as_struct_opt());
        let count = |name| action(name).map_or(0, |actions| actions.len() - actions.null_count());
        self.protocols += count("protocol");
        self.metadata += count("metaData");
        let once = self.protocols <= 1
            && self.metadata <= 1
            && ["add", "remove"].into_iter().filter_map(action).all(|files| self.read_files(files));
        if once { Ok(()) } else { Err(KernelError::generic("a commit has several actions about one file")) }
    }

    /// Whether no file was there before.
    fn read_files(&mut self, files: &StructArray) -> bool {
        let text = |array: Option<&ArrayRef>| array.and_then(|array| array.as_string_opt::<i32>()).cloned();
        let Some(paths) = text(files.column_by_name("path")) else { return true };
        let vectors = files.column_by_name("deletionVector").and_then(|vectors| vectors.as_struct_opt());
        let ids = vectors.and_then(|vectors| text(vectors.column_by_name("pathOrInlineDv")));
        let offsets =
            vectors.and_then(|vectors| vectors.column_by_name("offset")?.as_primitive_opt::<Int32Type>());
        (0..files.len()).filter(|&row| !files.is_null(row) && !paths.is_null(row)).all(|row| {
            let mut digest = self.hasher.build_hasher();
            paths.value(row).hash(&mut digest);
            if vectors.is_some_and(|vectors| !vectors.is_null(row)) {
                ids.as_ref().filter(|ids| !ids.is_null(row)).map(|ids| ids.value(row)).hash(&mut digest);
                offsets
                    .filter(|offsets| !offsets.is_null(row))
                    .map(|offsets| offsets.value(row))
                    .hash(&mut digest);
            }
            self.digests.insert(digest.finish())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_found_again_in_every_table() {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let mut digests = Digests::default();
        let all = 200_000_u64;
        let again = (0..all).filter(|number| !digests.insert(hasher.hash_one(number))).count();
        assert!(again < 5, "{again} of {all} seemed to be there");
        assert_eq!(digests.tables.len(), 3);
        assert!((0..all).all(|number| !digests.insert(hasher.hash_one(number))));
    }

    #[test]
    fn marks_that_share_a_slot_are_told_apart() {
        let mut digests = Digests::default();
        // The last slot, so that the search goes on at the first one; the mark 0 is taken for 1.
        let same = |mark: u64| mark << 32 | (FIRST_SLOTS as u64 - 1);
        assert!((1..1000).all(|mark| digests.insert(same(mark))));
        assert!((0..1000).all(|mark| !digests.insert(same(mark))));
        assert!(digests.insert(same(1000)));
    }
}
