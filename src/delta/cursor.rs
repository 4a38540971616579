//! The active files of a version, one by one, from any place in their order.
//!
//! The order is the one in which the log is replayed: it is the same for everyone who replays the same files.
//! [`Origin`] says which ones they are, so that another process can continue where this one stopped, or find
//! that it cannot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch::{AddFile, Batch};
use super::failure::{damaged, is_change, is_damage};
use super::file_selection::{Choice, FileSelection};
use super::log_names::file_name;
use super::scan::{Columns, Scan};
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::predicate::{FileAccess, Predicate};
use crate::protocol::digest::short_digest;

/// The files of the log that a list of active files was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The version of the table.
    #[serde(rename = "v")]
    pub version: u64,
    /// The version of the checkpoint that the replay starts from; `None` if it starts at version 0.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    /// A digest of the names and sizes of the checkpoint's files, and of the newest commit with its time: a table that
    /// was created again has others.
    #[serde(rename = "d")]
    pub digest: u64,
}

impl Origin {
    fn of(scan: &Scan) -> Self {
        let segment = scan.kernel().log_segment();
        let mut parts: Vec<String> = segment
            .listed
            .checkpoint_parts
            .iter()
            .map(|part| format!("{}:{}", file_name(part.location.location.path()), part.location.size))
            .collect();
        parts.sort_unstable();
        let commit = segment.listed.latest_commit_file.as_ref();
        parts.extend(
            commit.map(|commit| format!("{}:{}", commit.location.size, commit.location.last_modified)),
        );
        Self {
            version: scan.kernel().version(),
            checkpoint: segment.checkpoint_version,
            digest: short_digest(parts.join("\n").as_bytes()),
        }
    }
}

/// The rules by which positions count files. A position is only valid under the rules that it was counted by: whoever changes
/// what partition values say of a predicate increases this number.
pub const SELECTION_RULES: u32 = 1;

/// The selected files of a snapshot, as the cursor advances. After an error it must not be used again.
///
/// Positions count only selected files: a page token must not reveal how many others there are, and not all of those are
/// read. See [`SELECTION_RULES`].
pub struct FileCursor {
    snapshot: Arc<Snapshot>,
    /// Which files it gives.
    selection: Arc<FileSelection>,
    /// Which of their columns are read.
    columns: Columns,
    scan: Scan,
    origin: Origin,
    batch: Option<Batch>,
    /// The row of the batch that comes next.
    row: usize,
    /// How many files come before the batch.
    before: u64,
    /// How many files come before the next one.
    position: u64,
    /// Whether the cursor lay idle, so that what it reads from may be gone.
    idle: bool,
    /// Whether files may have deletion vectors.
    allows_vectors: bool,
    /// Whether a file without partition values is one whose values are not known.
    needs_values: bool,
    /// What [`Snapshot::mends`] was when the scan was opened.
    mends: usize,
}

impl FileCursor {
    pub(super) fn new(snapshot: &Arc<Snapshot>, access: &FileAccess) -> Result<Self> {
        Self::with_columns(snapshot, access, Columns::All)
    }

    /// A cursor over all files that may be read.
    pub(super) fn with_columns(
        snapshot: &Arc<Snapshot>,
        access: &FileAccess,
        columns: Columns,
    ) -> Result<Self> {
        Self::matching(snapshot, access, &Arc::default(), columns)
    }

    /// A cursor over the files that may be read, without those in which no row matches all of `predicates` because of their
    /// partition values.
    pub(super) fn matching(
        snapshot: &Arc<Snapshot>,
        access: &FileAccess,
        predicates: &Arc<[Predicate]>,
        columns: Columns,
    ) -> Result<Self> {
        let access = access.bind(snapshot.metadata().columns());
        let selection = FileSelection::new(access, predicates, snapshot.metadata());
        Self::open(snapshot, Arc::new(selection), columns)
    }

    fn open(snapshot: &Arc<Snapshot>, selection: Arc<FileSelection>, columns: Columns) -> Result<Self> {
        // Before the scan is opened: one that others put right meanwhile may then be opened once more.
        let mends = snapshot.mends();
        let scan = snapshot.open_scan(columns, selection.may_pass_over().then_some(&selection))?;
        let partitioned = !snapshot.metadata().partition_columns.is_empty();
        Ok(Self {
            origin: Origin::of(&scan),
            allows_vectors: snapshot.features().may_have_vectors,
            needs_values: partitioned && scan.mends(),
            scan,
            mends,
            snapshot: Arc::clone(snapshot),
            selection,
            columns,
            batch: None,
            row: 0,
            before: 0,
            position: 0,
            idle: false,
        })
    }

    /// The snapshot that the files belong to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What the files are read from. Only after the scan was opened is it known, so a cursor has it and a
    /// snapshot does not.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the cursor gives the files that [`Self::matching`] would.
    pub(super) fn selects(&self, access: &FileAccess, predicates: &[Predicate]) -> bool {
        self.selection.access().access() == access && self.selection.predicates() == predicates
    }

    /// Says how many files the predicates left out so far. Files of a checkpoint that later commits removed may be among
    /// them.
    pub fn left_out(&self) -> impl Fn() -> u64 + Send + use<> {
        let selection = Arc::clone(&self.selection);
        move || selection.left_out()
    }

