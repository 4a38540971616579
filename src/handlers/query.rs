//! "Read Data from a Table": the files of one snapshot, or what changed since a version, streamed.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;

use super::answer::Answer;
use super::changes::query_since;
use super::head::{Head, table_features};
use super::lines::{FileLines, QueriedVersion};
use super::open::open_snapshot;
use super::stream::{Asked, Streamed};
use super::{Names, blocking};
use crate::app::App;
use crate::auth::{Recipient, SharedTable};
use crate::delta::Snapshot;
use crate::error::{Error, Result};
use crate::protocol::query::{AsOf, TableQuery};

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
    let asked = Asked::parse(&headers)?;
    let shared = SharedTable::find(&app, &recipient, &names).await?;
    match query {
        TableQuery::Snapshot { as_of, include_refresh_token } => {
            query_snapshot(&app, &asked, &shared, as_of, include_refresh_token).await
        }
        TableQuery::Since { starting_version, ending_version, include_historical_protocol } => {
            query_since(&app, &asked, shared, starting_version, ending_version, include_historical_protocol)
                .await
        }
    }
}

async fn query_snapshot(
    app: &App,
    asked: &Asked,
    shared: &SharedTable,
    as_of: AsOf,
    include_refresh_token: bool,
) -> Result<Response> {
    let historical = as_of.is_historical();
    let opened = open_snapshot(app, shared, as_of).await?;
    let snapshot = opened.snapshot;
    let format = asked.capabilities.negotiate(&table_features(&snapshot))?;
    let signer = app.storage.signer(&opened.table.location, &opened.table.allowed, Utc::now()).await?;
    let queried = if historical { Some(queried_version(Arc::clone(&snapshot)).await?) } else { None };
    let streamed =
        Streamed { format, version: snapshot.version(), end_stream_action: asked.end_stream_action() };
    let answer = Answer {
        snapshot,
        head: Head { format, history_shared: shared.0.history_shared },
        files: FileLines::new(format, asked.id_hash(format), &asked.capabilities, queried, signer),
        end_stream_action: streamed.end_stream_action || include_refresh_token,
    };
    streamed.respond(asked, move |lines| answer.write(lines)).await
}

/// The version of the answer with its commit time, which is left out where its commit is gone.
async fn queried_version(snapshot: Arc<Snapshot>) -> Result<QueriedVersion> {
    blocking(move || Ok(QueriedVersion { version: snapshot.version(), timestamp: snapshot.timestamp().ok() }))
        .await
}
