//! The active files of a version, as a stream of batches.

use buoyant_kernel::DeltaResult;
use buoyant_kernel::scan::{ScanMetadata, StatsOptions};

use super::actions::Batch;
use super::failure::{Cause, cause, failure, unpanicked};
use super::snapshot::Snapshot;
use crate::error::{Error, Result};

/// Which columns of the log are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// Everything an [`AddFile`](super::AddFile) has.
    All,
    /// Everything but the statistics.
    WithoutStats,
}

/// Why a scan could not be opened.
pub(super) enum ScanError {
    /// Another view of the log would not help.
    Final(Error),
    /// A checkpoint of the log is damaged.
    Damaged(Error),
}

impl ScanError {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Final(error) | Self::Damaged(error) => error,
        }
    }
}

/// The active files of a version, read as the iterator advances. It ends after an error.
///
/// Only when it has returned `None` without an error before is the list complete.
pub struct Scan {
    batches: Option<Box<dyn Iterator<Item = DeltaResult<ScanMetadata>> + Send>>,
}

impl Scan {
    pub(super) fn new(snapshot: &Snapshot, columns: Columns) -> Result<Self, ScanError> {
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
        let batches = unpanicked(open).map_err(ScanError::Damaged)?.map_err(|error| match cause(&error) {
            Cause::Unavailable | Cause::Denied | Cause::Unsupported => ScanError::Final(failure(error)),
            Cause::Missing | Cause::Damaged => ScanError::Damaged(failure(error)),
        })?;
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
