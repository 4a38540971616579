//! The format of an answer, and its first two lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::replay::{ReplayKind, has_change_data_feed};
use crate::catalog::TableRecord;
use crate::delta::{DeltaTable, FileStats, Metadata, Protocol, Snapshot};
use crate::error::{Error, Result};
use crate::protocol::actions::{
    DeltaMetadata, DeltaMetadataWrapper, DeltaProtocol, DeltaProtocolWrapper, Format, MetadataLine,
    ParquetMetadata, ParquetProtocol, ProtocolLine, URL_AND_DIRECTORY,
};
use crate::protocol::capabilities::{Capabilities, ResponseFormat};
use crate::protocol::json::write_json;

/// How the `protocol` and `metaData` lines of an answer are written.
#[derive(Debug, Clone)]
pub struct Head {
    /// The form of the answer.
    pub format: ResponseFormat,
    /// Whether the provider shares history, and with it the change data feed.
    pub history_shared: bool,
    /// The table's root, if recipients may read its directory.
    pub directory: Option<String>,
    /// What clients that replay the answer take it for.
    pub replayed: ReplayKind,
}

impl Head {
    /// The head lines of a shared table.
    pub fn new(format: ResponseFormat, table: &TableRecord) -> Self {
        let directory = table.directory().map(str::to_owned);
        Self { format, history_shared: table.settings.history_shared, directory, replayed: ReplayKind::Files }
    }

    /// The same for a change data feed.
    pub(super) fn of_feed(self) -> Self {
        Self { replayed: ReplayKind::Feed, ..self }
    }

    /// The size of a snapshot as the head of its list of files tells it: in delta format, in which clients require it.
    /// Never what happens to be known, so that the same version always has the same head. Blocks, and may read the
    /// log.
    pub fn stats(&self, table: &DeltaTable, snapshot: &Arc<Snapshot>) -> Result<Option<FileStats>> {
        match self.format {
            ResponseFormat::Delta => table.file_stats(snapshot).map(Some),
            ResponseFormat::Parquet => Ok(None),
        }
    }

    /// Whether [`Head::stats`] reads totals for a client, whatever the table is like. Those of some of the files are counted.
    pub fn needs_totals(capabilities: &Capabilities, table: &TableRecord) -> bool {
        capabilities.needs_delta() && !table.access.is_filtered()
    }

    /// The head lines of a snapshot.
    pub fn lines(&self, snapshot: &Snapshot, stats: Option<FileStats>) -> Result<[Vec<u8>; 2]> {
        Ok([self.protocol_of(snapshot, None)?, self.metadata(snapshot.metadata(), stats, None)?])
    }

    /// The `protocol` line of a snapshot.
    pub(super) fn protocol_of(&self, snapshot: &Snapshot, version: Option<u64>) -> Result<Vec<u8>> {
        self.protocol_line(&self.replayed.protocol_of(snapshot), version)
    }

    /// A `protocol` line. In delta format it has a version if one is given.
    pub(super) fn protocol(&self, protocol: &Protocol, version: Option<u64>) -> Result<Vec<u8>> {
        self.protocol_line(&self.replayed.protocol(protocol.clone()), version)
    }

    fn protocol_line(&self, protocol: &Protocol, version: Option<u64>) -> Result<Vec<u8>> {
        if self.format == ResponseFormat::Parquet {
            return line(&ProtocolLine { protocol: ParquetProtocol { min_reader_version: 1 } });
        }
        let delta_protocol = DeltaProtocol {
            min_reader_version: protocol.min_reader_version,
            min_writer_version: protocol.min_writer_version,
            reader_features: protocol.reader_features.as_deref().filter(|_| protocol.min_reader_version >= 3),
            writer_features: protocol.writer_features.as_deref().filter(|_| protocol.min_writer_version >= 7),
        };
        line(&ProtocolLine { protocol: DeltaProtocolWrapper { version, delta_protocol } })
    }

