//! What a client can read: PROTOCOL.md, "Delta Sharing Capabilities Header" and "File ID Hash Header".

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The request and response header that carries [`Capabilities`].
pub const CAPABILITIES_HEADER: &str = "delta-sharing-capabilities";

/// The request and response header that selects how file ids are computed.
pub const FILE_ID_HASH_HEADER: &str = "fileidhash";

/// The two forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseFormat {
    /// "API Response Actions in Parquet Format": any client, tables without reader features.
    #[serde(rename = "p")]
    Parquet,
    /// "API Response Actions in Delta Format": the table's own actions, wrapped.
    #[serde(rename = "d")]
    Delta,
}

impl ResponseFormat {
    /// As it stands in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Delta => "delta",
        }
    }
}

impl fmt::Display for ResponseFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The capabilities that a client declared, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    parquet: bool,
    delta: bool,
    reader_features: BTreeSet<String>,
    /// Whether the client asked for an `endStreamAction` at the end of the answer.
    pub include_end_stream_action: bool,
    /// Whether the client can take the id of a query in place of the answer.
    pub async_query: bool,
}

impl Capabilities {
    /// Reads the header's value: `key=value,value;key=value`, in any case, with any spaces.
    /// Unknown keys and values are ignored, as the protocol asks of servers.
    ///
    /// ```
    /// use deltashare::protocol::capabilities::{Capabilities, ResponseFormat};
    ///
    /// let client = Capabilities::parse(Some("responseformat=delta;readerfeatures=deletionvectors"));
    /// assert!(client.accepts(ResponseFormat::Delta) && !client.accepts(ResponseFormat::Parquet));
    /// assert!(client.reads_feature("deletionVectors"));
    /// assert!(Capabilities::parse(None).accepts(ResponseFormat::Parquet));
    /// ```
    pub fn parse(header: Option<&str>) -> Self {
        let mut capabilities = Self::default();
        for (key, values) in header.unwrap_or_default().split(';').filter_map(|entry| entry.split_once('=')) {
            let mut values = values.split(',').map(|value| value.trim().to_lowercase());
            match key.trim().to_lowercase().as_str() {
                "responseformat" => {
                    for value in values {
                        capabilities.parquet |= value == "parquet";
                        capabilities.delta |= value == "delta";
                    }
                }
                "readerfeatures" => capabilities.reader_features.extend(values.filter(|v| !v.is_empty())),
                "includeendstreamaction" => {
                    capabilities.include_end_stream_action = values.any(|value| value == "true");
                }
                "asyncquery" => capabilities.async_query = values.any(|value| value == "true"),
                _ => {}
            }
        }
        capabilities
    }

    /// Whether the client can read `format`. A client that says nothing reads parquet.
    pub fn accepts(&self, format: ResponseFormat) -> bool {
        match format {
            ResponseFormat::Parquet => self.parquet || !self.delta,
            ResponseFormat::Delta => self.delta,
        }
    }

    /// Whether every answer is in delta format.
    pub fn needs_delta(&self) -> bool {
        !self.accepts(ResponseFormat::Parquet)
    }

    /// Whether the client declared the Delta reader feature `name`, whatever the case.
    pub fn reads_feature(&self, name: &str) -> bool {
        self.reader_features.contains(&name.to_lowercase())
    }

    /// Whether the client takes delta format and declared every feature that the versions use or list.
    fn reads_all(&self, features: &TableFeatures) -> bool {
        let mut all = features.used.iter().chain(&features.listed);
        self.accepts(ResponseFormat::Delta) && all.all(|name| self.reads_feature(name))
    }

    /// Whether the answer to this client depends on [`TableFeatures::may_have_vectors`], so that somebody has to
    /// look.
    pub fn depends_on_vectors(&self, features: &TableFeatures) -> bool {
        features.may_have_vectors && !self.reads_all(features)
    }

