//! What every request passes through before its handler and after it: its path is tidied, it gets an id, an event is
//! written for it, and an error becomes a response.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, USER_AGENT};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;
use tower::ServiceExt as _;
use tracing::Instrument as _;
use uuid::Uuid;

use super::activation::HasRecipientPage;
use super::cors::{self, Cors, CorsOrigins};
use super::request::SourceIp;
use super::{local_file, pages, routes};
use crate::app::App;
use crate::audit::{Audit, Facts};
use crate::error::{Error, RequestIds};
use crate::ndjson::Bounds;

/// The header that carries the id under which the log has a request.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// How much of the client's `User-Agent` an event has: the name and the version of the client, and of what it runs on.
const USER_AGENT_CHARS: usize = 128;

/// What browsers get beside the answers of the protocol.
#[derive(Debug, Clone)]
pub struct Browsers {
    /// Whether a browser that opens `/` gets the page for recipients.
    pub pages: bool,
    /// The origins whose pages may read answers.
    pub origins: CorsOrigins,
}

impl Default for Browsers {
    fn default() -> Self {
        Self { pages: true, origins: CorsOrigins::default() }
    }
}

/// The server: the protocol's endpoints, the page for recipients, and the local gateway if there is one.
///
/// Paths are tidied before they are routed, never by a redirect, because a redirected POST becomes a
/// GET: repeated slashes count as one, a slash at the end as none, and the prefix may be left out.
pub fn router(app: Arc<App>) -> Router {
    router_for(app, Browsers::default())
}

/// The same, for browsers that get something else.
pub fn router_for(app: Arc<App>, browsers: Browsers) -> Router {
    let endpoints = routes::endpoints(Arc::clone(&app));
    Router::new().fallback(front).with_state(Front { app, endpoints, browsers: Arc::new(browsers) })
}

#[derive(Clone)]
struct Front {
    app: Arc<App>,
    endpoints: Router,
    browsers: Arc<Browsers>,
}

async fn front(State(front): State<Front>, mut request: Request) -> Response {
    let is_file = local_file::owns(&front.app, request.uri().path());
    let given = request.extensions_mut().remove::<RequestIds>();
    let ids = given.unwrap_or_else(|| RequestIds { request: Uuid::new_v4().to_string(), api: None });
    let method = request.method().clone();
    let path = match is_file {
        // Its path is signed, and so left as it is.
        true => request.uri().path().to_owned(),
        false => tidy(request.uri().path(), &front.app.prefix),
    };
    let origins = request.extensions_mut().remove::<CorsOrigins>();
    let cors = Cors::of(origins.as_ref().unwrap_or(&front.browsers.origins), &method, request.headers());
    let is_page = front.browsers.pages && path == "/" && pages::is_asked_for(&method, request.headers());
    let source_ip = request.extensions().get::<SourceIp>().map(|SourceIp(address)| address.clone());
    let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let audit = Audit::begin(Facts {
        request_id: ids.request.clone(),
        api_request_id: ids.api.clone(),
        action: match () {
            () if cors.is_preflight() => "Preflight",
            () if is_file => "GetFile",
            () if is_page => "GetPage",
            () => routes::action(&method, &path),
        },
        user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_CHARS).collect()),
        source_ip,
        ..Facts::default()
    });
    let span =
        tracing::info_span!("request", request.id = %ids.request, http.method = %method, http.path = %path);
    let mut response = if cors.is_preflight() {
        cors::preflight()
    } else if is_page {
        pages::answer(request.headers())
    } else if is_file {
        local_file::serve(&front.app, request, &audit).instrument(span).await
    } else {
        *request.uri_mut() = with_path(request.uri(), &path);
        if front.browsers.pages {
            request.extensions_mut().insert(HasRecipientPage);
        }
        let bounds = request.extensions().get::<Bounds>().copied().unwrap_or_default();
        let answer = bounds.run(front.endpoints.oneshot(request));
        match audit.run(answer).instrument(span).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(late) => late.into_response(),
        }
    };
    let error = response.extensions().get::<Arc<Error>>().cloned();
    audit.note(|facts| {
        facts.status = response.status().as_u16();
        if let Some(error) = &error {
            facts.fail(error);
        }
    });
    if let Some(error) = error {
        *response.body_mut() = error.body(Some(&ids)).into();
        // That of the body without the ids.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    if let Ok(id) = HeaderValue::from_str(&ids.request) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    cors.describe(response.headers_mut());
    response
}

/// Whether a path asks for the health of the server, with the prefix or without.
pub fn is_health(prefix: &str, path: &str) -> bool {
    tidy(path, prefix) == "/health"
}

/// The path below the prefix, with one slash between segments and none at the end. It is not decoded: handlers
/// decode names, once.
fn tidy<'a>(path: &'a str, prefix: &'a str) -> String {
    let of = |path: &'a str| path.split('/').filter(|segment| !segment.is_empty());
    let (mut segments, prefix): (Vec<_>, Vec<_>) = (of(path).collect(), of(prefix).collect());
    let below = segments.len() >= prefix.len() && segments.iter().zip(&prefix).all(|(a, b)| same(a, b));
    segments.drain(..if below { prefix.len() } else { 0 });
    let mut tidied = String::with_capacity(path.len());
    for segment in segments {
        tidied.push('/');
        tidied.push_str(segment);
    }
    if tidied.is_empty() { "/".to_owned() } else { tidied }
}

/// Whether two segments of paths are the same once they are decoded.
fn same(segment: &str, other: &str) -> bool {
    percent_decode_str(segment).eq(percent_decode_str(other))
}

fn with_path(uri: &Uri, path: &str) -> Uri {
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(path_and_query).map(Uri::from).unwrap_or_else(|_| uri.clone())
}

impl axum::extract::FromRef<Front> for Arc<App> {
    fn from_ref(front: &Front) -> Self {
        Self::clone(&front.app)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_with_and_without_the_prefix() {
        for (path, tidied) in [
            ("/delta-sharing/shares", "/shares"),
            ("/delta-sharing//shares/", "/shares"),
            ("//delta-sharing///shares//a/", "/shares/a"),
            ("/shares", "/shares"),
            ("/delta-sharing", "/"),
            ("/", "/"),
            ("/delta-sharing-2/shares", "/delta-sharing-2/shares"),
            ("/delta%2Dsharing/shares", "/shares"),
            ("/delta-sharing/delta-sharing/shares", "/delta-sharing/shares"),
            ("/shares/a%2Fb", "/shares/a%2Fb"),
            ("/shares/%252F/%2e%2e", "/shares/%252F/%2e%2e"),
        ] {
            assert_eq!(tidy(path, "/delta-sharing"), tidied, "{path}");
        }
        assert_eq!(tidy("/shares/", ""), "/shares");
        for path in ["/a%20b/%C3%BC/shares", "/a%20b/%c3%bc//shares/"] {
            assert_eq!(tidy(path, "/a b/ü"), "/shares", "{path}");
        }
    }
}
