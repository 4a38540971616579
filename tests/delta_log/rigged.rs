//! A store in memory that counts requests, dates files, and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use buoyant_kernel::object_store::memory::InMemory;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use chrono::DateTime;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

/// How requests fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Denied,
    Throttled,
    TimedOut,
    /// One request fails, and none after it.
    Once,
    /// Requests are not answered.
    Silent,
}

#[derive(Debug, Default)]
pub(crate) struct Rigged {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) lists: AtomicUsize,
    pub(crate) gets: AtomicUsize,
    /// File name to modification time, in milliseconds.
    pub(crate) dates: Mutex<BTreeMap<String, i64>>,
    /// File names that listings leave out.
    pub(crate) unlisted: Mutex<BTreeSet<String>>,
    pub(crate) fault: Mutex<Option<Fault>>,
    /// How many milliseconds an answer is on its way after it has been made.
    pub(crate) takes: AtomicU64,
    /// Whether reading a file tells its time to the second, as HTTP does, and listings to the millisecond.
    pub(crate) whole_seconds: AtomicBool,
    /// Whether files have no ETag.
    pub(crate) untagged: AtomicBool,
    /// Whether a file that does not exist is answered with 403, as in S3 without `s3:ListBucket`.
    pub(crate) hides_missing: AtomicBool,
    /// Whether listings are answered with 403.
    pub(crate) refuses_lists: AtomicBool,
    /// File names whose reads are answered with 403.
    pub(crate) refused: Mutex<BTreeSet<String>>,
    reading: AtomicUsize,
    /// How many files were read at the same time, at most.
    pub(crate) most_at_once: AtomicUsize,
}

impl Rigged {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The numbers of listings and of reads (GET and HEAD) since the last call.
    pub(crate) fn requests(&self) -> (usize, usize) {
        (self.lists.swap(0, Ordering::SeqCst), self.gets.swap(0, Ordering::SeqCst))
    }

    pub(crate) fn date(&self, name: &str, millis: i64) {
        self.dates.lock().unwrap().insert(name.to_owned(), millis);
    }

    pub(crate) fn fail(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Whether a fault of one request has been used up.
    pub(crate) fn has_failed(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }

    /// Never returns while the store is silent, as it is when the request comes.
    async fn answer(&self) {
        if *self.fault.lock().unwrap() == Some(Fault::Silent) {
            std::future::pending().await
        }
    }

    /// What is answered, after it was on its way.
    async fn arrives(&self) {
        let most = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(most, Ordering::SeqCst);
        let takes = self.takes.load(Ordering::SeqCst);
        if takes > 0 {
            tokio::time::sleep(Duration::from_millis(takes)).await;
        }
        self.reading.fetch_sub(1, Ordering::SeqCst);
    }

    /// The answer of S3 to those who may not list.
    fn hidden(&self, location: &Path, error: Error) -> Error {
        match error {
            Error::NotFound { .. } if self.hides_missing.load(Ordering::SeqCst) => denied(location),
            error => error,
        }
    }

    fn check(&self, location: &str) -> Result<()> {
        let source = |text: &str| text.to_owned().into();
        let mut fault = self.fault.lock().unwrap();
        let now = *fault;
        if now == Some(Fault::Once) {
            *fault = None;
        }
        match now {
            None | Some(Fault::Silent) => Ok(()),
            Some(Fault::Denied | Fault::Once) => {
                Err(Error::PermissionDenied { path: location.to_owned(), source: source("AccessDenied") })
            }
            Some(Fault::Throttled) => Err(Error::Generic {
                store: "S3",
                source: source("Server returned non-2xx status code: 503 Service Unavailable: SlowDown"),
            }),
            Some(Fault::TimedOut) => Err(Error::Generic {
                store: "S3",
                source: source("error sending request: operation timed out"),
            }),
        }
    }
}

fn denied(location: &Path) -> Error {
    Error::PermissionDenied { path: location.to_string(), source: "AccessDenied".into() }
}

fn dated(dates: &BTreeMap<String, i64>, mut meta: ObjectMeta) -> ObjectMeta {
    if let Some(&millis) = meta.location.filename().and_then(|name| dates.get(name)) {
        meta.last_modified = DateTime::from_timestamp_millis(millis).unwrap();
    }
    meta
}

impl std::fmt::Display for Rigged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rigged")
    }
}

#[async_trait]
impl ObjectStore for Rigged {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.answer().await;
        self.check(location.as_ref())?;
        if location.filename().is_some_and(|name| self.refused.lock().unwrap().contains(name)) {
            return Err(denied(location));
        }
        let result = self.inner.get_opts(location, options).await;
        self.arrives().await;
        let mut result = result.map_err(|error| self.hidden(location, error))?;
        let mut meta = dated(&self.dates.lock().unwrap(), result.meta);
        if self.whole_seconds.load(Ordering::SeqCst) {
            meta.last_modified = DateTime::from_timestamp(meta.last_modified.timestamp(), 0).unwrap();
        }
        if self.untagged.load(Ordering::SeqCst) {
            meta.e_tag = None;
        }
        result.meta = meta;
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.answer().await;
        self.check(location.as_ref())?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = self.check("list") {
            return futures::stream::once(async move { Err(error) }).boxed();
        }
        if self.refuses_lists.load(Ordering::SeqCst) {
            return futures::stream::once(async { Err(denied(&Path::from("list"))) }).boxed();
        }
        if *self.fault.lock().unwrap() == Some(Fault::Silent) {
            return futures::stream::pending().boxed();
        }
        let takes = Duration::from_millis(self.takes.load(Ordering::SeqCst));
        let arrives = futures::stream::once(tokio::time::sleep(takes)).filter_map(async |()| None);
        let unlisted = self.unlisted.lock().unwrap().clone();
        let dates = self.dates.lock().unwrap().clone();
        let listed = self.inner.list(prefix);
        arrives
            .chain(listed)
            .try_filter(move |file| {
                futures::future::ready(!file.location.filename().is_some_and(|name| unlisted.contains(name)))
            })
            .map_ok(move |file| dated(&dates, file))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
