//! Tables whose files the kernel could list, but whose schema or protocol it refuses.
//!
//! Which files are active depends on the `add` and `remove` actions alone. So a table with a type the kernel
//! cannot parse, or a protocol that lists features in an unusual way, can be shared all the same: the kernel
//! gets stand-ins for schema and protocol, and recipients get what the log says. Statistics that a
//! checkpoint holds only as a struct are left out then, because they cannot be turned into JSON without the
//! schema.

use std::collections::BTreeMap;

use buoyant_kernel::actions::{
    METADATA_NAME, Metadata as KernelMetadata, PROTOCOL_NAME, Protocol as KernelProtocol, get_commit_schema,
};
use buoyant_kernel::arrow::json::LineDelimitedWriter;
use buoyant_kernel::engine::arrow_data::ArrowEngineData;
use buoyant_kernel::log_segment::LogSegment;
use buoyant_kernel::log_segment_files::LogSegmentFiles;
use buoyant_kernel::path::{LogPathFileType, ParsedLogPath};
use buoyant_kernel::table_configuration::TableConfiguration;
use buoyant_kernel::table_features::Operation;
use buoyant_kernel::{DeltaResult, Error as KernelError, Snapshot as KernelSnapshot};
use serde::Deserialize;
use url::Url;

use super::engine::LogEngine;
use super::metadata::{Metadata, Protocol};

/// What stands in for the table's own schema and protocol.
const STAND_IN_METADATA: &str = r#"{"id":"","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"_\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}"#;
const STAND_IN_PROTOCOL: &str = r#"{"minReaderVersion":1,"minWriterVersion":2}"#;

/// The protocol and the metadata of a log, which nobody has checked yet.
pub(super) struct UncheckedTable {
    pub(super) protocol: Protocol,
    pub(super) metadata: Metadata,
    pub(super) segment: LogSegment,
}

impl UncheckedTable {
    /// Reads the log up to a version, or to its end.
    pub(super) fn read(engine: &LogEngine, version: Option<u64>) -> DeltaResult<Self> {
        let segment = segment(engine, version)?;
        let schema = get_commit_schema().project(&[PROTOCOL_NAME, METADATA_NAME])?;
        let (mut protocol, mut metadata) = (None, None);
        for batch in segment.read_actions(engine, schema)? {
            let data = ArrowEngineData::try_from_engine_data(batch?.actions)?;
            let mut json = Vec::new();
            let mut writer = LineDelimitedWriter::new(&mut json);
            writer.write(data.record_batch())?;
            writer.finish()?;
            for line in json.split(|&byte| byte == b'\n').filter(|line| line.len() > "{}".len()) {
                let action: Action = serde_json::from_slice(line).map_err(KernelError::generic_err)?;
                protocol = protocol.or(action.protocol);
                metadata = metadata.or(action.meta_data);
            }
            if protocol.is_some() && metadata.is_some() {
                break;
            }
        }
        match (protocol, metadata) {
            (Some(protocol), Some(metadata)) => {
                Ok(Self { protocol: protocol.into(), metadata: metadata.into(), segment })
            }
            _ => Err(KernelError::MissingMetadataAndProtocol),
        }
    }

    /// Whether the kernel would take the table as it is.
    pub(super) fn suits_kernel(&self, root: &Url) -> bool {
        let suits = || -> DeltaResult<()> {
            let metadata: KernelMetadata = serde_json::from_value(self.metadata.to_json())?;
            let protocol: KernelProtocol = serde_json::from_value(self.protocol.to_json())?;
            let table =
                TableConfiguration::try_new(metadata, protocol, root.clone(), self.segment.end_version)?;
            suits_scan(&table)
        };
        suits().is_ok()
    }
}

/// Whether the kernel would list the files of such a table.
pub(super) fn suits_scan(table: &TableConfiguration) -> DeltaResult<()> {
    if table.logical_schema().num_fields() == 0 {
        return Err(KernelError::generic("the schema has no columns"));
    }
    table.ensure_operation_supported(Operation::Scan)
}

