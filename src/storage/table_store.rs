//! The object store through which one table's log is read, and nothing else.
//!
//! The log names other files (sidecars, checkpoint parts, deletion vectors), and the log is third-party
//! input. So the store has a root of its own: a URL whose path is one opaque segment, with the table's root
//! under it. No path that the log can write leads out of it.
//! The opaque segment also keeps a root with odd characters (`%`, spaces) out of the URLs that the kernel
//! makes, which it does not always decode as often as it encodes them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, coalesce_ranges,
};

use super::local::LocalDirectory;
use super::s3::S3Bucket;

/// How long a request may take until its answer begins, with all retries: longer than the client of S3 retries, whose own
/// error says more.
const ANSWER_BEGINS: Duration = Duration::from_secs(12);

/// How long a piece of a body may be waited for.
const PIECE_COMES: Duration = Duration::from_secs(30);

/// How long a range of a file may take.
const RANGE_ENDS: Duration = Duration::from_secs(60);

/// A read-only view of one table's root.
#[derive(Debug)]
pub(super) struct RootedStore {
    /// The first segment of every path.
    name: String,
    backend: Backend,
}

/// What is behind the opaque segment.
#[derive(Debug)]
enum Backend {
    S3 { bucket: Arc<S3Bucket>, prefix: Path },
    Directory(LocalDirectory),
}

impl fmt::Display for RootedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table root {}", self.name)
    }
}

impl RootedStore {
    pub(super) fn s3(name: String, bucket: Arc<S3Bucket>, prefix: &str) -> Result<Self> {
        Ok(Self { name, backend: Backend::S3 { bucket, prefix: Path::parse(prefix)? } })
    }

    pub(super) fn directory(name: String, directory: LocalDirectory) -> Self {
        Self { name, backend: Backend::Directory(directory) }
    }

    /// The path inside the backend, of a path that the kernel made.
    fn inner(&self, location: &Path) -> Result<Path> {
        let mut parts = location.parts();
        if parts.next().is_none_or(|first| first.as_ref() != self.name) {
            return Err(outside(location));
        }
        Ok(match &self.backend {
            Backend::S3 { prefix, .. } => prefix.parts().chain(parts).collect(),
            Backend::Directory(_) => parts.collect(),
        })
    }

    /// The path that the kernel knows, of a path inside the backend.
    fn outer(&self, location: &Path) -> Result<Path> {
        let name = std::iter::once(PathPart::from(self.name.as_str()));
        match &self.backend {
            Backend::S3 { prefix, .. } => match location.prefix_match(prefix) {
                Some(rest) => Ok(name.chain(rest).collect()),
                None => Err(outside(location)),
            },
            Backend::Directory(_) => Ok(name.chain(location.parts()).collect()),
        }
    }

    async fn get(&self, inner: &Path, options: GetOptions) -> Result<GetResult> {
        match &self.backend {
            Backend::S3 { bucket, .. } => {
                let (store, began) = (bucket.store().await?, Instant::now());
                match store.get_opts(inner, options.clone()).await {
                    Err(error) if bucket.renews(began, &error).await => store.get_opts(inner, options).await,
                    answer => answer,
                }
            }
            Backend::Directory(directory) => {
                let (directory, inner) = (directory.clone(), inner.clone());
                blocking(move || directory.get(&inner, options)).await
            }
        }
    }

    async fn list_from(self: Arc<Self>, prefix: Path, offset: Option<Path>) -> Result<ListStream> {
        match &self.backend {
            Backend::S3 { bucket, .. } => {
                let store = bucket.store().await?;
                let list = || match &offset {
                    Some(offset) => store.list_with_offset(Some(&prefix), offset).fuse(),
                    None => store.list(Some(&prefix)).fuse(),
                };
                let began = Instant::now();
                let mut listed = list();
                let mut first = listed.next().await;
                if let Some(Err(error)) = &first
                    && bucket.renews(began, error).await
                {
                    listed = list();
                    first = listed.next().await;
                }
                Ok(futures::stream::iter(first).chain(each_in_time(listed.boxed())).boxed())
            }
            Backend::Directory(directory) => {
                let (directory, below) = (directory.clone(), prefix);
                let listed = blocking(move || directory.list(&below, offset.as_ref())).await?;
                Ok(futures::stream::iter(listed.into_iter().map(Ok)).boxed())
            }
        }
    }
}

