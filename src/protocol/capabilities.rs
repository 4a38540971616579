//! What a client can read: PROTOCOL.md, "Delta Sharing Capabilities Header" and "File ID Hash Header".

use std::collections::BTreeSet;
use std::fmt;

use crate::error::{Error, Result};

/// The request and response header that carries [`Capabilities`].
pub const CAPABILITIES_HEADER: &str = "delta-sharing-capabilities";

/// The request and response header that selects how file ids are made.
pub const FILE_ID_HASH_HEADER: &str = "fileidhash";

/// The two forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFormat {
    /// "API Response Actions in Parquet Format": any client, tables without reader features.
    Parquet,
    /// "API Response Actions in Delta Format": the table's own actions, wrapped.
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

    /// Whether the client declared the Delta reader feature `name`, whatever the case.
    pub fn reads_feature(&self, name: &str) -> bool {
        self.reader_features.contains(&name.to_lowercase())
    }

    /// The form of the answer for a table with these reader features: parquet where that is enough and
    /// the client takes it, else delta. A client that takes both, and knows every feature that the table
    /// may use, gets delta where there is one.
    ///
    /// Refused with the features' names where the client takes only parquet, or did not declare one.
    pub fn negotiate(&self, features: &TableFeatures) -> Result<ResponseFormat> {
        let declares = |names: &[String]| names.iter().all(|name| self.reads_feature(name));
        let may_use = !features.needed.is_empty() || !features.left_over.is_empty();
        let knows_all = declares(&features.needed) && declares(&features.left_over);
        if self.accepts(ResponseFormat::Delta) && may_use && knows_all {
            return Ok(ResponseFormat::Delta);
        }
        if features.needed.is_empty() && self.accepts(ResponseFormat::Parquet) {
            return Ok(ResponseFormat::Parquet);
        }
        if !self.accepts(ResponseFormat::Delta) {
            return Err(Error::unsupported(format!(
                "Unsupported Delta Table Properties: the table needs the reader features {}. \
                 Read it with a client that asks for responseformat=delta.",
                features.needed.join(", ")
            )));
        }
        let missing: Vec<_> =
            features.needed.iter().filter(|name| !self.reads_feature(name)).map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(ResponseFormat::Delta);
        }
        Err(Error::unsupported(format!(
            "Unsupported Delta Table Properties: the table needs the reader features {}, which the client \
             did not declare in {CAPABILITIES_HEADER}.",
            missing.join(", ")
        )))
    }

    /// The response header: the form of the answer, and what of the request it honours.
    pub fn answer(format: ResponseFormat, end_stream_action: bool, async_query: bool) -> String {
        let end_stream_action = if end_stream_action { ";includeendstreamaction=true" } else { "" };
        let async_query = if async_query { ";asyncquery=true" } else { "" };
        format!("responseformat={format}{end_stream_action}{async_query}")
    }
}

/// The Delta reader features of a table, as far as they concern its recipients. Spelled as in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableFeatures {
    /// What a recipient must know to read the table.
    pub needed: Vec<String>,
    /// What is switched off, but may be left in some files from when it was on.
    pub left_over: Vec<String>,
}

/// How the id of a file is made of its path in the log.
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

    /// The hash that goes with a form of answer where the client did not choose one.
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

    fn needs(names: &[&str]) -> TableFeatures {
        TableFeatures { needed: names.iter().map(|&name| name.to_owned()).collect(), left_over: Vec::new() }
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
    fn what_may_be_left_over_is_sent_in_delta_format_to_who_knows_it() {
        let table = TableFeatures { needed: Vec::new(), left_over: vec!["deletionVectors".to_owned()] };
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
    fn what_was_not_declared_is_refused_by_name() {
        let client = Capabilities::parse(Some("responseformat=delta;readerfeatures=deletionvectors"));
        let error = client.negotiate(&needs(&["columnMapping", "deletionVectors"])).unwrap_err();
        assert!(error.message().contains("columnMapping") && !error.message().contains("deletionVectors"));
        let parquet = Capabilities::parse(Some("responseformat=parquet"));
        let error = parquet.negotiate(&needs(&["columnMapping"])).unwrap_err();
        assert!(error.message().contains("Unsupported Delta Table Properties"));
        assert!(error.message().contains("columnMapping"));
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
