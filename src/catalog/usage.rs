//! What recipients have used of their limits: the windows in which it is counted, and the answer when a limit is reached.
//!
//! Windows are minutes and days in UTC. What a catalog in DynamoDB counts is in the table, for all servers together; a
//! server with a share file counts in its memory.

#[cfg(feature = "cli")]
mod memory;

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::restrictions::shown_bytes;
use crate::error::Error;
#[cfg(feature = "cli")]
pub(super) use memory::MemoryUsage;

/// A minute or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// How many seconds it has.
    seconds: i64,
    /// When it begins, in seconds since 1970.
    begin: i64,
}

impl Window {
    /// The minute of a time.
    pub(super) fn minute(now: DateTime<Utc>) -> Self {
        Self::of(now, 60)
    }

    /// The day of a time.
    pub(super) fn day(now: DateTime<Utc>) -> Self {
        Self::of(now, 24 * 3600)
    }

    fn of(now: DateTime<Utc>, seconds: i64) -> Self {
        let now = now.timestamp();
        Self { seconds, begin: now - now.rem_euclid(seconds) }
    }

    /// When the next one begins, in seconds since 1970.
    pub(super) fn end(self) -> i64 {
        self.begin + self.seconds
    }

    /// When it begins, in a form such as `%Y-%m-%d`.
    pub(super) fn format(self, form: &str) -> String {
        DateTime::from_timestamp(self.begin, 0)
            .map(|begin| begin.format(form).to_string())
            .unwrap_or_default()
    }

    /// How long it goes on, in whole seconds and at least one.
    fn left(self, now: DateTime<Utc>) -> Duration {
        Duration::from_secs(u64::try_from(self.end() - now.timestamp()).unwrap_or(0).max(1))
    }
}

/// The answer to a request beyond the limit of a minute: 429.
pub(super) fn too_many_requests(limit: u64, now: DateTime<Utc>) -> Error {
    let left = Window::minute(now).left(now);
    Error::too_many_requests(format!(
        "This recipient has a limit of {limit} requests per minute, and has sent them. Try again in {} seconds.",
        left.as_secs()
    ))
    .with_retry_after(left)
}

/// The answer to a request after the limit of a day was reached: 429.
pub(super) fn too_many_bytes(limit: u64, now: DateTime<Utc>) -> Error {
    Error::too_many_requests(format!(
        "This recipient has a limit of {} per day, and has been given URLs of files with as many bytes. Try again after \
         midnight UTC.",
        shown_bytes(limit)
    ))
    .with_retry_after(Window::day(now).left(now))
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Requests,
    Bytes,
}

/// Tells the log that a recipient nears its limit, when a sum reaches four fifths of it: once in each window.
pub(super) fn warn_of(counted: Counted, recipient: &str, limit: u64, before: u64, after: u64) {
    let soft = limit - limit / 5;
    if before < soft && after >= soft {
        let name = match counted {
            Counted::Requests => "requestsPerMinute",
            Counted::Bytes => "bytesPerDay",
        };
        tracing::warn!(
            recipient,
            limit.name = name,
            limit.value = limit,
            used = after,
            "a recipient has used 80 % of a limit"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::restrictions::Restrictions;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn windows_end_with_the_minute_and_the_day_in_utc() {
        let now = at("2026-11-27T07:31:20.9Z");
        assert_eq!(Window::minute(now).format("%Y-%m-%dT%H:%M"), "2026-11-27T07:31");
        assert_eq!(Window::day(now).format("%Y-%m-%d"), "2026-11-27");
        assert_eq!(too_many_requests(60, now).retry_after(), Some(Duration::from_secs(40)));
        assert_eq!(too_many_bytes(60, now).retry_after(), Some(Duration::from_secs(59_320)));
        assert_eq!(Window::minute(at("2026-11-27T07:31:00Z")).left(at("2026-11-27T07:31:00Z")).as_secs(), 60);
        assert_eq!(Window::day(at("2026-11-27T23:59:59.9Z")).left(at("2026-11-27T23:59:59.9Z")).as_secs(), 1);
        let message = too_many_requests(60, now).message().to_owned();
        assert!(message.contains("60 requests per minute") && message.contains("in 40 seconds"), "{message}");
        assert!(too_many_bytes(10_000_000_000, now).message().contains("a limit of 10GB per day"));
    }

    #[test]
    fn so_many_requests_in_a_minute_and_the_next_minute_begins_from_nothing() {
        let usage = MemoryUsage::default();
        let of = |limit| Restrictions { requests_per_minute: Some(limit), ..Restrictions::default() };
        let admit = |who: &str, limit: u64, now: &str| usage.admit(&who.into(), &of(limit), at(now)).is_ok();
        let passed = (0..20).filter(|_| admit("acme", 10, "2026-11-27T07:31:20Z")).count();
        assert_eq!(passed, 10);
        assert!(admit("globex", 10, "2026-11-27T07:31:20Z"), "another recipient");
        assert!(!admit("acme", 10, "2026-11-27T07:31:59Z") && admit("acme", 10, "2026-11-27T07:32:00Z"));
        // A limit that is changed counts from then on.
        assert!(!admit("acme", 1, "2026-11-27T07:32:01Z") && admit("acme", 2, "2026-11-27T07:32:01Z"));
    }

    #[test]
    fn the_answer_that_passes_the_limit_of_a_day_is_the_last_one() {
        let usage = MemoryUsage::default();
        let acme: Arc<str> = "acme".into();
        let restrictions = Restrictions { bytes_per_day: Some(100), ..Restrictions::default() };
        let admit = |now: &str| usage.admit(&acme, &restrictions, at(now)).is_ok();
        let noon = "2026-11-27T12:00:00Z";
        assert!(admit(noon));
        usage.charge(&acme, 100, 99, at(noon));
        assert!(admit(noon));
        usage.charge(&acme, 100, u64::MAX, at(noon));
        assert!(!admit(noon) && !admit("2026-11-27T23:59:59Z") && admit("2026-11-28T00:00:00Z"));
    }
}
