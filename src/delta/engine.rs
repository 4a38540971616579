//! The kernel's engine, fenced in: it reads nothing outside the table's `_delta_log` and writes nothing.
//!
//! A sidecar's path is third-party input and may be any URL; the kernel's own engine would fetch one that
//! looks presigned over HTTP. It also reads a commit of zero bytes as an empty one. Both are refused here.
//! An engine can also hide damaged checkpoints, so that a snapshot is built from what is whole.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use buoyant_kernel::schema::{DataType, SchemaRef, StructField, StructType};
use buoyant_kernel::{
    DeltaResult, DeltaResultIterator, DeltaResultIteratorStatic, Engine, EngineData, Error as KernelError,
    EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSlice, FilteredEngineData, JsonHandler,
    ParquetFooter, ParquetHandler, PredicateRef, StorageHandler,
};
use buoyant_kernel_engine::{DefaultEngine, DefaultEngineBuilder};
use bytes::Bytes;
use futures::future::join;
use url::Url;

use super::action_guard::{check_names, check_texts};
use super::executor::{StoppableExecutor, batch_is_decoded, unless_stopped, wait_for_memory};
use super::failure::{Cause, cause, failure, store_cause};
use super::file_selection::FileSelection;
use super::log_names::{LAST_CHECKPOINT, LogFile, file_name};
use super::log_store::{COMMIT_BYTES, LogStore, View};
use super::look::is_unchanged;
use super::prefetch::{Hint, Prefetch};
use super::read_ahead::ReadAhead;
use super::repeats::{no_repeats, subjects};
use super::selective_read::{KnownPartitions, SelectiveReader, has_partition_values};
use crate::limits::Limits;
use crate::s3_error::S3ErrorKind;

/// Rows of a batch: large enough to amortise the kernel's work per batch, small enough to stay in cache.
const BATCH_ROWS: NonZero<usize> = NonZero::new(4096).unwrap();

/// The same if files are so large that their actions may be, too: columns by the thousand have statistics of many
/// kilobytes for each file.
const SMALL_BATCH_ROWS: NonZero<usize> = NonZero::new(512).unwrap();

/// Files from this size on are read in small batches.
const LARGE_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Files opened ahead: commits are fetched together, of a checkpoint's parts only the footers. One row group
/// is in memory at a time.
const FILES_READ_AHEAD: NonZero<usize> = NonZero::new(16).unwrap();

/// The files that a view of the log leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HiddenFiles {
    /// `_last_checkpoint`.
    pub(super) last_checkpoint: bool,
    /// Every checkpoint file of these versions.
    pub(super) checkpoints: BTreeSet<u64>,
}

/// The kernel's engines, which differ in the size of their batches.
#[derive(Clone)]
struct KernelEngines {
    common: Arc<DefaultEngine<StoppableExecutor>>,
    for_large_files: Arc<DefaultEngine<StoppableExecutor>>,
    /// The reader of checkpoints of which only some files are needed, for files of both kinds.
    selective: [Arc<SelectiveReader>; 2],
}

/// A listing of a log, as far as it was wanted.
pub(super) struct LogPage {
    /// By their names.
    pub(super) files: Vec<FileMeta>,
    /// Those that the kernel does not see.
    pub(super) hidden: Vec<FileMeta>,
    /// Whether these are all files of the log.
    pub(super) is_whole: bool,
}

/// The engine of one table, or a view of it.
pub(super) struct LogEngine {
    inner: KernelEngines,
    store: Arc<LogStore>,
    runtime: tokio::runtime::Handle,
    fence: Arc<Fence>,
}

