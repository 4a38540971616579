//! Delta tables that `deltalake` writes, as an application does.

use std::sync::Arc;

use deltalake::DeltaTable;
use deltalake::errors::DeltaTableError;
use deltalake::kernel::Action;
use deltalake::kernel::transaction::{CommitBuilder, TableReference};
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStore;
use serde_json::Value;
use url::Url;

/// Commits these versions, each a list of actions, after those of the table at the root of the store.
pub(crate) async fn write(table: Arc<dyn ObjectStore>, versions: impl IntoIterator<Item = Vec<Value>>) {
    // Local files are listed in any order, and are sorted only at a location of this scheme.
    let root = Url::parse("file:///").unwrap();
    let log = default_logstore(Arc::clone(&table), table, &root, &StorageConfig::default());
    let mut before = DeltaTable::new(Arc::clone(&log));
    let mut state = match before.load().await {
        Ok(()) => Some(before.snapshot().unwrap().clone()),
        Err(DeltaTableError::NotATable(_)) => None,
        Err(error) => panic!("{error}"),
    };
    for actions in versions {
        let actions: Vec<Action> = serde_json::from_value(Value::Array(actions)).unwrap();
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let commit = CommitBuilder::default().with_actions(actions).build(
            state.as_ref().map(|state| state as &dyn TableReference),
            Arc::clone(&log),
            operation,
        );
        state = Some(commit.await.unwrap().snapshot());
    }
}
