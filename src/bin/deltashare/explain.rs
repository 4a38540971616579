//! `deltashare explain`: what a query with hints would send.

use std::path::PathBuf;

use clap::Args;
use deltashare::answer::skipping::{facts, predicates};
use deltashare::catalog::state::{CatalogState, TableState};
use deltashare::check;
use deltashare::delta::{DeltaTable, FileStats};
use deltashare::limits::Limits;
use deltashare::predicate::{AccessFault, Conjunct, FileAccess, Filter, PartitionFilter, Verdict};
use deltashare::protocol::names::Name;
use deltashare::protocol::query::Hints;
use deltashare::role::RoleArn;
use serde_json::{Value, json};

use super::admin::split_table;
use super::arguments::Common;
use super::find_table::{find_table, read_catalog};
use super::output::printable_lines;
use super::serve::parse_role;
use super::{Cause, Failure, blocking};

/// Show what a query would send: how many files and bytes, and what each condition leaves out.
///
/// The conditions are hints, as clients send them in predicateHints and jsonPredicateHints. The server leaves out a file
/// only if its partition values and statistics show that no row matches. Without --where, a query sends every file.
///
/// With --recipient, the command counts only the files that the recipient can read, according to the filters of the table
/// and the grant.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare explain retail.sales.orders --where \"day = '2024-05-01' AND amount > 100\"\n  deltashare explain retail.sales.orders -f shares.yaml --limit 1000\n  deltashare explain retail.sales.orders --recipient acme"
)]
pub(crate) struct Explain {
    /// SHARE.SCHEMA.TABLE
    name: String,
    /// A condition in SQL. Repeat the option for several, which must all hold.
    #[arg(long = "where", value_name = "SQL")]
    sql: Vec<String>,
    /// A condition in the protocol's JSON format.
    #[arg(long, value_name = "JSON")]
    json_where: Option<String>,
    /// Show what this recipient can read of the table.
    #[arg(long, value_name = "NAME")]
    recipient: Option<String>,
    /// How many rows the client reads.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Find the table in a share file instead of in DynamoDB.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The role that reads the table, as the server assumes it. Default: the credentials of the AWS CLI.
    #[arg(long, value_name = "ARN", value_parser = parse_role)]
    signer_role: Option<RoleArn>,
    #[command(flatten)]
    common: Common,
}

/// Explains on a runtime of its own.
pub(crate) fn run(options: &Explain) -> Result<(), Failure> {
    blocking(explain(options))
}

async fn explain(options: &Explain) -> Result<(), Failure> {
    let name = &options.name;
    let file = options.file.as_deref();
    let (aws, found) = find_table(name, file, &options.common).await?;
    let reader = match &options.recipient {
        Some(recipient) => {
            let state = read_catalog(file, &options.common, &aws).await?;
            Some(Reader::new(&state, name, &found, recipient)?)
        }
        None => None,
    };
    let role = options.signer_role.as_ref();
    let (location, _) = check::locations(&found.settings, role)
        .map_err(|reason| Failure::usage(format!("table '{name}': {reason}")))?;
    let store =
        aws.storage(options.signer_role.clone()).open(&location).map_err(|error| unreadable(name, &error))?;
    let delta =
        DeltaTable::new(store.store, store.root, tokio::runtime::Handle::current(), Limits::default());
    let hints = Hints { sql: options.sql.clone(), json: options.json_where.clone(), limit: options.limit };
    let explained = tokio::task::spawn_blocking(move || Explained::of(&delta, &hints, reader)).await;
    let mut explained = explained
        .map_err(|error| Failure::failed(error.to_string()))?
        .map_err(|error| unreadable(name, &error))?;
    explained.filter_of_table = found.settings.filter;
    if options.common.is_json() {
        println!("{}", explained.to_json(name));
    } else {
        println!("{}", printable_lines(&explained.to_text(name)));
    }
    Ok(())
}

fn unreadable(name: &str, error: &deltashare::error::Error) -> Failure {
    let reason = error.explanation().map_or_else(|| error.to_string(), str::to_owned);
    Failure::failed(format!("table '{name}' cannot be read: {reason}"))
}

