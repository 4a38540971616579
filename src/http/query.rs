//! "Read Data from a Table": the files of one version, or what changed since a version, streamed. And "Get Query Info",
//! for clients that take the id of a query in place of the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::TimeDelta;

use super::query_headers::QueryHeaders;
use super::request::{AnswerBounds, Names, read_body};
use super::response::QueryResponse;
use crate::answer::head::Head;
use crate::answer::page::Page;
use crate::answer::range::OpenRange;
use crate::answer::tokens::{QueryId, RefreshClaims, TableTokens};
use crate::answer::version::{OpenFiles, OpenVersion};
use crate::answer::writer::AnswerEnd;
use crate::app::{App, InFlight};
use crate::auth::{Recipient, SharedTable};
use crate::delta::NextReads;
use crate::error::Result;
use crate::ndjson::Bounds;
use crate::protocol::digest::short_digest;
use crate::protocol::query::{Hints, QueryRequest, SnapshotQuery, TableQuery};

/// The most bytes of predicates that the id of a query takes in, since clients have it in a path.
const MOST_IN_ID: usize = 1024;

/// `POST …/tables/{table}/query`
pub async fn query_table(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    headers: HeaderMap,
    AnswerBounds(bounds): AnswerBounds,
    body: Body,
) -> Result<Response> {
    let mut request = QueryRequest::parse(&read_body(body, &app.limits).await?)?;
    let headers = QueryHeaders::parse(&headers)?;
    if let TableQuery::Snapshot(query) = &mut request.query
        && !headers.means_limit
    {
        query.hints.limit = None;
    }
    let shared = SharedTable::find(&*app.catalog, &recipient, &names).await?;
    let mut query = Query::begin(&app, &recipient, shared, headers, bounds)?;
    if query.headers.capabilities.async_query && request.paging.page_token.is_none() {
        query.headers = query.headers.of_async_query(None)?;
        return query.submit(request).await;
    }
    let page = Page::new(&request.paging, &query.tokens, request.fingerprint);
    query.answer(&request.query, page).await
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
    let mut answering = Query::begin(&app, &recipient, shared, headers, bounds)?;
    let QueryId { query, fingerprint, id_hash, .. } = answering.tokens.unseal_query(id.as_str())?;
    answering.headers = answering.headers.of_async_query(id_hash.as_deref())?;
    let page = Page::buffered(&paging, &answering.tokens, fingerprint);
    answering.answer(&query, page).await
}

/// A query of a shared table, counted among those that are being answered.
pub(super) struct Query<'a> {
    app: &'a App,
    headers: QueryHeaders,
    pub(super) shared: SharedTable,
    /// What seals and unseals the tokens of the recipient for this table.
    pub(super) tokens: TableTokens,
    in_flight: InFlight,
    bounds: Bounds,
}

impl<'a> Query<'a> {
    /// 429 or 503 if there are too many already.
    pub(super) fn begin(
        app: &'a App,
        recipient: &Recipient,
        shared: SharedTable,
        headers: QueryHeaders,
        bounds: Bounds,
    ) -> Result<Self> {
        let in_flight = app.begin_answer(recipient)?;
        let query_life = TimeDelta::seconds(app.limits.query_life_seconds.into());
        let tokens = TableTokens::new(app.token_key.clone(), recipient.name(), shared.record(), query_life);
        Ok(Self { app, headers, shared, tokens, in_flight, bounds })
    }

    async fn answer(self, query: &TableQuery, mut page: Page) -> Result<Response> {
        match query {
            TableQuery::Snapshot(query) => self.files(query, page).await,
            TableQuery::Since(query) => {
                let place = page.begin()?;
                let range = OpenRange::since(self.app, &self.shared, query, place).await?;
                self.changes(range, page).await
            }
        }
    }

