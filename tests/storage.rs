//! The kernel reads a table's log through the store that `Storage` opens, whatever the directory is called.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests too

#[path = "delta_log/writer.rs"]
mod writer;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use buoyant_kernel::Snapshot;
use buoyant_kernel_engine::DefaultEngineBuilder;
use deltashare::location::Location;
use deltashare::storage::{S3Options, Storage, StorageOptions};
use object_store::local::LocalFileSystem;
use serde_json::json;

/// The table's latest version, read by the kernel.
fn version(root: &Path) -> Result<u64, String> {
    let storage = Storage::new(StorageOptions {
        url_ttl: Duration::from_secs(60),
        gateway: None,
        s3: S3Options::default(),
        directory_role: None,
    });
    let table =
        storage.open(&Location::Local(root.canonicalize().unwrap())).map_err(|error| error.to_string())?;
    let engine = Arc::new(DefaultEngineBuilder::new(table.store).build());
    let snapshot =
        Snapshot::builder_for(table.root).build(engine.as_ref()).map_err(|error| error.to_string())?;
    Ok(snapshot.version())
}

/// Creates a table of two versions.
fn create(root: &Path) {
    fs::create_dir_all(root).unwrap();
    let add = |path: &str| json!({"add": {"path": path, "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": true}});
    let schema = r#"{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":{}}]}"#;
    let protocol = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}});
    let metadata = json!({"metaData": {
        "id": "1", "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
        "partitionColumns": [], "configuration": {}
    }});
    let table = Arc::new(LocalFileSystem::new_with_prefix(root).unwrap());
    let versions = [vec![protocol, metadata, add("x")], vec![add("y")]];
    let written = writer::write(table, versions);
    tokio::runtime::Runtime::new().unwrap().block_on(written);
}

#[test]
fn the_kernel_reads_a_table_in_a_directory_of_any_name() {
    let base = tempfile::tempdir().unwrap();
    for name in ["plain", "with space", "50%", "a%20b", "a%2520b", "#hash?", "naïve", "+plus&", "[x]{y}"] {
        let root = base.path().join(name);
        create(&root);
        assert_eq!(version(&root), Ok(1), "{name}");
    }
}

#[test]
fn a_log_that_is_a_link_out_of_the_table_is_not_read() {
    let base = tempfile::tempdir().unwrap();
    let (inside, outside) = (base.path().join("inside"), base.path().join("outside"));
    create(&inside);
    fs::rename(inside.join("_delta_log"), inside.join("kept_log")).unwrap();
    symlink("kept_log", inside.join("_delta_log")).unwrap();
    assert_eq!(version(&inside), Ok(1));
    fs::create_dir(&outside).unwrap();
    symlink(inside.join("kept_log"), outside.join("_delta_log")).unwrap();
    assert!(version(&outside).is_err());
}
