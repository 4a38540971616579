//! One function for each endpoint. A handler parses, finds what is shared, asks the table, and answers.

pub mod answer;
pub mod changes;
pub mod credentials;
pub mod discovery;
pub mod head;
pub mod lines;
mod open;
pub mod pages;
mod partition_values;
pub mod query;
pub mod replayed;
mod stream;
pub mod table;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use crate::auth::PathName;
use crate::error::{Error, Result};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TABLE_VERSION_HEADER: HeaderName = HeaderName::from_static("delta-table-version");

/// The names in the path of a request, in their order, each decoded once.
pub struct Names<const N: usize>(pub [PathName; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Names<N> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::not_found("A name in the path cannot be read."))?;
        let names = params
            .iter()
            .take(N)
            .map(|(_, segment)| PathName::decode(segment))
            .collect::<Result<Vec<_>>>()?;
        names.try_into().map(Self).map_err(|_| Error::internal("the route has fewer names than its handler"))
    }
}

/// The query parameters of a request, decoded, in their order.
pub struct Parameters(pub Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

/// A header's value, where it is there and is text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn with_content_type(body: axum::body::Body, content_type: HeaderValue) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A header value of our own making; such values are always ASCII.
fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(Error::internal)
}

/// Runs what blocks on a thread where that is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.map_err(Error::internal)?
}
