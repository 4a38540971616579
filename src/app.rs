//! The composition root: what a request needs, put together once.

mod answers;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Utc;

use crate::auth::SharedTable;
use crate::catalog::Catalog;
use crate::delta::{CommitBudget, DeltaTable};
use crate::error::{Error, Fault, Result};
use crate::gate::Gate;
use crate::limits::Limits;
use crate::location::{Location, WrittenLocation};
use crate::protocol::tokens::TokenKey;
use crate::storage::{FileSigner, Storage};

use answers::Answers;
pub use answers::{InFlight, MemoryAccount};
pub use table::OpenTable;
use table::WarmTable;

/// How many tables keep their newest snapshot in memory. Each also keeps up to 16 MiB of its log.
const WARM_TABLES: usize = 64;

/// Everything that handlers use. One for each process.
pub struct App {
    /// Who may read what.
    pub catalog: Arc<dyn Catalog>,
    /// What reads tables and signs their files.
    pub storage: Storage,
    /// What page tokens are authenticated with.
    pub token_key: TokenKey,
    /// The prefix of every path, such as `/delta-sharing`; empty for none.
    pub prefix: String,
    /// What a table, a recipient or a sender may cost.
    pub limits: Limits,
    tables: Mutex<Vec<KeptTable>>,
    gate: Gate,
    answers: Arc<Answers>,
    commits: Arc<CommitBudget>,
}

/// A table that was opened, and where it is.
struct KeptTable {
    location: Location,
    table: Arc<WarmTable>,
}

impl App {
    /// Puts an application together. `prefix` may have slashes at either end, or be empty.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        storage: Storage,
        token_key: TokenKey,
        prefix: &str,
        limits: Limits,
    ) -> Self {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        Self {
            catalog,
            storage,
            token_key,
            prefix,
            limits,
            tables: Mutex::default(),
            gate: Gate::new(limits),
            answers: Arc::new(Answers::new(limits)),
            commits: Arc::new(CommitBudget::new(limits.range_kept_bytes)),
        }
    }

    /// Opens a shared table. Nothing is read yet; a table that was read before is still warm.
    pub fn open(&self, shared: &SharedTable) -> Result<OpenTable> {
        let record = shared.record();
        let settings = &record.settings;
        let resolve = |location: &WrittenLocation| match settings.resolve(location) {
            Ok(location) => Ok(location),
            Err(reason) => {
                if !record.locations_checked {
                    let table = format!("{}.{}.{}", record.share, record.schema, record.name);
                    let location = location.text();
                    tracing::error!(table, location, %reason, "a location of a shared table cannot be read");
                }
                let message = if reason.is_unsupported() {
                    "The table cannot be read: this server does not support its storage. Contact the provider of \
                     the share."
                } else {
                    "The table's location cannot be read."
                };
                Err(Error::unreadable_table(message)
                    .with_fault(Fault::Location)
                    .with_source(reason.to_string()))
            }
        };
        let location = resolve(&settings.location)?;
        let allowed = settings.allowed_locations.iter().map(resolve).collect::<Result<_>>()?;
        let table = match self.warm(&location) {
            Some(table) => table,
            None => {
                let store = self.storage.open(&location)?;
                let runtime = tokio::runtime::Handle::current();
                let commits = Arc::clone(&self.commits);
                let delta = DeltaTable::with_budget(store.store, store.root, runtime, self.limits, commits);
                let table = Arc::new(WarmTable::new(delta, self.gate.lane(lane_name(&location))));
                self.keep(&location, table)
            }
        };
        Ok(OpenTable::new(table, location, allowed, record.access.clone()))
    }

    /// The signer of the files of a table that was opened. Its URLs begin to be good now.
    pub async fn signer(&self, table: &OpenTable) -> Result<FileSigner> {
        self.storage.signer(&table.location, &table.allowed, Utc::now()).await
    }

    /// Counts one more answer that a recipient has in flight, until the result is dropped.
    ///
    /// 429 if the recipient has too many, 503 if all recipients together have too many.
    pub fn begin_answer(&self, recipient: &str) -> Result<InFlight> {
        self.answers.begin(recipient)
    }

    /// The table at a location, if it was opened before.
    fn warm(&self, location: &Location) -> Option<Arc<WarmTable>> {
        used(&mut self.tables(), location)
    }

    /// Keeps a table, unless another request was faster.
    fn keep(&self, location: &Location, table: Arc<WarmTable>) -> Arc<WarmTable> {
        let mut tables = self.tables();
        if let Some(faster) = used(&mut tables, location) {
            return faster;
        }
        if tables.len() >= WARM_TABLES {
            tables.remove(0);
        }
        tables.push(KeptTable { location: location.clone(), table: Arc::clone(&table) });
        table
    }

    fn tables(&self) -> MutexGuard<'_, Vec<KeptTable>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table at a location, which moves to the end as the one used last.
fn used(tables: &mut [KeptTable], location: &Location) -> Option<Arc<WarmTable>> {
    let at = tables.iter().position(|kept| kept.location == *location)?;
    tables[at..].rotate_left(1);
    tables.last().map(|kept| Arc::clone(&kept.table))
}

/// Names what hangs together with a location: its bucket, or a directory by itself, since no two need be on the same
/// disk.
fn lane_name(location: &Location) -> String {
    match location {
        Location::S3 { bucket, .. } => format!("s3://{bucket}"),
        Location::Local(path) => format!("file://{}", path.display()),
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