    /// How many bytes of the log the cursor holds: a batch of actions, and as much again for what it was read from.
    pub fn held_bytes(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.bytes().saturating_mul(2))
    }

    /// About how many bytes of memory it takes while it is paused.
    pub(super) fn kept_bytes(&self) -> usize {
        size_of::<Self>() + self.held_bytes() + self.scan.kept_bytes()
    }

    /// How many files come before the next one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next file; `None` only if the list is complete.
    pub fn advance(&mut self) -> Result<Option<AddFile<'_>>> {
        if !self.find()? {
            return Ok(None);
        }
        self.position += 1;
        self.row += 1;
        // `find` left the cursor at a selected row of a batch.
        self.file(self.row - 1)
    }

    /// The next file, which the cursor stays before.
    pub fn peek(&mut self) -> Result<Option<AddFile<'_>>> {
        if self.find()? { self.file(self.row) } else { Ok(None) }
    }

    fn file(&self, row: usize) -> Result<Option<AddFile<'_>>> {
        let file = self.batch.as_ref().map(|batch| batch.file(row)).transpose()?;
        if !self.allows_vectors && file.as_ref().is_some_and(|file| file.deletion_vector.is_some()) {
            return Err(Error::unreadable_table(
                "The table cannot be read: files have deletion vectors, which its protocol does not allow.",
            ));
        }
        if self.needs_values && file.as_ref().is_some_and(|file| file.partition_values.iter().len() == 0) {
            return Err(damaged("an add action of a partitioned table has no partitionValues"));
        }
        Ok(file)
    }

    /// Whether another file follows.
    pub fn has_more(&mut self) -> Result<bool> {
        self.find()
    }

    /// Moves to the next row that is a file; `false` at the end.
    fn find(&mut self) -> Result<bool> {
        loop {
            if let Some(batch) = &self.batch {
                match batch.next_selected(self.row) {
                    Some(row) => {
                        self.row = row;
                        if self.gives(row)? {
                            return Ok(true);
                        }
                        self.row += 1;
                    }
                    None => self.leave_batch(),
                }
                continue;
            }
            if !self.load()? {
                return Ok(false);
            }
        }
    }

    /// Whether the file in this row is selected.
    fn gives(&self, row: usize) -> Result<bool> {
        if self.selection.is_everything() {
            return Ok(true);
        }
        let Some(file) = self.file(row)? else { return Ok(false) };
        let choice = self.selection.choose(|name| file.partition_values.get(name));
        self.selection.count_left_out(u64::from(choice == Choice::LeftOut));
        Ok(choice == Choice::Given)
    }

    /// Reads the next batch; `false` at the end.
    fn load(&mut self) -> Result<bool> {
        let batch = match self.scan.next().transpose() {
            // Connections do not outlive a pause of any length; the log itself is read again, unless it is another one by now.
            Err(error) if self.idle && !is_change(&error) => {
                tracing::info!(error = %error, "a paused list of files is read again");
                // A restarted cursor is not idle, so that an error then is one.
                self.restart()?;
                return if self.batch.is_some() { Ok(true) } else { self.load() };
            }
            Err(error) if is_damage(&error) => {
                self.snapshot.mend(self.mends, error)?;
                // Comes back here only for other damage: a snapshot is put right once, and then the error stays.
                self.restart()?;
                return if self.batch.is_some() { Ok(true) } else { self.load() };
            }
            batch => batch?,
        };
        self.row = 0;
        self.before = self.position;
        self.batch = batch;
        Ok(self.batch.is_some())
    }

    fn leave_batch(&mut self) {
        self.batch = None;
        self.before = self.position;
    }

    /// Reads the log from its start again, up to where the cursor is.
    fn restart(&mut self) -> Result<()> {
        let (origin, position) = (self.origin.clone(), self.position);
        self.selection.set_left_out(0);
        *self = Self::open(&self.snapshot, Arc::clone(&self.selection), self.columns)?;
        if self.origin != origin {
            return Err(origin_is_gone());
        }
        self.seek(position)
    }

    /// How far back [`Self::seek`] gets.
    pub(super) fn start(&self) -> u64 {
        self.before
    }

    /// Moves to the file that has `position` files before it. Fails if there are fewer.
    pub(super) fn seek(&mut self, position: u64) -> Result<()> {
        if self.position > position {
            // Still within the batch.
            self.row = 0;
            self.position = self.before;
        }
        while self.position < position {
            if self.batch.is_none() && !self.load()? {
                return Err(after_the_end());
            }
            if !self.selection.is_everything() {
                // Rows are not positions here: each file is judged.
                if self.advance()?.is_none() {
                    return Err(after_the_end());
                }
                continue;
            }
            let Some(batch) = &self.batch else { continue };
            let (row, passed) = batch.skip(self.row, position - self.position);
            self.row = row;
            self.position += passed;
            if self.position < position {
                self.leave_batch();
            }
        }
        Ok(())
    }

    pub(super) fn pause(&mut self) {
        self.idle = true;
    }
}

fn after_the_end() -> Error {
    Error::internal("a page begins after the end of the list")
}

/// The error if the files of an [`Origin`] are not there any more.
pub(super) fn origin_is_gone() -> Error {
    Error::invalid(
        "The page token refers to files of the table's log that are gone. Please restart the query.",
    )
}
