//! The active files of a version, as a stream of batches, and what is counted among them.

use std::sync::Arc;

use buoyant_kernel::scan::{ScanMetadata, StatsOptions};
use buoyant_kernel::{DeltaResult, SnapshotRef};

use super::batch::Batch;
use super::checksum::Checksum;
use super::engine::LogEngine;
use super::failure::{OpenError, damaged, failure, is_damage, unpanicked};
use super::file_selection::FileSelection;
use super::metadata::FileStats;
use super::open::{open_mended, open_without_checkpoint};
use super::repeats::{Repeats, SeenFiles};
use super::snapshot::{Snapshot, Totals};
use super::totals;
use crate::error::{Error, Result};
use crate::protocol::capabilities::TableFeatures;

/// Which columns of the log are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// Everything an [`AddFile`](super::AddFile) has.
    All,
    /// Everything but the statistics.
    WithoutStats,
}

/// The active files of a version, read as the iterator advances. It ends after an error. Each file is there once.
///
/// Only when it has returned `None` without an error before is the list complete.
pub struct Scan {
    batches: Option<Batches>,
    replay: Replay,
    /// What a checkpoint named so far. Of commits, the kernel keeps account itself.
    seen: Option<SeenFiles>,
    /// Which files are named again, known once one seems to be.
    repeats: Option<Repeats>,
}

type Batches = Box<dyn Iterator<Item = DeltaResult<ScanMetadata>> + Send>;

/// What batches are read from.
struct Replay {
    kernel: SnapshotRef,
    engine: Arc<LogEngine>,
}

impl Replay {
    fn start(&self, stats: StatsOptions) -> Result<Batches, OpenError> {
        let open = || {
            let scan =
                self.kernel.clone().scan_builder().with_stats(stats).without_row_transforms().build()?;
            scan.scan_metadata(self.engine.as_ref()).map(|batches| Box::new(batches) as Batches)
        };
        Ok(unpanicked(open).map_err(OpenError::Damaged)??)
    }

    /// Reads every file that the scan reads, to tell which ones are named again.
    fn repeats(&self) -> Result<Repeats> {
        let mut repeats = Repeats::default();
        let left_out = self.engine.selection().map(|selection| selection.left_out());
        let mut batches = self.start(StatsOptions::none()).map_err(OpenError::into_error)?;
        while let Some(batch) = self.next(&mut batches).transpose()? {
            repeats.read(&batch);
        }
        if let (Some(selection), Some(left_out)) = (self.engine.selection(), left_out) {
            selection.set_left_out(left_out);
        }
        Ok(repeats)
    }

    fn next(&self, batches: &mut Batches) -> Option<Result<Batch>> {
        let next = match unpanicked(|| batches.next()) {
            Ok(next) => next?,
            Err(error) => return Some(Err(error)),
        };
        Some(next.map_err(failure).and_then(|scanned| {
            let (data, selected) = scanned.scan_files.into_parts();
            Batch::new(data, selected, self.engine.mends())
        }))
    }
}

impl Scan {
    pub(super) fn new(
        snapshot: &Snapshot,
        columns: Columns,
        selection: Option<&Arc<FileSelection>>,
    ) -> Result<Self, OpenError> {
        let stats = match columns {
            Columns::All if snapshot.has_stats_in_structs_only() => StatsOptions::all(),
            Columns::All => StatsOptions::json_only(),
            Columns::WithoutStats => StatsOptions::none(),
        };
        let engine = match selection {
            Some(selection) => Arc::new(snapshot.engine().selecting(selection)),
            None => Arc::clone(snapshot.engine()),
        };
        let replay = Replay { kernel: Arc::clone(snapshot.kernel()), engine };
        let batches = replay.start(stats)?;
        let seen = snapshot.checkpoint().map(|_| SeenFiles::default());
        Ok(Self { batches: Some(batches), replay, seen, repeats: None })
    }

    /// About how many bytes of memory it takes: the files that were seen, and what was fetched of a checkpoint.
    pub(super) fn kept_bytes(&self) -> usize {
        let reads_checkpoint = self.seen.is_some() && self.batches.is_some();
        let fetched = if reads_checkpoint { self.replay.engine.store().row_group_bytes() } else { 0 };
        fetched + self.seen.as_ref().map_or(0, SeenFiles::kept_bytes)
    }

    /// The version as the kernel replays it.
    pub(super) fn kernel(&self) -> &SnapshotRef {
        &self.replay.kernel
    }

    /// Whether actions are put right before they are read.
    pub(super) fn mends(&self) -> bool {
        self.replay.engine.mends()
    }

    /// Takes files out of a batch that were there before. The log breaks Delta's protocol then; Spark reads it.
    fn take_out_repeats(&mut self, batch: &mut Batch) -> Result<()> {
        let Some(seen) = &mut self.seen else { return Ok(()) };
        let first = seen.files();
        let suspects = seen.read(batch);
        if suspects.is_empty() {
            return Ok(());
        }
        if self.repeats.is_none() {
            self.repeats = Some(self.replay.repeats()?);
        }
        let Some(repeats) = &self.repeats else { return Ok(()) };
        for suspect in suspects.into_iter().filter(|suspect| repeats.contains(first + suspect.number)) {
            batch.leave_out(suspect.row);
        }
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batches = self.batches.take()?;
        let batch = self.replay.next(&mut batches)?.and_then(|mut batch| {
            self.take_out_repeats(&mut batch)?;
            Ok(batch)
        });
        if batch.is_ok() {
            self.batches = Some(batches);
        }
        Some(batch)
    }
}