impl LogEngine {
    /// `root` ends with a slash.
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        root: Url,
        runtime: tokio::runtime::Handle,
        limits: Limits,
    ) -> Self {
        let view = View { mends: false, every_action: false, batch_rows: BATCH_ROWS.get() };
        let store = Arc::new(LogStore::new(store, view, limits));
        let inner = KernelEngines::new(&store, &runtime);
        let mut log = root.clone();
        log.set_path(&format!("{}_delta_log/", root.path()));
        let fence = Arc::new(Fence {
            root,
            log,
            hidden: HiddenFiles::default(),
            listing: None,
            listings_left: None,
            lenient: false,
            selection: None,
            sound: Sound::default(),
        });
        Self { inner, store, runtime, fence }
    }

    fn behind(&self, fence: Fence) -> Self {
        let (inner, store, runtime) = (self.inner.clone(), Arc::clone(&self.store), self.runtime.clone());
        Self { inner, store, runtime, fence: Arc::new(fence) }
    }

    /// The same engine over a log that lacks some files.
    pub(super) fn hiding(&self, hidden: HiddenFiles) -> Self {
        self.behind(Fence { hidden, listing: None, ..self.fence.as_ref().clone() })
    }

    /// The same view of the log, whose actions are put right before they are read.
    pub(super) fn mending(&self) -> Self {
        let store = Arc::new(self.store.viewed(View { mends: true, ..self.store.view() }));
        let inner = KernelEngines::new(&store, &self.runtime);
        let fence = Arc::new(Fence { lenient: true, ..self.fence.as_ref().clone() });
        Self { inner, store, runtime: self.runtime.clone(), fence }
    }

    /// The same view, which reads only selected files from checkpoints. Those of commits are all read.
    pub(super) fn selecting(&self, selection: &Arc<FileSelection>) -> Self {
        self.behind(Fence { selection: Some(Arc::clone(selection)), ..self.fence.as_ref().clone() })
    }

    /// Which files are read from checkpoints, if not all are.
    pub(super) fn selection(&self) -> Option<&Arc<FileSelection>> {
        self.fence.selection.as_ref()
    }

    /// Whether actions are put right before they are read.
    pub(super) fn mends(&self) -> bool {
        self.store.view().mends
    }

    /// The same view, which does not repeat a listing that it has.
    pub(super) fn with_listing(&self, files: Vec<FileMeta>) -> Self {
        self.behind(Fence { listing: Some(files.into()), ..self.fence.as_ref().clone() })
    }

    /// The same view, which makes only so many listings. To find an older version, the kernel makes one for every
    /// thousand versions until it meets a checkpoint or version 0, whatever versions there are.
    pub(super) fn searching(&self, listings: u64) -> Self {
        let listings_left = Some(Arc::new(AtomicU64::new(listings)));
        self.behind(Fence { listings_left, ..self.fence.as_ref().clone() })
    }

    /// Whether a search took all the listings it may make.
    pub(super) fn is_exhausted(&self) -> bool {
        self.fence.listings_left.as_ref().is_some_and(|left| left.load(Ordering::Relaxed) == 0)
    }

    /// The files of the versions from `version` on, in the order of their names.
    pub(super) fn list_from(&self, version: u64) -> DeltaResult<Vec<FileMeta>> {
        let log = self.log();
        let start = self.log_file(&format!("{version:020}"));
        let mut files = Vec::new();
        for file in self.storage_handler().list_from(&start)? {
            let file = file?;
            let name = file.location.path().strip_prefix(log.path()).unwrap_or_default();
            // Names of versions come first; `_sidecars/` and others may hold thousands of files.
            if name.bytes().next().is_some_and(|byte| byte > b'9') {
                break;
            }
            files.push(file);
        }
        Ok(files)
    }

    /// The first files of the log, at most so many, and at the same time what `_last_checkpoint` says, if anything.
    /// Blocks.
    pub(super) fn first_page(&self, most: usize) -> DeltaResult<(LogPage, DeltaResult<Option<Hint>>)> {
        let log = Path::from(self.log().path());
        let hint = Path::from(self.log_file(LAST_CHECKPOINT).path());
        let hint = async { self.store.get(&hint).await?.bytes().await };
        // The thread may block, as for the requests that these replace.
        let (hint, listed) = self.runtime.block_on(join(hint, self.store.files_from(&log, 0, most)));
        let hint = match hint {
            Ok(hint) => Ok(Hint::read(&hint)),
            Err(error) if is_no_hint(store_cause(&error)) => Ok(None),
            Err(error) => Err(error.into()),
        };
        Ok((self.page(listed?), hint))
    }

    /// The files of the versions from `version` on. Blocks.
    pub(super) fn page_from(&self, version: u64) -> DeltaResult<LogPage> {
        let log = Path::from(self.log().path());
        let listed = self.runtime.block_on(self.store.files_from(&log, version, usize::MAX))?;
        Ok(self.page(listed))
    }

    fn page(&self, (listed, is_whole): (Vec<ObjectMeta>, bool)) -> LogPage {
        let in_log = |file: ObjectMeta| {
            let mut location = self.log().clone();
            location.set_path(&format!("/{}", file.location));
            let last_modified = file.last_modified.timestamp_millis();
            self.fence.in_log(FileMeta { location, last_modified, size: file.size })
        };
        let (hidden, files) =
            listed.into_iter().filter_map(in_log).partition(|file| self.fence.hides(&file.location));
        LogPage { files, hidden, is_whole }
    }

    /// What fetches files of the log before they are asked for.
    pub(super) fn prefetch(&self) -> Prefetch {
        Prefetch::new(&self.store, &self.runtime)
    }

    /// Whole commits with every action, fetched together, in this order.
    pub(super) fn read_ahead(&self, commits: Vec<FileMeta>) -> DeltaResult<ReadAhead> {
        self.fence.admit_all(&commits)?;
        let store = Arc::new(self.store.viewed(View { every_action: true, ..self.store.view() }));
        Ok(ReadAhead::new(store, self.runtime.clone(), commits))
    }

    /// Whether `known`, the commit of `version`, is still the same file, and there is no commit of the next version. If the
    /// result is `false`, only a listing can tell what happened. Blocks.
    pub(super) fn is_unchanged(&self, known: &FileMeta, version: u64) -> DeltaResult<bool> {
        self.fence.admit(&known.location)?;
        let next = self.log_file(&format!("{:020}.json", version + 1));
        // The thread may block, as for the listing that this replaces.
        let unchanged = self.runtime.block_on(unless_stopped(is_unchanged(&self.store, known, &next)));
        Ok(unchanged?)
    }

    /// Waits until there is so much memory to decode actions. Blocks.
    pub(super) fn wait_for_memory(&self, bytes: u64) -> crate::error::Result<()> {
        wait_for_memory(&self.runtime, bytes, 0).map_err(|error| failure(error.into()))
    }

    /// A handler of the kernel's engines behind the fence.
    fn fenced<H: ?Sized>(&self, handler: impl Fn(&dyn Engine) -> Arc<H>) -> Arc<FencedHandler<H>> {
        Arc::new(FencedHandler {
            inner: handler(self.inner.common.as_ref()),
            for_large_files: handler(self.inner.for_large_files.as_ref()),
            selective: self.inner.selective.clone(),
            fence: Arc::clone(&self.fence),
            limits: *self.store.limits(),
            runtime: self.runtime.clone(),
        })
    }

    /// Its store.
    pub(super) fn store(&self) -> &Arc<LogStore> {
        &self.store
    }

    /// About how many bytes of memory it and its other views keep.
    pub(super) fn kept_bytes(&self) -> usize {
        let sound = self.fence.sound.lock().unwrap_or_else(PoisonError::into_inner).len();
        let sound = sound * (size_of::<(String, u64, i64)>() + 2 * self.log().as_str().len());
        // Both readers have the same.
        let partitions = self.inner.selective.first().map_or(0, |reader| reader.kept_bytes());
        self.store.kept_bytes() + sound + partitions
    }

    /// What this view leaves out.
    pub(super) fn hidden(&self) -> &HiddenFiles {
        &self.fence.hidden
    }

    /// The URL of the table.
    pub(super) fn root(&self) -> &Url {
        &self.fence.root
    }

    /// The URL of a file in `_delta_log/`.
    pub(super) fn log_file(&self, name: &str) -> Url {
        let mut file = self.log().clone();
        file.set_path(&format!("{}{name}", self.log().path()));
        file
    }

    /// The URL of `_delta_log/`.
    pub(super) fn log(&self) -> &Url {
        &self.fence.log
    }
}

