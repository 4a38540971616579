//! `deltashare checkpoint`: writes a checkpoint into a table's log, with the writer of the `deltalake` crate and the
//! rights of who is signed in. The server itself never writes into a table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::protocol::checkpoints::create_checkpoint;
use deltalake::{DeltaTable, DeltaTableError};
use deltashare::catalog::TableSettings;
use deltashare::check::{self, TableChecker};
use deltashare::delta::{Metadata, Protocol};
use deltashare::limits::Limits;
use deltashare::location::Location;
use deltashare::s3_error::S3Error;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::find_table::find_table;
use super::output::confirm;
use super::{Failure, blocking};

/// Write a checkpoint of a table's newest version, so that its log is read with fewer requests.
///
/// A log of hundreds of commits without a checkpoint makes the first query slow; deltashare check names such tables.
/// The writer of the table should do this by itself: see delta.checkpointInterval. The files and commits of the table do
/// not change. Your own credentials need s3:PutObject for the log.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare checkpoint retail.sales.orders\n  deltashare checkpoint retail.sales.orders -f shares.yaml --yes"
)]
pub(crate) struct Checkpoint {
    /// SHARE.SCHEMA.TABLE
    name: String,
    /// Find the table in a share file instead of in DynamoDB.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: super::arguments::Common,
}

/// Writes the checkpoint on a runtime of its own.
pub(crate) fn run(options: &Checkpoint) -> Result<(), Failure> {
    blocking(checkpoint(options))
}

async fn checkpoint(options: &Checkpoint) -> Result<(), Failure> {
    let name = &options.name;
    let (aws, table) = find_table(name, options.file.as_deref(), &options.common).await?;
    let refused = |reason: String| Failure::usage(format!("table '{name}': {reason}"));
    let (location, _) = check::locations(&table.settings, None).map_err(refused)?;
    // The role of the server may only read.
    let location = location.read_by(None);
    let storage = aws.storage(None);
    let own = TableSettings { signer_role: None, ..table.settings.clone() };
    let before = TableChecker::new(&storage, None).open(name, &own, &[]).await;
    let (Some(version), Some(commits)) = (before.version, before.commits_since_checkpoint) else {
        let reason = before.reason.unwrap_or_default();
        return Err(Failure::failed(format!(
            "table '{name}' cannot be read with your credentials: {reason}"
        )));
    };
    if commits == 0 {
        options.common.output.done(&format!("version {version} of table '{name}' already has a checkpoint"));
        return Ok(());
    }
    let shown = table.settings.location.text().trim_end_matches('/');
    confirm(
        options.yes,
        &format!(
            "Write a checkpoint of version {version} ({} files, {commits} commits since the last one) into \
             {shown}/_delta_log/?",
            before.files.unwrap_or_default()
        ),
    )?;
    let store: Arc<dyn ObjectStore> = match &location {
        Location::Local(path) => {
            Arc::new(LocalFileSystem::new_with_prefix(path).map_err(|error| refused(error.to_string()))?)
        }
        Location::S3 { prefix, .. } => {
            let bucket =
                storage.writable(&location).await.map_err(|error| Failure::failed(error.to_string()))?;
            // A key is taken as it is.
            let prefix = Path::parse(prefix).map_err(|error| refused(error.to_string()))?;
            Arc::new(PrefixStore::new(bucket, prefix))
        }
    };
    let not_written =
        |reason: &str| Failure::failed(format!("no checkpoint of table '{name}' was written: {reason}"));
    let draft = Arc::new(Draft::of(&store));
    let made = make(Arc::clone(&draft), version).await;
    // Further lines are where in the writer it happened.
    made.map_err(|error| not_written(error.to_string().lines().next().unwrap_or_default()))?;
    let compared = compare(Arc::new(Draft::of(&store)), draft.clone(), version).await;
    compared.map_err(|reason| not_written(&reason))?;
    let files = draft.files().await.map_err(|error| not_written(&error.to_string()))?;
    // The checkpoint before the hint that names it.
    let (hints, checkpoints): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(path, _)| path.filename() == Some("_last_checkpoint"));
    for (path, bytes) in checkpoints {
        let error = match store.head(&path).await {
            Err(object_store::Error::NotFound { .. }) => match store.put(&path, bytes.into()).await {
                Ok(_) => continue,
                Err(error) => sentence(&error),
            },
            Ok(_) => format!("{shown}/{path} already exists"),
            Err(error) => sentence(&error),
        };
        let denied = error.to_lowercase().contains("denied");
        let help = if denied { "; your credentials need s3:PutObject there" } else { "" };
        return Err(not_written(&format!("{error}{help}")));
    }
    for (path, bytes) in hints {
        store.put(&path, bytes.into()).await.map_err(|error| {
            Failure::failed(format!(
                "the checkpoint of version {version} of table '{name}' was written and is in use, but \
                 {shown}/{path}, which points to it for readers that do not list the log, was not: {}",
                sentence(&error)
            ))
        })?;
    }
    options.common.output.done(&format!(
        "a checkpoint of version {version} of table '{name}' was written; servers use it from the next version of \
         the table, or after a restart"
    ));
    Ok(())
}

