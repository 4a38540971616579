//! What the log says of a version beside its files: the protocol, the metadata, and how many files there are.

use std::collections::BTreeMap;

use buoyant_kernel::actions::{Metadata as KernelMetadata, Protocol as KernelProtocol};
use buoyant_kernel::table_features::TableFeature;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema::Schema;
use crate::error::{Error, Result};
use crate::predicate::Table;

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
    /// Options of the format; empty in every table that a current writer creates.
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

impl Metadata {
    /// About how many bytes of memory it takes.
    pub(super) fn kept_bytes(&self) -> usize {
        let maps = [&self.format_options, &self.configuration];
        let entries = maps.into_iter().flatten().map(|(key, value)| 96 + key.len() + value.len());
        let names = self.partition_columns.iter().map(|name| size_of::<String>() + name.len());
        let text = self.schema_string.len() + self.description.as_ref().map_or(0, String::len);
        size_of::<Self>() + text + entries.chain(names).sum::<usize>()
    }
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
    /// The columns, as predicates find them.
    pub fn columns(&self) -> Table<'_> {
        Table {
            schema: &self.schema_string,
            partition_columns: &self.partition_columns,
            is_mapped: self.is_mapped(),
        }
    }

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
