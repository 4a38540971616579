//! The table's store as the log reader sees it: read-only, and with a memory for what is read more than once.
//!
//! The kernel reads every commit twice (once for protocol and metadata, once for files) and every Parquet
//! footer three times. On S3 each of those is a round trip. Small commits are kept whole, and of a
//! checkpoint the end, which holds the footer and, in a small one, everything.
//!
//! Every byte of a log passes here before a parser sees it, so this is where it is checked against the limits.

use std::collections::{HashMap, VecDeque};
use std::io::Read as _;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, coalesce_ranges,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::executor::{memory_for, stoppable, unless_stopped};
use super::json_guard::JsonGuard;
use super::log_names::{LAST_CHECKPOINT, LogFile, file_name};
use super::log_rejection::LogRejection;
use super::mend::{last_of_each, mended};
use super::parquet_footer::{END_BYTES, Footer};
use crate::gate::LARGE_BATCH;
use crate::limits::Limits;

/// Larger commits are streamed each time, and put right only if they have to be.
pub(super) const COMMIT_BYTES: u64 = 1024 * 1024;

/// How much of the end of a Parquet file is read with its footer.
pub(super) const TAIL_BYTES: u64 = 256 * 1024;

/// What is kept of one table's log.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// What a file that is kept takes besides its bytes and its path, which is there three times.
const FILE_BYTES: usize = 600;

/// Parquet readers ask for these bytes first: the length of the metadata and the magic number.
const PARQUET_FOOTER_BYTES: u64 = END_BYTES as u64;

/// How many columns of row groups are remembered of the Parquet files that are being read.
const COLUMNS_KEPT: usize = 256 * 1024;

/// How many times the bytes of a batch its actions take while they are decoded from JSON.
pub(super) const JSON_FACTOR: u64 = 4;

/// The same for Parquet.
const PARQUET_FACTOR: u64 = 3;

/// From how many bytes on a batch of JSON is a large one, so that memory for all that it may become is waited for.
const LARGE_JSON: u64 = LARGE_BATCH / JSON_FACTOR;

/// How much of a local file is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct LogStore {
    inner: Arc<dyn ObjectStore>,
    kept: Arc<Mutex<KeptPieces>>,
    footers: Arc<Mutex<Footers>>,
    /// What is fetched before the kernel asks for it.
    fetches: Arc<Mutex<HashMap<Path, Fetch>>>,
    /// The commit that was listed last: the newest one, if the listing went on to the end of the log.
    listed: Arc<Mutex<Option<ObjectMeta>>>,
    view: View,
    /// The most bytes of a row group that were fetched together. A paused list of files may hold as many.
    row_group_bytes: Arc<AtomicUsize>,
    limits: Limits,
}

/// Which part of a file is fetched before it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// A small file, as a whole.
    Whole,
    /// The end of a Parquet file that has so many bytes.
    End(u64),
    /// At most so many bytes.
    Start(u64),
}

impl Part {
    /// How the kernel asks for it.
    fn range(self) -> Option<GetRange> {
        match self {
            Self::Whole => None,
            Self::End(size) => Some(GetRange::Bounded(size.saturating_sub(PARQUET_FOOTER_BYTES)..size)),
            Self::Start(most) => Some(GetRange::Bounded(0..most)),
        }
    }
}

/// A request that was sent before the file is asked for. All who ask for the file wait for it.
#[derive(Debug, Clone)]
struct Fetch {
    range: Option<GetRange>,
    /// Its sender is dropped when the request is over.
    over: watch::Receiver<()>,
    result: Arc<Mutex<Option<Fetched>>>,
}

impl Fetch {
    /// Whether it is over and a listing shows that the file is another one by now.
    fn is_of_another(&self, listed: &ObjectMeta) -> bool {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*result, Some(Ok(Some(piece))) if piece.is_of_another(listed))
    }
}

/// What was fetched, unless that is kept.
type Fetched = Result<Option<Piece>>;

/// How a store is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Whether the actions of commits are put right.
    pub(super) mends: bool,
    /// Whether a commit is read with every action, as its changes need it: also those that a later action of the same
    /// commit takes back.
    pub(super) every_action: bool,
    /// How many actions a parser holds at most.
    pub(super) batch_rows: usize,
}

