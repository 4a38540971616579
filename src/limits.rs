//! What one table, recipient or sender may cost: every limit of this server, in one place.
//!
//! `docs/limits.md` has a row for each field, with its default, its unit and its reason; a test keeps the two together.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The limits of a server. The defaults are far from anything that a real table or client meets.
///
/// Sizes are in bytes. A request that meets a limit gets a clear error, and nothing else is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest `_last_checkpoint` file that is read. A larger one counts as damaged, and the log is listed.
    pub last_checkpoint_bytes: u64,
    /// How many connections `serve` has at once. At the limit, a new one takes the place of one without a request;
    /// if all have one, it is answered 503, or the answer of `/health`.
    pub connections: usize,
    /// How many of them come from one address; one /64 of IPv6 counts as one address.
    pub connections_per_address: usize,
    /// How long a client of `serve` may take from its connection, or from the first byte of a request, to the end of
    /// the request's header.
    #[serde(with = "seconds")]
    pub header_timeout: Duration,
    /// The largest header of a request to `serve`, with the request line.
    pub header_bytes: usize,
    /// How long a connection of `serve` stays open without a request.
    #[serde(with = "seconds")]
    pub idle_timeout: Duration,
    /// How long a client of `serve` may take nothing of its answer.
    #[serde(with = "seconds")]
    pub send_timeout: Duration,
    /// The largest body of a request.
    pub body_bytes: usize,
    /// How long a client may take to send a body.
    #[serde(with = "seconds")]
    pub body_timeout: Duration,
    /// How long a query may take: pages and refreshed answers that follow on one another end so many seconds after the
    /// first one, with tokens of any age.
    pub query_life_seconds: u32,
    /// How many seconds the server may go without listing the log of a table in S3, as long as requests for two files of the
    /// log say that nothing was committed. A checkpoint without a commit is noticed with the next listing.
    pub log_listing_seconds: u64,
    /// How deep lists and objects may lie in each other in an action, in statistics and in a schema.
    pub log_depth: usize,
    /// The largest action of a log, where each value in it counts for 32 bytes more than its text.
    pub log_action_bytes: u64,
    /// The largest batch of actions that is held in memory.
    pub log_batch_bytes: u64,
    /// The largest commit that is read as a whole, as a list of changes needs it. For a list of files, commits are read
    /// action by action.
    pub log_commit_bytes: u64,
    /// The most names that one action lists: table features, partition columns, properties.
    pub log_names: usize,
    /// The largest schema, as its text.
    pub schema_bytes: usize,
    /// The most columns of a schema, at any depth.
    pub schema_columns: usize,
    /// How deep groups may lie in each other in the schema of a Parquet file in the log.
    pub parquet_depth: usize,
    /// The largest footer of such a file.
    pub parquet_footer_bytes: u64,
    /// The most columns that the schema and the row groups of such a file list.
    pub parquet_columns: usize,
    /// The largest page of such a file, unpacked.
    pub parquet_page_bytes: u64,
    /// The most that is fetched of a row group of such a file, packed.
    pub parquet_row_group_bytes: u64,
    /// How many threads the runtime may have for work that blocks. Local files are read on those that `work_threads`
    /// leaves over.
    pub blocking_threads: usize,
    /// How many threads may read logs and write answers at the same time.
    pub work_threads: usize,
    /// How many of them may work for tables in one bucket.
    pub bucket_threads: usize,
    /// How many of them may work for one table.
    pub table_threads: usize,
    /// How much memory threads may use together for the large batches of logs that they decode, as estimated beforehand;
    /// tables in one bucket use half of it. A batch that takes more is decoded alone.
    pub decode_bytes: u64,
    /// How many requests may wait until a thread for their bucket is free.
    pub bucket_queue: usize,
    /// How many seconds such a request waits at most.
    pub queue_seconds: u64,
    /// For how many milliseconds a table whose storage did not answer counts as unavailable without being asked again.
    pub unavailable_millis: u64,
    /// How many answers may be in flight: lists of files and of changes that their client does not have as a whole yet.
    pub answers: usize,
    /// How many of them may be one recipient's. A recipient that has some also gets no more while it has half as many
    /// as all others could still begin, so that a few recipients never take all.
    pub recipient_answers: usize,
    /// How many bytes of the log all answers together may hold while they wait for their clients.
    pub answer_bytes: usize,
    /// How many of them may be held by one recipient's answers, unless it is one answer alone.
    pub recipient_answer_bytes: usize,
    /// How many seconds a client may leave a chunk of an answer unread.
    pub chunk_seconds: u64,
    /// How many bytes of commits all answers together keep between their two passes over a range of changes.
    pub range_kept_bytes: usize,
    /// How many bytes of memory the tables that were read may keep together for later requests, as estimated after each
    /// request. Tables that a request uses count, and stay.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            last_checkpoint_bytes: 1 << 20,
            connections: 1024,
            connections_per_address: 512,
            header_timeout: Duration::from_secs(10),
            header_bytes: 64 << 10,
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(60),
            body_bytes: 1 << 20,
            body_timeout: Duration::from_secs(30),
            query_life_seconds: 7 * 24 * 60 * 60,
            log_listing_seconds: 60,
            log_depth: 512,
            log_action_bytes: 32 << 20,
            log_batch_bytes: 192 << 20,
            log_commit_bytes: 128 << 20,
            log_names: 10_000,
            schema_bytes: 16 << 20,
            schema_columns: 50_000,
            parquet_depth: 200,
            parquet_footer_bytes: 16 << 20,
            parquet_columns: 100_000,
            parquet_page_bytes: 64 << 20,
            parquet_row_group_bytes: 384 << 20,
            blocking_threads: 512,
            work_threads: 256,
            bucket_threads: 32,
            table_threads: 8,
            decode_bytes: 512 << 20,
            bucket_queue: 256,
            queue_seconds: 10,
            unavailable_millis: 2000,
            answers: 256,
            recipient_answers: 64,
            answer_bytes: 1 << 30,
            recipient_answer_bytes: 256 << 20,
            chunk_seconds: 60,
            range_kept_bytes: 64 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// These limits, some of them changed by settings such as `log_depth=1000`: the name of a field and a whole number
    /// in the field's unit, seconds for a duration.
    ///
    /// ```
    /// use deltashare::limits::Limits;
    ///
    /// let limits = Limits::default().set(["log_depth=1000"])?;
    /// assert_eq!(limits.log_depth, 1000);
    /// assert!(Limits::default().set(["log_dept=1000"]).is_err());
    /// # Ok::<_, String>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with the first setting that is refused: an unknown name, a number that the limit cannot have.
    pub fn set<'a>(self, settings: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut limits = self;
        for setting in settings {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("'{setting}' is not of the form NAME=NUMBER"))?;
            let mut fields: Map<String, Value> = serde_json::to_value(limits)
                .and_then(serde_json::from_value)
                .map_err(|error| error.to_string())?;
            let field = fields
                .get_mut(name)
                .ok_or_else(|| format!("there is no limit '{name}'; docs/limits.md lists them"))?;
            let number: u64 =
                value.parse().map_err(|_| format!("{name}: '{value}' is not a whole number"))?;
            if number == 0 && !MAY_BE_ZERO.contains(&name) {
                return Err(format!("{name}: must be at least 1"));
            }
            *field = number.into();
            let set = serde_json::from_value(fields.into()).ok().filter(|_| number <= MAX_NUMBER);
            limits = set.ok_or_else(|| format!("{name}: {number} is too large"))?;
        }
        Ok(limits)
    }
}

