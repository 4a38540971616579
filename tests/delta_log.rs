//! Reads Delta logs: complete ones of every kind, which `deltalake` writes where it can, and damaged and hostile ones,
//! which are written by hand. Each test knows the exact files or the exact error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too
#![allow(clippy::needless_pass_by_value)] // `json!` at the call site reads better without `&`

#[path = "delta_log/flights.rs"]
mod flights;
#[path = "delta_log/log.rs"]
mod log;
#[path = "delta_log/looks.rs"]
mod looks;
#[path = "delta_log/pages.rs"]
mod pages;
#[path = "delta_log/rigged.rs"]
mod rigged;
#[path = "delta_log/selection.rs"]
mod selection;
#[path = "delta_log/writer.rs"]
mod writer;
#[path = "delta_log/written.rs"]
mod written;

use std::sync::Arc;

use buoyant_kernel::checkpoint::{CheckpointSpec, V2CheckpointConfig};
use buoyant_kernel::object_store::local::LocalFileSystem;
use buoyant_kernel::object_store::memory::InMemory;
use deltashare::delta::{ChangeKind, FileStats};
use deltashare::error::ErrorCode;
use deltashare::limits::Limits;
use log::*;
use rigged::{Fault, Rigged};
use serde_json::json;
use url::Url;

const EMPTY: &str =
    "The table cannot be read: a commit of its log is empty, as after a write that was cut off.";
const DAMAGED: &str = "The table cannot be read: its Delta log is damaged or incomplete.";
const MISSING: &str = "The table cannot be read: table files missing.";
const NO_LOG: &str = "The table cannot be read: there is no Delta table at its location.";

// ---------------------------------------------------------------------------------------------------------
// Whole logs

