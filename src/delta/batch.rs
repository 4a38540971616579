//! A batch of active files, and one file of it: values borrowed from Arrow arrays.

use std::hash::{BuildHasher, Hash as _, Hasher as _};
use std::ops::Range;

use buoyant_kernel::EngineData;
use buoyant_kernel::arrow::array::{
    Array, AsArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray, StructArray,
};
use buoyant_kernel::arrow::datatypes::{Int32Type, Int64Type};
use buoyant_kernel::engine::arrow_data::ArrowEngineData;

use super::failure::{damaged, failure};
use crate::error::{Error, Result};

/// Some of the active files of a version.
pub struct Batch {
    /// Rows that are not files of the version are `false`; rows beyond its length are files.
    selected: Vec<bool>,
    lenient: bool,
    rows: usize,
    /// What it takes in memory.
    bytes: usize,
    path: StringArray,
    size: Int64Array,
    modification_time: Int64Array,
    stats: StringArray,
    deletion_vector: DeletionVectorColumns,
    /// The struct that the maps are in.
    constants: StructArray,
    partition_values: MapColumn,
    tags: MapColumn,
    base_row_id: Int64Array,
    default_row_commit_version: Int64Array,
    clustering_provider: StringArray,
}

struct DeletionVectorColumns {
    all: StructArray,
    storage_type: StringArray,
    path_or_inline_dv: StringArray,
    offset: Int32Array,
    size_in_bytes: Int32Array,
    cardinality: Int64Array,
}

struct MapColumn {
    maps: MapArray,
    keys: StringArray,
    values: StringArray,
}

/// A file of the table, as its `add` action says. Borrowed from the batch.
#[derive(Debug, Clone)]
pub struct AddFile<'a> {
    /// As written in the log: percent-encoded, relative to the table's root or an absolute URL.
    pub path: &'a str,
    /// Bytes; never negative.
    pub size: i64,
    /// Milliseconds since the Unix epoch.
    pub modification_time: i64,
    /// The statistics, as JSON text, unparsed. Names are physical names.
    pub stats: Option<&'a str>,
    /// Physical partition column name to value.
    pub partition_values: TextMap<'a>,
    /// What its writer says of the file.
    pub tags: Option<TextMap<'a>>,
    /// Rows of the file that are deleted.
    pub deletion_vector: Option<DeletionVector<'a>>,
    /// Row tracking: the id of the first row.
    pub base_row_id: Option<i64>,
    /// Row tracking: the version that first added the file.
    pub default_row_commit_version: Option<i64>,
    /// Who clustered the file.
    pub clustering_provider: Option<&'a str>,
}

/// Text to text or null, in the order of the log.
#[derive(Debug, Clone)]
pub struct TextMap<'a> {
    keys: &'a StringArray,
    values: &'a StringArray,
    range: Range<usize>,
}

/// The descriptor of a deletion vector, as in the log.
#[derive(Debug, Clone, Copy)]
pub struct DeletionVector<'a> {
    /// `u` relative path, `p` absolute path, `i` inline.
    pub storage_type: &'a str,
    /// What `storage_type` says it is.
    pub path_or_inline_dv: &'a str,
    /// Where the data starts in the file, in bytes.
    pub offset: Option<i32>,
    /// Bytes of the serialized vector.
    pub size_in_bytes: i32,
    /// How many rows it deletes.
    pub cardinality: i64,
}

impl<'a> TextMap<'a> {
    /// Pairs of key and value; `None` is SQL's null.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let (keys, values) = (self.keys, self.values);
        self.range
            .clone()
            .map(move |row| (keys.value(row), (!values.is_null(row)).then(|| values.value(row))))
    }

    /// The value of a key: `None` if the map does not have it, `Some(None)` if it is SQL's null. If a key occurs twice, the last
    /// value counts, as in a JSON parser.
    pub fn get(&self, key: &str) -> Option<Option<&'a str>> {
        self.iter().filter(|(own, _)| *own == key).last().map(|(_, value)| value)
    }
}

