//! "Read Data from a Table": the files of one snapshot, or what changed since a version, streamed. And "Get
//! Query Info", for clients that take the id of a query in place of the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;

use super::Names;
use super::answer::{Answer, End};
use super::body::read_body;
use super::changes::{open_since, respond_changes};
use super::head::Head;
use super::lines::{FileLines, QueriedVersion};
use super::open::{OpenSnapshot, check_history, check_start, negotiate, open_snapshot};
use super::pages::{FilesPlace, Page, QueryId, Refresh, Tokens};
use super::stream::{Asked, Streamed};
use crate::app::{App, InFlight, OpenTable};
use crate::auth::{Recipient, SharedTable};
use crate::catalog::TableRecord;
use crate::delta::{FileCursor, FileStats};
use crate::error::{Error, Result};
use crate::protocol::digest::short_digest;
use crate::protocol::query::{AsOf, Paging, QueryRequest, TableQuery};

/// `POST …/tables/{table}/query`
pub async fn query_table(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let request = QueryRequest::parse(&read_body(body, &app.limits).await?)?;
    let asked = Asked::parse(&headers)?;
    let shared = SharedTable::find(&app, &recipient, &names).await?;
    let in_flight = app.begin_answer(recipient.name())?;
    let tokens = Tokens::new(&app, &recipient, &shared.0);
    if asked.capabilities.async_query && request.paging.page_token.is_none() {
        let asked = asked.of_async_query(None)?;
        return Query { app: &app, asked: &asked, record: &shared.0, tokens: &tokens }.submit(request).await;
    }
    let page = Page::new(&request.paging, &tokens, request.fingerprint);
    let query = Query { app: &app, asked: &asked, record: &shared.0, tokens: &tokens };
    query.answer(&request.query, &request.paging, page, in_flight).await
}

/// `POST …/tables/{table}/queries/{queryId}`
///
/// The answer to a query that was submitted, in pages that fit through a gateway that buffers answers.
pub async fn query_result(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names([share, schema, table, id]): Names<4>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let paging = QueryRequest::parse_paging(&read_body(body, &app.limits).await?)?;
    let asked = Asked::parse(&headers)?;
    let shared = SharedTable::find(&app, &recipient, &[share, schema, table]).await?;
    let in_flight = app.begin_answer(recipient.name())?;
    let tokens = Tokens::new(&app, &recipient, &shared.0);
    let QueryId { query, fingerprint, id_hash, .. } = tokens.open_query(id.as_str())?;
    let asked = asked.of_async_query(id_hash.as_deref())?;
    let page = Page::buffered(&paging, &tokens, fingerprint);
    let answering = Query { app: &app, asked: &asked, record: &shared.0, tokens: &tokens };
    answering.answer(&query, &paging, page, in_flight).await
}

/// A query of a shared table.
struct Query<'a> {
    app: &'a App,
    asked: &'a Asked,
    record: &'a TableRecord,
    tokens: &'a Tokens,
}

/// The files of a version, opened where the answer begins.
struct OpenFiles {
    table: OpenTable,
    files: FileCursor,
    /// What the first page told, if this is a later one.
    stats: Option<FileStats>,
}

