//! Reads from checkpoints only what a list of selected files needs.
//!
//! The partition values of a row group are decoded first. The other columns, statistics and paths above all, are then decoded
//! for the rows of selected files, and pages without such a row are not unpacked. A row group without one is not fetched
//! any further. Which partitions a row group has is remembered, so that the next query passes over those that it does not
//! need.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use buoyant_kernel::arrow::array::{
    Array, AsArray, BooleanArray, MapArray, RecordBatch, StringArray, StructArray,
};
use buoyant_kernel::arrow::buffer::BooleanBuffer;
use buoyant_kernel::arrow::error::ArrowError;
use buoyant_kernel::engine::arrow_data::ArrowEngineData;
use buoyant_kernel::engine::arrow_utils::{
    fixup_parquet_read, ordering_needs_row_indexes, parquet_read_plan,
};
use buoyant_kernel::engine::reader_options;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{ObjectStore, ObjectStoreExt as _};
use buoyant_kernel::parquet::arrow::ProjectionMask;
use buoyant_kernel::parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, RowFilter,
};
use buoyant_kernel::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use buoyant_kernel::parquet::errors::Result as ParquetResult;
use buoyant_kernel::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use buoyant_kernel::schema::{DataType, SchemaRef};
use buoyant_kernel::{DeltaResult, EngineData, Error as KernelError, FileDataReadResultIterator, FileMeta};
use buoyant_kernel_engine::executor::TaskExecutor;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};

use super::executor::StoppableExecutor;
use super::file_selection::{Choice, FileSelection};

const PARTITION_VALUES: &str = "add.partitionValues";

/// How many partitions of a row group are told apart.
const PARTITIONS_MET: usize = 64 * 1024;

/// The most bytes of partition values that are kept of a row group.
const GROUP_BYTES: usize = 256 * 1024;

/// The most bytes of columns of several row groups that are fetched together.
const EARLY_BYTES: u64 = 4 * 1024 * 1024;

/// The most bytes of partition values that are kept of all row groups of a table.
const KEPT_BYTES: usize = 2 * 1024 * 1024;

/// Reads Parquet files of a log as the kernel's engine does.
pub(super) struct SelectiveReader {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) executor: Arc<StoppableExecutor>,
    pub(super) batch_rows: usize,
    /// How many files are opened ahead.
    pub(super) files_ahead: usize,
    pub(super) known: Arc<Mutex<KnownPartitions>>,
}

type Batches = BoxStream<'static, DeltaResult<RecordBatch>>;

impl SelectiveReader {
    /// How many bytes of partition values are kept.
    pub(super) fn kept_bytes(&self) -> usize {
        lock(&self.known).bytes
    }

    /// The rows of these files, as batches with this schema, without those whose `add` action is about a file that is not
    /// selected.
    pub(super) fn read(
        &self,
        files: &[FileMeta],
        schema: &SchemaRef,
        selection: &Arc<FileSelection>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        let reading = Reading {
            store: Arc::clone(&self.store),
            batch_rows: self.batch_rows,
            known: Arc::clone(&self.known),
            schema: Arc::clone(schema),
            selection: Arc::clone(selection),
        };
        let opened = stream::iter(files.to_vec()).map(move |file| reading.clone().open(file));
        let mut batches: Option<Batches> = Some(opened.buffered(self.files_ahead).try_flatten().boxed());
        let executor = Arc::clone(&self.executor);
        Ok(Box::new(std::iter::from_fn(move || {
            let mut rest = batches.take()?;
            let (next, rest) = executor.block_on(async move { (rest.next().await, rest) });
            batches = next.is_some().then_some(rest);
            Some(next?.map(|batch| Box::new(ArrowEngineData::new(batch)) as Box<dyn EngineData>))
        })))
    }
}

/// Whether actions that are read with this schema have the partition values of files.
pub(super) fn has_partition_values(schema: &SchemaRef) -> bool {
    let add = schema.field("add").map(|add| &add.data_type);
    matches!(add, Some(DataType::Struct(add)) if add.field("partitionValues").is_some())
}

