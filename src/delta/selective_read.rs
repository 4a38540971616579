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
use buoyant_kernel::object_store::{GetOptions, ObjectStore as _, ObjectStoreExt as _};
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
use super::log_store::LogStore;

const PARTITION_VALUES: &str = "add.partitionValues";

/// The most bytes of partition values that are kept of a row group, and about as many are held while it is read.
const GROUP_BYTES: usize = 256 * 1024;

/// The most bytes of columns of several row groups of a file that are fetched together.
const EARLY_BYTES: u64 = 4 * 1024 * 1024;

/// The most bytes of partition values that are kept of all row groups of a table.
const KEPT_BYTES: usize = 2 * 1024 * 1024;

/// Reads Parquet files of a log as the kernel's engine does.
pub(super) struct SelectiveReader {
    pub(super) store: Arc<LogStore>,
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
        // Only footers are read ahead: who waits for memory for a file must not have some for the next one.
        let batches = opened.buffered(self.files_ahead).and_then(OpenFile::batches).try_flatten();
        let mut batches: Option<Batches> = Some(batches.boxed());
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
    store: Arc<LogStore>,
    batch_rows: usize,
    known: Arc<Mutex<KnownPartitions>>,
    schema: SchemaRef,
    selection: Arc<FileSelection>,
}

/// A file whose footer was read.
struct OpenFile {
    reading: Reading,
    file: FileMeta,
    reader: StoredFile,
    metadata: ArrowReaderMetadata,
}

impl Reading {
    async fn open(self, file: FileMeta) -> DeltaResult<OpenFile> {
        let (store, path) = (Arc::clone(&self.store), Path::from_url_path(file.location.path())?);
        // The size of a sidecar is what its action says. If it is 0, it is not known.
        let size = if file.size == 0 { store.head(&path).await?.size } else { file.size };
        let mut reader = StoredFile { store, path, size, tag: None, early: HashMap::new() };
        let metadata = ArrowReaderMetadata::load_async(&mut reader, reader_options()).await?;
        Ok(OpenFile { reading: self, file, reader, metadata })
    }
}

impl OpenFile {
    async fn batches(self) -> DeltaResult<Batches> {
        let Self { reading, file, mut reader, metadata } = self;
        let Reading { batch_rows, known, schema, selection, .. } = reading;
        let (ordering, mask) = parquet_read_plan(&schema, &metadata)?;
        if ordering_needs_row_indexes(&ordering) {
            return Err(KernelError::generic("actions have no row indexes"));
        }
        let key = reader.tag.clone().map(|tag| FileKey { url: file.location.to_string(), tag });
        let known_groups = key.as_ref().and_then(|key| lock(&known).get(key));
        let choices = Choices::new(selection, schema.num_fields() == 1);
        let (mut groups, mut left) = (Vec::new(), VecDeque::new());
        for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
            if group.num_rows() == 0 {
                continue;
            }
            let partitions = known_groups.as_ref().and_then(|groups| groups.get(&number));
            if partitions.is_some_and(|partitions| choices.pass_over(partitions)) {
                continue;
            }
            groups.push(number);
            left.push_back((number, group.num_rows().unsigned_abs()));
        }
        let values = ProjectionMask::columns(metadata.parquet_schema(), [PARTITION_VALUES]);
        reader.fetch_early(metadata.metadata(), &groups, &values).await;
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_batch_size(batch_rows)
            .with_row_groups(groups)
            // Of nested columns, such as these, nothing is kept anyway.
            .with_max_predicate_cache_size(0);
        if let Some(mask) = mask {
            builder = builder.with_projection(mask);
        }
        let progress = Arc::new(Mutex::new(Progress { choices, batch_rows, left, groups: Vec::new() }));
        let decided = Arc::clone(&progress);
        let filter = ArrowPredicateFn::new(values, move |batch| lock(&decided).decide(&batch));
        let batches = builder.with_row_filter(RowFilter::new(vec![Box::new(filter)])).build()?;
        let location = file.location.to_string();
        let batches = batches.map(move |batch| {
            let batch = fixup_parquet_read(batch?, &ordering, None, Some(&location), Some(&schema))?;
            Ok(batch.into())
        });
        let end = stream::once(async move {
            let mut groups = lock(&progress).end()?;
            groups
                .retain(|(number, _)| known_groups.as_ref().is_none_or(|known| !known.contains_key(number)));
            if let Some(key) = key {
                lock(&known).keep(key, groups);
            }
            Ok(())
        });
        Ok(batches.chain(end.filter_map(async |end: DeltaResult<()>| end.err().map(Err))).boxed())
    }
}

