//! Version checksums (`.crc`). They are read for their totals only, which save a pass over the files. Protocol and
//! metadata are the log's to tell: a checksum that is wrong about them would hide columns, and an answer must not
//! depend on whether one has been written yet.

use buoyant_kernel::Engine as _;
use serde::Deserialize;
use url::Url;

use super::engine::LogEngine;
use super::failure::{Cause, cause, failure};
use super::metadata::FileStats;
use crate::error::Result;
use crate::s3_error::S3ErrorKind;

/// A larger checksum lists every file, and is not worth reading for its totals.
pub(super) const CHECKSUM_BYTES: u64 = 1024 * 1024;

/// The checksum of a version.
pub(super) fn checksum_name(engine: &LogEngine, version: u64) -> Url {
    engine.log_file(&format!("{version:020}.crc"))
}

/// What a checksum says of the files of a version.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checksum {
    num_files: u64,
    table_size_bytes: u64,
    /// Absent if the writer does not count them.
    #[serde(rename = "numDeletionVectorsOpt")]
    pub(super) num_deletion_vectors: Option<u64>,
}

impl Checksum {
    /// Reads the checksum of a version; `None` if there is none, or if it cannot be read for a reason that says nothing
    /// of the rest of the log.
    pub(super) fn read(engine: &LogEngine, version: u64) -> Result<Option<Self>> {
        let file = checksum_name(engine, version);
        let storage = engine.storage_handler();
        let read = storage.read_files(vec![(file, Some(0..CHECKSUM_BYTES))]).map_err(failure)?.next();
        match read {
            // A checksum that is cut off at the limit does not parse either, and is not needed.
            Some(Ok(bytes)) => Ok(serde_json::from_slice(&bytes).ok()),
            Some(Err(error))
                if matches!(
                    cause(&error),
                    Cause::Unavailable
                        | Cause::NoCredentials
                        | Cause::Storage(S3ErrorKind::Expired | S3ErrorKind::Clock)
                ) =>
            {
                Err(failure(error))
            }
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// The number of files and their size.
    pub(super) fn file_stats(self) -> FileStats {
        FileStats { num_files: self.num_files, size_bytes: self.table_size_bytes }
    }
}
