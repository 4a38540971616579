//! Whether a table can be read: opened as the server opens it, down to the first bytes of a file. The command line and
//! the function's own check say what this finds.

mod function;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::catalog::TableSettings;
use crate::delta::DeltaTable;
use crate::error::{Error, Fault, Result, innermost};
use crate::limits::Limits;
use crate::location::{Location, WrittenLocation};
use crate::predicate::PartitionFilter;
use crate::role::RoleArn;
use crate::s3_error::{S3Error, S3ErrorKind};
use crate::storage::{FileFault, Storage};

pub use function::{CheckEvent, CheckRequest, CheckResponse, check_tables, named_tables};

/// Commits after the last checkpoint from which on the first query of a process is slow: each of them is a request.
const SLOW_LOG: u64 = 200;

/// What was found of one table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TableCheck {
    /// `SHARE.SCHEMA.TABLE`
    pub table: String,
    /// Whether it can be read.
    pub readable: bool,
    /// Its newest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// How many files it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Their size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The region of its bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The features that clients must declare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    /// How many commits follow its last checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commits_since_checkpoint: Option<u64>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The statement of a policy that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Value>,
    /// What will stop recipients, although the table can be read now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What makes it slow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where a table is stored and the other locations that its log may refer to. `signer_role` is the server's own role.
pub fn locations(
    settings: &TableSettings,
    signer_role: Option<&RoleArn>,
) -> Result<(Location, Vec<Location>), String> {
    let role = settings.signer_role.as_ref().or(signer_role);
    let resolve = |location: &WrittenLocation| {
        let resolved = location.resolve().map(|location| location.read_by(role.cloned()));
        resolved.map_err(|reason| format!("{:?}: {reason}", location.text()))
    };
    let allowed = settings.allowed_locations.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
    Ok((resolve(&settings.location)?, allowed))
}

/// How tables are opened.
#[derive(Clone, Copy)]
pub struct TableChecker<'a> {
    /// What reads them.
    pub storage: &'a Storage,
    /// The server's own role.
    pub signer_role: Option<&'a RoleArn>,
    /// What one may take.
    pub limits: Limits,
}

impl<'a> TableChecker<'a> {
    /// A checker with the server's limits.
    pub fn new(storage: &'a Storage, signer_role: Option<&'a RoleArn>) -> Self {
        Self { storage, signer_role, limits: Limits::default() }
    }

    /// Opens the table `name`, counts its files and reads the first bytes of one of them. `filters` must fit the table; each
    /// has its owner, such as `the grant to acme`.
    pub async fn open(
        &self,
        name: &str,
        settings: &TableSettings,
        filters: &[(String, PartitionFilter)],
    ) -> TableCheck {
        let mut found = TableCheck { table: name.to_owned(), ..TableCheck::default() };
        let (location, allowed) = match locations(settings, self.signer_role) {
            Ok(locations) => locations,
            Err(reason) => {
                found.reason = Some(reason);
                return found;
            }
        };
        match self.read(&location, &allowed, filters.to_vec(), &mut found).await {
            Ok(None) => found.readable = true,
            Ok(Some(fault)) => {
                if let FileFault::Refused(answer) = &fault {
                    found.allow = statement(&location, answer);
                }
                found.reason = Some(sentence(&fault));
            }
            Err(error) => {
                // Other errors may have text of the log in them, which its writer chooses.
                if error.fault() == Some(Fault::AccessDenied)
                    && let Some(answer) = std::error::Error::source(&error).and_then(S3Error::behind)
                {
                    found.allow = statement(&location, &answer);
                }
                found.reason = Some(reason(&error));
            }
        }
        found
    }

