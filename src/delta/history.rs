//! Which versions the log holds, and when each was committed.

use std::collections::BTreeSet;
use std::sync::Arc;

use buoyant_kernel::{Engine, FileMeta, StorageHandler};
use chrono::{DateTime, SecondsFormat};
use serde::Deserialize;
use url::Url;

use super::engine::LogEngine;
use super::failure::{damaged, failure, not_available};
use super::log_names::{LogFile, file_name};
use super::mend::{self, lines_of};
use super::snapshot::Snapshot;
use crate::error::{Error, Result};

/// `commitInfo` is the first action of a commit with an in-commit timestamp, and smaller than this.
const FIRST_ACTION_BYTES: u64 = 64 * 1024;

/// The commits and checkpoints of a log, from one listing.
pub(super) struct Log {
    /// By version, ascending.
    commits: Vec<Commit>,
    /// Versions with a checkpoint file, complete or not.
    checkpoints: BTreeSet<u64>,
}

struct Commit {
    version: u64,
    file: FileMeta,
}

impl Log {
    /// Lists the whole log. A log that does not exist is one without files.
    pub(super) fn list(engine: &LogEngine) -> Result<Self> {
        Ok(Self::of(engine.list_from(0).map_err(failure)?))
    }

    /// The log that has these files.
    pub(super) fn of(files: Vec<FileMeta>) -> Self {
        let mut this = Self { commits: Vec::new(), checkpoints: BTreeSet::new() };
        for file in files {
            match LogFile::parse(file_name(file.location.path())) {
                Some(LogFile::Commit(version)) => this.commits.push(Commit { version, file }),
                Some(LogFile::Checkpoint(version)) => {
                    this.checkpoints.insert(version);
                }
                Some(LogFile::Other) | None => {}
            }
        }
        this
    }

    /// The newest version of which anything is left.
    pub(super) fn latest(&self) -> Option<u64> {
        self.commits.last().map(|commit| commit.version).max(self.checkpoints.last().copied())
    }

    /// The oldest and the newest version that can be read.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        let from_start = self.commits.first().filter(|commit| commit.version == 0).map(|_| 0);
        Some((from_start.or_else(|| self.checkpoints.first().copied())?, self.latest()?))
    }

    /// How many versions a view of the log reaches back from `version` without a gap, if it then has a checkpoint or
    /// version 0 to begin with. `None` for a version that cannot be built.
    pub(super) fn reach(&self, version: u64, hidden: &BTreeSet<u64>) -> Option<u64> {
        let until = self.commits.partition_point(|commit| commit.version <= version);
        let commits = self.commits.get(..until).unwrap_or_default().iter().rev();
        let run =
            commits.zip((0..=version).rev()).take_while(|(commit, expected)| commit.version == *expected);
        let first = version.checked_sub(run.count() as u64);
        match first {
            // Down to version 0.
            None => Some(version),
            Some(before) => self
                .checkpoints(version, hidden)
                .any(|checkpoint| checkpoint >= before)
                .then(|| version - before),
        }
    }

    /// Whether a commit up to `limit` has no bytes.
    pub(super) fn has_empty_commit(&self, limit: u64) -> bool {
        self.commits.iter().any(|commit| commit.version <= limit && commit.file.size == 0)
    }

    /// The versions with a checkpoint up to `limit` that are not in `except`, newest first.
    pub(super) fn checkpoints(&self, limit: u64, except: &BTreeSet<u64>) -> impl Iterator<Item = u64> {
        self.checkpoints.range(..=limit).rev().filter(|version| !except.contains(version)).copied()
    }

    /// The commits up to `end` whose versions can be read: the unbroken run that ends there, from version 0 or
    /// the first checkpoint on. There is none if the commit of `end` was cleaned up behind a checkpoint.
    fn readable(mut self, end: u64) -> Vec<Commit> {
        self.commits.retain(|commit| commit.version <= end);
        if self.commits.last().is_none_or(|commit| commit.version != end) {
            return Vec::new();
        }
        let pairs = self.commits.iter().zip(self.commits.iter().skip(1));
        let gap = pairs.rev().find(|(a, b)| a.version + 1 != b.version).map(|(_, after)| after.version);
        let start = gap.or_else(|| self.commits.first().map(|commit| commit.version)).unwrap_or(0);
        let earliest = match start {
            0 => Some(0),
            start => self.checkpoints.range(start - 1..=end).next().copied(),
        };
        match earliest {
            Some(earliest) => self.commits.retain(|commit| commit.version >= earliest.max(start)),
            None => self.commits.clear(),
        }
        self.commits
    }
}

/// When each commit was created. Versions from `in_commit_from` carry a timestamp inside; for the ones before,
/// the files' modification times count, each at least a millisecond after the one before it.
struct Times<'a> {
    engine: &'a LogEngine,
    commits: Vec<Commit>,
    by_file: Vec<i64>,
}

