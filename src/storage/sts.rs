//! Credentials of a role that is assumed: to read and sign with, or, under a session policy, to give a recipient
//! one table's directory and nothing else.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_sts::config::{BehaviorVersion, Credentials as SdkCredentials, Region};
use aws_sdk_sts::error::{ProvideErrorMetadata as _, SdkError};
use chrono::{DateTime, TimeDelta, Utc};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde_json::json;
use tokio::sync::Mutex;
use url::Url;

use super::credentials_cache::CredentialsCache;
use super::presign::Credentials;
use crate::error::{Error, Fault, Result, innermost};
use crate::role::RoleArn;
use crate::s3_error::S3ErrorKind;

/// How long the credentials live: the most that AWS gives a role that was assumed with a role's credentials.
const LIFE: Duration = Duration::from_secs(3600);

/// How long STS may take, attempts and all.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest session policy that STS takes, in characters.
const LONGEST_POLICY: usize = 2048;

/// Credentials for one table's directory.
pub struct DirectoryCredentials {
    /// The access key's id.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: String,
    /// The session token.
    pub session_token: String,
    /// When they expire, as STS says.
    pub expires_at: DateTime<Utc>,
}

impl fmt::Debug for DirectoryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryCredentials").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Where credentials are asked for.
#[derive(Debug, Clone)]
pub(super) struct Sts {
    /// STS itself, or what stands in for it; the region's own when absent.
    pub(super) endpoint: Option<Url>,
    pub(super) region: String,
    /// What the role is assumed with; if there are none, those of `provider`.
    pub(super) credentials: Option<Credentials>,
    pub(super) provider: Option<CredentialsCache>,
}

impl Sts {
    /// Assumes `role` to read and sign with.
    async fn assume_signer(&self, role: &RoleArn) -> Result<DirectoryCredentials> {
        self.ask(role, "deltashare-server", None).await
    }

    /// Assumes `role` for `recipient`, with a policy that leaves nothing but `prefix` of `bucket`, which is in
    /// `bucket_region`.
    pub(super) async fn assume_for(
        &self,
        role: &RoleArn,
        recipient: &str,
        bucket: &str,
        bucket_region: &str,
        prefix: &str,
    ) -> Result<DirectoryCredentials> {
        let policy = policy(role.partition(), bucket_region, bucket, prefix);
        if policy.len() > LONGEST_POLICY {
            return Err(too_long());
        }
        self.ask(role, &session_name(recipient), Some(policy)).await
    }

    async fn ask(
        &self,
        role: &RoleArn,
        session: &str,
        policy: Option<String>,
    ) -> Result<DirectoryCredentials> {
        let own = match (&self.credentials, &self.provider) {
            (Some(credentials), _) => credentials.clone(),
            (None, Some(provider)) => provider.credentials().await.map_err(|reason| {
                unavailable("no credentials to assume a role with")
                    .with_fault(Fault::Credentials)
                    .with_explanation(format!("there are no AWS credentials: {reason}"))
            })?,
            (None, None) => return Err(unavailable("no credentials to assume a role with")),
        };
        let Credentials { access_key_id, secret_access_key, session_token, .. } = own;
        let credentials =
            SdkCredentials::new(access_key_id, secret_access_key, session_token, None, "deltashare");
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(self.region.clone()))
            .credentials_provider(credentials);
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint.as_str());
        }
        let request = aws_sdk_sts::Client::from_conf(config.build())
            .assume_role()
            .role_arn(role.as_str())
            .role_session_name(session)
            .duration_seconds(i32::try_from(LIFE.as_secs()).unwrap_or(i32::MAX))
            .set_policy(policy)
            .send();
        let answer = tokio::time::timeout(DEADLINE, request).await.map_err(unavailable)?;
        let answer = answer.map_err(|error| match error.code() {
            Some("PackedPolicyTooLarge") => too_long(),
            _ => failed(role, &error),
        })?;
        let credentials =
            answer.credentials.ok_or_else(|| unavailable("STS answered without credentials"))?;
        let expires_at = DateTime::from_timestamp(credentials.expiration.secs(), 0);
        Ok(DirectoryCredentials {
            access_key_id: credentials.access_key_id,
            secret_access_key: credentials.secret_access_key,
            session_token: credentials.session_token,
            expires_at: expires_at.ok_or_else(|| unavailable("STS answered without an expiry"))?,
        })
    }
}

/// How long credentials must have left to sign with: so long lives every URL, and a minute for clocks that differ.
const LEFT: TimeDelta = TimeDelta::minutes(31);

/// A role that is assumed to read and sign with, and assumed again before its credentials are too short.
pub(super) struct AssumedRole {
    role: RoleArn,
    sts: Sts,
    /// With when they were asked for. Held while the role is assumed, so that many requests assume it once.
    current: Mutex<Option<(Instant, Credentials)>>,
}

impl fmt::Debug for AssumedRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssumedRole").field("role", &self.role).finish_non_exhaustive()
    }
}

impl AssumedRole {
    pub(super) fn new(role: RoleArn, sts: Sts) -> Self {
        Self { role, sts, current: Mutex::new(None) }
    }