    /// The form of an answer that spans versions with these features. A client that takes both forms gets delta if it
    /// declared every feature that the versions use or list, and parquet if files that need no feature are all there
    /// is. Vectors that nobody has looked for count as absent: see [`Self::depends_on_vectors`].
    ///
    /// 400 with the names of the features that the client would have to know.
    pub fn negotiate(&self, features: &TableFeatures) -> Result<ResponseFormat> {
        if self.reads_all(features) && !(features.used.is_empty() && features.listed.is_empty()) {
            return Ok(ResponseFormat::Delta);
        }
        if features.used.is_empty() && self.accepts(ResponseFormat::Parquet) {
            return Ok(ResponseFormat::Parquet);
        }
        let delta = self.accepts(ResponseFormat::Delta);
        let lacks = |name: &&String| !delta || !self.reads_feature(name);
        let missing: Vec<&str> = features.used.iter().filter(lacks).map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(ResponseFormat::Delta);
        }
        Err(self.refusal(&missing, delta))
    }

    fn refusal(&self, missing: &[&str], delta: bool) -> Error {
        let (features, them, first) = match missing {
            [one] => (format!("reader feature {one}"), "it", *one),
            _ => (
                format!("reader features {}", missing.join(", ")),
                "them",
                missing.first().copied().unwrap_or_default(),
            ),
        };
        let lacks = match delta {
            true => format!("which the client did not declare in {CAPABILITIES_HEADER}"),
            false => "which answers in parquet format cannot carry".to_owned(),
        };
        Error::unsupported(format!(
            "Unsupported Delta Table Properties: the table uses the {features}, {lacks}. Read the table with a client \
             that supports {them} (responseformat=delta), or ask the provider to drop {them} from the table \
             (ALTER TABLE ... DROP FEATURE {first})."
        ))
    }

    /// The response header: the form of the answer, and what of the request it honours.
    pub fn answer(format: ResponseFormat, end_stream_action: bool, async_query: bool) -> String {
        let end_stream_action = if end_stream_action { ";includeendstreamaction=true" } else { "" };
        let async_query = if async_query { ";asyncquery=true" } else { "" };
        format!("responseformat={format}{end_stream_action}{async_query}")
    }
}

/// The name of the feature "Deletion Vectors".
pub const DELETION_VECTORS: &str = "deletionVectors";

/// What it takes to read some versions of a table, as far as recipients are concerned. Features are spelled as in the
/// log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableFeatures {
    /// Features that files or columns make use of: who does not know one of them reads wrong values.
    pub used: BTreeSet<String>,
    /// Features that the protocol lists, used or not.
    pub listed: BTreeSet<String>,
    /// Whether files may have deletion vectors, which nobody has looked for.
    pub may_have_vectors: bool,
}

impl TableFeatures {
    /// Adds what other versions of the same answer take.
    pub fn extend(&mut self, other: Self) {
        self.used.extend(other.used);
        self.listed.extend(other.listed);
        self.may_have_vectors |= other.may_have_vectors;
    }

    /// Takes note of whether files have deletion vectors.
    pub fn set_vectors(&mut self, present: bool) {
        self.may_have_vectors = false;
        if present {
            self.used.insert(DELETION_VECTORS.to_owned());
        }
    }
}

/// How the id of a file is computed from its path in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileIdHash {
    /// Hexadecimal MD5; what answers in parquet format use.
    Md5,
    /// Hexadecimal SHA-256; what answers in delta format use.
    Sha256,
}

impl FileIdHash {
    /// Reads the `fileidhash` header: `parquet` or `delta`, in any case.
    pub fn parse(header: Option<&str>) -> Result<Option<Self>> {
        let Some(text) = header else { return Ok(None) };
        match text.trim().to_lowercase().as_str() {
            "parquet" => Ok(Some(Self::Md5)),
            "delta" => Ok(Some(Self::Sha256)),
            _ => {
                let shown: String = text.chars().take(64).collect();
                Err(Error::invalid(format!("Unsupported fileidhash: '{shown}'. Supported: parquet, delta")))
            }
        }
    }

    /// The hash that goes with a form of answer if the client did not choose one.
    pub fn default_for(format: ResponseFormat) -> Self {
        match format {
            ResponseFormat::Parquet => Self::Md5,
            ResponseFormat::Delta => Self::Sha256,
        }
    }

    /// The value that is echoed to the client.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "parquet",
            Self::Sha256 => "delta",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn needs(used: &[&str]) -> TableFeatures {
        TableFeatures { used: names(used), listed: names(used), may_have_vectors: false }
    }

    #[test]
    fn a_header_is_read_in_any_case_and_spacing() {
        let capabilities = Capabilities::parse(Some(
            " ResponseFormat = Delta , PARQUET ; readerFeatures=deletionVectors,,columnmapping;x;y=z;includeEndStreamAction=TRUE",
        ));
        assert!(capabilities.accepts(ResponseFormat::Delta) && capabilities.accepts(ResponseFormat::Parquet));
        assert!(capabilities.reads_feature("deletionVectors") && capabilities.reads_feature("columnMapping"));
        assert!(!capabilities.reads_feature("timestampNtz"));
        assert!(capabilities.include_end_stream_action);
    }

