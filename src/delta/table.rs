//! A table: where its versions are opened, and the newest one kept.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use buoyant_kernel::object_store::ObjectStore;
use url::Url;

use super::changes::{Change, ChangeBounds, ChangeCursor, ChangeKind, ChangePosition, ChangeRange};
use super::cursor::{FileCursor, Origin, origin_is_gone};
use super::engine::LogEngine;
use super::failure::{failure, not_available};
use super::history::Log;
use super::kept_commits::{CommitBudget, KeptCommits};
use super::metadata::FileStats;
use super::open::{RefreshResult, is_newest, open_from, open_listed, open_newest, open_version, refresh};
use super::prefetch::NextReads;
use super::scan::Columns;
use super::snapshot::Snapshot;
use super::survey::{Survey, survey};
use crate::error::{ErrorCode, Result};
use crate::limits::Limits;
use crate::predicate::{BoundAccess, FileAccess, Predicate};
use crate::protocol::capabilities::TableFeatures;

/// How many lists of files are kept where a page of them ended.
const PAUSED_KEPT: usize = 4;

/// How many older versions are kept: enough for the pages of a few queries of past versions.
const OLDER_KEPT: usize = 4;

/// What a table takes of which nothing is kept: its engine and its store.
const TABLE_BYTES: usize = 16 * 1024;

/// A Delta table at a location. Cheap to clone; clones share the engine and the newest snapshot. Lists of files and of
/// changes have those that may be read: see [`DeltaTable::with_access`].
///
/// ```no_run
/// use deltashare::delta::DeltaTable;
/// use deltashare::error::Result;
/// use deltashare::limits::Limits;
/// use deltashare::storage::TableStore;
///
/// /// The size of a table. Blocks, so it runs in `tokio::task::spawn_blocking`.
/// fn bytes(store: TableStore, runtime: tokio::runtime::Handle) -> Result<i64> {
///     let table = DeltaTable::new(store.store, store.root, runtime, Limits::default());
///     let mut files = table.files(&table.latest()?)?;
///     let mut bytes = 0;
///     // Only `None` says that the list is complete.
///     while let Some(file) = files.advance()? {
///         bytes += file.size;
///     }
///     Ok(bytes)
/// }
/// ```
#[derive(Clone)]
pub struct DeltaTable {
    shared: Arc<Shared>,
    access: FileAccess,
    held: Option<Arc<dyn Any + Send + Sync>>,
}

struct Shared {
    engine: Arc<LogEngine>,
    /// How old the last listing may be before the log is listed again, although no commit followed.
    list_after: Duration,
    /// What answers keep of commits between their passes over them.
    commits: Arc<CommitBudget>,
    known: Mutex<Known>,
    /// Lists of files that may continue, the one paused last at the end.
    paused_files: Paused<FileCursor>,
    /// Ranges of changes that may continue, the one paused last at the end.
    paused_changes: Paused<ChangeCursor>,
}

type Paused<T> = Mutex<VecDeque<T>>;

#[derive(Default)]
struct Known {
    newest: Option<Arc<Snapshot>>,
    /// When the log was last listed to find the newest version.
    listed: Option<SystemTime>,
    /// Versions below the newest, most recently opened last.
    older: VecDeque<Arc<Snapshot>>,
}

