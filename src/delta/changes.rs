//! The commits of a range of versions, one after the other: what a change data feed and a stream read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use buoyant_kernel::FileMeta;
use serde::{Deserialize, Serialize};

use super::batch::{DeletionVector, no_size};
use super::deletion_vector::FileKey;
use super::executor::batch_is_decoded;
use super::failure::{damaged, empty_commit, failure};
use super::history::CommitTimes;
use super::kept_commits::{CommitKeeper, KeptCommits};
use super::log_store::{COMMIT_BYTES, JSON_FACTOR};
use super::mend::{lines_of, mend, read};
use super::metadata::{Metadata, Protocol};
use super::read_ahead::ReadAhead;
use super::snapshot::Snapshot;
use super::stand_in::{MetadataAction, ProtocolAction};
use crate::error::{Error, Result};
use crate::predicate::{BoundAccess, FileAccess};

/// A range of versions, opened: both ends can be read.
#[derive(Debug)]
pub struct ChangeRange {
    /// The table at the first version of the range.
    pub first: Arc<Snapshot>,
    /// The table at the last version of the range, which is part of it.
    pub last: Arc<Snapshot>,
    pub(super) commits: Vec<CommitTimes>,
}

/// The first and the last version of a range, both part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBounds {
    /// The first version.
    #[serde(rename = "s")]
    pub start: u64,
    /// The last version.
    #[serde(rename = "e")]
    pub end: u64,
}

impl ChangeRange {
    /// `files` are those of the log. Fails if a commit of the range is missing.
    pub(super) fn new(
        newest: &Snapshot,
        first: Arc<Snapshot>,
        last: Arc<Snapshot>,
        files: Vec<FileMeta>,
    ) -> Result<Self> {
        let commits = CommitTimes::of_range(newest, files, first.version(), last.version())?;
        Ok(Self { first, last, commits })
    }

    /// The versions of the range.
    pub fn bounds(&self) -> ChangeBounds {
        ChangeBounds { start: self.first.version(), end: self.last.version() }
    }
}

/// What is wanted of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// What changed rows: the files of change data if a commit has some, else what it added and removed
    /// with data change.
    Data,
    /// What was added and removed with data change.
    Files,
    /// What was added and removed, also by a commit that only moved rows.
    AllFiles,
}

/// A place in a range of changes: an action of a commit, among those that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangePosition {
    /// The version of the commit.
    #[serde(rename = "v")]
    pub version: u64,
    /// How many wanted actions of the commit come before it.
    #[serde(rename = "a")]
    pub action: usize,
}

/// The changes of a range, in order: several commits are fetched ahead at the same time, one is in memory.
/// After an error it must not be used again.
pub struct ChangeCursor {
    range: Arc<ChangeRange>,
    kind: ChangeKind,
    commits: std::vec::IntoIter<CommitTimes>,
    /// The texts of the commits that come next, as far as they are in memory.
    kept: KeptCommits,
    /// The texts of the commits after those.
    texts: ReadAhead,
    /// What removals do not tell of their files.
    removed: Arc<RemovedFiles>,
    /// Which files may be read. It is the same for every version of the range.
    access: Arc<BoundAccess>,
    commit: Option<Commit>,
    /// The action of the commit that comes next.
    next: usize,
    /// Whether the cursor lay idle, so that what it reads from may be gone.
    idle: bool,
    /// What keeps the texts that were read, if they are kept.
    keeping: Option<CommitKeeper>,
}

/// What is known of files whose removal does not tell it.
#[derive(Debug, Default)]
pub(super) struct RemovedFiles {
    /// Whether a version of the range has partition columns.
    pub(super) partitioned: bool,
    pub(super) files: HashMap<FileKey, RemovedFile>,
}

/// What a paused cursor keeps of a commit that it has not read.
const COMMIT_BYTES_KEPT: usize = 300;

impl RemovedFiles {
    /// About how many bytes of memory it takes.
    fn kept_bytes(&self) -> usize {
        self.files.len() * 400
    }

    /// Nothing is known yet, so nothing is completed.
    pub(super) fn unknown() -> Arc<Self> {
        Arc::new(Self { partitioned: true, files: HashMap::new() })
    }
}

/// What an `add` says of a file.
#[derive(Debug, Clone)]
pub(super) struct RemovedFile {
    pub(super) size: i64,
    pub(super) partition_values: BTreeMap<String, Option<String>>,
}

