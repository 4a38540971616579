//! What the server asks S3 to find out whether a table that it knows has changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use buoyant_kernel::object_store::ObjectStore;
use deltashare::delta::DeltaTable;
use deltashare::error::{Error, ErrorCode, Result};
use deltashare::limits::Limits;

use super::log::*;
use super::rigged::{Fault, Rigged};
use super::{DAMAGED, EMPTY, NO_LOG};

/// A log of five versions whose newest one is known, and what its store has been asked since.
async fn known() -> (Arc<Rigged>, Log, DeltaTable) {
    known_with(Limits::default()).await
}

async fn known_with(limits: Limits) -> (Arc<Rigged>, Log, DeltaTable) {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits(5).await;
    let table = log.table_with(limits);
    assert_eq!(newest(&table).await.unwrap(), (4, files(0..5)));
    store.requests();
    (store, log, table)
}

async fn newest(table: &DeltaTable) -> Result<(u64, Vec<String>)> {
    let table = table.clone();
    blocking(move || table.latest().and_then(|newest| Ok((newest.version(), paths(&newest)?)))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_new_commits_takes_two_requests_and_no_listing() {
    let (store, log, table) = known().await;
    for version in 5..9 {
        for _ in 0..3 {
            assert_eq!(newest(&table).await.unwrap(), (version - 1, files(0..version)));
            assert_eq!(store.requests(), (0, 2));
        }
        log.write(&[add(&format!("f{version}"))]).await;
        store.requests();
        // A new commit is read once, and only a listing says that it is the last one.
        assert_eq!(newest(&table).await.unwrap(), (version, files(0..version + 1)));
        assert_eq!(store.requests(), (1, 2));
    }
    // Neither are commits.
    log.put("00000000000000000001.00000000000000000002.compacted.json", lines(&[add("f1"), add("f2")])).await;
    log.put("00000000000000000008.crc", "{}").await;
    assert_eq!(newest(&table).await.unwrap(), (8, files(0..9)));
    assert_eq!(store.requests(), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_requests_run_at_the_same_time() {
    let (store, _log, table) = known().await;
    store.takes.store(50, Ordering::SeqCst);
    store.most_at_once.store(0, Ordering::SeqCst);
    assert_eq!(newest(&table).await.unwrap().0, 4);
    assert_eq!(store.requests(), (0, 2));
    assert_eq!(store.most_at_once.load(Ordering::SeqCst), 2);
}

/// With a checkpoint of the newest version, none of its commits is read.
#[tokio::test(flavor = "multi_thread")]
async fn the_commit_of_a_checkpoint_is_looked_at() {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits(5).await;
    log.checkpoint(None).await;
    let table = log.table();
    for (version, looks) in [(4, (0, 2)), (5, (1, 2))] {
        newest(&table).await.unwrap();
        store.requests();
        if version == 5 {
            log.write(&[add("f5")]).await;
            store.requests();
        }
        assert_eq!(newest(&table).await.unwrap(), (version, files(0..version + 1)));
        assert_eq!(store.requests(), looks);
    }
    // Without its commit, there is nothing to compare.
    log.checkpoint(None).await;
    for version in 0..6 {
        log.delete(&commit_name(version)).await;
    }
    let table = log.table();
    for _ in 0..2 {
        assert_eq!(newest(&table).await.unwrap(), (5, files(0..6)));
    }
    let (lists, _) = store.requests();
    assert!(lists >= 2);
}

/// The times of all files are in the same second, which is all that HTTP tells of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_created_again_is_noticed() {
    for (whole_seconds, untagged) in [(false, false), (true, false), (true, true)] {
        for versions in [3_u64, 4, 5, 6, 9] {
            let store = Rigged::new();
            let log = Log::on(store.clone());
            log.commits_by_hand(5).await;
            for version in 0..5 {
                store.date(&commit_name(version), 5_100 + i64::try_from(version).unwrap());
            }
            store.whole_seconds.store(whole_seconds, Ordering::SeqCst);
            store.untagged.store(untagged, Ordering::SeqCst);
            let table = log.table();
            for _ in 0..2 {
                assert_eq!(newest(&table).await.unwrap(), (4, files(0..5)));
            }
            for version in 0..5 {
                log.delete(&commit_name(version)).await;
            }
            // Commits of the same sizes.
            for version in 0..versions {
                let mut actions = actions_of(version);
                actions.pop();
                actions.push(add(&format!("g{version}")));
                log.commit(version, &actions).await;
                store.date(&commit_name(version), 5_200 + i64::try_from(version).unwrap());
            }
            let expected = (0..versions).map(|version| format!("g{version}")).collect();
            let case = format!("{versions} versions, whole seconds: {whole_seconds}, untagged: {untagged}");
            assert_eq!(newest(&table).await.unwrap(), (versions - 1, expected), "{case}");
        }
    }
}

/// Only a listing tells these from others if its times are finer than those of HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn times_to_the_second_suffice_with_an_etag() {
    for (untagged, millis, looks) in [(false, 100, (0, 2)), (true, 100, (1, 1)), (true, 0, (0, 2))] {
        let store = Rigged::new();
        let log = Log::on(store.clone());
        log.commits(5).await;
        store.date(&commit_name(4), 5_000 + millis);
        store.whole_seconds.store(true, Ordering::SeqCst);
        store.untagged.store(untagged, Ordering::SeqCst);
        let table = log.table();
        for _ in 0..3 {
            assert_eq!(newest(&table).await.unwrap().0, 4);
            store.requests();
        }
        assert_eq!(newest(&table).await.unwrap().0, 4);
        let (lists, gets) = store.requests();
        assert_eq!(lists, looks.0, "untagged: {untagged}, {millis} ms");
        assert!(gets >= looks.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_commit_that_was_deleted_is_noticed() {
    let (_store, log, table) = known().await;
    log.delete(&commit_name(4)).await;
    assert_eq!(newest(&table).await.unwrap(), (3, files(0..4)));
    for version in 0..4 {
        log.delete(&commit_name(version)).await;
    }
    assert_eq!(refusal(newest(&table).await), NO_LOG);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_commit_that_cannot_be_read_is_an_error_at_once() {
    let (_store, log, table) = known().await;
    for (text, error) in [("", EMPTY), ("{", DAMAGED)] {
        log.put(&commit_name(5), text).await;
        assert_eq!(refusal(newest(&table).await), error);
    }
    log.delete(&commit_name(5)).await;
    assert_eq!(newest(&table).await.unwrap(), (4, files(0..5)));
}

// ---------------------------------------------------------------------------------------------------------
// What two files do not tell

/// Waits until the last listing is more than a second old, so that the log is listed again.
async fn wait() {
    tokio::time::sleep(Duration::from_millis(1_200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_noticed_with_the_next_listing() {
    let (store, log, table) = known_with(Limits { log_listing_seconds: 1, ..Limits::default() }).await;
    let checkpoint = || {
        let table = table.clone();
        blocking(move || table.latest().unwrap().commits_since_checkpoint())
    };
    log.checkpoint(None).await;
    wait().await;
    store.requests();
    assert_eq!(checkpoint().await, 0);
    assert_eq!(store.requests().0, 1);
    assert_eq!(checkpoint().await, 0);
    assert_eq!(store.requests(), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_noticed_with_the_next_listing() {
    let (store, log, table) = known_with(Limits { log_listing_seconds: 1, ..Limits::default() }).await;
    log.commit(6, &[add("f6")]).await;
    wait().await;
    assert_eq!(refusal(newest(&table).await), DAMAGED);
    // An error is not a listing of a log that is whole.
    assert_eq!(refusal(newest(&table).await), DAMAGED);
    log.commit(5, &[add("f5")]).await;
    assert_eq!(newest(&table).await.unwrap(), (6, files(0..7)));
    assert!(store.requests().0 >= 3);
}

/// Whoever knows of a version behind the gap is not told that it does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_behind_a_gap() {
    let (_store, log, table) = known().await;
    log.commit(6, &[add("f6")]).await;
    let ask = |version| {
        let table = table.clone();
        blocking(move || table.at_version(version).and_then(|snapshot| paths(&snapshot)))
    };
    assert_eq!(refusal(ask(6).await), DAMAGED);
    let missing = "Cannot load table version 7, because it does not exist or is no longer available. The available \
                   versions are 0 to 6.";
    assert_eq!(refusal(ask(7).await), missing);
    log.commit(5, &[add("f5")]).await;
    assert_eq!(ask(6).await.unwrap(), files(0..7));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_can_be_a_listing() {
    let (store, _log, table) = known_with(Limits { log_listing_seconds: 0, ..Limits::default() }).await;
    assert_eq!(newest(&table).await.unwrap().0, 4);
    assert_eq!(store.requests(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_listed() {
    let store = Rigged::new();
    let behind = Arc::clone(&store.inner) as Arc<dyn ObjectStore>;
    let log = Log { behind, ..Log::at(store.clone(), "local:///tables/t/") };
    log.commits(5).await;
    let table = log.table();
    newest(&table).await.unwrap();
    store.requests();
    assert_eq!(newest(&table).await.unwrap().0, 4);
    assert_eq!(store.requests(), (1, 0));
}

// ---------------------------------------------------------------------------------------------------------
// The store refuses, or fails

#[tokio::test(flavor = "multi_thread")]
async fn where_a_missing_file_is_forbidden_the_log_is_listed() {
    let (store, log, table) = known().await;
    store.hides_missing.store(true, Ordering::SeqCst);
    assert_eq!(newest(&table).await.unwrap(), (4, files(0..5)));
    assert_eq!(store.requests().0, 1);
    log.write(&[add("f5")]).await;
    assert_eq!(newest(&table).await.unwrap(), (5, files(0..6)));
    // What is hidden like this is never taken for what is not there.
    log.commit(6, &[add("f6")]).await;
    store.refused.lock().unwrap().insert(commit_name(6));
    let error = newest(&table).await.unwrap_err();
    assert!(is_denied(&error), "{error:?}");
    store.refused.lock().unwrap().clear();
    // Without the permission to list, the listing says so, as for a table that is not known.
    store.refuses_lists.store(true, Ordering::SeqCst);
    let told = newest(&log.table()).await.unwrap_err();
    let error = newest(&table).await.unwrap_err();
    assert!(is_denied(&told) && is_denied(&error), "{error:?}");
}

fn is_denied(error: &Error) -> bool {
    error.code() == ErrorCode::UnsupportedOperation && error.message().contains("permission denied")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_commit_that_may_not_be_read_any_more_is_listed() {
    let (store, _log, table) = known().await;
    store.refused.lock().unwrap().insert(commit_name(4));
    assert_eq!(newest(&table).await.unwrap(), (4, files(0..5)));
    assert_eq!(store.requests().0, 1);
    store.refused.lock().unwrap().clear();
    store.fail(Some(Fault::Once));
    assert_eq!(newest(&table).await.unwrap(), (4, files(0..5)));
    assert!(store.has_failed());
}

/// Asked for files, and not for a listing as well, which would take as long again.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_unavailable() {
    for fault in [Fault::Throttled, Fault::TimedOut] {
        let (store, log, table) = known().await;
        store.fail(Some(fault));
        let told = newest(&log.table()).await.unwrap_err();
        store.requests();
        let error = newest(&table).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::TemporarilyUnavailable);
        assert_eq!((error.code(), error.message()), (told.code(), told.message()));
        assert_eq!(store.requests(), (0, 2));
        store.fail(None);
        log.write(&[add("f5")]).await;
        assert_eq!(newest(&table).await.unwrap(), (5, files(0..6)));
    }
}