#[derive(Clone)]
struct Reading {
    store: Arc<dyn ObjectStore>,
    batch_rows: usize,
    known: Arc<Mutex<KnownPartitions>>,
    schema: SchemaRef,
    selection: Arc<FileSelection>,
}

impl Reading {
    async fn open(self, file: FileMeta) -> DeltaResult<Batches> {
        let Self { store, batch_rows, known, schema, selection } = self;
        let path = Path::from_url_path(file.location.path())?;
        // The size of a sidecar is what its action says. If it is 0, it is not known.
        let size = if file.size == 0 { store.head(&path).await?.size } else { file.size };
        let mut reader = StoredFile { store, path, size, early: HashMap::new() };
        let metadata = ArrowReaderMetadata::load_async(&mut reader, reader_options()).await?;
        let (ordering, mask) = parquet_read_plan(&schema, &metadata)?;
        if ordering_needs_row_indexes(&ordering) {
            return Err(KernelError::generic("actions have no row indexes"));
        }
        let mut choices = Choices::new(selection, schema.num_fields() == 1);
        let rows = metadata.metadata().row_groups().iter().map(|group| group.num_rows().unsigned_abs());
        let rows: Vec<u64> = rows.collect();
        let key = FileKey::of(&file, metadata.metadata());
        let groups = choices.groups_to_read(&known, &key, rows.len());
        let values = ProjectionMask::columns(metadata.parquet_schema(), [PARTITION_VALUES]);
        reader.fetch_early(metadata.metadata(), &groups, &values).await;
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_batch_size(batch_rows)
            .with_row_groups(groups.clone())
            // Of nested columns, such as these, nothing is kept anyway.
            .with_max_predicate_cache_size(0);
        if let Some(mask) = mask {
            builder = builder.with_projection(mask);
        }
        let location = file.location.to_string();
        // Row groups are decoded one after the other, and no batch has rows of two.
        let mut groups = groups.into_iter().filter_map(move |group| Some((group, *rows.get(group)?)));
        let mut current = groups.next();
        let filter = ArrowPredicateFn::new(values, move |batch: RecordBatch| {
            let kept = choices.of(&batch);
            if let Some((group, left)) = &mut current {
                *left = left.saturating_sub(batch.num_rows() as u64);
                if *left == 0 {
                    choices.end_group(&known, &key, *group);
                    current = groups.next();
                }
            }
            Ok::<_, ArrowError>(kept)
        });
        let batches = builder.with_row_filter(RowFilter::new(vec![Box::new(filter)])).build()?;
        let batches = batches.map(move |batch| {
            let batch = fixup_parquet_read(batch?, &ordering, None, Some(&location), Some(&schema))?;
            Ok(batch.into())
        });
        Ok(batches.boxed())
    }
}

/// A file that columns are fetched from.
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// Columns that were fetched before the reader asks for them.
    early: HashMap<(u64, u64), Bytes>,
}

impl StoredFile {
    /// Fetches columns of several row groups together. The reader asks for those of one row group after the other, and each
    /// time takes a round trip.
    async fn fetch_early(&mut self, metadata: &ParquetMetaData, groups: &[usize], columns: &ProjectionMask) {
        let groups = groups.iter().filter_map(|&group| metadata.row_groups().get(group));
        let ranges: Vec<Range<u64>> = groups
            .flat_map(RowGroupMetaData::columns)
            .zip((0..metadata.file_metadata().schema_descr().num_columns()).cycle())
            .filter(|(_, number)| columns.leaf_included(*number))
            .map(|(column, _)| column.byte_range())
            .map(|(start, length)| start..start.saturating_add(length))
            .collect();
        let bytes = ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
        if bytes > EARLY_BYTES {
            return;
        }
        // If this fails, the reader asks again, and then it is an error.
        if let Ok(fetched) = self.store.get_ranges(&self.path, &ranges).await {
            self.early = ranges.into_iter().map(|range| (range.start, range.end)).zip(fetched).collect();
        }
    }
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.store.get_range(&self.path, range).map_err(Into::into).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            let early = ranges.iter().map(|range| self.early.get(&(range.start, range.end)).cloned());
            if let Some(early) = early.collect() {
                return Ok(early);
            }
            Ok(self.store.get_ranges(&self.path, &ranges).await?)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let options = options.map(|options| options.metadata_options().clone());
        let (reader, size) = (ParquetMetaDataReader::new().with_metadata_options(options), self.size);
        reader.load_and_finish(self, size).map_ok(Arc::new).boxed()
    }
}

