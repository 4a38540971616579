//! A share file and what is in DynamoDB: compared, brought in line, written down.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::Args;
use deltashare::catalog::diff::CatalogChange;
use deltashare::catalog::dynamodb::{BadRecord, LIVE_TOKENS, Writer};
use deltashare::catalog::share_file::Access;
use deltashare::catalog::state::{CatalogState, RecipientState};
use deltashare::protocol::names::Name;

use super::next_step::command;
use super::shell::option;
use super::{Cause, Failure, share_file};

/// Show what apply with the same options would change, without changing anything.
///
/// Changes that need --prune are always shown, and are counted separately.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare plan -f shares.yaml\n  deltashare plan -f shares.yaml --prune"
)]
pub(crate) struct Plan {
    /// The share file.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Delete what the file does not contain.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

/// Change the DynamoDB table to match a share file.
///
/// A file without `recipients` does not change recipients. Deletions need --prune. If recipients or grants would be deleted,
/// removals of filters need it too; if tables would be deleted, so do additions to the tables of a grant. If recipients, grants,
/// tokens, or OIDC policies would be deleted, so do wider addresses and higher limits of recipients. A token or an OIDC policy
/// that moves to another recipient also needs --prune; while it moves, requests with it get 401.
#[derive(Args)]
#[command(after_help = "Example:\n  deltashare apply -f shares.yaml --prune")]
pub(crate) struct Apply {
    /// The share file.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Delete what the file does not contain.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

/// Write the shares and recipients of the DynamoDB table to standard output, as a share file.
#[derive(Args)]
#[command(after_help = "Example:\n  deltashare export > shares.yaml")]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

/// What a share file says: shares, and recipients if it names any. Only what DynamoDB can hold is taken.
fn wanted(path: &Path, now: &CatalogState) -> Result<CatalogState, Failure> {
    let (file, _) = share_file::read(path).map_err(Failure::usage)?;
    let refuse = |why: &str| Err(Failure::usage(format!("{}: {why}", path.display())));
    if let Some(table) = file.unreadable.first() {
        return refuse(&table.to_string());
    }
    if let Some(local) = share_file::directories(&file).first() {
        return refuse(&format!(
            "{} is not in S3, and tables in a DynamoDB catalog must be in S3",
            local.display()
        ));
    }
    let mut state = file.state(now);
    match file.access() {
        // It says nothing of recipients, so they stay as they are.
        Access::Unsaid => state.recipients.clone_from(&now.recipients),
        Access::Everyone => {
            return refuse("a DynamoDB catalog cannot be open to everyone; remove authorization: none");
        }
        Access::Tokens => {}
    }
    if state.recipients.contains_key("") {
        return refuse(
            "give recipients tokens of their own; one token for everybody cannot be kept in DynamoDB",
        );
    }
    for share in state.shares.values() {
        let tables = share.schemas.values().flat_map(|schema| {
            schema
                .tables
                .values()
                .map(move |table| (format!("{}/", table.settings.location), &schema.name, &table.name))
        });
        let mut tables: Vec<_> = tables.collect();
        tables.sort();
        // What lies in a location follows it.
        for pair in tables.windows(2) {
            if let [(outer, schema, table), (inner, in_schema, in_table)] = pair
                && inner != outer
                && inner.starts_with(outer.as_str())
            {
                return refuse(&format!(
                    "the location of table '{}.{in_schema}.{in_table}' is inside the location of \
                     '{}.{schema}.{table}'",
                    share.name, share.name
                ));
            }
        }
    }
    Ok(state)
}

/// What the table holds. Refused if a record cannot be read: a comparison would take it for one that is not there.
async fn now(writer: &Writer) -> Result<CatalogState, Failure> {
    let contents = writer.read().await?;
    refuse(
        contents.bad.iter().chain(&contents.unwritable),
        "the contents of the DynamoDB table cannot be compared",
    )?;
    Ok(contents.state)
}

fn refuse<'a>(records: impl Iterator<Item = &'a BadRecord>, what: &str) -> Result<(), Failure> {
    let reasons: Vec<_> = records.map(ToString::to_string).collect();
    refuse_for(&reasons, what)
}

fn refuse_for(reasons: &[String], what: &str) -> Result<(), Failure> {
    match reasons {
        [] => Ok(()),
        reasons => Err(Failure::failed(format!(
            "{what}:\n  {}\nCorrect or delete these records, then try again",
            reasons.join("\n  ")
        ))),
    }
}

/// What a file changes.
struct Comparison {
    /// The state from which changes begin.
    now: CatalogState,
    /// What the file says.
    wanted: CatalogState,
    changes: Vec<CatalogChange>,
}

async fn compare(writer: &Writer, path: &Path) -> Result<Comparison, Failure> {
    let now = now(writer).await?;
    let wanted = wanted(path, &now)?;
    let changes = now.changes_to(&wanted);
    Ok(Comparison { now, wanted, changes })
}

/// Refuses before anything is changed what a writer refuses when it comes to it: a token more than a recipient may have.
fn check_tokens(now: &CatalogState, changes: &[CatalogChange], prune: bool) -> Result<(), Failure> {
    let works = |end: &Option<DateTime<Utc>>| end.is_none_or(|end| end > Utc::now());
    // A token stays with its recipient until the move is applied.
    let applied: Vec<_> = changes.iter().filter(|change| prune || !now.is_move(change)).collect();
    for recipient in applied.iter().filter_map(|change| match change {
        CatalogChange::AddToken { recipient, token, .. } if token.is_live(Utc::now()) => Some(recipient),
        // A token that has expired becomes valid again, as when an older catalog is restored.
        CatalogChange::TokenExpiry { recipient, before, after, .. } if !works(before) && works(after) => {
            Some(recipient)
        }
        _ => None,
    }) {
        let mut after = now.recipients.get(&Name::key_of(recipient)).cloned();
        let tokens = &mut after.get_or_insert_with(RecipientState::default).tokens;
        for change in &applied {
            match change {
                CatalogChange::AddToken { recipient: of, hash, token } if of == recipient => {
                    tokens.insert(hash.clone(), token.clone());
                }
                CatalogChange::RemoveToken { recipient: of, hash } if of == recipient && prune => {
                    tokens.remove(hash);
                }
                CatalogChange::TokenExpiry { recipient: of, hash, after: end, .. } if of == recipient => {
                    tokens.entry(hash.clone()).and_modify(|token| token.expires = *end);
                }
                _ => {}
            }
        }
        let live = tokens.values().filter(|token| token.is_live(Utc::now())).count();
        if live > LIVE_TOKENS {
            return Err(Failure::usage(format!(
                "recipient '{recipient}' would have {live} live tokens, but can have at most {LIVE_TOKENS}; first \
                 remove some from the file, or revoke some"
            )));
        }
    }
    Ok(())
}

pub(crate) async fn plan(writer: &Writer, options: &Plan) -> Result<(), Failure> {
    let Comparison { now, wanted, changes } = compare(writer, &options.file).await?;
    for change in &changes {
        println!("{change}");
    }
    share_file::warn_of_missing_properties(&wanted);
    // After the changes are shown, which say what to remove from the file.
    check_tokens(&now, &changes, options.prune)?;
    let held: Vec<_> = changes.iter().filter(|change| needs_prune(change, &changes, &now)).collect();
    let (removed, deletions) = (held.len(), held.iter().filter(|change| change.removes()).count());
    let file = option("-f", "--file", &options.file.display().to_string());
    let apply = command(&options.common, "apply", None, &file);
    let prune = command(&options.common, "apply", None, &format!("{file} --prune"));
    match (changes.len() - removed, removed) {
        (0, 0) => eprintln!("The DynamoDB table already matches the file; there is nothing to change."),
        (other, 0) => eprintln!("{} to apply, with: {apply}", count(other, "change")),
        (other, removed) if options.prune => eprintln!(
            "{} to apply, including {}, with: {prune}",
            count(other + removed, "change"),
            count(deletions, "deletion")
        ),
        (0, removed) => eprintln!(
            "0 changes to apply; {}. To apply {}: {prune}",
            need_prune(removed, deletions),
            if removed == 1 { "it" } else { "them" }
        ),
        (other, removed) => eprintln!(
            "{} to apply, with: {apply}; {}. To apply everything: {prune}",
            count(other, "change"),
            need_prune(removed, deletions)
        ),
    }
    Ok(())
}

/// Whether apply leaves a change out unless --prune is set. A filter stays as long as a recipient or a grant stays that the
/// file does not have: the filter may be what hides rows from it. Likewise a grant gets no more tables as long as tables stay
/// that the file does not have, and a restriction is not loosened as long as a grant or a token stays that the file does not have.
/// A token or an OIDC policy cannot be added to a recipient as long as another one has it.
fn needs_prune(change: &CatalogChange, all: &[CatalogChange], now: &CatalogState) -> bool {
    change.removes()
        || now.is_move(change)
        || (change.removes_filter() && all.iter().any(CatalogChange::ends_access))
        || (change.adds_tables() && all.iter().any(CatalogChange::removes_tables))
        || (change.loosens_restriction()
            && all.iter().any(|other| other.ends_access() || other.ends_credentials()))
}

/// `held` changes need --prune, of which so many are deletions.
fn need_prune(held: usize, deletions: usize) -> String {
    let what = if held == deletions { "deletion" } else { "change" };
    format!("{} {} --prune", count(held, what), if held == 1 { "needs" } else { "need" })
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

pub(crate) async fn apply(writer: &Writer, options: &Apply) -> Result<(), Failure> {
    let (mut done, mut left, mut deletions) = (0, 0, 0);
    let Comparison { now, wanted, changes } = compare(writer, &options.file).await?;
    check_tokens(&now, &changes, options.prune)?;
    share_file::warn_of_missing_properties(&wanted);
    let held: Vec<bool> = changes.iter().map(|change| needs_prune(change, &changes, &now)).collect();
    for (change, is_held) in changes.into_iter().zip(held) {
        if is_held && !options.prune {
            left += 1;
            deletions += usize::from(change.removes());
            continue;
        }
        writer.apply(&change).await.map_err(|error| {
            let mut failure = Failure::from(error);
            if let Cause::Missing(_) = failure.cause {
                // The file is what creates it.
                failure.cause = Cause::Said;
            }
            failure.message = format!(
                "{change}: {} ({} applied before this one; apply the file again to continue)",
                failure.message,
                count(done, "change")
            );
            failure
        })?;
        println!("{change}");
        done += 1;
    }
    match (done, left) {
        (0, 0) => eprintln!("The DynamoDB table already matches the file; nothing was changed."),
        (done, 0) => {
            eprintln!("{} applied. Servers use the new state from the next request.", count(done, "change"))
        }
        (done, left) => eprintln!(
            "{} applied. {}: plan shows them, and apply --prune applies them.",
            count(done, "change"),
            need_prune(left, deletions)
        ),
    }
    Ok(())
}

/// Writes a share file, if it says exactly what servers see.
pub(crate) async fn export(writer: &Writer) -> Result<(), Failure> {
    const REFUSED: &str = "nothing was exported, because a share file cannot express what the DynamoDB table \
                           contains";
    let contents = writer.read().await?;
    refuse(contents.bad.iter().chain(&contents.unwritable), REFUSED)?;
    let state = contents.state;
    refuse_for(&bad_locations(&state), REFUSED)?;
    let text = serde_saphyr::to_string(&state.to_share_file());
    let text = text.map_err(|error| Failure::failed(error.to_string()))?;
    // Whatever is written is read back before it is handed out.
    let file = share_file::parse(Path::new("the exported file"), &text);
    let read = file.map_err(|reason| Failure::failed(format!("{REFUSED}: {reason}")))?;
    let differences = read.state(&CatalogState::default()).changes_to(&state);
    refuse_for(&differences.iter().map(ToString::to_string).collect::<Vec<_>>(), REFUSED)?;
    print!("{text}");
    for record in &contents.unpaired {
        eprintln!("note: {record}");
    }
    let tables = state.shares.values().flat_map(|share| share.schemas.values());
    eprintln!(
        "{}, {} and {} exported.",
        count(state.shares.len(), "share"),
        count(tables.map(|schema| schema.tables.len()).sum(), "table"),
        count(state.recipients.len(), "recipient")
    );
    Ok(())
}

/// Locations that no server reads, and that a share file may not have either.
fn bad_locations(state: &CatalogState) -> Vec<String> {
    let mut bad = Vec::new();
    for share in state.shares.values() {
        for schema in share.schemas.values() {
            for table in schema.tables.values() {
                for location in table.settings.locations() {
                    if let Some(reason) = location.error() {
                        let name = format!("{}.{}.{}", share.name, schema.name, table.name);
                        bad.push(format!("table {name}: location {location}: {reason}"));
                    }
                }
            }
        }
    }
    bad
}
