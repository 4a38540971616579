//! The page that a recipient's browser gets at `/`: it opens a profile file, and shows what the profile gives access to.
//!
//! It is one document with its script and style inside, because its address may end without a slash: then a browser would
//! look for further files beside the API and not below it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use super::document::{Document, HTML};

const DOCUMENT: &str = include_str!("pages/index.html");
const STYLE: &str = include_str!("pages/page.css");
/// In the order in which they run: what a page shows of a table, the snippets, and the page itself.
const SCRIPTS: [&str; 3] =
    [include_str!("pages/table.js"), include_str!("pages/snippets.js"), include_str!("pages/page.js")];

/// The document as it is sent, and the headers that depend on it.
struct Page {
    html: String,
    policy: HeaderValue,
    etag: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let script = format!("'use strict';\n{{\n{}}}\n", SCRIPTS.concat());
    let Document { html, policy } = Document::new(DOCUMENT, STYLE, &script);
    let mut etag = "\"".to_owned();
    for byte in Sha256::digest(&html).iter().take(16) {
        // Writing to a string cannot fail.
        let _ = write!(etag, "{byte:02x}");
    }
    etag.push('"');
    Page { html, policy, etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("")) }
});

/// Whether a request for `/` is one of a browser: it asks for HTML rather than JSON or whatever there is, and has no token.
/// Clients of the protocol get what they always got.
pub(super) fn is_asked_for(method: &Method, headers: &HeaderMap) -> bool {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    is_read && !headers.contains_key(AUTHORIZATION) && prefers_html(headers)
}

fn prefers_html(headers: &HeaderMap) -> bool {
    let ranges: Vec<(&str, f32)> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(media_range)
        .collect();
    let quality = |names: &[&str]| {
        let known =
            ranges.iter().filter(|(name, _)| names.iter().any(|other| name.eq_ignore_ascii_case(other)));
        known.map(|(_, quality)| *quality).fold(0.0, f32::max)
    };
    let json = quality(&["application/json", "application/x-ndjson", "application/*", "*/*", "*"]);
    quality(&["text/html"]) > json
}

/// The name of a media range, and its quality: 1 if it has none, 0 if it cannot be read.
fn media_range(text: &str) -> (&str, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, quality.map_or(1.0, |text| text.parse().unwrap_or(0.0)))
}

/// The page, or 304 if the browser has it.
pub(super) fn answer(request: &HeaderMap) -> Response {
    let page = &*PAGE;
    let known = request.get_all(IF_NONE_MATCH).iter().any(|value| {
        let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag)).any(|tag| tag == page.etag.as_bytes())
    });
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => page.html.as_str().into_response(),
    };
    let headers = response.headers_mut();
    if !known {
        headers.insert(CONTENT_TYPE, HTML);
    }
    headers.insert(CONTENT_SECURITY_POLICY, page.policy.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, page.etag.clone());
    headers.insert(VARY, HeaderValue::from_static("accept, authorization"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(method: &Method, accept: &str, more: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        }
        for (name, value) in more {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        is_asked_for(method, &headers)
    }

    #[test]
    fn browsers_get_the_page_and_clients_do_not() {
        for accept in [
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
            "text/html, application/json;q=0.9",
            "TEXT/HTML; charset=utf-8, */*; q=0.1",
        ] {
            assert!(asks(&Method::GET, accept, &[]), "{accept}");
            assert!(asks(&Method::HEAD, accept, &[]), "{accept}");
            assert!(!asks(&Method::POST, accept, &[]), "{accept}");
            assert!(!asks(&Method::GET, accept, &[("authorization", "Bearer dss_x")]), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/json, text/plain, */*",
            "application/json, text/html;q=0.9",
            "text/html, application/json",
            "text/html;q=0",
            "text/html;q=x, application/json;q=0.1",
            "text/htmlx",
            "text/*",
        ] {
            assert!(!asks(&Method::GET, accept, &[]), "{accept}");
        }
    }

    #[test]
    fn nothing_in_the_document_ends_its_parts_early() {
        assert_eq!(PAGE.html.matches("</script").count(), 1);
        assert_eq!(PAGE.html.matches("</style").count(), 1);
        assert!(!PAGE.html.contains("/*STYLE*/") && !PAGE.html.contains("/*SCRIPT*/"));
        assert!(!PAGE.policy.is_empty() && PAGE.etag.len() == 34);
        for sink in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"]
        {
            assert!(!SCRIPTS.concat().contains(sink), "{sink}");
        }
    }

    #[test]
    fn a_browser_that_has_the_page_does_not_get_it_again() {
        let with = |value: HeaderValue| answer(&HeaderMap::from_iter([(IF_NONE_MATCH, value)])).status();
        assert_eq!(answer(&HeaderMap::new()).status(), StatusCode::OK);
        assert_eq!(with(PAGE.etag.clone()), StatusCode::NOT_MODIFIED);
        let weak = format!("\"other\", W/{}", PAGE.etag.to_str().unwrap());
        assert_eq!(with(HeaderValue::from_str(&weak).unwrap()), StatusCode::NOT_MODIFIED);
        assert_eq!(with(HeaderValue::from_static("\"other\"")), StatusCode::OK);
    }
}