impl DeltaTable {
    /// A table at `root`, which ends with a slash and names a table in `store`. `runtime` is multi-threaded
    /// and runs the store's requests. Nothing is read yet.
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        root: Url,
        runtime: tokio::runtime::Handle,
        limits: Limits,
    ) -> Self {
        let commits = Arc::new(CommitBudget::new(limits.range_kept_bytes));
        Self::with_budget(store, root, runtime, limits, commits)
    }

    /// The same, if other tables keep their commits in the same budget.
    #[must_use]
    pub fn with_budget(
        store: Arc<dyn ObjectStore>,
        root: Url,
        runtime: tokio::runtime::Handle,
        limits: Limits,
        commits: Arc<CommitBudget>,
    ) -> Self {
        let engine = Arc::new(LogEngine::new(store, root, runtime, limits));
        let shared = Shared {
            engine,
            list_after: Duration::from_secs(limits.log_listing_seconds),
            commits,
            known: Mutex::default(),
            paused_files: Mutex::default(),
            paused_changes: Mutex::default(),
        };
        Self { shared: Arc::new(shared), access: FileAccess::everything(), held: None }
    }

    /// The same table, of which only some files may be read. What is kept in memory is shared, and lists that were paused
    /// continue only with the same access.
    #[must_use]
    pub fn with_access(&self, access: FileAccess) -> Self {
        Self { shared: Arc::clone(&self.shared), access, held: self.held.clone() }
    }

    /// The same table, which with its clones holds something until the last of them is dropped.
    #[must_use]
    pub fn holding(self, held: Arc<dyn Any + Send + Sync>) -> Self {
        Self { held: Some(held), ..self }
    }

    /// The newest version. If nothing was committed since the last call, this takes requests for two files of the log, or
    /// one listing if the last one is older than [`Limits::log_listing_seconds`], or if the table is not in S3.
    ///
    /// Never an older version than an earlier call returned, unless the table was created again.
    pub fn latest(&self) -> Result<Arc<Snapshot>> {
        self.latest_for(NextReads::default())
    }

    /// The same for a caller who reads more of that version next. If the table was not read before, that is fetched together
    /// with what the version is opened from.
    pub fn latest_for(&self, next: NextReads) -> Result<Arc<Snapshot>> {
        let engine = &self.shared.engine;
        // The lock is not held while the log is read. If two callers read it at the same time, `keep` decides.
        let (newest, listed) = {
            let known = self.known();
            (known.newest.clone(), known.listed)
        };
        // Not the monotonic clock, which may stop while a function is frozen between two requests.
        let now = SystemTime::now();
        let Some(newest) = newest else {
            let snapshot = open_newest(engine, next)?;
            self.known().listed = Some(now);
            return Ok(self.keep(snapshot));
        };
        let age = listed.and_then(|listed| now.duration_since(listed).ok());
        if age.is_some_and(|age| age < self.shared.list_after) && is_newest(&newest)? {
            return Ok(newest);
        }
        let found = refresh(engine, &newest)?;
        self.known().listed = Some(now);
        Ok(match found {
            RefreshResult::Unchanged => newest,
            RefreshResult::Newer(snapshot) => {
                // A list of files has the order and the statistics of the checkpoint that it is read from, whoever asks.
                if snapshot.checkpoint() != newest.checkpoint() {
                    self.known().older.clear();
                }
                self.keep(snapshot)
            }
            RefreshResult::Replaced(snapshot) => {
                let snapshot = Arc::new(snapshot);
                let newest = Some(Arc::clone(&snapshot));
                *self.known() = Known { newest, listed: Some(now), older: VecDeque::new() };
                snapshot
            }
        })
    }

    /// An exact version. Fails when there is no such version, or no longer.
    pub fn at_version(&self, version: u64) -> Result<Arc<Snapshot>> {
        match self.latest() {
            Ok(newest) => self.at_version_of(&newest, version),
            // A commit that cannot be read does not stand in the way of the versions before it.
            Err(error) if error.code() != ErrorCode::TemporarilyUnavailable => self.at_version_alone(version),
            Err(error) => Err(error),
        }
    }

    /// An exact version of a log whose newest one cannot be read.
    pub fn at_version_alone(&self, version: u64) -> Result<Arc<Snapshot>> {
        open_version(&self.shared.engine, Some(version)).map(Arc::new)
    }

    /// An exact version, given the newest one.
    pub fn at_version_of(&self, newest: &Arc<Snapshot>, version: u64) -> Result<Arc<Snapshot>> {
        if newest.version() < version {
            let log = Log::list(&self.shared.engine)?;
            return match log.latest() {
                // Committed a moment ago, or behind a gap in the log.
                Some(latest) if latest >= version => self.at_version_alone(version),
                Some(_) | None => Err(not_available(version, log.range())),
            };
        }
        self.older(newest, version, |engine| open_version(engine, Some(version)))
    }

    /// The versions from `start` to `end`, both part of the range and not beyond `newest`.
    pub fn change_range(&self, newest: &Arc<Snapshot>, start: u64, end: u64) -> Result<ChangeRange> {
        let files = self.shared.engine.list_from(0).map_err(failure)?;
        let open = |version| self.older(newest, version, |engine| open_listed(engine, version, &files));
        let (first, last) = (open(start)?, open(end)?);
        ChangeRange::new(newest, first, last, files)
    }

    /// A version up to `newest`, from memory or else as `open` opens it.
    fn older(
        &self,
        newest: &Arc<Snapshot>,
        version: u64,
        open: impl FnOnce(&Arc<LogEngine>) -> Result<Snapshot>,
    ) -> Result<Arc<Snapshot>> {
        if newest.version() == version {
            return Ok(Arc::clone(newest));
        }
        let kept = self.known().older.iter().find(|kept| kept.version() == version).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let snapshot = Arc::new(open(&self.shared.engine)?);
        let older = &mut self.known().older;
        older.push_back(Arc::clone(&snapshot));
        if older.len() > OLDER_KEPT {
            older.pop_front();
        }
        Ok(snapshot)
    }

    /// The active files of a version, from the first one on.
    pub fn files(&self, snapshot: &Arc<Snapshot>) -> Result<FileCursor> {
        FileCursor::new(snapshot, &self.access)
    }

    /// The same, without files in which no row matches all of `predicates` because of their partition values. Less of the log
    /// is read for them.
    pub fn files_matching(
        &self,
        snapshot: &Arc<Snapshot>,
        predicates: &Arc<[Predicate]>,
    ) -> Result<FileCursor> {
        FileCursor::matching(snapshot, &self.access, predicates, Columns::All)
    }

    /// What a version takes to read, with the deletion vectors of those files that may be read.
    pub fn exact_features(&self, snapshot: &Arc<Snapshot>) -> Result<TableFeatures> {
        if !self.access.is_filtered() || !snapshot.features().may_have_vectors {
            return snapshot.exact_features();
        }
        let mut files = FileCursor::with_columns(snapshot, &self.access, Columns::WithoutStats)?;
        let mut has_vectors = false;
        while let Some(file) = files.advance()? {
            if file.deletion_vector.is_some() {
                has_vectors = true;
                break;
            }
        }
        let mut features = snapshot.features().clone();
        features.set_vectors(has_vectors);
        Ok(features)
    }

    /// The number of active files of a version and their size. Those that may be read are counted in one pass over the log if
    /// there are others, and the result is remembered.
    pub fn file_stats(&self, snapshot: &Arc<Snapshot>) -> Result<FileStats> {
        if !self.access.is_filtered() {
            return snapshot.file_stats();
        }
        if let Some(known) = snapshot.shared_stats(&self.access) {
            return Ok(known);
        }
        let mut stats = FileStats { num_files: 0, size_bytes: 0 };
        let mut files = FileCursor::with_columns(snapshot, &self.access, Columns::WithoutStats)?;
        while let Some(file) = files.advance()? {
            stats.num_files += 1;
            stats.size_bytes = stats.size_bytes.saturating_add(file.size.unsigned_abs());
        }
        snapshot.keep_shared_stats(self.access.clone(), stats);
        Ok(stats)
    }

    /// The active files of a version, from the one on that has `position` files before it in the order of
    /// `origin`. Reads no more of the log than lies between there and where a cursor was paused, if there is one.
    ///
    /// 400 if the files of `origin` are not there any more.
    pub fn files_from(&self, origin: &Origin, position: u64) -> Result<FileCursor> {
        self.files_matching_from(origin, position, &Arc::default())
    }

    /// The same for the files that [`Self::files_matching`] has, and for a position among them.
    pub fn files_matching_from(
        &self,
        origin: &Origin,
        position: u64,
        predicates: &Arc<[Predicate]>,
    ) -> Result<FileCursor> {
        let suits = |cursor: &FileCursor| {
            cursor.start() <= position
                && cursor.origin() == origin
                && cursor.selects(&self.access, predicates)
        };
        if let Some(mut cursor) = take(&self.shared.paused_files, suits, |cursor| Some(cursor.start())) {
            cursor.seek(position)?;
            return Ok(cursor);
        }
        let mut cursor = self.files_matching(&self.at_version(origin.version)?, predicates)?;
        if cursor.origin() != origin {
            let snapshot = open_from(&self.shared.engine, origin.version, origin.checkpoint);
            let snapshot = snapshot.map_err(|error| match error.code() {
                ErrorCode::TemporarilyUnavailable => error,
                _ => origin_is_gone().with_source(error),
            })?;
            cursor = self.files_matching(&Arc::new(snapshot), predicates)?;
            if cursor.origin() != origin {
                return Err(origin_is_gone());
            }
        }
        cursor.seek(position)?;
        Ok(cursor)
    }

    /// Keeps a cursor for the next page.
    pub fn pause_files(&self, mut cursor: FileCursor) {
        cursor.pause();
        keep(&self.shared.paused_files, cursor);
    }

    /// Reads every commit of a range once, and calls `check` with each change of it, also of files that may not be read. The
    /// changes from `position` on, or from the first one on, come with the result: nothing that the log says is in their way.
    ///
    /// 400 if a commit of the range cannot be read, if a file lacks what a recipient needs of it, and whatever `check`
    /// fails with.
    pub fn survey(
        &self,
        range: &Arc<ChangeRange>,
        kind: ChangeKind,
        position: Option<ChangePosition>,
        check: &mut dyn FnMut(&Change<'_>) -> Result<()>,
    ) -> Result<Survey> {
        let access = self.access_to(range);
        survey(&self.shared.engine, &self.shared.commits, range, kind, position, access, check)
    }

    /// The changes from `position` on of a range that was surveyed before, and of which nothing was completed.
    pub fn changes_from(
        &self,
        range: &Arc<ChangeRange>,
        kind: ChangeKind,
        position: ChangePosition,
    ) -> Result<ChangeCursor> {
        let access = self.access_to(range);
        ChangeCursor::new(range, kind, Some(position), KeptCommits::default(), Arc::default(), access)
    }

    /// The access to the files of a range, which a survey finds to be the same in all of its versions.
    fn access_to(&self, range: &ChangeRange) -> Arc<BoundAccess> {
        Arc::new(self.access.bind(range.first.metadata().columns()))
    }

    /// The range that a paused cursor of these versions was in, with the cursor.
    pub fn resume_changes(
        &self,
        bounds: ChangeBounds,
        kind: ChangeKind,
        position: ChangePosition,
    ) -> Option<ChangeCursor> {
        let suits =
            |cursor: &ChangeCursor| cursor.suits(bounds, kind, position) && *cursor.access() == self.access;
        let mut cursor = take(&self.shared.paused_changes, suits, ChangeCursor::position)?;
        cursor.seek(position.action);
        Some(cursor)
    }

    /// Keeps a cursor for the next page.
    pub fn pause_changes(&self, mut cursor: ChangeCursor) {
        cursor.pause();
        keep(&self.shared.paused_changes, cursor);
    }

    /// About how many bytes of memory the table keeps for later requests: what was read of its log, its snapshots, and lists
    /// that were paused.
    pub fn kept_bytes(&self) -> usize {
        let Shared { engine, known, paused_files, paused_changes, .. } = &*self.shared;
        let snapshots: usize = {
            let known = locked(known);
            known.newest.iter().chain(&known.older).map(|snapshot| snapshot.kept_bytes()).sum()
        };
        let files: usize = locked(paused_files).iter().map(FileCursor::kept_bytes).sum();
        let changes: usize = locked(paused_changes).iter().map(ChangeCursor::kept_bytes).sum();
        TABLE_BYTES + engine.kept_bytes() + snapshots + files + changes
    }

    /// Takes out paused lists, oldest first, until they kept so many bytes. Their next pages read the log from its start. To
    /// drop the result takes a while.
    pub fn release_paused(&self, bytes: usize) -> ReleasedLists {
        let Shared { paused_files, paused_changes, .. } = &*self.shared;
        let (files, freed) = release(paused_files, bytes, FileCursor::kept_bytes);
        let (changes, _) = release(paused_changes, bytes.saturating_sub(freed), ChangeCursor::kept_bytes);
        ReleasedLists { files, changes }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.shared.known)
    }

    /// Remembers a snapshot unless a newer one is known, and returns the newer of the two.
    fn keep(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let newest = &mut self.known().newest;
        match newest {
            Some(known) if known.version() > snapshot.version() => Arc::clone(known),
            _ => Arc::clone(newest.insert(Arc::new(snapshot))),
        }
    }
}