    /// Answers with the files of a version: open, negotiate and sign, stream.
    async fn files(self, query: &SnapshotQuery, mut page: Page) -> Result<Response> {
        let (app, shared, capabilities) = (self.app, &self.shared, &self.headers.capabilities);
        let place = page.begin()?;
        let is_first = place.is_none();
        let files = match (place, &query.refresh_token) {
            (Some(place), _) => OpenFiles::resume(app, shared, query, place).await?,
            (None, Some(token)) => {
                let (refresh, began) = self.tokens.unseal_refresh(token)?;
                page.refreshes(began);
                OpenVersion::refresh(app, shared, &refresh).await?.refreshed_files().await?
            }
            (None, None) => {
                let totals = Head::needs_totals(capabilities, shared.record());
                let next = NextReads { files: true, totals };
                OpenVersion::open(app, shared, &query.as_of, next).await?.files(&query.hints).await?
            }
        };
        let checked = files.check(app, capabilities, page.format(capabilities)?).await?;
        let (format, snapshot, table) = (checked.format, checked.snapshot(), checked.table().clone());
        let (version, id) = (snapshot.version(), snapshot.metadata().id.clone());
        let mut end = self.end_of(&page);
        if query.wants_refresh_token() && is_first {
            let token = self.tokens.seal_refresh(&RefreshClaims { version, table: id }, page.began())?;
            end = AnswerEnd { action: true, refresh_token: Some(token) };
        }
        let lines = checked.into_lines(shared, self.headers.id_hash(format), capabilities, query);
        let response = QueryResponse { headers: &self.headers, format, version };
        response.stream(&table, lines, page, end, self.in_flight, self.bounds).await
    }

    /// Answers with the changes of a range: check, negotiate and sign, stream.
    pub(super) async fn changes(self, range: OpenRange, page: Page) -> Result<Response> {
        let capabilities = &self.headers.capabilities;
        let checked = range.check(self.app, capabilities, page.format(capabilities)?).await?;
        let (format, version, table) = (checked.format, checked.first_version(), checked.table.clone());
        let lines = checked.into_lines(&self.shared, self.headers.id_hash(format), capabilities);
        let end = self.end_of(&page);
        let response = QueryResponse { headers: &self.headers, format, version };
        response.stream(&table, lines, page, end, self.in_flight, self.bounds).await
    }

    /// How an answer ends, unless it has a refresh token.
    fn end_of(&self, page: &Page) -> AnswerEnd {
        AnswerEnd {
            action: self.headers.end_stream_action() || page.is_one_of_several(),
            refresh_token: None,
        }
    }

    /// Answers with the id of the query, after everything was checked that can fail at once.
    async fn submit(self, mut request: QueryRequest) -> Result<Response> {
        let (app, shared, capabilities) = (self.app, &self.shared, &self.headers.capabilities);
        let (version, format) = match &mut request.query {
            TableQuery::Snapshot(query) => {
                let opened = match &query.refresh_token {
                    Some(token) => {
                        let (refresh, _) = self.tokens.unseal_refresh(token)?;
                        OpenVersion::refresh(app, shared, &refresh).await?
                    }
                    None => OpenVersion::open(app, shared, &query.as_of, NextReads::default()).await?,
                };
                if query.hints.predicate_bytes() > MOST_IN_ID {
                    // A limit counts rows that meet the predicates.
                    query.hints = Hints::default();
                }
                (opened.snapshot.version(), opened.negotiate(capabilities).await?)
            }
            TableQuery::Since(query) => {
                let range = OpenRange::since(app, shared, query, None).await?;
                (query.starting_version, range.check(app, capabilities, None).await?.format)
            }
        };
        let id = self.tokens.seal_query(&QueryId {
            query: request.query,
            fingerprint: request.fingerprint,
            id_hash: self.headers.id_hash.map(|hash| hash.as_str().to_owned()),
            idempotency: short_digest(request.idempotency_key.unwrap_or_default().as_bytes()),
        })?;
        QueryResponse { headers: &self.headers, format, version }.pending(&id)
    }
}