    /// A `metaData` line, with a version and the size of the table if they are given.
    pub(super) fn metadata(
        &self,
        metadata: &Metadata,
        stats: Option<FileStats>,
        version: Option<u64>,
    ) -> Result<Vec<u8>> {
        let size = stats.map(|stats| stats.size_bytes);
        let num_files = stats.map(|stats| stats.num_files);
        let location = self.directory.as_deref();
        let access_modes = location.map(|_| URL_AND_DIRECTORY);
        if self.format == ResponseFormat::Delta {
            let (configuration, schema) =
                (self.replayed.configuration(metadata), self.replayed.schema(metadata)?);
            let delta_metadata = DeltaMetadata {
                configuration: &configuration,
                schema_string: &schema,
                ..delta_metadata(metadata)
            };
            return line(&MetadataLine {
                meta_data: DeltaMetadataWrapper {
                    delta_metadata,
                    version,
                    size,
                    num_files,
                    location,
                    access_modes,
                },
            });
        }
        let schema_string = parquet_schema(&metadata.schema_string)?;
        let configuration = if self.history_shared && has_change_data_feed(metadata) {
            BTreeMap::from([("enableChangeDataFeed", "true")])
        } else {
            BTreeMap::new()
        };
        let meta_data = ParquetMetadata {
            id: &metadata.id,
            name: metadata.name.as_deref(),
            description: metadata.description.as_deref(),
            location,
            access_modes,
            format: Format { provider: "parquet", options: None },
            schema_string: &schema_string,
            partition_columns: &metadata.partition_columns,
            configuration,
            version,
            size,
            num_files,
        };
        line(&MetadataLine { meta_data })
    }
}

fn delta_metadata(metadata: &Metadata) -> DeltaMetadata<'_> {
    DeltaMetadata {
        id: &metadata.id,
        name: metadata.name.as_deref(),
        description: metadata.description.as_deref(),
        format: Format { provider: &metadata.format_provider, options: Some(&metadata.format_options) },
        schema_string: &metadata.schema_string,
        partition_columns: &metadata.partition_columns,
        configuration: &metadata.configuration,
        created_time: metadata.created_time,
    }
}

fn line(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    write_json(&mut line, value).map_err(Error::internal)?;
    Ok(line)
}

/// A column of a schema; its type is not looked into.
#[derive(Serialize, Deserialize)]
struct Column<'a> {
    name: String,
    #[serde(borrow, rename = "type")]
    data_type: &'a RawValue,
    nullable: bool,
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
}

/// "Schema Object".
#[derive(Serialize, Deserialize)]
struct Schema<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    fields: Vec<Column<'a>>,
}

/// A schema whose columns keep of their own metadata only the comment, as clients of the parquet
/// format expect: what else is there is for Delta's own readers and writers.
fn parquet_schema(schema_string: &str) -> Result<String> {
    let mut schema: Schema<'_> = serde_json::from_str(schema_string)
        .map_err(|error| Error::unreadable_table("The table's schema cannot be read.").with_source(error))?;
    for column in &mut schema.fields {
        column.metadata.retain(|key, _| key == "comment");
    }
    serde_json::to_string(&schema).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parquet_schema_keeps_types_and_comments() {
        let schema = r#"{"type":"struct","fields":[{"name":"ä","type":{"type":"struct","fields":[{"name":"x","type":"long","nullable":true,"metadata":{"k":1}}]},"nullable":true,"metadata":{"comment":"c","delta.generationExpression":"1"}},{"name":"b","type":"long","nullable":false,"metadata":{}}]}"#;
        let schema_string = parquet_schema(schema).unwrap();
        assert_eq!(
            schema_string,
            r#"{"type":"struct","fields":[{"name":"ä","type":{"type":"struct","fields":[{"name":"x","type":"long","nullable":true,"metadata":{"k":1}}]},"nullable":true,"metadata":{"comment":"c"}},{"name":"b","type":"long","nullable":false,"metadata":{}}]}"#
        );
        assert!(parquet_schema("{").is_err());
    }
}
