//! Pages for browsers: one document each, with its script and style inside.

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// A page: whatever the path that it is opened with, it asks for no further file.
pub(super) struct Document {
    pub(super) html: String,
    /// Its `Content-Security-Policy`: nothing but its own style and script runs, and it talks to nobody but this server.
    pub(super) policy: HeaderValue,
}

impl Document {
    /// Puts a style and a script where `frame` has `/*STYLE*/` and `/*SCRIPT*/`.
    pub(super) fn new(frame: &str, style: &str, script: &str) -> Self {
        let html = frame.replacen("/*STYLE*/", style, 1).replacen("/*SCRIPT*/", script, 1);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            hash(script),
            hash(style)
        );
        // Hashes in Base64 are always valid in a header. If they were not, nothing of the page would run.
        let nothing = HeaderValue::from_static("default-src 'none'");
        Self { html, policy: HeaderValue::try_from(policy).unwrap_or(nothing) }
    }
}

/// A source of the policy: an inline element with exactly this text.
pub(super) fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