/// How far a file was decided on. Row groups are decoded one after the other, and no batch has rows of two.
struct Progress {
    choices: Choices,
    batch_rows: usize,
    /// The row groups that are not over, with the rows that they still have.
    left: VecDeque<(usize, u64)>,
    /// The partitions of those that are.
    groups: Vec<(usize, Partitions)>,
}

impl Progress {
    /// Whether each row of the next batch is kept. An error if rows are missing before it, because the reader would not miss
    /// rows that nobody decides on.
    fn decide(&mut self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        self.leave_groups();
        let rows = batch.num_rows() as u64;
        let Some((_, left)) =
            self.left.front_mut().filter(|(_, left)| rows == (*left).min(self.batch_rows as u64))
        else {
            return Err(ArrowError::ParquetError(ROWS_MISSING.to_owned()));
        };
        *left -= rows;
        Ok(self.choices.of(batch))
    }

    /// Leaves row groups that are over. One without rows has no batch.
    fn leave_groups(&mut self) {
        while let Some((number, _)) = self.left.pop_front_if(|(_, left)| *left == 0) {
            self.groups.extend(self.choices.end_group().map(|partitions| (number, partitions)));
        }
    }

    /// The partitions of all row groups. An error if the file has fewer rows than it says.
    fn end(&mut self) -> DeltaResult<Vec<(usize, Partitions)>> {
        self.leave_groups();
        if !self.left.is_empty() {
            return Err(KernelError::generic(ROWS_MISSING));
        }
        Ok(std::mem::take(&mut self.groups))
    }
}

const ROWS_MISSING: &str = "a checkpoint lacks partition values of its rows";

/// A file that columns are fetched from.
struct StoredFile {
    store: Arc<LogStore>,
    path: Path,
    size: u64,
    /// The ETag that it had when its footer was read. What is read later has the same, or it is an error.
    tag: Option<String>,
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
        if ranges.is_empty() || bytes > EARLY_BYTES {
            return;
        }
        // If this fails, the reader asks again, and then it is an error.
        if let Ok(fetched) = self.store.columns_of(&self.path, &ranges, self.tag.as_ref()).await {
            self.early = ranges.into_iter().map(|range| (range.start, range.end)).zip(fetched).collect();
        }
    }
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
            let result = self.store.get_opts(&self.path, options).await?;
            let is_same = GetOptions { if_match: self.tag.clone(), ..GetOptions::default() };
            is_same.check_preconditions(&result.meta)?;
            self.tag = self.tag.take().or_else(|| result.meta.e_tag.clone());
            Ok(result.bytes().await?)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            if ranges.iter().all(|range| self.early.contains_key(&(range.start, range.end))) {
                let early = |range: &Range<u64>| self.early.get(&(range.start, range.end)).cloned();
                let found = ranges.iter().filter_map(early).collect();
                self.early.retain(|(start, _), _| ranges.iter().all(|range| range.start != *start));
                return Ok(found);
            }
            Ok(self.store.columns_of(&self.path, &ranges, self.tag.as_ref()).await?)
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
    /// Whether the files of each are selected, and in how many rows it was met.
    partitions: Vec<(bool, u64)>,
    /// The bytes of their names.
    bytes: usize,
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
            let is_selected = group.meet(&values, entries, &self.selection);
            left_out += u64::from(!is_selected);
            is_selected
        });
        let kept = BooleanBuffer::from_iter(kept);
        self.selection.count_left_out(left_out);
        BooleanArray::new(kept, None)
    }

    /// Whether a row group with these partitions has no selected file. If so, its files are counted.
    fn pass_over(&self, partitions: &Partitions) -> bool {
        if partitions.iter().any(|(partition, _)| is_selected(&self.selection, partition)) {
            return false;
        }
        self.selection.count_left_out(partitions.iter().map(|(_, rows)| rows).sum());
        true
    }

    /// The partitions of a row group that was read to its end; `None` if it must be read whatever is selected.
    fn end_group(&mut self) -> Option<Partitions> {
        let group = std::mem::take(&mut self.group);
        // Other rows than adds are not looked at: whoever wants them reads them.
        if group.is_needed || group.is_incomplete || !self.adds_only {
            return None;
        }
        let rows = |number: usize| group.partitions.get(number).map_or(0, |(_, rows)| *rows);
        Some(group.numbers.into_iter().map(|(partition, number)| (partition, rows(number))).collect())
    }
}

