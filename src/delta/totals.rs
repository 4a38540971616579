//! The number and the size of the files of a version, from the columns that this takes: paths, sizes and deletion vectors.
//!
//! A [`Scan`](super::Scan) could count too, but the kernel decodes and rebuilds every column of its files. Only a log that
//! holds nothing unusual is counted here. Of any other, the scan decides what counts, so that a count and a list of files
//! never differ.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use ahash::RandomState;
use buoyant_kernel::arrow::array::{Array, AsArray, Int32Array, Int64Array, StringArray, StructArray};
use buoyant_kernel::arrow::datatypes::{Int32Type, Int64Type};
use buoyant_kernel::engine::arrow_data::ArrowEngineData;
use buoyant_kernel::schema::{DataType, SchemaRef, StructField, StructType};
use buoyant_kernel::{DeltaResult, EngineData};

use super::failure::{failure, unpanicked};
use super::metadata::FileStats;
use super::repeats::SeenFiles;
use super::snapshot::{Snapshot, Totals};
use crate::error::Result;

/// Counts the files of a version. `None` if only a scan can tell what counts: if the log is damaged, or names a file more than
/// once. An error only if it may pass.
pub(super) fn count(snapshot: &Snapshot) -> Result<Option<Totals>> {
    match unpanicked(|| replay(snapshot)).flatten() {
        Err(error) if error.is_temporary() => Err(error),
        counted => Ok(counted.ok().flatten()),
    }
}

fn replay(snapshot: &Snapshot) -> Result<Option<Totals>> {
    let (commits, checkpoint) = (schema(&["add", "remove"]), schema(&["add"]));
    let (commits, checkpoint) = (commits.map_err(failure)?, checkpoint.map_err(failure)?);
    let segment = snapshot.kernel().log_segment();
    let engine = snapshot.engine().as_ref();
    let read = segment
        .read_actions_with_projected_checkpoint_actions(engine, commits, checkpoint, None, None, None, None)
        .map_err(failure)?;
    let mut count = Count::default();
    for batch in read.actions {
        let batch = batch.map_err(failure)?;
        if count.read(batch.actions.as_ref(), batch.is_log_batch).is_none() {
            return Ok(None);
        }
    }
    Ok(Some(count.totals))
}

/// What is read of these actions.
fn schema(actions: &[&str]) -> DeltaResult<SchemaRef> {
    let vector = StructType::try_new([
        StructField::nullable("storageType", DataType::STRING),
        StructField::nullable("pathOrInlineDv", DataType::STRING),
        StructField::nullable("offset", DataType::INTEGER),
    ])?;
    let file = StructType::try_new([
        StructField::nullable("path", DataType::STRING),
        StructField::nullable("size", DataType::LONG),
        StructField::nullable("deletionVector", vector),
    ])?;
    let actions = actions.iter().map(|action| StructField::nullable(*action, file.clone()));
    Ok(Arc::new(StructType::try_new(actions)?))
}

/// A count while actions are read, from the newest commit to the oldest, and then those of a checkpoint.
struct Count {
    totals: Totals,
    /// The files that commits added or removed. Digests of 128 bits, which do not collide by chance.
    changed: HashSet<[u64; 2], RandomState>,
    hashers: [RandomState; 2],
    /// Those of the checkpoint.
    seen: SeenFiles,
    digests: Vec<u64>,
}

impl Default for Count {
    fn default() -> Self {
        Self {
            totals: Totals { stats: FileStats { num_files: 0, size_bytes: 0 }, has_vectors: false },
            changed: HashSet::default(),
            hashers: Default::default(),
            seen: SeenFiles::default(),
            digests: Vec::new(),
        }
    }
}

