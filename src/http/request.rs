//! What handlers take from a request: who asks, the names in its path, its parameters and its body.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::app::App;
use crate::auth::{PathName, Recipient};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::ndjson::Bounds;

/// The address that a front door says a request came from, in its extensions.
#[derive(Debug, Clone)]
pub struct SourceIp(pub String);

impl SourceIp {
    /// The address, if it is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl FromRequestParts<Arc<App>> for Recipient {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let headers: Vec<_> =
            parts.headers.get_all(AUTHORIZATION).iter().map(|value| value.to_str().ok()).collect();
        let source = parts.extensions.get::<SourceIp>().and_then(SourceIp::address);
        Self::authenticate(&*app.catalog, &app.oidc, &headers, source).await
    }
}

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
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

/// A header's value, if it is there and is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The limits of the answer, which whoever calls the router, such as the Lambda function, puts into the extensions of the
/// request.
pub struct AnswerBounds(pub Bounds);

impl<S: Send + Sync> FromRequestParts<S> for AnswerBounds {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().copied().unwrap_or_default()))
    }
}

/// How much of a body that is too large is received and thrown away, as a multiple of the limit.
const MOST_DISCARDED: usize = 16;

/// The body of a request, in time and within its limit.
pub(super) async fn read_body(body: Body, limits: &Limits) -> Result<Bytes> {
    let read = read_to_limit(body, limits.body_bytes);
    timeout(limits.body_timeout, read)
        .await
        .unwrap_or_else(|_| Err(Error::request_timeout("The body of the request did not arrive in time.")))
}

/// What is beyond the limit is received as well, up to a point, but not kept: a client that is still sending when
/// its connection is closed does not see the answer.
async fn read_to_limit(body: Body, limit: usize) -> Result<Bytes> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut received) = (BytesMut::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|error| Error::malformed("The body of the request breaks off.").with_source(error))?;
        received += chunk.len();
        if received <= limit {
            kept.extend_from_slice(&chunk);
        } else if received > limit.saturating_mul(MOST_DISCARDED) {
            break;
        }
    }
    if received > limit {
        return Err(Error::request_too_large(format!(
            "The body of the request has more than {limit} bytes, which is the most that this server takes."
        )));
    }
    Ok(kept.freeze())
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