    #[test]
    fn an_absent_or_empty_header_means_parquet() {
        for header in [None, Some(""), Some(";;"), Some("responseformat="), Some("responseformat=iceberg")] {
            let capabilities = Capabilities::parse(header);
            assert_eq!(capabilities.negotiate(&needs(&[])).unwrap(), ResponseFormat::Parquet, "{header:?}");
            assert!(capabilities.negotiate(&needs(&["deletionVectors"])).is_err(), "{header:?}");
        }
    }

    #[test]
    fn both_formats_give_parquet_unless_the_table_needs_more() {
        let both = Capabilities::parse(Some("responseformat=delta,parquet;readerfeatures=deletionvectors"));
        assert_eq!(both.negotiate(&needs(&[])).unwrap(), ResponseFormat::Parquet);
        assert_eq!(both.negotiate(&needs(&["deletionVectors"])).unwrap(), ResponseFormat::Delta);
        let delta = Capabilities::parse(Some("responseformat=delta"));
        assert_eq!(delta.negotiate(&needs(&[])).unwrap(), ResponseFormat::Delta);
    }

    #[test]
    fn what_is_listed_and_not_used_stands_in_nobodys_way() {
        let table = TableFeatures { listed: names(&["deletionVectors"]), ..TableFeatures::default() };
        for (header, format) in [
            ("responseformat=delta,parquet;readerfeatures=deletionvectors", ResponseFormat::Delta),
            ("responseformat=delta,parquet", ResponseFormat::Parquet),
            ("responseformat=parquet", ResponseFormat::Parquet),
            ("", ResponseFormat::Parquet),
            ("responseformat=delta", ResponseFormat::Delta),
        ] {
            assert_eq!(Capabilities::parse(Some(header)).negotiate(&table).unwrap(), format, "{header}");
        }
    }

    #[test]
    fn vectors_are_looked_for_only_when_the_answer_depends_on_them() {
        let table = TableFeatures {
            listed: names(&["deletionVectors"]),
            may_have_vectors: true,
            ..TableFeatures::default()
        };
        for (header, depends) in [
            ("responseformat=delta,parquet;readerfeatures=deletionvectors", false),
            ("responseformat=delta;readerfeatures=deletionvectors", false),
            ("responseformat=delta,parquet", true),
            ("responseformat=delta", true),
            ("responseformat=parquet;readerfeatures=deletionvectors", true),
            ("", true),
        ] {
            let client = Capabilities::parse(Some(header));
            assert_eq!(client.depends_on_vectors(&table), depends, "{header}");
            if depends {
                let mut found = table.clone();
                found.set_vectors(true);
                assert!(client.negotiate(&found).is_err(), "{header}");
                let mut absent = table.clone();
                absent.set_vectors(false);
                assert!(client.negotiate(&absent).is_ok(), "{header}");
            }
        }
    }

    #[test]
    fn what_was_not_declared_is_refused_by_name() {
        let client = Capabilities::parse(Some("responseformat=delta;readerfeatures=deletionvectors"));
        let error = client.negotiate(&needs(&["columnMapping", "deletionVectors"])).unwrap_err();
        assert!(error.message().contains("columnMapping") && !error.message().contains("deletionVectors"));
        assert!(error.message().contains("DROP FEATURE columnMapping"), "{error}");
        for header in ["responseformat=parquet", "responseformat=parquet;readerfeatures=columnmapping"] {
            let error = Capabilities::parse(Some(header)).negotiate(&needs(&["columnMapping"])).unwrap_err();
            assert!(error.message().starts_with("Unsupported Delta Table Properties"), "{error}");
            assert!(error.message().contains("columnMapping"), "{error}");
        }
    }

    #[test]
    fn file_id_hashes() {
        assert_eq!(FileIdHash::parse(None).unwrap(), None);
        assert_eq!(FileIdHash::parse(Some(" Delta ")).unwrap(), Some(FileIdHash::Sha256));
        assert_eq!(FileIdHash::parse(Some("PARQUET")).unwrap(), Some(FileIdHash::Md5));
        for bad in ["", "md5", "delta,parquet"] {
            let error = FileIdHash::parse(Some(bad)).unwrap_err();
            assert!(error.message().starts_with("Unsupported fileidhash: '"), "{error}");
        }
    }
}