/// What S3 says is wrong, or the error of the store as it is.
fn sentence(error: &object_store::Error) -> String {
    S3Error::behind(error).map_or_else(|| error.to_string(), |answer| answer.explain())
}

/// A table with the files that are about to be written into it, which are in memory until they have been compared.
#[derive(Debug)]
struct Draft {
    table: Arc<dyn ObjectStore>,
    written: InMemory,
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "draft of {}", self.table)
    }
}

impl Draft {
    /// Nothing is written yet. Files are listed by their names, which not every store does.
    fn of(table: &Arc<dyn ObjectStore>) -> Self {
        Self { table: Arc::clone(table), written: InMemory::new() }
    }

    /// What was written.
    async fn files(&self) -> object_store::Result<Vec<(Path, Bytes)>> {
        let mut files = Vec::new();
        let mut listed = self.written.list(None);
        while let Some(file) = listed.next().await.transpose()? {
            let bytes = self.written.get(&file.location).await?.bytes().await?;
            files.push((file.location, bytes));
        }
        Ok(files)
    }

    /// Files of the table, and those that were written, in the order of their names.
    fn merged(
        &self,
        listed: BoxStream<'static, object_store::Result<ObjectMeta>>,
        written: BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let all = async move {
            let (mut files, listed): (Vec<ObjectMeta>, Vec<ObjectMeta>) =
                futures::try_join!(written.try_collect(), listed.try_collect())?;
            let own: Vec<Path> = files.iter().map(|file| file.location.clone()).collect();
            files.extend(listed.into_iter().filter(|file| !own.contains(&file.location)));
            files.sort_by(|a, b| a.location.cmp(&b.location));
            Ok::<_, object_store::Error>(stream::iter(files.into_iter().map(Ok)))
        };
        stream::once(all).try_flatten().boxed()
    }
}

#[async_trait]
impl ObjectStore for Draft {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        match self.written.get_opts(location, options.clone()).await {
            Err(object_store::Error::NotFound { .. }) => self.table.get_opts(location, options).await,
            found => found,
        }
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.written.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.written.put_multipart_opts(location, options).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.merged(self.table.list(prefix), self.written.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.merged(
            self.table.list_with_offset(prefix, offset),
            self.written.list_with_offset(prefix, offset),
        )
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.table.list_with_delimiter(prefix).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        // Old commits are the business of what writes to the table.
        self.written.delete_stream(locations)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.written.copy_opts(from, to, options).await
    }
}

/// The root of a table whose store has nothing else.
fn root() -> Result<Url, String> {
    Url::parse("memory:///").map_err(|error| error.to_string())
}