    /// Adds to `found` what the table has. Returns what is wrong with its first file.
    async fn read(
        &self,
        location: &Location,
        allowed: &[Location],
        filters: Vec<(String, PartitionFilter)>,
        found: &mut TableCheck,
    ) -> Result<Option<FileFault>> {
        found.region = self.storage.region(location).await?;
        let store = self.storage.open(location)?;
        let delta = DeltaTable::new(store.store, store.root, tokio::runtime::Handle::current(), self.limits);
        let read = tokio::task::spawn_blocking(move || {
            let snapshot = delta.latest()?;
            let stats = snapshot.count_files()?;
            let features = snapshot.exact_features()?.used.into_iter().collect();
            let path = delta.files(&snapshot)?.advance()?.map(|file| file.path.to_owned());
            let columns = snapshot.metadata().columns();
            let problems: Vec<String> = filters
                .iter()
                .filter_map(|(whose, filter)| Some((whose, filter.check(columns).err()?)))
                .map(|(whose, reason)| format!("the filter of {whose} shares nothing: {reason}"))
                .collect();
            let commits = snapshot.commits_since_checkpoint();
            Ok::<_, Error>((snapshot.version(), commits, stats, features, path, problems))
        });
        let (version, commits, stats, features, path, problems) = read.await.map_err(Error::internal)??;
        found.problems.extend(problems);
        found.version = Some(version);
        found.files = Some(stats.num_files);
        found.bytes = Some(stats.size_bytes);
        found.reader_features = Some(features);
        found.commits_since_checkpoint = Some(commits);
        if commits >= SLOW_LOG {
            found.warnings.push(format!(
            "{commits} commits follow the last checkpoint, which makes the first query slow: write a checkpoint with \
             deltashare checkpoint"
        ));
        }
        match path {
            Some(path) => self.storage.first_bytes(location, allowed, &path, Utc::now()).await,
            None => Ok(None),
        }
    }
}

/// Why a table cannot be read, in a sentence: what to do if that is known, otherwise the cause.
fn reason(error: &Error) -> String {
    if let Some(explanation) = error.explanation() {
        return explanation.to_owned();
    }
    match std::error::Error::source(error) {
        None => error.to_string(),
        Some(cause) if error.is_temporary() => format!("{error} ({})", innermost(cause)),
        Some(cause) => format!("{error} ({cause})"),
    }
}

/// Why recipients cannot read a file, in a sentence.
fn sentence(fault: &FileFault) -> String {
    const GONE: &str = "a file that the log names is gone; VACUUM with too short a retention or a lifecycle rule deletes them";
    let answer = match fault {
        FileFault::Refused(answer) => answer,
        FileFault::Gone => return GONE.to_owned(),
        FileFault::Unreadable(why) => return format!("a file that the log names cannot be read: {why}"),
        FileFault::NotParquet => {
            return "a file that the log names is not a Parquet file: it is damaged, or was overwritten with \
                    something else"
                .to_owned();
        }
        FileFault::Empty => {
            return "a file that the log names is empty, so it is not a Parquet file".to_owned();
        }
    };
    match (answer.kind(), answer.status) {
        (Some(S3ErrorKind::Key), _) if answer.kms_key().is_some() || answer.code == "AccessDenied" => {
            let key = answer.kms_key().unwrap_or("of the file");
            format!(
                "the log can be read, but the role is not allowed to use the KMS key {key} of the files \
                 ({answer})"
            )
        }
        (Some(S3ErrorKind::Denied), _) if answer.message.contains("resource-based policy") => {
            format!(
                "the log can be read, but the bucket policy denies the role access to the files ({answer})"
            )
        }
        (Some(S3ErrorKind::Denied), _) => {
            format!("the log can be read, but the role is not allowed to read the files ({answer})")
        }
        (Some(_), _) => format!("a file of the table cannot be read: {}", answer.explain()),
        (None, 404) => format!("{GONE} ({answer})"),
        (None, _) => format!("a file of the table cannot be read ({answer})"),
    }
}

/// The statement of a policy that lets the table be read, if the error response of S3 says that a permission is missing.
fn statement(location: &Location, answer: &S3Error) -> Option<Value> {
    let Location::S3 { bucket, prefix, role } = location else { return None };
    match answer.kind()? {
        S3ErrorKind::Denied => {
            let bucket = format!("arn:{}:s3:::{bucket}", role.as_ref().map_or("aws", RoleArn::partition));
            Some(json!({
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [bucket, format!("{bucket}/{prefix}*")],
            }))
        }
        S3ErrorKind::Key => {
            let key = answer.kms_key()?;
            Some(json!({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key}))
        }
        _ => None,
    }
}
