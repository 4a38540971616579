//! What queries of snapshots and of changes share: what the headers ask for, and the streamed response.

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::{NDJSON, TABLE_VERSION_HEADER, header, value, with_content_type};
use crate::app::InFlight;
use crate::audit;
use crate::error::{Error, Result};
use crate::gate::Lane;
use crate::ndjson::{self, Encoding, FailureLine, Lines, Progress, Sending};
use crate::protocol::actions::{QueryStatus, QueryStatusLine};
use crate::protocol::capabilities::{
    CAPABILITIES_HEADER, Capabilities, FILE_ID_HASH_HEADER, FileIdHash, ResponseFormat,
};

/// What the headers of a query ask for.
pub(super) struct Asked {
    /// What the client can read.
    pub(super) capabilities: Capabilities,
    id_hash: Option<FileIdHash>,
    encoding: Encoding,
    /// Whether the answer is that of an asynchronous query.
    async_query: bool,
}

impl Asked {
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self> {
        Ok(Self {
            capabilities: Capabilities::parse(header(headers, CAPABILITIES_HEADER)),
            id_hash: FileIdHash::parse(header(headers, FILE_ID_HASH_HEADER))?,
            encoding: Encoding::negotiate(header(headers, ACCEPT_ENCODING.as_str())),
            async_query: false,
        })
    }

    /// How file ids are made in an answer of this format.
    pub(super) fn id_hash(&self, format: ResponseFormat) -> FileIdHash {
        self.id_hash.unwrap_or(FileIdHash::default_for(format))
    }

    /// How file ids are made, where the client says so.
    pub(super) fn requested_id_hash(&self) -> Option<&'static str> {
        self.id_hash.map(FileIdHash::as_str)
    }

    /// The same for the answer of an asynchronous query, whose submission said how file ids are made.
    pub(super) fn of_async_query(self, id_hash: Option<&str>) -> Result<Self> {
        let submitted = FileIdHash::parse(id_hash)?;
        Ok(Self { id_hash: self.id_hash.or(submitted), async_query: true, ..self })
    }

    /// Whether the headers ask for an `endStreamAction`.
    pub(super) fn end_stream_action(&self) -> bool {
        self.capabilities.include_end_stream_action
    }
}

/// A streamed answer, as its headers describe it.
pub(super) struct Streamed {
    format: ResponseFormat,
    /// The table's version, or the first of a range.
    version: u64,
}

impl Streamed {
    /// An answer in this format about this version of the table, or about a range that begins there.
    pub(super) fn new(format: ResponseFormat, version: u64) -> Self {
        Self { format, version }
    }

    /// Responds with the id of a query in place of its answer.
    pub(super) fn respond_pending(self, asked: &Asked, id: &str) -> Result<Response> {
        let line = QueryStatusLine { query_status: QueryStatus { query_id: id, status: "pending" } };
        let mut body = serde_json::to_vec(&line).map_err(Error::internal)?;
        body.push(b'\n');
        let mut response = with_content_type(body.into(), NDJSON);
        self.describe(&mut response, asked, false)?;
        Ok(response)
    }

    /// Responds once the first chunk of what `write` writes is there, or with its error.
    pub(super) async fn respond(
        self,
        asked: &Asked,
        lane: &Lane,
        in_flight: InFlight,
        write: impl FnMut(&mut Lines) -> Result<Progress> + Send + 'static,
    ) -> Result<Response> {
        let end_stream_action = asked.end_stream_action();
        let failure = match end_stream_action {
            true => FailureLine::EndStreamAction,
            false => FailureLine::NotJson,
        };
        let (lane, in_flight) = (lane.clone(), Box::new(in_flight));
        let sending = Sending { encoding: asked.encoding, failure, lane, in_flight };
        let body = ndjson::stream(sending, write).await?;
        let mut response = with_content_type(body, NDJSON);
        self.describe(&mut response, asked, end_stream_action)?;
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if asked.encoding == Encoding::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }

    fn describe(&self, response: &mut Response, asked: &Asked, end_stream_action: bool) -> Result<()> {
        audit::note(|facts| {
            facts.version = Some(self.version);
            facts.format = Some(self.format.as_str());
        });
        let headers = response.headers_mut();
        headers.insert(TABLE_VERSION_HEADER, HeaderValue::from(self.version));
        let capabilities = Capabilities::answer(self.format, end_stream_action, asked.async_query);
        headers.insert(CAPABILITIES_HEADER, value(&capabilities)?);
        if let Some(hash) = asked.id_hash {
            headers.insert(FILE_ID_HASH_HEADER, HeaderValue::from_static(hash.as_str()));
        }
        Ok(())
    }
}