/// Creates a checkpoint of this version.
async fn make(draft: Arc<Draft>, version: u64) -> Result<(), DeltaTableError> {
    let url = root().map_err(DeltaTableError::generic)?;
    // By its parts: the builder finds stores by schemes that must be registered.
    let mut table = DeltaTable::new(default_logstore(draft.clone(), draft, &url, &StorageConfig::default()));
    table.load_version(version).await?;
    create_checkpoint(&table, None).await
}

/// Everything that a reader sees of a table.
struct Contents {
    version: u64,
    protocol: Protocol,
    metadata: Metadata,
    files: u64,
    /// The sum of the digests of all files, in whatever order they are.
    digest: u128,
}

impl Contents {
    fn read(table: &deltashare::delta::DeltaTable) -> deltashare::error::Result<(Self, u64)> {
        let snapshot = table.latest()?;
        let mut files = table.files(&snapshot)?;
        let (mut count, mut digest) = (0, 0_u128);
        while let Some(file) = files.advance()? {
            let values = file.partition_values.iter().collect::<BTreeMap<_, _>>();
            let tags = file.tags.as_ref().map(|tags| tags.iter().collect::<BTreeMap<_, _>>());
            let text = format!(
                "{:?}",
                (
                    (file.path, file.size, file.modification_time, file.stats, values, tags),
                    (file.deletion_vector, file.base_row_id, file.default_row_commit_version),
                    file.clustering_provider,
                )
            );
            let hash = Sha256::digest(text);
            let (half, _) = hash.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
            digest = digest.wrapping_add(u128::from_le_bytes(*half));
            count += 1;
        }
        let contents = Self {
            version: snapshot.version(),
            protocol: snapshot.protocol().clone(),
            metadata: snapshot.metadata().clone(),
            files: count,
            digest,
        };
        Ok((contents, snapshot.commits_since_checkpoint()))
    }
}

/// Whether a reader sees the same with the checkpoint as it does without. The error says what would be different.
async fn compare(
    table: Arc<dyn ObjectStore>,
    draft: Arc<dyn ObjectStore>,
    version: u64,
) -> Result<(), String> {
    let (url, runtime) = (root()?, tokio::runtime::Handle::current());
    let open =
        |store| deltashare::delta::DeltaTable::new(store, url.clone(), runtime.clone(), Limits::default());
    let (with, without) = (open(draft), open(table));
    let read = tokio::task::spawn_blocking(move || {
        Ok::<_, deltashare::error::Error>((Contents::read(&without)?, Contents::read(&with)?))
    });
    let ((before, _), (after, commits)) =
        read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if before.version != version || after.version != version {
        return Err("the table has a newer version by now; try again".to_owned());
    }
    let unknown = before.protocol.writer_features.iter().flatten();
    let unknown: Vec<_> =
        unknown.filter(|name| !WRITER_FEATURES.contains(&name.as_str())).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(format!(
            "writers must support its features {}, and this command does not",
            unknown.join(", ")
        ));
    }
    let differs = [
        ("protocol", before.protocol != after.protocol),
        ("metadata", before.metadata != after.metadata),
        ("list of files", before.files != after.files || before.digest != after.digest),
    ];
    if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
        return Err(format!(
            "with it, readers would see another {what}, because the log has actions that contradict each other; let the \
             engine that writes to the table write the checkpoint"
        ));
    }
    if commits != 0 {
        return Err("readers would not accept it; try again".to_owned());
    }
    Ok(())
}

/// The features of Delta's specification, which the checkpoints of this command keep.
const WRITER_FEATURES: [&str; 23] = [
    "allowColumnDefaults",
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "checkpointProtection",
    "clustering",
    "columnMapping",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "icebergCompatV1",
    "icebergCompatV2",
    "identityColumns",
    "inCommitTimestamp",
    "invariants",
    "rowTracking",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "variantType",
    "variantType-preview",
];
