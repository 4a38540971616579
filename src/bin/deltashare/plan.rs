//! A share file and what is in DynamoDB: compared, brought in line, written down.

use std::path::{Path, PathBuf};

use clap::Args;
use deltashare::catalog::share_file::Access;
use deltashare::catalog::state::{Change, State};
use deltashare::catalog::writer::Writer;

use super::{Failure, share_file};

/// Compare a share file with the DynamoDB table.
#[derive(Args)]
#[command(after_help = "Example:\n  deltashare plan -f shares.yaml")]
pub(crate) struct Plan {
    /// The share file.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

/// Make the DynamoDB table hold what a share file says.
///
/// A file without `recipients` leaves recipients as they are. What is deleted needs --prune.
#[derive(Args)]
#[command(after_help = "Example:\n  deltashare apply -f shares.yaml --prune")]
pub(crate) struct Apply {
    /// The share file.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Delete what the file does not have.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

/// Write the DynamoDB table's shares and recipients as a share file, to standard output.
#[derive(Args)]
#[command(after_help = "Example:\n  deltashare export > shares.yaml")]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) common: super::arguments::Common,
}

/// What a share file says: shares, and recipients where it names any. Only what DynamoDB can hold is taken.
fn wanted(path: &Path, now: &State) -> Result<State, Failure> {
    let (file, _) = share_file::read(path).map_err(Failure::usage)?;
    let refuse = |why: &str| Err(Failure::usage(format!("{}: {why}", path.display())));
    if let Some(table) = file.unreadable.first() {
        return refuse(&table.to_string());
    }
    if let Some(local) = share_file::directories(&file).first() {
        return refuse(&format!("{} is not in S3, where tables of a DynamoDB catalog lie", local.display()));
    }
    let mut state = file.state();
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
                .map(move |table| (format!("{}/", table.location), &schema.name, &table.name))
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
                    "the location of table '{}.{in_schema}.{in_table}' lies in that of '{}.{schema}.{table}'",
                    share.name, share.name
                ));
            }
        }
    }
    Ok(state)
}

async fn changes(writer: &Writer, path: &Path) -> Result<Vec<Change>, Failure> {
    let now = writer.state().await?;
    Ok(now.changes_to(&wanted(path, &now)?))
}

pub(crate) async fn plan(writer: &Writer, options: &Plan) -> Result<(), Failure> {
    let changes = changes(writer, &options.file).await?;
    for change in &changes {
        println!("{change}");
    }
    let removed = changes.iter().filter(|change| change.removes()).count();
    eprintln!("{} to add or change, {removed} to delete, which needs apply --prune", changes.len() - removed);
    Ok(())
}

pub(crate) async fn apply(writer: &Writer, options: &Apply) -> Result<(), Failure> {
    let (mut done, mut left) = (0, 0);
    for change in changes(writer, &options.file).await? {
        if change.removes() && !options.prune {
            left += 1;
            continue;
        }
        writer.apply(&change).await.map_err(|error| {
            let mut failure = Failure::from(error);
            failure.message = format!("{change}: {} ({done} changes were made before)", failure.message);
            failure
        })?;
        println!("{change}");
        done += 1;
    }
    match left {
        0 => eprintln!("{done} changes"),
        left => eprintln!("{done} changes; {left} are left, because they delete: see plan, and --prune"),
    }
    Ok(())
}

pub(crate) async fn export(writer: &Writer) -> Result<(), Failure> {
    let state = writer.state().await?;
    let text = serde_saphyr::to_string(&state.to_share_file());
    print!("{}", text.map_err(|error| Failure::failed(error.to_string()))?);
    Ok(())
}