/// Footers of Parquet files that were checked, oldest out first.
#[derive(Debug, Default)]
struct Footers {
    files: HashMap<Path, Arc<Footer>>,
    order: VecDeque<Path>,
    columns: usize,
    bytes: usize,
}

/// Bytes of files, oldest out first.
#[derive(Debug, Default)]
struct KeptPieces {
    files: HashMap<Path, Piece>,
    order: VecDeque<Path>,
    bytes: usize,
}

/// Some bytes of a file, up to its end.
#[derive(Debug, Clone)]
struct Piece {
    meta: ObjectMeta,
    start: u64,
    data: Bytes,
    /// A whole commit as it was written, if `data` lacks some of its actions.
    written: Option<Bytes>,
}

impl LogStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, view: View, limits: Limits) -> Self {
        let (kept, footers, fetches, listed, row_group_bytes) = Default::default();
        Self { inner, kept, footers, fetches, listed, row_group_bytes, view, limits }
    }

    /// The same store, with the same memory, read in another way.
    pub(super) fn viewed(&self, view: View) -> Self {
        let (inner, kept, footers, fetches, listed) = (
            Arc::clone(&self.inner),
            Arc::clone(&self.kept),
            Arc::clone(&self.footers),
            Arc::clone(&self.fetches),
            Arc::clone(&self.listed),
        );
        let row_group_bytes = Arc::clone(&self.row_group_bytes);
        Self { inner, kept, footers, fetches, listed, row_group_bytes, view, limits: self.limits }
    }

    pub(super) fn view(&self) -> View {
        self.view
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// About how many bytes of memory this and its other views keep: bytes of files, and footers.
    pub(super) fn kept_bytes(&self) -> usize {
        let kept = self.kept();
        let files: usize = kept.files.keys().map(|path| FILE_BYTES + 3 * path.as_ref().len()).sum();
        kept.bytes + files + self.footers().bytes
    }

    /// About how many bytes a list of files holds that was paused within a checkpoint.
    pub(super) fn row_group_bytes(&self) -> usize {
        self.row_group_bytes.load(Ordering::Relaxed)
    }

    /// Reads a commit as it is now, whatever was kept of it. Keeps it, unless it is large.
    pub(super) async fn read_commit(&self, location: &Path) -> Result<()> {
        self.kept().forget(location);
        self.read(location, GetOptions::default()).await.map(drop)
    }

    /// Whether the commit that was listed last, with the time `last_modified`, has the same ETag as `found`.
    pub(super) fn has_listed(&self, found: &ObjectMeta, last_modified: i64) -> bool {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.as_ref().is_some_and(|listed| {
            listed.location == found.location
                && listed.last_modified.timestamp_millis() == last_modified
                && listed.e_tag.is_some()
                && listed.e_tag == found.e_tag
        })
    }

    /// Lists the files of versions from `version` on, at most so many. The result also says whether these are all.
    pub(super) async fn files_from(
        &self,
        log: &Path,
        version: u64,
        most: usize,
    ) -> Result<(Vec<ObjectMeta>, bool)> {
        let mut listed = self.list_with_offset(Some(log), &log.clone().join(format!("{version:020}")));
        let mut files = Vec::new();
        while files.len() < most {
            let Some(file) = listed.next().await.transpose()? else { return Ok((files, true)) };
            let name = file.location.prefix_match(log).and_then(|mut rest| rest.next());
            // Names of versions come first; `_sidecars/` and others may hold thousands of files.
            if name.is_some_and(|name| name.as_ref().bytes().next().is_some_and(|byte| byte > b'9')) {
                return Ok((files, true));
            }
            files.push(file);
        }
        Ok((files, false))
    }

    /// Sends a request before the file is asked for, as soon as it is `turn`. Whoever asks while it is under way gets its answer
    /// or its error.
    pub(super) fn fetch(
        self: &Arc<Self>,
        runtime: &Handle,
        location: &Path,
        part: Part,
        turn: impl Future<Output: Send> + Send + 'static,
    ) -> AbortHandle {
        let (sender, over) = watch::channel(());
        let result = Arc::new(Mutex::new(None));
        let fetch = Fetch { range: part.range(), over, result: Arc::clone(&result) };
        self.fetches().insert(location.clone(), fetch);
        let (this, location) = (Arc::clone(self), location.clone());
        // Not on behalf of a request: others may get the answer.
        let task = runtime.spawn(async move {
            let _turn = turn.await;
            let fetched = this.fetched(&location, part).await;
            // A failure must not be remembered, and what is kept need not be.
            if !matches!(fetched, Ok(Some(_))) {
                this.forget_fetch(&location);
            }
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetched);
            drop(sender);
        });
        task.abort_handle()
    }

    /// Forgets a request that was sent before the file was asked for.
    pub(super) fn forget_fetch(&self, location: &Path) {
        self.fetches().remove(location);
    }

    async fn fetched(&self, location: &Path, part: Part) -> Fetched {
        let options = GetOptions { range: part.range(), ..GetOptions::default() };
        let result = self.read(location, options.clone()).await?;
        if self.kept().get(location, options.range.as_ref(), self.view).is_some() {
            return Ok(None);
        }
        // What grew since it was listed is left to whoever reads it in pieces.
        if result.range.end - result.range.start > COMMIT_BYTES {
            return Ok(None);
        }
        let meta = result.meta.clone();
        Ok(Some(Piece { meta, start: 0, data: result.bytes().await?, written: None }))
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<Path, Fetch>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // Before what is kept is looked at: a request under way is forgotten after its answer is kept.
        let fetch = self.fetches().get(location).cloned();
        if let Some(mut fetch) = fetch {
            // Nothing is ever sent.
            let _ = fetch.over.changed().await;
            let fetched = fetch.result.lock().unwrap_or_else(PoisonError::into_inner).take();
            match fetched {
                Some(Ok(Some(piece))) => {
                    self.forget_fetch(location);
                    if fetch.range == options.range {
                        return piece.all(self.view);
                    }
                }
                Some(Err(error)) if fetch.range == options.range => return Err(error),
                // The answer is kept, or it went to somebody else, or the request was ended.
                Some(Ok(None) | Err(_)) | None => {}
            }
        }
        if let Some(kept) = self.kept().get(location, options.range.as_ref(), self.view) {
            return kept;
        }
        self.read(location, options).await
    }

    /// Reads from S3, and keeps what is read more than once.
    async fn read(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let name = location.filename().unwrap_or_default();
        let is_parquet = name.ends_with(".parquet");
        match &options.range {
            None if matches!(LogFile::parse(file_name(name)), Some(LogFile::Commit(_))) => {
                self.commit(location, options).await
            }
            Some(GetRange::Bounded(range))
                if is_parquet && range.end.checked_sub(range.start) == Some(PARQUET_FOOTER_BYTES) =>
            {
                let wanted = range.clone();
                self.tail(location, Some(wanted), options).await
            }
            // If the log does not tell the size.
            Some(GetRange::Suffix(PARQUET_FOOTER_BYTES)) if is_parquet => {
                self.tail(location, None, options).await
            }
            None if name == LAST_CHECKPOINT => {
                let result = self.inner.get_opts(location, options).await?;
                match result.meta.size > self.limits.last_checkpoint_bytes {
                    // The log is listed then.
                    true => Err(LogRejection::Malformed.into()),
                    false => Ok(result),
                }
            }
            None if name.ends_with(".json") => self.small_json(location, options).await,
            None => Err(LogRejection::Malformed.into()),
            Some(GetRange::Bounded(range))
                if range.end.saturating_sub(range.start) > self.limits.log_commit_bytes =>
            {
                Err(LogRejection::Commit.into())
            }
            Some(_) => self.inner.get_opts(location, options).await,
        }
    }

    fn kept(&self) -> MutexGuard<'_, KeptPieces> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn commit(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(location, options).await?;
        if result.meta.size > COMMIT_BYTES {
            return Ok(self.guarded(result));
        }
        let mut meta = result.meta.clone();
        let data = result.bytes().await?;
        if data.len() as u64 != meta.size {
            return Err(short(location));
        }
        self.guard().count(&data)?;
        let (data, written) = match last_of_each(&data) {
            Some(last) => (Bytes::from(last), Some(data)),
            None => (data, None),
        };
        meta.size = data.len() as u64;
        let piece = Piece { meta, start: 0, data, written };
        self.kept().keep(location, &piece)?;
        piece.all(self.view)
    }

    /// A file of actions that is not a commit. A small one is kept, because the kernel reads a checkpoint in JSON three
    /// times.
    async fn small_json(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(location, options).await?;
        if result.meta.size > COMMIT_BYTES {
            return Ok(self.guarded(result));
        }
        let meta = result.meta.clone();
        let data = result.bytes().await?;
        self.guard().count(&data)?;
        let piece = Piece { meta, start: 0, data, written: None };
        self.kept().keep(location, &piece)?;
        piece.all(self.view)
    }

    fn guard(&self) -> JsonGuard {
        JsonGuard::new(&self.limits, self.view.batch_rows)
    }

    /// The same file, whose pieces are counted before they are handed on.
    fn guarded(&self, result: GetResult) -> GetResult {
        let guard = self.guard();
        let batch_limit = self.limits.log_batch_bytes;
        let GetResult { payload, meta, range, attributes, .. } = result;
        let left = meta.size;
        let pieces = match payload {
            GetResultPayload::Stream(pieces) => pieces,
            GetResultPayload::File(file, _) => pieces_of(file),
        };
        let counted = futures::stream::try_unfold(
            (pieces, guard, left),
            move |(mut pieces, mut guard, left)| async move {
                let Some(piece) = pieces.next().await.transpose()? else { return Ok(None) };
                let before = guard.batch();
                guard.count(&piece)?;
                let left = left.saturating_sub(piece.len() as u64);
                if (before..guard.batch()).contains(&LARGE_JSON) {
                    let most = guard.batch().saturating_add(left).min(batch_limit);
                    memory_for(most.saturating_mul(JSON_FACTOR), 0).await?;
                }
                Ok(Some((piece, (pieces, guard, left))))
            },
        );
        GetResult { payload: GetResultPayload::Stream(counted.boxed()), meta, range, attributes }
    }

    /// Reads the end of a Parquet file and checks its footer. `wanted` are its last bytes as the log tells its size.
    async fn tail(
        &self,
        location: &Path,
        wanted: Option<Range<u64>>,
        options: GetOptions,
    ) -> Result<GetResult> {
        let range = match &wanted {
            Some(wanted) => GetRange::Bounded(wanted.end.saturating_sub(TAIL_BYTES)..wanted.end),
            None => GetRange::Suffix(TAIL_BYTES),
        };
        let read =
            |range| self.inner.get_opts(location, GetOptions { range: Some(range), ..options.clone() });
        let result = read(range).await?;
        let (meta, start) = (result.meta.clone(), result.range.start);
        let mut piece = Piece { meta, start, data: result.bytes().await?, written: None };
        let end = piece.meta.size;
        let last = end.saturating_sub(PARQUET_FOOTER_BYTES)..end;
        // The size in a listing or a sidecar action may be wrong; then these are not the last bytes.
        if wanted.is_some_and(|wanted| wanted != last) || start + piece.data.len() as u64 != end {
            return Err(short(location));
        }
        if let Some(bytes) = Footer::metadata_bytes(&piece.data) {
            if bytes > self.limits.parquet_footer_bytes {
                return Err(LogRejection::Footer.into());
            }
            let Some(start) = last.start.checked_sub(bytes) else {
                return Err(LogRejection::Malformed.into());
            };
            if start < piece.start {
                piece.data = read(GetRange::Bounded(start..end)).await?.bytes().await?;
                piece.start = start;
            }
            let metadata = piece.bytes(&(start..last.start)).ok_or_else(|| short(location))?;
            let footer = Footer::read(&metadata, end, &self.limits)?;
            self.footers().keep(location, footer);
        }
        self.kept().keep(location, &piece)?;
        piece.get(&last).unwrap_or_else(|| Err(short(location)))
    }

    fn footers(&self) -> MutexGuard<'_, Footers> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads columns of a Parquet file as long as it has this ETag.
    pub(super) async fn columns_of(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
        tag: Option<&String>,
    ) -> Result<Vec<Bytes>> {
        let read = unless_stopped(self.columns(location, ranges, tag)).await;
        if let Err(Error::Precondition { .. }) = read {
            // The next reader begins with the footer of the new file.
            self.kept().forget(location);
            self.footers().drop_file(location);
        }
        read
    }

    /// Reads columns of a row group, and checks what they unpack into.
    async fn columns(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
        tag: Option<&String>,
    ) -> Result<Vec<Bytes>> {
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start));
        let packed = bytes.fold(0, u64::saturating_add);
        if packed > self.limits.parquet_row_group_bytes {
            return Err(LogRejection::RowGroup.into());
        }
        memory_for(packed, 0).await?;
        self.row_group_bytes.fetch_max(usize::try_from(packed).unwrap_or(usize::MAX), Ordering::Relaxed);
        let fetch = |range| async move {
            let (range, if_match) = (Some(GetRange::Bounded(range)), tag.cloned());
            let options = GetOptions { range, if_match, ..GetOptions::default() };
            self.get_columns(location, options).await?.bytes().await
        };
        let fetched = coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await?;
        let known = self.footers().files.get(location).cloned();
        let footer = match known {
            Some(footer) => footer,
            // Others were read in between.
            None => {
                self.tail(location, None, GetOptions::default()).await?;
                self.footers().files.get(location).cloned().ok_or_else(|| short(location))?
            }
        };
        let batch = footer.check(ranges, &fetched, self.view.batch_rows as u64, &self.limits)?;
        let batch = batch.saturating_mul(PARQUET_FACTOR);
        memory_for(packed.saturating_add(batch), batch).await?;
        Ok(fetched)
    }

    async fn get_columns(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(Ok(kept)) = self.kept().get(location, options.range.as_ref(), self.view) {
            options.check_preconditions(&kept.meta)?;
            return Ok(kept);
        }
        self.inner.get_opts(location, options).await
    }
}

