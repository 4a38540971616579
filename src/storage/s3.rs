//! S3 buckets: endpoint, region and credentials, found once for each bucket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode};
use chrono::{DateTime, Utc};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpConnector as _, HttpRequestBody, ReqwestConnector};
use object_store::{BackoffConfig, ClientOptions, CredentialProvider as _, ObjectStore, RetryConfig};
use tokio::sync::OnceCell;
use url::Url;

use super::credentials_cache::CredentialsCache;
use super::no_credentials_error::no_credentials;
use super::presign::{BucketUrl, Credentials};
use super::sts::AssumedRole;
use crate::role::RoleArn;

/// The region whose AWS endpoints are asked if nothing says in which region this server is.
const DEFAULT_REGION: &str = "us-east-1";

/// How long finding a bucket's region, or credentials, may take.
const DISCOVERY: Duration = Duration::from_secs(10);

/// How S3 is reached.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// An S3-compatible endpoint; AWS when absent.
    pub endpoint: Option<Url>,
    /// An endpoint that stands in for STS; AWS when absent.
    pub sts_endpoint: Option<Url>,
    /// The region of every bucket; when absent each bucket's own is asked for (at AWS), or `us-east-1` is
    /// taken (at an `endpoint`).
    pub region: Option<String>,
    /// The region whose STS is asked for credentials, and whose S3 is asked for the region of a bucket.
    pub home_region: String,
    /// Whether an `endpoint` is given the bucket in the path, which most need, or as a sub-domain.
    pub path_style: bool,
    /// Credentials that stay the same. When absent they come from the environment's provider: a web identity,
    /// the container's or the instance's role. Those are renewed five minutes before they end; when they end
    /// is not known here, so a URL may live shorter than it says, but never less than five minutes.
    pub credentials: Option<Credentials>,
    /// Credentials as the AWS CLI finds them, which are fetched again before they end. Asked only if there are no
    /// `credentials`.
    pub provider: Option<CredentialsCache>,
    /// The role that reads and signs, assumed with `credentials` or those of `provider`, one of which must then be
    /// given. When absent they do so themselves.
    pub signer_role: Option<RoleArn>,
}

impl Default for S3Options {
    /// AWS, with the credentials and the regions that it tells.
    fn default() -> Self {
        Self {
            endpoint: None,
            sts_endpoint: None,
            region: None,
            home_region: DEFAULT_REGION.to_owned(),
            path_style: true,
            credentials: None,
            provider: None,
            signer_role: None,
        }
    }
}

