//! Delta logs made by hand, in memory.

use std::sync::Arc;

use buoyant_kernel::object_store::memory::InMemory;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{ObjectStore, ObjectStoreExt};
use deltashare::delta::{DeltaTable, Snapshot};
use deltashare::error::{Error, Result};
use serde_json::{Value, json};
use url::Url;

pub const SCHEMA: &str = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}},{"name":"day","type":"string","nullable":true,"metadata":{}}]}"#;

/// A table whose log the test writes.
pub struct Log {
    pub store: Arc<dyn ObjectStore>,
    pub root: Url,
}

impl Log {
    pub fn new() -> Self {
        Self::on(Arc::new(InMemory::new()))
    }

    pub fn on(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, root: Url::parse("memory:///tables/t/").unwrap() }
    }

    pub fn table(&self) -> DeltaTable {
        DeltaTable::new(self.store.clone(), self.root.clone(), tokio::runtime::Handle::current())
    }

    pub fn path(&self, name: &str) -> Path {
        Path::from_url_path(format!("{}_delta_log/{name}", self.root.path())).unwrap()
    }

    pub async fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.store.put(&self.path(name), bytes.into().into()).await.unwrap();
    }

    pub async fn get(&self, name: &str) -> Vec<u8> {
        self.store.get(&self.path(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub async fn delete(&self, name: &str) {
        self.store.delete(&self.path(name)).await.unwrap();
    }

    pub async fn commit(&self, version: u64, actions: &[Value]) {
        self.put(&commit_name(version), lines(actions)).await;
    }

    /// Versions `0..versions`; version n adds the file `f<n>`.
    pub async fn commits(&self, versions: u64) {
        self.commit(0, &[protocol(1, 2), metadata(), add("f0")]).await;
        for version in 1..versions {
            self.commit(version, &[add(&format!("f{version}"))]).await;
        }
    }
}

pub fn commit_name(version: u64) -> String {
    format!("{version:020}.json")
}

pub fn lines(actions: &[Value]) -> String {
    actions.iter().map(|action| format!("{action}\n")).collect()
}

pub fn protocol(reader: i32, writer: i32) -> Value {
    json!({"protocol": {"minReaderVersion": reader, "minWriterVersion": writer}})
}

pub fn features(reader: &[&str], writer: &[&str]) -> Value {
    json!({"protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer
    }})
}

pub fn metadata() -> Value {
    metadata_with(SCHEMA, json!({}))
}

pub fn metadata_with(schema: &str, configuration: Value) -> Value {
    json!({"metaData": {
        "id": "5fba94ed-9794-4965-ba6e-6ee3c0d22af9",
        "name": "a table",
        "description": "about it",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema,
        "partitionColumns": ["day"],
        "configuration": configuration,
        "createdTime": 1_700_000_000_000_i64
    }})
}

pub fn add(path: &str) -> Value {
    add_with(path, json!({}))
}

/// An `add` action with other or more fields.
pub fn add_with(path: &str, other: Value) -> Value {
    let mut add = json!({
        "path": path,
        "partitionValues": {"day": "monday"},
        "size": 100,
        "modificationTime": 1_700_000_000_000_i64,
        "dataChange": true,
        "stats": "{\"numRecords\":3}"
    });
    for (key, value) in other.as_object().unwrap() {
        match value {
            Value::String(text) if text == "(absent)" => drop(add.as_object_mut().unwrap().remove(key)),
            value => add[key] = value.clone(),
        }
    }
    json!({"add": add})
}

pub fn remove(path: &str) -> Value {
    json!({"remove": {"path": path, "deletionTimestamp": 1_700_000_000_000_i64, "dataChange": true}})
}

/// Runs what blocks where it may.
pub async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// The sorted paths of a version's files.
pub fn paths(snapshot: &Snapshot) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for batch in snapshot.scan()? {
        for file in batch?.files() {
            paths.push(file?.path.to_owned());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The newest version and its files, opened anew.
pub async fn read(log: &Log) -> Result<(u64, Vec<String>)> {
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest()?;
        Ok((snapshot.version(), paths(&snapshot)?))
    })
    .await
}

/// `f0`, `f1` and so on, sorted.
pub fn files(range: std::ops::Range<u64>) -> Vec<String> {
    let mut files: Vec<String> = range.map(|n| format!("f{n}")).collect();
    files.sort();
    files
}

/// The message of the error, which must not name anything of the store.
pub fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error: Error = result.expect_err("this log must be refused");
    let message = error.message();
    for leak in ["memory:", "tables/t", "_delta_log", "kernel", ".json", ".parquet", "Arrow", "://"] {
        assert!(!message.contains(leak), "{message}");
    }
    message.to_owned()
}