/// Reads a local file. Pieces are larger than the ones that its store would make.
fn pieces_of(file: std::fs::File) -> BoxStream<'static, Result<Bytes>> {
    let next = |file: std::fs::File| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = (&file).take(PIECE_BYTES as u64).read_to_end(&mut piece);
            read.map(|_| (Bytes::from(piece), file))
        });
        match read.await {
            Ok(Ok((piece, file))) => Ok((!piece.is_empty()).then_some((piece, file))),
            Ok(Err(error)) => Err(Error::Generic { store: "log", source: error.into() }),
            Err(source) => Err(Error::JoinError { source }),
        }
    };
    futures::stream::try_unfold(file, next).boxed()
}

impl Footers {
    fn drop_file(&mut self, location: &Path) {
        if let Some(footer) = self.files.remove(location) {
            self.forget(&footer);
            self.order.retain(|kept| kept != location);
        }
    }

    fn keep(&mut self, location: &Path, footer: Footer) {
        self.columns += footer.len();
        self.bytes += footer.kept_bytes();
        match self.files.insert(location.clone(), Arc::new(footer)) {
            Some(before) => self.forget(&before),
            None => self.order.push_back(location.clone()),
        }
        while self.columns > COLUMNS_KEPT && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(footer) = self.files.remove(&oldest) {
                self.forget(&footer);
            }
        }
    }

    fn forget(&mut self, footer: &Footer) {
        self.columns -= footer.len();
        self.bytes -= footer.kept_bytes();
    }
}