impl<'a> Times<'a> {
    fn of(snapshot: &'a Snapshot) -> Result<Self> {
        Self::of_log(snapshot, Log::list(snapshot.engine())?)
    }

    fn of_log(snapshot: &'a Snapshot, log: Log) -> Result<Self> {
        let engine = snapshot.engine().as_ref();
        let commits = log.readable(snapshot.version());
        let in_commit_from = in_commit_from(snapshot).unwrap_or(u64::MAX);
        let mut previous = None;
        let by_file = commits.iter().take_while(|commit| commit.version < in_commit_from).map(|commit| {
            let time = previous.map_or(commit.file.last_modified, |previous: i64| {
                commit.file.last_modified.max(previous.saturating_add(1))
            });
            previous = Some(time);
            time
        });
        let by_file = by_file.collect();
        Ok(Self { engine, commits, by_file })
    }

    /// The same, if a time is asked for. 400 if there is no commit that has one.
    fn to_search(snapshot: &'a Snapshot) -> Result<Self> {
        let times = Self::of(snapshot)?;
        if times.commits.is_empty() {
            return Err(Error::invalid(format!(
                "No commit of that time is available any more: the log of the table has only a checkpoint of version \
                 {}. Read the table without a timestamp.",
                snapshot.version()
            )));
        }
        Ok(times)
    }

    fn version(&self, at: usize) -> u64 {
        self.commits.get(at).map_or(0, |commit| commit.version)
    }

    fn time(&self, at: usize) -> Result<i64> {
        match (self.by_file.get(at), self.commits.get(at)) {
            (Some(&time), _) => Ok(time),
            (None, Some(commit)) => in_commit_timestamp(self.engine, &commit.file),
            (None, None) => Err(Error::internal("a commit outside the list")),
        }
    }

    /// How many commits are before the first one of which `reached` holds, given that it holds for all later
    /// ones too.
    fn partition_point(&self, reached: impl Fn(i64) -> bool) -> Result<usize> {
        let in_commit = self.by_file.len();
        // Copied files are modified later than their commit says, so the two kinds of times are kept apart:
        // if the first in-commit timestamp is not reached, only file times are compared.
        if in_commit == self.commits.len() || reached(self.time(in_commit)?) {
            return Ok(self.by_file.partition_point(|&time| !reached(time)));
        }
        let (mut low, mut high) = (in_commit + 1, self.commits.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if reached(self.time(middle)?) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }
}

/// The file of a commit of a range, and its time if the file has it.
#[derive(Debug, Clone)]
pub(super) struct CommitTimes {
    pub(super) version: u64,
    pub(super) file: FileMeta,
    /// `None` if the commit has its timestamp inside.
    pub(super) by_file: Option<i64>,
}

impl CommitTimes {
    /// The commits from `start` to `end`, none missing, of the log that has these files.
    pub(super) fn of_range(
        newest: &Snapshot,
        files: Vec<FileMeta>,
        start: u64,
        end: u64,
    ) -> Result<Vec<Self>> {
        let Times { commits, by_file, .. } = Times::of_log(newest, Log::of(files))?;
        if commits.is_empty() {
            return Err(Error::invalid(format!(
                "The changes of the versions {start} to {end} are no longer available: the log of the table has only a \
                 checkpoint of version {}.",
                newest.version()
            )));
        }
        let range = commits.first().map(|commit| (commit.version, newest.version()));
        if range.is_none_or(|(earliest, latest)| start < earliest || end > latest) {
            let missing = if range.is_some_and(|(earliest, _)| start < earliest) { start } else { end };
            return Err(not_available(missing, range));
        }
        let times = by_file.into_iter().map(Some).chain(std::iter::repeat(None));
        let all = commits.into_iter().zip(times).map(|(commit, by_file)| Self {
            version: commit.version,
            file: commit.file,
            by_file,
        });
        Ok(all.filter(|commit| (start..=end).contains(&commit.version)).collect())
    }
}

impl Snapshot {
    /// When the version was committed, in milliseconds since the Unix epoch: the in-commit timestamp if
    /// the table has them, else the modification time of the commit file, made strictly increasing. `None` if the
    /// commit is gone from the log, which a checkpoint then stands for.
    pub fn timestamp(&self) -> Result<Option<i64>> {
        if let Some(&known) = self.timestamp.get() {
            return Ok(known);
        }
        let timestamp = time_of(self)?;
        Ok(*self.timestamp.get_or_init(|| timestamp))
    }

    /// The newest version that was committed at `millis` (since the Unix epoch) or before, if this snapshot is the
    /// newest one. 400 if there is none left, and if this snapshot is older than `millis`.
    pub fn version_as_of(&self, millis: i64) -> Result<u64> {
        version_as_of(self, millis, false)
    }

    /// The same; the newest version if that is older than `millis`.
    pub fn version_up_to(&self, millis: i64) -> Result<u64> {
        version_as_of(self, millis, true)
    }