/// A snapshot of the segment with the stand-ins for schema and protocol.
pub(super) fn snapshot_with_stand_in(segment: LogSegment, root: &Url) -> DeltaResult<KernelSnapshot> {
    let metadata: KernelMetadata = serde_json::from_str(STAND_IN_METADATA)?;
    let protocol: KernelProtocol = serde_json::from_str(STAND_IN_PROTOCOL)?;
    let table = TableConfiguration::try_new(metadata, protocol, root.clone(), segment.end_version)?;
    KernelSnapshot::try_new(segment, table)
}

/// The newest complete checkpoint and the commits after it.
fn segment(engine: &LogEngine, version: Option<u64>) -> DeltaResult<LogSegment> {
    let mut files = LogSegmentFiles::default();
    let mut candidates: BTreeMap<(u64, String), Vec<ParsedLogPath>> = BTreeMap::new();
    for file in engine.list_from(0)? {
        let Some(file) = ParsedLogPath::try_from(file)? else { continue };
        if version.is_some_and(|version| file.version > version) {
            break;
        }
        match &file.file_type {
            LogPathFileType::Commit => files.ascending_commit_files.push(file),
            LogPathFileType::ClassicCheckpoint | LogPathFileType::UuidCheckpoint => {
                candidates.insert((file.version, file.filename.clone()), vec![file]);
            }
            LogPathFileType::MultiPartCheckpoint { num_parts, .. } => {
                candidates.entry((file.version, num_parts.to_string())).or_default().push(file);
            }
            LogPathFileType::StagedCommit
            | LogPathFileType::CompactedCommit { .. }
            | LogPathFileType::Crc
            | LogPathFileType::Unknown => {}
        }
    }
    files.latest_commit_file = files.ascending_commit_files.last().cloned();
    files.max_published_version = files.latest_commit_file.as_ref().map(|commit| commit.version);
    let newest = candidates.into_values().rev().find(|parts| is_complete(parts));
    files.checkpoint_parts = newest.unwrap_or_default();
    LogSegment::try_new(files, engine.log().clone(), version, None)
}

fn is_complete(parts: &[ParsedLogPath]) -> bool {
    parts.iter().all(|part| part.location.size > 0)
        && parts.iter().zip(1..).all(|(part, number)| match part.file_type {
            LogPathFileType::MultiPartCheckpoint { part_num, num_parts } => {
                part_num == number && usize::try_from(num_parts).is_ok_and(|all| all == parts.len())
            }
            _ => true,
        })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    protocol: Option<ProtocolAction>,
    meta_data: Option<MetadataAction>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProtocolAction {
    min_reader_version: i32,
    min_writer_version: i32,
    reader_features: Option<Vec<String>>,
    writer_features: Option<Vec<String>>,
}

impl From<ProtocolAction> for Protocol {
    fn from(action: ProtocolAction) -> Self {
        Self {
            min_reader_version: action.min_reader_version,
            min_writer_version: action.min_writer_version,
            reader_features: action.reader_features,
            writer_features: action.writer_features,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetadataAction {
    id: String,
    name: Option<String>,
    description: Option<String>,
    format: Format,
    schema_string: String,
    partition_columns: Vec<String>,
    #[serde(default)]
    configuration: BTreeMap<String, Option<String>>,
    created_time: Option<i64>,
}

#[derive(Deserialize)]
struct Format {
    provider: String,
    #[serde(default)]
    options: BTreeMap<String, Option<String>>,
}

impl From<MetadataAction> for Metadata {
    fn from(action: MetadataAction) -> Self {
        let present = |map: BTreeMap<String, Option<String>>| {
            map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
        };
        Self {
            id: action.id,
            name: action.name,
            description: action.description,
            format_provider: action.format.provider,
            format_options: present(action.format.options),
            schema_string: action.schema_string,
            partition_columns: action.partition_columns,
            configuration: present(action.configuration),
            created_time: action.created_time,
        }
    }
}