impl KeptPieces {
    fn get(&self, location: &Path, range: Option<&GetRange>, view: View) -> Option<Result<GetResult>> {
        let piece = self.files.get(location)?;
        match range {
            None => (piece.start == 0).then(|| piece.all(view)),
            Some(GetRange::Bounded(range)) => piece.get(range),
            Some(GetRange::Offset(_) | GetRange::Suffix(_)) => None,
        }
    }

    fn keep(&mut self, location: &Path, piece: &Piece) -> Result<()> {
        if piece.start + piece.data.len() as u64 != piece.meta.size {
            return Err(short(location));
        }
        self.forget(location);
        self.bytes += piece.bytes_kept();
        self.files.insert(location.clone(), piece.clone());
        self.order.push_back(location.clone());
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.drop_file(&oldest);
        }
        Ok(())
    }

    /// Forgets a file that a listing shows to be another one by now.
    fn compare(&mut self, listed: &ObjectMeta) {
        if self.files.get(&listed.location).is_some_and(|piece| piece.is_of_another(listed)) {
            self.forget(&listed.location);
        }
    }

    fn forget(&mut self, location: &Path) {
        if self.files.contains_key(location) {
            self.order.retain(|kept| kept != location);
            self.drop_file(location);
        }
    }

    fn drop_file(&mut self, location: &Path) {
        if let Some(piece) = self.files.remove(location) {
            self.bytes -= piece.bytes_kept();
        }
    }
}

