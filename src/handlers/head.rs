//! The format of an answer, and its first two lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalog::TableRecord;
use crate::delta::{FileStats, Metadata, Protocol, Snapshot};
use crate::error::{Error, Result};
use crate::protocol::actions::{
    DeltaMetadata, DeltaMetadataWrapper, DeltaProtocol, DeltaProtocolWrapper, Format, MetadataLine,
    ParquetMetadata, ParquetProtocol, ProtocolLine, URL_AND_DIRECTORY,
};
use crate::protocol::capabilities::{ResponseFormat, TableFeatures};
use crate::protocol::json::write_json;

const CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";
const COLUMN_MAPPING: &str = "columnMapping";
const COLUMN_MAPPING_MODE: &str = "delta.columnMapping.mode";
pub(crate) const DELETION_VECTORS: &str = "deletionVectors";
const ENABLE_DELETION_VECTORS: &str = "delta.enableDeletionVectors";

/// Reader features that only concern who reads the log itself, which recipients never do.
const OF_THE_LOG_ONLY: [&str; 2] = ["v2Checkpoint", "vacuumProtocolCheck"];

/// The reader features of this snapshot that concern recipients.
///
/// Column mapping with mode `none` is not one. Deletion vectors whose property is not set may still be
/// left in some files; `lines` refuses such a file to a client that does not know them.
pub fn table_features(snapshot: &Snapshot) -> TableFeatures {
    let protocol = snapshot.protocol();
    let property = |name: &str| snapshot.metadata().configuration.get(name).map(String::as_str);
    let mapped = !matches!(property(COLUMN_MAPPING_MODE), None | Some("none"));
    let deletes = property(ENABLE_DELETION_VECTORS).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut features = TableFeatures::default();
    if protocol.min_reader_version < 3 {
        if mapped && protocol.min_reader_version == 2 {
            features.needed.push(COLUMN_MAPPING.to_owned());
        }
        return features;
    }
    for feature in protocol.reader_features.iter().flatten() {
        match feature.as_str() {
            COLUMN_MAPPING if !mapped => {}
            DELETION_VECTORS if !deletes => features.left_over.push(feature.clone()),
            other if OF_THE_LOG_ONLY.contains(&other) => {}
            _ => features.needed.push(feature.clone()),
        }
    }
    features
}

/// How the `protocol` and `metaData` lines of an answer are written.
#[derive(Debug, Clone)]
pub struct Head {
    /// The form of the answer.
    pub format: ResponseFormat,
    /// Whether the provider shares history, and with it the change data feed.
    pub history_shared: bool,
    /// The table's root, where recipients may have its directory.
    pub directory: Option<String>,
}

impl Head {
    /// The head lines of a shared table.
    pub(super) fn new(format: ResponseFormat, table: &TableRecord) -> Self {
        let directory = table.directory().map(str::to_owned);
        Self { format, history_shared: table.history_shared, directory }
    }

    /// The size of a snapshot as its head tells it. Blocks: in delta format it is required, and where the log
    /// does not have it, it is summed up in one pass.
    pub fn stats(&self, snapshot: &Snapshot) -> Result<Option<FileStats>> {
        match (snapshot.file_stats(), self.format) {
            (None, ResponseFormat::Delta) => snapshot.count_files().map(Some),
            (known, ResponseFormat::Delta | ResponseFormat::Parquet) => Ok(known),
        }
    }

    /// The head lines of a snapshot.
    pub fn lines(&self, snapshot: &Snapshot, stats: Option<FileStats>) -> Result<[Vec<u8>; 2]> {
        Ok([self.protocol(snapshot.protocol(), None)?, self.metadata(snapshot.metadata(), stats, None)?])
    }

    /// A `protocol` line. In delta format it has a version where one is given.
    pub(super) fn protocol(&self, protocol: &Protocol, version: Option<u64>) -> Result<Vec<u8>> {
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

    /// A `metaData` line, with a version and the size of the table where they are given.
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
            let delta_metadata = delta_metadata(metadata);
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
        let schema_string = plain_schema(&metadata.schema_string)?;
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

/// Whether commits under this metadata record the change data feed.
pub(super) fn has_change_data_feed(metadata: &Metadata) -> bool {
    metadata.configuration.get(CHANGE_DATA_FEED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
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
fn plain_schema(schema_string: &str) -> Result<String> {
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
    fn a_plain_schema_keeps_types_and_comments() {
        let schema = r#"{"type":"struct","fields":[{"name":"ä","type":{"type":"struct","fields":[{"name":"x","type":"long","nullable":true,"metadata":{"k":1}}]},"nullable":true,"metadata":{"comment":"c","delta.generationExpression":"1"}},{"name":"b","type":"long","nullable":false,"metadata":{}}]}"#;
        let plain = plain_schema(schema).unwrap();
        assert_eq!(
            plain,
            r#"{"type":"struct","fields":[{"name":"ä","type":{"type":"struct","fields":[{"name":"x","type":"long","nullable":true,"metadata":{"k":1}}]},"nullable":true,"metadata":{"comment":"c"}},{"name":"b","type":"long","nullable":false,"metadata":{}}]}"#
        );
        assert!(plain_schema("{").is_err());
    }
}
