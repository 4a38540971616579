//! Which reader features a version makes use of. What counts is what its columns and files are, not what one action
//! of the log promises: a feature may be listed and not used, and used under a protocol that does not list it.

use super::metadata::{Metadata, Protocol};
use super::schema::{Schema, Special};
use crate::protocol::capabilities::{DELETION_VECTORS, TableFeatures};

pub(super) const COLUMN_MAPPING: &str = "columnMapping";
const COLUMN_MAPPING_MODE: &str = "delta.columnMapping.mode";

/// Reader features that only concern who reads the log itself, which recipients never do.
const OF_THE_LOG_ONLY: [&str; 2] = ["v2Checkpoint", "vacuumProtocolCheck"];

/// What a version with this protocol, metadata and schema takes to read. Deletion vectors are left open if the
/// protocol allows them: only the files tell.
pub(super) fn features(protocol: &Protocol, metadata: &Metadata, schema: &Schema) -> TableFeatures {
    let listed = protocol.reader_features.iter().flatten();
    let mut features = TableFeatures {
        listed: listed.filter(|name| !OF_THE_LOG_ONLY.contains(&name.as_str())).cloned().collect(),
        ..TableFeatures::default()
    };
    features.may_have_vectors = features.listed.contains(DELETION_VECTORS);
    if is_mapped(metadata, schema) {
        features.used.insert(COLUMN_MAPPING.to_owned());
    }
    // Some features were listed under a name of their own before they were final.
    for (uses, name) in [
        (schema.has_type(Special::TimestampNtz), "timestampNtz"),
        (schema.has_type(Special::Variant), "variantType"),
        (schema.has_type(Special::Geospatial), "geospatial"),
        (schema.has_type_changes(), "typeWidening"),
    ] {
        let preview = format!("{name}-preview");
        let only_preview = features.listed.contains(&preview) && !features.listed.contains(name);
        if uses {
            features.used.insert(if only_preview { preview } else { name.to_owned() });
        }
    }
    features
}

/// Whether files carry other column names than the schema's. With mode `id`, columns are found by their ids: files
/// that were written before Delta knew the table may have any name, so equal names prove nothing.
fn is_mapped(metadata: &Metadata, schema: &Schema) -> bool {
    match metadata.configuration.get(COLUMN_MAPPING_MODE).map(|mode| mode.to_lowercase()).as_deref() {
        None | Some("none") => false,
        Some("name") => schema.has_physical_names(),
        Some(_) => true,
    }
}

impl Metadata {
    /// Whether columns are found by their physical names or ids.
    pub fn is_mapped(&self) -> bool {
        let mode = self.configuration.get(COLUMN_MAPPING_MODE);
        mode.is_some_and(|mode| !mode.eq_ignore_ascii_case("none"))
    }
}

impl Protocol {
    /// The protocol with column mapping, if files are mapped and it does not say so: clients look at the protocol to
    /// decide which names to read, and would find no column.
    pub fn completed(&self, features: &TableFeatures) -> Self {
        let mut protocol = self.clone();
        if !features.used.contains(COLUMN_MAPPING) {
            return protocol;
        }
        match protocol.min_reader_version {
            ..2 => protocol.min_reader_version = 2,
            2 => {}
            3.. => {
                let listed = protocol.reader_features.get_or_insert_default();
                if !listed.iter().any(|name| name == COLUMN_MAPPING) {
                    listed.push(COLUMN_MAPPING.to_owned());
                }
            }
        }
        protocol
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn protocol(reader: i32, listed: &[&str]) -> Protocol {
        let names = || listed.iter().map(|&name| name.to_owned()).collect();
        Protocol {
            min_reader_version: reader,
            min_writer_version: 7,
            reader_features: (reader == 3).then(names),
            writer_features: Some(names()),
        }
    }

    fn of(protocol: &Protocol, mode: &str, data_type: &str, physical: &str) -> TableFeatures {
        let schema_string = format!(
            r#"{{"type":"struct","fields":[{{"name":"a","type":"{data_type}","nullable":true,"metadata":{{"delta.columnMapping.physicalName":"{physical}"}}}}]}}"#
        );
        let schema = Schema::parse(&schema_string).unwrap();
        let metadata = Metadata {
            id: String::new(),
            name: None,
            description: None,
            format_provider: "parquet".to_owned(),
            format_options: BTreeMap::new(),
            schema_string,
            partition_columns: Vec::new(),
            configuration: BTreeMap::from([(COLUMN_MAPPING_MODE.to_owned(), mode.to_owned())]),
            created_time: None,
        };
        features(protocol, &metadata, &schema)
    }

    #[test]
    fn mapping_is_what_the_files_carry() {
        for (mode, physical, mapped) in [
            ("name", "col-1", true),
            ("NAME", "col-1", true),
            ("name", "a", false),
            ("id", "a", true),
            ("none", "col-1", false),
            ("unheard of", "a", true),
        ] {
            for protocol in
                [protocol(1, &[]), protocol(2, &[]), protocol(3, &[]), protocol(3, &["columnMapping"])]
            {
                let found = of(&protocol, mode, "long", physical).used.contains(COLUMN_MAPPING);
                assert_eq!(found, mapped, "{mode} {physical} {protocol:?}");
            }
        }
    }

    #[test]
    fn types_are_used_when_a_column_has_them() {
        let all = protocol(3, &["timestampNtz", "variantType-preview", "typeWidening", "v2Checkpoint"]);
        let unmapped = of(&all, "none", "long", "a");
        assert!(unmapped.used.is_empty() && unmapped.listed.len() == 3 && !unmapped.may_have_vectors);
        assert!(of(&all, "none", "timestamp_ntz", "a").used.contains("timestampNtz"));
        assert!(of(&all, "none", "variant", "a").used.contains("variantType-preview"));
        assert!(of(&protocol(1, &[]), "none", "timestamp_ntz", "a").used.contains("timestampNtz"));
        assert!(of(&protocol(3, &["deletionVectors"]), "none", "long", "a").may_have_vectors);
    }

    #[test]
    fn a_protocol_says_what_its_files_need() {
        for (before, after) in [
            (protocol(1, &[]), protocol(2, &[])),
            (protocol(2, &[]), protocol(2, &[])),
            (protocol(3, &["columnMapping"]), protocol(3, &["columnMapping"])),
        ] {
            assert_eq!(before.completed(&of(&before, "name", "long", "col-1")), after);
            assert_eq!(before.completed(&of(&before, "name", "long", "a")), before);
        }
        let completed = protocol(3, &[]).completed(&of(&protocol(3, &[]), "name", "long", "col-1"));
        assert_eq!(completed.reader_features.unwrap(), [COLUMN_MAPPING]);
    }
}