impl S3Options {
    /// Reads `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL_STS` or for both `AWS_ENDPOINT_URL`, `AWS_REGION` or `AWS_DEFAULT_REGION`, and
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_CREDENTIAL_EXPIRATION` (RFC 3339)
    /// through `variable`, which is [`std::env::var`] outside tests. Err says which one cannot be read.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, get(name)?)));
        let read = |names| match first(names) {
            Some((name, value)) => {
                endpoint(&value).map(Some).ok_or_else(|| format!("{name} is not an http(s) URL"))
            }
            None => Ok(None),
        };
        let sts_endpoint = read(["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"])?;
        let endpoint = read(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])?;
        let expires_at = match get("AWS_CREDENTIAL_EXPIRATION") {
            Some(text) => Some(
                DateTime::parse_from_rfc3339(&text)
                    .map_err(|error| format!("AWS_CREDENTIAL_EXPIRATION: {error}"))?
                    .with_timezone(&Utc),
            ),
            None => None,
        };
        let credentials = match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret_access_key)) => Some(Credentials {
                access_key_id,
                secret_access_key,
                session_token: get("AWS_SESSION_TOKEN"),
                expires_at,
            }),
            (None, None) => None,
            _ => return Err("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together".to_owned()),
        };
        let region = first(["AWS_REGION", "AWS_DEFAULT_REGION"]).map(|(_, region)| region);
        let home_region = region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned());
        // The region of this server says nothing about the region of a bucket in AWS.
        let region = region.filter(|_| endpoint.is_some());
        Ok(Self { endpoint, sts_endpoint, region, home_region, credentials, ..Self::default() })
    }
}

fn endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_bare).then_some(url)
}

/// One bucket. Nothing is asked of the network before the first use.
#[derive(Debug)]
pub(super) struct S3Bucket {
    name: String,
    options: S3Options,
    role: Option<Arc<AssumedRole>>,
    region: OnceCell<String>,
    store: OnceCell<AmazonS3>,
}

impl S3Bucket {
    /// `role` reads and signs, if there is one.
    pub(super) fn new(name: &str, options: &S3Options, role: Option<Arc<AssumedRole>>) -> Self {
        let region = OnceCell::new_with(options.region.clone());
        Self { name: name.to_owned(), options: options.clone(), role, region, store: OnceCell::new() }
    }

    /// The bucket's region: as configured, or as S3 says.
    pub(super) async fn region(&self) -> object_store::Result<&str> {
        let region = self.region.get_or_try_init(|| async {
            if self.options.endpoint.is_some() {
                return Ok(DEFAULT_REGION.to_owned());
            }
            let asked = BucketUrl::aws_path_style(&self.name, &self.options.home_region).as_url();
            tokio::time::timeout(DISCOVERY, region_of(&asked))
                .await
                .unwrap_or_else(|_| Err(failed("S3 did not tell the bucket's region in time")))
        });
        region.await.map(String::as_str)
    }

    /// The URL of the bucket in `region`.
    pub(super) fn url(&self, region: &str) -> BucketUrl {
        match &self.options.endpoint {
            None => BucketUrl::aws(&self.name, region),
            Some(endpoint) if self.options.path_style => BucketUrl::path_style(endpoint, &self.name),
            Some(endpoint) => BucketUrl::virtual_hosted(endpoint, &self.name),
        }
    }

    pub(super) async fn store(&self) -> object_store::Result<&dyn ObjectStore> {
        Ok(self.s3().await?)
    }

    /// The store itself, which also writes.
    #[cfg(feature = "cli")]
    pub(super) async fn owned_store(&self) -> object_store::Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(self.s3().await?.clone()))
    }

    /// Whether a request that began at `began` and failed with `error` is worth another try, because S3 called its
    /// credentials expired and there are others now.
    pub(super) async fn renews(&self, began: Instant, error: &object_store::Error) -> bool {
        match &self.role {
            Some(role) if error.to_string().contains("ExpiredToken") => {
                role.give_up(began).await;
                true
            }
            _ => false,
        }
    }

    /// The credentials that sign, from the provider that also reads.
    pub(super) async fn credentials(&self) -> object_store::Result<Credentials> {
        match &self.role {
            Some(role) => role
                .credentials()
                .await
                .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) }),
            None => self.own_credentials().await,
        }
    }

    /// The server's own credentials, which a role is assumed with.
    pub(super) async fn own_credentials(&self) -> object_store::Result<Credentials> {
        if let Some(credentials) = &self.options.credentials {
            return Ok(credentials.clone());
        }
        if let Some(provider) = &self.options.provider {
            return match tokio::time::timeout(DISCOVERY, provider.credentials()).await {
                Ok(credentials) => credentials.map_err(|reason| no_credentials(&reason)),
                Err(_) => Err(failed("no credentials in time")),
            };
        }
        let provider = self.s3().await?.credentials();
        let credential = match tokio::time::timeout(DISCOVERY, provider.get_credential()).await {
            Ok(credential) => credential?,
            Err(_) => return Err(failed("no credentials in time")),
        };
        Ok(Credentials {
            access_key_id: credential.key_id.clone(),
            secret_access_key: credential.secret_key.clone(),
            session_token: credential.token.clone(),
            expires_at: None,
        })
    }

    async fn s3(&self) -> object_store::Result<&AmazonS3> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        // The first request needs both. A role that cannot be assumed fails it as it would fail here.
        let assumed = async {
            match &self.role {
                Some(role) => role.get_credential().await.map(drop),
                None => Ok(()),
            }
        };
        let (region, assumed) = futures::future::join(self.region(), assumed).await;
        let region = region?;
        assumed?;
        self.store.get_or_try_init(|| async { self.build(region) }).await
    }

    fn build(&self, region: &str) -> object_store::Result<AmazonS3> {
        let builder = match (&self.role, &self.options.credentials, &self.options.provider) {
            (Some(role), ..) => AmazonS3Builder::new().with_credentials(Arc::clone(role) as _),
            (None, None, Some(provider)) => AmazonS3Builder::new().with_credentials(provider.to_store()),
            (None, None, None) => AmazonS3Builder::from_env(),
            (None, Some(credentials), _) => {
                let builder = AmazonS3Builder::new()
                    .with_access_key_id(&credentials.access_key_id)
                    .with_secret_access_key(&credentials.secret_access_key);
                match &credentials.session_token {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
        };
        // With the bucket's whole URL as its endpoint the store asks no questions about styles and domains.
        let url = self.url(region).as_url();
        builder
            .with_client_options(client_options().with_allow_http(url.starts_with("http://")))
            // All attempts end before `RootedStore` gives a request up.
            .with_retry(RetryConfig {
                backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
                max_retries: 4,
                retry_timeout: Duration::from_secs(8),
            })
            .with_bucket_name(&self.name)
            .with_region(region)
            .with_virtual_hosted_style_request(true)
            .with_config(AmazonS3ConfigKey::S3Endpoint, url.trim_end_matches('/'))
            .build()
    }
}

/// The region of the bucket at this URL. S3 tells it to everybody, whatever else it answers.
async fn region_of(bucket_url: &str) -> object_store::Result<String> {
    let error = |source| object_store::Error::Generic { store: "S3", source };
    let client = ReqwestConnector::default().connect(&client_options().with_allow_http(true))?;
    let request = Request::head(bucket_url).body(HttpRequestBody::empty());
    let request = request.map_err(|source| error(source.into()))?;
    let answer = client.execute(request).await.map_err(|source| error(source.into()))?;
    if answer.status() == StatusCode::NOT_FOUND {
        let path = "bucket".to_owned();
        return Err(object_store::Error::NotFound { path, source: "there is no such bucket".into() });
    }
    let region = answer.headers().get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
    region.map(str::to_owned).ok_or_else(|| failed("S3 did not tell the bucket's region"))
}

/// The client's own limit would count the time in which nobody reads a body; [`SharedStore`](super::table_store::SharedStore)
/// has limits that do not.
pub(super) fn client_options() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(Duration::from_secs(3)).with_timeout_disabled()
}

fn failed(reason: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<S3Options, String> {
        S3Options::from_env(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_usual_variables_are_read() {
        let options = from(&[
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_REGION", ""),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AWS_CREDENTIAL_EXPIRATION", "2030-01-01T00:00:00Z"),
        ])
        .unwrap();
        assert_eq!(options.endpoint.as_ref().unwrap().as_str(), "http://127.0.0.1:9000/");
        assert_eq!(options.region.as_deref(), Some("eu-west-1"));
        assert_eq!(options.credentials.as_ref().unwrap().expires_at.unwrap().timestamp(), 1_893_456_000);
        assert!(!format!("{options:?}").contains("hidden"));
        assert!(from(&[]).unwrap().credentials.is_none());
        let at_aws = from(&[("AWS_REGION", "ap-south-1")]).unwrap();
        assert_eq!((at_aws.region, at_aws.home_region.as_str()), (None, "ap-south-1"));
    }

    #[tokio::test]
    async fn the_region_of_a_bucket_is_told_with_any_status() {
        use axum::http::{StatusCode, Uri};

        let answer = |uri: Uri| async move {
            match uri.path() {
                "/moved/" => (StatusCode::MOVED_PERMANENTLY, [("x-amz-bucket-region", "eu-west-3")]),
                "/dotted.name/" => (StatusCode::FORBIDDEN, [("x-amz-bucket-region", "ap-south-1")]),
                "/silent/" => (StatusCode::FORBIDDEN, [("x-amz-request-id", "1")]),
                _ => (StatusCode::NOT_FOUND, [("x-amz-request-id", "1")]),
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let ask = |bucket: &'static str| {
            let url = BucketUrl::path_style(&endpoint, bucket).as_url();
            async move { region_of(&url).await.map_err(|error| error.to_string()) }
        };
        assert_eq!(ask("moved").await.unwrap(), "eu-west-3");
        assert_eq!(ask("dotted.name").await.unwrap(), "ap-south-1");
        assert!(ask("silent").await.unwrap_err().contains("did not tell"));
        assert!(ask("missing").await.unwrap_err().contains("no such bucket"));
    }

    #[test]
    fn half_a_configuration_is_refused() {
        for variable in [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AWS_ENDPOINT_URL", "127.0.0.1:9000"),
            ("AWS_ENDPOINT_URL", "ftp://host"),
            ("AWS_CREDENTIAL_EXPIRATION", "tomorrow"),
        ] {
            assert!(from(&[variable]).is_err(), "{variable:?}");
        }
    }
}
