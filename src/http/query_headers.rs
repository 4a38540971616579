//! What the headers of a query say of its answer.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, USER_AGENT};

use super::request::header;
use crate::error::Result;
use crate::ndjson::Encoding;
use crate::protocol::capabilities::{
    CAPABILITIES_HEADER, Capabilities, FILE_ID_HASH_HEADER, FileIdHash, ResponseFormat,
};

/// How the user agent of a client begins that sends an uninitialised number as `limitHint`: its users would lose rows.
const UNINITIALISED_LIMIT: &str = "delta-sharing-CPP/";

/// The headers of a query.
pub(super) struct QueryHeaders {
    /// What the client can read.
    pub(super) capabilities: Capabilities,
    pub(super) id_hash: Option<FileIdHash>,
    pub(super) encoding: Encoding,
    /// Whether the answer is that of an asynchronous query.
    pub(super) async_query: bool,
    /// Whether `limitHint` is what the client will read.
    pub(super) means_limit: bool,
}

impl QueryHeaders {
    /// 400 if the client names a hash of file ids that the protocol does not have.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self> {
        Ok(Self {
            capabilities: Capabilities::parse(header(headers, CAPABILITIES_HEADER)),
            id_hash: FileIdHash::parse(header(headers, FILE_ID_HASH_HEADER))?,
            encoding: Encoding::negotiate(header(headers, ACCEPT_ENCODING.as_str())),
            async_query: false,
            means_limit: !header(headers, USER_AGENT.as_str())
                .is_some_and(|agent| agent.starts_with(UNINITIALISED_LIMIT)),
        })
    }

    /// How file ids are computed in an answer of this format.
    pub(super) fn id_hash(&self, format: ResponseFormat) -> FileIdHash {
        self.id_hash.unwrap_or(FileIdHash::default_for(format))
    }

    /// The same for the answer of an asynchronous query, whose submission said how file ids are computed.
    pub(super) fn of_async_query(self, id_hash: Option<&str>) -> Result<Self> {
        let submitted = FileIdHash::parse(id_hash)?;
        Ok(Self { id_hash: self.id_hash.or(submitted), async_query: true, ..self })
    }

    /// Whether the client asks for an `endStreamAction`.
    pub(super) fn end_stream_action(&self) -> bool {
        self.capabilities.include_end_stream_action
    }
}
