//! Tables that were read, kept for later requests within a limit in bytes.
//!
//! What a table keeps is estimated whenever a request has used it. If all of them together keep too much, the ones that
//! were used longest ago lose their paused lists first, and are then dropped. A table that a request uses stays, because a
//! second copy of it would be opened for the next request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::WarmTable;
use crate::delta::ReleasedLists;
use crate::error::Result;
use crate::location::Location;

/// The tables that were read.
pub(super) struct WarmTables {
    limit: usize,
    /// The one used last at the end.
    kept: Mutex<Vec<KeptTable>>,
}

struct KeptTable {
    location: Location,
    table: Arc<WarmTable>,
    /// How many requests use it.
    users: usize,
    /// What it kept when the last request that used it had ended.
    bytes: usize,
}

/// A request's use of a table, which ends when this is dropped.
pub(super) struct TableUse {
    tables: Arc<WarmTables>,
    table: Arc<WarmTable>,
}

/// What was given up to keep less.
enum Release {
    /// Lists of a table that were paused.
    Paused { location: Location, lists: ReleasedLists, bytes: usize },
    /// A table.
    Table(KeptTable),
}

impl WarmTables {
    /// Tables that keep at most so many bytes together.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, kept: Mutex::default() })
    }

    /// The table at a location, for a request. It is opened unless it was opened before.
    pub(super) fn get(
        self: &Arc<Self>,
        location: &Location,
        open: impl FnOnce() -> Result<WarmTable>,
    ) -> Result<(Arc<WarmTable>, TableUse)> {
        if let Some(table) = used(&mut self.kept(), location) {
            return Ok(self.begin(table));
        }
        // The lock is not held meanwhile, so another request may be faster.
        let opened = Arc::new(open()?);
        let mut kept = self.kept();
        let table = used(&mut kept, location).unwrap_or_else(|| {
            let table = Arc::clone(&opened);
            kept.push(KeptTable { location: location.clone(), table, users: 1, bytes: 0 });
            opened
        });
        Ok(self.begin(table))
    }

    fn begin(self: &Arc<Self>, table: Arc<WarmTable>) -> (Arc<WarmTable>, TableUse) {
        (Arc::clone(&table), TableUse { tables: Arc::clone(self), table })
    }

    fn end(&self, table: &Arc<WarmTable>) {
        let bytes = table.kept_bytes();
        let mut released = Vec::new();
        let (tables, kept_bytes) = {
            let mut kept = self.kept();
            if let Some(used) = kept.iter_mut().find(|kept| Arc::ptr_eq(&kept.table, table)) {
                used.users = used.users.saturating_sub(1);
                used.bytes = bytes;
            }
            while let Some(release) = self.release(&mut kept) {
                released.push(release);
            }
            (kept.len(), total(&kept))
        };
        // None of these lines belongs to the request that happened to end.
        tracing::debug!(parent: None, tables, kept_bytes, "a request has used a table");
        // Outside the lock, because it takes a while to free a large table or a list.
        for release in released {
            release.log(tables, kept_bytes, self.limit);
        }
    }

    /// Gives something up if too much is kept.
    fn release(&self, kept: &mut Vec<KeptTable>) -> Option<Release> {
        let excess = total(kept).checked_sub(self.limit).filter(|excess| *excess > 0)?;
        let is_idle = |kept: &KeptTable| kept.users == 0;
        // One that is too large by itself goes before those that were used longer ago and would all have to go for it.
        let too_large = kept.iter().position(|kept| is_idle(kept) && kept.bytes > self.limit);
        let at = too_large.or_else(|| kept.iter().position(is_idle))?;
        let oldest = kept.get_mut(at)?;
        let lists = oldest.table.release_paused(excess);
        if lists.count() > 0 {
            let before = std::mem::replace(&mut oldest.bytes, oldest.table.kept_bytes());
            let bytes = before.saturating_sub(oldest.bytes);
            return Some(Release::Paused { location: oldest.location.clone(), lists, bytes });
        }
        Some(Release::Table(kept.remove(at)))
    }

    fn kept(&self) -> MutexGuard<'_, Vec<KeptTable>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Release {
    /// Says what was given up, and how many tables keep how much after that.
    fn log(self, tables: usize, kept_bytes: usize, limit_bytes: usize) {
        match self {
            Self::Paused { location, lists, bytes } => {
                let table = location.to_string();
                tracing::info!(
                    parent: None,
                    table,
                    lists = lists.count(),
                    freed_bytes = bytes,
                    tables,
                    kept_bytes,
                    limit_bytes,
                    "paused lists of a table are no longer kept"
                );
            }
            Self::Table(KeptTable { location, bytes, .. }) => {
                let table = location.to_string();
                tracing::info!(
                    parent: None,
                    table,
                    freed_bytes = bytes,
                    tables,
                    kept_bytes,
                    limit_bytes,
                    "a table is no longer kept"
                );
            }
        }
    }
}

impl Drop for TableUse {
    fn drop(&mut self) {
        self.tables.end(&self.table);
    }
}

fn total(kept: &[KeptTable]) -> usize {
    kept.iter().map(|kept| kept.bytes).sum()
}

/// The table at a location, which moves to the end as the one used last, and has one more user.
fn used(kept: &mut [KeptTable], location: &Location) -> Option<Arc<WarmTable>> {
    let at = kept.iter().position(|kept| kept.location == *location)?;
    kept[at..].rotate_left(1);
    kept.last_mut().map(|kept| {
        kept.users += 1;
        Arc::clone(&kept.table)
    })
}
