//! `deltashare verify`: plays the recipient before the profile is sent.
//!
//! It asks only what a client asks, with the token of the profile, and reads the answers as they come. What it prints
//! holds neither the token nor a URL of a file.

mod answer;
mod finding;
mod profile;
mod recipient;
mod report;

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Instant;

use chrono::{TimeDelta, Utc};
use clap::Args;
use deltashare::protocol::profile::Profile;
use deltashare::storage::is_parquet;

use super::Failure;
use super::output::{Output, printable};
use answer::QueryAnswer;
use finding::Finding;
use recipient::{FileUrl, Recipient, Table};
use report::{Report, TableReport};

/// The largest file that is read as a profile.
const LARGEST_PROFILE: u64 = 1024 * 1024;

/// The shortest life of a URL without a warning: clients ask for new URLs a quarter of an hour before the old ones expire.
const SHORT_URL: TimeDelta = TimeDelta::minutes(16);

/// Clocks that differ by more get a warning.
const SKEW: TimeDelta = TimeDelta::seconds(60);

/// Read everything that a profile gives access to, as its recipient would, before you send it.
///
/// Lists shares, schemas and tables, reads the version, the metadata and the list of files of each table, and fetches
/// the first bytes of one file of each by its URL. Reports whether answers are compressed and streamed, when the token
/// and the URLs expire, and whether the clocks agree. The token and the URLs are never printed.
///
/// Fails on what no client can read: a list of more than 5000 pages or with a repeated page token, a line of more than
/// 64 MiB, and a list of files of more than 16 GiB.
#[derive(Args)]
#[command(
    after_help = "Example:\n  deltashare verify --profile acme.share\n\nExits with 1 if a check fails. Run it from the recipient's network if you can."
)]
pub(crate) struct Options {
    /// The profile that the recipient will get.
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// The output format: text for people, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Runs the checks on a runtime of its own.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let path = options.profile.display();
    let mut text = Vec::new();
    std::fs::File::open(&options.profile)
        .and_then(|file| file.take(LARGEST_PROFILE + 1).read_to_end(&mut text))
        .map_err(|error| Failure::usage(format!("{path}: {error}")))?;
    if text.len() as u64 > LARGEST_PROFILE {
        return Err(Failure::usage(format!("{path}: the file is larger than 1 MiB, so it is not a profile")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(error.to_string()))?;
    let mut report = Report::default();
    if let Some(profile) = profile::read(&text, &mut report) {
        runtime.block_on(play(profile, &mut report));
    }
    report.print(options.output);
    match report.failures() {
        0 => Ok(()),
        failures => Err(Failure::failed(format!(
            "{failures} {} failed; do not send the profile yet",
            if failures == 1 { "check" } else { "checks" }
        ))),
    }
}

/// Asks everything that a recipient asks.
async fn play(profile: Profile, report: &mut Report) {
    let recipient = match Recipient::new(profile) {
        Ok(recipient) => recipient,
        Err(finding) => return report.fail(finding),
    };
    let progress = Progress::new();
    progress.show("listing shares");
    let tables = match everything_listed(&recipient, report).await {
        Ok(tables) => tables,
        Err(finding) => {
            progress.clear();
            return report.fail(finding);
        }
    };
    for (number, table) in tables.iter().enumerate() {
        progress.show(&format!("table {} of {}: {table}", number + 1, tables.len()));
        let mut found = TableReport::new(table);
        if let Err(finding) = read_table(&recipient, table, &mut found, report).await {
            found.failed = true;
            report.fail(finding);
        }
        report.tables.push(found);
    }
    progress.clear();
    report.judge_answers();
}

/// Every table, listed in both ways that clients list them.
async fn everything_listed(recipient: &Recipient, report: &mut Report) -> Result<Vec<Table>, Finding> {
    let (shares, date) = recipient.shares().await?;
    if let Some(theirs) = date {
        let skew = theirs - Utc::now();
        report.skew = Some(skew);
        if skew.abs() > SKEW {
            let (seconds, side) =
                (skew.num_seconds().abs(), if skew > TimeDelta::zero() { "ahead of" } else { "behind" });
            let what = format!("the server's clock is {seconds} s {side} the one of this machine");
            let help = "Clients use their own clock to tell when URLs and tokens expire. Correct the clock that is wrong.";
            report.warn(Finding::new("clock", what).help(help));
        }
    }
    if shares.is_empty() {
        return Err(Finding::new("shares", "the recipient sees no share")
            .help("Grant one: deltashare grant RECIPIENT --share SHARE."));
    }
    report.shares = shares.len();
    let mut tables = Vec::new();
    for share in &shares {
        let all = recipient.all_tables(share).await?;
        let mut by_schema = Vec::new();
        for schema in recipient.schemas(share).await? {
            report.schemas += 1;
            by_schema.extend(recipient.tables(share, &schema).await?);
        }
        let sorted = |tables: &[Table]| {
            let mut names: Vec<_> = tables.iter().map(ToString::to_string).collect();
            names.sort();
            names
        };
        if sorted(&all) != sorted(&by_schema) {
            let what = format!(
                "share {share} lists {} tables at once, and {} by schema",
                all.len(),
                by_schema.len()
            );
            let help =
                "If shares were changed in the meantime, run this again; otherwise, see the server's log.";
            report.fail(Finding::new("shares", what).help(help));
        }
        if all.is_empty() {
            let help =
                "Share a table: deltashare table create SHARE.SCHEMA.TABLE --location s3://BUCKET/PREFIX.";
            report.warn(Finding::new("shares", format!("share {share} has no table")).help(help));
        }
        tables.extend(all);
    }
    Ok(tables)
}

/// Reads one table. What was seen before a failure stays in `found`.
async fn read_table(
    recipient: &Recipient,
    table: &Table,
    found: &mut TableReport,
    report: &mut Report,
) -> Result<(), Finding> {
    found.version = Some(recipient.version(table).await?);
    recipient.metadata(table).await?;
    found.every_client = recipient.serves_every_client(table).await?;
    let answer: QueryAnswer = recipient.query(table).await?;
    answer.check(table)?;
    found.take(&answer);
    report.take(table, &answer);
    let Some(file) = &answer.first_file else {
        found.file = "no file".to_owned();
        return Ok(());
    };
    if let Some(end) = file.ends {
        // By the clock that signed; the one of this machine may be wrong.
        let life = end - (Utc::now() + report.skew.unwrap_or_default());
        found.url_life = Some(life);
        if life <= TimeDelta::zero() {
            return Err(Finding::new(
                table,
                format!("the URL of a file had expired {} s before the answer arrived", -life.num_seconds()),
            )
            .help("The server signs with credentials that have expired: look for STS in its log."));
        }
        if life < SHORT_URL {
            let what = format!("URLs are valid for only {} minutes", life.num_minutes());
            let help = "Long downloads fail, and clients request new URLs again and again: see --url-ttl, the life \
                        of the credentials that sign, and infra/operating.md.";
            report.warn(Finding::new(table, what).help(help));
        }
    }
    found.file = fetch(recipient, table, file).await?;
    Ok(())
}

async fn fetch(recipient: &Recipient, table: &Table, file: &FileUrl) -> Result<String, Finding> {
    let began = Instant::now();
    let bytes = recipient.first_bytes(table, file).await?;
    if is_parquet(&bytes) {
        return Ok(format!("read in {} ms", began.elapsed().as_millis()));
    }
    Err(Finding::new(table, "the first bytes of a file are not those of a Parquet file")
        .help("Something else answers at the URL, such as a proxy, or the file is damaged or encrypted."))
}

/// One line on a terminal, written over and over; nothing elsewhere.
struct Progress {
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal() }
    }

    fn show(&self, what: &str) {
        if self.shown {
            eprint!("\r\x1b[2K{}", printable(what));
        }
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[2K");
        }
    }
}