impl RowGroup {
    /// Whether the file of a row is selected.
    fn meet(&mut self, values: &ValuesColumn, entries: Range<usize>, selection: &FileSelection) -> bool {
        // Neighbours often have the same values, and then nothing is looked up.
        if !values.are(entries.clone(), &self.last.0) {
            values.write(entries, &mut self.last.0);
            self.last.1 = match self.numbers.get(&self.last.0) {
                Some(&number) => number,
                None => self.add(selection),
            };
        }
        let Some((is_selected, rows)) = self.partitions.get_mut(self.last.1) else { return true };
        *rows += 1;
        *is_selected
    }

    /// Adds the partition of the row, and returns its number.
    fn add(&mut self, selection: &FileSelection) -> usize {
        if self.bytes > GROUP_BYTES {
            self.numbers.clear();
            self.partitions.clear();
            (self.bytes, self.is_incomplete) = (0, true);
        }
        self.bytes += bytes_of(&self.last.0);
        let number = self.partitions.len();
        self.partitions.push((is_selected(selection, &self.last.0), 0));
        self.numbers.insert(self.last.0.clone(), number);
        number
    }
}

/// Whether the files of a partition are selected.
fn is_selected(selection: &FileSelection, partition: &[u8]) -> bool {
    let values: Vec<_> = values_of(partition).collect();
    // Of a key that occurs twice, the last value counts, as elsewhere.
    let value = |name: &str| values.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value);
    selection.choose(value) == Choice::Given
}

/// Which partitions row groups have, and how many rows are about files of each. Oldest out first.
#[derive(Debug, Default)]
pub(super) struct KnownPartitions {
    files: HashMap<FileKey, Arc<Groups>>,
    order: VecDeque<FileKey>,
    bytes: usize,
}

/// The partitions of row groups by their numbers.
type Groups = HashMap<usize, Partitions>;

type Partitions = Vec<(Vec<u8>, u64)>;

/// What tells a file from all others, also from one that is written in its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileKey {
    url: String,
    tag: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KnownPartitions {
    /// The partitions of those row groups of a file that were read before.
    fn get(&self, file: &FileKey) -> Option<Arc<Groups>> {
        self.files.get(file).cloned()
    }

    /// Adds row groups of a file that was read to its end.
    fn keep(&mut self, file: FileKey, groups: Vec<(usize, Partitions)>) {
        let small = groups.into_iter().filter(|(_, partitions)| bytes_of_group(partitions) <= GROUP_BYTES);
        let mut groups: Groups = small.collect();
        if groups.is_empty() {
            return;
        }
        if let Some(before) = self.forget(&file) {
            groups.extend(Arc::unwrap_or_clone(before));
        }
        self.bytes += bytes_of_file(&file, &groups);
        self.order.push_back(file.clone());
        self.files.insert(file, Arc::new(groups));
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.order.front().cloned() else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, file: &FileKey) -> Option<Arc<Groups>> {
        let groups = self.files.remove(file)?;
        self.order.retain(|kept| kept != file);
        self.bytes -= bytes_of_file(file, &groups);
        Some(groups)
    }
}

/// What the name of a partition takes in memory, with the rest of its entry.
fn bytes_of(partition: &[u8]) -> usize {
    partition.len() + size_of::<(Vec<u8>, u64)>()
}

fn bytes_of_group(partitions: &Partitions) -> usize {
    /// The entry of a map.
    const ENTRY: usize = 64;
    ENTRY + partitions.iter().map(|(partition, _)| bytes_of(partition)).sum::<usize>()
}

