//! Whether every table can be read, as the server would read it: with the role that is named here, or by the deployed
//! function itself.

mod buckets;
mod function;

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use clap::Args;
use deltashare::catalog::dynamodb::{BadRecord, CatalogContents};
use deltashare::catalog::state::CatalogState;
use deltashare::check::{self, TableCheck, TableChecker, named_tables};
use deltashare::role::RoleArn;
use deltashare::storage::{Storage, StorageOptions};
use futures::{StreamExt as _, stream};
use serde_json::json;

use super::aws::Aws;
use super::output::{printable, printable_lines};
use super::serve::parse_role;
use super::{Failure, blocking, expiring, next_step, share_file};
use buckets::Buckets;

/// How many tables are opened at the same time.
const AT_ONCE: usize = 8;

/// Read every record and open every table as the server would, and report what recipients cannot read.
///
/// For each bucket, also checks the settings that stop recipients: Requester Pays, lifecycle rules that delete shared
/// files, and bucket policies and KMS keys that deny access to the role. With --function, the deployed function opens the
/// tables with its own role, for which you need only lambda:InvokeFunction. Without it, warns of recipients whose last
/// token has expired or expires within 14 days.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare check --signer-role arn:aws:iam::123456789012:role/signer\n  deltashare check -f shares.yaml\n  deltashare check --function deltashare-Function-EXAMPLE\n\nExits with 1 if a record or a table cannot be read, or if a setting of a bucket will stop recipients."
)]
pub(crate) struct Check {
    /// Check the tables of a share file instead of those in DynamoDB.
    #[arg(short, long, value_name = "FILE", conflicts_with = "function")]
    file: Option<PathBuf>,
    /// Let the deployed function with this name or ARN check its tables.
    #[arg(long, value_name = "NAME", conflicts_with = "signer_role")]
    function: Option<String>,
    /// The role that reads tables, as the server assumes it. Default: the credentials of the AWS CLI.
    #[arg(long, value_name = "ARN", value_parser = parse_role)]
    signer_role: Option<RoleArn>,
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

/// Checks on a runtime of its own.
pub(crate) fn run(options: &Check) -> Result<(), Failure> {
    blocking(check(options))
}

async fn check(options: &Check) -> Result<(), Failure> {
    let mut shown = Shown { json: options.common.is_json(), ..Shown::default() };
    if let Some(function) = &options.function {
        function::check(&Aws::signed_in().await?, function, &mut shown).await?;
        return shown.result();
    }
    let (aws, state) = match &options.file {
        Some(path) => {
            let (file, _) = share_file::read(path).map_err(Failure::usage)?;
            (Aws::load().await?, file.state(&CatalogState::default()))
        }
        None => {
            let aws = Aws::signed_in().await?;
            match aws.writer(&options.common).read().await {
                Ok(CatalogContents { state, bad, unwritable, unpaired }) => {
                    bad.iter().for_each(|record| shown.bad_record(record));
                    unwritable.iter().chain(&unpaired).for_each(|record| shown.record(record, true));
                    (aws, state)
                }
                Err(error) => return Err(next_step::explain(error.into(), &options.common, &aws.sdk).await),
            }
        }
    };
    let signer_role = options.signer_role.as_ref();
    let buckets = Buckets::new(aws.sdk.clone(), aws.s3.endpoint.is_some());
    let storage = aws.storage(options.signer_role.clone());
    let opened = stream::iter(named_tables(&state)).map(|(_, name, table)| {
        let (storage, buckets, state) = (&storage, &buckets, &state);
        async move {
            let filters = state.filters_of(&name, table);
            let mut found =
                TableChecker::new(storage, signer_role).open(&name, &table.settings, &filters).await;
            if let Ok((location, allowed)) = check::locations(&table.settings, signer_role) {
                for location in std::iter::once(&location).chain(&allowed) {
                    buckets.examine(location, &mut found).await;
                }
            }
            found
        }
    });
    let mut opened = opened.buffered(AT_ONCE);
    while let Some(found) = opened.next().await {
        shown.table(&found);
    }
    share_file::warn_of_missing_properties(&state);
    share_file::warn_of_each(&expiring::warnings(&state, Utc::now()));
    let lacking = buckets.lacking().await;
    if !lacking.is_empty() {
        eprintln!("not checked, because your credentials lack the permission: {}", lacking.join(", "));
    }
    for failed in buckets.failed().await {
        eprintln!("not checked: {}", printable(&failed));
    }
    shown.result()
}

impl Aws {
    /// Tables as `signer_role` reads them, or who is signed in.
    pub(crate) fn storage(&self, signer_role: Option<RoleArn>) -> Storage {
        let mut s3 = self.s3.clone();
        s3.signer_role = signer_role;
        let url_ttl = Duration::from_secs(3600);
        Storage::new(StorageOptions { url_ttl, gateway: None, s3, directory_role: None })
    }
}

/// What was shown so far.
#[derive(Default)]
struct Shown {
    json: bool,
    tables: usize,
    unreadable: usize,
    bad: usize,
    problems: usize,
}

impl Shown {
    fn bad_record(&mut self, record: &BadRecord) {
        self.bad += 1;
        self.record(record, false);
    }