impl Query<'_> {
    async fn answer(
        &self,
        query: &TableQuery,
        paging: &Paging,
        page: Page,
        in_flight: InFlight,
    ) -> Result<Response> {
        match query {
            TableQuery::Snapshot { as_of, include_refresh_token, refresh_token } => {
                let refresh = *include_refresh_token || refresh_token.is_some();
                self.snapshot(as_of, (refresh_token.as_deref(), refresh), paging, page, in_flight).await
            }
            TableQuery::Since { starting_version, ending_version, include_historical_protocol } => {
                let mut page = page;
                let opened = open_since(
                    self.app,
                    self.record,
                    (*starting_version, *ending_version),
                    *include_historical_protocol,
                    page.begin(paging)?,
                )
                .await?;
                let end = self.end(&page);
                respond_changes(self.app, self.asked, self.record, opened, page, end, in_flight).await
            }
        }
    }

    fn end(&self, page: &Page) -> End {
        End { action: self.asked.end_stream_action() || page.is_one_of_several(), refresh_token: None }
    }

    async fn snapshot(
        &self,
        as_of: &AsOf,
        (refresh_token, refresh): (Option<&str>, bool),
        paging: &Paging,
        mut page: Page,
        in_flight: InFlight,
    ) -> Result<Response> {
        let place: Option<FilesPlace> = page.begin(paging)?;
        let first = place.is_none();
        let refreshed = match refresh_token.filter(|_| first) {
            Some(token) => {
                let (refreshed, began) = self.tokens.open_refresh(token)?;
                page.refreshes(began);
                Some(refreshed)
            }
            None => None,
        };
        let OpenFiles { table, files, stats } = self.open(as_of, refreshed, place).await?;
        let snapshot = files.snapshot();
        let capabilities = &self.asked.capabilities;
        let format = match page.format(capabilities)? {
            Some(format) => format,
            None => negotiate(capabilities, &table, snapshot).await?,
        };
        let signer = self.app.storage.signer(&table.location, &table.allowed, Utc::now()).await?;
        // The time of the version is left out: no client needs it here, and it is gone once its commit is cleaned up.
        let queried = QueriedVersion { version: snapshot.version(), timestamp: None };
        let queried = as_of.is_historical().then_some(queried);
        let mut end = self.end(&page);
        if refresh && first {
            let refresh = Refresh { version: snapshot.version(), table: snapshot.metadata().id.clone() };
            let token = self.tokens.seal_refresh(&refresh, page.began())?;
            end = End { action: true, refresh_token: Some(token) };
        }
        let streamed = Streamed::new(format, snapshot.version());
        let id_hash = self.asked.id_hash(format);
        let mut lines = FileLines::new(format, id_hash, capabilities, queried, signer);
        lines.set_partition_columns(snapshot.schema(), &snapshot.metadata().partition_columns);
        let answer = Answer {
            table: table.delta().clone(),
            files,
            stats,
            head: Head::new(format, self.record),
            lines,
            memory: in_flight.memory(),
            page,
            end,
        };
        streamed.respond(self.asked, table.lane(), in_flight, answer.into_writer()).await
    }

    async fn open(
        &self,
        as_of: &AsOf,
        refreshed: Option<Refresh>,
        place: Option<FilesPlace>,
    ) -> Result<OpenFiles> {
        let Some(place) = place else {
            let OpenSnapshot { table, snapshot } = self.version(as_of, refreshed).await?;
            let files = table.run(move |delta| delta.files(&snapshot)).await?;
            return Ok(OpenFiles { table, files, stats: None });
        };
        if as_of.is_historical() {
            check_history(self.record)?;
        }
        check_start(self.record, place.origin.version)?;
        let table = self.app.open(self.record)?;
        let FilesPlace { origin, position, stats } = place;
        let files = table.run(move |delta| delta.files_from(&origin, position)).await?;
        Ok(OpenFiles { table, files, stats })
    }

    async fn version(&self, as_of: &AsOf, refreshed: Option<Refresh>) -> Result<OpenSnapshot> {
        let Some(Refresh { version, table: id }) = refreshed else {
            return open_snapshot(self.app, self.record, as_of).await;
        };
        check_start(self.record, version)?;
        let table = self.app.open(self.record)?;
        let snapshot = table.at_version(version).await?;
        if snapshot.metadata().id != id {
            return Err(Error::invalid(
                "The table specified in the refresh token does not match the table being queried.",
            ));
        }
        Ok(OpenSnapshot { table, snapshot })
    }

    /// Answers with the id of the query, after everything was checked that can fail at once.
    async fn submit(&self, request: QueryRequest) -> Result<Response> {
        let (version, format) = match &request.query {
            TableQuery::Snapshot { as_of, refresh_token, .. } => {
                let refreshed = refresh_token.as_ref().map(|token| self.tokens.open_refresh(token));
                let refreshed = refreshed.transpose()?.map(|(refreshed, _)| refreshed);
                let OpenSnapshot { table, snapshot } = self.version(as_of, refreshed).await?;
                (snapshot.version(), negotiate(&self.asked.capabilities, &table, &snapshot).await?)
            }
            TableQuery::Since { starting_version, ending_version, include_historical_protocol } => {
                let versions = (*starting_version, *ending_version);
                let opened =
                    open_since(self.app, self.record, versions, *include_historical_protocol, None).await?;
                (*starting_version, opened.check(self.app, self.asked, None).await?.format)
            }
        };
        let id = self.tokens.seal_query(&QueryId {
            query: request.query,
            fingerprint: request.fingerprint,
            id_hash: self.asked.requested_id_hash().map(str::to_owned),
            idempotency: short_digest(request.idempotency_key.unwrap_or_default().as_bytes()),
        })?;
        Streamed::new(format, version).respond_pending(self.asked, &id)
    }
}
