//! Cross-origin requests: which pages of other sites may read answers in a browser. Without an allowed origin, nothing of
//! this is in an answer, and browsers keep answers from other sites.
//!
//! Tokens are in `Authorization`, which a page has to set itself, so answers never allow credentials of the browser. The
//! layer of `tower-http` does not fit: it answers every `OPTIONS`, also where no browser asks, and with status 200.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use url::Url;

/// The methods of the protocol.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");

/// What clients send that a browser asks about. `*` would not include `Authorization`.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept, authorization, content-type, delta-sharing-capabilities, fileidhash, if-none-match, range, user-agent",
);

/// What clients read of an answer, or of a file from the gateway of a local server.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept-ranges, content-encoding, content-range, delta-sharing-capabilities, delta-table-version, etag, fileidhash, \
     retry-after, x-request-id",
);

/// How long a browser may remember a preflight: two hours, the most that Chromium does.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// An origin whose pages may read answers, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// Every origin: `*`.
    Any,
    /// This one, as browsers send it.
    Exact(HeaderValue),
}

impl CorsOrigin {
    /// Reads `*`, or an origin such as `https://app.example.com`, which has no path. The error says what is wrong.
    ///
    /// ```
    /// use deltashare::http::CorsOrigin;
    ///
    /// assert!(CorsOrigin::parse("https://app.example.com").is_ok());
    /// assert!(CorsOrigin::parse("https://app.example.com/page").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let url = Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && !text.contains('*'));
        let Some(url) = url else {
            return Err("neither an origin such as https://app.example.com nor *".to_owned());
        };
        // Browsers send the host in lower case and in ASCII, and leave out the port of the scheme.
        let origin = url.origin().ascii_serialization();
        match HeaderValue::from_str(&origin) {
            Ok(value) if origin == text => Ok(Self::Exact(value)),
            Ok(_) | Err(_) => Err(format!("an origin has only a scheme, a host, and a port: write {origin}")),
        }
    }
}

/// The origins whose pages may read answers; none by default.
///
/// A front door can put its own into the extensions of a request, in place of those of the router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsOrigins(pub Vec<CorsOrigin>);

impl CorsOrigins {
    /// What `Access-Control-Allow-Origin` says to a page of `origin`.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.0.contains(&CorsOrigin::Any) {
            return Some(HeaderValue::from_static("*"));
        }
        self.0.contains(&CorsOrigin::Exact(origin.clone())).then(|| origin.clone())
    }
}

/// What one request gets to know of the allowed origins.
pub(super) struct Cors {
    /// Whether answers depend on the origin.
    varies: bool,
    allowed: Option<HeaderValue>,
    preflight: bool,
}

impl Cors {
    pub(super) fn of(origins: &CorsOrigins, method: &Method, headers: &HeaderMap) -> Self {
        let allowed = headers.get(ORIGIN).and_then(|origin| origins.allow(origin));
        let asks = method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        Self {
            varies: !origins.0.is_empty() && !origins.0.contains(&CorsOrigin::Any),
            preflight: asks && allowed.is_some(),
            allowed,
        }
    }

    /// Whether the request is a preflight of an allowed origin, which needs no token.
    pub(super) fn is_preflight(&self) -> bool {
        self.preflight
    }

    /// Adds what the browser needs to know to an answer of any status.
    pub(super) fn describe(self, headers: &mut HeaderMap) {
        if self.varies {
            vary_by_origin(headers);
        }
        if let Some(allowed) = self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            if !self.preflight {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
            }
        }
    }
}

/// Adds to `Vary`, of which there is one in the end: API Gateway takes one value of each header of a streamed answer.
fn vary_by_origin(headers: &mut HeaderMap) {
    let mut names: Vec<&str> = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok()).collect();
    names.push("origin");
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(VARY, value);
    }
}

/// The answer to a preflight, the same for every path: nothing is looked up.
pub(super) fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::capabilities::{CAPABILITIES_HEADER, FILE_ID_HASH_HEADER};

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for origin in ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "*"] {
            assert!(CorsOrigin::parse(origin).is_ok(), "{origin}");
        }
        for (origin, write) in [
            ("https://app.example.com/", "write https://app.example.com"),
            ("https://App.example.com/reports?x#y", "write https://app.example.com"),
            ("https://app.example.com:443", "write https://app.example.com"),
            ("https://me:secret@app.example.com", "write https://app.example.com"),
            ("https://bücher.example", "write https://xn--bcher-kva.example"),
            ("https://*.example.com", "neither an origin"),
            ("app.example.com", "neither an origin"),
            ("null", "neither an origin"),
            ("file:///tmp", "neither an origin"),
            ("https://", "neither an origin"),
            ("", "neither an origin"),
        ] {
            let error = CorsOrigin::parse(origin).unwrap_err();
            assert!(error.contains(write), "{origin}: {error}");
        }
    }

    #[test]
    fn only_allowed_origins_are_answered() {
        let parse =
            |texts: &[&str]| CorsOrigins(texts.iter().map(|text| CorsOrigin::parse(text).unwrap()).collect());
        let describe = |origins: &CorsOrigins, method: Method, sent: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            let cors = Cors::of(origins, &method, &headers);
            let (preflight, mut answer) = (cors.is_preflight(), HeaderMap::new());
            cors.describe(&mut answer);
            let vary = answer.get(VARY).map(|value| value.to_str().unwrap().to_owned());
            let allowed =
                answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned());
            (preflight, allowed, vary)
        };
        let two = parse(&["https://a.example", "https://b.example"]);
        let vary = Some("origin".to_owned());
        let origin = ("origin", "https://b.example");
        let asks = ("access-control-request-method", "POST");
        let allowed = Some(origin.1.to_owned());
        assert_eq!(describe(&two, Method::GET, &[origin]), (false, allowed.clone(), vary.clone()));
        assert_eq!(describe(&two, Method::OPTIONS, &[origin, asks]), (true, allowed, vary.clone()));
        assert!(!describe(&two, Method::OPTIONS, &[origin]).0);
        for other in ["https://c.example", "https://b.example.evil.test", "http://b.example", "null"] {
            let answer = describe(&two, Method::OPTIONS, &[("origin", other), asks]);
            assert_eq!(answer, (false, None, vary.clone()), "{other}");
        }
        assert_eq!(describe(&two, Method::GET, &[]), (false, None, vary));
        assert_eq!(describe(&CorsOrigins::default(), Method::OPTIONS, &[origin, asks]), (false, None, None));
        let star = Some("*".to_owned());
        assert_eq!(describe(&parse(&["*"]), Method::OPTIONS, &[origin, asks]), (true, star, None));
    }

    #[test]
    fn there_is_one_header_that_says_what_an_answer_depends_on() {
        let mut headers = HeaderMap::from_iter([(VARY, HeaderValue::from_static("accept-encoding"))]);
        vary_by_origin(&mut headers);
        assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["accept-encoding, origin"]);
    }

    #[test]
    fn headers_of_the_protocol_are_among_those_of_browsers() {
        for name in [CAPABILITIES_HEADER, FILE_ID_HASH_HEADER] {
            for headers in [REQUEST_HEADERS, RESPONSE_HEADERS] {
                assert!(headers.to_str().unwrap().split(", ").any(|header| header == name), "{name}");
            }
        }
    }
}
