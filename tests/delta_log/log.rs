//! Delta logs made by hand, in memory.

use std::sync::Arc;

use buoyant_kernel::arrow::array::RecordBatch;
use buoyant_kernel::arrow::compute::concat_batches;
use buoyant_kernel::checkpoint::CheckpointSpec;
use buoyant_kernel::object_store::memory::InMemory;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{ObjectStore, ObjectStoreExt};
use buoyant_kernel::parquet::arrow::ArrowWriter;
use buoyant_kernel::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use buoyant_kernel_engine::DefaultEngineBuilder;
use buoyant_kernel_engine::executor::tokio::TokioMultiThreadExecutor;
use deltashare::delta::{DeltaTable, Snapshot};
use deltashare::error::{Error, Result};
use deltashare::limits::Limits;
use serde_json::{Value, json};
use url::Url;

pub(crate) const SCHEMA: &str = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}},{"name":"day","type":"string","nullable":true,"metadata":{}}]}"#;

pub(crate) const ROOT: &str = "s3://bucket/tables/t/";

/// A table whose log the test writes.
pub(crate) struct Log {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same files, without the faults and the counts of the store that the server reads.
    pub(crate) behind: Arc<dyn ObjectStore>,
    pub(crate) root: Url,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::at(Arc::new(InMemory::new()), ROOT)
    }

    pub(crate) fn at(store: Arc<dyn ObjectStore>, root: &str) -> Self {
        Self { behind: Arc::clone(&store), store, root: Url::parse(root).unwrap() }
    }

    pub(crate) fn table(&self) -> DeltaTable {
        self.table_with(Limits::default())
    }

    pub(crate) fn table_with(&self, limits: Limits) -> DeltaTable {
        let runtime = tokio::runtime::Handle::current();
        DeltaTable::new(self.store.clone(), self.root.clone(), runtime, limits)
    }

    pub(crate) fn path(&self, name: &str) -> Path {
        Path::from_url_path(format!("{}_delta_log/{name}", self.root.path())).unwrap()
    }

    pub(crate) async fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.store.put(&self.path(name), bytes.into().into()).await.unwrap();
    }

    pub(crate) async fn get(&self, name: &str) -> Vec<u8> {
        self.store.get(&self.path(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.store.delete(&self.path(name)).await.unwrap();
    }

    /// Writes a commit by hand: one that is damaged, unusual or hostile, or has features or times that `deltalake` does
    /// not write. Logs of more than 40 versions or of thousands of files are written this way as well, because `deltalake`
    /// takes seconds for them, and so are those that grow while they are read and the thousands that fuzz targets make.
    pub(crate) async fn commit(&self, version: u64, actions: &[Value]) {
        self.put(&commit_name(version), lines(actions)).await;
    }

    /// Versions `0..versions`; version n adds the file `f<n>`.
    pub(crate) async fn commits_by_hand(&self, versions: u64) {
        for version in 0..versions {
            self.commit(version, &actions_of(version)).await;
        }
    }
}

/// The actions of a version that adds the file `f<version>`.
pub(crate) fn actions_of(version: u64) -> Vec<Value> {
    let file = add(&format!("f{version}"));
    if version == 0 { vec![protocol(1, 2), metadata(), file] } else { vec![file] }
}

pub(crate) fn commit_name(version: u64) -> String {
    format!("{version:020}.json")
}

pub(crate) fn lines(actions: &[Value]) -> String {
    actions.iter().map(|action| format!("{action}\n")).collect()
}

pub(crate) fn protocol(reader: i32, writer: i32) -> Value {
    json!({"protocol": {"minReaderVersion": reader, "minWriterVersion": writer}})
}

pub(crate) fn features(reader: &[&str], writer: &[&str]) -> Value {
    json!({"protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer
    }})
}

pub(crate) fn metadata() -> Value {
    metadata_with(SCHEMA, json!({}))
}

