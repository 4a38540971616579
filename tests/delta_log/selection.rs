//! Lists of the files of some partitions, which are read from checkpoints without the other files.

use std::sync::Arc;

use buoyant_kernel::arrow::array::RecordBatch;
use buoyant_kernel::arrow::compute::concat_batches;
use buoyant_kernel::checkpoint::{CheckpointSpec, V2CheckpointConfig};
use buoyant_kernel::parquet::arrow::ArrowWriter;
use buoyant_kernel::parquet::file::properties::WriterProperties;
use buoyant_kernel::parquet::file::reader::{FileReader as _, SerializedFileReader};
use deltashare::delta::{DeltaTable, FileCursor};
use deltashare::predicate::Predicate;
use serde_json::{Value, json};

use crate::log::*;

const IN_CHECKPOINT: usize = 1_400;
const DAYS: usize = 7;

/// The partition value of a file, which ends its path. One day has the null.
fn day(number: usize) -> Option<String> {
    let day = number * 31 % DAYS;
    (day != 0).then(|| format!("d{day}"))
}

fn file(number: usize) -> Value {
    let (path, day) = (path(number), day(number));
    add_with(
        &path,
        json!({"partitionValues": {"day": day}, "stats": format!(r#"{{"numRecords":3,"minValues":{{"id":{number}}},"maxValues":{{"id":{number}}},"nullCount":{{"id":0}}}}"#)}),
    )
}

fn path(number: usize) -> String {
    format!("{number:05}-{}", day(number).unwrap_or_default())
}

fn day_of(path: &str) -> Option<&str> {
    path.split_once('-').map(|(_, day)| day).filter(|day| !day.is_empty())
}

/// Files before a checkpoint; later, some are removed, some are added, and some are added again.
async fn log(checkpoint: &str) -> Log {
    let log = Log::new();
    let adds: Vec<Value> = (0..IN_CHECKPOINT).map(file).collect();
    let features = ["v2Checkpoint"];
    let protocol = if checkpoint == "v2" { features_of(&features) } else { protocol(1, 2) };
    log.commit(0, &[vec![protocol, metadata()], adds].concat()).await;
    log.commit(1, &(0..50).map(|number| remove(&path(number * 3))).collect::<Vec<_>>()).await;
    match checkpoint {
        "v2" => {
            let config = V2CheckpointConfig::WithSidecar { file_actions_per_sidecar_hint: Some(500) };
            log.checkpoint(Some(CheckpointSpec::V2(config))).await;
        }
        "none" => {}
        _ => log.checkpoint(None).await,
    }
    if checkpoint == "parts" {
        log.split_checkpoint(1).await;
    }
    let late = (0..40).map(|number| remove(&path(200 + number * 5)));
    let late = late.chain((0..40).map(|number| file(IN_CHECKPOINT + number)));
    log.commit(2, &late.chain((0..10).map(|number| file(number * 3))).collect::<Vec<_>>()).await;
    log
}

fn features_of(names: &[&str]) -> Value {
    features(names, names)
}

fn rest(cursor: &mut FileCursor, most: usize) -> Vec<String> {
    let mut paths = Vec::new();
    while paths.len() < most {
        let Some(file) = cursor.advance().unwrap() else { break };
        paths.push(file.path.to_owned());
    }
    paths
}

type Oracle = fn(Option<&str>) -> bool;

/// Predicates, and whether rows of a partition may match.
const PREDICATES: [(&str, Oracle); 11] = [
    ("day = 'd3'", |day| day == Some("d3")),
    ("day IN ('d1', 'd5', 'd9')", |day| matches!(day, Some("d1" | "d5"))),
    ("day IS NULL", |day| day.is_none()),
    ("day IS NOT NULL", |day| day.is_some()),
    ("day LIKE 'd%'", |day| day.is_some()),
    ("NOT day = 'd3'", |day| day.is_some_and(|day| day != "d3")),
    ("day >= 'd5' AND id > 700", |day| day.is_some_and(|day| day >= "d5")),
    ("(day = 'd2' AND id < 300) OR day = 'd4'", |day| matches!(day, Some("d2" | "d4"))),
    ("day = 'd3' OR id > 1000", |_| true),
    ("id > 1000", |_| true),
    ("day = 'never'", |_| false),
];

fn predicates(sql: &str) -> Arc<[Predicate]> {
    Arc::new([Predicate::from_sql(sql)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_has_every_file_of_its_partitions_and_no_other() {
    for checkpoint in ["none", "classic", "parts", "v2"] {
        let log = log(checkpoint).await;
        let table = log.table();
        blocking(move || {
            let snapshot = table.latest().unwrap();
            let all = rest(&mut table.files(&snapshot).unwrap(), usize::MAX);
            assert_eq!(all.len(), IN_CHECKPOINT - 50 - 40 + 40 + 10);
            for (sql, oracle) in PREDICATES {
                let expected: Vec<String> = all.iter().filter(|path| oracle(day_of(path))).cloned().collect();
                let mut files = table.files_matching(&snapshot, &predicates(sql)).unwrap();
                let left_out = files.left_out();
                assert_eq!(rest(&mut files, usize::MAX), expected, "{checkpoint}: {sql}");
                // Files that were removed after the checkpoint are counted, too.
                let fewest = (all.len() - expected.len()) as u64;
                assert!((fewest..=fewest + 90).contains(&left_out()), "{checkpoint}: {sql}: {}", left_out());
                if expected.len() == all.len() {
                    assert_eq!(left_out(), 0, "{sql}");
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_selection_go_on_where_the_one_before_ended() {
    let log = log("classic").await;
    let shared = log.table();
    for (sql, _) in PREDICATES {
        let (shared, other): (DeltaTable, DeltaTable) = (shared.clone(), log.table());
        blocking(move || {
            let predicates = predicates(sql);
            let mut cursor = shared.files_matching(&shared.latest().unwrap(), &predicates).unwrap();
            let origin = cursor.origin().clone();
            let expected = rest(&mut cursor, usize::MAX);
            let mut seen = Vec::new();
            let mut cursor = shared.files_matching(&shared.latest().unwrap(), &predicates).unwrap();
            while cursor.has_more().unwrap() {
                seen.extend(rest(&mut cursor, 97));
                let position = cursor.position();
                assert_eq!(position, seen.len() as u64, "{sql}");
                shared.pause_files(cursor);
                // A cursor of other predicates does not continue this list.
                let mut whole = shared.files_from(&origin, position).unwrap();
                assert!(whole.has_more().unwrap() || position == whole.position());
                shared.pause_files(whole);
                cursor = shared.files_matching_from(&origin, position, &predicates).unwrap();
                let mut elsewhere = other.files_matching_from(&origin, position, &predicates).unwrap();
                assert_eq!(rest(&mut elsewhere, usize::MAX), expected[seen.len()..], "{sql}");
            }
            assert_eq!(seen, expected, "{sql}");
        })
        .await;
    }
}

/// The same rows in groups of 100, each of which has the files of one or two days.
fn in_row_groups(batches: &[RecordBatch]) -> Vec<u8> {
    let all = concat_batches(&batches[0].schema(), batches).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, all.schema(), Some(properties)).unwrap();
    writer.write(&all).unwrap();
    writer.close().unwrap();
    bytes
}

/// Overwrites the paths and the statistics of every row group but the first two with bytes that are no pages.
fn damage(mut file: Vec<u8>) -> Vec<u8> {
    let metadata = SerializedFileReader::new(bytes::Bytes::from(file.clone())).unwrap();
    for group in metadata.metadata().row_groups().iter().skip(2) {
        for column in group.columns() {
            if ["add.path", "add.stats"].contains(&column.column_path().string().as_str()) {
                let (start, length) = column.byte_range();
                file[start as usize..(start + length) as usize].fill(0xff);
            }
        }
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_selected_file_needs_is_not_read() {
    let log = Log::new();
    let days = |range: std::ops::Range<usize>| {
        range
            .map(|n| add_with(&format!("f{n}"), json!({"partitionValues": {"day": format!("d{}", n / 100)}})))
    };
    let head = vec![protocol(1, 2), metadata()];
    log.commit(0, &head.into_iter().chain(days(0..1000)).collect::<Vec<_>>()).await;
    log.checkpoint(None).await;
    let name = checkpoint_name(0);
    let file = damage(in_row_groups(&read_parquet(log.get(&name).await)));
    log.put(&name, file).await;
    // Without the commit, nothing can be read in place of the checkpoint.
    log.delete(&commit_name(0)).await;
    log.commit(1, &[add_with("late", json!({"partitionValues": {"day": "d0"}}))]).await;
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest().unwrap();
        let mut files = table.files_matching(&snapshot, &predicates("day = 'd0'")).unwrap();
        let mut expected: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
        expected.push("late".to_owned());
        let mut found = rest(&mut files, usize::MAX);
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        let mut all = table.files(&snapshot).unwrap();
        let error = loop {
            match all.advance() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the damage went unnoticed"),
                Err(error) => break error,
            }
        };
        assert!(!error.is_temporary());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_that_are_known_to_have_no_selected_file_are_passed_over() {
    let log = Log::new();
    let days = (0..1000)
        .map(|n| add_with(&format!("f{n}"), json!({"partitionValues": {"day": format!("d{}", n / 100)}})));
    log.commit(0, &[protocol(1, 2), metadata()].into_iter().chain(days).collect::<Vec<_>>()).await;
    log.checkpoint(None).await;
    let name = checkpoint_name(0);
    log.put(&name, in_row_groups(&read_parquet(log.get(&name).await))).await;
    let table = log.table();
    blocking(move || {
        let snapshot = table.latest().unwrap();
        let read = |sql: &str| {
            let mut files = table.files_matching(&snapshot, &predicates(sql)).unwrap();
            let left_out = files.left_out();
            (rest(&mut files, usize::MAX).len(), left_out())
        };
        for _ in 0..3 {
            assert_eq!(read("day = 'd0'"), (100, 900));
            assert_eq!(read("day = 'd7' OR day = 'd2'"), (200, 800));
            assert_eq!(read("day = 'd42'"), (0, 1000));
            assert_eq!(read("day IS NOT NULL"), (1000, 0));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_does_not_go_on_in_a_checkpoint_that_was_written_again() {
    let log = Log::new();
    // Larger than what is kept of the end of a checkpoint.
    let stats = json!({"numRecords": 1, "padding": "x".repeat(2_000)}).to_string();
    let adds = (0..1000).map(|n| {
        let stats = format!("{stats}{n:0>500}");
        add_with(&format!("f{n}"), json!({"partitionValues": {"day": format!("d{}", n % 2)}, "stats": stats}))
    });
    log.commit(0, &[protocol(1, 2), metadata()].into_iter().chain(adds).collect::<Vec<_>>()).await;
    log.checkpoint(None).await;
    let name = checkpoint_name(0);
    let batches = read_parquet(log.get(&name).await);
    log.put(&name, in_row_groups(&batches)).await;
    let table = log.table();
    let read_on = table.clone();
    let (origin, position) = blocking(move || {
        let mut files = table.files_matching(&table.latest().unwrap(), &predicates("day = 'd1'")).unwrap();
        assert_eq!(rest(&mut files, 60).len(), 60);
        let place = (files.origin().clone(), files.position());
        table.pause_files(files);
        place
    })
    .await;
    // The same bytes: what tells the files apart is the ETag.
    log.put(&name, in_row_groups(&batches)).await;
    blocking(move || {
        let predicates = predicates("day = 'd1'");
        let mut files = read_on.files_matching_from(&origin, position, &predicates).unwrap();
        let error = loop {
            match files.advance() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the list went on"),
                Err(error) => break error,
            }
        };
        assert!(error.message().contains("was changed while it was read"), "{}", error.message());
    })
    .await;
}