/// One commit of a range.
struct Commit {
    version: u64,
    /// The length of its text.
    bytes: usize,
    timestamp: i64,
    /// Those that are wanted: changes of the protocol first, then of the metadata, then files.
    actions: Vec<Action>,
}

/// An action of a range of changes.
pub struct Change<'a> {
    /// The version of its commit.
    pub version: u64,
    /// When the commit was created, in milliseconds since the Unix epoch, as [`Snapshot::timestamp`] gives it.
    pub timestamp: i64,
    /// What it says.
    pub action: &'a Action,
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
    /// Column names (physical ones if columns are mapped) and values. Absent if a writer left it out of
    /// a `remove`.
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    /// Bytes. Absent if a writer left it out of a `remove`.
    pub size: Option<i64>,
    /// When the file was written, of an `add`.
    pub modification_time: Option<i64>,
    /// When the file was removed, of a `remove`.
    pub deletion_timestamp: Option<i64>,
    /// Whether the action changes rows, rather than only their location. If absent, it is true of a `remove`, as
    /// Spark reads it.
    pub data_change: Option<bool>,
    /// Statistics, JSON, as in the log.
    pub stats: Option<String>,
    /// What its writer says of the file.
    pub tags: Option<BTreeMap<String, Option<String>>>,
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

#[derive(Deserialize, Default)]
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
    /// Of any type: it only informs, and readers of the table do not look at it.
    #[serde(default)]
    operation: serde_json::Value,
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
        self.operation == "MERGE" && ROWS.iter().all(zero)
    }
}

impl ChangedFile {
    pub(super) fn key(&self) -> FileKey {
        (self.path.clone(), self.vector_id())
    }

    fn vector_id(&self) -> Option<String> {
        self.deletion_vector().map(|vector| vector.unique_id())
    }

    /// Whether the action says what a recipient needs of the file.
    pub(super) fn is_complete(&self, partitioned: bool) -> bool {
        self.size.is_some() && (self.partition_values.is_some() || !partitioned)
    }

    /// Whether the file may be read, by the partition values that the action has.
    pub(super) fn may_be_read(&self, access: &BoundAccess) -> bool {
        access.allows(|name| self.partition_values.as_ref()?.get(name).map(Option::as_deref))
    }

    /// Whether a removal lacks the value of a column that the filters read, so that they cannot judge it. A recipient that
    /// has the file must not miss its removal.
    pub(super) fn hides_whether_it_may_be_read(&self, access: &BoundAccess) -> bool {
        let lacks = |values: &BTreeMap<String, Option<String>>| {
            access.columns().any(|column| !values.contains_key(column))
        };
        self.partition_values.as_ref().is_some_and(lacks)
    }

    /// Adds what the action leaves out, from what is known of the file.
    fn complete(&mut self, removed: &RemovedFiles) {
        if !self.is_complete(removed.partitioned)
            && let Some(known) = removed.files.get(&self.key())
        {
            self.size.get_or_insert(known.size);
            self.partition_values.get_or_insert_with(|| known.partition_values.clone());
        }
        if !removed.partitioned {
            self.partition_values.get_or_insert_default();
        }
    }
}

impl ChangeCursor {
    pub(super) fn new(
        range: &Arc<ChangeRange>,
        kind: ChangeKind,
        position: Option<ChangePosition>,
        kept: KeptCommits,
        removed: Arc<RemovedFiles>,
        access: Arc<BoundAccess>,
    ) -> Result<Self> {
        let start = range.bounds().start;
        let position = position.unwrap_or(ChangePosition { version: start, action: 0 });
        let commits = range.commits.iter().filter(|commit| commit.version >= position.version);
        let commits: Vec<CommitTimes> = commits.cloned().collect();
        let files = commits.iter().skip(kept.len()).map(|commit| commit.file.clone()).collect();
        let texts = range.last.engine().read_ahead(files).map_err(failure)?;
        Ok(Self {
            range: Arc::clone(range),
            kind,
            commits: commits.into_iter(),
            kept,
            texts,
            removed,
            access,
            commit: None,
            next: position.action,
            idle: false,
            keeping: None,
        })
    }

    /// Keeps the texts that are read from now on, as far as there is room.
    pub(super) fn keep_commits(&mut self, kept: CommitKeeper) {
        self.keeping = Some(kept);
    }

    /// The texts that were kept.
    pub(super) fn into_kept(self) -> KeptCommits {
        self.keeping.map(CommitKeeper::into_kept).unwrap_or_default()
    }