/// Decides on the rows of one file. A row is dropped only if it is known not to be needed: `add` actions without partition
/// values stay.
struct Choices {
    selection: Arc<FileSelection>,
    /// Whether only `add` actions are read.
    adds_only: bool,
    group: RowGroup,
}

/// The partitions that were met in a row group.
#[derive(Default)]
struct RowGroup {
    numbers: HashMap<Vec<u8>, usize, RandomState>,
    partitions: Vec<(Choice, u64)>,
    /// The partition of the row before, and its number.
    last: (Vec<u8>, usize),
    /// Whether rows are needed whatever the partitions are.
    is_needed: bool,
    /// Whether there were too many to know them all.
    is_incomplete: bool,
}

impl Choices {
    fn new(selection: Arc<FileSelection>, adds_only: bool) -> Self {
        Self { selection, adds_only, group: RowGroup::default() }
    }

    /// Whether each row of a batch is kept.
    fn of(&mut self, batch: &RecordBatch) -> BooleanArray {
        let rows = batch.num_rows();
        let (Some(values), group) = (ValuesColumn::of(batch), &mut self.group) else {
            self.group.is_needed = true;
            return BooleanArray::from(vec![true; rows]);
        };
        let mut left_out = 0;
        let kept = (0..rows).map(|row| {
            if self.adds_only && values.add.is_null(row) {
                return false;
            }
            let Some(entries) = values.entries(row).filter(|entries| !entries.is_empty()) else {
                group.is_needed = true;
                return true;
            };
            let choice = group.meet(&values, entries, &self.selection);
            left_out += u64::from(choice == Choice::LeftOut);
            choice == Choice::Given
        });
        let kept = BooleanBuffer::from_iter(kept);
        self.selection.count_left_out(left_out);
        BooleanArray::new(kept, None)
    }

    /// The row groups of a file that have rows which are needed, or may have. Counts the files of the others.
    fn groups_to_read(&self, known: &Mutex<KnownPartitions>, file: &FileKey, groups: usize) -> Vec<usize> {
        let is_needed = |group: &usize| {
            let Some(partitions) = lock(known).get(file, *group) else { return true };
            let mut left_out = 0;
            for (partition, rows) in partitions.iter() {
                match choose(&self.selection, partition) {
                    Choice::Given => return true,
                    Choice::LeftOut => left_out += rows,
                    Choice::Withheld => {}
                }
            }
            self.selection.count_left_out(left_out);
            false
        };
        (0..groups).filter(is_needed).collect()
    }

    /// Remembers the partitions of a row group that was read to its end.
    fn end_group(&mut self, known: &Mutex<KnownPartitions>, file: &FileKey, number: usize) {
        let group = std::mem::take(&mut self.group);
        // Without other rows: whoever reads them reads the row group.
        if group.is_needed || group.is_incomplete || !self.adds_only {
            return;
        }
        let rows = |number: usize| group.partitions.get(number).map_or(0, |(_, rows)| *rows);
        let partitions: Partitions =
            group.numbers.into_iter().map(|(partition, number)| (partition, rows(number))).collect();
        lock(known).keep(file, number, partitions);
    }
}

impl RowGroup {
    /// What becomes of the file of a row.
    fn meet(&mut self, values: &ValuesColumn, entries: Range<usize>, selection: &FileSelection) -> Choice {
        // Neighbours often have the same values, and then nothing is looked up.
        if !values.are(entries.clone(), &self.last.0) {
            values.write(entries, &mut self.last.0);
            self.last.1 = match self.numbers.get(&self.last.0) {
                Some(&number) => number,
                None => self.add(selection),
            };
        }
        let Some((choice, rows)) = self.partitions.get_mut(self.last.1) else { return Choice::Given };
        *rows += 1;
        *choice
    }

