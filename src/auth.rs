//! Who asks, and what they may see.
//!
//! A [`Recipient`] exists only where its token is known; a [`SharedTable`] only where the token is good now and
//! the share is granted to its recipient. Holding that is the permission. What is not granted is answered
//! exactly like what does not exist.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use futures::future::try_join_all;

use crate::app::App;
use crate::audit;
use crate::catalog::{Caller, ShareRecord, TableRecord, TokenHash, unknown_token};
use crate::error::{Error, Result};

/// Longer ones are refused before they are hashed; ours have 47 characters.
const MAX_TOKEN_BYTES: usize = 4096;

/// A recipient who has sent a token. What is read for it makes sure that the token is still good.
#[derive(Debug, Clone)]
pub struct Recipient(Caller);

impl Recipient {
    /// The name that grants hang on.
    pub fn name(&self) -> &str {
        self.0.recipient()
    }

    /// What the catalog is asked with.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

/// The token in an `Authorization` header. Tolerates any case, extra spaces, and a colon after the
/// scheme, which one client sends.
fn bearer_token(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(char::is_whitespace)?;
    let bearer = scheme.trim_end_matches(':').eq_ignore_ascii_case("bearer");
    let token = token.trim();
    (bearer && !token.is_empty() && token.len() <= MAX_TOKEN_BYTES).then_some(token)
}

impl FromRequestParts<Arc<App>> for Recipient {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
        let caller = match (headers.next(), headers.next()) {
            (None, _) => app.catalog.anonymous().await?,
            (Some(header), None) => match header.to_str().ok().and_then(bearer_token) {
                Some(token) => match app.catalog.caller(TokenHash::of(token)).await? {
                    Some(caller) => Some(caller),
                    None => app.catalog.anonymous().await?,
                },
                None => None,
            },
            (Some(_), Some(_)) => None,
        };
        let caller = caller.ok_or_else(unknown_token)?;
        audit::note(|facts| {
            facts.recipient = Some(Arc::clone(&caller.token.recipient));
            facts.token_id = Some(Arc::clone(&caller.token.id));
        });
        caller.token.check_expiry()?;
        Ok(Self(caller))
    }
}

/// A share that is granted to the recipient who asks.
#[derive(Debug)]
pub struct SharedShare(pub ShareRecord);

impl SharedShare {
    /// Finds a share by its name in a path.
    pub async fn find(app: &App, recipient: &Recipient, name: &PathName) -> Result<Self> {
        for share in name.spellings() {
            if let Some(record) = app.catalog.share(recipient.caller(), &share).await? {
                audit::note(|facts| facts.object = Some(record.name.to_string()));
                return Ok(Self(record));
            }
        }
        Err(share_not_found(name))
    }
}

/// The error for a share that does not exist or is not granted.
pub fn share_not_found(name: &PathName) -> Error {
    Error::not_found(format!("share '{name}' not found"))
}

/// A table whose share is granted to the recipient who asks.
#[derive(Debug)]
pub struct SharedTable(pub TableRecord);

impl SharedTable {
    /// Finds a table by its names in a path.
    pub async fn find(app: &App, recipient: &Recipient, names: &[PathName; 3]) -> Result<Self> {
        let [share, schema, table] = names;
        let mut spellings: Vec<_> =
            share.spellings().zip(schema.spellings()).zip(table.spellings()).collect();
        spellings.dedup();
        // Together, so that a space written as `+` costs no further round trip.
        let lookups = spellings
            .iter()
            .map(|((share, schema), table)| app.catalog.table(recipient.caller(), share, schema, table));
        if let Some(record) = try_join_all(lookups).await?.into_iter().flatten().next() {
            audit::note(|facts| {
                facts.object = Some(format!("{}.{}.{}", record.share, record.schema, record.name));
            });
            return Ok(Self(record));
        }
        Err(Error::not_found(format!(
            "[Share/Schema/Table] '{share}/{schema}/{table}' does not exist, please contact your share provider \
             for further information."
        )))
    }
}

/// A name in a path, decoded once. Some clients write a space as `+`, so a name that is not found as
/// it stands is looked up again with its pluses as spaces.
#[derive(Debug, Clone)]
pub struct PathName(String);

impl PathName {
    /// Decodes a segment of a path; 404 where it is not UTF-8, since no name is.
    pub fn decode(segment: &str) -> Result<Self> {
        percent_encoding::percent_decode_str(segment)
            .decode_utf8()
            .map(|name| Self(name.into_owned()))
            .map_err(|_| Error::not_found("A name in the path is not UTF-8."))
    }

    /// The name as it stands.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The spellings to look up, in their order. There are always two, the same where the name has no plus, so that
    /// one looked up after the other costs the same whatever an unknown name contains.
    pub fn spellings(&self) -> impl Iterator<Item = String> {
        [self.0.clone(), self.0.replace('+', " ")].into_iter()
    }
}

impl std::fmt::Display for PathName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars().take(255) {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?
            } else {
                write!(f, "{character}")?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_as_clients_send_them() {
        for header in ["Bearer t", "bearer t", "BEARER   t ", "Bearer: t", " Bearer\tt"] {
            assert_eq!(bearer_token(header), Some("t"), "{header}");
        }
        for header in ["", "Bearer", "Bearer ", "Basic t", "t", "Bearert"] {
            assert_eq!(bearer_token(header), None, "{header}");
        }
        assert_eq!(bearer_token(&format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES + 1))), None);
    }
}
