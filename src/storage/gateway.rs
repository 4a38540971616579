//! A read-only S3 gateway for tables in local directories.
//!
//! A recipient gets the same kind of URL as for a table in S3, and it is checked as S3 would: the `s3s` crate
//! verifies the signature, the expiry and the host; the one operation is GetObject. Only the files under
//! registered directories can be read, and only through URLs that this process signed: the key pair is created
//! at start and never leaves it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use s3s::auth::SimpleAuth;
use s3s::dto::{ETag, GetObjectInput, GetObjectOutput, StreamingBlob};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use sha2::{Digest, Sha256};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use url::Url;

use super::local::{LocalDirectory, Unreadable};
use super::presign::{BucketUrl, Credentials, LONGEST_EXPIRES, hmac};
use crate::network::AllowedIps;

/// The one bucket, whose keys are `<root id>/<path under the root>`.
const BUCKET: &str = "deltashare-local";

/// How many directories are registered for lists of addresses.
const MOST_BOUND: usize = 10_000;

/// How many bytes of a file are in memory at once, for each answer.
const CHUNK: u64 = 256 * 1024;

/// The gateway, and the key pair with which URLs to it are signed.
pub struct Gateway {
    base_url: Url,
    credentials: Credentials,
    roots: Arc<Roots>,
    service: S3Service,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("base_url", &self.base_url.as_str()).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway that recipients reach at `base_url`, with a new random key pair.
    ///
    /// If `base_url` has a path, that path is in the URLs but not in their signatures, so a proxy may
    /// remove it or leave it. The host is signed: a proxy has to pass the `Host` header on.
    pub fn new(base_url: &Url) -> Arc<Self> {
        let credentials = Credentials {
            access_key_id: format!("DELTASHARE{}", random_hex()),
            secret_access_key: format!("{}{}", random_hex(), random_hex()),
            session_token: None,
            expires_at: None,
        };
        let roots = Arc::new(Roots::default());
        let mut service = S3ServiceBuilder::new(Objects { roots: Arc::clone(&roots) });
        service.set_auth(SimpleAuth::from_single(
            credentials.access_key_id.clone(),
            credentials.secret_access_key.clone(),
        ));
        let service = service.build();
        Arc::new(Self { base_url: base_url.clone(), credentials, roots, service })
    }

    /// Lets the files under `root`, a canonical directory, be read through signed URLs, from `allowed` addresses only if
    /// there are any, and returns the first segment of their keys: a keyed hash, so that the URL shows neither where the
    /// directory is nor the addresses, and cannot be changed to that of other addresses, since it is signed.
    /// Registering a directory again changes nothing.
    pub fn register(&self, root: &Path, allowed: Option<&AllowedIps>) -> String {
        let mut named = root.as_os_str().as_encoded_bytes().to_vec();
        if let Some(allowed) = allowed {
            // No path has a zero byte.
            named.push(0);
            named.extend_from_slice(allowed.to_string().as_bytes());
        }
        let digest = hmac(self.credentials.secret_access_key.as_bytes(), &named);
        let id = hex(&digest[..16]);
        if !self.roots.read().contains_key(&id) {
            let mut roots = self.roots.write();
            if allowed.is_some() && roots.values().filter(|root| root.allowed.is_some()).count() >= MOST_BOUND
            {
                // Lists change with the share file. A client whose URLs stop working queries again.
                roots.retain(|_, root| root.allowed.is_none());
            }
            roots.insert(id.clone(), SharedRoot { path: root.to_owned(), allowed: allowed.cloned() });
        }
        id
    }

    /// Drops every registered directory that is not in `shared`: URLs below it stop working at once.
    pub fn retain(&self, shared: &[PathBuf]) {
        self.roots.write().retain(|_, root| shared.contains(&root.path));
    }

    /// Whether this path belongs to the gateway's bucket, with or without the path of the base URL.
    pub fn owns(&self, path: &str) -> bool {
        self.strip_base(path).is_some()
    }

