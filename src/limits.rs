//! What one table, recipient or sender may cost: every limit of this server, in one place.
//!
//! `docs/limits.md` has a row for each field, with its default, its unit and its reason; a test keeps the two together.

use std::time::Duration;

/// The limits of a server. The defaults are far from anything that a real table or client meets.
///
/// Sizes are in bytes. A request that meets a limit gets a clear error, and nothing else is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest `_last_checkpoint` file that is read. A larger one counts as damaged, and the log is listed.
    pub last_checkpoint_bytes: u64,
    /// How many connections `serve` has at once. At the limit, a new one takes the place of one without a request;
    /// where all have one, it is answered 503, or the answer of `/health`.
    pub connections: usize,
    /// How many of them come from one address; one /64 of IPv6 counts as one address.
    pub connections_per_address: usize,
    /// How long a client of `serve` may take from its connection, or from the first byte of a request, to the end of
    /// the request's header.
    pub header_timeout: Duration,
    /// The largest header of a request to `serve`, with the request line.
    pub header_bytes: usize,
    /// How long a connection of `serve` stays open without a request.
    pub idle_timeout: Duration,
    /// How long a client of `serve` may take nothing of its answer.
    pub send_timeout: Duration,
    /// The largest body of a request.
    pub body_bytes: usize,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// How long a query goes on: pages and refreshed answers that follow on one another end so many seconds after the
    /// first one, with tokens of any age.
    pub query_life_seconds: u32,
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
    /// How many requests may wait until a thread for their bucket is free.
    pub bucket_queue: usize,
    /// How many seconds such a request waits at most.
    pub queue_seconds: u64,
    /// For how many milliseconds a table whose storage did not answer counts as unavailable without being asked again.
    pub unavailable_millis: u64,
    /// How many answers may be in flight: lists of files and of changes that their client does not have as a whole yet.
    pub answers: usize,
    /// How many of them may be one recipient's.
    pub recipient_answers: usize,
    /// How many seconds a client may leave a chunk of an answer unread.
    pub chunk_seconds: u64,
    /// How many bytes of commits all answers together keep between their two passes over a range of changes.
    pub range_kept_bytes: usize,
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
            bucket_queue: 256,
            queue_seconds: 10,
            unavailable_millis: 2000,
            answers: 256,
            recipient_answers: 64,
            chunk_seconds: 60,
            range_kept_bytes: 64 << 20,
        }
    }
}
