//! The settings of the buckets of tables, which S3 shows to administrators and to no recipient.

use std::collections::HashMap;
use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, Payer, TransitionStorageClass};
use deltashare::check::TableCheck;
use deltashare::error::innermost;
use deltashare::location::Location;
use deltashare::s3_error::S3Error;
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

/// The codes of answers for what is not set.
const NOT_SET: [&str; 3] =
    ["NoSuchLifecycleConfiguration", "NoSuchBucketPolicy", "ServerSideEncryptionConfigurationNotFoundError"];

/// Buckets, each asked once.
pub(super) struct Buckets {
    sdk: SdkConfig,
    path_style: bool,
    known: Mutex<HashMap<String, Arc<OnceCell<Bucket>>>>,
}

/// The settings of one bucket.
#[derive(Default)]
struct Bucket {
    requester_pays: bool,
    lifecycle: Vec<LifecycleRule>,
    /// Names of the statements of its policy that deny something.
    denies: Vec<String>,
    kms_key: Option<String>,
    /// Permissions that the administrator lacks to ask.
    lacking: Vec<&'static str>,
    /// What was answered with another error, and the error.
    failed: Vec<(&'static str, String)>,
}

impl Buckets {
    /// `path_style` is for stand-ins of S3.
    pub(super) fn new(sdk: SdkConfig, path_style: bool) -> Self {
        Self { sdk, path_style, known: Mutex::default() }
    }

    /// Adds to what was found of a table what its bucket says.
    pub(super) async fn examine(&self, location: &Location, found: &mut TableCheck) {
        let Location::S3 { bucket: name, prefix, .. } = location else { return };
        // Without a region no bucket was found.
        let Some(region) = &found.region else { return };
        let cell = Arc::clone(self.known.lock().await.entry(name.clone()).or_default());
        let bucket = cell.get_or_init(|| Bucket::ask(self.client(region), name)).await;
        if bucket.requester_pays {
            found.problems.push(format!(
                "bucket {name} is a Requester Pays bucket, for which S3 refuses presigned URLs of other accounts: \
                 turn Requester Pays off, or share a copy in another bucket"
            ));
        }
        for rule in &bucket.lifecycle {
            found.problems.extend(harm(rule, prefix));
        }
        // A permission is missing.
        if found.allow.is_some()
            && let Some(reason) = &mut found.reason
        {
            bucket.explain(name, reason);
        }
    }

    /// The permissions that were missing to ask, with the buckets that they were missing for.
    pub(super) async fn lacking(&self) -> Vec<String> {
        let lacking = |name: &str, bucket: &Bucket| {
            bucket.lacking.iter().map(|permission| format!("{permission} for bucket {name}")).collect()
        };
        self.of_all(lacking).await
    }

    /// What could not be asked for another reason, with the reason.
    pub(super) async fn failed(&self) -> Vec<String> {
        let failed = |name: &str, bucket: &Bucket| {
            bucket.failed.iter().map(|(what, why)| format!("the {what} of bucket {name}: {why}")).collect()
        };
        self.of_all(failed).await
    }

    async fn of_all(&self, of: impl Fn(&str, &Bucket) -> Vec<String>) -> Vec<String> {
        let known = self.known.lock().await;
        let mut all: Vec<_> =
            known.iter().filter_map(|(name, cell)| Some(of(name, cell.get()?))).flatten().collect();
        all.sort();
        all
    }

    fn client(&self, region: &str) -> Client {
        let config = aws_sdk_s3::config::Builder::from(&self.sdk)
            .region(Region::new(region.to_owned()))
            .force_path_style(self.path_style);
        Client::from_conf(config.build())
    }
}

impl Bucket {
    async fn ask(client: Client, name: &str) -> Self {
        let mut this = Self::default();
        let payment = client.get_bucket_request_payment().bucket(name).send();
        let lifecycle = client.get_bucket_lifecycle_configuration().bucket(name).send();
        let policy = client.get_bucket_policy().bucket(name).send();
        let encryption = client.get_bucket_encryption().bucket(name).send();
        let (payment, lifecycle, policy, encryption) = tokio::join!(payment, lifecycle, policy, encryption);
        if let Some(payment) = this.setting(payment, "request payment", "s3:GetBucketRequestPayment") {
            this.requester_pays = payment.payer == Some(Payer::Requester);
        }
        if let Some(lifecycle) = this.setting(lifecycle, "lifecycle rules", "s3:GetLifecycleConfiguration") {
            this.lifecycle = lifecycle.rules.unwrap_or_default();
        }
        if let Some(policy) = this.setting(policy, "policy", "s3:GetBucketPolicy") {
            this.denies = denies(policy.policy.as_deref().unwrap_or_default());
        }
        if let Some(encryption) = this.setting(encryption, "encryption", "s3:GetEncryptionConfiguration") {
            let rules = encryption.server_side_encryption_configuration.map(|all| all.rules);
            let mut keys = rules.unwrap_or_default().into_iter().filter_map(|rule| {
                rule.apply_server_side_encryption_by_default.and_then(|default| default.kms_master_key_id)
            });
            this.kms_key = keys.next();
        }
        this
    }

