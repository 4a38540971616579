//! What queries of snapshots and of changes share: what the headers ask for, and the streamed response.

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::{NDJSON, TABLE_VERSION_HEADER, header, value, with_content_type};
use crate::error::Result;
use crate::ndjson::{self, Encoding, FailureLine, Lines};
use crate::protocol::capabilities::{
    CAPABILITIES_HEADER, Capabilities, FILE_ID_HASH_HEADER, FileIdHash, ResponseFormat,
};

/// What the headers of a query ask for.
pub(super) struct Asked {
    /// What the client can read.
    pub(super) capabilities: Capabilities,
    id_hash: Option<FileIdHash>,
    encoding: Encoding,
}

impl Asked {
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self> {
        Ok(Self {
            capabilities: Capabilities::parse(header(headers, CAPABILITIES_HEADER)),
            id_hash: FileIdHash::parse(header(headers, FILE_ID_HASH_HEADER))?,
            encoding: Encoding::negotiate(header(headers, ACCEPT_ENCODING.as_str())),
        })
    }

    /// How file ids are made in an answer of this format.
    pub(super) fn id_hash(&self, format: ResponseFormat) -> FileIdHash {
        self.id_hash.unwrap_or(FileIdHash::default_for(format))
    }

    /// Whether the headers ask for an `endStreamAction`.
    pub(super) fn end_stream_action(&self) -> bool {
        self.capabilities.include_end_stream_action
    }
}

/// A streamed answer, as its headers describe it.
pub(super) struct Streamed {
    /// The form of the answer.
    pub(super) format: ResponseFormat,
    /// The table's version, or the first of a range.
    pub(super) version: u64,
    /// Whether the headers say that an `endStreamAction` ends the answer.
    pub(super) end_stream_action: bool,
}

impl Streamed {
    /// Responds once the first chunk of what `write` writes is there, or with its error.
    pub(super) async fn respond(
        self,
        asked: &Asked,
        write: impl FnOnce(&mut Lines) -> Result<()> + Send + 'static,
    ) -> Result<Response> {
        let failure = match self.end_stream_action {
            true => FailureLine::EndStreamAction,
            false => FailureLine::NotJson,
        };
        let body = ndjson::stream(asked.encoding, failure, write).await?;
        let mut response = with_content_type(body, NDJSON);
        let headers = response.headers_mut();
        headers.insert(TABLE_VERSION_HEADER, HeaderValue::from(self.version));
        let capabilities = asked.capabilities.answer(self.format, self.end_stream_action);
        headers.insert(CAPABILITIES_HEADER, value(&capabilities)?);
        if let Some(hash) = asked.id_hash {
            headers.insert(FILE_ID_HASH_HEADER, HeaderValue::from_static(hash.as_str()));
        }
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if asked.encoding == Encoding::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }
}