    /// Credentials that live long enough for a URL.
    pub(super) async fn credentials(&self) -> Result<Credentials> {
        let mut current = self.current.lock().await;
        if let Some((_, credentials)) = &*current
            && credentials.expires_at.is_none_or(|expires| expires - Utc::now() > LEFT)
        {
            return Ok(credentials.clone());
        }
        let asked = Instant::now();
        let assumed = self.sts.assume_signer(&self.role).await?;
        tracing::info!(expires = %assumed.expires_at, "the signer role was assumed");
        let credentials = Credentials {
            access_key_id: assumed.access_key_id,
            secret_access_key: assumed.secret_access_key,
            session_token: Some(assumed.session_token),
            expires_at: Some(assumed.expires_at),
        };
        Ok(current.insert((asked, credentials)).1.clone())
    }

    /// Gives up credentials that S3 called expired in its answer to a request that began at `began`. Those that
    /// were asked for since are others.
    pub(super) async fn give_up(&self, began: Instant) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|(asked, _)| *asked <= began) {
            tracing::warn!("S3 calls the credentials of the signer role expired; it is assumed again");
            *current = None;
        }
    }
}

#[async_trait]
impl CredentialProvider for AssumedRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credentials = self
            .credentials()
            .await
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(Arc::new(AwsCredential {
            key_id: credentials.access_key_id,
            secret_key: credentials.secret_access_key,
            token: credentials.session_token,
        }))
    }
}

fn too_long() -> Error {
    Error::unsupported(
        "The table's location is too long for a session policy, so that no temporary credentials can be given for it.",
    )
}

fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    later().with_source(source)
}

fn later() -> Error {
    Error::unavailable("Temporary credentials are not available now; try again later.")
}

/// What STS refuses for good is not worth a client's retries.
fn failed<E, R>(role: &RoleArn, error: &SdkError<E, R>) -> Error
where
    E: std::error::Error + aws_sdk_sts::error::ProvideErrorMetadata + Send + Sync + 'static,
    R: fmt::Debug + Send + Sync + 'static,
{
    let source = match (error.code(), error.message()) {
        (Some(code), message) => format!("STS answers {code}: {}", message.unwrap_or_default()),
        (None, _) => format!("STS does not answer: {}", innermost(error)),
    };
    let answer = match error.code() {
        Some("AccessDenied" | "ValidationError" | "MalformedPolicyDocument") => {
            let message =
                "The server cannot give temporary credentials for this table; contact its provider.";
            let explanation = format!(
                "the role {} cannot be assumed with the credentials of the server: check its trust policy",
                role.as_str()
            );
            Error::forbidden(message).with_fault(Fault::Role).with_explanation(explanation)
        }
        Some("ExpiredToken" | "ExpiredTokenException") => {
            later().with_fault(Fault::Credentials).with_explanation(S3ErrorKind::Expired.advice())
        }
        Some("InvalidClientTokenId" | "UnrecognizedClientException") => {
            later().with_fault(Fault::Credentials).with_explanation(S3ErrorKind::Unknown.advice())
        }
        Some("SignatureDoesNotMatch") => {
            later().with_fault(Fault::Credentials).with_explanation(S3ErrorKind::Signature.advice())
        }
        _ => later().with_explanation(source.clone()),
    };
    answer.with_source(source)
}

/// What the credentials may do. The role's own policy limits them further.
fn policy(partition: &str, region: &str, bucket: &str, prefix: &str) -> String {
    // `${` begins a policy variable; `*` and `?` cannot stand in a location.
    let literal = |text: &str| text.replace("${", "${$}{");
    let (bucket, prefix) = (literal(bucket), literal(prefix));
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": format!("arn:{partition}:s3:::{bucket}/{prefix}*"),
            },
            {
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": format!("arn:{partition}:s3:::{bucket}"),
                "Condition": {"StringLike": {"s3:prefix": format!("{prefix}*")}},
            },
            {
                "Effect": "Allow",
                "Action": "kms:Decrypt",
                "Resource": "*",
                "Condition": {"StringLike": {"kms:ViaService": format!("s3.{region}.*")}},
            },
        ],
    })
    .to_string()
}

/// The name by which CloudTrail shows who used the credentials: 2 to 64 characters of a few kinds.
fn session_name(recipient: &str) -> String {
    let allowed = |character: char| match character {
        c if c.is_ascii_alphanumeric() || "+=,.@-_".contains(c) => c,
        _ => '_',
    };
    format!("deltashare-{recipient}").chars().map(allowed).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_the_directory_and_no_other() {
        let policy: serde_json::Value =
            serde_json::from_str(&policy("aws-cn", "cn-north-1", "lake", "a $ \"b\"/${aws:userid}/t/"))
                .unwrap();
        assert_eq!(policy["Statement"][0]["Resource"], "arn:aws-cn:s3:::lake/a $ \"b\"/${$}{aws:userid}/t/*");
        assert_eq!(policy["Statement"][1]["Resource"], "arn:aws-cn:s3:::lake");
        assert_eq!(
            policy["Statement"][1]["Condition"]["StringLike"]["s3:prefix"],
            "a $ \"b\"/${$}{aws:userid}/t/*"
        );
        assert_eq!(policy["Statement"][2]["Condition"]["StringLike"]["kms:ViaService"], "s3.cn-north-1.*");
    }

    #[test]
    fn session_names_are_what_sts_takes() {
        assert_eq!(session_name("acme corp/é"), "deltashare-acme_corp__");
        assert_eq!(session_name(""), "deltashare-");
        assert_eq!(session_name(&"x".repeat(100)).len(), 64);
    }
}
