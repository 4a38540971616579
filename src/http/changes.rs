//! "Read Change Data Feed from a Table".

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::query::stream_changes;
use super::query_headers::QueryHeaders;
use super::request::{AnswerBounds, Names, Parameters, table_tokens};
use crate::answer::page::Page;
use crate::answer::range::OpenRange;
use crate::app::App;
use crate::auth::{Recipient, SharedTable};
use crate::error::Result;
use crate::protocol::query::ChangesRequest;

/// `GET …/tables/{table}/changes`
pub async fn query_changes(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
    AnswerBounds(bounds): AnswerBounds,
) -> Result<Response> {
    let request = ChangesRequest::parse(&parameters)?;
    let shared = SharedTable::find(&*app.catalog, &recipient, &names).await?;
    shared.check_feed()?;
    let headers = QueryHeaders::parse(&headers)?;
    let query = request.query()?;
    let in_flight = app.begin_answer(recipient.name())?;
    let tokens = table_tokens(&app, &recipient, &shared);
    let mut page = Page::new(&query.paging, &tokens, query.fingerprint);
    let place = page.begin(&query.paging)?;
    let range = OpenRange::feed(&app, &shared, query, place).await?;
    stream_changes(&app, &headers, &shared, range, page, (in_flight, bounds)).await
}
