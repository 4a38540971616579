//! What differs in delta format from the log, and why. A client of this format replays the lines of an answer as a log
//! of its own, and its kernel refuses some things that only concern who writes the table's log. They are left out here
//! and nowhere else; everything else is as in the log.
//!
//! | left out or changed | in | because |
//! |---|---|---|
//! | the properties of in-commit timestamps | every answer | the kernel looks for a timestamp in every commit, where only writers put it |
//! | `columnMapping` is added to a protocol without it | versions whose files are mapped | without it the kernel reads logical names, and finds no column |
//! | lists of features that contradict each other or their version are put right | every answer | the kernel refuses a reader feature that is not in both lists |
//! | metadata of column mapping | versions whose columns are not mapped | the kernel refuses it |
//! | empty metadata is added to columns without any | every answer | the kernel wants it |
//! | `changeDataFeed` is added to a protocol without it | change data feeds | the kernel refuses a feed that the protocol does not allow |
//! | `delta.enableChangeDataFeed` is written `true` | change data feeds | the kernel knows no other spelling |
//! | comments, defaults, identity and generation of columns | change data feeds | the kernel refuses a feed whose schema changed, and takes these for a change |

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::delta::{Metadata, Protocol, Snapshot, read_schema};
use crate::error::{Error, Result};

const CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";

const OF_COMMITS: [&str; 3] = [
    "delta.enableInCommitTimestamps",
    "delta.inCommitTimestampEnablementVersion",
    "delta.inCommitTimestampEnablementTimestamp",
];

/// What the schema says of columns that matters to writers and people only.
const OF_COLUMNS: [&str; 5] =
    ["comment", "CURRENT_DEFAULT", "EXISTS_DEFAULT", "delta.generationExpression", "delta.invariants"];
const OF_IDENTITY: &str = "delta.identity.";
const OF_MAPPING: &str = "delta.columnMapping.";

/// What an answer in delta format is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayKind {
    /// The files of a version, or what was added and removed in a range.
    Files,
    /// A change data feed.
    Feed,
}

impl ReplayKind {
    /// The protocol of a version.
    pub(super) fn protocol_of(self, snapshot: &Snapshot) -> Protocol {
        self.protocol(snapshot.protocol().completed(snapshot.features()))
    }

    /// A protocol of the log.
    pub(super) fn protocol(self, mut protocol: Protocol) -> Protocol {
        consistent(&mut protocol);
        /// The first version of the write protocol that has change data feeds.
        const WITH_FEED: i32 = 4;
        if self == Self::Feed {
            protocol.min_writer_version = protocol.min_writer_version.max(WITH_FEED);
            if protocol.min_writer_version >= 7 {
                let listed = protocol.writer_features.get_or_insert_default();
                if !listed.iter().any(|name| name == "changeDataFeed") {
                    listed.push("changeDataFeed".to_owned());
                }
            }
        }
        protocol
    }

    /// The properties of a table.
    pub(super) fn configuration(self, metadata: &Metadata) -> BTreeMap<String, String> {
        let mut configuration = metadata.configuration.clone();
        configuration.retain(|key, _| !OF_COMMITS.contains(&key.as_str()));
        if self == Self::Feed && has_change_data_feed(metadata) {
            configuration.insert(CHANGE_DATA_FEED.to_owned(), "true".to_owned());
        }
        configuration
    }

    /// The schema of a table, as JSON.
    pub(super) fn schema(self, metadata: &Metadata) -> Result<Cow<'_, str>> {
        let schema = metadata.schema_string.as_str();
        let is_mapped = metadata.is_mapped();
        let left_out = |key: &str| {
            let of_columns = OF_COLUMNS.contains(&key) || key.starts_with(OF_IDENTITY);
            (self == Self::Feed && of_columns) || (!is_mapped && key.starts_with(OF_MAPPING))
        };
        // Looked for in the text first, because most schemas have none of it.
        let some = (self == Self::Feed
            && OF_COLUMNS.iter().chain([&OF_IDENTITY]).any(|key| schema.contains(key)))
            || (!is_mapped && schema.contains(OF_MAPPING))
            || schema.matches("\"metadata\"").count() < schema.matches("\"nullable\"").count();
        if !some {
            return Ok(Cow::Borrowed(schema));
        }
        let mut schema = read_schema(schema)?;
        change_metadata(&mut schema, &left_out);
        serde_json::to_string(&schema).map(Cow::Owned).map_err(Error::internal)
    }
}

