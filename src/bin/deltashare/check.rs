//! Whether every table can be read, as the server would read it.

use std::time::Duration;

use clap::Args;
use deltashare::catalog::reading::Reading;
use deltashare::catalog::records::BadRecord;
use deltashare::catalog::state::{State, TableState};
use deltashare::catalog::writer::Writer;
use deltashare::delta::DeltaTable;
use deltashare::error::Error;
use deltashare::limits::Limits;
use deltashare::role::RoleArn;
use deltashare::storage::{Location, S3Options, Storage, StorageOptions};
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Value, json};

use super::Failure;
use super::serve::parse_role;

/// How many tables are opened at the same time.
const AT_ONCE: usize = 8;

/// Read every record and open every table as the server would, and say what stands in the way.
#[derive(Args)]
#[command(
    after_help = "Example:\n  deltashare check --signer-role arn:aws:iam::123456789012:role/signer\n\nEnds with 1 where a record or a table cannot be read."
)]
pub(crate) struct Check {
    /// The role that reads tables, as the server assumes it. Default: the credentials in the environment.
    #[arg(long, value_name = "ARN", value_parser = parse_role)]
    signer_role: Option<RoleArn>,
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

pub(crate) async fn check(writer: &Writer, options: &Check) -> Result<(), Failure> {
    let mut s3 = S3Options::from_env(|name| std::env::var(name).ok()).map_err(Failure::usage)?;
    s3.signer_role.clone_from(&options.signer_role);
    let url_ttl = Duration::from_secs(3600);
    let storage = Storage::new(StorageOptions { url_ttl, gateway: None, s3, directory_role: None });
    let Reading { state, bad, .. } = writer.read().await?;
    for record in &bad {
        let BadRecord { kind, partition, sort, reason } = record;
        let line = match options.common.is_json() {
            true => json!({"record": {"pk": partition, "sk": sort}, "kind": kind, "readable": false, "reason": reason})
                .to_string(),
            false => format!("{partition} {sort}: NOT readable: the {kind} record {reason}"),
        };
        println!("{line}");
    }
    let signer_role = options.signer_role.as_ref();
    let (mut tables, mut unreadable) = (0, 0);
    let opened = stream::iter(named(&state))
        .map(|(name, table)| open(&storage, signer_role, table).map(|found| (name, found)));
    let mut opened = opened.buffered(AT_ONCE);
    while let Some((name, found)) = opened.next().await {
        tables += 1;
        unreadable += usize::from(found.is_err());
        let line = match (&found, options.common.is_json()) {
            (Ok(found), true) => {
                json!({"table": name, "readable": true, "version": found.version, "files": found.files,
                "bytes": found.bytes, "region": found.region, "readerFeatures": found.features})
                .to_string()
            }
            (Err(reason), true) => {
                json!({"table": name, "readable": false, "reason": reason.why, "allow": reason.allow})
                    .to_string()
            }
            (Ok(found), false) => found.line(&name),
            (Err(reason), false) => reason.line(&name),
        };
        println!("{line}");
    }
    match (unreadable, bad.len()) {
        (0, 0) => {}
        (unreadable, 0) => {
            return Err(Failure::failed(format!("{unreadable} of {tables} tables cannot be read")));
        }
        (unreadable, bad) => {
            let what = format!("{unreadable} of {tables} tables and {bad} records cannot be read");
            return Err(Failure::failed(what));
        }
    }
    eprintln!("{tables} tables can be read");
    Ok(())
}

/// Every table that a server can find, with its whole name.
fn named(state: &State) -> impl Iterator<Item = (String, &TableState)> {
    state.shares.values().flat_map(|share| {
        share.schemas.values().flat_map(move |schema| {
            schema
                .tables
                .values()
                .map(move |table| (format!("{}.{}.{}", share.name, schema.name, table.name), table))
        })
    })
}

/// A table that can be read.
struct Found {
    version: u64,
    files: u64,
    bytes: u64,
    region: Option<String>,
    features: Vec<String>,
}

impl Found {
    fn line(&self, name: &str) -> String {
        let needs = match self.features.as_slice() {
            [] => String::new(),
            features => format!(", for clients that declare {}", features.join(", ")),
        };
        format!(
            "{name}: readable, version {}, {} files, {} bytes, {}{needs}",
            self.version,
            self.files,
            self.bytes,
            self.region.as_deref().unwrap_or("no region")
        )
    }
}

/// Why a table cannot be read, and what would allow it.
struct Reason {
    why: String,
    allow: Option<Value>,
}

impl Reason {
    fn line(&self, name: &str) -> String {
        match &self.allow {
            None => format!("{name}: NOT readable: {}", self.why),
            Some(allow) => format!("{name}: NOT readable: {}\n  what allows it: {allow}", self.why),
        }
    }
}

async fn open(storage: &Storage, signer_role: Option<&RoleArn>, table: &TableState) -> Result<Found, Reason> {
    let place = |text: &String| {
        let role = table.signer_role.clone().or_else(|| signer_role.cloned());
        let place = Location::parse(text, None).map(|location| location.read_by(role));
        place.map_err(|reason| Reason { why: format!("{text:?}: {reason}"), allow: None })
    };
    let location = place(&table.location)?;
    table.allowed_locations.iter().try_for_each(|allowed| place(allowed).map(drop))?;
    let because = |error: Error| {
        let source =
            std::error::Error::source(&error).map(|source| format!(" ({source})")).unwrap_or_default();
        let denied = error.message().contains("permission denied");
        Reason { why: format!("{error}{source}"), allow: denied.then(|| statement(&location)) }
    };
    let region = storage.region(&location).await.map_err(&because)?;
    let store = storage.open(&location).map_err(&because)?;
    let delta =
        DeltaTable::new(store.store, store.root, tokio::runtime::Handle::current(), Limits::default());
    let read = tokio::task::spawn_blocking(move || {
        let snapshot = delta.latest()?;
        let stats = snapshot.count_files()?;
        let features = snapshot.exact_features()?.used.into_iter().collect();
        Ok((snapshot.version(), stats, features))
    });
    let (version, stats, features) =
        read.await.map_err(Error::internal).and_then(|read| read).map_err(&because)?;
    Ok(Found { version, files: stats.num_files, bytes: stats.size_bytes, region, features })
}

/// The statement of a policy that lets the table be read.
fn statement(location: &Location) -> Value {
    match location {
        Location::Local(_) => Value::Null,
        Location::S3 { bucket, prefix, role } => {
            let bucket = format!("arn:{}:s3:::{bucket}", role.as_ref().map_or("aws", RoleArn::partition));
            json!({
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [bucket, format!("{bucket}/{prefix}*")],
            })
        }
    }
}
