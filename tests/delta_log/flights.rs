//! Many who ask for one table at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltashare::app::OpenTable;
use deltashare::error::ErrorCode;
use deltashare::gate::Gate;
use deltashare::limits::Limits;
use deltashare::location::Location;

use super::log::*;
use super::rigged::{Fault, Rigged};

/// A log of ten versions, and its table.
async fn table(limits: Limits) -> (Arc<Rigged>, Log, OpenTable) {
    let store = Rigged::new();
    let log = Log::on(store.clone());
    log.commits(10).await;
    store.requests();
    let lane = Gate::new(limits).lane("bucket".to_owned());
    let table = OpenTable::alone(log.table(), lane, Location::Local("/".into()));
    (store, log, table)
}

fn ask(table: &OpenTable) -> tokio::task::JoinHandle<Result<u64, ErrorCode>> {
    let table = table.clone();
    let version = async move { table.latest().await.map(|newest| newest.version()) };
    tokio::spawn(async move { version.await.map_err(|error| error.code()) })
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_requests_open_the_table_once() {
    let (store, _log, table) = table(Limits::default()).await;
    let readers: Vec<_> = (0..50).map(|_| ask(&table)).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), Ok(9));
    }
    // `_last_checkpoint` and ten commits; those who came meanwhile share looks of two requests.
    let (lists, gets) = store.requests();
    assert_eq!(lists, 1);
    assert!((11..=11 + 49 * 2).contains(&gets) && gets % 2 == 1, "{gets}");
}

/// What is on its way when a commit is acknowledged lacks that commit.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_after_a_commit_gets_it_and_looks_are_shared() {
    let (store, log, table) = table(Limits::default()).await;
    table.latest().await.unwrap();
    store.takes.store(10, Ordering::SeqCst);
    store.requests();
    let acknowledged = Arc::new(AtomicU64::new(9));
    let readers: Vec<_> = (0..20)
        .map(|reader| {
            let (table, acknowledged) = (table.clone(), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut asked = 0;
                loop {
                    let known = acknowledged.load(Ordering::SeqCst);
                    let version = match reader % 2 {
                        0 => table.latest().await.unwrap().version(),
                        _ => table.at_version(known).await.unwrap().version(),
                    };
                    assert!(version >= known, "reader {reader} got {version} after {known}");
                    asked += 1;
                    if known == 39 {
                        return asked;
                    }
                }
            })
        })
        .collect();
    for version in 10..40 {
        log.commit(version, &[add(&format!("f{version}"))]).await;
        acknowledged.store(version, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let mut asked = 0;
    for reader in readers {
        asked += reader.await.unwrap();
    }
    let (lists, gets) = store.requests();
    assert!(lists * 2 < asked, "{lists} listings for {asked} requests");
    assert!(gets < asked, "{gets} reads for {asked} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_silent_is_asked_once_and_left_when_nobody_waits() {
    let limits = Limits { table_threads: 1, ..Limits::default() };
    let (store, _log, table) = table(limits).await;
    for known in [false, true] {
        store.fail(Some(Fault::Silent));
        let readers: Vec<_> = (0..200).map(|_| ask(&table)).collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        // An unknown table is listed while `_last_checkpoint` is asked for.
        let looks = if known { (0, 2) } else { (1, 1) };
        assert_eq!(store.requests(), looks, "known: {known}");
        for reader in &readers {
            reader.abort();
        }
        for reader in readers {
            assert!(reader.await.unwrap_err().is_cancelled());
        }
        store.fail(None);
        // The table has one thread, which nobody's request holds any more.
        let again = tokio::time::timeout(Duration::from_secs(5), ask(&table)).await;
        assert_eq!(again.unwrap().unwrap(), Ok(9), "known: {known}");
        store.requests();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_store_is_everybodys_and_is_remembered_for_a_moment() {
    let limits = Limits { unavailable_millis: 500, ..Limits::default() };
    let (store, log, table) = table(limits).await;
    store.fail(Some(Fault::TimedOut));
    let readers: Vec<_> = (0..100).map(|_| ask(&table)).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), Err(ErrorCode::TemporarilyUnavailable));
    }
    store.fail(None);
    let (lists, gets) = store.requests();
    assert!(lists + gets <= 2, "{lists} listings and {gets} reads");
    assert_eq!(ask(&table).await.unwrap(), Err(ErrorCode::TemporarilyUnavailable));
    assert_eq!(store.requests(), (0, 0));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(ask(&table).await.unwrap(), Ok(9));

    // What is wrong with the log is not: it may be put right at any time.
    log.put(&commit_name(10), "damaged").await;
    assert_eq!(ask(&table).await.unwrap(), Err(ErrorCode::UnsupportedOperation));
    log.commit(10, &[add("f10")]).await;
    assert_eq!(ask(&table).await.unwrap(), Ok(10));
}