impl Batch {
    /// Takes apart what the kernel's scan yields (its "scan row" schema). If it is `lenient`, a file without partition
    /// values has none; whether it needs them, the caller knows.
    pub(super) fn new(data: Box<dyn EngineData>, selected: Vec<bool>, lenient: bool) -> Result<Self> {
        let batch: RecordBatch = (*ArrowEngineData::try_from_engine_data(data).map_err(failure)?).into();
        let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
        let deletion_vector: StructArray =
            column(batch.column_by_name("deletionVector"), AsArray::as_struct_opt)?;
        let constants: StructArray =
            column(batch.column_by_name("fileConstantValues"), AsArray::as_struct_opt)?;
        Ok(Self {
            selected,
            lenient,
            rows,
            bytes,
            path: column(batch.column_by_name("path"), AsArray::as_string_opt::<i32>)?,
            size: column(batch.column_by_name("size"), AsArray::as_primitive_opt::<Int64Type>)?,
            modification_time: column(
                batch.column_by_name("modificationTime"),
                AsArray::as_primitive_opt::<Int64Type>,
            )?,
            stats: column(batch.column_by_name("stats"), AsArray::as_string_opt::<i32>)?,
            deletion_vector: DeletionVectorColumns {
                storage_type: column(
                    deletion_vector.column_by_name("storageType"),
                    AsArray::as_string_opt::<i32>,
                )?,
                path_or_inline_dv: column(
                    deletion_vector.column_by_name("pathOrInlineDv"),
                    AsArray::as_string_opt::<i32>,
                )?,
                offset: column(
                    deletion_vector.column_by_name("offset"),
                    AsArray::as_primitive_opt::<Int32Type>,
                )?,
                size_in_bytes: column(
                    deletion_vector.column_by_name("sizeInBytes"),
                    AsArray::as_primitive_opt::<Int32Type>,
                )?,
                cardinality: column(
                    deletion_vector.column_by_name("cardinality"),
                    AsArray::as_primitive_opt::<Int64Type>,
                )?,
                all: deletion_vector,
            },
            partition_values: MapColumn::new(&constants, "partitionValues")?,
            tags: MapColumn::new(&constants, "tags")?,
            base_row_id: column(
                constants.column_by_name("baseRowId"),
                AsArray::as_primitive_opt::<Int64Type>,
            )?,
            default_row_commit_version: column(
                constants.column_by_name("defaultRowCommitVersion"),
                AsArray::as_primitive_opt::<Int64Type>,
            )?,
            clustering_provider: column(
                constants.column_by_name("clusteringProvider"),
                AsArray::as_string_opt::<i32>,
            )?,
            constants,
        })
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The files of the batch. An `add` action that breaks a rule of the protocol is an error in its place,
    /// never left out.
    pub fn files(&self) -> impl Iterator<Item = Result<AddFile<'_>>> {
        (0..self.rows).filter(|&row| self.is_selected(row)).map(|row| self.file(row))
    }

    /// The first row from `row` on that is a file.
    pub(super) fn next_selected(&self, row: usize) -> Option<usize> {
        (row..self.rows).find(|&row| self.is_selected(row))
    }

    /// Passes over `files` files from `row` on, or over all that there are: the row after them, and how many
    /// there were.
    pub(super) fn skip(&self, row: usize, files: u64) -> (usize, u64) {
        let mut passed = 0;
        for row in row..self.rows {
            if passed == files {
                return (row, passed);
            }
            passed += u64::from(self.is_selected(row));
        }
        (self.rows, passed)
    }

    /// The number of files and their bytes.
    pub(super) fn totals(&self) -> Result<(u64, u64)> {
        let (mut files, mut bytes) = (0, 0_u64);
        for row in (0..self.rows).filter(|&row| self.is_selected(row)) {
            files += 1;
            bytes = u64::try_from(self.size(row)?)
                .ok()
                .and_then(|size| bytes.checked_add(size))
                .ok_or_else(|| damaged("the sizes of the files add up to more than 64 bits"))?;
        }
        Ok((files, bytes))
    }

    /// Whether a file has a deletion vector.
    pub(super) fn has_deletion_vectors(&self) -> bool {
        let vectors = &self.deletion_vector.all;
        vectors.null_count() < self.rows
            && (0..self.rows).any(|row| self.is_selected(row) && !vectors.is_null(row))
    }

