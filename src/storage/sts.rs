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
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::credentials_cache::CredentialsCache;
use super::presign::Credentials;
use crate::error::{Error, Fault, Result, innermost};
use crate::network::AllowedIps;
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
    /// Assumes `role` to read and sign with, or only to sign URLs for some addresses.
    async fn assume_signer(
        &self,
        role: &RoleArn,
        allowed: Option<&AllowedIps>,
    ) -> Result<DirectoryCredentials> {
        let policy = allowed.map(|allowed| signing_policy(role.partition(), allowed));
        self.ask(role, "deltashare-server", policy.map(|policy| (policy, ADDRESSES_TOO_LONG))).await
    }

    /// Assumes `role` for `recipient`, with a policy that leaves nothing but one directory, for some addresses only if there are
    /// any.
    pub(super) async fn assume_for(
        &self,
        role: &RoleArn,
        recipient: &str,
        directory: &Directory<'_>,
        allowed: Option<&AllowedIps>,
    ) -> Result<DirectoryCredentials> {
        let policy = directory_policy(role.partition(), directory, allowed);
        let too_long = if allowed.is_some() { DIRECTORY_AND_ADDRESSES_TOO_LONG } else { DIRECTORY_TOO_LONG };
        self.ask(role, &session_name(recipient), Some((policy, too_long))).await
    }

    async fn ask(
        &self,
        role: &RoleArn,
        session: &str,
        policy: Option<(String, &'static str)>,
    ) -> Result<DirectoryCredentials> {
        let (policy, too_long) = policy.unzip();
        if policy.as_ref().is_some_and(|policy| policy.len() > LONGEST_POLICY) {
            return Err(Error::unsupported(too_long.unwrap_or_default()));
        }
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
            Some("PackedPolicyTooLarge") => Error::unsupported(too_long.unwrap_or_default()),
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
    /// The addresses for which URLs are signed, and nothing else is done; `None` for a session without a policy.
    allowed: Option<AllowedIps>,
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
        Self { role, allowed: None, sts, current: Mutex::new(None) }
    }

    /// A role that only signs URLs for these addresses.
    pub(super) fn bound(role: RoleArn, sts: Sts, allowed: &AllowedIps) -> Self {
        Self { allowed: Some(allowed.clone()), ..Self::new(role, sts) }
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
        let assumed = self.sts.assume_signer(&self.role, self.allowed.as_ref()).await?;
        let allowed_ips = self.allowed.as_ref().map(ToString::to_string);
        tracing::info!(expires = %assumed.expires_at, allowed_ips, "the signer role was assumed");
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

const DIRECTORY_TOO_LONG: &str = "The table's location is too long for a session policy, so that no temporary credentials can be given for it.";

const DIRECTORY_AND_ADDRESSES_TOO_LONG: &str = "The table's location and the addresses that this recipient may use are too \
     long for a session policy, so that no temporary credentials can be given for the table.";

const ADDRESSES_TOO_LONG: &str = "The addresses that this recipient may use are too many for a session policy, so that no \
     URLs can be issued. Contact the provider of the share.";

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

/// A table's directory in S3.
pub(super) struct Directory<'a> {
    pub(super) bucket: &'a str,
    /// The bucket's.
    pub(super) region: &'a str,
    pub(super) prefix: &'a str,
}

/// A policy with these statements.
fn policy(statements: impl IntoIterator<Item = Value>) -> String {
    json!({"Version": "2012-10-17", "Statement": statements.into_iter().collect::<Vec<_>>()}).to_string()
}

/// Refuses every request to S3 that does not come from these addresses.
///
/// A statement that denies also limits what the policy of a bucket allows to everyone, which a session policy otherwise does
/// not. A request through a VPC endpoint has no `aws:SourceIp`, and a negated condition holds without its key, so such a
/// request is refused too. KMS is left out: S3 asks it for the key in the name of the session, from an address of AWS, after
/// it has checked this statement for the request itself.
fn only_from(allowed: &AllowedIps) -> Value {
    json!({
        "Effect": "Deny",
        "Action": "s3:*",
        "Resource": "*",
        "Condition": {"NotIpAddress": {"aws:SourceIp": allowed.texts()}},
    })
}

/// Lets S3, and nobody else, decrypt objects for the session. The role's own policy says with which keys.
fn decrypt(via: &str) -> Value {
    json!({
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": "*",
        "Condition": {"StringLike": {"kms:ViaService": via}},
    })
}

/// What a session may do that signs URLs for some addresses only: read what the role may read.
fn signing_policy(partition: &str, allowed: &AllowedIps) -> String {
    let read = json!({
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": format!("arn:{partition}:s3:::*"),
    });
    policy([read, decrypt("s3.*"), only_from(allowed)])
}

/// What the credentials for a directory may do. The role's own policy limits them further.
fn directory_policy(partition: &str, directory: &Directory<'_>, allowed: Option<&AllowedIps>) -> String {
    let Directory { bucket, region, prefix } = directory;
    // `${` begins a policy variable; `*` and `?` cannot stand in a location.
    let literal = |text: &str| text.replace("${", "${$}{");
    let (bucket, prefix) = (literal(bucket), literal(prefix));
    let read = json!({
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": format!("arn:{partition}:s3:::{bucket}/{prefix}*"),
    });
    let list = json!({
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": format!("arn:{partition}:s3:::{bucket}"),
        "Condition": {"StringLike": {"s3:prefix": format!("{prefix}*")}},
    });
    let decrypt = decrypt(&format!("s3.{region}.*"));
    policy([read, list, decrypt].into_iter().chain(allowed.map(only_from)))
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
        let directory =
            Directory { bucket: "lake", region: "cn-north-1", prefix: "a $ \"b\"/${aws:userid}/t/" };
        let policy: Value = serde_json::from_str(&directory_policy("aws-cn", &directory, None)).unwrap();
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 3);
        assert_eq!(policy["Statement"][0]["Resource"], "arn:aws-cn:s3:::lake/a $ \"b\"/${$}{aws:userid}/t/*");
        assert_eq!(policy["Statement"][1]["Resource"], "arn:aws-cn:s3:::lake");
        assert_eq!(
            policy["Statement"][1]["Condition"]["StringLike"]["s3:prefix"],
            "a $ \"b\"/${$}{aws:userid}/t/*"
        );
        assert_eq!(policy["Statement"][2]["Condition"]["StringLike"]["kms:ViaService"], "s3.cn-north-1.*");
    }

    #[test]
    fn sessions_for_some_addresses_fit_into_a_policy_and_refuse_the_others() {
        let text = |at: u32| format!("2001:db8:1111:1111:1111:1111:1111:{:x}", 0x1000 + at);
        let ranges = |count: u32| -> Vec<String> { (0..count).map(text).collect() };
        let longest = (1..50)
            .map(|count| AllowedIps::parse(ranges(count).iter().map(String::as_str)))
            .take_while(Result::is_ok)
            .last()
            .unwrap()
            .unwrap();
        let directory = Directory {
            bucket: &"b".repeat(63),
            region: "ap-southeast-3",
            prefix: &format!("{}/", "p".repeat(64)),
        };
        let (signing, of_directory) = (
            signing_policy("aws-us-gov", &longest),
            directory_policy("aws-us-gov", &directory, Some(&longest)),
        );
        assert!(
            signing.len() <= LONGEST_POLICY && of_directory.len() <= LONGEST_POLICY,
            "{}",
            of_directory.len()
        );
        for policy in [signing, of_directory] {
            let policy: Value = serde_json::from_str(&policy).unwrap();
            let denied = policy["Statement"].as_array().unwrap().last().unwrap();
            assert_eq!((&denied["Effect"], &denied["Action"]), (&json!("Deny"), &json!("s3:*")));
            assert_eq!(denied["Condition"]["NotIpAddress"]["aws:SourceIp"], json!(longest.texts()));
        }
    }

    #[test]
    fn session_names_are_what_sts_takes() {
        assert_eq!(session_name("acme corp/é"), "deltashare-acme_corp__");
        assert_eq!(session_name(""), "deltashare-");
        assert_eq!(session_name(&"x".repeat(100)).len(), 64);
    }
}
