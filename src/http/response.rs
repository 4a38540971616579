//! Responses: their content types, and the headers of an answer about a table.

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::query_headers::QueryHeaders;
use crate::answer::page::Page;
use crate::answer::writer::{AnswerEnd, AnswerWriter, LineCursor};
use crate::app::{InFlight, OpenTable};
use crate::audit;
use crate::error::{Error, Result};
use crate::ndjson::{self, Bounds, Encoding, FailureLine, Sending};
use crate::protocol::actions::{QueryStatus, QueryStatusLine};
use crate::protocol::capabilities::{
    CAPABILITIES_HEADER, Capabilities, FILE_ID_HASH_HEADER, FileIdHash, ResponseFormat,
};

pub(super) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
pub(super) const TABLE_VERSION_HEADER: HeaderName = HeaderName::from_static("delta-table-version");

pub(super) fn with_content_type(body: Body, content_type: HeaderValue) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The headers of an answer about a version of a table: "Read Data from a Table", "Query Table Metadata".
pub(super) fn describe(
    headers: &mut HeaderMap,
    version: u64,
    capabilities: &str,
    id_hash: Option<FileIdHash>,
) -> Result<()> {
    headers.insert(TABLE_VERSION_HEADER, HeaderValue::from(version));
    headers.insert(CAPABILITIES_HEADER, HeaderValue::from_str(capabilities).map_err(Error::internal)?);
    if let Some(hash) = id_hash {
        headers.insert(FILE_ID_HASH_HEADER, HeaderValue::from_static(hash.as_str()));
    }
    Ok(())
}

/// A query's answer, as its headers describe it.
pub(super) struct QueryResponse<'a> {
    pub(super) headers: &'a QueryHeaders,
    pub(super) format: ResponseFormat,
    /// The table's version, or the first of a range.
    pub(super) version: u64,
}

impl QueryResponse<'_> {
    /// Responds with the id of a query in place of its answer.
    pub(super) fn pending(self, id: &str) -> Result<Response> {
        let line = QueryStatusLine { query_status: QueryStatus { query_id: id, status: "pending" } };
        let mut body = serde_json::to_vec(&line).map_err(Error::internal)?;
        body.push(b'\n');
        let mut response = with_content_type(body.into(), NDJSON);
        self.describe(&mut response, false)?;
        Ok(response)
    }

    /// Responds when the first chunk of the answer is ready, or with the error that came before it.
    pub(super) async fn stream(
        self,
        table: &OpenTable,
        cursor: impl LineCursor,
        page: Page,
        end: AnswerEnd,
        mut in_flight: InFlight,
        bounds: Bounds,
    ) -> Result<Response> {
        let end_stream_action = self.headers.end_stream_action();
        let failure = match end_stream_action {
            true => FailureLine::EndStreamAction,
            false => FailureLine::NotJson,
        };
        let (memory, charge) = (in_flight.memory(), in_flight.take_charge());
        let writer = AnswerWriter { cursor, page, end, is_flushed: false, memory, charge };
        let (lane, in_flight) = (table.lane().clone(), Box::new(in_flight));
        let sending = Sending { encoding: self.headers.encoding, failure, bounds, lane, in_flight };
        let body = ndjson::stream(sending, writer.into_steps()).await?;
        let mut response = with_content_type(body, NDJSON);
        self.describe(&mut response, end_stream_action)?;
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if self.headers.encoding == Encoding::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }

    fn describe(&self, response: &mut Response, end_stream_action: bool) -> Result<()> {
        audit::note(|facts| {
            facts.version = Some(self.version);
            facts.format = Some(self.format.as_str());
        });
        let capabilities = Capabilities::answer(self.format, end_stream_action, self.headers.async_query);
        describe(response.headers_mut(), self.version, &capabilities, self.headers.id_hash)
    }
}