type ListStream = BoxStream<'static, Result<ObjectMeta>>;

fn outside(location: &Path) -> Error {
    Error::PermissionDenied {
        path: location.to_string(),
        source: "the path is outside the table's root".into(),
    }
}

fn read_only() -> Error {
    Error::NotSupported { source: "tables are only read".into() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

fn too_late(_: tokio::time::error::Elapsed) -> Error {
    Error::Generic { store: "S3", source: "no answer in time".into() }
}

/// Ends the stream with an error when its next item does not come in time.
fn each_in_time(listed: ListStream) -> impl Stream<Item = Result<ObjectMeta>> + Send {
    futures::stream::unfold(Some(listed), |listed| async {
        let mut listed = listed?;
        match tokio::time::timeout(ANSWER_BEGINS, listed.next()).await {
            Ok(item) => item.map(|item| (item, Some(listed))),
            Err(elapsed) => Some((Err(too_late(elapsed)), None)),
        }
    })
}

/// The pieces of a body, none of which may be waited for longer than [`PIECE_COMES`]. Time in which nobody waits does not count:
/// whole commits are read as slowly as clients take their answer. A range is read at once, and has to be there in
/// [`RANGE_ENDS`].
fn in_time(pieces: BoxStream<'static, Result<Bytes>>, ranged: bool) -> BoxStream<'static, Result<Bytes>> {
    let end = ranged.then(|| tokio::time::Instant::now() + RANGE_ENDS);
    let next = move |mut pieces: BoxStream<'static, Result<Bytes>>| async move {
        let silent = tokio::time::Instant::now() + PIECE_COMES;
        let until = end.map_or(silent, |end| end.min(silent));
        let piece = tokio::time::timeout_at(until, pieces.next()).await.map_err(too_late)?.transpose()?;
        Ok(piece.map(|piece| (piece, pieces)))
    };
    futures::stream::try_unfold(pieces, next).boxed()
}

/// What the kernel holds: lists outlive the borrow of the store they come from.
#[derive(Debug, Clone)]
pub(super) struct SharedStore(pub(super) Arc<RootedStore>);

impl fmt::Display for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SharedStore {
    fn list_from(&self, prefix: Option<&Path>, offset: Option<&Path>) -> ListStream {
        let whole = Path::from(self.0.name.as_str());
        let paths = self.0.inner(prefix.unwrap_or(&whole)).and_then(|prefix| {
            let offset = offset.map(|offset| self.0.inner(offset)).transpose()?;
            Ok((prefix, offset))
        });
        let rooted = Arc::clone(&self.0);
        async move {
            let (prefix, offset) = paths?;
            let listed = tokio::time::timeout(ANSWER_BEGINS, Arc::clone(&rooted).list_from(prefix, offset));
            let listed = listed.await.map_err(too_late)??;
            Ok::<_, Error>(listed.and_then(move |mut object| {
                let location = rooted.outer(&object.location);
                async move {
                    object.location = location?;
                    Ok(object)
                }
            }))
        }
        .into_stream()
        .try_flatten()
        .boxed()
    }
}

#[async_trait]
impl ObjectStore for SharedStore {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let inner = self.0.inner(location)?;
        let ranged = options.range.is_some();
        let answered = tokio::time::timeout(ANSWER_BEGINS, self.0.get(&inner, options));
        let mut answer = answered.await.map_err(too_late)??;
        answer.meta.location = location.clone();
        answer.payload = match answer.payload {
            GetResultPayload::Stream(pieces) => GetResultPayload::Stream(in_time(pieces, ranged)),
            file => file,
        };
        Ok(answer)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match &self.0.backend {
            // By way of `get_opts`, which is bounded in time until the bytes come.
            Backend::S3 { .. } => {
                let fetch = |range| self.get_range(location, range);
                coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
            }
            Backend::Directory(directory) => {
                let (directory, inner) = (directory.clone(), self.0.inner(location)?);
                let ranges = ranges.to_vec();
                blocking(move || directory.get_ranges(&inner, &ranges)).await
            }
        }
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { Err(read_only()) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> ListStream {
        self.list_from(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> ListStream {
        self.list_from(prefix, Some(offset))
    }

    /// Refused: a log is one flat directory, and listing it never needs the directories beside it.
    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotSupported { source: "a table's log is listed as a whole".into() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path as FilePath;

    use super::*;
    use crate::location::Location;
    use crate::storage::{S3Options, Storage, StorageOptions, TableStore};

    fn open(root: &FilePath) -> TableStore {
        let options = StorageOptions {
            url_ttl: Duration::from_secs(60),
            gateway: None,
            s3: S3Options::default(),
            directory_role: None,
        };
        Storage::new(options).open(&Location::Local(root.canonicalize().unwrap())).unwrap()
    }

    fn at(table: &TableStore, path: &str) -> Path {
        Path::from_url_path(table.root.join(path).unwrap().path()).unwrap()
    }

    async fn read(table: &TableStore, path: &str) -> Result<Bytes> {
        table.store.get(&at(table, path)).await?.bytes().await
    }

    #[tokio::test]
    async fn a_root_with_odd_characters_is_read() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("50% off/a%20b #é?");
        fs::create_dir_all(root.join("_delta_log/_sidecars")).unwrap();
        fs::write(root.join("_delta_log/00000000000000000001.json"), b"one").unwrap();
        fs::write(root.join("_delta_log/00000000000000000000.json"), b"zero").unwrap();
        fs::write(root.join("_delta_log/_sidecars/a b%.parquet"), b"sidecar").unwrap();
        let table = open(&root);
        assert!(table.root.as_str().ends_with('/') && !table.root.as_str().contains("off"), "{}", table.root);
        assert_eq!(&read(&table, "_delta_log/_sidecars/a%20b%25.parquet").await.unwrap()[..], b"sidecar");

        let log = at(&table, "_delta_log/");
        let listed: Vec<ObjectMeta> = table.store.list(Some(&log)).try_collect().await.unwrap();
        let names: Vec<_> = listed.iter().map(|object| object.location.filename().unwrap()).collect();
        assert_eq!(names, ["00000000000000000000.json", "00000000000000000001.json", "a b%.parquet"]);
        for object in &listed {
            let read = table.store.get(&object.location).await.unwrap();
            assert_eq!(read.meta, *object);
        }
        let after = at(&table, "_delta_log/00000000000000000000.json");
        let later: Vec<ObjectMeta> =
            table.store.list_with_offset(Some(&log), &after).try_collect().await.unwrap();
        assert_eq!(later, listed[1..]);
        assert!(matches!(read(&table, "_delta_log/missing").await, Err(Error::NotFound { .. })));
        let missing: Vec<ObjectMeta> =
            table.store.list(Some(&at(&table, "none"))).try_collect().await.unwrap();
        assert!(missing.is_empty());
    }

    #[tokio::test]
    async fn nothing_outside_the_root_is_read_or_listed() {
        let base = tempfile::tempdir().unwrap();
        let (root, sibling) = (base.path().join("t"), base.path().join("t-evil"));
        fs::create_dir_all(root.join("_delta_log")).unwrap();
        fs::create_dir_all(&sibling).unwrap();
        fs::write(sibling.join("secret"), b"secret").unwrap();
        fs::write(root.join("inside"), b"inside").unwrap();
        symlink(&sibling, root.join("_delta_log/out")).unwrap();
        symlink("/", root.join("_delta_log/root")).unwrap();
        symlink("..", root.join("_delta_log/loop")).unwrap();
        symlink(sibling.join("secret"), root.join("_delta_log/00000000000000000000.json")).unwrap();
        symlink(root.join("inside"), root.join("_delta_log/00000000000000000001.json")).unwrap();
        symlink(&sibling, root.join("_linked_log")).unwrap();
        let table = open(&root);

        let denied = |result: Result<Bytes>| matches!(result, Err(Error::PermissionDenied { .. }));
        assert!(denied(read(&table, "_delta_log/out/secret").await));
        assert!(denied(read(&table, "_delta_log/root/etc/passwd").await));
        assert!(denied(read(&table, "_delta_log/00000000000000000000.json").await));
        assert!(denied(read(&table, "../t-evil/secret").await));
        assert!(denied(read(&table, "/etc/passwd").await));
        let ranges = table.store.get_ranges(&at(&table, "_delta_log/out/secret"), &[0..1, 1..2]).await;
        assert!(matches!(ranges, Err(Error::PermissionDenied { .. })));
        assert_eq!(&read(&table, "_delta_log/00000000000000000001.json").await.unwrap()[..], b"inside");

        let listed: Vec<ObjectMeta> =
            table.store.list(Some(&at(&table, "_delta_log"))).try_collect().await.unwrap();
        let names: Vec<_> = listed.iter().map(|object| object.location.filename().unwrap()).collect();
        assert_eq!(names, ["00000000000000000000.json", "00000000000000000001.json"]);
        let linked: Result<Vec<ObjectMeta>> =
            table.store.list(Some(&at(&table, "_linked_log"))).try_collect().await;
        assert!(matches!(linked, Err(Error::PermissionDenied { .. })));
        assert!(table.store.put(&at(&table, "x"), "x".into()).await.is_err());
        assert!(table.store.delete(&at(&table, "inside")).await.is_err());
        assert!(root.join("inside").exists() && !root.join("x").exists());
    }

    #[test]
    fn tables_have_different_roots_that_stay_the_same() {
        let base = tempfile::tempdir().unwrap();
        let storage = Storage::new(StorageOptions {
            url_ttl: Duration::from_secs(60),
            gateway: None,
            s3: S3Options::default(),
            directory_role: None,
        });
        let s3 = |bucket: &str, prefix: &str| Location::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
            role: None,
        };
        let local = Location::Local(base.path().canonicalize().unwrap());
        let locations = [local, s3("lake", "a/"), s3("lake", "a/b/"), s3("lake", ""), s3("lake2", "a/")];
        let opened: Vec<TableStore> = locations.iter().map(|at| storage.open(at).unwrap()).collect();
        for (index, table) in opened.iter().enumerate() {
            let again = storage.open(&locations[index]).unwrap();
            assert_eq!(again.root, table.root);
            assert!(opened[..index].iter().all(|other| other.root != table.root));
        }
    }

    #[tokio::test]
    async fn s3_paths_are_the_tables_and_come_back() {
        let bucket = Arc::new(S3Bucket::new("lake", &S3Options::default(), None));
        let store = RootedStore::s3("table-0".to_owned(), bucket, "db/50% off/t/").unwrap();
        let known = Path::from_url_path("/table-0/_delta_log/a%20b").unwrap();
        let inner = store.inner(&known).unwrap();
        assert_eq!(inner.as_ref(), "db/50% off/t/_delta_log/a b");
        assert_eq!(store.outer(&inner).unwrap(), known);
        assert!(store.inner(&Path::from("other/x")).is_err());
        assert!(store.inner(&Path::default()).is_err());
        assert!(store.outer(&Path::parse("db/50% off/t-evil/x").unwrap()).is_err());
    }
}