    /// Adds the partition of the row, and returns its number.
    fn add(&mut self, selection: &FileSelection) -> usize {
        if self.partitions.len() >= PARTITIONS_MET {
            self.numbers.clear();
            self.partitions.clear();
            self.is_incomplete = true;
        }
        let number = self.partitions.len();
        self.partitions.push((choose(selection, &self.last.0), 0));
        self.numbers.insert(self.last.0.clone(), number);
        number
    }
}

/// Decides on the files of a partition.
fn choose(selection: &FileSelection, partition: &[u8]) -> Choice {
    let values: Vec<_> = values_of(partition).collect();
    // Of a key that occurs twice, the last value counts, as elsewhere.
    selection.choose(|name| values.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value))
}

/// Which partitions row groups have, and how many rows are about files of each. Oldest out first.
#[derive(Debug, Default)]
pub(super) struct KnownPartitions {
    files: HashMap<FileKey, HashMap<usize, Arc<Partitions>>>,
    order: VecDeque<FileKey>,
    bytes: usize,
}

type Partitions = Vec<(Vec<u8>, u64)>;

/// What tells a file from all others, also from one that is written in its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileKey {
    url: String,
    size: u64,
    last_modified: i64,
    /// The rows, the sizes and the offset of each row group. The time of a file may be known to the second only.
    groups: Vec<[i64; 4]>,
}

impl FileKey {
    fn of(file: &FileMeta, metadata: &ParquetMetaData) -> Self {
        let offset =
            |group: &RowGroupMetaData| group.columns().first().map_or(0, |column| column.data_page_offset());
        let groups = metadata.row_groups().iter();
        let groups = groups
            .map(|group| [group.num_rows(), group.total_byte_size(), group.compressed_size(), offset(group)]);
        Self {
            url: file.location.to_string(),
            size: file.size,
            last_modified: file.last_modified,
            groups: groups.collect(),
        }
    }
}

fn lock(known: &Mutex<KnownPartitions>) -> MutexGuard<'_, KnownPartitions> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KnownPartitions {
    /// The partitions of a row group, if it was read before.
    fn get(&self, file: &FileKey, group: usize) -> Option<Arc<Partitions>> {
        self.files.get(file)?.get(&group).cloned()
    }

    fn keep(&mut self, file: &FileKey, group: usize, partitions: Partitions) {
        let bytes = bytes_of(&partitions);
        if bytes > GROUP_BYTES {
            return;
        }
        if !self.files.contains_key(file) {
            self.order.push_back(file.clone());
        }
        let groups = self.files.entry(file.clone()).or_default();
        self.bytes += bytes;
        if let Some(before) = groups.insert(group, Arc::new(partitions)) {
            self.bytes -= bytes_of(&before);
        }
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            let groups = self.files.remove(&oldest).unwrap_or_default();
            self.bytes -= groups.values().map(|partitions| bytes_of(partitions)).sum::<usize>();
        }
    }
}

/// What partitions take in memory.
fn bytes_of(partitions: &Partitions) -> usize {
    partitions.iter().map(|(partition, _)| partition.len() + size_of::<(Vec<u8>, u64)>()).sum()
}

/// The partition values of a batch of actions.
struct ValuesColumn {
    add: StructArray,
    maps: MapArray,
    keys: StringArray,
    values: StringArray,
}

impl ValuesColumn {
    /// `None` if the column is not there, or has another type.
    fn of(batch: &RecordBatch) -> Option<Self> {
        let add = batch.column_by_name("add")?.as_struct_opt()?.clone();
        let maps = add.column_by_name("partitionValues")?.as_map_opt()?.clone();
        let keys: &StringArray = maps.keys().as_string_opt()?;
        let values: &StringArray = maps.values().as_string_opt()?;
        let (keys, values) = (keys.clone(), values.clone());
        (keys.null_count() == 0).then_some(Self { add, maps, keys, values })
    }

    /// The entries of a row; `None` if it has no map.
    fn entries(&self, row: usize) -> Option<Range<usize>> {
        if self.add.is_null(row) || self.maps.is_null(row) {
            return None;
        }
        let end = |at: usize| usize::try_from(*self.maps.value_offsets().get(at)?).ok();
        Some(end(row)?..end(row + 1)?)
    }

