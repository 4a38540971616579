//! The object store through which one table's log is read, and nothing else.
//!
//! The log names other files (sidecars, checkpoint parts, deletion vectors), and the log is third-party
//! input. So the store has a root of its own: a URL whose path is one opaque segment, with the table's root
//! under it. No path that the log can write leads out of it, and neither do symbolic links in a directory.
//! The opaque segment also keeps a root with odd characters (`%`, spaces) out of the URLs that the kernel
//! makes, which it does not always decode as often as it encodes them.

use std::fmt;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::{Path, PathPart};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::gateway::canonical_under;
use super::s3::S3Bucket;

/// How long a request may take until its answer begins, with all retries.
const ANSWER_BEGINS: Duration = Duration::from_secs(14);

/// A read-only view of one table's root.
#[derive(Debug)]
pub(super) struct RootedStore {
    /// The first segment of every path.
    name: String,
    place: Place,
}

/// What is behind the opaque segment.
#[derive(Debug)]
enum Place {
    S3 { bucket: Arc<S3Bucket>, prefix: Path },
    Directory { root: PathBuf, files: LocalFileSystem },
}

impl fmt::Display for RootedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table root {}", self.name)
    }
}

impl RootedStore {
    pub(super) fn s3(name: String, bucket: Arc<S3Bucket>, prefix: &str) -> Result<Self> {
        Ok(Self { name, place: Place::S3 { bucket, prefix: Path::parse(prefix)? } })
    }

    pub(super) fn directory(name: String, root: &FilePath) -> Result<Self> {
        let files = LocalFileSystem::new_with_prefix(root)?;
        Ok(Self { name, place: Place::Directory { root: root.to_owned(), files } })
    }

    /// The path inside the place, of a path that the kernel made.
    fn inner(&self, location: &Path) -> Result<Path> {
        let mut parts = location.parts();
        if parts.next().is_none_or(|first| first.as_ref() != self.name) {
            return Err(outside(location));
        }
        Ok(match &self.place {
            Place::S3 { prefix, .. } => prefix.parts().chain(parts).collect(),
            Place::Directory { .. } => parts.collect(),
        })
    }

    /// The path that the kernel knows, of a path inside the place.
    fn outer(&self, location: &Path) -> Result<Path> {
        let name = std::iter::once(PathPart::from(self.name.as_str()));
        match &self.place {
            Place::S3 { prefix, .. } => match location.prefix_match(prefix) {
                Some(rest) => Ok(name.chain(rest).collect()),
                None => Err(outside(location)),
            },
            Place::Directory { .. } => Ok(name.chain(location.parts()).collect()),
        }
    }

    async fn store(&self) -> Result<&dyn ObjectStore> {
        Ok(match &self.place {
            Place::S3 { bucket, .. } => bucket.store().await?,
            Place::Directory { files, .. } => files,
        })
    }

    /// Refuses a file or a directory that a link leads to from the table's root out of it. What is not there
    /// is left to the store to report.
    async fn check_links(&self, location: &Path) -> Result<()> {
        let Place::Directory { root, .. } = &self.place else { return Ok(()) };
        let (root, path) = (root.clone(), relative_path(location));
        let inside = blocking(move || !root.join(&path).exists() || canonical_under(&root, &path).is_some());
        if inside.await? { Ok(()) } else { Err(outside(location)) }
    }

    async fn list_from(self: Arc<Self>, prefix: Path, offset: Option<Path>) -> Result<ListStream> {
        match &self.place {
            Place::S3 { bucket, .. } => {
                let store = bucket.store().await?;
                let listed = match offset {
                    Some(offset) => store.list_with_offset(Some(&prefix), &offset),
                    None => store.list(Some(&prefix)),
                };
                Ok(each_in_time(listed).boxed())
            }
            Place::Directory { root, files } => {
                let mut objects = Vec::new();
                let mut directories = vec![prefix];
                // Not `files.list`, which follows links to directories wherever they lead.
                while let Some(directory) = directories.pop() {
                    self.check_links(&directory).await?;
                    let listed = files.list_with_delimiter(Some(&directory)).await?;
                    let after =
                        |object: &ObjectMeta| offset.as_ref().is_none_or(|offset| object.location > *offset);
                    objects.extend(listed.objects.into_iter().filter(after));
                    for found in listed.common_prefixes {
                        let path = root.join(relative_path(&found));
                        if !blocking(move || path.is_symlink()).await? {
                            directories.push(found);
                        }
                    }
                }
                objects.sort_unstable_by(|left, right| left.location.cmp(&right.location));
                Ok(futures::stream::iter(objects.into_iter().map(Ok)).boxed())
            }
        }
    }
}

type ListStream = BoxStream<'static, Result<ObjectMeta>>;

fn relative_path(location: &Path) -> PathBuf {
    location.parts().map(|part| part.as_ref().to_owned()).collect()
}

fn outside(location: &Path) -> Error {
    Error::PermissionDenied {
        path: location.to_string(),
        source: "the path is outside the table's root".into(),
    }
}

fn read_only() -> Error {
    Error::NotSupported { source: "tables are only read".into() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })
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
        let answered = tokio::time::timeout(ANSWER_BEGINS, async {
            self.0.check_links(&inner).await?;
            self.0.store().await?.get_opts(&inner, options).await
        });
        let mut answer = answered.await.map_err(too_late)??;
        answer.meta.location = location.clone();
        Ok(answer)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let inner = self.0.inner(location)?;
        self.0.check_links(&inner).await?;
        self.0.store().await?.get_ranges(&inner, ranges).await
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