/// What is kept of a file, whose key is there twice.
fn bytes_of_file(file: &FileKey, groups: &Groups) -> usize {
    let key = size_of::<FileKey>() + file.url.len() + file.tag.len();
    2 * key + groups.values().map(bytes_of_group).sum::<usize>()
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
    use buoyant_kernel::arrow::array::{ArrayRef, MapBuilder, StringBuilder};
    use buoyant_kernel::arrow::datatypes::Field;

    use super::*;
    use crate::predicate::{FileAccess, Predicate, Table};

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

    /// Actions about files of these days.
    fn adds(days: &[&str]) -> RecordBatch {
        let rows: Vec<_> = days.iter().map(|day| [("day", Some(*day))]).collect();
        let rows: Vec<&[(&str, Option<&str>)]> = rows.iter().map(<[_; 1]>::as_slice).collect();
        let maps = column(&rows).maps;
        let field = Field::new("partitionValues", maps.data_type().clone(), true);
        let add = StructArray::new(vec![field].into(), vec![Arc::new(maps)], None);
        RecordBatch::try_from_iter([("add", Arc::new(add) as ArrayRef)]).unwrap()
    }

    fn progress(rows: &[u64]) -> Progress {
        let schema =
            r#"{"type":"struct","fields":[{"name":"day","type":"string","nullable":true,"metadata":{}}]}"#;
        let columns = ["day".to_owned()];
        let table = Table { schema, partition_columns: &columns, is_mapped: false };
        let access = FileAccess::everything().bind(table);
        let predicates: Arc<[Predicate]> = Arc::new([Predicate::from_sql("day = 'a'")]);
        let selection = FileSelection::of_table(access, &predicates, table);
        let choices = Choices::new(Arc::new(selection), true);
        Progress {
            choices,
            batch_rows: 3,
            left: (0..).zip(rows.iter().copied()).collect(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn partitions_are_those_of_their_row_group_also_after_one_without_rows() {
        let mut progress = progress(&[0, 4, 0, 2, 0]);
        let kept = |kept: BooleanArray| kept.values().iter().collect::<Vec<_>>();
        assert_eq!(kept(progress.decide(&adds(&["a", "b", "a"])).unwrap()), [true, false, true]);
        assert_eq!(kept(progress.decide(&adds(&["a"])).unwrap()), [true]);
        assert_eq!(kept(progress.decide(&adds(&["c", "c"])).unwrap()), [false, false]);
        let names = |(number, partitions): &(usize, Partitions)| {
            let mut partitions = partitions.clone();
            partitions.sort();
            let name = |partition: &[u8]| values_of(partition).next().unwrap().1.unwrap().to_owned();
            (*number, partitions.iter().map(|(name_of, rows)| (name(name_of), *rows)).collect::<Vec<_>>())
        };
        let expected =
            [(0, vec![]), (1, vec![("a", 3), ("b", 1)]), (2, vec![]), (3, vec![("c", 2)]), (4, vec![])];
        let expected = expected.map(|(number, partitions)| {
            (number, partitions.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect::<Vec<_>>())
        });
        let groups = progress.end().unwrap();
        assert_eq!(groups.iter().map(names).collect::<Vec<_>>(), expected);
        assert_eq!(progress.choices.selection.left_out(), 3);
    }

    #[test]
    fn rows_that_nobody_decides_on_are_an_error() {
        // The first row group ends before its last row.
        let mut short = progress(&[5, 3]);
        assert!(short.decide(&adds(&["a", "a"])).is_err());
        let mut ended = progress(&[4, 3]);
        ended.decide(&adds(&["a", "a", "a"])).unwrap();
        assert!(ended.decide(&adds(&["a", "a", "a"])).is_err());
        // So that the next one seems to be the rest of it.
        let mut shifted = progress(&[6, 3]);
        shifted.decide(&adds(&["a", "a", "a"])).unwrap();
        shifted.decide(&adds(&["a", "a", "a"])).unwrap();
        assert!(shifted.end().is_err());
        let mut long = progress(&[3]);
        long.decide(&adds(&["a", "a", "a"])).unwrap();
        assert!(long.decide(&adds(&["a"])).is_err());
    }

    #[test]
    fn what_is_known_of_files_is_bounded() {
        let file = |number| FileKey { url: "f".to_owned(), tag: format!("{number}") };
        let partitions = |length: usize| vec![(vec![0; length], 1)];
        let mut known = KnownPartitions::default();
        known.keep(file(0), vec![(0, partitions(GROUP_BYTES))]);
        assert_eq!(known.bytes, 0, "too large for one row group");
        for number in 0..100 {
            known.keep(file(number), vec![(0, partitions(GROUP_BYTES / 2)), (1, Vec::new())]);
            known.keep(file(number), vec![(1, partitions(20)), (2, partitions(20))]);
            assert!(known.bytes <= KEPT_BYTES);
            assert_eq!(known.get(&file(number)).unwrap().len(), 3);
        }
        assert!(known.get(&file(0)).is_none());
        let counted: usize = known.files.iter().map(|(file, groups)| bytes_of_file(file, groups)).sum();
        assert_eq!((known.bytes, known.order.len()), (counted, known.files.len()));
    }
}