impl KernelEngines {
    fn new(store: &Arc<LogStore>, runtime: &tokio::runtime::Handle) -> Self {
        let executor = Arc::new(StoppableExecutor::new(runtime.clone()));
        let engine = |store: &Arc<LogStore>, batch_rows| {
            let engine = DefaultEngineBuilder::new(Arc::clone(store) as Arc<dyn ObjectStore>)
                .with_task_executor(Arc::clone(&executor))
                .with_batch_size(batch_rows)
                .with_buffer_size(FILES_READ_AHEAD)
                .build();
            Arc::new(engine)
        };
        let known = Arc::<Mutex<KnownPartitions>>::default();
        let selective = |store: &Arc<LogStore>, batch_rows: NonZero<usize>| {
            Arc::new(SelectiveReader {
                store: Arc::clone(store),
                executor: Arc::clone(&executor),
                batch_rows: batch_rows.get(),
                files_ahead: FILES_READ_AHEAD.get(),
                known: Arc::clone(&known),
            })
        };
        let small = Arc::new(store.viewed(View { batch_rows: SMALL_BATCH_ROWS.get(), ..store.view() }));
        Self {
            common: engine(store, BATCH_ROWS),
            for_large_files: engine(&small, SMALL_BATCH_ROWS),
            selective: [selective(store, BATCH_ROWS), selective(&small, SMALL_BATCH_ROWS)],
        }
    }
}

