//! One version of a table: its protocol, its metadata, its files.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use buoyant_kernel::SnapshotRef;

use super::checksum::Checksum;
use super::engine::LogEngine;
use super::features::features;
use super::metadata::{FileStats, Metadata, Protocol};
use super::schema::Schema;
use crate::error::Result;
use crate::predicate::FileAccess;
use crate::protocol::capabilities::TableFeatures;

/// For how many filters the files of a version are counted once.
const SHARED_STATS_KEPT: usize = 64;

/// What the kernel keeps of a column of the schema.
const COLUMN_BYTES: usize = 1250;

/// What it keeps of its mapping to another name in files, if columns are mapped.
const MAPPING_BYTES: usize = 1700;

/// What the kernel keeps of a file of the log besides its URL.
const FILE_BYTES: usize = 470;

/// What one pass over the files finds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals {
    pub(super) stats: FileStats,
    pub(super) has_vectors: bool,
}

/// One version of a table. Immutable; later commits do not change what it yields.
pub struct Snapshot {
    kernel: SnapshotRef,
    engine: Arc<LogEngine>,
    protocol: Protocol,
    metadata: Metadata,
    schema: Schema,
    features: TableFeatures,
    /// Whether the kernel works with a stand-in for the metadata.
    stand_in: bool,
    pub(super) counted: OnceLock<Totals>,
    /// The files that may be read under some filters, those counted last at the end.
    shared_stats: Mutex<VecDeque<(FileAccess, FileStats)>>,
    pub(super) checksum: OnceLock<Option<Checksum>>,
    pub(super) timestamp: OnceLock<Option<i64>>,
    /// The same version built without the checkpoint of `kernel`, which turned out to be damaged, or with actions put
    /// right.
    pub(super) mended: OnceLock<Box<Self>>,
}

impl Snapshot {
    /// Refuses a table with a reader feature that this server does not know, or with a schema that is none.
    pub(super) fn new(kernel: SnapshotRef, engine: Arc<LogEngine>) -> Result<Self> {
        let table = kernel.table_configuration();
        let protocol = Protocol::new(table.protocol());
        let metadata = Metadata::new(table.metadata());
        Self::with(kernel, engine, protocol, metadata)
    }

    /// A snapshot whose protocol and metadata the kernel has not seen.
    pub(super) fn with(
        kernel: SnapshotRef,
        engine: Arc<LogEngine>,
        protocol: Protocol,
        metadata: Metadata,
    ) -> Result<Self> {
        protocol.check()?;
        let schema = metadata.schema()?;
        let features = features(&protocol, &metadata, &schema);
        let stand_in = kernel.table_configuration().metadata().schema_string() != &metadata.schema_string;
        Ok(Self {
            kernel,
            engine,
            protocol,
            metadata,
            schema,
            features,
            stand_in,
            counted: OnceLock::new(),
            shared_stats: Mutex::default(),
            checksum: OnceLock::new(),
            timestamp: OnceLock::new(),
            mended: OnceLock::new(),
        })
    }

    /// The number of the version.
    pub fn version(&self) -> u64 {
        self.kernel.version()
    }

    /// The protocol as the log has it, also if the kernel works with a stand-in.
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// The metadata as the log has it, also if the kernel works with a stand-in.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What the schema says of the files.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The reader features that the version uses and lists; deletion vectors are left open.
    pub fn features(&self) -> &TableFeatures {
        &self.features
    }

    /// The version of the checkpoint that the files are read from, if they are.
    pub(super) fn checkpoint(&self) -> Option<u64> {
        self.kernel.log_segment().checkpoint_version
    }

    /// How many commits follow the checkpoint that the files are read from, or the beginning of the log.
    pub fn commits_since_checkpoint(&self) -> u64 {
        match self.checkpoint() {
            Some(checkpoint) => self.version().saturating_sub(checkpoint),
            None => self.version() + 1,
        }
    }

    /// The number of the files that `access` allows and their size, if they were counted lately.
    pub(super) fn shared_stats(&self, access: &FileAccess) -> Option<FileStats> {
        let known = self.shared_stats.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(of, _)| of == access).map(|(_, stats)| *stats)
    }

    pub(super) fn keep_shared_stats(&self, access: FileAccess, stats: FileStats) {
        let mut known = self.shared_stats.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back((access, stats));
        if known.len() > SHARED_STATS_KEPT {
            known.pop_front();
        }
    }

    /// About how many bytes of memory it takes: the schema and the files of the log that it was built from, as the kernel and
    /// this server keep them.
    pub(super) fn kept_bytes(&self) -> usize {
        let listed = &self.kernel.log_segment().listed;
        let files = listed.ascending_commit_files.len() + listed.checkpoint_parts.len();
        let files = files * (FILE_BYTES + 2 * self.engine.log().as_str().len());
        let mapping = if self.schema.has_physical_names() { MAPPING_BYTES } else { 0 };
        let kernel = self.schema.num_columns() * (COLUMN_BYTES + mapping) + self.metadata.kept_bytes();
        let own = self.metadata.kept_bytes() + self.schema.kept_bytes();
        let mended = self.mended.get().map_or(0, |mended| mended.kept_bytes());
        let stats = self.shared_stats.lock().unwrap_or_else(PoisonError::into_inner).len();
        files + kernel + own + mended + stats * size_of::<(FileAccess, FileStats)>()
    }

    pub(super) fn kernel(&self) -> &SnapshotRef {
        &self.kernel
    }

    /// Whether the kernel has a stand-in for the table's protocol and metadata, so that it cannot read on from here.
    pub(super) fn has_stand_in(&self) -> bool {
        self.stand_in
    }

    /// Whether checkpoints of the table hold statistics as structs and not as JSON. The kernel then makes the
    /// JSON, for which it parses every other file's JSON too; so it is asked only if it must be.
    pub(super) fn has_stats_in_structs_only(&self) -> bool {
        let json = self.metadata.configuration.get("delta.checkpoint.writeStatsAsJson");
        !self.stand_in && json.is_some_and(|value| value.eq_ignore_ascii_case("false"))
    }

    pub(super) fn engine(&self) -> &Arc<LogEngine> {
        &self.engine
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.version()).finish_non_exhaustive()
    }
}