/// Whether commits under this metadata record the change data feed.
pub(super) fn has_change_data_feed(metadata: &Metadata) -> bool {
    metadata.configuration.get(CHANGE_DATA_FEED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Puts right what a protocol of a broken log says twice and not the same.
fn consistent(protocol: &mut Protocol) {
    /// Features that readers and writers must both know.
    const OF_READERS: [&str; 7] = [
        "columnMapping",
        "deletionVectors",
        "timestampNtz",
        "typeWidening",
        "v2Checkpoint",
        "vacuumProtocolCheck",
        "variantType",
    ];
    if protocol.min_reader_version >= 3 {
        let readers = protocol.reader_features.get_or_insert_default().clone();
        protocol.min_writer_version = 7;
        let writers = protocol.writer_features.get_or_insert_default();
        writers.retain(|name| !OF_READERS.contains(&name.as_str()) || readers.contains(name));
        for name in readers {
            if !writers.contains(&name) {
                writers.push(name);
            }
        }
    } else if protocol.min_writer_version >= 7 {
        protocol.writer_features.get_or_insert_default();
    }
}

/// Goes through a type, and leaves keys of the metadata of fields out. Only fields have metadata, which are objects in
/// an array called `fields`.
fn change_metadata(data_type: &mut Value, left_out: &impl Fn(&str) -> bool) {
    for name in ["elementType", "keyType", "valueType", "sqlType"] {
        if let Some(inner) = data_type.get_mut(name) {
            change_metadata(inner, left_out);
        }
    }
    for field in data_type.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(field) = field.as_object_mut() {
            let metadata = field.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(metadata) = metadata {
                metadata.retain(|key, _| !left_out(key));
            }
        }
        if let Some(inner) = field.get_mut("type") {
            change_metadata(inner, left_out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(schema: &str, configuration: &[(&str, &str)]) -> Metadata {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        Metadata {
            id: String::new(),
            name: None,
            description: None,
            format_provider: "parquet".to_owned(),
            format_options: BTreeMap::new(),
            schema_string: schema.to_owned(),
            partition_columns: Vec::new(),
            configuration: configuration.iter().map(owned).collect(),
            created_time: None,
        }
    }

    #[test]
    fn properties_of_commits_are_left_out() {
        let metadata = metadata(
            "{}",
            &[("delta.enableInCommitTimestamps", "true"), ("delta.enableChangeDataFeed", "TRUE"), ("a", "b")],
        );
        let files = ReplayKind::Files.configuration(&metadata);
        assert_eq!(Vec::from_iter(files.values()), ["b", "TRUE"]);
        assert_eq!(Vec::from_iter(ReplayKind::Feed.configuration(&metadata).values()), ["b", "true"]);
    }

    #[test]
    fn a_feed_has_no_metadata_of_columns_that_only_writers_need() {
        let schema = |metadata: &str| {
            let field = |name: &str, data_type: &str| {
                format!(r#"{{"metadata":{metadata},"name":"{name}","nullable":true,"type":{data_type}}}"#)
            };
            let inner = format!(r#"{{"fields":[{}],"type":"struct"}}"#, field("comment", "\"long\""));
            let array = format!(r#"{{"containsNull":true,"elementType":{inner},"type":"array"}}"#);
            format!(r#"{{"fields":[{}],"type":"struct"}}"#, field("a", &array))
        };
        let before = metadata(
            &schema(r#"{"comment":"x","delta.columnMapping.id":1,"delta.identity.highWaterMark":7}"#),
            &[("delta.columnMapping.mode", "name")],
        );
        let after = schema(r#"{"delta.columnMapping.id":1}"#);
        assert_eq!(ReplayKind::Feed.schema(&before).unwrap(), after);
        assert_eq!(ReplayKind::Files.schema(&before).unwrap(), before.schema_string);
        let unmapped = metadata(r#"{"type":"struct","fields":[]}"#, &[]);
        assert_eq!(ReplayKind::Feed.schema(&unmapped).unwrap(), unmapped.schema_string);
        let unmapped = Metadata { configuration: BTreeMap::new(), ..before };
        for schema in [ReplayKind::Files.schema(&unmapped), ReplayKind::Feed.schema(&unmapped)] {
            assert!(!schema.unwrap().contains(OF_MAPPING));
        }
        let bare =
            metadata(r#"{"fields":[{"name":"a","nullable":true,"type":"long"}],"type":"struct"}"#, &[]);
        assert_eq!(
            ReplayKind::Files.schema(&bare).unwrap(),
            r#"{"fields":[{"metadata":{},"name":"a","nullable":true,"type":"long"}],"type":"struct"}"#
        );
    }

    #[test]
    fn a_feed_has_a_protocol_that_allows_it() {
        let protocol = |writer: i32, features: Option<&[&str]>| Protocol {
            min_reader_version: 1,
            min_writer_version: writer,
            reader_features: None,
            writer_features: features.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        };
        for (before, after) in [
            (protocol(2, None), protocol(4, None)),
            (protocol(6, None), protocol(6, None)),
            (protocol(7, Some(&[])), protocol(7, Some(&["changeDataFeed"]))),
            (protocol(7, Some(&["changeDataFeed", "x"])), protocol(7, Some(&["changeDataFeed", "x"]))),
        ] {
            assert_eq!(ReplayKind::Feed.protocol(before.clone()), after);
            assert_eq!(ReplayKind::Files.protocol(before.clone()), before);
        }
    }

    #[test]
    fn lists_of_features_agree() {
        let protocol = |reader: i32, writer: i32, readers: Option<&[&str]>, writers: Option<&[&str]>| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            Protocol {
                min_reader_version: reader,
                min_writer_version: writer,
                reader_features: readers.map(owned),
                writer_features: writers.map(owned),
            }
        };
        let (mapping, append): (&[&str], &[&str]) = (&["columnMapping"], &["appendOnly"]);
        for (before, after) in [
            (protocol(3, 7, Some(mapping), Some(mapping)), protocol(3, 7, Some(mapping), Some(mapping))),
            (protocol(3, 7, Some(mapping), Some(&[])), protocol(3, 7, Some(mapping), Some(mapping))),
            (
                protocol(3, 7, Some(&[]), Some(&["columnMapping", "appendOnly"])),
                protocol(3, 7, Some(&[]), Some(append)),
            ),
            (protocol(3, 5, None, None), protocol(3, 7, Some(&[]), Some(&[]))),
            (protocol(1, 7, None, None), protocol(1, 7, None, Some(&[]))),
            (protocol(2, 5, None, None), protocol(2, 5, None, None)),
        ] {
            assert_eq!(ReplayKind::Files.protocol(before), after);
        }
    }
}
