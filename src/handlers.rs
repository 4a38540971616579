//! One function for each endpoint. A handler parses, finds what is shared, asks the table, and answers.

pub mod answer;
mod body;
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

use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use crate::auth::PathName;
use crate::error::{Error, Result};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TABLE_VERSION_HEADER: HeaderName = HeaderName::from_static("delta-table-version");

/// The names in the path of a request, in their order.
///
/// They are decoded here and nowhere else, from the path as the client wrote it: axum's own path parameters
/// are decoded already, so a name taken from them would be decoded twice.
pub struct Names<const N: usize>(pub [PathName; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Names<N> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        // Words of the protocol and names alternate: `/shares/{share}/schemas/{schema}/…`.
        let segments = parts.uri.path().split('/').skip(2).step_by(2);
        let names = segments.take(N).map(PathName::decode).collect::<Result<Vec<_>>>()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn names<const N: usize>(path: &str) -> Result<Vec<String>> {
        let (mut parts, ()) = axum::http::Request::get(path).body(()).unwrap().into_parts();
        let Names(names) = Names::<N>::from_request_parts(&mut parts, &()).await?;
        Ok(names.iter().map(|name| name.as_str().to_owned()).collect())
    }

    #[tokio::test]
    async fn names_are_decoded_once() {
        for (segment, name) in [
            ("100%2525", "100%25"),
            ("100%25", "100%"),
            ("%252F", "%2F"),
            ("%2F", "/"),
            ("a%2Bb", "a+b"),
            ("a+b", "a+b"),
            ("%C3%BC", "ü"),
            ("%25C3%25BC", "%C3%BC"),
            ("%2e%2e", ".."),
            ("100%", "100%"),
        ] {
            let found = names::<1>(&format!("/shares/{segment}/all-tables")).await.unwrap();
            assert_eq!(found, [name], "{segment}");
        }
        let found = names::<4>("/shares/a/schemas/b/tables/c%20/queries/d%25?x=%25").await.unwrap();
        assert_eq!(found, ["a", "b", "c ", "d%"]);
        assert_eq!(names::<3>("/shares/a/schemas/b/tables/c").await.unwrap(), ["a", "b", "c"]);
        assert!(names::<1>("/shares/%FF").await.is_err());
    }
}
