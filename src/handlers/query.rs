//! "Read Data from a Table": the files of one snapshot, streamed.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use chrono::Utc;

use super::answer::Answer;
use super::head::{Head, table_features};
use super::lines::{FileLines, QueriedVersion};
use super::open::open_snapshot;
use super::{NDJSON, Names, TABLE_VERSION_HEADER, blocking, header, value, with_content_type};
use crate::app::App;
use crate::auth::{Recipient, SharedTable};
use crate::delta::Snapshot;
use crate::error::{Error, Result};
use crate::ndjson::{self, Encoding, FailureLine};
use crate::protocol::capabilities::{CAPABILITIES_HEADER, Capabilities, FILE_ID_HASH_HEADER, FileIdHash};
use crate::protocol::query::TableQuery;

/// The largest body of a request; what API Gateway takes.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// `POST …/tables/{table}/query`
pub async fn query_table(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|error| {
        Error::too_large("The body of the request could not be read, or is over 10 MiB.").with_source(error)
    })?;
    let query = TableQuery::parse(&body)?;
    let capabilities = Capabilities::parse(header(&headers, CAPABILITIES_HEADER));
    let asked_hash = FileIdHash::parse(header(&headers, FILE_ID_HASH_HEADER))?;
    let shared = SharedTable::find(&app, &recipient, &names).await?;

    let historical = query.as_of.is_historical();
    let opened = open_snapshot(&app, &shared, query.as_of).await?;
    let snapshot = opened.snapshot;
    let format = capabilities.negotiate(&table_features(&snapshot))?;
    let signer = app.storage.signer(&opened.table.location, &opened.table.allowed, Utc::now()).await?;
    let head = Head { format, history_shared: shared.0.history_shared };
    let version = snapshot.version();
    let queried = if historical { Some(queried_version(Arc::clone(&snapshot)).await?) } else { None };
    let id_hash = asked_hash.unwrap_or(FileIdHash::default_for(format));
    let files = FileLines::new(format, id_hash, &capabilities, queried, signer);

    let ending = capabilities.include_end_stream_action;
    let failure = if ending { FailureLine::EndStreamAction } else { FailureLine::NotJson };
    let encoding = Encoding::negotiate(header(&headers, ACCEPT_ENCODING.as_str()));
    let answer = Answer { snapshot, head, files, end_stream_action: ending || query.include_refresh_token };
    let body = ndjson::stream(encoding, failure, move |lines| answer.write(lines)).await?;

    let mut response = with_content_type(body, NDJSON);
    let headers = response.headers_mut();
    headers.insert(TABLE_VERSION_HEADER, HeaderValue::from(version));
    headers.insert(CAPABILITIES_HEADER, value(&capabilities.answer(format, ending))?);
    if let Some(hash) = asked_hash {
        headers.insert(FILE_ID_HASH_HEADER, HeaderValue::from_static(hash.as_str()));
    }
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if encoding == Encoding::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// The version of the answer with its commit time, which is left out where its commit is gone.
async fn queried_version(snapshot: Arc<Snapshot>) -> Result<QueriedVersion> {
    blocking(move || Ok(QueriedVersion { version: snapshot.version(), timestamp: snapshot.timestamp().ok() }))
        .await
}
