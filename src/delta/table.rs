//! A table: where its versions are opened, and the newest one kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buoyant_kernel::object_store::ObjectStore;
use url::Url;

use super::changes::Changes;
use super::engine::LogEngine;
use super::history::{self, Log};
use super::open::{Opener, Refreshed, not_available};
use super::snapshot::Snapshot;
use crate::error::{ErrorCode, Result};

/// How many older versions are kept: enough for the pages of a few queries of past versions.
const OLDER_KEPT: usize = 4;

/// A Delta table at a location. Cheap to clone; clones share the engine and the newest snapshot.
#[derive(Clone)]
pub struct DeltaTable(Arc<Shared>);

struct Shared {
    opener: Arc<Opener>,
    known: Mutex<Known>,
    /// Held while the first snapshot is opened, so that many first requests open it once.
    opening: Mutex<()>,
}

#[derive(Default)]
struct Known {
    newest: Option<Arc<Snapshot>>,
    /// Versions below the newest, most recently opened last.
    older: VecDeque<Arc<Snapshot>>,
}

impl DeltaTable {
    /// A table at `root`, which ends with a slash and names a place in `store`. `runtime` is multi-threaded
    /// and runs the store's requests. Nothing is read yet.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, root: Url, runtime: tokio::runtime::Handle) -> Self {
        let engine = Arc::new(LogEngine::new(store, &root, runtime));
        Self(Arc::new(Shared {
            opener: Arc::new(Opener { root, engine }),
            known: Mutex::default(),
            opening: Mutex::new(()),
        }))
    }

    /// The newest version. One listing where nothing was committed since the last call.
    ///
    /// Never an older version than an earlier call returned, unless the table was made anew.
    pub fn latest(&self) -> Result<Arc<Snapshot>> {
        let opener = &self.0.opener;
        let newest = self.known().newest.clone();
        let Some(newest) = newest else {
            let opening = self.0.opening.lock().unwrap_or_else(PoisonError::into_inner);
            if self.known().newest.is_none() {
                return Ok(self.keep(opener.open(None)?));
            }
            drop(opening);
            return self.latest();
        };
        Ok(match opener.refresh(&newest)? {
            Refreshed::Unchanged => newest,
            Refreshed::Newer(snapshot) => self.keep(snapshot),
            Refreshed::Replaced(snapshot) => {
                let snapshot = Arc::new(snapshot);
                *self.known() = Known { newest: Some(Arc::clone(&snapshot)), older: VecDeque::new() };
                snapshot
            }
        })
    }

    /// The number of the newest version.
    pub fn latest_version(&self) -> Result<u64> {
        self.latest().map(|snapshot| snapshot.version())
    }

    /// An exact version. Fails when there is no such version, or no longer.
    pub fn at_version(&self, version: u64) -> Result<Arc<Snapshot>> {
        let newest = match self.latest() {
            Ok(newest) => newest,
            // A commit that cannot be read does not stand in the way of the versions before it.
            Err(error) if error.code() != ErrorCode::TemporarilyUnavailable => {
                return self.0.opener.open(Some(version)).map(Arc::new);
            }
            Err(error) => return Err(error),
        };
        if newest.version() == version {
            return Ok(newest);
        }
        if newest.version() < version {
            let range = Log::list(&self.0.opener.engine)?.range();
            return Err(not_available(version, range));
        }
        let kept = self.known().older.iter().find(|kept| kept.version() == version).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let snapshot = Arc::new(self.0.opener.open(Some(version))?);
        let older = &mut self.known().older;
        older.push_back(Arc::clone(&snapshot));
        if older.len() > OLDER_KEPT {
            older.pop_front();
        }
        Ok(snapshot)
    }

    /// The commits from `start` to `end`, both included, read as the iterator advances. `newest` is a snapshot
    /// at `end` or later. Fails when a commit of the range is not available any more.
    pub fn changes(&self, newest: &Snapshot, start: u64, end: u64) -> Result<Changes> {
        Changes::new(newest, start, end)
    }

    /// The newest version that was committed at `millis` (since the Unix epoch) or before. Fails when there is
    /// none, and when the newest version of the table is older than `millis`.
    pub fn version_as_of(&self, millis: i64) -> Result<u64> {
        history::version_as_of(&*self.latest()?, millis)
    }

    /// The oldest version that was committed at `millis` (since the Unix epoch) or after. Fails when there is
    /// none.
    pub fn version_at_or_after(&self, millis: i64) -> Result<u64> {
        history::version_at_or_after(&*self.latest()?, millis)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
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
