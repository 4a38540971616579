//! Reads from checkpoints only what a list of selected files needs.
//!
//! The partition values of a row group are decoded first. The other columns, statistics and paths above all, are then decoded
//! for the rows of selected files, and pages without such a row are not unpacked. A row group without one is not fetched
//! any further.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

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
use buoyant_kernel::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
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

/// For how many different partition values it is remembered what becomes of their files.
const CHOICES_KEPT: usize = 64 * 1024;

/// Reads Parquet files of a log as the kernel's engine does.
pub(super) struct SelectiveReader {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) executor: Arc<StoppableExecutor>,
    pub(super) batch_rows: usize,
    /// How many files are opened ahead.
    pub(super) files_ahead: usize,
}

type Batches = BoxStream<'static, DeltaResult<RecordBatch>>;

impl SelectiveReader {
    /// The rows of these files, as batches with this schema, without those whose `add` action is about a file that is not
    /// selected.
    pub(super) fn read(
        &self,
        files: &[FileMeta],
        schema: &SchemaRef,
        selection: &Arc<FileSelection>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        let (store, batch_rows, files_ahead) = (Arc::clone(&self.store), self.batch_rows, self.files_ahead);
        let (files, schema, selection) = (files.to_vec(), Arc::clone(schema), Arc::clone(selection));
        let opened = stream::iter(files).map(move |file| {
            open(Arc::clone(&store), file, Arc::clone(&schema), Arc::clone(&selection), batch_rows)
        });
        let mut batches: Option<Batches> = Some(opened.buffered(files_ahead).try_flatten().boxed());
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

async fn open(
    store: Arc<dyn ObjectStore>,
    file: FileMeta,
    schema: SchemaRef,
    selection: Arc<FileSelection>,
    batch_rows: usize,
) -> DeltaResult<Batches> {
    let location = file.location.to_string();
    let path = Path::from_url_path(file.location.path())?;
    // The size of a sidecar is what its action says. If it is 0, it is not known.
    let size = if file.size == 0 { store.head(&path).await?.size } else { file.size };
    let mut reader = StoredFile { store, path, size };
    let metadata = ArrowReaderMetadata::load_async(&mut reader, reader_options()).await?;
    let (ordering, mask) = parquet_read_plan(&schema, &metadata)?;
    if ordering_needs_row_indexes(&ordering) {
        return Err(KernelError::generic("actions have no row indexes"));
    }
    let values = ProjectionMask::columns(metadata.parquet_schema(), [PARTITION_VALUES]);
    let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
        .with_batch_size(batch_rows)
        // Of nested columns, such as these, nothing is kept anyway.
        .with_max_predicate_cache_size(0);
    if let Some(mask) = mask {
        builder = builder.with_projection(mask);
    }
    let mut choices = Choices::new(selection);
    let filter = ArrowPredicateFn::new(values, move |batch| Ok::<_, ArrowError>(choices.of(&batch)));
    let batches = builder.with_row_filter(RowFilter::new(vec![Box::new(filter)])).build()?;
    let batches = batches.map(move |batch| {
        let batch = fixup_parquet_read(batch?, &ordering, None, Some(&location), Some(&schema))?;
        Ok(batch.into())
    });
    Ok(batches.boxed())
}

/// A file that columns are fetched from.
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.store.get_range(&self.path, range).map_err(Into::into).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
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

/// Decides on the rows of one file. A row is dropped only if its file is known not to be selected: those without an `add`
/// action, and those without partition values, stay.
struct Choices {
    selection: Arc<FileSelection>,
    /// What was decided, by the partition values: many files have the same.
    known: HashMap<Vec<u8>, Choice, RandomState>,
    key: Vec<u8>,
}

impl Choices {
    fn new(selection: Arc<FileSelection>) -> Self {
        Self { selection, known: HashMap::default(), key: Vec::new() }
    }

    /// Whether each row of a batch is kept.
    fn of(&mut self, batch: &RecordBatch) -> BooleanArray {
        let rows = batch.num_rows();
        let Some(values) = ValuesColumn::of(batch) else { return BooleanArray::from(vec![true; rows]) };
        let (mut left_out, mut last) = (0, Choice::Given);
        self.key.clear();
        let kept = (0..rows).map(|row| {
            let Some(entries) = values.entries(row).filter(|entries| !entries.is_empty()) else {
                return true;
            };
            // Neighbours often have the same values, and then nothing is looked up.
            if !values.has_key(entries.clone(), &self.key) {
                values.write_key(entries.clone(), &mut self.key);
                last = self.choose(&values, entries);
            }
            left_out += u64::from(last == Choice::LeftOut);
            last == Choice::Given
        });
        let kept = BooleanBuffer::from_iter(kept);
        self.selection.count_left_out(left_out);
        BooleanArray::new(kept, None)
    }

    fn choose(&mut self, values: &ValuesColumn, entries: Range<usize>) -> Choice {
        if let Some(&known) = self.known.get(&self.key) {
            return known;
        }
        // Of a key that occurs twice, the last value counts, as elsewhere.
        let find = |name: &str| entries.clone().rev().find(|&entry| values.keys.value(entry) == name);
        let choice = self.selection.choose(|name| find(name).map(|entry| values.value(entry)));
        if self.known.len() >= CHOICES_KEPT {
            self.known.clear();
        }
        self.known.insert(self.key.clone(), choice);
        choice
    }
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

    fn value(&self, entry: usize) -> Option<&str> {
        (!self.values.is_null(entry)).then(|| self.values.value(entry))
    }

    /// The parts of a text that tells entries from all others, each after its length. The length of a null is one that no
    /// text has.
    fn parts(&self, entries: Range<usize>) -> impl Iterator<Item = (u32, &[u8])> {
        entries
            .flat_map(|entry| [Some(self.keys.value(entry)), self.value(entry)])
            .map(|text| text.map_or((u32::MAX, &[] as &[u8]), |text| (text.len() as u32, text.as_bytes())))
    }

    fn write_key(&self, entries: Range<usize>, key: &mut Vec<u8>) {
        key.clear();
        key.extend((entries.len() as u32).to_le_bytes());
        for (length, text) in self.parts(entries) {
            key.extend(length.to_le_bytes());
            key.extend_from_slice(text);
        }
    }

    /// Whether `key` is what [`Self::write_key`] would write.
    fn has_key(&self, entries: Range<usize>, key: &[u8]) -> bool {
        let Some(rest) = key.strip_prefix(&(entries.len() as u32).to_le_bytes()) else { return false };
        let rest = self.parts(entries).try_fold(rest, |rest, (length, text)| {
            rest.strip_prefix(&length.to_le_bytes())?.strip_prefix(text)
        });
        rest.is_some_and(<[u8]>::is_empty)
    }
}
