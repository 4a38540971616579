//! The commits of a range of versions, one after the other: what a change data feed and a stream read.

use std::collections::BTreeMap;

use buoyant_kernel::Engine as _;
use bytes::Bytes;
use serde::Deserialize;

use super::actions::DeletionVector;
use super::failure::{damaged, failure};
use super::history::CommitTimes;
use super::lenient::{MetadataAction, ProtocolAction};
use super::snapshot::{Metadata, Protocol, Snapshot};
use crate::error::Result;

/// The commits of a range, in order, read as the iterator advances: several are fetched ahead at the same
/// time, one is handed out. It ends after an error.
pub struct Changes {
    commits: std::vec::IntoIter<CommitTimes>,
    texts: Box<dyn Iterator<Item = buoyant_kernel::DeltaResult<Bytes>>>,
    failed: bool,
}

/// One commit of a range.
pub struct Commit {
    /// The version that it made.
    pub version: u64,
    /// When it was made, in milliseconds since the Unix epoch, as [`Snapshot::timestamp`] tells it.
    pub timestamp: i64,
    actions: Vec<Action>,
}

/// An action of a commit, as far as it concerns recipients.
pub enum Action {
    /// A file was added.
    Add(ChangedFile),
    /// A file was removed.
    Remove(ChangedFile),
    /// A file of change data.
    Cdc(ChangedFile),
    /// The metadata changed.
    Metadata(Box<Metadata>),
    /// The protocol changed.
    Protocol(Protocol),
}

/// A file that a commit adds or removes, or that holds its change data.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedFile {
    /// As in the log: a URI, relative to the table's root or absolute.
    pub path: String,
    /// Column names (physical ones where columns are mapped) and values. Absent where a writer left it out of
    /// a `remove`.
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    /// Bytes. Absent where a writer left it out of a `remove`.
    pub size: Option<i64>,
    /// When the file was written, of an `add`.
    pub modification_time: Option<i64>,
    /// When the file was removed, of a `remove`.
    pub deletion_timestamp: Option<i64>,
    /// Whether the action changes rows, rather than only where they lie.
    #[serde(default)]
    pub data_change: bool,
    /// Statistics, JSON, as in the log.
    pub stats: Option<String>,
    deletion_vector: Option<Vector>,
    /// Row tracking: the id of the first row.
    pub base_row_id: Option<i64>,
    /// Row tracking: the version that first added the file.
    pub default_row_commit_version: Option<i64>,
    /// Who clustered the file.
    pub clustering_provider: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    storage_type: String,
    path_or_inline_dv: String,
    offset: Option<i32>,
    size_in_bytes: i32,
    cardinality: i64,
}

