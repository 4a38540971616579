//! Compares what a table says that it keeps in memory with what the allocator says. There is one test, because both count
//! everything that the process allocates.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use buoyant_kernel::object_store::local::LocalFileSystem;
use deltashare::delta::{ChangeKind, DeltaTable};
use deltashare::limits::Limits;
use serde_json::{Value, json};
use url::Url;

/// The bytes that are allocated and not freed.
fn allocated() -> usize {
    #[allow(unsafe_code)]
    // SAFETY: `mallinfo2` only reads counters of the allocator.
    let counters = unsafe { libc::mallinfo2() };
    counters.uordblks + counters.hblkhd
}

/// What the log of a table is like.
#[derive(Default, Clone, Copy)]
struct Shape {
    columns: usize,
    commits: usize,
    files_of_a_commit: usize,
    stats_bytes: usize,
    mapped: bool,
}

fn write(directory: &Path, shape: Shape) {
    let field = |number: usize| {
        let metadata = if shape.mapped {
            json!({"delta.columnMapping.id": number, "delta.columnMapping.physicalName": format!("col-{number:032x}")})
        } else {
            json!({})
        };
        json!({"name": format!("column_{number}"), "type": "long", "nullable": true, "metadata": metadata})
    };
    let fields: Vec<Value> = (1..=shape.columns).map(field).collect();
    let schema = json!({"type": "struct", "fields": fields}).to_string();
    let configuration = if shape.mapped {
        json!({"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": shape.columns.to_string()})
    } else {
        json!({})
    };
    let log = directory.join("_delta_log");
    std::fs::create_dir_all(&log).unwrap();
    for version in 0..shape.commits {
        let mut text = String::new();
        if version == 0 {
            let protocol = json!({"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}});
            let metadata = json!({"metaData": {
                "id": "00000000-0000-4000-8000-000000000000", "format": {"provider": "parquet", "options": {}},
                "schemaString": schema, "partitionColumns": [], "configuration": configuration, "createdTime": 0
            }});
            writeln!(text, "{protocol}\n{metadata}").unwrap();
        }
        for file in 0..shape.files_of_a_commit {
            let stats =
                format!(r#"{{"numRecords":1,"minValues":{{"x":"{}"}}}}"#, "v".repeat(shape.stats_bytes));
            let add = json!({"add": {
                "path": format!("{version}-{file}.parquet"), "partitionValues": {}, "size": 1,
                "modificationTime": 0, "dataChange": true, "stats": stats
            }});
            writeln!(text, "{add}").unwrap();
        }
        std::fs::write(log.join(format!("{version:020}.json")), text).unwrap();
    }
}

fn checkpoint(directory: &Path) {
    tokio::runtime::Handle::current().block_on(async {
        let url = Url::from_directory_path(directory).unwrap();
        let table = deltalake::open_table(url).await.unwrap();
        deltalake::protocol::checkpoints::create_checkpoint(&table, None).await.unwrap();
    });
}

/// What one table of a shape keeps after `work`, as the table and as the allocator say, in bytes.
fn kept(directory: &Path, tables: usize, work: fn(&DeltaTable)) -> (usize, usize) {
    let open = || {
        let table = DeltaTable::new(
            Arc::new(LocalFileSystem::new()),
            Url::from_directory_path(directory).unwrap(),
            tokio::runtime::Handle::current(),
            Limits::default(),
        );
        work(&table);
        table
    };
    // What the process keeps for all tables.
    drop(open());
    let before = allocated();
    let mut opened: Vec<DeltaTable> = Vec::with_capacity(tables);
    opened.extend((0..tables).map(|_| open()));
    // Tasks of the runtime that have ended are freed a moment later.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let own = opened.iter().map(DeltaTable::kept_bytes).sum::<usize>() / tables;
    let with = allocated();
    (own, with.saturating_sub(before) / tables)
}

fn read_all(table: &DeltaTable) {
    let snapshot = table.latest().unwrap();
    let mut files = table.files(&snapshot).unwrap();
    while files.advance().unwrap().is_some() {}
}

fn pause_files(table: &DeltaTable) {
    let snapshot = table.latest().unwrap();
    for _ in 0..4 {
        let mut files = table.files(&snapshot).unwrap();
        files.advance().unwrap().unwrap();
        table.pause_files(files);
    }
}

fn pause_changes(table: &DeltaTable) {
    let newest = table.latest().unwrap();
    for _ in 0..4 {
        let range = Arc::new(table.change_range(&newest, 0, newest.version()).unwrap());
        let survey = table.survey(&range, ChangeKind::Data, None, &mut |_| Ok(())).unwrap();
        let mut changes = survey.changes;
        changes.advance().unwrap().unwrap();
        table.pause_changes(changes);
    }
}

fn older_versions(table: &DeltaTable) {
    let newest = table.latest().unwrap();
    for version in 1..=4 {
        table.at_version_of(&newest, newest.version() - version).unwrap();
    }
}

#[test]
fn tables_say_about_how_much_memory_they_keep() {
    deltashare::allocator::use_one_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let small = Shape { columns: 5, commits: 10, files_of_a_commit: 1, stats_bytes: 100, mapped: false };
    type Work = fn(&DeltaTable);
    let cases: [(&str, Shape, bool, usize, Work); 9] = [
        ("small", small, false, 20, read_all),
        ("small, checkpoint", small, true, 20, read_all),
        ("300 commits", Shape { commits: 300, ..small }, false, 3, read_all),
        ("300 commits, older versions", Shape { commits: 300, ..small }, false, 3, older_versions),
        ("1,000 columns", Shape { columns: 1_000, ..small }, false, 5, read_all),
        ("1,000 mapped columns", Shape { columns: 1_000, mapped: true, ..small }, false, 5, read_all),
        ("large commits", Shape { commits: 5, files_of_a_commit: 1_000, ..small }, false, 5, read_all),
        (
            "paused within a checkpoint",
            Shape { commits: 1, files_of_a_commit: 10_000, stats_bytes: 1_000, ..small },
            true,
            2,
            pause_files,
        ),
        ("paused changes", Shape { files_of_a_commit: 500, ..small }, false, 2, pause_changes),
    ];
    let mut wrong = Vec::new();
    for (name, shape, has_checkpoint, tables, work) in cases {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), shape);
        if has_checkpoint {
            checkpoint(directory.path());
        }
        let (own, measured) = kept(directory.path(), tables, work);
        println!("{name}: {own} estimated, {measured} allocated, {:.2}", own as f64 / measured as f64);
        if own < measured * 3 / 5 || own > measured * 5 / 2 {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
