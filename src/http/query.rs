//! "Read Data from a Table": the files of one version, or what changed since a version, streamed. And "Get Query Info",
//! for clients that take the id of a query in place of the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::query_headers::QueryHeaders;
use super::request::{AnswerBounds, Names, read_body, table_tokens};
use super::response::QueryResponse;
use crate::answer::file_line::{FileLineWriter, QueriedVersion};
use crate::answer::head::Head;
use crate::answer::page::Page;
use crate::answer::range::OpenRange;
use crate::answer::tokens::{QueryId, RefreshClaims, TableTokens};
use crate::answer::version::{OpenFiles, OpenVersion};
use crate::answer::writer::AnswerEnd;
use crate::app::{App, InFlight};
use crate::auth::{Recipient, SharedTable};
use crate::error::Result;
use crate::ndjson::Bounds;
use crate::protocol::digest::short_digest;
use crate::protocol::query::{AsOf, Paging, QueryRequest, TableQuery};

/// `POST …/tables/{table}/query`
pub async fn query_table(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    headers: HeaderMap,
    AnswerBounds(bounds): AnswerBounds,
    body: Body,
) -> Result<Response> {
    let request = QueryRequest::parse(&read_body(body, &app.limits).await?)?;
    let headers = QueryHeaders::parse(&headers)?;
    let shared = SharedTable::find(&*app.catalog, &recipient, &names).await?;
    let in_flight = app.begin_answer(recipient.name())?;
    let tokens = table_tokens(&app, &recipient, &shared);
    if headers.capabilities.async_query && request.paging.page_token.is_none() {
        let headers = headers.of_async_query(None)?;
        return Query { app: &app, headers: &headers, shared: &shared, tokens: &tokens }
            .submit(request)
            .await;
    }
    let page = Page::new(&request.paging, &tokens, request.fingerprint);
    let query = Query { app: &app, headers: &headers, shared: &shared, tokens: &tokens };
    query.answer(&request.query, &request.paging, page, (in_flight, bounds)).await
}

/// `POST …/tables/{table}/queries/{queryId}`
///
/// The answer to a query that was submitted, in pages that fit through a gateway that buffers answers.
pub async fn query_result(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names([share, schema, table, id]): Names<4>,
    headers: HeaderMap,
    AnswerBounds(bounds): AnswerBounds,
    body: Body,
) -> Result<Response> {
    let paging = QueryRequest::parse_paging(&read_body(body, &app.limits).await?)?;
    let headers = QueryHeaders::parse(&headers)?;
    let shared = SharedTable::find(&*app.catalog, &recipient, &[share, schema, table]).await?;
    let in_flight = app.begin_answer(recipient.name())?;
    let tokens = table_tokens(&app, &recipient, &shared);
    let QueryId { query, fingerprint, id_hash, .. } = tokens.unseal_query(id.as_str())?;
    let headers = headers.of_async_query(id_hash.as_deref())?;
    let page = Page::buffered(&paging, &tokens, fingerprint);
    let answering = Query { app: &app, headers: &headers, shared: &shared, tokens: &tokens };
    answering.answer(&query, &paging, page, (in_flight, bounds)).await
}

/// A query of a shared table.
struct Query<'a> {
    app: &'a App,
    headers: &'a QueryHeaders,
    shared: &'a SharedTable,
    tokens: &'a TableTokens,
}