    /// How many bytes of the log the cursor holds: the actions of a commit, and as much again for its text.
    pub fn held_bytes(&self) -> usize {
        self.commit.as_ref().map_or(0, |commit| commit.bytes.saturating_mul(2))
    }

    /// About how many bytes of memory it takes while it is paused.
    pub(super) fn kept_bytes(&self) -> usize {
        let commits = self.range.commits.len() + self.commits.len();
        size_of::<Self>() + self.held_bytes() + commits * COMMIT_BYTES_KEPT + self.removed.kept_bytes()
    }

    /// Which files the cursor gives.
    pub(super) fn access(&self) -> &FileAccess {
        self.access.access()
    }

    /// The range that the changes are of.
    pub fn range(&self) -> &Arc<ChangeRange> {
        &self.range
    }

    /// The next change; `None` only if the list is complete.
    pub fn advance(&mut self) -> Result<Option<Change<'_>>> {
        if !self.find()? {
            return Ok(None);
        }
        self.next += 1;
        let next = self.next - 1;
        Ok(self.commit.as_ref().and_then(|commit| {
            let action = commit.actions.get(next)?;
            Some(Change { version: commit.version, timestamp: commit.timestamp, action })
        }))
    }

    /// Where the next change is; `None` at the end. Known if it has been looked for.
    pub fn position(&self) -> Option<ChangePosition> {
        let commit = self.commit.as_ref()?;
        Some(ChangePosition { version: commit.version, action: self.next })
    }

    /// Whether another change follows.
    pub fn has_more(&mut self) -> Result<bool> {
        self.find()
    }

    /// Moves to the next commit with a wanted action, if the current one is used up; `false` at the end.
    fn find(&mut self) -> Result<bool> {
        while self.commit.as_ref().is_none_or(|commit| commit.actions.len() <= self.next) {
            if self.commit.take().is_some() {
                self.next = 0;
            }
            let Some(times) = self.commits.next() else { return Ok(false) };
            // A commit is read as a whole.
            if times.file.size > COMMIT_BYTES {
                self.range.last.engine().wait_for_memory(times.file.size.saturating_mul(JSON_FACTOR))?;
            }
            let text = match self.kept.next().map(Ok).or_else(|| self.texts.next()) {
                Some(Ok(text)) => text,
                Some(Err(error)) if self.idle => {
                    tracing::info!(error = %error, "paused changes are read again");
                    let position = ChangePosition { version: times.version, action: self.next };
                    *self = Self::new(
                        &self.range,
                        self.kind,
                        Some(position),
                        KeptCommits::default(),
                        Arc::clone(&self.removed),
                        Arc::clone(&self.access),
                    )?;
                    continue;
                }
                Some(Err(error)) => return Err(error),
                None => return Err(damaged("a commit is missing")),
            };
            if let Some(kept) = &mut self.keeping {
                kept.keep(&text);
            }
            let commit = Commit::parse(&text, &times, self.kind, &self.removed);
            batch_is_decoded();
            let mut commit = commit?;
            if !self.access.allows_everything() {
                commit.leave_out(&self.access);
            }
            self.commit = Some(commit);
        }
        Ok(true)
    }

    /// Whether the cursor is in this range and has read the commit of this position.
    pub(super) fn suits(&self, bounds: ChangeBounds, kind: ChangeKind, position: ChangePosition) -> bool {
        self.kind == kind
            && self.range.bounds() == bounds
            && self.commit.as_ref().is_some_and(|commit| commit.version == position.version)
    }

    /// Moves within the current commit.
    pub(super) fn seek(&mut self, action: usize) {
        self.next = action;
    }

    /// Commits that are kept for an answer that continues are not kept for one that may never continue.
    pub(super) fn pause(&mut self) {
        self.idle = true;
        if self.kept.len() > 0 {
            let files = self.commits.as_slice().iter().map(|commit| commit.file.clone()).collect();
            // If that fails, the texts stay where they are, and the next page says what is wrong.
            if let Ok(texts) = self.range.last.engine().read_ahead(files) {
                (self.texts, self.kept) = (texts, KeptCommits::default());
            }
        }
    }
}

