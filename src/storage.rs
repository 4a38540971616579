//! Where tables lie, and how their files are handed out.
//!
//! A table lies under an S3 prefix or in a local directory ([`Location`]). Its log is read through an object
//! store that sees nothing but the table's root ([`TableStore`]). Its files are never read here: recipients
//! get presigned URLs ([`FileSigner`]), to S3 itself or, for a directory, to the [`Gateway`] of this process.

#[cfg_attr(not(feature = "cli"), path = "storage/no_credentials_cache.rs")]
mod credentials_cache;
mod file_fault;
mod first_bytes;
#[cfg_attr(not(feature = "cli"), path = "storage/no_gateway.rs")]
mod gateway;
#[cfg_attr(not(feature = "cli"), path = "storage/no_local.rs")]
mod local;
mod no_credentials_error;
pub mod presign;
mod resolve;
mod s3;
mod sts;
mod table_store;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use url::Url;

use crate::error::{Error, ErrorCode, Fault, Result};
use crate::location::Location;
use crate::network::AllowedIps;
use crate::protocol::digest::short_digest;
use crate::role::RoleArn;
use crate::s3_error::S3ErrorKind;

pub use credentials_cache::CredentialsCache;
pub use file_fault::FileFault;
pub use first_bytes::is_parquet;
pub use gateway::Gateway;
use local::LocalDirectory;
use presign::{BucketUrl, Credentials, LONGEST_EXPIRES, Presigner};
use resolve::Root;
use s3::S3Bucket;
pub use s3::S3Options;
pub use sts::DirectoryCredentials;
use sts::{AssumedRole, Directory, Sts};
use table_store::{RootedStore, SharedStore};

/// How long finding the regions and credentials for one signer may take.
const SIGNER_READY: Duration = Duration::from_secs(12);

/// How many sessions that are bound to addresses are kept.
const MOST_BOUND: usize = 1000;

/// The region in the scope of signatures for the gateway; S3-compatible servers use this one.
const GATEWAY_REGION: &str = "us-east-1";

/// How files are reached and handed out.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// How long a presigned URL lives, at most seven days.
    pub url_ttl: Duration,
    /// What serves the files of local directories; without it their URLs cannot be made.
    pub gateway: Option<Arc<Gateway>>,
    /// How S3 is reached.
    pub s3: S3Options,
    /// The role that is assumed to give recipients credentials for a table's directory; without it none are
    /// given.
    pub directory_role: Option<RoleArn>,
}

/// Reads tables and signs their files. Connections are opened once for each bucket and shared.
#[derive(Debug)]
pub struct Storage {
    options: StorageOptions,
    roles: Mutex<HashMap<RoleArn, Arc<AssumedRole>>>,
    /// The same for sessions that only sign, with URLs for some addresses only.
    bound_roles: Mutex<HashMap<(RoleArn, AllowedIps), Arc<AssumedRole>>>,
    buckets: Mutex<HashMap<BucketKey, Arc<S3Bucket>>>,
}

/// A bucket's name, and the role that reads it.
type BucketKey = (String, Option<RoleArn>);

/// The object store through which one table is read, and the table's root in it.
#[derive(Clone)]
pub struct TableStore {
    /// Read-only, and without anything outside the table's root.
    pub store: Arc<dyn ObjectStore>,
    /// The table's root; ends with `/`. Its path is opaque, and differs between tables.
    pub root: Url,
}

impl fmt::Debug for TableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableStore").field("root", &self.root.as_str()).finish_non_exhaustive()
    }
}

impl Storage {
    /// Nothing is opened before it is asked for.
    pub fn new(options: StorageOptions) -> Self {
        Self { options, roles: Mutex::default(), bound_roles: Mutex::default(), buckets: Mutex::default() }
    }

    /// Assumes the signer role, if there is one, before the first request needs it.
    pub async fn warm(&self) -> Result<()> {
        match &self.options.s3.signer_role {
            Some(role) => self.assumed(role).credentials().await.map(drop),
            None => Ok(()),
        }
    }