impl Count {
    /// Reads a batch of actions; `None` if it holds anything unusual.
    fn read(&mut self, actions: &dyn EngineData, is_commit: bool) -> Option<()> {
        let batch = actions.any_ref().downcast_ref::<ArrowEngineData>()?.record_batch();
        let added = Files::new(batch.column_by_name("add")?.as_struct_opt()?)?;
        if is_commit {
            let removed = Files::new(batch.column_by_name("remove")?.as_struct_opt()?)?;
            (0..batch.num_rows()).try_for_each(|row| self.read_commit(&added, &removed, row))
        } else {
            self.read_checkpoint(&added)
        }
    }

    /// Of several actions about a file, the newest one counts.
    fn read_commit(&mut self, added: &Files, removed: &Files, row: usize) -> Option<()> {
        match (added.is_at(row), removed.is_at(row)) {
            (true, true) => None,
            (false, false) => Some(()),
            (true, false) => {
                if self.changed.insert(added.digest(row, &self.hashers)?) {
                    self.add(added, row)?;
                }
                Some(())
            }
            (false, true) => {
                self.changed.insert(removed.digest(row, &self.hashers)?);
                Some(())
            }
        }
    }

    fn read_checkpoint(&mut self, added: &Files) -> Option<()> {
        self.digests.clear();
        let rows = added.all.len();
        for row in (0..rows).filter(|&row| added.is_at(row)) {
            let digest = added.digest(row, &self.hashers)?;
            if !self.changed.is_empty() && self.changed.contains(&digest) {
                continue;
            }
            self.digests.push(digest[0]);
            self.add(added, row)?;
        }
        // A second pass would have to tell whether a file really is there twice, as the scan does.
        (!self.seen.has_repeats(&self.digests)).then_some(())
    }

    fn add(&mut self, files: &Files, row: usize) -> Option<()> {
        let stats = &mut self.totals.stats;
        let size = (!files.size.is_null(row)).then(|| files.size.value(row))?;
        stats.num_files += 1;
        stats.size_bytes = stats.size_bytes.checked_add(u64::try_from(size).ok()?)?;
        self.totals.has_vectors |= !files.vector.is_null(row);
        Some(())
    }
}

/// The `add` or `remove` actions of a batch.
struct Files<'a> {
    all: &'a StructArray,
    path: &'a StringArray,
    size: &'a Int64Array,
    vector: &'a StructArray,
    storage_type: &'a StringArray,
    path_or_inline_dv: &'a StringArray,
    offset: &'a Int32Array,
}

impl<'a> Files<'a> {
    fn new(all: &'a StructArray) -> Option<Self> {
        let vector = all.column_by_name("deletionVector")?.as_struct_opt()?;
        Some(Self {
            all,
            path: all.column_by_name("path")?.as_string_opt()?,
            size: all.column_by_name("size")?.as_primitive_opt::<Int64Type>()?,
            vector,
            storage_type: vector.column_by_name("storageType")?.as_string_opt()?,
            path_or_inline_dv: vector.column_by_name("pathOrInlineDv")?.as_string_opt()?,
            offset: vector.column_by_name("offset")?.as_primitive_opt::<Int32Type>()?,
        })
    }

    fn is_at(&self, row: usize) -> bool {
        !self.all.is_null(row)
    }

    /// A digest of what tells a file from others: its path and its deletion vector. `None` if that is incomplete.
    fn digest(&self, row: usize, hashers: &[RandomState; 2]) -> Option<[u64; 2]> {
        let path = text(self.path, row).filter(|path| !path.is_empty())?;
        let vector = match self.vector.is_null(row) {
            true => None,
            false => Some((
                text(self.storage_type, row)?,
                text(self.path_or_inline_dv, row)?,
                (!self.offset.is_null(row)).then(|| self.offset.value(row)),
            )),
        };
        Some(hashers.each_ref().map(|hasher| {
            let mut digest = hasher.build_hasher();
            digest.write(path.as_bytes());
            if let Some(vector) = vector {
                // No byte of UTF-8, so that no path ends like this.
                digest.write_u8(0xff);
                vector.hash(&mut digest);
            }
            digest.finish()
        }))
    }
}

fn text(array: &StringArray, row: usize) -> Option<&str> {
    (!array.is_null(row)).then(|| array.value(row))
}
