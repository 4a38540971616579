//! Whether a table is still at the version that is known, from requests for two files of its log: the commit of that
//! version, and the next one. S3 charges six times as much for a listing as for both.

use buoyant_kernel::FileMeta;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt as _, Result};
use futures::future::try_join;
use url::Url;

use super::failure::{Cause, store_cause};
use super::log_store::LogStore;

/// There is a new commit, or the table was created again. Only a listing shows which.
struct Changed;

/// Whether the commit `known` is still the same file, and there is no file `next`. If the result is `false`, only a listing
/// can tell what happened.
///
/// Fails if the store does not answer. It would not answer a listing either.
pub(super) async fn is_unchanged(store: &LogStore, known: &FileMeta, next: &Url) -> Result<bool> {
    let (Ok(path), Ok(next)) = (Path::from_url_path(known.location.path()), Path::from_url_path(next.path()))
    else {
        return Ok(false);
    };
    let is_same = async {
        match store.head(&path).await {
            Ok(found) if is_same(store, known, &found) => Ok(None),
            Ok(_) => Err(Changed),
            Err(error) if store_cause(&error) == Cause::Missing => Err(Changed),
            Err(error) => Ok(Some(error)),
        }
    };
    let is_missing = async {
        // GET, not HEAD: a new commit is kept and need not be read again, and errors of HEAD have no body that says whether
        // S3 is busy or refuses.
        match store.read_commit(&next).await {
            Ok(()) => Err(Changed),
            Err(error) if store_cause(&error) == Cause::Missing => Ok(None),
            Err(error) => Ok(Some(error)),
        }
    };
    match try_join(is_same, is_missing).await {
        Ok((None, None)) => Ok(true),
        // Other errors may have to do with the one file: without `s3:ListBucket`, S3 answers 403 for one that does not exist.
        Ok((head, get)) => get.into_iter().chain(head).find(is_unavailable).map_or(Ok(false), Err),
        Err(Changed) => Ok(false),
    }
}

fn is_unavailable(error: &StoreError) -> bool {
    matches!(store_cause(error), Cause::Unavailable | Cause::NoCredentials)
}

/// Whether a file is the one that was listed.
fn is_same(store: &LogStore, listed: &FileMeta, found: &ObjectMeta) -> bool {
    let time = found.last_modified.timestamp_millis();
    if found.size != listed.size || time / 1000 != listed.last_modified / 1000 {
        return false;
    }
    // HTTP tells times to the second. Where listings tell more, a file of the same second may be another one.
    time == listed.last_modified || (time % 1000 == 0 && store.has_listed(found, listed.last_modified))
}