/// A recipient that queries a table.
struct Reader {
    name: String,
    /// The filters, each with what has it.
    filters: Vec<(&'static str, PartitionFilter)>,
    access: FileAccess,
}

impl Reader {
    /// Fails if the catalog has no such recipient, or if the share is not granted to it.
    fn new(
        state: &CatalogState,
        table: &str,
        settings: &TableState,
        recipient: &str,
    ) -> Result<Self, Failure> {
        let missing = |message| Failure { code: 3, message, cause: Cause::Said };
        let found = state.recipients.get(&Name::key_of(recipient));
        let found = found.ok_or_else(|| missing(format!("there is no recipient '{recipient}'")))?;
        let (share, schema, name) = split_table(table)?;
        let grant = found.shares.get(&Name::key_of(share));
        let grant = grant.ok_or_else(|| {
            missing(format!("share '{share}' is not granted to recipient '{}'", found.name))
        })?;
        if let Some(tables) = grant.tables.as_ref().filter(|_| !grant.includes_named(schema, name)) {
            return Err(missing(format!(
                "table '{table}' is not granted to recipient '{}': of share '{share}', the grant includes only the tables {tables}",
                found.name
            )));
        }
        let of_table = settings.settings.filter.iter().map(|filter| ("table", filter.clone()));
        let filters: Vec<_> =
            of_table.chain(grant.filter.iter().map(|filter| ("grant", filter.clone()))).collect();
        let access = settings.settings.access(grant.filter.as_ref(), &found.properties);
        Ok(Self { name: found.name.clone(), filters, access })
    }
}

/// What a recipient can read of a version.
struct Shared {
    reader: Reader,
    /// All files of the version, and their size.
    all: FileStats,
    fault: Option<AccessFault>,
}

/// What a query sends of a version.
struct Explained {
    version: u64,
    shared: Option<Shared>,
    filter_of_table: Option<PartitionFilter>,
    /// The files that can be read.
    files: u64,
    bytes: u64,
    sent_files: u64,
    sent_bytes: u64,
    /// Whether the files that are sent surely have as many matching rows as the client reads.
    limit: Option<(u64, bool)>,
    filter: Filter,
}

impl Explained {
    /// Blocks on the store of the table.
    fn of(delta: &DeltaTable, hints: &Hints, reader: Option<Reader>) -> deltashare::error::Result<Self> {
        let snapshot = delta.latest()?;
        let access = reader.as_ref().map_or_else(FileAccess::everything, |reader| reader.access.clone());
        let shared = match reader {
            Some(reader) => {
                let fault = access.bind(snapshot.metadata().columns()).fault().cloned();
                Some(Shared { reader, all: snapshot.count_files()?, fault })
            }
            None => None,
        };
        let delta = delta.with_access(access);
        let mut files = delta.files(&snapshot)?;
        let filter = Filter::new(predicates(hints), hints.limit.is_some(), snapshot.metadata().columns());
        let version = snapshot.version();
        let mut this = Self {
            version,
            shared,
            filter_of_table: None,
            files: 0,
            bytes: 0,
            sent_files: 0,
            sent_bytes: 0,
            limit: None,
            filter,
        };
        let mut rows = 0_u64;
        while let Some(file) = files.advance()? {
            let size = file.size.unsigned_abs();
            this.files += 1;
            this.bytes = this.bytes.saturating_add(size);
            let is_enough = hints.limit.is_some_and(|limit| rows >= limit);
            if let Verdict::Kept { matching_rows } = this.filter.judge_by_each(&facts(&file))
                && !is_enough
            {
                rows = rows.saturating_add(matching_rows);
                this.sent_files += 1;
                this.sent_bytes = this.sent_bytes.saturating_add(size);
            }
        }
        this.limit = hints.limit.map(|limit| (limit, rows >= limit));
        Ok(this)
    }