    /// The file that a path of the gateway names, for the log; `None` if it lies in no registered directory.
    pub fn file_of(&self, path: &str) -> Option<String> {
        let key = self.strip_base(path)?.strip_prefix('/')?.strip_prefix(BUCKET)?.strip_prefix('/')?;
        let (id, file) = key.split_once('/')?;
        let root = self.roots.read().get(id)?.path.display().to_string();
        Some(format!("{root}/{}", percent_decode_str(file).decode_utf8_lossy()))
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn bucket_url(&self) -> BucketUrl {
        BucketUrl::behind(&self.base_url, BUCKET)
    }

    /// Answers one request, which comes from `source` if that is known. Everything but a GET with a valid presigned URL is
    /// refused with S3's error body.
    pub async fn serve(&self, request: Request<Body>, source: Option<IpAddr>) -> Response<Body> {
        let Some(uri) = self.signed_uri(request.uri()) else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist");
        };
        let (mut parts, _) = request.into_parts();
        match parts.method {
            Method::GET => {}
            // S3 answers a HEAD with a GET's URL like any other wrong signature.
            Method::HEAD => return empty(StatusCode::FORBIDDEN),
            _ => {
                let message = "The specified method is not allowed against this resource.";
                return refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
            }
        }
        if parts.headers.contains_key(AUTHORIZATION) || !is_presigned(&uri) {
            return refusal(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied");
        }
        parts.uri = uri;
        // The address is checked with the key that `s3s` reads: a path can spell it in several ways.
        parts.extensions.insert(Source(source));
        // A GET has no body; one that is sent is not read.
        let request = Request::from_parts(parts, s3s::Body::empty());
        // `s3s` writes requests and expected signatures into the log.
        match self.service.call(request).with_subscriber(NoSubscriber::default()).await {
            Ok(response) => response.map(Body::new),
            Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "Internal error"),
        }
    }

    /// The request's URI with the path that was signed.
    fn signed_uri(&self, uri: &Uri) -> Option<Uri> {
        let path = self.strip_base(uri.path())?;
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{path}{query}").parse().ok()
    }

    fn strip_base<'a>(&self, path: &'a str) -> Option<&'a str> {
        let in_bucket = |path: &str| {
            let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(BUCKET));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let base = self.base_url.path().trim_end_matches('/');
        [Some(path), path.strip_prefix(base)].into_iter().flatten().find(|path| in_bucket(path))
    }
}

