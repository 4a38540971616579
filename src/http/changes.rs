//! "Read Change Data Feed from a Table".

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::query::Query;
use super::query_headers::QueryHeaders;
use super::request::{AnswerBounds, Names, Parameters};
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
    let feed = request.query()?;
    let query = Query::begin(&app, &recipient, shared, headers, bounds)?;
    let mut page = Page::new(&feed.paging, &query.tokens, feed.fingerprint);
    let place = page.begin()?;
    let range = OpenRange::feed(&app, &query.shared, feed, place).await?;
    query.changes(range, page).await
}