impl Engine for LogEngine {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.inner.common.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.fenced(|engine| engine.storage_handler())
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        self.fenced(|engine| engine.json_handler())
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        self.fenced(|engine| engine.parquet_handler())
    }
}

#[derive(Clone)]
struct Fence {
    root: Url,
    log: Url,
    hidden: HiddenFiles,
    /// By the names of the files.
    listing: Option<Arc<[FileMeta]>>,
    listings_left: Option<Arc<AtomicU64>>,
    /// Whether a checkpoint may lack the partition values of its files.
    lenient: bool,
    /// Which files of checkpoints are read, if not all are.
    selection: Option<Arc<FileSelection>>,
    /// Large commits in which no action takes back another one.
    sound: Sound,
}

/// Commits by their URL, size and time.
type Sound = Arc<Mutex<HashSet<(String, u64, i64)>>>;

/// How many such commits are remembered.
const SOUND_COMMITS: usize = 10_000;

impl Fence {
    fn admit(&self, url: &Url) -> DeltaResult<()> {
        let inside = url.scheme() == self.log.scheme()
            && url.host_str() == self.log.host_str()
            && url.port() == self.log.port()
            && url.query().is_none()
            && url.path().starts_with(self.log.path());
        if inside { Ok(()) } else { Err(KernelError::generic("the log names a file outside the log")) }
    }

    fn admit_all(&self, files: &[FileMeta]) -> DeltaResult<()> {
        files.iter().try_for_each(|file| self.admit(&file.location))
    }

    /// Puts a listed file where the log is. The kernel's engine does not encode a `%` in the path again, so
    /// that its URLs may name another file. `None` for what lies deeper than the log.
    fn in_log(&self, mut file: FileMeta) -> Option<FileMeta> {
        let listed = file.location.path();
        if listed.split('/').count() != self.log.path().split('/').count() {
            return None;
        }
        // No log has versions beyond these, and the kernel counts on to the next one.
        let name = file_name(listed);
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit) && LogFile::parse(name).is_none() {
            return None;
        }
        let path = format!("{}{name}", self.log.path());
        file.location = self.log.clone();
        file.location.set_path(&path);
        Some(file)
    }

    fn hides(&self, url: &Url) -> bool {
        let name = file_name(url.path());
        if name == LAST_CHECKPOINT {
            return self.hidden.last_checkpoint;
        }
        // The kernel would believe a checksum about protocol and metadata. Our own reader asks for it by its name.
        if name.ends_with(".crc") {
            return true;
        }
        match LogFile::parse(name) {
            Some(LogFile::Checkpoint(version)) => self.hidden.checkpoints.contains(&version),
            Some(LogFile::Commit(_) | LogFile::Other) | None => false,
        }
    }
}

struct FencedHandler<H: ?Sized> {
    inner: Arc<H>,
    for_large_files: Arc<H>,
    selective: [Arc<SelectiveReader>; 2],
    fence: Arc<Fence>,
    limits: Limits,
    runtime: tokio::runtime::Handle,
}

impl<H: ?Sized> FencedHandler<H> {
    /// The handler that reads these files.
    fn suited(&self, files: &[FileMeta]) -> &H {
        if has_large(files) { &self.for_large_files } else { &self.inner }
    }

    /// Batches of actions, checked as they are read, and read as there is memory for them.
    fn checked(&self, mut batches: FileDataReadResultIterator) -> FileDataReadResultIterator {
        let (limits, runtime) = (self.limits, self.runtime.clone());
        let mut next = 0;
        Box::new(std::iter::from_fn(move || {
            if next > 0
                && let Err(error) = wait_for_memory(&runtime, next, next)
            {
                return Some(Err(error.into()));
            }
            let batch = batches.next();
            next = batch_is_decoded();
            let batch = batch?;
            Some(batch.and_then(|batch| {
                check_names(batch.as_ref(), &limits)?;
                Ok(batch)
            }))
        }))
    }
}

