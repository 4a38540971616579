//! The kernel reads a table's log through the store that `Storage` opens, whatever the directory is called.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use buoyant_kernel::Snapshot;
use buoyant_kernel_engine::DefaultEngineBuilder;
use deltashare::location::Location;
use deltashare::storage::{S3Options, Storage, StorageOptions};

const PROTOCOL: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"1","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}
"#;

fn add(path: &str) -> String {
    format!(
        "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":1,\"modificationTime\":1,\"dataChange\":true}}}}\n"
    )
}

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

fn write_commits(log: &Path) {
    fs::create_dir_all(log).unwrap();
    fs::write(log.join("00000000000000000000.json"), format!("{PROTOCOL}{}", add("x"))).unwrap();
    fs::write(log.join("00000000000000000001.json"), add("y")).unwrap();
}

#[test]
fn the_kernel_reads_a_table_in_a_directory_of_any_name() {
    let base = tempfile::tempdir().unwrap();
    for name in ["plain", "with space", "50%", "a%20b", "a%2520b", "#hash?", "naïve", "+plus&", "[x]{y}"] {
        let root = base.path().join(name);
        write_commits(&root.join("_delta_log"));
        assert_eq!(version(&root), Ok(1), "{name}");
    }
}

#[test]
fn a_log_that_is_a_link_out_of_the_table_is_not_read() {
    let base = tempfile::tempdir().unwrap();
    let (inside, outside) = (base.path().join("inside"), base.path().join("outside"));
    write_commits(&inside.join("kept_log"));
    symlink("kept_log", inside.join("_delta_log")).unwrap();
    assert_eq!(version(&inside), Ok(1));
    fs::create_dir(&outside).unwrap();
    symlink(inside.join("kept_log"), outside.join("_delta_log")).unwrap();
    assert!(version(&outside).is_err());
}