    /// The store and the root URL through which the table's log is read: the same root for the same location.
    /// Nothing is asked of S3 before the first read.
    pub fn open(&self, location: &Location) -> Result<TableStore> {
        let (name, root) = match location {
            Location::S3 { bucket, prefix, .. } => {
                let name = opaque_name(&[bucket.as_bytes(), b"/", prefix.as_bytes()]);
                let root = format!("s3://{bucket}/{name}/");
                (name, root)
            }
            Location::Local(path) => {
                let name = opaque_name(&[path.as_os_str().as_encoded_bytes()]);
                // Not `file:`, which the kernel looks up in the file system by itself.
                let root = format!("local:///{name}/");
                (name, root)
            }
        };
        let root = Url::parse(&root).map_err(Error::internal)?;
        let missing = "The table's files are not there.";
        let rooted = match location {
            Location::S3 { bucket, prefix, role } => {
                RootedStore::s3(name, self.bucket(bucket, role.as_ref()), prefix).map_err(|error| {
                    Error::unreadable_table(missing).with_fault(Fault::Location).with_source(error)
                })?
            }
            Location::Local(path) => {
                let directory = LocalDirectory::open(path).map_err(|error| {
                    Error::unreadable_table(missing).with_fault(Fault::Location).with_source(error)
                })?;
                RootedStore::directory(name, directory)
            }
        };
        Ok(TableStore { store: Arc::new(SharedStore(Arc::new(rooted))), root })
    }

    /// A signer for the files of the table at `location`, for one answer at `now`. Besides the table's own
    /// files it signs those under `allowed`, and no others.
    pub async fn signer(
        &self,
        location: &Location,
        allowed: &[Location],
        now: DateTime<Utc>,
    ) -> Result<FileSigner> {
        self.bound_signer(location, allowed, None, now).await
    }

    /// The same, with URLs that work from `allowed_ips` only: the gateway checks this itself, and S3 by the policy of the
    /// session that signs.
    ///
    /// 403 if there is no role of which such a session could be had.
    pub async fn bound_signer(
        &self,
        location: &Location,
        allowed: &[Location],
        allowed_ips: Option<&AllowedIps>,
        now: DateTime<Utc>,
    ) -> Result<FileSigner> {
        let locations = std::iter::once(location).chain(allowed);
        let params = locations.map(|location| self.signing_params(location, allowed_ips));
        let params = futures::future::try_join_all(params);
        let params = tokio::time::timeout(SIGNER_READY, params).await.map_err(unavailable)??;
        let mut expires = self.options.url_ttl.min(LONGEST_EXPIRES);
        for left in params.iter().filter_map(|params| params.credentials.expires_at) {
            expires = expires.min((left - now).to_std().unwrap_or_default());
        }
        if expires < Duration::from_secs(1) {
            return Err(unavailable("the credentials have expired")
                .with_fault(Fault::Credentials)
                .with_explanation(S3ErrorKind::Expired.advice()));
        }
        let presigners: Vec<Presigner> = params
            .iter()
            .map(|params| Presigner::new(&params.credentials, &params.region, &params.url, now, expires))
            .collect();
        Ok(FileSigner {
            expiration_millis: presigners.first().map_or(0, Presigner::expiration_millis),
            roots: params.into_iter().map(|params| params.root).collect(),
            presigners,
            key: Vec::with_capacity(256),
        })
    }

    /// The bucket of a table in S3 as a store that may also write: for what an administrator does to the table itself.
    /// The server never writes.
    #[cfg(feature = "cli")]
    pub async fn writable(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        let Location::S3 { bucket, role, .. } = location else {
            return Err(Error::internal("only a bucket is written to"));
        };
        self.bucket(bucket, role.as_ref()).owned_store().await.map_err(not_ready)
    }

    async fn signing_params(
        &self,
        location: &Location,
        allowed_ips: Option<&AllowedIps>,
    ) -> Result<SigningParams> {
        match location {
            Location::Local(path) => {
                let gateway = self.options.gateway.as_ref();
                let gateway =
                    gateway.ok_or_else(|| Error::internal("a local directory needs the gateway"))?;
                let prefix = format!("{}/", gateway.register(path, allowed_ips));
                Ok(SigningParams {
                    root: Root::new(location, prefix.len()),
                    credentials: gateway.credentials().clone(),
                    region: GATEWAY_REGION.to_owned(),
                    url: gateway.bucket_url().under(&prefix),
                })
            }
            Location::S3 { bucket, prefix, role } => {
                let bucket = self.bucket(bucket, role.as_ref());
                let credentials = async {
                    match allowed_ips {
                        None => bucket.credentials().await.map_err(not_ready),
                        Some(allowed) => self.bound_credentials(role.as_ref(), allowed).await,
                    }
                };
                let (region, credentials) = futures::future::join(bucket.region(), credentials).await;
                let region = region.map_err(not_ready)?;
                Ok(SigningParams {
                    root: Root::new(location, prefix.len()),
                    credentials: credentials?,
                    region: region.to_owned(),
                    url: bucket.url(region).under(prefix),
                })
            }
        }
    }