    /// Keys and values, one after the other.
    fn texts(&self, entries: Range<usize>) -> impl Iterator<Item = Option<&str>> {
        let value = |entry| (!self.values.is_null(entry)).then(|| self.values.value(entry));
        entries.flat_map(move |entry| [Some(self.keys.value(entry)), value(entry)])
    }

    /// Writes the name of a partition: keys and values, each after its length.
    fn write(&self, entries: Range<usize>, partition: &mut Vec<u8>) {
        partition.clear();
        for text in self.texts(entries) {
            partition.extend(length_of(text));
            partition.extend_from_slice(text.unwrap_or_default().as_bytes());
        }
    }

    /// Whether [`Self::write`] would write this.
    fn are(&self, entries: Range<usize>, partition: &[u8]) -> bool {
        let rest = self.texts(entries).try_fold(partition, |rest, text| {
            rest.strip_prefix(&length_of(text))?.strip_prefix(text.unwrap_or_default().as_bytes())
        });
        rest.is_some_and(<[u8]>::is_empty)
    }
}

/// The length of a text. A null has one that no text has.
fn length_of(text: Option<&str>) -> [u8; 4] {
    text.and_then(|text| u32::try_from(text.len()).ok()).unwrap_or(u32::MAX).to_le_bytes()
}

/// The keys and values that [`ValuesColumn::write`] wrote.
fn values_of(partition: &[u8]) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = partition;
    let mut next = move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        if length == u32::MAX {
            rest = after;
            return Some(None);
        }
        let (text, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        std::str::from_utf8(text).ok().map(Some)
    };
    std::iter::from_fn(move || Some((next()??, next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoyant_kernel::arrow::array::{MapBuilder, StringBuilder};

    fn column(rows: &[&[(&str, Option<&str>)]]) -> ValuesColumn {
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for row in rows {
            for (key, value) in *row {
                maps.keys().append_value(key);
                maps.values().append_option(*value);
            }
            maps.append(true).unwrap();
        }
        let maps = maps.finish();
        let (keys, values) = (maps.keys().as_string().clone(), maps.values().as_string().clone());
        ValuesColumn { add: StructArray::new_empty_fields(rows.len(), None), maps, keys, values }
    }

    #[test]
    fn names_of_partitions_are_told_apart_and_read_again() {
        let rows: [&[(&str, Option<&str>)]; 8] = [
            &[("a", Some("b"))],
            &[("a", None)],
            &[("a", Some(""))],
            &[("ab", Some(""))],
            &[("a", Some("bc"))],
            &[("ab", Some("c"))],
            &[("a", Some("b")), ("c", Some("d"))],
            &[("ä", Some("\u{10ffff}")), ("c", None)],
        ];
        let column = column(&rows);
        let mut names = Vec::new();
        for (row, expected) in rows.iter().enumerate() {
            let mut name = Vec::new();
            let entries = column.entries(row).unwrap();
            column.write(entries.clone(), &mut name);
            assert_eq!(values_of(&name).collect::<Vec<_>>(), *expected);
            assert!(column.are(entries.clone(), &name));
            assert!(!names.iter().any(|other: &Vec<u8>| column.are(entries.clone(), other)));
            names.push(name);
        }
    }

    #[test]
    fn what_is_known_of_files_is_bounded() {
        let file =
            |number| FileKey { url: "f".to_owned(), size: 1, last_modified: number, groups: Vec::new() };
        let partitions = |length: usize| vec![(vec![0; length], 1)];
        let mut known = KnownPartitions::default();
        known.keep(&file(0), 0, partitions(GROUP_BYTES));
        assert_eq!(known.bytes, 0, "too large for one row group");
        for number in 0..100 {
            known.keep(&file(number), 0, partitions(GROUP_BYTES / 2));
            known.keep(&file(number), 1, partitions(10));
            known.keep(&file(number), 1, partitions(20));
            assert!(known.bytes <= KEPT_BYTES);
            assert!(known.get(&file(number), 1).is_some());
        }
        assert!(known.get(&file(0), 1).is_none());
        let counted: usize = known.files.values().flat_map(HashMap::values).map(|kept| bytes_of(kept)).sum();
        assert_eq!(known.bytes, counted);
    }
}
