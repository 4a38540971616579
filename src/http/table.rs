//! "Query Table Version" and "Query Table Metadata".

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::Response;

use super::query_headers::QueryHeaders;
use super::request::{Names, Parameters, header};
use super::response::{NDJSON, TABLE_VERSION_HEADER, describe, with_content_type};
use crate::answer::head::Head;
use crate::answer::version::OpenVersion;
use crate::app::App;
use crate::auth::{Recipient, SharedTable};
use crate::delta::{DeltaTable, NextReads};
use crate::error::{Error, Result};
use crate::protocol::capabilities::Capabilities;
use crate::protocol::parameters::QueryParameters;
use crate::protocol::query::parse_metadata_parameters;
use crate::protocol::timestamp::parse_start;

/// `GET …/tables/{table}/version`, and the older `HEAD …/tables/{table}`.
pub async fn query_version(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    Parameters(parameters): Parameters,
) -> Result<Response> {
    let shared = SharedTable::find(&*app.catalog, &recipient, &names).await?;
    let starting = QueryParameters(&parameters).text("startingTimestamp");
    if starting.is_some() {
        shared.check_history()?;
    }
    let table = app.open(&shared)?;
    let version = match starting {
        None => {
            let version = table.latest().await?.version();
            shared.check_start(version)?;
            version
        }
        Some(text) => {
            let millis = parse_start(text)?;
            let newest = table.latest().await?;
            let version = table.run(move |_| newest.version_at_or_after(millis)).await?;
            shared.check_start_of_timestamp(version, text)?;
            version
        }
    };
    let mut response = Response::default();
    response.headers_mut().insert(TABLE_VERSION_HEADER, HeaderValue::from(version));
    Ok(response)
}

/// Whether the client is Spark, which plans with the size of the table: if this answer does not tell it, Spark asks for
/// every file to add up their sizes. No other client reads it in parquet format.
fn plans_with_size(headers: &HeaderMap) -> bool {
    const SPARK: &str = "delta-sharing-spark";
    let user_agent = header(headers, USER_AGENT.as_str()).and_then(|agent| agent.get(..SPARK.len()));
    user_agent.is_some_and(|agent| agent.eq_ignore_ascii_case(SPARK))
}

/// `GET …/tables/{table}`, which the protocol does not have.
pub async fn get_table(method: Method) -> Error {
    if method == Method::GET {
        Error::unsupported("Get Table is not supported by this server; ask for its version or metadata.")
    } else {
        Error::method_not_allowed()
    }
}

/// `GET …/tables/{table}/metadata`: exactly two lines.
pub async fn query_metadata(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Result<Response> {
    let as_of = parse_metadata_parameters(&parameters)?;
    let QueryHeaders { capabilities, id_hash, .. } = QueryHeaders::parse(&headers)?;
    let shared = SharedTable::find(&*app.catalog, &recipient, &names).await?;
    let next = NextReads { files: false, totals: Head::needs_totals(&capabilities, shared.record()) };
    let opened = OpenVersion::open(&app, &shared, &as_of, next).await?;
    let format = opened.negotiate(&capabilities).await?;
    let head = Head::new(format, shared.record());
    let OpenVersion { table, snapshot } = opened;
    let version = snapshot.version();
    let with_size = plans_with_size(&headers);
    let lines = move |delta: &DeltaTable| {
        let stats =
            if with_size { Some(delta.file_stats(&snapshot)?) } else { head.stats(delta, &snapshot)? };
        head.lines(&snapshot, stats)
    };
    let [protocol, metadata] = table.run(lines).await?;
    let body = [protocol, metadata, Vec::new()].join(&b'\n');

    let mut response = with_content_type(body.into(), NDJSON);
    let capabilities = Capabilities::answer(format, false, false);
    describe(response.headers_mut(), version, &capabilities, id_hash)?;
    Ok(response)
}