/// Limits that stand for nothing when they are 0.
const MAY_BE_ZERO: [&str; 5] =
    ["log_listing_seconds", "unavailable_millis", "range_kept_bytes", "bucket_queue", "cache_bytes"];

/// The largest number that a limit is set to, far below what would overflow.
const MAX_NUMBER: u64 = 1 << 48;

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_its_name() {
        let limits =
            Limits::default().set(["log_depth=1000", "idle_timeout=5", "unavailable_millis=0"]).unwrap();
        let idle_timeout = Duration::from_secs(5);
        let wanted = Limits { log_depth: 1000, idle_timeout, unavailable_millis: 0, ..Limits::default() };
        assert_eq!(limits, wanted);
        assert_eq!(Limits::default().set([]).unwrap(), Limits::default());
    }

    #[test]
    fn a_setting_that_is_refused_is_named_with_its_fault() {
        for (setting, fault) in [
            ("log_depth", "'log_depth' is not of the form NAME=NUMBER"),
            ("depth=1", "there is no limit 'depth'; docs/limits.md lists them"),
            ("log_depth=-1", "log_depth: '-1' is not a whole number"),
            ("log_depth=1k", "log_depth: '1k' is not a whole number"),
            ("log_depth=0", "log_depth: must be at least 1"),
            ("query_life_seconds=4294967296", "query_life_seconds: 4294967296 is too large"),
            ("send_timeout=18446744073709551615", "send_timeout: 18446744073709551615 is too large"),
        ] {
            assert_eq!(Limits::default().set(["answers=1", setting]).unwrap_err(), fault);
        }
    }
}
