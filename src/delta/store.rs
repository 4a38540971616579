//! The table's store as the log reader sees it: read-only, and with a memory for what is read more than once.
//!
//! The kernel reads every commit twice (once for protocol and metadata, once for files) and every Parquet
//! footer three times. On S3 each of those is a round trip. Small commits are kept whole, and of a
//! checkpoint the end, which holds the footer and, in a small one, everything.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::engine::LAST_CHECKPOINT;
use super::log_path::{LogFile, file_name};
use super::mend::{last_of_each, mended};
use crate::limits::Limits;

/// Larger commits are streamed each time, and put right only if they have to be.
pub(super) const COMMIT_BYTES: u64 = 1024 * 1024;

/// How much of the end of a Parquet file is read with its footer.
const TAIL_BYTES: u64 = 256 * 1024;

/// What is kept of one table's log.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// Parquet readers ask for these bytes first: the length of the metadata and the magic number.
const PARQUET_FOOTER_BYTES: u64 = 8;

#[derive(Debug)]
pub(super) struct LogStore {
    inner: Arc<dyn ObjectStore>,
    kept: Arc<Mutex<Kept>>,
    /// Whether the actions of commits are put right.
    mends: bool,
    limits: Limits,
}

/// Bytes of files, oldest out first.
#[derive(Debug, Default)]
struct Kept {
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
}

impl LogStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self { inner, kept: Arc::default(), mends: false, limits }
    }

    /// The same store, with the same memory, where the actions of commits are put right.
    pub(super) fn mending(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            kept: Arc::clone(&self.kept),
            mends: true,
            limits: self.limits,
        }
    }

    pub(super) fn mends(&self) -> bool {
        self.mends
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(kept) = self.kept().get(location, options.range.as_ref()) {
            return kept;
        }
        let name = location.filename().unwrap_or_default();
        match &options.range {
            None if matches!(LogFile::parse(file_name(name)), Some(LogFile::Commit(_))) => {
                self.commit(location, options).await
            }
            Some(GetRange::Bounded(range))
                if name.ends_with(".parquet")
                    && range.end.checked_sub(range.start) == Some(PARQUET_FOOTER_BYTES) =>
            {
                let wanted = range.clone();
                self.tail(location, wanted, options).await
            }
            None if name == LAST_CHECKPOINT => {
                let result = self.inner.get_opts(location, options).await?;
                match result.meta.size > self.limits.last_checkpoint_bytes {
                    true => Err(too_large(location, self.limits.last_checkpoint_bytes)),
                    false => Ok(result),
                }
            }
            _ => self.inner.get_opts(location, options).await,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn commit(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(location, options).await?;
        if result.meta.size > COMMIT_BYTES {
            return Ok(result);
        }
        let mut meta = result.meta.clone();
        let data = result.bytes().await?;
        if data.len() as u64 != meta.size {
            return Err(short(location));
        }
        let data = last_of_each(&data).map_or(data, Bytes::from);
        meta.size = data.len() as u64;
        let piece = Piece { meta, start: 0, data };
        self.kept().keep(location, &piece)?;
        piece.all()
    }

    /// Reads the end of a Parquet file of which the last bytes are wanted.
    async fn tail(&self, location: &Path, wanted: Range<u64>, options: GetOptions) -> Result<GetResult> {
        let start = wanted.end.saturating_sub(TAIL_BYTES);
        let range = Some(GetRange::Bounded(start..wanted.end));
        let result = self.inner.get_opts(location, GetOptions { range, ..options }).await?;
        let meta = result.meta.clone();
        let piece = Piece { meta, start, data: result.bytes().await? };
        // The size in a listing or a sidecar action may be wrong; then these are not the last bytes.
        if piece.meta.size == wanted.end {
            self.kept().keep(location, &piece)?;
        }
        piece.get(&wanted).unwrap_or_else(|| Err(short(location)))
    }
}

impl Kept {
    fn get(&self, location: &Path, range: Option<&GetRange>) -> Option<Result<GetResult>> {
        let piece = self.files.get(location)?;
        match range {
            None => (piece.start == 0).then(|| piece.all()),
            Some(GetRange::Bounded(range)) => piece.get(range),
            Some(GetRange::Offset(_) | GetRange::Suffix(_)) => None,
        }
    }

    fn keep(&mut self, location: &Path, piece: &Piece) -> Result<()> {
        if piece.start + piece.data.len() as u64 != piece.meta.size {
            return Err(short(location));
        }
        self.forget(location);
        self.bytes += piece.data.len();
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
        let changed = self.files.get(&listed.location).is_some_and(|Piece { meta, .. }| {
            // The precision of the time differs between a listing and a file in some stores.
            meta.size != listed.size
                || match (&meta.e_tag, &listed.e_tag) {
                    (Some(kept), Some(listed)) => kept != listed,
                    _ => meta.last_modified != listed.last_modified,
                }
        });
        if changed {
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
            self.bytes -= piece.data.len();
        }
    }
}

impl Piece {
    fn all(&self) -> Result<GetResult> {
        Ok(self.result(self.start..self.meta.size, self.data.clone()))
    }

    /// `None` where the range is not within the piece.
    fn get(&self, range: &Range<u64>) -> Option<Result<GetResult>> {
        let start = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (start < end && end <= self.data.len())
            .then(|| Ok(self.result(range.clone(), self.data.slice(start..end))))
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

fn too_large(location: &Path, limit: u64) -> Error {
    Error::Generic { store: "log", source: format!("{location} is larger than {limit} bytes").into() }
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
            return self.inner.get_opts(location, options).await;
        }
        let is_json = location.filename().is_some_and(|name| name.ends_with(".json"));
        if !self.mends || !is_json || options.range.is_some() {
            return self.get(location, options).await;
        }
        let read = self.get(location, options).await?;
        let mut meta = read.meta.clone();
        let data = mended(&read.bytes().await?);
        let data = if meta.size > COMMIT_BYTES { last_of_each(&data).unwrap_or(data) } else { data };
        let data = Bytes::from(data);
        meta.size = data.len() as u64;
        Piece { meta, start: 0, data }.all()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let kept = Arc::clone(&self.kept);
        let listed = self.inner.list_with_offset(prefix, offset);
        listed
            .inspect(move |file| {
                if let Ok(file) = file {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).compare(file);
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