/// Query authentication with a life that S3 accepts. The signature covers these parameters; `s3s` checks the
/// rest of them.
fn is_presigned(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let expires = value("X-Amz-Expires").and_then(|seconds| seconds.parse::<u64>().ok());
    value("X-Amz-Signature").is_some()
        && value("X-Amz-SignedHeaders") == Some("host")
        && expires.is_some_and(|seconds| seconds <= LONGEST_EXPIRES.as_secs())
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// The address that a request comes from, in its extensions.
#[derive(Clone, Copy)]
struct Source(Option<IpAddr>);

/// A directory whose files may be read.
#[derive(Clone)]
struct SharedRoot {
    path: PathBuf,
    /// From where; `None` for every address.
    allowed: Option<AllowedIps>,
}

/// The registered directories by their ids.
#[derive(Default)]
struct Roots(RwLock<HashMap<String, SharedRoot>>);

impl Roots {
    // A writer never leaves the map half changed, so a poisoned lock is as good as any.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, SharedRoot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, SharedRoot>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bucket's objects: the regular files under the registered directories.
struct Objects {
    roots: Arc<Roots>,
}

#[async_trait::async_trait]
impl S3 for Objects {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let conditional = input.if_match.is_some()
            || input.if_none_match.is_some()
            || input.if_modified_since.is_some()
            || input.if_unmodified_since.is_some();
        if conditional {
            let message = "Conditional requests are not supported";
            return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
        }
        let (id, path) = input.key.split_once('/').ok_or_else(no_such_key)?;
        let SharedRoot { path: root, allowed } =
            self.roots.read().get(id).cloned().ok_or_else(no_such_key)?;
        let source = request.extensions.get().and_then(|Source(source)| *source);
        if allowed.is_some_and(|allowed| !source.is_some_and(|source| allowed.contains(source))) {
            return Err(S3Error::with_message(S3ErrorCode::AccessDenied, "Access Denied"));
        }
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open_under(&root, &path)).await;
        let (file, metadata) = opened.map_err(|_| S3Error::new(S3ErrorCode::InternalError))??;

        let size = metadata.len();
        let (range, content_range) = match input.range {
            None => (0..size, None),
            Some(range) => match range.check(size) {
                // A suffix of an empty file is a range without bytes, which S3 refuses too.
                Ok(range) if !range.is_empty() => {
                    let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                    (range, Some(content_range))
                }
                _ => return Err(range_not_satisfiable(size)),
            },
        };
        let length = range.end - range.start;
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(StreamingBlob::wrap(read_range(file, range.start, length))),
            content_length: i64::try_from(length).ok(),
            content_range,
            content_type: Some("application/octet-stream".to_owned()),
            e_tag: Some(ETag::Strong(etag(&metadata))),
            last_modified: metadata.modified().ok().map(Into::into),
            ..GetObjectOutput::default()
        }))
    }
}

fn no_such_key() -> S3Error {
    S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
}

fn range_not_satisfiable(size: u64) -> S3Error {
    let mut error =
        S3Error::with_message(S3ErrorCode::InvalidRange, "The requested range is not satisfiable");
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
        error.set_headers([(axum::http::header::CONTENT_RANGE, value)].into_iter().collect());
    }
    error
}

/// Opens the regular file at `path` under the canonical directory `root`. What is elsewhere, by whatever way
/// of links, does not exist.
fn open_under(root: &Path, path: &str) -> S3Result<(File, Metadata)> {
    // A file system would forgive `a//b` and `a/./b`; in S3 these are other keys.
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) || path.contains('\0') {
        return Err(no_such_key());
    }
    let opened = LocalDirectory::open(root).and_then(|directory| directory.file(Path::new(path)));
    opened.map_err(|error| match error {
        Unreadable::Missing | Unreadable::Outside => no_such_key(),
        Unreadable::Denied => S3Error::with_message(S3ErrorCode::AccessDenied, "Access Denied"),
        Unreadable::Odd(_) => {
            S3Error::with_message(S3ErrorCode::InvalidRequest, "What the key names is not a file.")
        }
        Unreadable::Failed(error) => S3Error::with_source(S3ErrorCode::InternalError, error.into()),
    })
}

/// Reads `length` bytes from `start`, one chunk at a time and only when the client has taken the one before.
/// A file that became shorter breaks the answer off.
fn read_range(
    file: File,
    start: u64,
    length: u64,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static {
    futures::stream::try_unfold((file, Some(start), length), |(mut file, seek_to, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let next = tokio::task::spawn_blocking(move || {
            if let Some(start) = seek_to {
                file.seek(SeekFrom::Start(start))?;
            }
            let size = left.min(CHUNK);
            let mut chunk = vec![0; usize::try_from(size).unwrap_or(0)];
            file.read_exact(&mut chunk)?;
            std::io::Result::Ok((Bytes::from(chunk), (file, None, left - size)))
        });
        next.await?.map(Some)
    })
}

/// Changes whenever the file's time or size does.
fn etag(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let nanos = modified.map_or(0, |since| since.as_nanos());
    let digest =
        Sha256::new().chain_update(nanos.to_be_bytes()).chain_update(metadata.len().to_be_bytes()).finalize();
    hex(&digest[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 122 random bits from the operating system.
fn random_hex() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
