//! `deltashare checkpoint`: writes a checkpoint into a table's log, with the writer of the `deltalake` crate and the
//! rights of who is signed in. The server itself never writes into a table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::protocol::checkpoints::create_checkpoint;
use deltalake::{DeltaTable, DeltaTableError};
use deltashare::catalog::state::{State, TableState};
use deltashare::catalog::writer::Writer;
use deltashare::check::{self, Reader, named};
use deltashare::storage::Location;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::admin::split_table;
use super::aws::Aws;
use super::output::confirm;
use super::{Cause, Failure, next_step, share_file};

/// Write a checkpoint of a table's newest version, so that its log is read with fewer requests.
///
/// A log of hundreds of commits without a checkpoint makes the first query slow; deltashare check names such tables.
/// What writes to the table should do this by itself: see delta.checkpointInterval. The files of the table and its
/// commits stay as they are. Needs s3:PutObject for the log, with your own credentials.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare checkpoint retail.sales.orders\n  deltashare checkpoint retail.sales.orders -f shares.yaml --yes"
)]
pub(crate) struct Checkpoint {
    /// SHARE.SCHEMA.TABLE
    name: String,
    /// Find the table in a share file, in place of DynamoDB.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: super::arguments::Common,
}

/// Writes the checkpoint on a runtime of its own.
pub(crate) fn run(options: &Checkpoint) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(error.to_string()))?;
    runtime.block_on(checkpoint(options))
}

async fn checkpoint(options: &Checkpoint) -> Result<(), Failure> {
    let name = &options.name;
    let (aws, table) = match &options.file {
        Some(path) => (Aws::load().await?, in_file(path, name)?),
        None => {
            let aws = Aws::signed_in().await?;
            let config = aws_sdk_dynamodb::config::Builder::from(&aws.sdk);
            let writer = Writer::new(config, &options.common.dynamodb_table);
            let (share, schema, table) = split_table(name)?;
            match writer.table(share, schema, table).await {
                Ok(table) => (aws, table),
                Err(error) => return Err(next_step::explain(error.into(), &options.common, &aws.sdk).await),
            }
        }
    };
    let refused = |reason: String| Failure::usage(format!("table '{name}': {reason}"));
    let (location, _) = check::location(&table, None).map_err(refused)?;
    // The role of the server may only read.
    let location = location.read_by(None);
    let storage = aws.storage(None);
    let own = TableState { signer_role: None, ..table.clone() };
    let before = Reader::new(&storage, None).open(name, &own).await;
    let (Some(version), Some(commits)) = (before.version, before.commits_since_checkpoint) else {
        let reason = before.reason.unwrap_or_default();
        return Err(Failure::failed(format!(
            "table '{name}' cannot be read with your credentials: {reason}"
        )));
    };
    if commits == 0 {
        options.common.output.done(&format!("version {version} of table '{name}' has a checkpoint already"));
        return Ok(());
    }
    let shown = table.location.trim_end_matches('/');
    confirm(
        options.yes,
        &format!(
            "Write a checkpoint of version {version} ({} files, {commits} commits since the last one) into \
             {shown}/_delta_log/?",
            before.files.unwrap_or_default()
        ),
    )?;
    let (store, url) = match &location {
        Location::Local(path) => {
            let url =
                Url::from_directory_path(path).map_err(|()| refused("its directory is no URL".to_owned()))?;
            (Arc::new(LocalFileSystem::new()) as Arc<dyn ObjectStore>, url)
        }
        Location::S3 { bucket, prefix, .. } => {
            let store =
                storage.writable(&location).await.map_err(|error| Failure::failed(error.to_string()))?;
            let mut url =
                Url::parse(&format!("s3://{bucket}/")).map_err(|error| refused(error.to_string()))?;
            // A key is taken as it is, and a URL is not.
            url.set_path(&utf8_percent_encode(prefix, KEY).to_string());
            (store, url)
        }
    };
    write(store, &url, version).await.map_err(|error| {
        let error = error.to_string();
        let denied = error.to_lowercase().contains("denied");
        let help = if denied { "; your credentials need s3:PutObject there" } else { "" };
        Failure::failed(format!("no checkpoint of table '{name}' was written: {error}{help}"))
    })?;
    let after = Reader::new(&aws.storage(None), None).open(name, &own).await;
    if after.files != before.files && after.version == before.version {
        return Err(Failure::failed(format!(
            "the checkpoint of version {version} of table '{name}' was written, but the table has other files with it \
             than before: delete it and _last_checkpoint from {shown}/_delta_log/"
        )));
    }
    options.common.output.done(&format!(
        "a checkpoint of version {version} of table '{name}' is written; servers read it from the next new version or \
         their next start on"
    ));
    Ok(())
}

/// What stands for itself in a key.
const KEY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'=');

fn in_file(path: &Path, name: &str) -> Result<TableState, Failure> {
    let (file, _) = share_file::read(path).map_err(Failure::usage)?;
    let state = file.state(&State::default());
    let found = named(&state).find(|(_, known, _)| known.eq_ignore_ascii_case(name));
    let missing = || Failure {
        code: 3,
        message: format!("there is no table '{name}' in {}", path.display()),
        cause: Cause::Said,
    };
    found.map(|(_, _, table)| table.clone()).ok_or_else(missing)
}

/// Writes a checkpoint of this version of the table at `url`; `store` has the whole bucket or file system.
async fn write(store: Arc<dyn ObjectStore>, url: &Url, version: u64) -> Result<(), DeltaTableError> {
    let root = object_store::path::Path::from_url_path(url.path())
        .map_err(|error| DeltaTableError::generic(error.to_string()))?;
    let prefixed = Arc::new(PrefixStore::new(Arc::clone(&store), root));
    // By its parts: the builder finds stores by schemes that must be registered.
    let mut table = DeltaTable::new(default_logstore(prefixed, store, url, &StorageConfig::default()));
    table.load_version(version).await?;
    create_checkpoint(&table, None).await
}