    /// The oldest version that was committed at `millis` (since the Unix epoch) or after, if this snapshot is the
    /// newest one. 400 if there is none, and if commits were cleaned up that may have been older.
    pub fn version_at_or_after(&self, millis: i64) -> Result<u64> {
        version_at_or_after(self, millis)
    }
}

/// The newest version at `millis` or before. 400 if there is none left, and if `millis` is after the newest one, unless
/// `or_latest`.
fn version_as_of(snapshot: &Snapshot, millis: i64, or_latest: bool) -> Result<u64> {
    let times = Times::to_search(snapshot)?;
    let after = times.partition_point(|time| time > millis)?;
    let Some(at) = after.checked_sub(1) else { return Err(before_earliest(&times, millis)?) };
    if !or_latest && after == times.commits.len() && times.time(at)? < millis {
        return Err(after_latest(&times, millis)?);
    }
    Ok(times.version(at))
}

/// The oldest version at `millis` or after. 400 if there is none, and if it may have been among the commits that
/// were cleaned up, which a list of changes must not pass over.
fn version_at_or_after(snapshot: &Snapshot, millis: i64) -> Result<u64> {
    let times = Times::to_search(snapshot)?;
    let at = times.partition_point(|time| time >= millis)?;
    if at == times.commits.len() {
        return Err(after_latest(&times, millis)?);
    }
    if at == 0 && times.version(0) > 0 && times.time(0)? > millis {
        return Err(before_earliest(&times, millis)?);
    }
    Ok(times.version(at))
}

fn before_earliest(times: &Times<'_>, millis: i64) -> Result<Error> {
    let (version, earliest) = (times.version(0), show(times.time(0)?));
    Ok(Error::invalid(format!(
        "The provided timestamp {} is before the earliest available version {version}. Please use a timestamp greater \
         than or equal to {earliest}.",
        show(millis)
    )))
}

fn after_latest(times: &Times<'_>, millis: i64) -> Result<Error> {
    let last = times.commits.len().saturating_sub(1);
    let (version, latest) = (times.version(last), show(times.time(last)?));
    Ok(Error::invalid(format!(
        "The provided timestamp {} is after the latest available version {version}. Please use a timestamp less than or \
         equal to {latest}.",
        show(millis)
    )))
}

/// When the snapshot's version was committed; `None` if its commit is gone.
fn time_of(snapshot: &Snapshot) -> Result<Option<i64>> {
    let version = snapshot.version();
    if in_commit_from(snapshot).is_some_and(|from| from <= version) {
        let commit = snapshot.kernel().log_segment().listed.latest_commit_file.as_ref();
        if let Some(commit) = commit.filter(|commit| commit.version == version) {
            return in_commit_timestamp(snapshot.engine(), &commit.location).map(Some);
        }
    }
    let times = Times::of(snapshot)?;
    times.commits.len().checked_sub(1).map(|last| times.time(last)).transpose()
}

/// The first version with an in-commit timestamp, if the table has them.
fn in_commit_from(snapshot: &Snapshot) -> Option<u64> {
    let property = |name: &str| snapshot.metadata().configuration.get(name);
    let enabled = snapshot.protocol().has_writer_feature("inCommitTimestamp")
        && property("delta.enableInCommitTimestamps").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    enabled.then(|| {
        // Absent if the table has had them since it was created.
        property("delta.inCommitTimestampEnablementVersion").and_then(|value| value.parse().ok()).unwrap_or(0)
    })
}

fn in_commit_timestamp(engine: &LogEngine, commit: &FileMeta) -> Result<i64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Action {
        commit_info: Option<CommitInfo>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CommitInfo {
        in_commit_timestamp: Option<i64>,
    }

    // It is in the first action; other writers put it elsewhere, or write it as text.
    let find = |text: &[u8]| {
        lines_of(text).find_map(|line| {
            let mut line = mend::read(line).ok()?;
            mend::mend(&mut line);
            serde_json::from_value::<Action>(line).ok()?.commit_info?.in_commit_timestamp
        })
    };
    let storage = engine.storage_handler();
    let head = read(&storage, &commit.location, FIRST_ACTION_BYTES.min(commit.size))?;
    let found = match find(&head) {
        None if commit.size > FIRST_ACTION_BYTES => find(&read(&storage, &commit.location, commit.size)?),
        found => found,
    };
    found.ok_or_else(|| damaged("a commit lacks its inCommitTimestamp"))
}

fn read(storage: &Arc<dyn StorageHandler>, url: &Url, bytes: u64) -> Result<bytes::Bytes> {
    let mut read = storage.read_files(vec![(url.clone(), Some(0..bytes))]).map_err(failure)?;
    read.next().ok_or_else(|| damaged("a commit has no bytes"))?.map_err(failure)
}

/// A time in the words that the Delta kernel uses for it, which people look for in the message.
fn show(millis: i64) -> String {
    match DateTime::from_timestamp_millis(millis) {
        Some(time) => format!("{millis} ms ({})", time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        None => format!("{millis} ms"),
    }
}
