//! The composition root: what a request needs, put together once.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::{Catalog, TableRecord};
use crate::delta::DeltaTable;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::protocol::tokens::TokenKey;
use crate::storage::{Location, Storage};

/// How many tables keep their newest snapshot in memory.
const WARM_TABLES: usize = 64;

/// Everything that handlers use. One for each process.
pub struct App {
    /// Who may read what.
    pub catalog: Arc<dyn Catalog>,
    /// Where tables lie, and who signs their files.
    pub storage: Storage,
    /// What page tokens are authenticated with.
    pub token_key: TokenKey,
    /// The prefix of every path, such as `/delta-sharing`; empty for none.
    pub prefix: String,
    /// What a table, a recipient or a sender may cost.
    pub limits: Limits,
    tables: Mutex<Vec<WarmTable>>,
}

struct WarmTable {
    location: Location,
    table: DeltaTable,
}

/// A shared table, ready to be read: its log and its places.
pub struct OpenTable {
    /// The table's log.
    pub delta: DeltaTable,
    /// The table's root.
    pub location: Location,
    /// Other places its log may point into.
    pub allowed: Vec<Location>,
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
        Self { catalog, storage, token_key, prefix, limits, tables: Mutex::new(Vec::new()) }
    }

    /// Opens a shared table. Nothing is read yet; a table that was read before is still warm.
    pub fn open(&self, record: &TableRecord) -> Result<OpenTable> {
        let base = record.may_be_local.then_some(Path::new("/"));
        let place = |text: &str| match Location::parse(text, base) {
            Ok(location) => Ok(location.read_by(record.signer_role.clone())),
            Err(reason) => {
                // A share file is checked when it is read; this is the first to look at a record of DynamoDB.
                if !record.may_be_local {
                    let table = format!("{}.{}.{}", record.share, record.schema, record.name);
                    tracing::error!(table, location = text, %reason, "a location of a shared table cannot be read");
                }
                let message = if reason.is_unsupported() {
                    "The table cannot be read: this server does not support its storage. Contact the provider of \
                     the share."
                } else {
                    "The table's location cannot be read."
                };
                Err(Error::unreadable_table(message).with_source(reason.to_string()))
            }
        };
        let location = place(&record.location)?;
        let allowed = record.allowed_locations.iter().map(|text| place(text)).collect::<Result<_>>()?;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let warm = match tables.iter().position(|warm| warm.location == location) {
            Some(at) => tables.remove(at),
            None => {
                let store = self.storage.open(&location)?;
                let table =
                    DeltaTable::new(store.store, store.root, tokio::runtime::Handle::current(), self.limits);
                WarmTable { location: location.clone(), table }
            }
        };
        let delta = warm.table.clone();
        if tables.len() >= WARM_TABLES {
            tables.remove(0);
        }
        tables.push(warm);
        Ok(OpenTable { delta, location, allowed })
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