impl Snapshot {
    /// The same with the deletion vectors, which [`Self::has_deletion_vectors`] looks for.
    pub fn exact_features(&self) -> Result<TableFeatures> {
        let mut features = self.features().clone();
        if features.may_have_vectors {
            features.set_vectors(self.has_deletion_vectors()?);
        }
        Ok(features)
    }

    /// The number of files and their size: from a version checksum (`.crc`), or else from one pass over the log. The
    /// result is remembered.
    pub fn file_stats(&self) -> Result<FileStats> {
        match (self.counted.get(), self.checksum()?) {
            (None, Some(checksum)) => Ok(checksum.file_stats()),
            _ => self.count_files(),
        }
    }

    /// Whether a file has a deletion vector: from a version checksum, or else from one pass over the log. The result is
    /// remembered.
    pub fn has_deletion_vectors(&self) -> Result<bool> {
        match (self.counted.get(), self.checksum()?.and_then(|checksum| checksum.num_deletion_vectors)) {
            (None, Some(number)) => Ok(number > 0),
            _ => Ok(self.totals()?.has_vectors),
        }
    }

    /// Reads the version checksum if a listing that was made just now has it, and never otherwise.
    pub(super) fn find_checksum(&self, is_listed: bool) {
        if !is_listed {
            self.checksum.get_or_init(|| None);
        } else if let Err(error) = self.checksum() {
            // It is asked for again when it is needed.
            tracing::debug!(error = %error, "a version checksum cannot be read");
        }
    }

    fn checksum(&self) -> Result<Option<Checksum>> {
        if let Some(known) = self.checksum.get() {
            return Ok(*known);
        }
        // Read before the cell is locked: a request to the store may take long, and its failure must not be remembered.
        let checksum = Checksum::read(self.engine(), self.version())?;
        Ok(*self.checksum.get_or_init(|| checksum))
    }

    /// Counts the files in one pass over the log, without their statistics. The count is remembered.
    pub fn count_files(&self) -> Result<FileStats> {
        self.totals().map(|totals| totals.stats)
    }

    fn totals(&self) -> Result<Totals> {
        if let Some(known) = self.counted.get() {
            return Ok(*known);
        }
        let totals = loop {
            let mends = self.mends();
            match self.count() {
                Err(error) if is_damage(&error) => self.mend(mends, error)?,
                counted => break counted?,
            }
        };
        Ok(*self.counted.get_or_init(|| totals))
    }

    fn count(&self) -> Result<Totals> {
        let is_usual = self.mended.get().is_none() && !self.has_stand_in() && !self.engine().mends();
        if is_usual && let Some(totals) = totals::count(self)? {
            return Ok(totals);
        }
        let mut totals = Totals { stats: FileStats { num_files: 0, size_bytes: 0 }, has_vectors: false };
        for batch in self.open_scan(Columns::WithoutStats, None)? {
            let batch = batch?;
            let (files, bytes) = batch.totals()?;
            totals.has_vectors |= batch.has_deletion_vectors();
            totals.stats.num_files += files;
            totals.stats.size_bytes = totals
                .stats
                .size_bytes
                .checked_add(bytes)
                .ok_or_else(|| damaged("the sizes of the files add up to more than 64 bits"))?;
        }
        Ok(totals)
    }

    /// The active files, batch by batch, read as the iterator advances.
    pub fn scan(&self) -> Result<Scan> {
        self.open_scan(Columns::All, None)
    }

    /// The same with some of the columns. With a selection, files that it does not have may be missing; of a file that a
    /// checkpoint names twice, against Delta's protocol, the first entry that is selected counts. A damaged footer of a
    /// checkpoint shows here at the latest. What shows later fails the scan.
    pub(super) fn open_scan(&self, columns: Columns, selection: Option<&Arc<FileSelection>>) -> Result<Scan> {
        if let Some(mended) = self.mended.get() {
            return mended.open_scan(columns, selection);
        }
        match Scan::new(self, columns, selection) {
            Ok(scan) => Ok(scan),
            Err(OpenError::Final(error)) => Err(error),
            Err(OpenError::Damaged(error)) => {
                // Not inside `get_or_init`, which would hold other scans up while the log is read. Of two that are opened
                // at the same time, both use the first. It may be damaged in turn, and then does the same.
                let mended = open_without_checkpoint(self, error)?;
                self.mended.get_or_init(|| Box::new(mended)).open_scan(columns, selection)
            }
        }
    }

    /// How many times this version was built in another way because of what is damaged.
    pub(super) fn mends(&self) -> usize {
        self.mended.get().map_or(0, |mended| 1 + mended.mends())
    }

    /// Lets scans put actions right that one was stopped by. `mends` is what [`Self::mends`] was when that scan was
    /// opened: others may have come across the same damage since. `error` is what it was stopped with, and stays the error
    /// if nothing more can help.
    pub(super) fn mend(&self, mends: usize, error: Error) -> Result<()> {
        let scanned = self.scanned();
        if self.mends() > mends {
            return Ok(());
        }
        if scanned.engine().mends() {
            return Err(error);
        }
        match open_mended(scanned) {
            Ok(mended) => {
                scanned.mended.get_or_init(|| Box::new(mended));
                Ok(())
            }
            Err(other) if other.is_temporary() => Err(other),
            // What stopped the scan is what is wrong with the log; that it cannot be put right says less.
            Err(_) => Err(error),
        }
    }

    /// The snapshot that scans read: this one, or the same version as it was built because of what is damaged.
    pub(super) fn scanned(&self) -> &Self {
        self.mended.get().map_or(self, |mended| mended.scanned())
    }
}
