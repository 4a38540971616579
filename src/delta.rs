//! The wall around the Delta kernel: a table's log goes in, a version's protocol, metadata and active files
//! come out. Nothing outside this module names a type of the kernel or of Arrow.
//!
//! The log is third-party input. Whatever is in it, an answer is the exact set of files of one version or an
//! error: never fewer files, never a mixture of versions. Everything here blocks; call it where blocking is
//! allowed (`tokio::task::spawn_blocking`).

mod action_guard;
mod batch;
mod changes;
mod checksum;
mod cursor;
mod deletion_vector;
mod engine;
mod executor;
mod failure;
mod features;
mod file_selection;
mod history;
mod json_guard;
mod kept_commits;
mod log_names;
mod log_rejection;
mod log_store;
mod look;
mod mend;
mod metadata;
mod open;
mod parquet_footer;
mod parquet_pages;
mod prefetch;
mod read_ahead;
mod repeats;
mod scan;
mod schema;
mod selective_read;
mod snapshot;
mod stand_in;
mod survey;
mod table;
mod thrift;
mod totals;

pub use batch::{AddFile, Batch, DeletionVector, TextMap};
pub use changes::{
    Action, Change, ChangeBounds, ChangeCursor, ChangeKind, ChangePosition, ChangeRange, ChangedFile,
};
pub use cursor::{FileCursor, Origin, SELECTION_RULES};
pub use kept_commits::CommitBudget;
pub use metadata::{FileStats, Metadata, Protocol};
pub use parquet_footer::may_be_read;
pub use prefetch::NextReads;
pub use scan::Scan;
pub use schema::{Primitive, Schema, read_schema};
pub use snapshot::Snapshot;
pub use survey::Survey;
pub use table::{DeltaTable, ReleasedLists};