impl Commit {
    fn parse(text: &[u8], times: &CommitTimes, kind: ChangeKind, removed: &RemovedFiles) -> Result<Self> {
        let mut actions = Vec::new();
        let mut info = CommitInfo::default();
        let mut lines = 0;
        for line in lines_of(text) {
            lines += 1;
            let line = match serde_json::from_slice(line) {
                Ok(line) => line,
                Err(_) => mended_line(line)?,
            };
            info = line.commit_info.unwrap_or(info);
            // A line has one action; of one with two, Spark reads the first of these.
            let file = line.add.map(Action::Add).or(line.remove.map(Action::Remove));
            actions.extend(file.or(line.cdc.map(Action::Cdc)));
            actions.extend(line.meta_data.map(|metadata| Action::Metadata(Box::new(metadata.into()))));
            actions.extend(line.protocol.map(|protocol| Action::Protocol(protocol.into())));
        }
        if lines == 0 {
            return Err(empty_commit());
        }
        for action in &actions {
            check(action)?;
        }
        only_last(&mut actions, |action| matches!(action, Action::Metadata(_)));
        only_last(&mut actions, |action| matches!(action, Action::Protocol(_)));
        only_last_of_a_kind(&mut actions);
        let has_feed = actions.iter().any(|action| matches!(action, Action::Cdc(_)));
        let feed = has_feed && kind == ChangeKind::Data;
        let nothing = info.is_empty_merge();
        actions.retain(|action| match action {
            Action::Cdc(_) => feed && !nothing,
            Action::Add(_) | Action::Remove(_) if kind == ChangeKind::AllFiles => true,
            Action::Add(file) => !feed && !nothing && file.data_change == Some(true),
            Action::Remove(file) => !feed && !nothing && file.data_change != Some(false),
            Action::Metadata(_) | Action::Protocol(_) => true,
        });
        for action in &mut actions {
            if let Action::Add(file) | Action::Remove(file) | Action::Cdc(file) = action {
                file.complete(removed);
            }
        }
        actions.sort_by_key(|action| match action {
            Action::Protocol(_) => 0,
            Action::Metadata(_) => 1,
            Action::Add(_) | Action::Remove(_) | Action::Cdc(_) => 2,
        });
        let timestamp = match times.by_file {
            Some(time) => time,
            None => {
                info.in_commit_timestamp.ok_or_else(|| damaged("a commit lacks its inCommitTimestamp"))?
            }
        };
        Ok(Self { version: times.version, bytes: text.len(), timestamp, actions })
    }

    /// Leaves out the files that may not be read. What is known of them was added before.
    fn leave_out(&mut self, access: &BoundAccess) {
        self.actions.retain(|action| match action {
            Action::Add(file) | Action::Remove(file) | Action::Cdc(file) => file.may_be_read(access),
            Action::Metadata(_) | Action::Protocol(_) => true,
        });
    }
}

/// The error if a commit does not say what a recipient needs of a file.
pub(super) fn not_recorded(version: u64) -> Error {
    Error::unsupported(format!(
        "The changes of version {version} cannot be read: its commit names a file without the file's size or partition \
         values, and the log does not have them elsewhere. Read a range of versions without that one, or the table \
         without changes."
    ))
}

/// Leaves out all but the last of the actions that are `one`. Delta's protocol allows one for each commit; of several, the
/// last is in force.
fn only_last(actions: &mut Vec<Action>, one: impl Fn(&Action) -> bool) {
    let last = actions.iter().rposition(&one);
    let mut at = 0..;
    actions.retain(|action| {
        let at = at.next();
        !one(action) || at == last
    });
}

/// Leaves out all but the last of the actions that add the same file, and of those that remove it, as Spark reads them.
fn only_last_of_a_kind(actions: &mut Vec<Action>) {
    let mut seen = HashSet::new();
    let mut last = Vec::with_capacity(actions.len());
    for action in actions.iter().rev() {
        last.push(match action {
            Action::Add(file) => seen.insert((true, file.path.as_str(), file.vector_id())),
            Action::Remove(file) => seen.insert((false, file.path.as_str(), file.vector_id())),
            Action::Cdc(_) | Action::Metadata(_) | Action::Protocol(_) => true,
        });
    }
    if last.iter().all(|&last| last) {
        return;
    }
    actions.retain(|_| last.pop().unwrap_or(true));
}

fn mended_line(line: &[u8]) -> Result<Line> {
    let mended = read(line).and_then(|mut line| {
        if line.is_array() {
            return Ok(Line::default());
        }
        mend(&mut line);
        serde_json::from_value(line)
    });
    mended.map_err(damaged)
}

