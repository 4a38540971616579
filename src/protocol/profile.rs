//! The file a recipient gets: "Profile File Format".

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// A profile of version 1, the version that every client reads.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Always 1.
    pub share_credentials_version: u32,
    /// The URL of the server, ending with a slash, which one client needs.
    pub endpoint: String,
    /// The recipient's token.
    pub bearer_token: String,
    /// When the token expires, in ISO 8601; absent if it never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<String>,
}

impl Profile {
    /// The profile for a token at a server.
    pub fn new(endpoint: &str, bearer_token: String, expires: Option<DateTime<Utc>>) -> Self {
        Self {
            share_credentials_version: 1,
            endpoint: format!("{}/", endpoint.trim_end_matches('/')),
            bearer_token,
            expiration_time: expires.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)),
        }
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A profile of version 2 for OAuth client credentials: clients get tokens from the recipient's own OpenID provider.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OAuthProfile {
    share_credentials_version: u32,
    r#type: &'static str,
    endpoint: String,
    token_endpoint: String,
    client_id: String,
    client_secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

impl OAuthProfile {
    /// The profile for a client of an OpenID provider at a server.
    pub fn new(
        endpoint: &str,
        token_endpoint: &str,
        client_id: String,
        client_secret: String,
        scope: Option<String>,
    ) -> Self {
        Self {
            share_credentials_version: 2,
            r#type: "oauth_client_credentials",
            endpoint: format!("{}/", endpoint.trim_end_matches('/')),
            token_endpoint: token_endpoint.to_owned(),
            client_id,
            client_secret,
            scope,
        }
    }
}

impl std::fmt::Debug for OAuthProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OAuthProfile").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