impl Query<'_> {
    async fn answer(
        &self,
        query: &TableQuery,
        paging: &Paging,
        page: Page,
        sending: (InFlight, Bounds),
    ) -> Result<Response> {
        match query {
            TableQuery::Snapshot { as_of, include_refresh_token, refresh_token } => {
                let wants_token = *include_refresh_token || refresh_token.is_some();
                self.files(as_of, (refresh_token.as_deref(), wants_token), paging, page, sending).await
            }
            TableQuery::Since { starting_version, ending_version, include_historical_protocol } => {
                let versions = (*starting_version, *ending_version);
                self.changes(versions, *include_historical_protocol, paging, page, sending).await
            }
        }
    }

    /// Answers with the files of a version: open, negotiate, sign, stream.
    async fn files(
        &self,
        as_of: &AsOf,
        (refresh_token, wants_token): (Option<&str>, bool),
        paging: &Paging,
        mut page: Page,
        sending: (InFlight, Bounds),
    ) -> Result<Response> {
        let place = page.begin(paging)?;
        let is_first = place.is_none();
        let files = match (place, refresh_token) {
            (Some(place), _) => OpenFiles::resume(self.app, self.shared, as_of, place).await?,
            (None, Some(token)) => {
                let (refresh, began) = self.tokens.unseal_refresh(token)?;
                page.refreshes(began);
                OpenVersion::refresh(self.app, self.shared, &refresh).await?.files().await?
            }
            (None, None) => OpenVersion::open(self.app, self.shared, as_of).await?.files().await?,
        };
        let capabilities = &self.headers.capabilities;
        let opened = files.version();
        let format = match page.format(capabilities)? {
            Some(format) => format,
            None => opened.negotiate(capabilities).await?,
        };
        let signer = self.app.signer(&opened.table).await?;
        let version = opened.snapshot.version();
        let mut end = end_of(self.headers, &page);
        if wants_token && is_first {
            let refresh = RefreshClaims { version, table: opened.snapshot.metadata().id.clone() };
            let token = self.tokens.seal_refresh(&refresh, page.began())?;
            end = AnswerEnd { action: true, refresh_token: Some(token) };
        }
        // The time of the version is left out: no client needs it here, and it is gone once its commit is cleaned up.
        let queried = as_of.is_historical().then_some(QueriedVersion { version, timestamp: None });
        let id_hash = self.headers.id_hash(format);
        let lines = FileLineWriter::new(format, id_hash, capabilities, queried, signer);
        let cursor = files.into_lines(Head::new(format, self.shared.record()), lines);
        QueryResponse { headers: self.headers, format, version }
            .stream(&opened.table, cursor, (page, end), sending)
            .await
    }

    /// Answers with what changed since a version.
    async fn changes(
        &self,
        versions: (u64, Option<u64>),
        historical_protocol: bool,
        paging: &Paging,
        mut page: Page,
        sending: (InFlight, Bounds),
    ) -> Result<Response> {
        let place = page.begin(paging)?;
        let range = OpenRange::since(self.app, self.shared, versions, historical_protocol, place).await?;
        stream_changes(self.app, self.headers, self.shared, range, page, sending).await
    }

    /// Answers with the id of the query, after everything was checked that can fail at once.
    async fn submit(&self, request: QueryRequest) -> Result<Response> {
        let capabilities = &self.headers.capabilities;
        let (version, format) = match &request.query {
            TableQuery::Snapshot { as_of, refresh_token, .. } => {
                let opened = match refresh_token {
                    Some(token) => {
                        let (refresh, _) = self.tokens.unseal_refresh(token)?;
                        OpenVersion::refresh(self.app, self.shared, &refresh).await?
                    }
                    None => OpenVersion::open(self.app, self.shared, as_of).await?,
                };
                (opened.snapshot.version(), opened.negotiate(capabilities).await?)
            }
            TableQuery::Since { starting_version, ending_version, include_historical_protocol } => {
                let versions = (*starting_version, *ending_version);
                let with_protocol = *include_historical_protocol;
                let range = OpenRange::since(self.app, self.shared, versions, with_protocol, None).await?;
                (*starting_version, range.check(self.app, capabilities, None).await?.format)
            }
        };
        let id = self.tokens.seal_query(&QueryId {
            query: request.query,
            fingerprint: request.fingerprint,
            id_hash: self.headers.id_hash.map(|hash| hash.as_str().to_owned()),
            idempotency: short_digest(request.idempotency_key.unwrap_or_default().as_bytes()),
        })?;
        QueryResponse { headers: self.headers, format, version }.pending(&id)
    }
}

/// How an answer ends, unless it has a refresh token.
fn end_of(headers: &QueryHeaders, page: &Page) -> AnswerEnd {
    AnswerEnd { action: headers.end_stream_action() || page.is_one_of_several(), refresh_token: None }
}

/// Answers with the changes of a range: check and sign, negotiate, stream.
pub(super) async fn stream_changes(
    app: &App,
    headers: &QueryHeaders,
    shared: &SharedTable,
    range: OpenRange,
    page: Page,
    sending: (InFlight, Bounds),
) -> Result<Response> {
    let capabilities = &headers.capabilities;
    let checked = range.check(app, capabilities, page.format(capabilities)?).await?;
    let end = end_of(headers, &page);
    let (format, version, table) = (checked.format, checked.first_version(), checked.table.clone());
    let cursor = checked.into_lines(shared, headers.id_hash(format), capabilities);
    QueryResponse { headers, format, version }.stream(&table, cursor, (page, end), sending).await
}