    fn to_json(&self, name: &str) -> Value {
        let condition = |conjunct: &Conjunct| {
            json!({
                "condition": conjunct.text,
                "evaluated": conjunct.is_evaluated(),
                "leftOut": conjunct.left_out,
                "ignored": conjunct.ignored,
                "statisticsOf": conjunct.columns,
            })
        };
        let lacks = self.filter.lacks().map(|lack| {
            json!({"column": lack.column, "filesWithoutStatistics": lack.missing, "filesWithCutOffText": lack.cut_off})
        });
        let shared = self.shared.as_ref().map(|Shared { reader, all, fault }| {
            let filters =
                reader.filters.iter().map(|(of, filter)| json!({"of": of, "filter": filter.text()}));
            json!({
                "recipient": reader.name,
                "filters": filters.collect::<Vec<_>>(),
                "sharesNothing": fault.as_ref().map(|fault| &fault.reason),
                "tableFiles": all.num_files,
                "tableBytes": all.size_bytes,
            })
        });
        json!({
            "table": name,
            "version": self.version,
            "shared": shared,
            "filterNotApplied": self.filter_of_table.as_ref().filter(|_| self.shared.is_none()).map(PartitionFilter::text),
            "files": self.files,
            "bytes": self.bytes,
            "sentFiles": self.sent_files,
            "sentBytes": self.sent_bytes,
            "limit": self.limit.map(|(limit, reached)| json!({"rows": limit, "reached": reached})),
            "conditions": self.filter.conjuncts().iter().map(condition).collect::<Vec<_>>(),
            "lacks": lacks.collect::<Vec<_>>(),
        })
    }

    fn to_text(&self, name: &str) -> String {
        let Self { version, files, bytes, sent_files, sent_bytes, .. } = self;
        let mut lines = match &self.shared {
            Some(shared) => shared.to_text(name, *version, *files, *bytes),
            None => vec![format!("{name}: version {version}, {files} files, {bytes} bytes")],
        };
        if let (None, Some(filter)) = (&self.shared, &self.filter_of_table) {
            lines.push(format!(
                "The filter of the table is not applied: {filter}. To apply it, name a recipient with --recipient."
            ));
        }
        for conjunct in self.filter.conjuncts() {
            lines.push(String::new());
            if conjunct.is_evaluated() {
                lines.push(conjunct.text.clone());
                let by = match conjunct.columns.as_slice() {
                    [] => "by partition values".to_owned(),
                    columns => format!("by statistics of {}", columns.join(", ")),
                };
                lines.push(format!("  leaves out {} of {files} files {by}", conjunct.left_out));
            }
            let indent = if conjunct.is_evaluated() { "  " } else { "" };
            lines.extend(conjunct.ignored.iter().map(|reason| format!("{indent}not used: {reason}")));
        }
        if self.filter.lacks().next().is_some() {
            lines.push(String::new());
        }
        for lack in self.filter.lacks() {
            if lack.missing > 0 {
                lines.push(format!(
                    "{} has no statistics in {} files, so these files stay. Statistics are collected for the first 32 columns \
                     unless delta.dataSkippingStatsColumns or delta.dataSkippingNumIndexedCols says otherwise.",
                    lack.column, lack.missing
                ));
            }
            if lack.cut_off > 0 {
                lines.push(format!(
                    "{} has long texts in {} files, of which the statistics have the beginning only.",
                    lack.column, lack.cut_off
                ));
            }
        }
        lines.push(String::new());
        match self.limit {
            Some((limit, true)) => lines.push(format!("The files that are sent have at least {limit} matching rows, so the others are left out.")),
            Some((limit, false)) => lines.push(format!(
                "The limit of {limit} rows leaves out nothing: the statistics do not show that so many rows match."
            )),
            None => {}
        }
        lines.push(format!(
            "A query sends {sent_files} of {files} files, {sent_bytes} of {bytes} bytes ({}).",
            percent(*sent_bytes, *bytes)
        ));
        lines.join("\n")
    }
}

impl Shared {
    /// `files` and `bytes` are those that the recipient can read.
    fn to_text(&self, name: &str, version: u64, files: u64, bytes: u64) -> Vec<String> {
        let Self { reader, all, fault } = self;
        let (all_files, all_bytes) = (all.num_files, all.size_bytes);
        let mut lines = vec![
            format!("{name}: version {version}, {all_files} files, {all_bytes} bytes"),
            format!(
                "{} can read {files} of {all_files} files, {bytes} of {all_bytes} bytes ({})",
                reader.name,
                percent(bytes, all_bytes)
            ),
        ];
        lines.extend(
            reader.filters.iter().map(|(of, filter)| format!("  by the filter of the {of}: {filter}")),
        );
        lines.extend(fault.as_ref().map(|fault| format!("  nothing is shared: {}", fault.reason)));
        lines
    }
}

/// A share in tenths of a percent, without the rounding of floating-point numbers.
fn percent(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000).checked_div(u128::from(whole)).unwrap_or(1000);
    format!("{}.{} %", tenths / 10, tenths % 10)
}
