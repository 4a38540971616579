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