impl Piece {
    /// Whether a listing shows that the file is another one by now.
    fn is_of_another(&self, listed: &ObjectMeta) -> bool {
        // The precision of the time differs between a listing and a file in some stores.
        self.meta.size != listed.size
            || match (&self.meta.e_tag, &listed.e_tag) {
                (Some(kept), Some(listed)) => kept != listed,
                _ => self.meta.last_modified != listed.last_modified,
            }
    }

    fn all(&self, view: View) -> Result<GetResult> {
        let written = self.written.as_ref().filter(|_| view.every_action);
        let data = written.unwrap_or(&self.data).clone();
        Ok(self.result(self.start..self.start + data.len() as u64, data))
    }

    fn bytes_kept(&self) -> usize {
        self.data.len() + self.written.as_ref().map_or(0, Bytes::len)
    }

    /// `None` if the range is not within the piece.
    fn get(&self, range: &Range<u64>) -> Option<Result<GetResult>> {
        self.bytes(range).map(|data| Ok(self.result(range.clone(), data)))
    }

    /// `None` if the range is not within the piece, or empty.
    fn bytes(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (start < end && end <= self.data.len()).then(|| self.data.slice(start..end))
    }

    fn result(&self, range: Range<u64>, data: Bytes) -> GetResult {
        GetResult {
            payload: GetResultPayload::Stream(futures::stream::once(async move { Ok(data) }).boxed()),
            meta: self.meta.clone(),
            range,
            attributes: Default::default(),
        }
    }
}