pub(crate) fn metadata_with(schema: &str, configuration: Value) -> Value {
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

pub(crate) fn add(path: &str) -> Value {
    add_with(path, json!({}))
}

/// An `add` action with other or more fields.
pub(crate) fn add_with(path: &str, other: Value) -> Value {
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

pub(crate) fn remove(path: &str) -> Value {
    json!({"remove": {"path": path, "deletionTimestamp": 1_700_000_000_000_i64, "dataChange": true}})
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// The sorted paths of a version's files.
pub(crate) fn paths(snapshot: &Snapshot) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for batch in snapshot.scan()? {
        for file in batch?.files() {
            paths.push(file?.path.to_owned());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The newest version and its files, opened again. A count of the files, which reads fewer columns, agrees with the list.
pub(crate) async fn read(log: &Log) -> Result<(u64, Vec<String>)> {
    let (table, counted) = (log.table(), log.table());
    blocking(move || {
        let snapshot = table.latest()?;
        let paths = paths(&snapshot)?;
        let counted = counted.latest()?.count_files()?;
        assert_eq!(counted.num_files, paths.len() as u64);
        Ok((snapshot.version(), paths))
    })
    .await
}

/// `f0`, `f1` and so on, sorted.
pub(crate) fn files(range: std::ops::Range<u64>) -> Vec<String> {
    let mut files: Vec<String> = range.map(|n| format!("f{n}")).collect();
    files.sort();
    files
}

/// The message of the error, which must not name anything of the store.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error: Error = result.expect_err("this log must be refused");
    let message = error.message();
    for leak in ["memory:", "tables/t", "_delta_log", "kernel", ".json", ".parquet", "Arrow", "://"] {
        assert!(!message.contains(leak), "{message}");
    }
    message.to_owned()
}

impl Log {
    /// Writes a checkpoint of the newest version with the kernel's own writer.
    pub(crate) async fn checkpoint(&self, spec: Option<CheckpointSpec>) {
        let (store, root) = (self.store.clone(), self.root.clone());
        let runtime = Arc::new(TokioMultiThreadExecutor::new(tokio::runtime::Handle::current()));
        blocking(move || {
            let engine = DefaultEngineBuilder::new(store).with_task_executor(runtime).build();
            let snapshot = buoyant_kernel::Snapshot::builder_for(&root).build(&engine).unwrap();
            snapshot.checkpoint(&engine, spec.as_ref()).unwrap();
        })
        .await;
    }

    /// The checkpoint of `commits_by_hand(3)`, whatever the location is called: the kernel's writer takes no odd ones.
    pub(crate) async fn checkpoint_by_hand(&self) {
        let plain = Self::new();
        plain.commits_by_hand(3).await;
        plain.checkpoint(None).await;
        self.put(&checkpoint_name(2), plain.get(&checkpoint_name(2)).await).await;
    }

    /// Replaces the classic checkpoint of a version by one of two parts.
    pub(crate) async fn split_checkpoint(&self, version: u64) {
        let name = format!("{version:020}.checkpoint.parquet");
        let batches = read_parquet(self.get(&name).await);
        self.delete(&name).await;
        let schema = batches[0].schema();
        let all = concat_batches(&schema, &batches).unwrap();
        let half = all.num_rows() / 2;
        let parts = [all.slice(0, half), all.slice(half, all.num_rows() - half)];
        for (part, rows) in (1..).zip(parts) {
            self.put(&part_name(version, part, 2), write_parquet(&rows)).await;
        }
        self.put("_last_checkpoint", format!(r#"{{"version":{version},"size":9,"parts":2}}"#)).await;
    }
}

pub(crate) fn part_name(version: u64, part: u64, parts: u64) -> String {
    format!("{version:020}.checkpoint.{part:010}.{parts:010}.parquet")
}

pub(crate) fn checkpoint_name(version: u64) -> String {
    format!("{version:020}.checkpoint.parquet")
}

pub(crate) fn read_parquet(bytes: Vec<u8>) -> Vec<RecordBatch> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap()).collect()
}

pub(crate) fn write_parquet(rows: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes
}
