//! The active files of a version, as a stream of batches.

use std::sync::Arc;

use buoyant_kernel::scan::{ScanMetadata, StatsOptions};
use buoyant_kernel::{DeltaResult, SnapshotRef};

use super::actions::Batch;
use super::engine::LogEngine;
use super::failure::{Refusal, failure, unpanicked};
use super::repeats::{Repeats, Seen};
use super::snapshot::Snapshot;
use crate::error::Result;

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
    source: Source,
    /// What a checkpoint named so far. Of commits, the kernel keeps account itself.
    seen: Option<Seen>,
    /// Which files are named again, known once one seems to be.
    repeats: Option<Repeats>,
}

type Batches = Box<dyn Iterator<Item = DeltaResult<ScanMetadata>> + Send>;

/// What batches are read from.
struct Source {
    kernel: SnapshotRef,
    engine: Arc<LogEngine>,
}

impl Source {
    fn open(&self, stats: StatsOptions) -> Result<Batches, Refusal> {
        let open = || {
            let scan =
                self.kernel.clone().scan_builder().with_stats(stats).without_row_transforms().build()?;
            scan.scan_metadata(self.engine.as_ref()).map(|batches| Box::new(batches) as Batches)
        };
        Ok(unpanicked(open).map_err(Refusal::Damaged)??)
    }

    /// Reads every file to tell which ones are named again.
    fn repeats(&self) -> Result<Repeats> {
        let mut repeats = Repeats::default();
        let mut batches = self.open(StatsOptions::none()).map_err(Refusal::into_error)?;
        while let Some(batch) = self.next(&mut batches).transpose()? {
            repeats.read(&batch);
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
    pub(super) fn new(snapshot: &Snapshot, columns: Columns) -> Result<Self, Refusal> {
        let stats = match columns {
            Columns::All if snapshot.has_stats_in_structs_only() => StatsOptions::all(),
            Columns::All => StatsOptions::json_only(),
            Columns::WithoutStats => StatsOptions::none(),
        };
        let source = Source { kernel: Arc::clone(snapshot.kernel()), engine: Arc::clone(snapshot.engine()) };
        let batches = source.open(stats)?;
        let seen = snapshot.checkpoint().map(|_| Seen::default());
        Ok(Self { batches: Some(batches), source, seen, repeats: None })
    }

    /// The version as the kernel replays it.
    pub(super) fn kernel(&self) -> &SnapshotRef {
        &self.source.kernel
    }

    /// Whether actions are put right before they are read.
    pub(super) fn mends(&self) -> bool {
        self.source.engine.mends()
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
            self.repeats = Some(self.source.repeats()?);
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
        let batch = self.source.next(&mut batches)?.and_then(|mut batch| {
            self.take_out_repeats(&mut batch)?;
            Ok(batch)
        });
        if batch.is_ok() {
            self.batches = Some(batches);
        }
        Some(batch)
    }
}
