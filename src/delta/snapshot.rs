//! One version of a table: its protocol, its metadata, its files.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use buoyant_kernel::SnapshotRef;
use buoyant_kernel::actions::{Metadata as KernelMetadata, Protocol as KernelProtocol};
use buoyant_kernel::table_features::TableFeature;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::checksum::Checksum;
use super::engine::LogEngine;
use super::failure::{Refusal, damaged, is_damage};
use super::features::features;
use super::history;
use super::open::Opener;
use super::scan::{Columns, Scan};
use super::schema::Schema;
use crate::error::{Error, Result};
use crate::protocol::capabilities::TableFeatures;

/// The `protocol` action in force. Features are spelled and ordered as in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// The lowest version of the read protocol that reads the table.
    pub min_reader_version: i32,
    /// The lowest version of the write protocol that writes the table.
    pub min_writer_version: i32,
    /// Present exactly when the reader version is 3.
    pub reader_features: Option<Vec<String>>,
    /// Present exactly when the writer version is 7.
    pub writer_features: Option<Vec<String>>,
}

/// The `metaData` action in force, as in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The table's id, a UUID.
    pub id: String,
    /// The name its owner gave the table.
    pub name: Option<String>,
    /// What its owner says about the table.
    pub description: Option<String>,
    /// `parquet`.
    pub format_provider: String,
    /// Options of the format; empty in every table a current writer makes.
    pub format_options: BTreeMap<String, String>,
    /// The schema, JSON, verbatim.
    pub schema_string: String,
    /// Logical names.
    pub partition_columns: Vec<String>,
    /// Table properties, verbatim.
    pub configuration: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch.
    pub created_time: Option<i64>,
}

/// How many files a version has, and how many bytes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStats {
    /// Active files.
    #[serde(rename = "n")]
    pub num_files: u64,
    /// The sum of their sizes.
    #[serde(rename = "s")]
    pub size_bytes: u64,
}

/// One version of a table. Immutable; later commits do not change what it yields.
pub struct Snapshot {
    kernel: SnapshotRef,
    engine: Arc<LogEngine>,
    opener: Arc<Opener>,
    protocol: Protocol,
    metadata: Metadata,
    schema: Schema,
    features: TableFeatures,
    /// Whether the kernel works with a stand-in for the metadata.
    plain: bool,
    counted: OnceLock<Totals>,
    checksum: OnceLock<Option<Checksum>>,
    timestamp: OnceLock<Option<i64>>,
    /// The same version built without the checkpoint of `kernel`, which turned out to be damaged, or with actions put
    /// right.
    mended: OnceLock<Box<Self>>,
}

/// What one pass over the files finds.
#[derive(Debug, Clone, Copy)]
struct Totals {
    stats: FileStats,
    has_vectors: bool,
}

impl Snapshot {
    /// Refuses a table with a reader feature that this server does not know, or with a schema that is none.
    pub(super) fn new(kernel: SnapshotRef, engine: Arc<LogEngine>, opener: Arc<Opener>) -> Result<Self> {
        let table = kernel.table_configuration();
        let protocol = Protocol::new(table.protocol());
        let metadata = Metadata::new(table.metadata());
        Self::with(kernel, engine, opener, protocol, metadata)
    }

    /// A snapshot whose protocol and metadata the kernel has not seen.
    pub(super) fn with(
        kernel: SnapshotRef,
        engine: Arc<LogEngine>,
        opener: Arc<Opener>,
        protocol: Protocol,
        metadata: Metadata,
    ) -> Result<Self> {
        protocol.check()?;
        let schema = metadata.schema()?;
        let features = features(&protocol, &metadata, &schema);
        let plain = kernel.table_configuration().metadata().schema_string() != &metadata.schema_string;
        Ok(Self {
            kernel,
            engine,
            opener,
            protocol,
            metadata,
            schema,
            features,
            plain,
            counted: OnceLock::new(),
            checksum: OnceLock::new(),
            timestamp: OnceLock::new(),
            mended: OnceLock::new(),
        })
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.kernel.version()
    }

    /// When the version was committed, in milliseconds since the Unix epoch: the in-commit timestamp where
    /// the table has them, else the modification time of the commit file, made strictly increasing. `None` if the
    /// commit is gone from the log, which a checkpoint then stands for.
    pub fn timestamp(&self) -> Result<Option<i64>> {
        if let Some(&known) = self.timestamp.get() {
            return Ok(known);
        }
        let timestamp = history::timestamp(self)?;
        Ok(*self.timestamp.get_or_init(|| timestamp))
    }