impl ChangedFile {
    /// Rows of the file that are deleted.
    pub fn deletion_vector(&self) -> Option<DeletionVector<'_>> {
        self.deletion_vector.as_ref().map(|vector| DeletionVector {
            storage_type: &vector.storage_type,
            path_or_inline_dv: &vector.path_or_inline_dv,
            offset: vector.offset,
            size_in_bytes: vector.size_in_bytes,
            cardinality: vector.cardinality,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    add: Option<ChangedFile>,
    remove: Option<ChangedFile>,
    cdc: Option<ChangedFile>,
    meta_data: Option<MetadataAction>,
    protocol: Option<ProtocolAction>,
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct CommitInfo {
    in_commit_timestamp: Option<i64>,
    operation: Option<String>,
    #[serde(default)]
    operation_metrics: serde_json::Value,
}

impl CommitInfo {
    /// Whether the commit is a merge that changed no row, though it rewrote files.
    fn is_empty_merge(&self) -> bool {
        const ROWS: [&str; 3] = ["numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted"];
        let zero = |name: &&str| match self.operation_metrics.get(name) {
            Some(serde_json::Value::String(text)) => text == "0",
            Some(value) => value.as_u64() == Some(0),
            None => false,
        };
        self.operation.as_deref() == Some("MERGE") && ROWS.iter().all(zero)
    }
}

impl Changes {
    /// The commits from `start` to `end`, both included. `newest` is at `end` or later; it tells the times.
    pub(super) fn new(newest: &Snapshot, start: u64, end: u64) -> Result<Self> {
        let commits = CommitTimes::of_range(newest, start, end)?;
        let files = commits.iter().map(|commit| (commit.url.clone(), None)).collect();
        let texts = newest.engine().storage_handler().read_files(files).map_err(failure)?;
        Ok(Self { commits: commits.into_iter(), texts, failed: false })
    }

    fn read(&mut self, times: &CommitTimes) -> Result<Commit> {
        let text = self.texts.next().ok_or_else(|| damaged("a commit is missing"))?.map_err(failure)?;
        Commit::parse(&text, times)
    }
}

impl Iterator for Changes {
    type Item = Result<Commit>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let times = self.commits.next()?;
        let commit = self.read(&times);
        self.failed = commit.is_err();
        Some(commit)
    }
}

impl Commit {
    fn parse(text: &[u8], times: &CommitTimes) -> Result<Self> {
        let mut actions = Vec::new();
        let mut info = CommitInfo::default();
        let mut lines = 0;
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            lines += 1;
            let line: Line = serde_json::from_slice(line)
                .map_err(|error| damaged("a commit is not JSON").with_source(error))?;
            info = line.commit_info.unwrap_or(info);
            actions.extend(line.add.map(Action::Add));
            actions.extend(line.remove.map(Action::Remove));
            actions.extend(line.cdc.map(Action::Cdc));
            actions.extend(line.meta_data.map(|metadata| Action::Metadata(Box::new(metadata.into()))));
            actions.extend(line.protocol.map(|protocol| Action::Protocol(protocol.into())));
        }
        if lines == 0 {
            return Err(damaged("a commit has no actions"));
        }
        for action in &actions {
            check(action)?;
        }
        if info.is_empty_merge() {
            actions.retain(|action| matches!(action, Action::Metadata(_) | Action::Protocol(_)));
        }
        let timestamp = match times.by_file {
            Some(time) => time,
            None => {
                info.in_commit_timestamp.ok_or_else(|| damaged("a commit lacks its inCommitTimestamp"))?
            }
        };
        Ok(Self { version: times.version, timestamp, actions })
    }

    /// What changed rows: the files of change data where the commit has some, else what it added and removed
    /// with data change. Changes of metadata and protocol come before them.
    pub fn change_data(self) -> impl Iterator<Item = Action> {
        let feed = self.actions.iter().any(|action| matches!(action, Action::Cdc(_)));
        self.in_order(move |action| match action {
            Action::Cdc(_) => true,
            Action::Add(file) | Action::Remove(file) => !feed && file.data_change,
            Action::Metadata(_) | Action::Protocol(_) => true,
        })
    }

    /// What was added and removed with data change. Changes of metadata and protocol come before them.
    pub fn file_changes(self) -> impl Iterator<Item = Action> {
        self.in_order(|action| match action {
            Action::Cdc(_) => false,
            Action::Add(file) | Action::Remove(file) => file.data_change,
            Action::Metadata(_) | Action::Protocol(_) => true,
        })
    }

    fn in_order(mut self, keep: impl Fn(&Action) -> bool) -> impl Iterator<Item = Action> {
        self.actions.retain(keep);
        self.actions.sort_by_key(|action| match action {
            Action::Protocol(_) => 0,
            Action::Metadata(_) => 1,
            Action::Add(_) | Action::Remove(_) | Action::Cdc(_) => 2,
        });
        self.actions.into_iter()
    }
}

fn check(action: &Action) -> Result<()> {
    match action {
        Action::Add(file) | Action::Remove(file) | Action::Cdc(file) => {
            if file.path.is_empty() || file.size.is_some_and(|size| size < 0) {
                return Err(damaged("a file has no path or a negative size"));
            }
            file.deletion_vector().map_or(Ok(()), |vector| vector.check())
        }
        Action::Metadata(_) => Ok(()),
        Action::Protocol(protocol) => protocol.check(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(text: &str) -> Result<Commit> {
        let url = url::Url::parse("memory:///").unwrap();
        Commit::parse(text.as_bytes(), &CommitTimes { version: 7, url, by_file: Some(1) })
    }

    fn paths(actions: impl Iterator<Item = Action>) -> Vec<String> {
        let path = |action| match action {
            Action::Add(file) => format!("+{}", file.path),
            Action::Remove(file) => format!("-{}", file.path),
            Action::Cdc(file) => format!("~{}", file.path),
            Action::Metadata(_) => "metadata".to_owned(),
            Action::Protocol(_) => "protocol".to_owned(),
        };
        actions.map(path).collect()
    }

    const ADD: &str =
        r#"{"add":{"path":"a","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true}}"#;
    const REMOVE: &str = r#"{"remove":{"path":"r","dataChange":true}}"#;
    const CDC: &str = r#"{"cdc":{"path":"c","partitionValues":{},"size":1,"dataChange":false}}"#;
    const MOVED: &str =
        r#"{"add":{"path":"m","partitionValues":{},"size":1,"modificationTime":1,"dataChange":false}}"#;

    #[test]
    fn change_data_stands_for_the_files_of_its_commit() {
        let text = [ADD, REMOVE, MOVED, CDC].join("\n");
        assert_eq!(paths(commit(&text).unwrap().change_data()), ["~c"]);
        assert_eq!(paths(commit(&text).unwrap().file_changes()), ["+a", "-r"]);
        let text = [ADD, REMOVE, MOVED].join("\n");
        assert_eq!(paths(commit(&text).unwrap().change_data()), ["+a", "-r"]);
    }

    #[test]
    fn a_merge_that_changed_nothing_gives_nothing() {
        let info = |inserted: &str| {
            format!(
                r#"{{"commitInfo":{{"operation":"MERGE","operationMetrics":{{"numTargetRowsInserted":"{inserted}","numTargetRowsUpdated":"0","numTargetRowsDeleted":"0"}}}}}}"#
            )
        };
        let text = |inserted| [info(inserted).as_str(), ADD, REMOVE].join("\n");
        assert!(paths(commit(&text("0")).unwrap().change_data()).is_empty());
        assert_eq!(paths(commit(&text("1")).unwrap().change_data()), ["+a", "-r"]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let long = r#"{"add":{"path":"","partitionValues":{},"size":1,"dataChange":true}}"#;
        let negative = r#"{"add":{"path":"a","partitionValues":{},"size":-1,"dataChange":true}}"#;
        let unknown = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["no"],"writerFeatures":["no"]}}"#;
        for text in ["", "\n", "{", &ADD[..40], long, negative, unknown] {
            assert!(commit(text).is_err(), "{text}");
        }
    }
}
