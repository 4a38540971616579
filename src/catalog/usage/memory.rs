//! What recipients have used of their limits, counted in the memory of a server with a share file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use super::{Counted, Window, too_many_bytes, too_many_requests, warn_of};
use crate::catalog::restrictions::Restrictions;
use crate::error::Result;

/// What recipients of a share file have used, by their names.
#[derive(Debug, Default)]
pub(in crate::catalog) struct MemoryUsage(Mutex<HashMap<Arc<str>, Used>>);

/// The sums of one recipient, with the windows that they are of.
#[derive(Debug, Default)]
struct Used {
    requests: Option<(Window, u64)>,
    bytes: Option<(Window, u64)>,
}

/// The sum of a window; that of another one is over.
fn sum(of: Option<(Window, u64)>, window: Window) -> u64 {
    of.filter(|(other, _)| *other == window).map_or(0, |(_, sum)| sum)
}

impl MemoryUsage {
    /// Counts a request, or refuses it with 429.
    pub(in crate::catalog) fn admit(
        &self,
        recipient: &Arc<str>,
        restrictions: &Restrictions,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut all = self.used();
        let used = all.entry(Arc::clone(recipient)).or_default();
        if let Some(limit) = restrictions.bytes_per_day
            && sum(used.bytes, Window::day(now)) >= limit
        {
            return Err(too_many_bytes(limit, now));
        }
        if let Some(limit) = restrictions.requests_per_minute {
            let window = Window::minute(now);
            let before = sum(used.requests, window);
            if before >= limit {
                return Err(too_many_requests(limit, now));
            }
            used.requests = Some((window, before + 1));
            warn_of(Counted::Requests, recipient, limit, before, before + 1);
        }
        Ok(())
    }

    /// Adds bytes that were granted.
    pub(in crate::catalog) fn charge(
        &self,
        recipient: &Arc<str>,
        limit: u64,
        bytes: u64,
        now: DateTime<Utc>,
    ) {
        let mut all = self.used();
        let used = all.entry(Arc::clone(recipient)).or_default();
        let window = Window::day(now);
        let before = sum(used.bytes, window);
        let after = before.saturating_add(bytes);
        used.bytes = Some((window, after));
        warn_of(Counted::Bytes, recipient, limit, before, after);
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Arc<str>, Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