fn has_large(files: &[FileMeta]) -> bool {
    files.iter().any(|file| file.size >= LARGE_FILE_BYTES)
}

/// Whether a failed request for `_last_checkpoint` means that there is none. S3 answers 403 for a file that does not exist if the
/// caller may list only a part of the bucket.
fn is_no_hint(cause: Cause) -> bool {
    matches!(cause, Cause::Missing | Cause::Denied | Cause::Storage(S3ErrorKind::Key | S3ErrorKind::Archived))
}

/// Keeps the version of `_last_checkpoint`. The schema and the actions that it may repeat are the
/// checkpoint's to tell: a hint that is wrong about them would hide files.
fn version_of_hint(hint: &[u8]) -> Bytes {
    match Hint::read(hint) {
        // The kernel requires `size`, and uses it for nothing but its log.
        Some(Hint { version, .. }) => Bytes::from(format!(r#"{{"version":{version},"size":0}}"#)),
        None => Bytes::new(),
    }
}

/// The schema of actions, in which partition values may be null: a checkpoint may then lack the column. Whoever reads a file
/// of a partitioned table misses them. A checkpoint that lacks another column would hide files, and stays damaged.
fn with_nullable_values(schema: &SchemaRef) -> DeltaResult<SchemaRef> {
    let with_nullable = |field: &StructField| StructField {
        nullable: field.nullable || field.name == "partitionValues",
        ..field.clone()
    };
    let actions = schema.fields().map(|action| match &action.data_type {
        DataType::Struct(fields) if action.name == "add" => {
            let fields = StructType::try_new(fields.fields().map(with_nullable))?;
            Ok(StructField { data_type: fields.into(), ..action.clone() })
        }
        _ => Ok(action.clone()),
    });
    let actions: Vec<StructField> = actions.collect::<DeltaResult<_>>()?;
    Ok(Arc::new(StructType::try_new(actions)?))
}

fn read_only<T>() -> DeltaResult<T> {
    Err(KernelError::unsupported("this engine only reads"))
}

impl StorageHandler for FencedHandler<dyn StorageHandler> {
    fn list_from(&self, path: &Url) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<FileMeta>>>> {
        self.fence.admit(path)?;
        let fence = Arc::clone(&self.fence);
        if let Some(left) = &fence.listings_left {
            let took = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if took.is_err() {
                return Err(KernelError::generic("the log has no checkpoint where one is looked for"));
            }
        }
        if let Some(listing) = fence.listing.clone() {
            let first = listing.partition_point(|file| file.location.path() <= path.path());
            let later = (first..listing.len()).filter_map(move |at| listing.get(at).cloned());
            return Ok(Box::new(later.filter(move |file| !fence.hides(&file.location)).map(Ok)));
        }
        let files = self.inner.list_from(path)?;
        Ok(Box::new(files.filter_map(move |file| match file {
            Ok(file) => fence.in_log(file).filter(|file| !fence.hides(&file.location)).map(Ok),
            Err(error) => Some(Err(error)),
        })))
    }

    fn read_files(&self, files: Vec<FileSlice>) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<Bytes>>>> {
        for (url, _) in &files {
            self.fence.admit(url)?;
        }
        let is_hidden = |url: &Url| self.fence.hides(url) && !url.path().ends_with(".crc");
        if let Some((url, _)) = files.iter().find(|(url, _)| is_hidden(url)) {
            return Ok(Box::new(std::iter::once(Err(KernelError::file_not_found(url)))));
        }
        let is_hint = files.iter().any(|(url, _)| file_name(url.path()) == LAST_CHECKPOINT);
        let read = self.inner.read_files(files)?;
        if !is_hint {
            return Ok(read);
        }
        let log = self.fence.log.clone();
        Ok(Box::new(read.map(move |hint| match hint {
            Ok(hint) => Ok(version_of_hint(&hint)),
            Err(error) if is_no_hint(cause(&error)) => Err(KernelError::file_not_found(&log)),
            Err(error) => Err(error),
        })))
    }

    fn copy_atomic(&self, _: &Url, _: &Url) -> DeltaResult<()> {
        read_only()
    }

    fn put(&self, _: &Url, _: Bytes, _: bool) -> DeltaResult<()> {
        read_only()
    }

    fn head(&self, path: &Url) -> DeltaResult<FileMeta> {
        self.fence.admit(path)?;
        self.inner.head(path)
    }

    fn delete(&self, _: &Url) -> DeltaResult<()> {
        read_only()
    }
}

impl FencedHandler<dyn JsonHandler> {
    /// The batches of a large commit, after a first pass has shown that no action takes back another one. What was sent of
    /// the commit could not be taken back.
    fn once_sound(
        &self,
        commit: &FileMeta,
        batches: FileDataReadResultIterator,
    ) -> DeltaResult<FileDataReadResultIterator> {
        let name = (commit.location.to_string(), commit.size, commit.last_modified);
        let sound = Arc::clone(&self.fence.sound);
        if sound.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) {
            return Ok(batches);
        }
        let commit = std::slice::from_ref(commit);
        let first_pass = self.suited(commit).read_json_files(commit, subjects()?, None)?;
        let first_pass = self.checked(first_pass);
        let check = std::iter::once_with(move || {
            no_repeats(first_pass)?;
            let mut sound = sound.lock().unwrap_or_else(PoisonError::into_inner);
            // To forget all of them is simple, and costs each commit one more pass.
            if sound.len() >= SOUND_COMMITS {
                sound.clear();
            }
            sound.insert(name);
            Ok(())
        });
        Ok(Box::new(check.filter_map(|checked: DeltaResult<()>| checked.err().map(Err)).chain(batches)))
    }
}

impl JsonHandler for FencedHandler<dyn JsonHandler> {
    fn parse_json(
        &self,
        json_strings: Box<dyn EngineData>,
        output_schema: SchemaRef,
    ) -> DeltaResult<Box<dyn EngineData>> {
        check_texts(json_strings.as_ref(), &self.limits, BATCH_ROWS.get())?;
        self.inner.parse_json(json_strings, output_schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        physical_schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        self.fence.admit_all(files)?;
        if files.iter().any(|file| file.size == 0) {
            return Err(KernelError::generic("a commit has no bytes"));
        }
        let is_large = |file: &FileMeta| file.size > COMMIT_BYTES;
        if self.fence.lenient || !files.iter().any(is_large) {
            let batches = self.suited(files).read_json_files(files, physical_schema, predicate)?;
            return Ok(self.checked(batches));
        }
        let groups = files.chunk_by(|file, next| !is_large(file) && !is_large(next)).map(|group| {
            let schema = Arc::clone(&physical_schema);
            let batches = self.suited(group).read_json_files(group, schema, predicate.clone())?;
            let batches = self.checked(batches);
            Ok(match group {
                [commit] if is_large(commit) => self.once_sound(commit, batches)?,
                _ => batches,
            })
        });
        let groups: Vec<FileDataReadResultIterator> = groups.collect::<DeltaResult<_>>()?;
        Ok(Box::new(groups.into_iter().flatten()))
    }

    fn write_json_file(
        &self,
        _: &Url,
        _: DeltaResultIterator<'_, FilteredEngineData>,
        _: bool,
    ) -> DeltaResult<u64> {
        read_only()
    }
}

impl ParquetHandler for FencedHandler<dyn ParquetHandler> {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        physical_schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        self.fence.admit_all(files)?;
        let schema =
            if self.fence.lenient { with_nullable_values(&physical_schema)? } else { physical_schema };
        let batches = match &self.fence.selection {
            Some(selection) if has_partition_values(&schema) => {
                let [common, for_large_files] = &self.selective;
                let reader = if has_large(files) { for_large_files } else { common };
                reader.read(files, &schema, selection)?
            }
            _ => self.suited(files).read_parquet_files(files, schema, predicate)?,
        };
        Ok(self.checked(batches))
    }

    fn write_parquet_file(
        &self,
        _: Url,
        _: DeltaResultIteratorStatic<Box<dyn EngineData>>,
    ) -> DeltaResult<()> {
        read_only()
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> DeltaResult<ParquetFooter> {
        self.fence.admit(&file.location)?;
        self.inner.read_parquet_footer(file)
    }
}
