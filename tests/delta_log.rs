//! Reads Delta logs made by hand: whole ones of every kind, damaged ones, hostile ones. Each test knows the
//! exact files or the exact error.

#[path = "delta_log/log.rs"]
mod log;

use log::*;

const DAMAGED: &str = "The table cannot be read: its Delta log is damaged or incomplete.";
const MISSING: &str = "The table cannot be read: table files missing.";

#[tokio::test(flavor = "multi_thread")]
async fn json_commits() {
    let log = Log::new();
    log.commits(3).await;
    log.commit(3, &[remove("f1"), add("f3")]).await;
    assert_eq!(read(&log).await.unwrap(), (3, vec!["f0".into(), "f2".into(), "f3".into()]));
}
