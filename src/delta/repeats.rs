//! Files that a checkpoint or a commit names more than once.
//!
//! Delta's protocol has each file once in a checkpoint, and the kernel relies on it. Some writers broke the rule, and a
//! client would read the rows of such a file twice. A digest of each file tells that it seems to be named again; only
//! then, a second pass with longer digests tells which files really are, so that no file is left out by chance.
//!
//! A commit, too, has one action for each file. Of several, Spark reads the last and the kernel the first. Small commits are
//! put right when they are read. Large ones are streamed, and recognised by a pass of their own, before anything of them is
//! sent.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::hint::black_box;
use std::sync::Arc;

use ahash::RandomState;
use buoyant_kernel::arrow::array::{Array, ArrayRef, AsArray, StructArray};
use buoyant_kernel::arrow::datatypes::Int32Type;
use buoyant_kernel::engine::arrow_data::ArrowEngineData;
use buoyant_kernel::schema::{DataType, SchemaRef, StructField, StructType};
use buoyant_kernel::{DeltaResult, EngineData, Error as KernelError, FileDataReadResultIterator};

use super::batch::Batch;

/// The files that were read so far.
#[derive(Default)]
pub(super) struct SeenFiles {
    digests: Digests,
    hasher: RandomState,
    files: u64,
    /// Those of one batch.
    batch: Vec<u64>,
}

/// A set that may say of a few digests that they were there before though they were not: it keeps 32 bits of each. A set
/// of the standard library is slower, and takes several times the memory while it grows, which a list of a million files
/// would show.
#[derive(Default)]
struct Digests {
    /// Open addressing, where 0 is a free slot. A table that is full stays as it is, and a larger one follows.
    tables: Vec<Vec<u32>>,
    /// How many digests are in the last table.
    used: usize,
}

/// The slots of the first table, a power of two.
const FIRST_SLOTS: usize = 1 << 15;

/// By how much the next table is larger, as long as tables are small. Fewer tables are faster to search.
const GROWTH: usize = 8;

/// From this size on, each table is only twice as large as the one before, and is filled to three quarters: larger ones would
/// take hundreds of megabytes for millions of files. The price is that a search compares more marks: of lists of ten million
/// files, about 3 % have a file that seems to be named again by chance, and not 1 %.
const LARGE_SLOTS: usize = 1 << 21;

/// How many slots of a table are used before another one follows.
fn capacity(slots: usize) -> usize {
    if slots < LARGE_SLOTS { slots / 2 } else { slots / 4 * 3 }
}

impl SeenFiles {
    /// How many bytes of memory it takes.
    pub(super) fn kept_bytes(&self) -> usize {
        let slots: usize = self.digests.tables.iter().map(Vec::len).sum();
        slots * size_of::<u32>() + self.batch.capacity() * size_of::<u64>()
    }
}

impl Digests {
    /// Puts digests in, and calls `again` with the numbers of those that seem to be there.
    fn insert_all(&mut self, digests: &[u64], mut again: impl FnMut(usize)) {
        self.make_room(digests.len());
        self.fetch(digests);
        for (number, &digest) in digests.iter().enumerate() {
            if !self.insert(digest) {
                again(number);
            }
        }
    }

    fn make_room(&mut self, more: usize) {
        let mut slots = self.tables.last().map_or(0, Vec::len);
        if self.used + more <= capacity(slots) {
            return;
        }
        slots = (slots * if slots < LARGE_SLOTS { GROWTH } else { 2 }).max(FIRST_SLOTS);
        while capacity(slots) < more {
            slots *= 2;
        }
        self.tables.push(vec![0; slots]);
        self.used = 0;
    }

    /// Reads the slots where the search for digests begins. These reads do not wait for each other, as those of the
    /// searches would.
    fn fetch(&self, digests: &[u64]) {
        for table in &self.tables {
            let slot = |digest: u64| table.get(home(table, digest)).copied().unwrap_or_default();
            black_box(digests.iter().fold(0, |slots, &digest| slots ^ slot(digest)));
        }
    }

    /// Puts a digest in; `false` if it seems to be there.
    fn insert(&mut self, digest: u64) -> bool {
        let Some((last, others)) = self.tables.split_last_mut() else { return false };
        if others.iter().any(|table| free_slot(table, digest).is_none()) {
            return false;
        }
        let Some(free) = free_slot(last, digest).and_then(|at| last.get_mut(at)) else { return false };
        *free = mark(digest);
        self.used += 1;
        true
    }
}

/// What is kept of a digest.
fn mark(digest: u64) -> u32 {
    ((digest >> 32) as u32).max(1)
}

/// Where the search for a digest begins.
fn home(table: &[u32], digest: u64) -> usize {
    digest as u32 as usize & (table.len() - 1)
}

/// The free slot for a digest; `None` if it seems to be there. A table has free slots.
fn free_slot(table: &[u32], digest: u64) -> Option<usize> {
    let (mark, mut at) = (mark(digest), home(table, digest));
    loop {
        match *table.get(at)? {
            0 => return Some(at),
            slot if slot == mark => return None,
            _ => at = (at + 1) & (table.len() - 1),
        }
    }
}