    /// Credentials that sign URLs for some addresses only. They never read a log: the server has another address.
    async fn bound_credentials(&self, role: Option<&RoleArn>, allowed: &AllowedIps) -> Result<Credentials> {
        let role = role.or(self.options.s3.signer_role.as_ref()).ok_or_else(|| {
            Error::forbidden(
                "This server issues no URLs to recipients that can use some addresses only. Contact the provider of the \
                 share.",
            )
            .with_fault(Fault::Role)
            .with_explanation(
                "URLs are limited to the allowedIps of a recipient by the session of a role, and this server signs without \
                 a role: set --signer-role, or signerRole of the table",
            )
        })?;
        let session = {
            let mut bound = self.bound_roles.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (role.clone(), allowed.clone());
            if bound.len() >= MOST_BOUND && !bound.contains_key(&key) {
                // To forget all of them is simple, and costs each list of addresses one more request to STS.
                bound.clear();
            }
            let new = || Arc::new(AssumedRole::bound(role.clone(), self.sts(), allowed));
            Arc::clone(bound.entry(key).or_insert_with(new))
        };
        session.credentials().await.map_err(|error| match error.code() {
            ErrorCode::UnsupportedOperation => error,
            _ => unavailable(error),
        })
    }

    /// Credentials for `recipient` that read the directory of the table at `location`, and nothing else, from
    /// `allowed_ips` if there are any. They are those of the role that reads the table, if it has one of its own.
    ///
    /// 403 if this server has no role to give them with, if the table is not in S3, or if AWS
    /// refuses; 503 if STS does not answer.
    pub async fn directory_credentials(
        &self,
        location: &Location,
        recipient: &str,
        allowed_ips: Option<&AllowedIps>,
    ) -> Result<DirectoryCredentials> {
        let refused = || Error::forbidden("This server does not give temporary credentials for this table.");
        let Location::S3 { bucket, prefix, role } = location else { return Err(refused()) };
        let role = role.as_ref().or(self.options.directory_role.as_ref()).ok_or_else(refused)?;
        let ready = async {
            let s3 = self.bucket(bucket, None);
            let region = s3.region().await?.to_owned();
            Ok::<_, object_store::Error>((region, s3.own_credentials().await?))
        };
        let (region, credentials) =
            tokio::time::timeout(SIGNER_READY, ready).await.map_err(unavailable)?.map_err(not_ready)?;
        let sts = Sts { credentials: Some(credentials), ..self.sts() };
        sts.assume_for(role, recipient, &Directory { bucket, region: &region, prefix }, allowed_ips).await
    }

    /// The region that signs for the table at `location`; `None` for a local directory.
    pub async fn region(&self, location: &Location) -> Result<Option<String>> {
        match location {
            Location::Local(_) => Ok(None),
            Location::S3 { bucket, role, .. } => {
                let bucket = self.bucket(bucket, role.as_ref());
                let region =
                    tokio::time::timeout(SIGNER_READY, bucket.region()).await.map_err(unavailable)?;
                region.map(|region| Some(region.to_owned())).map_err(not_ready)
            }
        }
    }

    /// What serves the files of local directories, if there is one.
    pub fn gateway(&self) -> Option<&Arc<Gateway>> {
        self.options.gateway.as_ref()
    }

    /// A bucket as `role` reads it, or the server's own role if that is `None`.
    fn bucket(&self, name: &str, role: Option<&RoleArn>) -> Arc<S3Bucket> {
        let role = role.or(self.options.s3.signer_role.as_ref());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(S3Bucket::new(name, &self.options.s3, role.map(|role| self.assumed(role))));
        Arc::clone(buckets.entry((name.to_owned(), role.cloned())).or_insert_with(new))
    }

    fn assumed(&self, role: &RoleArn) -> Arc<AssumedRole> {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(AssumedRole::new(role.clone(), self.sts()));
        Arc::clone(roles.entry(role.clone()).or_insert_with(new))
    }

    fn sts(&self) -> Sts {
        let S3Options { sts_endpoint, home_region, credentials, provider, .. } = self.options.s3.clone();
        Sts { endpoint: sts_endpoint, region: home_region, credentials, provider }
    }
}

/// What signing under one location takes.
struct SigningParams {
    root: Root,
    credentials: Credentials,
    region: String,
    url: BucketUrl,
}

fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let source = source.into();
    let error = Error::unavailable("The storage of the table does not answer.");
    error.explained_by(source.as_ref()).with_source(source)
}

/// Why a bucket cannot be read or signed for, before it was asked for anything.
fn not_ready(error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => {
            Error::unreadable_table("The table cannot be read: its storage was not found.")
                .with_fault(Fault::Location)
                .with_explanation(S3ErrorKind::NoBucket.advice())
                .with_source(error)
        }
        error => unavailable(error),
    }
}

fn opaque_name(parts: &[&[u8]]) -> String {
    format!("table-{:016x}", short_digest(&parts.concat()))
}

/// Presigns the files of one table, for one answer.
pub struct FileSigner {
    /// The table's own root first.
    roots: Vec<Root>,
    /// One for each root.
    presigners: Vec<Presigner>,
    /// The key of the current file, under its root.
    key: Vec<u8>,
    expiration_millis: i64,
}

impl FileSigner {
    /// When the URLs end, in milliseconds since 1970.
    pub fn expiration_millis(&self) -> i64 {
        self.expiration_millis
    }

    /// Fails if [`Self::presign`] would.
    pub fn check(&mut self, log_path: &str) -> Result<()> {
        let root = resolve::resolve(log_path, &self.roots, &mut self.key);
        match root {
            Ok(root) if root < self.presigners.len() => Ok(()),
            _ => Err(refused(log_path, root.err())),
        }
    }

    /// Appends to `out` the presigned GET URL of the file that the log names `log_path`: percent-encoded and
    /// relative to the table's root, or an absolute URI. The URL is ASCII without `"` and `\`, so it goes into
    /// JSON as it is. An error leaves `out` as it was.
    pub fn presign(&mut self, log_path: &str, out: &mut Vec<u8>) -> Result<()> {
        let root = resolve::resolve(log_path, &self.roots, &mut self.key);
        match root.ok().and_then(|root| self.presigners.get_mut(root)) {
            Some(presigner) => {
                presigner.presign_into(&self.key, out);
                Ok(())
            }
            None => Err(refused(log_path, root.err())),
        }
    }
}