    /// A record with a fault; `readable` says whether servers read it all the same.
    fn record(&self, record: &BadRecord, readable: bool) {
        let BadRecord { kind, partition, sort, reason } = record;
        if self.json {
            let key = json!({"pk": partition, "sk": sort});
            println!("{}", json!({"record": key, "kind": kind, "readable": readable, "reason": reason}));
        } else {
            let not = if readable { "" } else { "NOT readable: " };
            println!("{}", printable(&format!("{partition} {sort}: {not}the {kind} record {reason}")));
        }
    }

    /// A record that the function cannot read.
    fn bad_text(&mut self, text: &str) {
        self.bad += 1;
        if self.json {
            println!("{}", json!({"readable": false, "reason": text}));
        } else {
            println!("{}", printable(&format!("NOT readable: {text}")));
        }
    }

    fn table(&mut self, found: &TableCheck) {
        self.tables += 1;
        self.unreadable += usize::from(!found.readable);
        self.problems += found.problems.len();
        if self.json {
            println!("{}", json!(found));
            return;
        }
        println!("{}", printable_lines(&line(found)));
        for problem in &found.problems {
            println!("  PROBLEM: {}", printable(problem));
        }
        for warning in &found.warnings {
            println!("  warning: {}", printable(warning));
        }
    }

    fn result(&self) -> Result<(), Failure> {
        let Self { tables, unreadable, bad, problems, .. } = self;
        let unread = match (unreadable, bad) {
            (0, 0) => None,
            (unreadable, 0) => Some(format!("{unreadable} of {tables} tables cannot be read")),
            (unreadable, bad) => {
                Some(format!("{unreadable} of {tables} tables and {bad} records cannot be read"))
            }
        };
        let stopping = (*problems > 0).then(|| format!("{problems} problems will stop recipients"));
        let failures: Vec<_> = unread.into_iter().chain(stopping).collect();
        if !failures.is_empty() {
            return Err(Failure::failed(failures.join("; ")));
        }
        eprintln!("{tables} tables can be read");
        Ok(())
    }
}

fn line(found: &TableCheck) -> String {
    let name = &found.table;
    if let Some(reason) = &found.reason {
        return match &found.allow {
            None => format!("{name}: NOT readable: {reason}"),
            Some(allow) => format!("{name}: NOT readable: {reason}\n  what allows it: {allow}"),
        };
    }
    let needs = match found.reader_features.as_deref().unwrap_or_default() {
        [] => String::new(),
        features => format!(", for clients that declare {}", features.join(", ")),
    };
    format!(
        "{name}: readable, version {}, {} files, {} bytes, {}{needs}",
        found.version.unwrap_or_default(),
        found.files.unwrap_or_default(),
        found.bytes.unwrap_or_default(),
        found.region.as_deref().unwrap_or("no region")
    )
}