#[tokio::test(flavor = "multi_thread")]
async fn json_commits() {
    let log = Log::new();
    log.commits(3).await;
    log.write(&[remove("f1"), add("f3")]).await;
    assert_eq!(read(&log).await.unwrap(), (3, vec!["f0".into(), "f2".into(), "f3".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_a_file() {
    let log = Log::new();
    log.commit(
        0,
        &[features(&["deletionVectors"], &["deletionVectors", "rowTracking", "domainMetadata"]), metadata()],
    )
    .await;
    log.commit(1, &[add_with(
        "day=%20x/part%2B1.parquet",
        json!({
            "partitionValues": {"day": null, "other": "é"},
            "size": 7, "modificationTime": 8, "stats": "not even JSON",
            "baseRowId": 5, "defaultRowCommitVersion": 1, "clusteringProvider": "liquid", "tags": {"a": "b"},
            "deletionVector": {
                "storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^",
                "offset": 4, "sizeInBytes": 40, "cardinality": 6
            }
        }),
    )])
    .await;
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest().unwrap();
        let batches: Vec<_> = snapshot.scan().unwrap().map(|batch| batch.unwrap()).collect();
        let files: Vec<_> =
            batches.iter().flat_map(|batch| batch.files()).map(|file| file.unwrap()).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        assert_eq!(file.path, "day=%20x/part%2B1.parquet");
        assert_eq!((file.size, file.modification_time), (7, 8));
        assert_eq!(file.stats, Some("not even JSON"));
        let mut values: Vec<_> = file.partition_values.iter().collect();
        values.sort();
        assert_eq!(values, [("day", None), ("other", Some("é"))]);
        assert_eq!((file.base_row_id, file.default_row_commit_version), (Some(5), Some(1)));
        assert_eq!(file.clustering_provider, Some("liquid"));
        let vector = file.deletion_vector.unwrap();
        assert_eq!(
            vector.log_path(&mut String::new()).unwrap(),
            Some("ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin")
        );
        assert_eq!((vector.offset, vector.size_in_bytes, vector.cardinality), (Some(4), 40, 6));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_and_metadata_are_raw() {
    let log = Log::new();
    let configuration = json!({"delta.columnMapping.mode": "none", "b": "2", "a": " 1 "});
    log.commit(
        0,
        &[
            features(
                &["timestampNtz", "deletionVectors"],
                &["timestampNtz", "deletionVectors", "appendOnly", "unheardOf"],
            ),
            metadata_with(SCHEMA, configuration),
        ],
    )
    .await;
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest().unwrap();
        let protocol = snapshot.protocol();
        assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (3, 7));
        assert_eq!(protocol.reader_features.as_deref().unwrap(), ["timestampNtz", "deletionVectors"]);
        assert_eq!(
            protocol.writer_features.as_deref().unwrap(),
            ["timestampNtz", "deletionVectors", "appendOnly", "unheardOf"]
        );
        let metadata = snapshot.metadata();
        assert_eq!(metadata.id, "5fba94ed-9794-4965-ba6e-6ee3c0d22af9");
        assert_eq!(metadata.name.as_deref(), Some("a table"));
        assert_eq!(metadata.description.as_deref(), Some("about it"));
        assert_eq!(metadata.format_provider, "parquet");
        assert_eq!(metadata.schema_string, SCHEMA);
        assert_eq!(metadata.partition_columns, ["day"]);
        assert_eq!(metadata.created_time, Some(1_700_000_000_000));
        let configuration: Vec<_> =
            metadata.configuration.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(configuration, [("a", " 1 "), ("b", "2"), ("delta.columnMapping.mode", "none")]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_files() {
    let log = Log::new();
    log.write(&[protocol(1, 2), metadata()]).await;
    assert_eq!(read(&log).await.unwrap(), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_checkpoint_and_commits_after_it() {
    let log = Log::new();
    log.commits(5).await;
    log.checkpoint(None).await;
    log.write(&[remove("f2"), add("f5")]).await;
    let expected = vec!["f0".into(), "f1".into(), "f3".into(), "f4".into(), "f5".into()];
    assert_eq!(read(&log).await.unwrap(), (5, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaned_up_log() {
    let log = Log::new();
    log.commits(5).await;
    log.checkpoint(None).await;
    log.write(&[add("f5")]).await;
    for version in 0..4 {
        log.delete(&commit_name(version)).await;
    }
    assert_eq!(read(&log).await.unwrap(), (5, files(0..6)));
    log.delete("_last_checkpoint").await;
    assert_eq!(read(&log).await.unwrap(), (5, files(0..6)));

    let table = log.table();
    let message = blocking(move || refusal(table.at_version(3).map(|s| s.version()))).await;
    assert_eq!(
        message,
        "Cannot load table version 3, because it does not exist or is no longer available. The available versions \
         are 4 to 5."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_of_two_parts() {
    let log = Log::new();
    log.commits(6).await;
    log.checkpoint(None).await;
    log.split_checkpoint(5).await;
    for version in 0..5 {
        log.delete(&commit_name(version)).await;
    }
    assert_eq!(read(&log).await.unwrap(), (5, files(0..6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_checkpoints() {
    for sidecars in [false, true] {
        let log = Log::new();
        log.write(&[features(&["v2Checkpoint"], &["v2Checkpoint"]), metadata(), add("f0")]).await;
        for version in 1..5 {
            log.write(&[add(&format!("f{version}"))]).await;
        }
        let config = match sidecars {
            true => V2CheckpointConfig::WithSidecar { file_actions_per_sidecar_hint: Some(1) },
            false => V2CheckpointConfig::NoSidecar,
        };
        log.checkpoint(Some(CheckpointSpec::V2(config))).await;
        log.write(&[add("f5")]).await;
        for version in 0..5 {
            log.delete(&commit_name(version)).await;
        }
        assert_eq!(read(&log).await.unwrap(), (5, files(0..6)), "sidecars: {sidecars}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_in_structs_only_and_not_at_all() {
    let log = Log::new();
    let properties = json!({
        "delta.checkpoint.writeStatsAsJson": "false", "delta.checkpoint.writeStatsAsStruct": "true"
    });
    let stats = r#"{"numRecords":3,"minValues":{"id":1},"maxValues":{"id":9},"nullCount":{"id":0}}"#;
    log.commit(
        0,
        &[
            protocol(1, 2),
            metadata_with(SCHEMA, properties),
            add_with("f0", json!({"stats": stats})),
            add_with("f1", json!({"stats": "(absent)"})),
        ],
    )
    .await;
    log.checkpoint(None).await;
    log.commit(1, &[add_with("f2", json!({"stats": "not JSON"}))]).await;
    let rows = &read_parquet(log.get(&checkpoint_name(0)).await)[0];
    let add = rows.column_by_name("add").unwrap();
    let fields = format!("{:?}", add.data_type());
    assert!(fields.contains("stats_parsed") && !fields.contains("\"stats\""), "{fields}");
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest().unwrap();
        let mut found = Vec::new();
        for batch in snapshot.scan().unwrap() {
            for file in batch.unwrap().files() {
                let file = file.unwrap();
                let stats =
                    file.stats.map(|stats| serde_json::from_str(stats).unwrap_or_else(|_| json!(stats)));
                found.push((file.path.to_owned(), stats));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found.len(), 3);
        assert_eq!(found[2].1, Some(json!("not JSON")));
        assert_eq!(found[0].1, Some(serde_json::from_str(stats).unwrap()));
        assert!(found[1].1.as_ref().is_none_or(|stats| *stats == json!({})), "{:?}", found[1].1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_json_checkpoint_with_a_sidecar() {
    let log = Log::new();
    log.commits(3).await;
    log.checkpoint(None).await;
    let rows = log.get(&checkpoint_name(2)).await;
    log.delete(&checkpoint_name(2)).await;
    log.delete("_last_checkpoint").await;
    let sidecar = "016ae953-37a9-438e-8683-9a9a4a79a395.parquet";
    log.put(&format!("_sidecars/{sidecar}"), rows.clone()).await;
    let checkpoint = [
        json!({"checkpointMetadata": {"version": 2}}),
        features(&["v2Checkpoint"], &["v2Checkpoint"]),
        metadata(),
        json!({"sidecar": {"path": sidecar, "sizeInBytes": rows.len(), "modificationTime": 1}}),
    ];
    log.put("00000000000000000002.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json", lines(&checkpoint))
        .await;
    for version in 0..3 {
        log.delete(&commit_name(version)).await;
    }
    log.commit(3, &[add("f3")]).await;
    assert_eq!(read(&log).await.unwrap(), (3, files(0..4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn compacted_commits() {
    let log = Log::new();
    log.commits(4).await;
    let all = [add("f1"), add("f2")];
    log.put("00000000000000000001.00000000000000000002.compacted.json", lines(&all)).await;
    assert_eq!(read(&log).await.unwrap(), (3, files(0..4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_in_the_log() {
    let log = Log::new();
    log.commits(2).await;
    for name in
        ["0.json", "abc", ".00000000000000000001.json.crc", "00000000000000000009.json.tmp", "_commits/x"]
    {
        log.put(name, "?").await;
    }
    assert_eq!(read(&log).await.unwrap(), (1, files(0..2)));
}

/// Characters that URLs and object keys write differently.
#[tokio::test(flavor = "multi_thread")]
async fn odd_locations() {
    for root in [
        "memory:///a%20b/%C3%A9/c+d=e/",
        "memory:///a%25b/",
        "memory:///a%2520b/",
        "s3://bucket.with.dots/deep/er/t/",
        "s3://bucket/",
    ] {
        let log = Log::at(Arc::new(InMemory::new()), root);
        log.commits(3).await;
        log.checkpoint_by_hand().await;
        log.write(&[add("f3")]).await;
        log.delete(&commit_name(0)).await;
        assert_eq!(read(&log).await.map_err(|error| format!("{root}: {error:?}")), Ok((3, files(0..4))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_directory() {
    let directory = tempfile::tempdir().unwrap();
    let root = Url::from_directory_path(directory.path().join("a table")).unwrap();
    let log = Log::at(Arc::new(LocalFileSystem::new()), root.as_str());
    assert_eq!(refusal(read(&log).await), NO_LOG);
    log.commits(3).await;
    log.checkpoint(None).await;
    log.write(&[remove("f1")]).await;
    log.put("_sidecars/x.parquet", "?").await;
    assert_eq!(read(&log).await.unwrap(), (3, vec!["f0".into(), "f2".into()]));
    log.put(&commit_name(4), "{").await;
    assert_eq!(refusal(read(&log).await), DAMAGED);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_files() {
    let log = Log::new();
    log.commits(4).await;
    log.checkpoint(None).await;
    log.write(&[remove("f0")]).await;
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest().unwrap();
        let expected = FileStats { num_files: 3, size_bytes: 300 };
        assert_eq!(snapshot.count_files().unwrap(), expected);
        assert_eq!(snapshot.file_stats().unwrap(), expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_lists_agree_on_deletion_vectors_and_files_that_come_back() {
    let vector = |id: &str, offset: Option<i32>| json!({"storageType": "u", "pathOrInlineDv": id, "offset": offset, "sizeInBytes": 40, "cardinality": 1});
    let with = |path: &str, size: u64, vector: &serde_json::Value| {
        add_with(path, json!({"size": size, "deletionVector": vector}))
    };
    let without = |path: &str, vector: &serde_json::Value| {
        let mut action = remove(path);
        action["remove"]["deletionVector"] = vector.clone();
        action
    };
    let (first, second) =
        (vector("ab^-aqEH.-t@S}K{vb[*k^", Some(1)), vector("ab^-aqEH.-t@S}K{vb[*k^", Some(50)));
    let definition = [features(&["deletionVectors"], &["deletionVectors"]), metadata()];
    let commits = [
        [&definition[..], &[add_with("f0", json!({"size": 1})), add_with("f1", json!({"size": 20}))]]
            .concat(),
        vec![remove("f0"), with("f0", 300, &first)],
        vec![without("f0", &first), with("f0", 4_000, &second), remove("f1")],
        vec![add_with("f1", json!({"size": 50_000})), add_with("f2", json!({"size": 600_000}))],
        vec![remove("f2"), remove("never")],
        vec![without("f0", &second), add_with("f0", json!({"size": 7_000_000}))],
    ];
    // The newest files of each version with their sizes; each is read from commits, and from a checkpoint of any version before.
    let expected: [&[(&str, u64)]; 6] = [
        &[("f0", 1), ("f1", 20)],
        &[("f0", 300), ("f1", 20)],
        &[("f0", 4_000)],
        &[("f0", 4_000), ("f1", 50_000), ("f2", 600_000)],
        &[("f0", 4_000), ("f1", 50_000)],
        &[("f0", 7_000_000), ("f1", 50_000)],
    ];
    for checkpoint in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)] {
        let log = Log::new();
        for (version, (actions, expected)) in commits.iter().zip(expected).enumerate() {
            log.write(actions).await;
            if checkpoint == Some(version) {
                log.checkpoint(None).await;
            }
            let paths = expected.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(read(&log).await.unwrap(), (version as u64, paths), "{checkpoint:?}");
            let table = log.table();
            let (stats, has_vectors) = blocking(move || {
                let snapshot = table.latest().unwrap();
                (snapshot.count_files().unwrap(), snapshot.has_deletion_vectors().unwrap())
            })
            .await;
            let (num_files, size_bytes) =
                (expected.len() as u64, expected.iter().map(|(_, size)| size).sum());
            assert_eq!(stats, FileStats { num_files, size_bytes }, "version {version}, {checkpoint:?}");
            assert_eq!(has_vectors, (1..5).contains(&version), "version {version}, {checkpoint:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checksum_gives_the_number_of_files() {
    let log = Log::new();
    log.commits(2).await;
    let checksum = json!({
        "tableSizeBytes": 200, "numFiles": 2, "numMetadata": 1, "numProtocol": 1,
        "metadata": metadata()["metaData"], "protocol": protocol(1, 2)["protocol"]
    });
    log.put("00000000000000000001.crc", checksum.to_string()).await;
    let table = log.table();
    let stats = blocking(move || table.latest().unwrap().file_stats()).await;
    assert_eq!(stats.unwrap(), FileStats { num_files: 2, size_bytes: 200 });
    log.put("00000000000000000001.crc", "{").await;
    assert_eq!(read(&log).await.unwrap(), (1, files(0..2)));
}

// ---------------------------------------------------------------------------------------------------------
// Damaged logs: the right files, or an error

#[tokio::test(flavor = "multi_thread")]
async fn no_log() {
    let log = Log::new();
    assert_eq!(refusal(read(&log).await), NO_LOG);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_checkpoint_that_is_wrong_is_passed_over() {
    let garbage: [&[u8]; 9] = [
        br#"{"version":1,"size":3}"#,
        br#"{"version":9,"size":3}"#,
        br#"{"version":9,"size":3,"parts":2}"#,
        br#"{"version":2}"#,
        br#"{"version":-1}"#,
        br#"{"version":1e400}"#,
        b"",
        b"\xff\xfe",
        b"[]",
    ];
    for hint in garbage {
        let log = Log::new();
        log.commits(4).await;
        log.checkpoint(None).await;
        log.write(&[add("f4")]).await;
        log.put("_last_checkpoint", hint).await;
        assert_eq!(read(&log).await.unwrap(), (4, files(0..5)), "{hint:?}");
        log.delete(&checkpoint_name(3)).await;
        assert_eq!(read(&log).await.unwrap(), (4, files(0..5)), "{hint:?}");
    }
}

/// A hint that repeats the checkpoint's schema or its actions wrongly must not hide a file.
#[tokio::test(flavor = "multi_thread")]
async fn last_checkpoint_that_lies_is_not_believed() {
    let log = Log::new();
    log.write(&[features(&["v2Checkpoint"], &["v2Checkpoint"]), metadata(), add("f0")]).await;
    log.write(&[add("f1")]).await;
    let config = V2CheckpointConfig::WithSidecar { file_actions_per_sidecar_hint: Some(1) };
    log.checkpoint(Some(CheckpointSpec::V2(config))).await;
    let hint: serde_json::Value = serde_json::from_slice(&log.get("_last_checkpoint").await).unwrap();
    let mut lie = hint.clone();
    lie["checkpointSchema"] = serde_json::from_str(SCHEMA).unwrap();
    if lie["v2Checkpoint"].is_object() {
        lie["v2Checkpoint"]["sidecarFiles"] = json!([]);
    }
    log.put("_last_checkpoint", lie.to_string()).await;
    assert_eq!(read(&log).await.unwrap(), (1, files(0..2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn part_of_a_checkpoint_missing() {
    let log = Log::new();
    log.commits(6).await;
    log.checkpoint(None).await;
    log.split_checkpoint(5).await;
    log.delete(&part_name(5, 2, 2)).await;
    assert_eq!(read(&log).await.unwrap(), (5, files(0..6)));

    // Without the commits that the checkpoint stands for there is no way.
    log.delete(&commit_name(0)).await;
    assert_eq!(refusal(read(&log).await), DAMAGED);
}

/// Garbage, truncation and emptiness of the newest checkpoint: an older one or the commits take over.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_checkpoint() {
    let log = Log::new();
    log.commits(3).await;
    log.checkpoint(None).await;
    log.write(&[add("f3")]).await;
    log.write(&[add("f4")]).await;
    log.checkpoint(None).await;
    log.write(&[add("f5")]).await;
    let whole = log.get(&checkpoint_name(4)).await;
    let mut footer = whole.clone();
    let end = footer.len();
    footer[end - 60..end - 20].fill(0xff);
    let damaged: [Vec<u8>; 5] =
        [b"PAR1".to_vec(), vec![0; 400], whole[..whole.len() / 2].to_vec(), footer, Vec::new()];
    for bytes in damaged {
        log.put(&checkpoint_name(4), bytes.clone()).await;
        assert_eq!(read(&log).await.unwrap(), (5, files(0..6)));
    }
    for version in 0..3 {
        log.delete(&commit_name(version)).await;
    }
    log.put(&checkpoint_name(4), "PAR1").await;
    assert_eq!(read(&log).await.unwrap(), (5, files(0..6)));
    log.delete(&checkpoint_name(2)).await;
    assert_eq!(refusal(read(&log).await), DAMAGED);
}

/// The checksum spares opening the checkpoint, so that its damage shows only when the files are listed.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_checkpoint_behind_a_checksum() {
    let log = Log::new();
    log.commits(3).await;
    log.checkpoint(None).await;
    let checksum = json!({
        "tableSizeBytes": 300, "numFiles": 3, "numMetadata": 1, "numProtocol": 1,
        "metadata": metadata()["metaData"], "protocol": protocol(1, 2)["protocol"]
    });
    log.put("00000000000000000002.crc", checksum.to_string()).await;
    log.put(&checkpoint_name(2), vec![7; 500]).await;
    assert_eq!(read(&log).await.unwrap(), (2, files(0..3)));
    log.delete(&commit_name(0)).await;
    assert_eq!(refusal(read(&log).await), DAMAGED);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_fail_the_scan() {
    let log = Log::new();
    log.commits(40).await;
    log.checkpoint(None).await;
    let mut bytes = log.get(&checkpoint_name(39)).await;
    let end = bytes.len() / 3;
    bytes[4..end].fill(0xff);
    log.put(&checkpoint_name(39), bytes).await;
    log.delete(&commit_name(0)).await;
    assert_eq!(refusal(read(&log).await), DAMAGED);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_sidecar() {
    let log = Log::new();
    log.commits(3).await;
    log.checkpoint(None).await;
    let rows = log.get(&checkpoint_name(2)).await;
    log.delete(&checkpoint_name(2)).await;
    log.delete("_last_checkpoint").await;
    let name = "00000000000000000002.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json";
    log.put("_sidecars/a.parquet", rows.clone()).await;
    log.delete(&commit_name(0)).await;
    let sidecar =
        |path: &str| json!({"sidecar": {"path": path, "sizeInBytes": rows.len(), "modificationTime": 1}});
    let head = [features(&["v2Checkpoint"], &["v2Checkpoint"]), metadata()];
    for second in [
        "b.parquet",
        "https://127.0.0.1:1/b.parquet?X-Amz-Signature=x",
        "a.parquet?sp=1",
        "../../../other/_delta_log/_sidecars/a.parquet",
        "memory:///elsewhere/a.parquet",
        "file:///etc/passwd",
    ] {
        let mut checkpoint = head.to_vec();
        checkpoint.extend([sidecar("a.parquet"), sidecar(second)]);
        log.put(name, lines(&checkpoint)).await;
        let message = refusal(read(&log).await);
        assert!(message == MISSING || message == DAMAGED, "{second}: {message}");
    }
    let size = rows.len();
    for second in [
        json!({"sizeInBytes": size, "modificationTime": 1}),
        json!({"path": null, "sizeInBytes": size, "modificationTime": 1}),
        json!({"path": "", "sizeInBytes": size, "modificationTime": 1}),
        json!({"path": "a.parquet", "sizeInBytes": -1, "modificationTime": 1}),
        json!({"path": "a.parquet", "sizeInBytes": size - 1, "modificationTime": 1}),
        json!({"path": "a.parquet", "sizeInBytes": size + 1, "modificationTime": 1}),
        json!({"path": "a.parquet", "sizeInBytes": i64::MAX, "modificationTime": 1}),
    ] {
        let mut checkpoint = head.to_vec();
        checkpoint.push(json!({"sidecar": second}));
        log.put(name, lines(&checkpoint)).await;
        let message = refusal(read(&log).await);
        assert!(message == MISSING || message == DAMAGED, "{second}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_commit() {
    let log = Log::new();
    log.commits(5).await;
    log.delete(&commit_name(2)).await;
    assert_eq!(refusal(read(&log).await), DAMAGED);

    // A prefix that is gone must not make the rest look like a whole table.
    let log = Log::new();
    log.commits(3).await;
    log.write(&[protocol(1, 2), metadata(), add("f3")]).await;
    for version in 0..3 {
        log.delete(&commit_name(version)).await;
    }
    assert_eq!(refusal(read(&log).await), DAMAGED);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_commit() {
    let add = add("f2").to_string();
    for bytes in [
        String::new(),
        "{".into(),
        "\0".into(),
        add[..add.len() - 3].into(),
        format!("{add}\n{{\"add\":"),
        format!("{add}\nnull\n]"),
        "<html>".into(),
    ] {
        let log = Log::new();
        log.commits(2).await;
        log.put(&commit_name(2), bytes.clone()).await;
        let expected = if bytes.is_empty() { EMPTY } else { DAMAGED };
        assert_eq!(refusal(read(&log).await), expected, "{bytes:?}");
    }
    let log = Log::new();
    log.commits(2).await;
    log.put(&commit_name(2), [b"{\"add\":{\"path\":\"\xff\xfe".as_slice(), b"\"}}"].concat()).await;
    assert_eq!(refusal(read(&log).await), DAMAGED);
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_anywhere() {
    let log = Log::new();
    log.commits(2).await;
    let whole = lines(&[add("f2")]);
    for length in 0..whole.len() - 1 {
        log.put(&commit_name(2), &whole.as_bytes()[..length]).await;
        let expected = if length == 0 { EMPTY } else { DAMAGED };
        assert_eq!(refusal(read(&log).await), expected, "{length}");
    }
    log.put(&commit_name(2), &whole.as_bytes()[..whole.len() - 1]).await;
    assert_eq!(read(&log).await.unwrap(), (2, files(0..3)));

    log.checkpoint(None).await;
    log.delete(&commit_name(0)).await;
    let whole = log.get(&checkpoint_name(2)).await;
    for length in (0..whole.len()).step_by(whole.len() / 50) {
        log.put(&checkpoint_name(2), &whole[..length]).await;
        assert_eq!(refusal(read(&log).await), DAMAGED, "{length}");
    }
    log.put(&checkpoint_name(2), whole).await;
    assert_eq!(read(&log).await.unwrap(), (2, files(0..3)));
}

/// Parquet has no checksums here, so a flipped bit may change a value. It must not bring the server down.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_do_no_harm() {
    let log = Log::new();
    log.commits(3).await;
    log.checkpoint(None).await;
    log.delete(&commit_name(0)).await;
    let whole = log.get(&checkpoint_name(2)).await;
    let mut refused = 0;
    for at in (4..whole.len()).step_by(whole.len() / 200) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        log.put(&checkpoint_name(2), bytes).await;
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), read(&log)).await;
        if let Err(error) = read.expect("a hang") {
            refusal::<()>(Err(error));
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_add_actions() {
    let absent = json!("(absent)");
    let vector = |other: serde_json::Value| {
        let mut vector = json!({
            "storageType": "u", "pathOrInlineDv": "^-aqEH.-t@S}K{vb[*k^", "offset": 1, "sizeInBytes": 40, "cardinality": 6
        });
        for (key, value) in other.as_object().unwrap() {
            vector[key] = value.clone();
        }
        json!({"deletionVector": vector})
    };
    for other in [
        json!({"size": -1}),
        json!({"size": i64::MIN}),
        json!({"size": absent}),
        json!({"size": null}),
        json!({"size": 1.5e300}),
        json!({"size": "many"}),
        json!({"path": absent}),
        json!({"path": null}),
        json!({"path": ""}),
        json!({"path": {"a": 1}}),
        json!({"partitionValues": "x"}),
        json!({"partitionValues": absent}),
        vector(json!({"pathOrInlineDv": "short"})),
        vector(json!({"pathOrInlineDv": "\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\""})),
        vector(json!({"storageType": "x"})),
        vector(json!({"offset": -1})),
        vector(json!({"offset": 1_u64 << 40})),
        vector(json!({"sizeInBytes": -1})),
        vector(json!({"sizeInBytes": null})),
        vector(json!({"cardinality": -1})),
        vector(json!({"cardinality": null})),
    ] {
        let log = Log::new();
        log.commits(2).await;
        log.commit(2, &[add_with("f2", other.clone())]).await;
        let message = refusal(read(&log).await);
        assert!(message == DAMAGED || message.contains("without the file's size"), "{other}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_overflow() {
    let log = Log::new();
    log.commits(1).await;
    let huge = |path: &str| add_with(path, json!({"size": i64::MAX}));
    log.commit(1, &[huge("a"), huge("b"), huge("c")]).await;
    let table = log.table();
    let message = blocking(move || refusal(table.latest().unwrap().count_files())).await;
    assert_eq!(message, DAMAGED);
}

/// Paths are for the caller to judge; none may be lost or changed here.
#[tokio::test(flavor = "multi_thread")]
async fn odd_paths_are_handed_on() {
    let odd = ["../x", "s3://other/x", "file:///etc/passwd", "a%00b", "a\r\nb", "?x=1", "é/ü", "%"];
    let log = Log::new();
    log.commits(1).await;
    log.commit(1, &odd.map(add)).await;
    let mut expected: Vec<String> = odd.iter().map(|path| (*path).to_owned()).collect();
    expected.push("f0".into());
    expected.sort();
    assert_eq!(read(&log).await.unwrap(), (1, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_added_twice() {
    let log = Log::new();
    log.commits(2).await;
    log.commit(2, &[add("f1"), add("f1")]).await;
    assert_eq!(read(&log).await.unwrap(), (2, files(0..2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_protocol_or_metadata() {
    for actions in [vec![add("f0")], vec![protocol(1, 2), add("f0")], vec![metadata(), add("f0")]] {
        let log = Log::new();
        log.commit(0, &actions).await;
        assert_eq!(refusal(read(&log).await), DAMAGED);
    }
}

// ---------------------------------------------------------------------------------------------------------
// Features

#[tokio::test(flavor = "multi_thread")]
async fn known_reader_features() {
    for feature in [
        "columnMapping",
        "deletionVectors",
        "timestampNtz",
        "typeWidening",
        "typeWidening-preview",
        "v2Checkpoint",
        "vacuumProtocolCheck",
        "variantType",
        "variantType-preview",
        "variantShredding",
        "variantShredding-preview",
        "geospatial",
    ] {
        let log = Log::new();
        log.commit(0, &[features(&[feature], &[feature]), metadata(), add("f0")]).await;
        assert_eq!(read(&log).await.unwrap(), (0, files(0..1)), "{feature}");
    }
}

/// What the kernel refuses for reasons that do not touch the list of files.
#[tokio::test(flavor = "multi_thread")]
async fn odd_schemas_and_protocols() {
    let field = |kind: &str| {
        format!(
            r#"{{"type":"struct","fields":[{{"name":"day","type":{kind},"nullable":true,"metadata":{{}}}}]}}"#
        )
    };
    let schemas = [
        (field(r#""geometry(OGC:CRS84)""#), true),
        (field(r#""void""#), true),
        (r#"{"type":"struct","fields":[]}"#.to_owned(), false),
        (field(r#""unheardOf""#), false),
        (field(r#""timestamp_nanos""#), false),
        (field(r#""decimal(99,1)""#), false),
        ("not JSON".to_owned(), false),
        ("42".to_owned(), false),
        (String::new(), false),
        (
            field(&format!(
                "{}{}{}",
                r#"{"type":"array","containsNull":true,"elementType":"#.repeat(5_000),
                r#""long""#,
                "}".repeat(5_000)
            )),
            false,
        ),
    ];
    for (schema, is_schema) in &schemas {
        let log = Log::new();
        log.commit(0, &[protocol(1, 2), metadata_with(schema, json!({"a": "b"})), add("f0")]).await;
        log.commit(1, &[add("f1")]).await;
        let table = log.table();
        let (expected, is_schema) = (schema.clone(), *is_schema);
        blocking({
            let table = table.clone();
            move || {
                if !is_schema {
                    let message = refusal(table.latest());
                    assert!(
                        message.starts_with("The table") && message.contains("schema"),
                        "{expected}: {message}"
                    );
                    return;
                }
                let snapshot = table.latest().unwrap();
                assert_eq!(paths(&snapshot).unwrap(), files(0..2));
                assert_eq!(snapshot.metadata().schema_string, expected);
                assert_eq!(snapshot.metadata().partition_columns, ["day"]);
                assert_eq!(snapshot.metadata().configuration["a"], "b");
            }
        })
        .await;
        log.commit(2, &[remove("f0"), metadata()]).await;
        blocking(move || {
            let snapshot = table.latest().unwrap();
            assert_eq!(paths(&snapshot).unwrap(), ["f1"]);
            assert_eq!(snapshot.metadata().schema_string, SCHEMA);
        })
        .await;
    }
    let with_features = |reader: i32, writer: i32| {
        json!({"protocol": {
            "minReaderVersion": reader, "minWriterVersion": writer, "readerFeatures": null, "writerFeatures": ["appendOnly"]
        }})
    };
    for protocol in [
        with_features(1, 2),
        with_features(1, 6),
        features(&["deletionVectors"], &["appendOnly"]),
        features(&[], &["deletionVectors"]),
    ] {
        let log = Log::new();
        log.commit(0, &[protocol.clone(), metadata(), add("f0")]).await;
        assert_eq!(read(&log).await.unwrap(), (0, files(0..1)), "{protocol}");
    }
    for configuration in [
        json!({"delta.columnMapping.mode": "id"}),
        json!({"delta.columnMapping.mode": "unheardOf"}),
        json!({"delta.enableInCommitTimestamps": "maybe"}),
        json!({"delta.checkpointInterval": "-1"}),
    ] {
        let log = Log::new();
        log.commit(0, &[protocol(2, 5), metadata_with(SCHEMA, configuration.clone()), add("f0")]).await;
        assert_eq!(read(&log).await.unwrap(), (0, files(0..1)), "{configuration}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_reader_features_are_named() {
    for feature in ["catalogManaged", "catalogOwned-preview", "fromTheFuture", "adaptiveMetadata-preview"] {
        let log = Log::new();
        log.commit(0, &[features(&[feature], &[feature]), metadata(), add("f0")]).await;
        let message = refusal(read(&log).await);
        assert_eq!(
            message,
            format!("The table uses the Delta reader feature {feature}, which this server does not support.")
        );
    }
    let log = Log::new();
    log.commit(0, &[protocol(4, 7), metadata(), add("f0")]).await;
    let message = refusal(read(&log).await);
    assert!(message.contains("reader version 4"), "{message}");
}

// ---------------------------------------------------------------------------------------------------------
// Versions and refresh

#[tokio::test(flavor = "multi_thread")]
async fn versions() {
    let log = Log::new();
    log.commits(5).await;
    log.checkpoint(None).await;
    log.write(&[add("f5")]).await;
    let table = log.table();
    blocking(move || {
        for version in [0, 3, 4, 5, 2] {
            let snapshot = table.at_version(version).unwrap();
            assert_eq!(snapshot.version(), version);
            assert_eq!(paths(&snapshot).unwrap(), files(0..version + 1));
        }
        let error = table.at_version(6).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidParameterValue);
        assert_eq!(
            refusal::<()>(Err(error)),
            "Cannot load table version 6, because it does not exist or is no longer available. The available \
             versions are 0 to 5."
        );
        assert!(
            refusal(table.at_version(u64::MAX)).contains("Cannot load table version 18446744073709551615")
        );
        assert_eq!(table.latest().unwrap().version(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_commit_fails_the_newest_version_only() {
    let log = Log::new();
    log.commits(3).await;
    let table = log.table();
    log.put(&commit_name(3), "{").await;
    blocking({
        let table = table.clone();
        move || {
            assert_eq!(refusal(table.latest().map(|s| s.version())), DAMAGED);
            assert_eq!(paths(&table.at_version(2).unwrap()).unwrap(), files(0..3));
        }
    })
    .await;
    log.commit(3, &[add("f3")]).await;
    blocking(move || assert_eq!(paths(&table.latest().unwrap()).unwrap(), files(0..4))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh() {
    let log = Log::new();
    log.commits(1).await;
    let table = log.table();
    for version in 1..25 {
        log.write(&[add(&format!("f{version}"))]).await;
        if version % 10 == 0 {
            log.checkpoint(None).await;
        }
        if version % 3 == 0 {
            let table = table.clone();
            blocking(move || {
                let snapshot = table.latest().unwrap();
                assert_eq!(snapshot.version(), version);
                assert_eq!(paths(&snapshot).unwrap(), files(0..version + 1));
            })
            .await;
        }
    }
}

/// Every answer is exactly one version, whatever is committed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_readers() {
    const VERSIONS: u64 = 40;
    let log = Log::new();
    log.commits(1).await;
    let table = log.table();
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let table = table.clone();
            tokio::task::spawn_blocking(move || {
                let mut last = 0;
                while last < VERSIONS {
                    let snapshot = table.latest().unwrap();
                    assert!(snapshot.version() >= last);
                    last = snapshot.version();
                    assert_eq!(paths(&snapshot).unwrap(), files(0..last + 1));
                }
            })
        })
        .collect();
    for version in 1..=VERSIONS {
        log.commit(version, &[add(&format!("f{version}"))]).await;
        if version % 10 == 0 {
            log.checkpoint(None).await;
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Handlers start a scan on one thread and go on with it on another.
#[test]
fn what_answers_move_between_threads() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync>() {}
    send::<deltashare::delta::Scan>();
    send::<deltashare::delta::Batch>();
    share::<deltashare::delta::DeltaTable>();
    share::<deltashare::delta::Snapshot>();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_change_removes_is_found_in_a_log_that_is_put_right() {
    let log = Log::new();
    let absent = add_with("f0", json!({"modificationTime": "(absent)"}));
    log.commit(0, &[protocol(1, 2), metadata(), absent]).await;
    log.commit(1, &[remove("f0"), add("f1")]).await;
    let table = log.table();
    blocking(move || {
        let newest = table.latest().unwrap();
        let range = Arc::new(table.change_range(&newest, 1, 1).unwrap());
        let surveyed = table.survey(&range, ChangeKind::Files, None, &mut |_| Ok(()));
        assert!(surveyed.is_ok(), "{:?}", surveyed.err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_does_not_change() {
    let log = Log::new();
    log.commits(2).await;
    let table = log.table();
    let before = blocking({
        let table = table.clone();
        move || table.latest().unwrap()
    })
    .await;
    log.write(&[remove("f0"), add("f2")]).await;
    blocking(move || {
        assert_eq!(table.latest().unwrap().version(), 2);
        assert_eq!(paths(&before).unwrap(), files(0..2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_anew() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits(5).await;
    log.checkpoint(None).await;
    let table = log.table();
    let latest = |table: deltashare::delta::DeltaTable| async {
        blocking(move || table.latest().and_then(|s| Ok((s.version(), paths(&s)?)))).await
    };
    assert_eq!(latest(table.clone()).await.unwrap(), (4, files(0..5)));

    // Shorter than before.
    for name in (0..5).map(commit_name).chain([checkpoint_name(4), "_last_checkpoint".into()]) {
        log.delete(&name).await;
    }
    assert_eq!(refusal(latest(table.clone()).await), NO_LOG);
    log.commit(0, &[protocol(1, 2), metadata(), add("new0")]).await;
    assert_eq!(latest(table.clone()).await.unwrap(), (0, vec!["new0".into()]));

    // As long as before, with commits of the same names and sizes.
    log.commit(0, &[protocol(1, 2), metadata(), add("two0")]).await;
    assert_eq!(latest(table.clone()).await.unwrap(), (0, vec!["two0".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_listing_is_not_a_shorter_table() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits(4).await;
    let table = log.table_with(Limits { log_listing_seconds: 0, ..Limits::default() });
    blocking({
        let table = table.clone();
        move || assert_eq!(table.latest().unwrap().version(), 3)
    })
    .await;
    store.unlisted.lock().unwrap().extend([commit_name(2), commit_name(3)]);
    let error = blocking({
        let table = table.clone();
        move || table.latest().unwrap_err()
    })
    .await;
    assert_eq!(error.code(), ErrorCode::TemporarilyUnavailable);
    store.unlisted.lock().unwrap().clear();
    blocking(move || assert_eq!(paths(&table.latest().unwrap()).unwrap(), files(0..4))).await;
}

// ---------------------------------------------------------------------------------------------------------
// The store

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_store() {
    for (fault, code, text) in [
        (Fault::Denied, ErrorCode::UnsupportedOperation, "permission denied"),
        (Fault::Throttled, ErrorCode::TemporarilyUnavailable, "try again later"),
        (Fault::TimedOut, ErrorCode::TemporarilyUnavailable, "try again later"),
    ] {
        let store = Rigged::new();
        let log = Log::on(store.clone());
        log.commits(3).await;
        log.checkpoint(None).await;
        let warm = log.table();
        let known = blocking({
            let warm = warm.clone();
            move || warm.latest().unwrap()
        })
        .await;
        store.fail(Some(fault));
        let check = |error: deltashare::error::Error| {
            assert_eq!(error.code(), code);
            let message = refusal::<()>(Err(error));
            assert!(message.contains(text), "{message}");
        };
        check(read(&log).await.unwrap_err());
        check(blocking(move || warm.latest().unwrap_err()).await);
        let cold = log.table();
        store.fail(None);
        let snapshot = blocking(move || cold.latest().unwrap()).await;
        drop(known);
        store.fail(Some(fault));
        // What the open has kept may suffice for the scan; if not, the failure shows.
        match blocking(move || paths(&snapshot)).await {
            Ok(paths) => assert_eq!(paths, files(0..3)),
            Err(error) => check(error),
        }
    }
}

/// A checkpoint that is larger than what is read with its footer.
async fn large_log(store: &Arc<Rigged>) -> (Log, Vec<String>) {
    let log = Log::on(store.clone());
    let mut actions = vec![protocol(1, 2), metadata()];
    let names: Vec<String> = (0..20_000_u64)
        .map(|n| {
            format!(
                "{:016x}{:016x}",
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                n.wrapping_mul(0xbf58_476d_1ce4_e5b9)
            )
        })
        .collect();
    actions.extend(names.iter().map(|name| add(name)));
    log.commit(0, &actions).await;
    log.checkpoint(None).await;
    let mut names = names;
    names.sort();
    (log, names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_batches() {
    let store = Rigged::new();
    let (log, names) = large_log(&store).await;
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest().unwrap();
        assert!(snapshot.scan().unwrap().count() > 3);
        assert_eq!(paths(&snapshot).unwrap(), names);
        assert_eq!(snapshot.count_files().unwrap(), FileStats { num_files: 20_000, size_bytes: 2_000_000 });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_fails_the_scan() {
    for (fault, code) in [
        (Fault::Throttled, ErrorCode::TemporarilyUnavailable),
        (Fault::TimedOut, ErrorCode::TemporarilyUnavailable),
        (Fault::Denied, ErrorCode::UnsupportedOperation),
    ] {
        let store = Rigged::new();
        let (log, _) = large_log(&store).await;
        let table = log.table();
        blocking(move || {
            let snapshot = table.latest().unwrap();
            let scan = snapshot.scan().unwrap();
            store.fail(Some(fault));
            let batches: Vec<_> = scan.collect();
            let error =
                batches.into_iter().find_map(|batch| batch.err()).expect("a short list that looks whole");
            assert_eq!(error.code(), code, "{error:?}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits(10).await;
    log.checkpoint(None).await;
    for version in 10..20 {
        log.write(&[add(&format!("f{version}"))]).await;
    }
    store.requests();
    let table = log.table();
    let snapshot = blocking({
        let table = table.clone();
        move || table.latest().unwrap()
    })
    .await;
    // `_last_checkpoint`, ten commits, the checkpoint.
    assert_eq!(store.requests(), (1, 12));
    blocking(move || assert_eq!(paths(&snapshot).unwrap(), files(0..20))).await;
    assert_eq!(store.requests(), (0, 0));
    blocking({
        let table = table.clone();
        move || table.latest().unwrap()
    })
    .await;
    // The newest commit, and the one that does not follow.
    assert_eq!(store.requests(), (0, 2));
    for version in 20..25 {
        log.write(&[add(&format!("f{version}"))]).await;
    }
    store.requests();
    blocking(move || assert_eq!(paths(&table.latest().unwrap()).unwrap(), files(0..25))).await;
    assert_eq!(store.requests(), (1, 6));
}

// ---------------------------------------------------------------------------------------------------------
// Time

/// Times of files, one of them out of order.
async fn dated_log(store: &Rigged, log: &Log) {
    log.commits(5).await;
    for (version, millis) in [1_000, 2_000, 1_500, 4_000, 5_000].into_iter().enumerate() {
        store.date(&commit_name(version as u64), millis);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_by_modification_time() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    dated_log(&store, &log).await;
    let table = log.table();
    blocking(move || {
        let times = (0..5).map(|version| table.at_version(version).unwrap().timestamp().unwrap().unwrap());
        assert_eq!(times.collect::<Vec<_>>(), [1_000, 2_000, 2_001, 4_000, 5_000]);
        for (millis, version) in [(1_000, 0), (1_999, 0), (2_000, 1), (2_001, 2), (3_999, 2), (4_000, 3), (5_000, 4)] {
            assert_eq!(table.latest().unwrap().version_as_of(millis).unwrap(), version, "{millis}");
        }
        for (millis, version) in [(-5, 0), (1_000, 0), (1_001, 1), (2_001, 2), (2_002, 3), (5_000, 4)] {
            assert_eq!(table.latest().unwrap().version_at_or_after(millis).unwrap(), version, "{millis}");
        }
        assert_eq!(
            refusal(table.latest().unwrap().version_as_of(999)),
            "The provided timestamp 999 ms (1970-01-01T00:00:00Z) is before the earliest available version 0. Please \
             use a timestamp greater than or equal to 1000 ms (1970-01-01T00:00:01Z)."
        );
        let after = "The provided timestamp 5001 ms (1970-01-01T00:00:05Z) is after the latest available version 4. \
                     Please use a timestamp less than or equal to 5000 ms (1970-01-01T00:00:05Z).";
        assert_eq!(refusal(table.latest().unwrap().version_as_of(5_001)), after);
        assert_eq!(refusal(table.latest().unwrap().version_at_or_after(5_001)), after);
        assert_eq!(table.latest().unwrap().version_up_to(5_001).unwrap(), 4);
        assert_eq!(table.latest().unwrap().version_up_to(3_999).unwrap(), 2);
        assert!(refusal(table.latest().unwrap().version_as_of(i64::MIN)).contains("Please use a timestamp greater"));
        assert!(refusal(table.latest().unwrap().version_as_of(i64::MAX)).contains("Please use a timestamp less"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_by_time_in_a_cleaned_up_log() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    dated_log(&store, &log).await;
    log.checkpoint(None).await;
    log.write(&[add("f5")]).await;
    store.date(&commit_name(5), 6_000);
    for version in 0..3 {
        log.delete(&commit_name(version)).await;
    }
    let table = log.table();
    blocking(move || {
        // Version 3 has a commit, but nothing to read it from.
        assert!(
            refusal(table.latest().unwrap().version_as_of(4_500))
                .contains("before the earliest available version 4")
        );
        assert_eq!(table.latest().unwrap().version_as_of(5_999).unwrap(), 4);
        // Changes since then would lack those of the versions that are gone.
        for millis in [0, 4_999] {
            assert!(
                refusal(table.latest().unwrap().version_at_or_after(millis))
                    .contains("before the earliest available version 4")
            );
        }
        assert_eq!(table.latest().unwrap().version_at_or_after(5_000).unwrap(), 4);
        assert_eq!(table.latest().unwrap().version_at_or_after(5_001).unwrap(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_only_a_checkpoint_has_no_times() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    dated_log(&store, &log).await;
    log.checkpoint(None).await;
    for version in 0..5 {
        log.delete(&commit_name(version)).await;
    }
    let table = log.table();
    blocking(move || {
        let newest = table.latest().unwrap();
        assert_eq!(newest.timestamp().unwrap(), None);
        for version in
            [newest.version_as_of(1_000), newest.version_up_to(9_000), newest.version_at_or_after(1_000)]
        {
            let message = refusal(version);
            assert!(message.starts_with("No commit of that time is available any more"), "{message}");
        }
        let message = refusal(table.change_range(&newest, 4, 4));
        assert!(message.contains("no longer available"), "{message}");
    })
    .await;
}

fn commit_info(millis: i64) -> serde_json::Value {
    json!({"commitInfo": {"inCommitTimestamp": millis, "timestamp": 1, "operation": "WRITE"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_by_in_commit_timestamp() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    let enabled = metadata_with(SCHEMA, json!({"delta.enableInCommitTimestamps": "true"}));
    log.commit(0, &[commit_info(10), features(&[], &["inCommitTimestamp"]), enabled, add("f0")]).await;
    for version in 1..6_u64 {
        let millis = 10 + 10 * version as i64;
        log.commit(version, &[commit_info(millis), add(&format!("f{version}"))]).await;
    }
    let table = log.table();
    blocking(move || {
        assert_eq!(table.latest().unwrap().timestamp().unwrap(), Some(60));
        assert_eq!(table.at_version(3).unwrap().timestamp().unwrap(), Some(40));
        for (millis, version) in [(10, 0), (19, 0), (20, 1), (59, 4), (60, 5)] {
            assert_eq!(table.latest().unwrap().version_as_of(millis).unwrap(), version, "{millis}");
        }
        for (millis, version) in [(0, 0), (10, 0), (11, 1), (60, 5)] {
            assert_eq!(table.latest().unwrap().version_at_or_after(millis).unwrap(), version, "{millis}");
        }
        assert!(
            refusal(table.latest().unwrap().version_as_of(9))
                .contains("before the earliest available version 0")
        );
        assert!(
            refusal(table.latest().unwrap().version_as_of(61))
                .contains("after the latest available version 5")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_commit_timestamps_enabled_later() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits(3).await;
    for version in 0..3 {
        store.date(&commit_name(version), 1_000 + version as i64);
    }
    let enabled = metadata_with(
        SCHEMA,
        json!({
            "delta.enableInCommitTimestamps": "true",
            "delta.inCommitTimestampEnablementVersion": "3",
            "delta.inCommitTimestampEnablementTimestamp": "2000"
        }),
    );
    log.commit(3, &[commit_info(2_000), features(&[], &["inCommitTimestamp"]), enabled, add("f3")]).await;
    log.commit(4, &[commit_info(3_000), add("f4")]).await;
    let table = log.table();
    blocking(move || {
        let times = (0..5).map(|version| table.at_version(version).unwrap().timestamp().unwrap().unwrap());
        assert_eq!(times.collect::<Vec<_>>(), [1_000, 1_001, 1_002, 2_000, 3_000]);
        for (millis, version) in [(1_000, 0), (1_500, 2), (2_000, 3), (2_999, 3), (3_000, 4)] {
            assert_eq!(table.latest().unwrap().version_as_of(millis).unwrap(), version, "{millis}");
        }
        for (millis, version) in [(1_002, 2), (1_003, 3), (2_000, 3), (2_001, 4)] {
            assert_eq!(table.latest().unwrap().version_at_or_after(millis).unwrap(), version, "{millis}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_in_commit_timestamp_is_an_error() {
    let log = Log::new();
    let enabled = metadata_with(SCHEMA, json!({"delta.enableInCommitTimestamps": "true"}));
    log.commit(0, &[features(&[], &["inCommitTimestamp"]), enabled, add("f0")]).await;
    let table = log.table();
    let message = blocking(move || refusal(table.latest().unwrap().timestamp())).await;
    assert_eq!(message, DAMAGED);
}
