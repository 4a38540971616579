//! The composition root: what a request needs, put together once.

mod answers;
mod charge;
mod table;
mod tables;

use std::sync::Arc;

use chrono::Utc;

use crate::auth::{Recipient, SharedTable};
use crate::catalog::Catalog;
use crate::delta::{CommitBudget, DeltaTable};
use crate::error::{Error, Fault, Result};
use crate::gate::Gate;
use crate::limits::Limits;
use crate::location::{Location, WrittenLocation};
use crate::oidc::Oidc;
use crate::protocol::tokens::TokenKey;
use crate::storage::{FileSigner, Storage};

use answers::Answers;
pub use answers::{InFlight, MemoryAccount};
pub use charge::Charge;
pub use table::OpenTable;
use table::WarmTable;
use tables::WarmTables;

/// Everything that handlers use. One for each process.
pub struct App {
    /// Who may read what.
    pub catalog: Arc<dyn Catalog>,
    /// What reads tables and signs their files.
    pub storage: Storage,
    /// What page tokens are authenticated with.
    pub token_key: TokenKey,
    /// What verifies tokens of OpenID providers.
    pub oidc: Oidc,
    /// The prefix of every path, such as `/delta-sharing`; empty for none.
    pub prefix: String,
    /// What a table, a recipient or a sender may cost.
    pub limits: Limits,
    tables: Arc<WarmTables>,
    gate: Gate,
    answers: Arc<Answers>,
    commits: Arc<CommitBudget>,
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
            oidc: Oidc::default(),
            prefix,
            limits,
            tables: WarmTables::new(limits.cache_bytes),
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
        let (table, used) = self.tables.get(&location, || {
            let store = self.storage.open(&location)?;
            let runtime = tokio::runtime::Handle::current();
            let commits = Arc::clone(&self.commits);
            let delta = DeltaTable::with_budget(store.store, store.root, runtime, self.limits, commits);
            Ok(WarmTable::new(delta, self.gate.lane(lane_name(&location))))
        })?;
        let table = OpenTable::new(table, location, allowed, record.access.clone());
        Ok(table.bound_to(record.allowed_ips.clone()).used(used))
    }

    /// The signer of the files of a table that was opened. Its URLs begin to be good now.
    pub async fn signer(&self, table: &OpenTable) -> Result<FileSigner> {
        let allowed_ips = table.allowed_ips.as_ref();
        self.storage.bound_signer(&table.location, &table.allowed, allowed_ips, Utc::now()).await
    }

    /// Counts one more answer that a recipient has in flight, until the result is dropped. Its bytes count for the recipient's
    /// limit, if something was read for the recipient and it has one.
    ///
    /// 429 if the recipient has too many, 503 if all recipients together have too many.
    pub fn begin_answer(&self, recipient: &Recipient) -> Result<InFlight> {
        let in_flight = self.answers.begin(recipient.name())?;
        Ok(in_flight.charged(Charge::new(&self.catalog, recipient.caller())))
    }
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
