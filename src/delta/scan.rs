//! The active files of a version, as a stream of batches.

use buoyant_kernel::DeltaResult;
use buoyant_kernel::scan::{ScanMetadata, StatsOptions};

use super::actions::Batch;
use super::failure::{Refusal, failure, unpanicked};
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

/// The active files of a version, read as the iterator advances. It ends after an error.
///
/// Only when it has returned `None` without an error before is the list complete.
pub struct Scan {
    batches: Option<Box<dyn Iterator<Item = DeltaResult<ScanMetadata>> + Send>>,
}

impl Scan {
    pub(super) fn new(snapshot: &Snapshot, columns: Columns) -> Result<Self, Refusal> {
        let stats = match columns {
            Columns::All if snapshot.has_stats_in_structs_only() => StatsOptions::all(),
            Columns::All => StatsOptions::json_only(),
            Columns::WithoutStats => StatsOptions::none(),
        };
        let engine = snapshot.engine().as_ref();
        let open = || {
            let scan = snapshot
                .kernel()
                .clone()
                .scan_builder()
                .with_stats(stats)
                .without_row_transforms()
                .build()?;
            scan.scan_metadata(engine).map(|batches| Box::new(batches) as Box<_>)
        };
        let batches = unpanicked(open).map_err(Refusal::Damaged)??;
        Ok(Self { batches: Some(batches) })
    }
}

impl Iterator for Scan {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batches = self.batches.take()?;
        let next = match unpanicked(|| batches.next()) {
            Ok(next) => next?,
            Err(error) => return Some(Err(error)),
        };
        let batch = next.map_err(failure).and_then(|scanned| {
            let (data, selected) = scanned.scan_files.into_parts();
            Batch::new(data, selected)
        });
        if batch.is_ok() {
            self.batches = Some(batches);
        }
        Some(batch)
    }
}