#[cold]
fn refused(log_path: &str, reason: Option<resolve::InvalidPath>) -> Error {
    let reason = reason.unwrap_or(resolve::InvalidPath::Outside);
    Error::unsupported("The table's log names a file that this server does not hand out.")
        .with_source(format!("{reason}: {log_path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn storage(s3: S3Options) -> Storage {
        Storage::new(StorageOptions {
            url_ttl: Duration::from_secs(3600),
            gateway: None,
            s3,
            directory_role: None,
        })
    }

    fn s3_options(expires_at: Option<DateTime<Utc>>) -> S3Options {
        S3Options {
            endpoint: None,
            sts_endpoint: None,
            region: Some("eu-central-1".to_owned()),
            home_region: "eu-central-1".to_owned(),
            path_style: false,
            credentials: Some(Credentials {
                access_key_id: "id".to_owned(),
                secret_access_key: "secret".to_owned(),
                session_token: Some("token".to_owned()),
                expires_at,
            }),
            provider: None,
            signer_role: None,
        }
    }

    /// Handlers hold these across threads; this is checked when it compiles.
    #[tokio::test]
    async fn signers_and_their_futures_are_send() {
        fn is_send<T: Send>(value: T) -> T {
            value
        }
        let (storage, location) = (Arc::new(storage(s3_options(None))), lake("t/"));
        let task =
            async move { storage.signer(&location, std::slice::from_ref(&location), Utc::now()).await };
        assert!(is_send(tokio::spawn(task).await.unwrap()).is_ok());
        let gateway = Gateway::new(&Url::parse("http://127.0.0.1:8080").unwrap());
        let request = axum::http::Request::new(axum::body::Body::empty());
        assert_eq!(
            tokio::spawn(async move { gateway.serve(request, None).await.status().as_u16() }).await.unwrap(),
            404
        );
    }

    fn lake(prefix: &str) -> Location {
        Location::S3 { bucket: "lake".to_owned(), prefix: prefix.to_owned(), role: None }
    }

    #[tokio::test]
    async fn a_file_is_signed_under_the_root_it_lies_in() {
        let other = Location::S3 { bucket: "my.source".to_owned(), prefix: String::new(), role: None };
        let storage = storage(s3_options(None));
        let mut signer = storage.signer(&lake("a b/t/"), &[other], Utc::now()).await.unwrap();
        for (path, start) in [
            ("d=1/x%20y", "https://lake.s3.eu-central-1.amazonaws.com/a%20b/t/d%3D1/x%20y?"),
            ("s3a://lake/a%20b/t/x", "https://lake.s3.eu-central-1.amazonaws.com/a%20b/t/x?"),
            ("s3://my.source/k", "https://s3.eu-central-1.amazonaws.com/my.source/k?"),
        ] {
            let mut out = Vec::new();
            signer.presign(path, &mut out).unwrap();
            let url = String::from_utf8(out).unwrap();
            assert!(url.starts_with(start), "{url}");
        }
        let error = signer.presign("s3://lake/a%20b/t-evil/x", &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedOperation);
        assert!(!error.message().contains("lake"));
    }

    #[tokio::test]
    async fn urls_do_not_outlive_the_credentials() {
        let now = DateTime::from_timestamp(1_700_000_000, 900_000_000).unwrap();
        for (left, expected) in [(None, 3600), (Some(7200), 3600), (Some(600), 600)] {
            let expires_at = left.map(|left| now + chrono::TimeDelta::seconds(left));
            let storage = storage(s3_options(expires_at));
            let mut signer = storage.signer(&lake(""), &[], now).await.unwrap();
            assert_eq!(signer.expiration_millis(), (1_700_000_000 + expected) * 1000);
            let mut out = Vec::new();
            signer.presign("x", &mut out).unwrap();
            assert!(String::from_utf8(out).unwrap().contains(&format!("X-Amz-Expires={expected}&")));
        }
        let storage = storage(s3_options(Some(now)));
        let Err(error) = storage.signer(&lake(""), &[], now).await else {
            panic!("signed with expired credentials")
        };
        assert_eq!(error.code(), ErrorCode::TemporarilyUnavailable);
    }

    #[tokio::test]
    async fn s3_is_asked_for_the_tables_own_keys() {
        use axum::http::{HeaderMap, Method, Uri, header};
        use futures::TryStreamExt;
        use object_store::ObjectStoreExt;

        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let answer = move |method: Method, uri: Uri, headers: HeaderMap| async move {
            let signed = headers.get(header::AUTHORIZATION).is_some_and(|value| {
                value.to_str().is_ok_and(|text| text.contains("/eu-central-1/s3/aws4_request"))
            });
            record.lock().unwrap().push(format!("{method} {uri} signed={signed}"));
            let listed = uri.query().is_some_and(|query| query.contains("list-type=2"));
            let object = "<Contents><Key>a b/t/_delta_log/0.json</Key><Size>3</Size><ETag>e</ETag>\
                <LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>";
            let list =
                format!("<ListBucketResult><IsTruncated>false</IsTruncated>{object}</ListBucketResult>");
            let last_modified = [(header::LAST_MODIFIED, "Mon, 01 Jan 2024 00:00:00 GMT")];
            (last_modified, if listed { list } else { "{}\n".to_owned() })
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).ok();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });

        let table = storage(S3Options { endpoint, ..s3_options(None) }).open(&lake("a b/t/")).unwrap();
        let log =
            object_store::path::Path::from_url_path(table.root.join("_delta_log/").unwrap().path()).unwrap();
        let listed: Vec<_> = table.store.list(Some(&log)).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].location, log.clone().join("0.json"));
        let read = table.store.get(&listed[0].location).await.unwrap().bytes().await.unwrap();
        assert_eq!(&read[..], b"{}\n");
        assert!(table.store.get(&object_store::path::Path::from("a b/t/_delta_log/0.json")).await.is_err());
        assert_eq!(
            *asked.lock().unwrap(),
            [
                "GET /lake?list-type=2&prefix=a+b%2Ft%2F_delta_log%2F signed=true",
                "GET /lake/a%20b/t/_delta_log/0.json signed=true",
            ]
        );
    }

    /// An endpoint that takes connections and never answers, and one that does not take any.
    #[tokio::test]
    async fn a_dead_endpoint_is_noticed_in_time() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for address in [silent.local_addr().unwrap(), closed] {
            let options =
                S3Options { endpoint: Url::parse(&format!("http://{address}")).ok(), ..s3_options(None) };
            let table = storage(options).open(&lake("t/")).unwrap();
            let path = object_store::path::Path::from_url_path(table.root.path()).unwrap().join("x");
            let start = std::time::Instant::now();
            let read = table.store.get_opts(&path, object_store::GetOptions::default()).await;
            assert!(read.is_err());
            assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        }
    }
}
