//! What a version checksum (`.crc`) says that the kernel does not hand out.

use buoyant_kernel::Engine as _;
use serde::Deserialize;

use super::failure::{Cause, cause, failure};
use super::snapshot::Snapshot;
use crate::error::Result;

/// A larger checksum lists every file, and is not worth reading for one number.
const MOST_BYTES: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    num_deletion_vectors_opt: Option<u64>,
}

/// How many deletion vectors a version has; `None` if no checksum of that version tells.
pub(super) fn deletion_vectors(snapshot: &Snapshot) -> Result<Option<u64>> {
    let file = snapshot.kernel().log_segment().listed.latest_crc_file.as_ref();
    let Some(file) =
        file.filter(|file| file.version == snapshot.version() && file.location.size <= MOST_BYTES)
    else {
        return Ok(None);
    };
    let range = 0..file.location.size;
    let read =
        snapshot.engine().storage_handler().read_files(vec![(file.location.location.clone(), Some(range))]);
    match read.map_err(failure)?.next() {
        Some(Ok(bytes)) => {
            let checksum = serde_json::from_slice::<Checksum>(&bytes).ok();
            Ok(checksum.and_then(|checksum| checksum.num_deletion_vectors_opt))
        }
        // A checksum is a help and never needed.
        Some(Err(error)) if cause(&error) == Cause::Unavailable => Err(failure(error)),
        Some(Err(_)) | None => Ok(None),
    }
}