fn check(action: &Action) -> Result<()> {
    match action {
        Action::Add(file) | Action::Remove(file) | Action::Cdc(file) => {
            if file.path.is_empty() {
                return Err(damaged("a file has no path"));
            }
            if file.size.is_some_and(|size| size < 0) {
                return Err(no_size());
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

    fn commit(text: &str, kind: ChangeKind) -> Result<Commit> {
        let location = url::Url::parse("memory:///").unwrap();
        let file = buoyant_kernel::FileMeta { location, last_modified: 1, size: 1 };
        let times = CommitTimes { version: 7, file, by_file: Some(1) };
        Commit::parse(text.as_bytes(), &times, kind, &RemovedFiles::default())
    }

    fn paths(text: &str, kind: ChangeKind) -> Vec<String> {
        let path = |action: &Action| match action {
            Action::Add(file) => format!("+{}", file.path),
            Action::Remove(file) => format!("-{}", file.path),
            Action::Cdc(file) => format!("~{}", file.path),
            Action::Metadata(_) => "metadata".to_owned(),
            Action::Protocol(_) => "protocol".to_owned(),
        };
        commit(text, kind).unwrap().actions.iter().map(path).collect()
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
        assert_eq!(paths(&text, ChangeKind::Data), ["~c"]);
        assert_eq!(paths(&text, ChangeKind::Files), ["+a", "-r"]);
        let text = [ADD, REMOVE, MOVED].join("\n");
        assert_eq!(paths(&text, ChangeKind::Data), ["+a", "-r"]);
    }

    #[test]
    fn a_merge_that_changed_nothing_gives_nothing() {
        let info = |inserted: &str| {
            format!(
                r#"{{"commitInfo":{{"operation":"MERGE","operationMetrics":{{"numTargetRowsInserted":"{inserted}","numTargetRowsUpdated":"0","numTargetRowsDeleted":"0"}}}}}}"#
            )
        };
        let text = |inserted| [info(inserted).as_str(), ADD, REMOVE].join("\n");
        assert!(paths(&text("0"), ChangeKind::Data).is_empty());
        assert_eq!(paths(&text("1"), ChangeKind::Data), ["+a", "-r"]);
    }

    #[test]
    fn what_only_informs_may_be_of_any_type() {
        for operation in ["5", "null", "[\"MERGE\"]", "{}"] {
            let info = format!(r#"{{"commitInfo":{{"operation":{operation},"operationMetrics":7}}}}"#);
            assert_eq!(paths(&[info.as_str(), ADD].join("\n"), ChangeKind::Data), ["+a"], "{operation}");
        }
    }

    #[test]
    fn what_a_removal_leaves_out_is_taken_from_what_is_known() {
        let known = RemovedFile { size: 7, partition_values: BTreeMap::from([("p".to_owned(), None)]) };
        let with_vector = r#"{"path":"r","deletionVector":{"storageType":"u","pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","offset":4,"sizeInBytes":40,"cardinality":6}}"#;
        let file = |text: &str| serde_json::from_str::<ChangedFile>(text).unwrap();
        let files = HashMap::from([(("r".to_owned(), None), known)]);
        for (text, partitioned, size, values) in [
            (r#"{"path":"r"}"#, true, Some(7), Some(1)),
            (r#"{"path":"r","size":9}"#, true, Some(9), Some(1)),
            (r#"{"path":"r","size":9,"partitionValues":{}}"#, true, Some(9), Some(0)),
            (r#"{"path":"r","size":9}"#, false, Some(9), Some(0)),
            (r#"{"path":"other"}"#, true, None, None),
            (r#"{"path":"other"}"#, false, None, Some(0)),
            (with_vector, true, None, None),
        ] {
            let mut file = file(text);
            file.complete(&RemovedFiles { partitioned, files: files.clone() });
            assert_eq!(
                (file.size, file.partition_values.map(|values| values.len())),
                (size, values),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let long = r#"{"add":{"path":"","partitionValues":{},"size":1,"dataChange":true}}"#;
        let negative = r#"{"add":{"path":"a","partitionValues":{},"size":-1,"dataChange":true}}"#;
        let unknown = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["no"],"writerFeatures":["no"]}}"#;
        for text in ["", "\n", "{", &ADD[..40], long, negative, unknown] {
            assert!(commit(text, ChangeKind::Data).is_err(), "{text}");
        }
    }
}
