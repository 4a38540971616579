//! Logs that `deltalake` writes: the ordinary ones.

use std::sync::Arc;

use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde_json::Value;

use super::log::{Log, ROOT, actions_of};
use super::rigged::Rigged;
use super::writer;

impl Log {
    /// A log in a store that fails on demand.
    pub(crate) fn on(store: Arc<Rigged>) -> Self {
        Self { behind: store.inner.clone(), ..Self::at(store, ROOT) }
    }

    /// Writes the next version.
    pub(crate) async fn write(&self, actions: &[Value]) {
        self.write_all([actions.to_vec()]).await;
    }

    /// Writes versions `0..versions`; version n adds the file `f<n>`.
    pub(crate) async fn commits(&self, versions: u64) {
        self.write_all((0..versions).map(actions_of)).await;
    }

    async fn write_all(&self, versions: impl IntoIterator<Item = Vec<Value>>) {
        let root = Path::from_url_path(self.root.path()).unwrap();
        writer::write(Arc::new(PrefixStore::new(Arc::clone(&self.behind), root)), versions).await;
    }
}
