//! The first two lines of an answer, and the last one: "API Response Actions".
//!
//! Lines for files are written by `answer::file_line`, field by field, because there may be millions.

use std::collections::BTreeMap;

use serde::Serialize;

/// `{"protocol": …}` in either format.
#[derive(Debug, Serialize)]
pub struct ProtocolLine<P> {
    /// The protocol object of the format.
    pub protocol: P,
}

/// "Protocol" of the parquet format: always version 1, whatever the table's own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParquetProtocol {
    /// Always 1.
    pub min_reader_version: u32,
}

/// "Protocol in Delta Format".
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaProtocolWrapper<'a> {
    /// The version it belongs to, if the client asked for changes of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The table's protocol.
    pub delta_protocol: DeltaProtocol<'a>,
}

/// Delta's own protocol action. Feature lists are present exactly if the versions call for them;
/// an empty list below version 3 makes the kernel of one client fail.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaProtocol<'a> {
    /// The version a reader must know.
    pub min_reader_version: i32,
    /// The version a writer must know.
    pub min_writer_version: i32,
    /// From reader version 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<&'a [String]>,
    /// From writer version 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<&'a [String]>,
}

/// `{"metaData": …}` in either format.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataLine<M> {
    /// The metadata object of the format.
    pub meta_data: M,
}

/// "Format".
#[derive(Debug, Serialize)]
pub struct Format<'a> {
    /// Always `parquet`.
    pub provider: &'a str,
    /// Only in delta format, and there always: the kernel of one client requires it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<&'a BTreeMap<String, String>>,
}

/// "Metadata" of the parquet format.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParquetMetadata<'a> {
    /// The id in the table's log.
    pub id: &'a str,
    /// The name in the table's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// The description in the table's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
    /// The table's root, if recipients may read its directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<&'a str>,
    /// How the table can be read; by URL if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_modes: Option<&'static [&'static str]>,
    /// How the files are encoded.
    pub format: Format<'a>,
    /// "Schema Object", as JSON in a string.
    pub schema_string: &'a str,
    /// The partition columns; empty if there are none.
    pub partition_columns: &'a [String],
    /// Always present; some clients require it.
    pub configuration: BTreeMap<&'static str, &'a str>,
    /// The version it belongs to, in answers about changes. One client cannot read it in a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The size of all files in bytes, if it is known without reading the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The number of files, if it is known without reading the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_files: Option<u64>,
}

/// "Metadata in Delta Format".
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaMetadataWrapper<'a> {
    /// The table's metadata.
    pub delta_metadata: DeltaMetadata<'a>,
    /// The version it belongs to, in answers about changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The size of all files in bytes; Spark requires it of snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The number of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_files: Option<u64>,
    /// The table's root, if recipients may read its directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<&'a str>,
    /// How the table can be read; by URL if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_modes: Option<&'static [&'static str]>,
}

/// How a table may be read whose directory recipients may have: through presigned URLs or with credentials.
pub const URL_AND_DIRECTORY: &[&str] = &["url", "dir"];

/// Delta's own metadata action.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaMetadata<'a> {
    /// The id in the table's log.
    pub id: &'a str,
    /// The name in the table's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// The description in the table's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
    /// How the files are encoded.
    pub format: Format<'a>,
    /// The schema as it is in the log.
    pub schema_string: &'a str,
    /// The partition columns; empty if there are none.
    pub partition_columns: &'a [String],
    /// All properties of the table, in a fixed order.
    pub configuration: &'a BTreeMap<String, String>,
    /// When the metadata was created, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// `{"endStreamAction": …}`, the last line of an answer whose client asked for it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndStreamLine<'a> {
    /// The action.
    pub end_stream_action: EndStreamAction<'a>,
}

/// "EndStreamAction".
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndStreamAction<'a> {
    /// Asks for the same version again, with new URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<&'a str>,
    /// Asks for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<&'a str>,
    /// The earliest end of a URL in the answer, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_url_expiration_timestamp: Option<i64>,
    /// Why the answer is incomplete; the client must fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<&'a str>,
    /// The status the failure would have had; Spark decides by it whether to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status_error_code: Option<u16>,
}

/// `{"queryStatus": …}`, in place of the answer to an asynchronous query.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryStatusLine<'a> {
    /// The status.
    pub query_status: QueryStatus<'a>,
}

/// "QueryStatus", of "Get Query Info".
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryStatus<'a> {
    /// What the answer is asked for with.
    pub query_id: &'a str,
    /// `pending`
    pub status: &'static str,
}

/// The answer to "Generate Temporary Table Credential".
#[derive(Serialize)]
pub struct TemporaryCredentials<'a> {
    /// The credentials.
    pub credentials: TableCredentials<'a>,
}

/// Credentials for one directory.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableCredentials<'a> {
    /// The directory.
    pub location: &'a str,
    /// What S3 is asked with.
    pub aws_temp_credentials: AwsCredentials<'a>,
    /// When they end, in milliseconds since the epoch.
    pub expiration_time: i64,
}

/// "AwsCredentials".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsCredentials<'a> {
    /// The access key's id.
    pub access_key_id: &'a str,
    /// The secret key.
    pub secret_access_key: &'a str,
    /// The session token.
    pub session_token: &'a str,
}