    /// The newest version that was committed at `millis` (since the Unix epoch) or before, if this snapshot is the
    /// newest one. 400 if there is none left, and if this snapshot is older than `millis`.
    pub fn version_as_of(&self, millis: i64) -> Result<u64> {
        history::version_as_of(self, millis, false)
    }

    /// The same; the newest version if that is older than `millis`.
    pub fn version_up_to(&self, millis: i64) -> Result<u64> {
        history::version_as_of(self, millis, true)
    }

    /// The oldest version that was committed at `millis` (since the Unix epoch) or after, if this snapshot is the
    /// newest one. 400 if there is none, and if commits were cleaned up that may have been older.
    pub fn version_at_or_after(&self, millis: i64) -> Result<u64> {
        history::version_at_or_after(self, millis)
    }

    /// The protocol.
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// The metadata.
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

    /// The same with the deletion vectors, which [`Self::has_deletion_vectors`] looks for.
    pub fn exact_features(&self) -> Result<TableFeatures> {
        let mut features = self.features.clone();
        if features.may_have_vectors {
            features.set_vectors(self.has_deletion_vectors()?);
        }
        Ok(features)
    }

    /// The number of files and their size: from a version checksum (`.crc`), or else from one pass over the log. The
    /// result is remembered.
    pub fn file_stats(&self) -> Result<FileStats> {
        match (self.counted.get(), self.checksum()?) {
            (None, Some(checksum)) => Ok(checksum.file_stats()),
            _ => self.count_files(),
        }
    }

    /// Whether a file has a deletion vector: from a version checksum, or else from one pass over the log. The result is
    /// remembered.
    pub fn has_deletion_vectors(&self) -> Result<bool> {
        match (self.counted.get(), self.checksum()?.and_then(|checksum| checksum.num_deletion_vectors)) {
            (None, Some(number)) => Ok(number > 0),
            _ => Ok(self.totals()?.has_vectors),
        }
    }

    fn checksum(&self) -> Result<Option<Checksum>> {
        if let Some(known) = self.checksum.get() {
            return Ok(*known);
        }
        let checksum = Checksum::of(self)?;
        Ok(*self.checksum.get_or_init(|| checksum))
    }

    /// Counts the files in one pass over the log, without their statistics. The count is remembered.
    pub fn count_files(&self) -> Result<FileStats> {
        self.totals().map(|totals| totals.stats)
    }

    fn totals(&self) -> Result<Totals> {
        if let Some(known) = self.counted.get() {
            return Ok(*known);
        }
        let totals = loop {
            let mends = self.mends();
            match self.count() {
                Err(error) if is_damage(&error) => self.mend(mends, error)?,
                counted => break counted?,
            }
        };
        Ok(*self.counted.get_or_init(|| totals))
    }

    fn count(&self) -> Result<Totals> {
        let mut totals = Totals { stats: FileStats { num_files: 0, size_bytes: 0 }, has_vectors: false };
        for batch in self.open_scan(Columns::WithoutStats)? {
            let batch = batch?;
            let (files, bytes) = batch.totals()?;
            totals.has_vectors |= batch.has_deletion_vectors();
            totals.stats.num_files += files;
            totals.stats.size_bytes = totals
                .stats
                .size_bytes
                .checked_add(bytes)
                .ok_or_else(|| damaged("the sizes of the files add up to more than 64 bits"))?;
        }
        Ok(totals)
    }

    /// The active files, batch by batch, read as the iterator advances.
    pub fn scan(&self) -> Result<Scan> {
        self.open_scan(Columns::All)
    }

    /// A damaged footer of a checkpoint shows here at the latest. What shows later fails the scan.
    fn open_scan(&self, columns: Columns) -> Result<Scan> {
        if let Some(mended) = self.mended.get() {
            return mended.open_scan(columns);
        }
        match Scan::new(self, columns) {
            Ok(scan) => Ok(scan),
            Err(Refusal::Final(error)) => Err(error),
            Err(Refusal::Damaged(error)) => {
                let mended = self.opener.without_checkpoint(self, error)?;
                self.mended.get_or_init(|| Box::new(mended)).open_scan(columns)
            }
        }
    }

    /// How many times this version was built in another way because of what is damaged.
    pub(super) fn mends(&self) -> usize {
        self.mended.get().map_or(0, |mended| 1 + mended.mends())
    }

    /// Lets scans put actions right that one was stopped by. `mends` is what [`Self::mends`] was when that scan was
    /// opened: others may have come across the same damage since. `error` is what it was stopped with, and stays the error
    /// if nothing more can help.
    pub(super) fn mend(&self, mends: usize, error: Error) -> Result<()> {
        let scanned = self.scanned();
        if self.mends() > mends {
            return Ok(());
        }
        if scanned.engine.mends() {
            return Err(error);
        }
        match self.opener.mending(scanned) {
            Ok(mended) => {
                scanned.mended.get_or_init(|| Box::new(mended));
                Ok(())
            }
            Err(other) if other.is_temporary() => Err(other),
            Err(_) => Err(error),
        }
    }