fn short(location: &Path) -> Error {
    Error::Generic {
        store: "log",
        source: format!("Out of range of file {location}: it is shorter than the log says").into(),
    }
}

fn read_only<T>() -> Result<T> {
    Err(Error::NotSupported { source: "the log is only read".into() })
}

impl std::fmt::Display for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for LogStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return unless_stopped(self.inner.get_opts(location, options)).await;
        }
        let is_json = location.filename().is_some_and(|name| name.ends_with(".json"));
        if !self.view.mends || !is_json || options.range.is_some() {
            return unless_stopped(self.get(location, options)).await;
        }
        let read = unless_stopped(self.get(location, options)).await?;
        let mut meta = read.meta.clone();
        if meta.size > self.limits.log_commit_bytes {
            return Err(LogRejection::Commit.into());
        }
        let data = mended(&read.bytes().await?);
        let large = meta.size > COMMIT_BYTES && !self.view.every_action;
        let data = if large { last_of_each(&data).unwrap_or(data) } else { data };
        // What was left out or put right may have changed what the rest means.
        self.guard().count(&data)?;
        let data = Bytes::from(data);
        meta.size = data.len() as u64;
        Piece { meta, start: 0, data, written: None }.all(self.view)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if location.filename().is_some_and(|name| name.ends_with(".parquet")) {
            return unless_stopped(self.columns(location, ranges, None)).await;
        }
        let fetch = |range| self.get_range(location, range);
        coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stoppable(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (kept, last, fetches) =
            (Arc::clone(&self.kept), Arc::clone(&self.listed), Arc::clone(&self.fetches));
        let listed = stoppable(self.inner.list_with_offset(prefix, offset));
        listed
            .inspect(move |file| {
                let Ok(file) = file else { return };
                kept.lock().unwrap_or_else(PoisonError::into_inner).compare(file);
                let mut fetches = fetches.lock().unwrap_or_else(PoisonError::into_inner);
                if fetches.get(&file.location).is_some_and(|fetch| fetch.is_of_another(file)) {
                    fetches.remove(&file.location);
                }
                drop(fetches);
                let name = file.location.filename().unwrap_or_default();
                if let Some(LogFile::Commit(_)) = LogFile::parse(name) {
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.clone());
                }
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        read_only()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only()
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations.map(|_| read_only()).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        read_only()
    }
}