/// Lists that were paused and are no longer kept.
pub struct ReleasedLists {
    files: Vec<FileCursor>,
    changes: Vec<ChangeCursor>,
}

impl ReleasedLists {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.files.len() + self.changes.len()
    }
}

/// Takes out cursors, oldest first, until they kept so many bytes, and says how many these are.
fn release<T>(paused: &Paused<T>, bytes: usize, kept_bytes: impl Fn(&T) -> usize) -> (Vec<T>, usize) {
    let mut paused = locked(paused);
    let (mut released, mut freed) = (Vec::new(), 0);
    while freed < bytes
        && let Some(cursor) = paused.pop_front()
    {
        freed += kept_bytes(&cursor);
        released.push(cursor);
    }
    (released, freed)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes out the cursor that is furthest among those that suit.
fn take<T, K: Ord>(paused: &Paused<T>, suits: impl Fn(&T) -> bool, position: impl Fn(&T) -> K) -> Option<T> {
    let mut paused = locked(paused);
    let suiting = paused.iter().enumerate().filter(|(_, cursor)| suits(cursor));
    let best = suiting.max_by_key(|(_, cursor)| position(cursor)).map(|(at, _)| at)?;
    paused.remove(best)
}

fn keep<T>(paused: &Paused<T>, cursor: T) {
    let mut paused = locked(paused);
    paused.push_back(cursor);
    if paused.len() > PAUSED_KEPT {
        paused.pop_front();
    }
}
