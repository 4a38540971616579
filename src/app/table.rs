//! A table, as all requests for it share it: one look at its log for all who ask at the same time, and threads that
//! leave some to other tables.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::tables::TableUse;
use crate::delta::{DeltaTable, NextReads, ReleasedLists, Snapshot};
use crate::error::{Error, ErrorCode, Result};
use crate::flight::Flights;
use crate::gate::{self, Lane};
use crate::location::Location;
use crate::network::AllowedIps;
use crate::predicate::FileAccess;

/// A shared table, ready to be read: its log and its locations.
#[derive(Clone)]
pub struct OpenTable {
    shared: Arc<WarmTable>,
    /// The log, of which only those files may be read that are shared.
    delta: DeltaTable,
    /// The table's root.
    pub location: Location,
    /// Other locations that its log may refer to.
    pub allowed: Vec<Location>,
    /// The addresses from which the URLs of its files can be used; `None` for every address.
    pub(super) allowed_ips: Option<AllowedIps>,
    /// What is read of the newest version once it is open.
    next: NextReads,
}

/// What requests for one table have in common.
pub(super) struct WarmTable {
    delta: DeltaTable,
    lane: Lane,
    newest: Flights<(), Arc<Snapshot>>,
    versions: Flights<u64, Arc<Snapshot>>,
    /// When the table's storage did not answer, and how.
    unavailable: Mutex<Option<(Instant, Error)>>,
}

impl WarmTable {
    pub(super) fn new(delta: DeltaTable, lane: Lane) -> Self {
        Self {
            delta,
            lane,
            newest: Flights::default(),
            versions: Flights::default(),
            unavailable: Mutex::default(),
        }
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.delta.kept_bytes()
    }

    pub(super) fn release_paused(&self, bytes: usize) -> ReleasedLists {
        self.delta.release_paused(bytes)
    }

    async fn run<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&DeltaTable) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_available()?;
        let lane = self.lane.clone();
        lane.run(move || {
            let done = work(&self.delta);
            if let Err(error) = &done
                && error.code() == ErrorCode::TemporarilyUnavailable
                && !gate::is_stopped()
            {
                *self.unavailable() = Some((Instant::now(), error.clone()));
            }
            done
        })
        .await?
    }

    /// Fails as the storage did a moment ago.
    fn check_available(&self) -> Result<()> {
        let remembered = Duration::from_millis(self.lane.limits().unavailable_millis);
        let mut unavailable = self.unavailable();
        match unavailable.as_ref() {
            Some((at, error)) if at.elapsed() < remembered => Err(error.clone()),
            _ => {
                *unavailable = None;
                Ok(())
            }
        }
    }

    fn unavailable(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        self.unavailable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenTable {
    /// A table that shares its work with its clones, and nothing with tables that were opened in other ways.
    pub fn alone(delta: DeltaTable, lane: Lane, location: Location) -> Self {
        let shared = Arc::new(WarmTable::new(delta, lane));
        Self::new(shared, location, Vec::new(), FileAccess::everything())
    }

    pub(super) fn new(
        shared: Arc<WarmTable>,
        location: Location,
        allowed: Vec<Location>,
        access: FileAccess,
    ) -> Self {
        let delta = shared.delta.with_access(access);
        Self { shared, delta, location, allowed, allowed_ips: None, next: NextReads::default() }
    }

    /// The same table, if that much is read of its newest version once [`OpenTable::latest`] has returned it.
    #[must_use]
    pub fn to_read(self, next: NextReads) -> Self {
        Self { next, ..self }
    }

    /// The same table, whose files have URLs for these addresses only.
    #[must_use]
    pub(super) fn bound_to(self, allowed_ips: Option<AllowedIps>) -> Self {
        Self { allowed_ips, ..self }
    }

    /// The same table, for a request that uses it until its last clone, or the last one of its log, is dropped.
    pub(super) fn used(self, used: TableUse) -> Self {
        let delta = self.delta.holding(Arc::new(used));
        Self { delta, ..self }
    }

    /// The table's log, with the files that are shared. What blocks is for [`OpenTable::run`].
    pub fn delta(&self) -> &DeltaTable {
        &self.delta
    }

    /// The table's way to a thread.
    pub fn lane(&self) -> &Lane {
        &self.shared.lane
    }

    /// Does work that blocks on a thread that may block. If the future is dropped, the storage gets no more
    /// requests.
    ///
    /// 503 at once if the table's storage did not answer a moment ago, or if too many wait for its bucket.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DeltaTable) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let delta = self.delta.clone();
        Arc::clone(&self.shared).run(move |_| work(&delta)).await
    }

    /// The newest version, from a look at the log that begins after this call, together with all who ask for it at the
    /// same time.
    pub async fn latest(&self) -> Result<Arc<Snapshot>> {
        let shared = Arc::clone(&self.shared);
        let next = self.next;
        self.shared.newest.join((), move || shared.run(move |delta| delta.latest_for(next))).await
    }

    /// An exact version, in the same way. Fails when there is no such version, or no longer.
    pub async fn at_version(&self, version: u64) -> Result<Arc<Snapshot>> {
        let newest = match self.latest().await {
            Ok(newest) if newest.version() == version => return Ok(newest),
            // Not shared: somebody else may have seen a newer version by now.
            Ok(newest) if newest.version() < version => {
                return self.run(move |delta| delta.at_version_of(&newest, version)).await;
            }
            Ok(newest) => Some(newest),
            Err(error) if error.code() == ErrorCode::TemporarilyUnavailable => return Err(error),
            // A commit that cannot be read does not stand in the way of the versions before it.
            Err(_) => None,
        };
        let shared = Arc::clone(&self.shared);
        let open = move |delta: &DeltaTable| match newest {
            Some(newest) => delta.at_version_of(&newest, version),
            None => delta.at_version_alone(version),
        };
        self.shared.versions.join(version, move || shared.run(open)).await
    }
}