    /// An answer; `None` if nothing is set, or if it cannot be asked, which is remembered.
    fn setting<T, E>(
        &mut self,
        answer: Result<T, SdkError<E, HttpResponse>>,
        what: &'static str,
        permission: &'static str,
    ) -> Option<T>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let error = match answer {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        };
        let code = error.code().unwrap_or_default();
        if !NOT_SET.contains(&code) {
            match (code, error.raw_response()) {
                ("AccessDenied", _) => self.lacking.push(permission),
                (code, Some(response)) => {
                    let message = error.message().unwrap_or_default().to_owned();
                    let answer =
                        S3Error { status: response.status().as_u16(), code: code.to_owned(), message };
                    self.failed.push((what, answer.explain()));
                }
                (_, None) => self.failed.push((what, innermost(&error))),
            }
        }
        None
    }

    /// Adds the settings that may deny access to the reason why a table cannot be read.
    fn explain(&self, name: &str, reason: &mut String) {
        if !self.denies.is_empty() {
            reason.push_str(&format!(
                "; the policy of bucket {name} denies by {}, which no permission of the role overrides",
                self.denies.join(", ")
            ));
        }
        if let Some(key) = &self.kms_key {
            reason.push_str(&format!(
                "; bucket {name} is encrypted with the KMS key {key}, which the role needs kms:Decrypt for"
            ));
        }
    }
}

/// The names of the statements that deny reading.
fn denies(policy: &str) -> Vec<String> {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let list = |value: &Value| match value {
        Value::Array(items) => items.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let reads = |action: &Value| {
        let action = action.as_str().unwrap_or_default().to_lowercase();
        let (name, wildcard) = (action.trim_end_matches('*'), action.ends_with('*'));
        ["s3:getobject", "s3:listbucket"]
            .iter()
            .any(|read| *read == action || wildcard && read.starts_with(name))
    };
    let statements = policy.get("Statement").map(&list).unwrap_or_default();
    let denying = statements.iter().enumerate().filter(|(_, statement)| {
        let field = |name: &str| statement.get(name).unwrap_or(&Value::Null);
        field("Effect") == "Deny"
            && (list(field("Action")).iter().any(reads) || !field("NotAction").is_null())
    });
    denying
        .map(|(at, statement)| match statement.get("Sid").and_then(Value::as_str) {
            Some(sid) => format!("statement '{sid}'"),
            None => format!("statement {}", at + 1),
        })
        .collect()
}

/// What a rule does to files that are below `prefix` and still shared.
fn harm(rule: &LifecycleRule, prefix: &str) -> Option<String> {
    if rule.status != ExpirationStatus::Enabled {
        return None;
    }
    let filter = rule.filter.as_ref();
    let and = filter.and_then(|filter| filter.and.as_ref());
    #[expect(deprecated, reason = "old rules have their prefix there")]
    let own = rule.prefix.as_deref();
    let below =
        filter.and_then(|filter| filter.prefix.as_deref()).or(and.and_then(|and| and.prefix.as_deref()));
    let below = below.or(own).unwrap_or_default();
    if !prefix.starts_with(below) && !below.starts_with(prefix) {
        return None;
    }
    let id = rule.id.as_deref().unwrap_or("without a name");
    let tagged =
        filter.is_some_and(|filter| filter.tag.is_some()) || and.is_some_and(|and| and.tags.is_some());
    let which = if tagged { "files with its tag" } else { "files" };
    let after = |days: Option<i32>| {
        days.map_or("at its date".to_owned(), |days| format!("{days} days after they were written"))
    };
    if let Some(expiration) = &rule.expiration
        && (expiration.days.is_some() || expiration.date.is_some())
    {
        return Some(format!(
            "lifecycle rule '{id}' deletes {which} {}, including files that the table still uses: exclude its prefix",
            after(expiration.days)
        ));
    }
    let frozen = [TransitionStorageClass::Glacier, TransitionStorageClass::DeepArchive];
    let moved = rule.transitions.iter().flatten();
    let mut moved = moved.filter(|to| to.storage_class.as_ref().is_some_and(|class| frozen.contains(class)));
    moved.next().map(|to| {
        format!(
            "lifecycle rule '{id}' archives {which} {}, and S3 then refuses to read them: exclude the table's prefix",
            after(to.days)
        )
    })
}