/// A file that seems to be named again.
pub(super) struct Suspect {
    /// How many files of its batch come before it.
    pub(super) number: u64,
    /// Its row.
    pub(super) row: usize,
}

impl SeenFiles {
    /// How many files were read.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Whether any of these files seems to be there twice, or to have been read before, by their digests.
    pub(super) fn has_repeats(&mut self, digests: &[u64]) -> bool {
        let mut has_repeats = false;
        self.digests.insert_all(digests, |_| has_repeats = true);
        has_repeats
    }

    /// Reads the files of the next batch.
    pub(super) fn read(&mut self, batch: &Batch) -> Vec<Suspect> {
        self.batch.clear();
        self.batch.extend(batch.selected_rows().map(|row| batch.digest(row, &self.hasher)));
        let mut again = Vec::new();
        self.digests.insert_all(&self.batch, |number| again.push(number));
        self.files += self.batch.len() as u64;
        let (mut rows, mut next) = (batch.selected_rows(), 0);
        let suspect = |number: usize| {
            let row = rows.nth(number - next)?;
            next = number + 1;
            Some(Suspect { number: number as u64, row })
        };
        again.into_iter().filter_map(suspect).collect()
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

/// What tells of an action of a commit what it is about.
pub(super) fn subjects() -> DeltaResult<SchemaRef> {
    let nested = |name: &str, fields: Vec<StructField>| -> DeltaResult<StructField> {
        Ok(StructField::nullable(name, StructType::try_new(fields)?))
    };
    let file = |name: &str| {
        let vector = nested(
            "deletionVector",
            vec![
                StructField::nullable("pathOrInlineDv", DataType::STRING),
                StructField::nullable("offset", DataType::INTEGER),
            ],
        )?;
        nested(name, vec![StructField::nullable("path", DataType::STRING), vector])
    };
    let actions = [
        file("add")?,
        file("remove")?,
        nested("metaData", vec![StructField::nullable("id", DataType::STRING)])?,
        nested("protocol", vec![StructField::nullable("minReaderVersion", DataType::INTEGER)])?,
    ];
    Ok(Arc::new(StructType::try_new(actions)?))
}

/// Reads the actions of one commit, with [`subjects`]. An error if an action seems to be about the same file as one before
/// it, or changes the protocol or the metadata once more.
pub(super) fn no_repeats(batches: FileDataReadResultIterator) -> DeltaResult<()> {
    let mut commit = Commit::default();
    for batch in batches {
        commit.read(batch?.as_ref())?;
    }
    Ok(())
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

    fn again(digests: &mut Digests, all: &[u64]) -> usize {
        let mut again = 0;
        digests.insert_all(all, |_| again += 1);
        again
    }

    #[test]
    fn a_digest_is_found_again_in_every_table() {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let all: Vec<u64> = (0..200_000_u64).map(|number| hasher.hash_one(number)).collect();
        let mut digests = Digests::default();
        let new: usize = all.chunks(4096).map(|batch| again(&mut digests, batch)).sum();
        assert!(new < 5, "{new} of {} seemed to be there", all.len());
        assert_eq!(digests.tables.len(), 3);
        assert_eq!(again(&mut digests, &all), all.len());
    }

    #[test]
    fn memory_grows_with_the_number_of_digests() {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let (mut digests, mut batch) = (Digests::default(), Vec::new());
        let mut new = 0;
        for number in 0..2_500_000_u64 {
            batch.push(hasher.hash_one(number));
            if batch.len() == 4096 {
                new += again(&mut digests, &batch);
                batch.clear();
                let slots: usize = digests.tables.iter().map(Vec::len).sum();
                let put = usize::try_from(number).unwrap();
                assert!(put < 1_000_000 || slots < put * 4, "{slots} slots for {put} digests");
            }
        }
        assert!(new < 5, "{new} seemed to be there");
        assert!(digests.tables.len() > 3);
        // Every digest is found again, whichever table it is in.
        let all: Vec<u64> = (0..2_490_000_u64).step_by(97).map(|number| hasher.hash_one(number)).collect();
        assert_eq!(again(&mut digests, &all), all.len());
    }

    #[test]
    fn a_batch_larger_than_a_table_has_room() {
        let hasher = RandomState::with_seeds(5, 6, 7, 8);
        let all: Vec<u64> = (0..100_000_u64).map(|number| hasher.hash_one(number)).collect();
        let mut digests = Digests::default();
        assert!(again(&mut digests, &all) < 5);
        assert_eq!(digests.tables.len(), 1);
        assert_eq!(again(&mut digests, &all), all.len());
    }

    #[test]
    fn marks_that_share_a_slot_are_told_apart() {
        let mut digests = Digests::default();
        // The last slot, so that the search continues at the first one; the mark 0 is taken for 1.
        let same = |marks: std::ops::Range<u64>| {
            marks.map(|mark| mark << 32 | (FIRST_SLOTS as u64 - 1)).collect::<Vec<_>>()
        };
        assert_eq!(again(&mut digests, &same(1..1000)), 0);
        assert_eq!(again(&mut digests, &same(0..1000)), 1000);
        assert_eq!(again(&mut digests, &same(1000..1001)), 0);
    }
}
