//! A table: where its versions are opened, and the newest one kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buoyant_kernel::object_store::ObjectStore;
use buoyant_kernel::snapshot::IncrementalReplay;
use buoyant_kernel::{Snapshot as KernelSnapshot, SnapshotRef};
use url::Url;

use super::engine::{Hidden, LogEngine};
use super::failure::{Cause, cause, failure};
use super::history::{self, Log};
use super::scan::unpanicked;
use super::snapshot::Snapshot;
use crate::error::{Error, Result};

/// How many commits may be replayed to bring a version checksum up to date.
const CHECKSUM_REPLAY: IncrementalReplay = IncrementalReplay::UpToCommits(50);

/// A Delta table at a location. Cheap to clone; clones share the engine and the newest snapshot.
#[derive(Clone)]
pub struct DeltaTable(Arc<Shared>);

struct Shared {
    root: Url,
    engine: Arc<LogEngine>,
    newest: Mutex<Option<Arc<Snapshot>>>,
}

impl DeltaTable {
    /// A table at `root`, which ends with a slash and names a place in `store`. `runtime` is multi-threaded
    /// and runs the store's requests. Nothing is read yet.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, root: Url, runtime: tokio::runtime::Handle) -> Self {
        let engine = Arc::new(LogEngine::new(store, &root, runtime));
        Self(Arc::new(Shared { root, engine, newest: Mutex::new(None) }))
    }

    /// The newest version. One listing where nothing was committed since the last call.
    pub fn latest(&self) -> Result<Arc<Snapshot>> {
        let Some(known) = self.newest().clone() else {
            let opened = self.open(None)?;
            return Ok(self.keep(opened));
        };
        let refreshed = unpanicked(|| {
            KernelSnapshot::builder_from(Arc::clone(known.kernel()))
                .with_incremental_crc_replay(CHECKSUM_REPLAY)
                .build(known.engine().as_ref())
        })?;
        match refreshed {
            Ok(kernel) if Arc::ptr_eq(&kernel, known.kernel()) || kernel.version() == known.version() => {
                Ok(known)
            }
            Ok(kernel) => {
                let snapshot = Snapshot::new(kernel, Arc::clone(known.engine()))?;
                Ok(self.keep(Arc::new(snapshot)))
            }
            Err(error) => match cause(&error) {
                Cause::Unavailable | Cause::Denied => Err(failure(error)),
                Cause::Missing | Cause::Unsupported | Cause::Damaged => {
                    let opened = self.open(None)?;
                    Ok(self.keep(opened))
                }
            },
        }
    }

    /// The number of the newest version.
    pub fn latest_version(&self) -> Result<u64> {
        self.latest().map(|snapshot| snapshot.version())
    }

    /// An exact version. Fails when there is no such version, or no longer.
    pub fn at_version(&self, version: u64) -> Result<Arc<Snapshot>> {
        let known = self.newest().clone().filter(|known| known.version() >= version);
        let newest = match known {
            Some(known) => known,
            None => self.latest()?,
        };
        match newest.version() {
            latest if latest == version => Ok(newest),
            latest if latest < version => Err(not_available(version, Some((0, latest)))),
            _ => self.open(Some(version)),
        }
    }

    /// The newest version that was committed at `millis` or before. Fails when there is none, and when the
    /// newest version of the table is older than `millis`.
    pub fn version_as_of(&self, millis: i64) -> Result<u64> {
        history::version_as_of(&*self.latest()?, millis)
    }

    /// The oldest version that was committed at `millis` or after. Fails when there is none.
    pub fn version_at_or_after(&self, millis: i64) -> Result<u64> {
        history::version_at_or_after(&*self.latest()?, millis)
    }

    fn newest(&self) -> MutexGuard<'_, Option<Arc<Snapshot>>> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a snapshot unless a newer one is known, and returns the newer of the two.
    fn keep(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let mut newest = self.newest();
        match newest.as_ref() {
            Some(known) if known.version() > snapshot.version() => Arc::clone(known),
            _ => Arc::clone(newest.insert(snapshot)),
        }
    }

    /// Builds a snapshot from nothing. Where the log is damaged, tries again without `_last_checkpoint`, then
    /// without the newest checkpoint, and so on, as long as what is left reaches back to a checkpoint or to
    /// version 0.
    fn open(&self, version: Option<u64>) -> Result<Arc<Snapshot>> {
        let error = match self.build(&self.0.engine, version) {
            Ok(snapshot) => return Ok(snapshot),
            Err(Refusal::Final(error)) => return Err(error),
            Err(Refusal::Damaged(error)) => error,
        };
        let log = Log::list(&self.0.engine)?;
        let Some(latest) = log.latest() else {
            return Err(
                Error::unreadable_table("The table cannot be read: table files missing.").with_source(error)
            );
        };
        if let Some(version) = version.filter(|&version| version > latest) {
            return Err(not_available(version, log.range()).with_source(error));
        }
        let mut hidden = Hidden { last_checkpoint: true, ..Hidden::default() };
        loop {
            let engine = Arc::new(self.0.engine.hiding(hidden.clone()));
            match self.build(&engine, version) {
                Ok(snapshot) => return Ok(snapshot),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Damaged(_)) => {}
            }
            let next = log.newest_checkpoint(version, &hidden.checkpoints);
            match next {
                Some(next) => hidden.checkpoints.insert(next),
                None => break,
            };
        }
        match version.zip(log.range()) {
            Some((version, (earliest, latest))) if version < earliest => {
                Err(not_available(version, Some((earliest, latest))).with_source(error))
            }
            _ => Err(error),
        }
    }

    fn build(&self, engine: &Arc<LogEngine>, version: Option<u64>) -> Result<Arc<Snapshot>, Refusal> {
        let build = || -> buoyant_kernel::DeltaResult<SnapshotRef> {
            let mut builder =
                KernelSnapshot::builder_for(&self.0.root).with_incremental_crc_replay(CHECKSUM_REPLAY);
            if let Some(version) = version {
                builder = builder.at_version(version);
            }
            builder.build(engine.as_ref())
        };
        let kernel = unpanicked(build).map_err(Refusal::Damaged)?.map_err(|error| match cause(&error) {
            Cause::Unavailable | Cause::Denied | Cause::Unsupported => Refusal::Final(failure(error)),
            Cause::Missing | Cause::Damaged => Refusal::Damaged(failure(error)),
        })?;
        Snapshot::new(kernel, Arc::clone(engine)).map(Arc::new).map_err(Refusal::Final)
    }
}

/// Why a snapshot could not be built.
enum Refusal {
    /// Another view of the log would not help.
    Final(Error),
    /// Another view of the log may do.
    Damaged(Error),
}

fn not_available(version: u64, range: Option<(u64, u64)>) -> Error {
    Error::invalid(match range {
        Some((earliest, latest)) => format!(
            "Cannot load table version {version}: it does not exist, or no longer. The available versions are \
             {earliest} to {latest}."
        ),
        None => format!("Cannot load table version {version}: it does not exist."),
    })
}
