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
