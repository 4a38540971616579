//! Lists of files and of changes that are read in pieces.

use std::sync::Arc;

use deltashare::delta::{
    Action, Change, ChangeCursor, ChangeKind, ChangePosition, ChangeRange, DeltaTable, FileCursor, Origin,
};
use deltashare::error::Result;
use serde_json::json;

use crate::large_log;
use crate::log::{Log, actions_of, add, add_with, blocking, commit_name};
use crate::rigged::{Fault, Rigged};

const TOTAL: usize = 20_000;

/// The next files, at most `most` of them.
fn take(cursor: &mut FileCursor, most: usize) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    while paths.len() < most {
        let Some(file) = cursor.advance()? else { break };
        paths.push(file.path.to_owned());
    }
    Ok(paths)
}

fn whole(table: &DeltaTable) -> (Vec<String>, Origin) {
    let mut cursor = table.files(&table.latest().unwrap()).unwrap();
    let paths = take(&mut cursor, usize::MAX).unwrap();
    (paths, cursor.origin().clone())
}

/// A large checkpoint, and two commits after it.
async fn log(store: &Arc<Rigged>) -> Log {
    let (log, _) = large_log(store).await;
    log.commit(1, &[add("late-1"), add("late-2")]).await;
    log.commit(2, &[add("late-3")]).await;
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pages_go_on_where_the_one_before_ended() {
    let store = Rigged::new();
    let log = log(&store).await;
    let table = log.table();
    blocking(move || {
        let (expected, origin) = whole(&table);
        assert_eq!(expected.len(), TOTAL + 3);
        let mut seen = Vec::new();
        let mut cursor = table.files(&table.latest().unwrap()).unwrap();
        loop {
            seen.extend(take(&mut cursor, 997).unwrap());
            assert_eq!(cursor.position(), seen.len() as u64);
            if !cursor.has_more().unwrap() {
                break;
            }
            table.pause_files(cursor);
            store.requests();
            cursor = table.files_from(&origin, seen.len() as u64).unwrap();
            assert_eq!(store.requests(), (0, 0), "a page asks the store again");
        }
        assert_eq!(seen, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn any_process_finds_any_place() {
    let store = Rigged::new();
    let log = log(&store).await;
    let table = log.table();
    let (expected, origin) = blocking(move || whole(&table)).await;
    for position in [0, 1, 2, 3, 4, 4096, 4099, 5000, TOTAL, TOTAL + 2, TOTAL + 3] {
        let (table, origin, expected) = (log.table(), origin.clone(), expected.clone());
        blocking(move || {
            let mut cursor = table.files_from(&origin, position as u64).unwrap();
            assert_eq!(take(&mut cursor, usize::MAX).unwrap(), expected[position..], "{position}");
            assert!(table.files_from(&origin, TOTAL as u64 + 4).is_err());
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_page_can_be_asked_for_again() {
    let store = Rigged::new();
    let log = log(&store).await;
    let table = log.table();
    blocking(move || {
        let (expected, origin) = whole(&table);
        let mut cursor = table.files_from(&origin, 6000).unwrap();
        assert_eq!(take(&mut cursor, 10).unwrap(), expected[6000..6010]);
        table.pause_files(cursor);
        store.requests();
        for position in [6000, 6005, 5000] {
            let mut cursor = table.files_from(&origin, position as u64).unwrap();
            assert_eq!(take(&mut cursor, 10).unwrap(), expected[position..position + 10]);
            table.pause_files(cursor);
        }
        assert_eq!(store.requests(), (0, 0));
        // Further back, the log is read again.
        let mut cursor = table.files_from(&origin, 0).unwrap();
        assert_eq!(take(&mut cursor, 10).unwrap(), expected[..10]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_newer_checkpoint_does_not_change_the_order() {
    let store = Rigged::new();
    let log = log(&store).await;
    let table = log.table();
    let (expected, origin) = blocking(move || whole(&table)).await;
    assert_eq!((origin.version, origin.checkpoint), (2, Some(0)));
    log.checkpoint(None).await;
    log.commit(3, &[add("later")]).await;
    let table = log.table();
    let (other, newer) = blocking({
        let table = table.clone();
        move || whole(&table)
    })
    .await;
    assert_eq!((newer.version, newer.checkpoint), (3, Some(2)));
    assert_eq!(other.len(), TOTAL + 4);
    let again = origin.clone();
    blocking(move || {
        let mut cursor = table.files_from(&again, 2).unwrap();
        assert_eq!(take(&mut cursor, usize::MAX).unwrap(), expected[2..]);
    })
    .await;
    // Without its checkpoint the list cannot be told to be the same.
    log.delete(&format!("{:020}.checkpoint.parquet", 0)).await;
    log.delete(&commit_name(0)).await;
    let table = log.table();
    let error = blocking(move || table.files_from(&origin, 2).err().unwrap()).await;
    assert!(error.message().contains("Please restart the query") || error.message().contains("Cannot load"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_broke_while_a_list_was_paused_is_read_again() {
    let store = Rigged::new();
    let log = log(&store).await;
    let table = log.table();
    blocking(move || {
        let (expected, origin) = whole(&table);
        let mut cursor = table.files_from(&origin, 0).unwrap();
        assert_eq!(take(&mut cursor, 2).unwrap(), expected[..2]);
        store.fail(Some(Fault::Once));
        // A cursor that was not paused fails if the store does.
        assert!(take(&mut cursor, usize::MAX).is_err());
        store.fail(None);
        let mut cursor = table.files_from(&origin, 0).unwrap();
        assert_eq!(take(&mut cursor, 2).unwrap(), expected[..2]);
        table.pause_files(cursor);
        store.fail(Some(Fault::Once));
        let mut cursor = table.files_from(&origin, 2).unwrap();
        assert_eq!(take(&mut cursor, usize::MAX).unwrap(), expected[2..]);
        assert!(store.has_failed());
    })
    .await;
}

/// The changes of a range, from the first one on.
fn changes(table: &DeltaTable, range: &Arc<ChangeRange>) -> ChangeCursor {
    table.survey(range, ChangeKind::Files, None, &mut |_| Ok(())).unwrap().changes
}

fn range(table: &DeltaTable, start: u64, end: u64) -> Arc<ChangeRange> {
    Arc::new(table.change_range(&table.latest().unwrap(), start, end).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pages_of_changes() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    let many: Vec<_> = (0..50).map(|n| add(&format!("many-{n}"))).collect();
    for version in 0..150 {
        match version {
            7 => log.commit(7, &many).await,
            8 => log.commit(8, &[add_with("moved", json!({"dataChange": false}))]).await,
            version => log.commit(version, &actions_of(version)).await,
        }
    }
    let table = log.table();
    blocking(move || {
        let range = range(&table, 3, 140);
        let path = |action: &Action| match action {
            Action::Add(file) => file.path.clone(),
            _ => unreachable!("only files were added"),
        };
        let read = |size: usize, fresh: bool, fault: Option<Fault>| {
            let mut seen = Vec::new();
            store.fail(None);
            let mut cursor = changes(&table, &range);
            loop {
                for _ in 0..size {
                    let Some(change) = cursor.advance().unwrap() else { break };
                    assert!((3..=140).contains(&change.version));
                    seen.push(path(change.action));
                }
                if !cursor.has_more().unwrap() {
                    return seen;
                }
                let position = cursor.position().unwrap();
                table.pause_changes(cursor);
                store.requests();
                store.fail(fault);
                let resumed = table.resume_changes(range.bounds(), ChangeKind::Files, position);
                assert!(resumed.is_some());
                assert_eq!(store.requests(), (0, 0));
                cursor = match fresh {
                    false => resumed.unwrap(),
                    true => table.changes_from(&range, ChangeKind::Files, position).unwrap(),
                };
            }
        };
        let whole = read(usize::MAX, false, None);
        assert_eq!(whole.len(), 138 - 2 + 50);
        for size in [1, 7, 49, 51, 100] {
            assert_eq!(read(size, false, None), whole, "{size}");
            assert_eq!(read(size, true, None), whole, "{size}");
            assert_eq!(read(size, false, Some(Fault::Once)), whole, "{size}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_a_range_are_fetched_together_and_not_all_at_once() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits_by_hand(200).await;
    // So that the newest version is known without the commits.
    log.checkpoint(None).await;
    let table = log.table();
    blocking(move || {
        let range = range(&table, 0, 199);
        store.requests();
        let start = ChangePosition { version: 0, action: 0 };
        let mut cursor = table.changes_from(&range, ChangeKind::Files, start).unwrap();
        cursor.advance().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (lists, gets) = store.requests();
        assert_eq!(lists, 0);
        assert!((10..100).contains(&gets), "{gets}");
        let mut rest = 1;
        while cursor.advance().unwrap().is_some() {
            rest += 1;
        }
        // A file of each commit, and the first one's protocol and metadata.
        assert_eq!(rest, 202);
        // The first one was read to open the range.
        assert_eq!(gets + store.requests().1, 199);
        // A survey keeps what it reads for the answer.
        let mut surveyed = 0;
        let mut count = |_: &Change<'_>| {
            surveyed += 1;
            Ok(())
        };
        let mut survey = table.survey(&range, ChangeKind::Files, None, &mut count).unwrap();
        while survey.changes.advance().unwrap().is_some() {}
        assert_eq!((surveyed, store.requests()), (202, (0, 0)));
    })
    .await;
}