    /// The rows that are files.
    pub(super) fn selected_rows(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).filter(|&row| self.is_selected(row))
    }

    /// Takes a file out of the batch.
    pub(super) fn leave_out(&mut self, row: usize) {
        if self.selected.len() <= row {
            self.selected.resize(row + 1, true);
        }
        if let Some(selected) = self.selected.get_mut(row) {
            *selected = false;
        }
    }

    /// A digest of what tells a file from others: its path and its deletion vector.
    pub(super) fn digest(&self, row: usize, hasher: &impl BuildHasher) -> u64 {
        let mut digest = hasher.build_hasher();
        digest.write(text(&self.path, row).unwrap_or_default().as_bytes());
        let vector = &self.deletion_vector;
        if !vector.all.is_null(row) {
            digest.write_u8(0xff);
            text(&vector.storage_type, row).hash(&mut digest);
            text(&vector.path_or_inline_dv, row).hash(&mut digest);
            (!vector.offset.is_null(row)).then(|| vector.offset.value(row)).hash(&mut digest);
        }
        digest.finish()
    }

    fn is_selected(&self, row: usize) -> bool {
        self.selected.get(row).copied().unwrap_or(true)
    }

    fn size(&self, row: usize) -> Result<i64> {
        int64(&self.size, row).filter(|&size| size >= 0).ok_or_else(no_size)
    }

    fn map<'a>(&'a self, column: &'a MapColumn, row: usize) -> Result<Option<TextMap<'a>>> {
        if self.constants.is_null(row) || column.maps.is_null(row) {
            return Ok(None);
        }
        let offsets = column.maps.value_offsets();
        let bound = |at: usize| offsets.get(at).and_then(|&offset| usize::try_from(offset).ok());
        match (bound(row), bound(row + 1)) {
            (Some(start), Some(end)) => {
                Ok(Some(TextMap { keys: &column.keys, values: &column.values, range: start..end }))
            }
            _ => Err(damaged("a map of an add action has no end")),
        }
    }

    /// The file of a row that is one.
    pub(super) fn file(&self, row: usize) -> Result<AddFile<'_>> {
        Ok(AddFile {
            path: text(&self.path, row)
                .filter(|path| !path.is_empty())
                .ok_or_else(|| damaged("an add action has no path"))?,
            size: self.size(row)?,
            modification_time: int64(&self.modification_time, row)
                .ok_or_else(|| damaged("an add action has no modificationTime"))?,
            stats: text(&self.stats, row),
            partition_values: match self.map(&self.partition_values, row)? {
                Some(values) => values,
                None if self.lenient => self.partition_values.none(),
                None => return Err(damaged("an add action has no partitionValues")),
            },
            tags: self.map(&self.tags, row)?,
            deletion_vector: self.deletion_vector.get(row)?,
            base_row_id: int64(&self.base_row_id, row),
            default_row_commit_version: int64(&self.default_row_commit_version, row),
            clustering_provider: text(&self.clustering_provider, row),
        })
    }
}

impl MapColumn {
    fn new(parent: &StructArray, name: &str) -> Result<Self> {
        let maps: MapArray = column(parent.column_by_name(name), AsArray::as_map_opt)?;
        Ok(Self {
            keys: column(Some(maps.keys()), AsArray::as_string_opt::<i32>)?,
            values: column(Some(maps.values()), AsArray::as_string_opt::<i32>)?,
            maps,
        })
    }

    fn none(&self) -> TextMap<'_> {
        TextMap { keys: &self.keys, values: &self.values, range: 0..0 }
    }
}

impl DeletionVectorColumns {
    fn get(&self, row: usize) -> Result<Option<DeletionVector<'_>>> {
        if self.all.is_null(row) {
            return Ok(None);
        }
        let (Some(storage_type), Some(path_or_inline_dv), Some(cardinality)) = (
            text(&self.storage_type, row),
            text(&self.path_or_inline_dv, row),
            int64(&self.cardinality, row),
        ) else {
            return Err(damaged("a deletion vector lacks a field"));
        };
        if self.size_in_bytes.is_null(row) {
            return Err(damaged("a deletion vector lacks a field"));
        }
        let vector = DeletionVector {
            storage_type,
            path_or_inline_dv,
            offset: (!self.offset.is_null(row)).then(|| self.offset.value(row)),
            size_in_bytes: self.size_in_bytes.value(row),
            cardinality,
        };
        vector.check()?;
        Ok(Some(vector))
    }
}

/// The error for a file whose size is missing or negative.
pub(super) fn no_size() -> Error {
    Error::unreadable_table(
        "The table cannot be read: its log names a file without the file's size, which recipients need.",
    )
}

fn column<'a, T, A>(array: Option<&'a T>, cast: impl FnOnce(&'a T) -> Option<&'a A>) -> Result<A>
where
    T: ?Sized,
    A: Clone + 'a,
{
    array.and_then(cast).cloned().ok_or_else(|| Error::internal("the kernel's scan rows have another schema"))
}

fn text(array: &StringArray, row: usize) -> Option<&str> {
    (!array.is_null(row)).then(|| array.value(row))
}

fn int64(array: &Int64Array, row: usize) -> Option<i64> {
    (!array.is_null(row)).then(|| array.value(row))
}