    /// The snapshot that scans read: this one, or the same version as it was built because of what is damaged.
    pub(super) fn scanned(&self) -> &Self {
        self.mended.get().map_or(self, |mended| mended.scanned())
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

    pub(super) fn kernel(&self) -> &SnapshotRef {
        &self.kernel
    }

    /// Whether the kernel's own protocol and metadata are not the table's.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether checkpoints of the table hold statistics as structs and not as JSON. The kernel then makes the
    /// JSON, for which it parses every other file's JSON too; so it is asked only where it must be.
    pub(super) fn has_stats_in_structs_only(&self) -> bool {
        let json = self.metadata.configuration.get("delta.checkpoint.writeStatsAsJson");
        !self.plain && json.is_some_and(|value| value.eq_ignore_ascii_case("false"))
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

impl Protocol {
    pub(super) fn new(protocol: &KernelProtocol) -> Self {
        let names = |features: &[TableFeature]| features.iter().map(TableFeature::to_string).collect();
        Self {
            min_reader_version: protocol.min_reader_version(),
            min_writer_version: protocol.min_writer_version(),
            reader_features: protocol.reader_features().map(names),
            writer_features: protocol.writer_features().map(names),
        }
    }

    /// Refuses a table whose files cannot be listed rightly without knowing more than this server does.
    pub(super) fn check(&self) -> Result<()> {
        /// Reader features that leave the meaning of the log's file actions alone, or that the kernel knows.
        const KNOWN: &[&str] = &[
            "columnMapping",
            "deletionVectors",
            "geospatial",
            "timestampNtz",
            "typeWidening",
            "typeWidening-preview",
            "v2Checkpoint",
            "vacuumProtocolCheck",
            "variantShredding",
            "variantShredding-preview",
            "variantType",
            "variantType-preview",
        ];
        if !(1..=3).contains(&self.min_reader_version) {
            return Err(Error::unsupported(format!(
                "The table requires Delta reader version {}, which this server does not support.",
                self.min_reader_version
            )));
        }
        if self.min_writer_version > 7 {
            return Err(Error::unsupported(format!(
                "The table requires Delta writer version {}, which does not exist.",
                self.min_writer_version
            )));
        }
        let unknown = self.reader_features.iter().flatten().find(|name| !KNOWN.contains(&name.as_str()));
        match unknown {
            Some(name) => Err(Error::unsupported(format!(
                "The table uses the Delta reader feature {}, which this server does not support.",
                printable(name)
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({
            "minReaderVersion": self.min_reader_version,
            "minWriterVersion": self.min_writer_version,
        });
        if let Some(features) = &self.reader_features {
            json["readerFeatures"] = json!(features);
        }
        if let Some(features) = &self.writer_features {
            json["writerFeatures"] = json!(features);
        }
        json
    }

    /// Whether the table's commits may carry in-commit timestamps.
    pub(super) fn has_writer_feature(&self, feature: &str) -> bool {
        self.writer_features.iter().flatten().any(|name| name == feature)
    }
}

/// A name from the log, fit for a message.
fn printable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).take(64).collect()
}

impl Metadata {
    /// Reads the schema. 400 if it is none, or lacks a partition column.
    pub fn schema(&self) -> Result<Schema> {
        let schema = Schema::parse(&self.schema_string)?;
        match self.partition_columns.iter().find(|name| !schema.has_column(name)) {
            // Clients look for the values under the schema's spelling, and would find none.
            Some(_) => Err(Error::unreadable_table(
                "The table cannot be read: a partition column is not in its schema under the same name.",
            )),
            None => Ok(schema),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "format": {"provider": self.format_provider, "options": self.format_options},
            "schemaString": self.schema_string,
            "partitionColumns": self.partition_columns,
            "configuration": self.configuration,
            "createdTime": self.created_time,
        })
    }

    pub(super) fn new(metadata: &KernelMetadata) -> Self {
        let configuration = metadata.configuration().iter();
        Self {
            id: metadata.id().to_owned(),
            name: metadata.name().map(str::to_owned),
            description: metadata.description().map(str::to_owned),
            format_provider: metadata.format_provider().to_owned(),
            format_options: BTreeMap::new(),
            schema_string: metadata.schema_string().clone(),
            partition_columns: metadata.partition_columns().to_vec(),
            configuration: configuration.map(|(key, value)| (key.clone(), value.clone())).collect(),
            created_time: metadata.created_time(),
        }
    }
}
