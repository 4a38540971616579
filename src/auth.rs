//! Who asks, and what they may see.
//!
//! A [`Recipient`] exists only if its token is known; a [`SharedTable`] only if the token is valid now and
//! the share is granted to its recipient. Holding that is the permission. What is not granted is answered
//! exactly like what does not exist.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures::future::try_join_all;
use percent_encoding::percent_decode_str;

use crate::audit;
use crate::catalog::{Caller, Catalog, ShareRecord, TableRecord, TokenHash, unknown_token};
use crate::error::{Error, Result};
use crate::oidc::{Oidc, may_be_jwt};

/// Longer ones are refused before they are hashed, unless they may be JWTs; ours have 47 characters.
const MAX_TOKEN_BYTES: usize = 4096;

/// The longest `Basic` credentials: a token of any length that is taken, with a user name.
const MAX_BASIC_CHARS: usize = 2 * MAX_TOKEN_BYTES;

/// Base64 as `Basic` credentials have it, with its padding or without.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A recipient who has sent a token. What is read for it makes sure that the token is still good.
#[derive(Debug, Clone)]
pub struct Recipient(Caller);

impl Recipient {
    /// Finds out who sent these `Authorization` headers; `None` is one that is not text. `source` is the address that the
    /// request comes from, if it is known: whatever is read for the recipient checks it.
    ///
    /// 401 if the token is unknown or has expired, or if there is none and the catalog needs one. 503 if the token is a
    /// JWT that cannot be verified at the moment.
    pub async fn authenticate(
        catalog: &dyn Catalog,
        oidc: &Oidc,
        headers: &[Option<&str>],
        source: Option<IpAddr>,
    ) -> Result<Self> {
        let sent = match headers {
            [] => Authorization::Nothing,
            [header] => header.map_or(Authorization::Unreadable, Authorization::parse),
            // Which of them counts is not for this server to guess.
            _ => Authorization::Unreadable,
        };
        let caller = match sent {
            Authorization::Nothing => catalog.anonymous().await?,
            Authorization::Token(token) => {
                let mut caller = oidc.caller(catalog, &token).await?;
                if caller.is_none() && token.len() <= MAX_TOKEN_BYTES {
                    caller = catalog.caller(TokenHash::of(&token)).await?;
                }
                match caller {
                    Some(caller) => Some(caller),
                    None => catalog.anonymous().await?,
                }
            }
            Authorization::Unreadable => None,
        };
        let caller = caller.ok_or_else(unknown_token)?.at_address(source);
        audit::note(|facts| {
            facts.recipient = Some(Arc::clone(&caller.token.recipient));
            facts.token_id = Some(Arc::clone(&caller.token.id));
        });
        caller.token.check_expiry()?;
        Ok(Self(caller))
    }

    /// The name that grants hang on.
    pub fn name(&self) -> &str {
        self.0.recipient()
    }

    /// What the catalog is asked with.
    pub fn caller(&self) -> &Caller {
        &self.0
    }
}

/// What an `Authorization` header says. It has no `Debug`, so that no log can have it.
#[derive(PartialEq, Eq)]
enum Authorization<'a> {
    /// No token. An empty token is none: a client whose profile has an empty token still sends the header.
    Nothing,
    /// This token.
    Token(Cow<'a, str>),
    /// Something that cannot be read: 401, even if no token is needed.
    Unreadable,
}

impl<'a> Authorization<'a> {
    /// Reads `Bearer` with a token, or `Basic` with the token as the password and any user name. Clients send
    /// `Basic` if their endpoint is `https://user:token@host/…`, or if their profile is of type `basic`.
    /// Tolerates any case, extra spaces, and a colon after the scheme, which one client sends.
    fn parse(header: &'a str) -> Self {
        let header = header.trim();
        let (scheme, rest) = header.split_once(char::is_whitespace).unwrap_or((header, ""));
        let (scheme, rest) = (scheme.trim_end_matches(':'), rest.trim());
        let token = if header.is_empty() || scheme.eq_ignore_ascii_case("bearer") {
            Some(Cow::Borrowed(rest))
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic_password(rest).map(Cow::Owned)
        } else {
            None
        };
        match token {
            Some(token) if token.is_empty() => Self::Nothing,
            Some(token) if token.len() <= MAX_TOKEN_BYTES || may_be_jwt(&token) => Self::Token(token),
            Some(_) | None => Self::Unreadable,
        }
    }
}

/// The password in `Basic` credentials, which are the Base64 of `user:password` in UTF-8 without control
/// characters: RFC 7617. A user name has no colon; a password may.
fn basic_password(credentials: &str) -> Option<String> {
    let decoded = BASIC.decode(credentials).ok().filter(|_| credentials.len() <= MAX_BASIC_CHARS)?;
    let text = String::from_utf8(decoded).ok().filter(|text| !text.chars().any(char::is_control))?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// A share that is granted to the recipient who asks.
#[derive(Debug)]
pub struct SharedShare(ShareRecord);

impl SharedShare {
    /// Finds a share by its name in a path. 404 if it does not exist or is not granted.
    pub async fn find(catalog: &dyn Catalog, recipient: &Recipient, name: &PathName) -> Result<Self> {
        for share in name.spellings() {
            if let Some(record) = catalog.share(recipient.caller(), &share).await? {
                audit::note(|facts| facts.object = Some(record.name.to_string()));
                return Ok(Self(record));
            }
        }
        Err(share_not_found(name))
    }

    /// The share.
    pub fn record(&self) -> &ShareRecord {
        &self.0
    }
}

/// The error for a share that does not exist or is not granted.
pub fn share_not_found(name: &PathName) -> Error {
    Error::not_found(format!("share '{name}' not found"))
}

/// A table whose share is granted to the recipient who asks. It can only be had by finding it, so holding one is the
/// permission to read what its provider shares of it.
#[derive(Debug, Clone)]
pub struct SharedTable(TableRecord);

impl SharedTable {
    /// Finds a table by its names in a path. 404 if it does not exist or its share is not granted.
    pub async fn find(catalog: &dyn Catalog, recipient: &Recipient, names: &[PathName; 3]) -> Result<Self> {
        let [share, schema, table] = names;
        let mut spellings: Vec<_> =
            share.spellings().zip(schema.spellings()).zip(table.spellings()).collect();
        spellings.dedup();
        // Together, so that a space written as `+` costs no further round trip.
        let lookups = spellings
            .iter()
            .map(|((share, schema), table)| catalog.table(recipient.caller(), share, schema, table));
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

    /// The table.
    pub fn record(&self) -> &TableRecord {
        &self.0
    }

    /// Refuses to read an older version of a table whose history is not shared: 400.
    pub fn check_history(&self) -> Result<()> {
        if self.0.settings.history_shared {
            return Ok(());
        }
        let TableRecord { share, schema, name, .. } = &self.0;
        Err(Error::invalid(format!(
            "Reading table by version or timestamp is not supported because history sharing is not enabled on table: \
             {share}.{schema}.{name}"
        )))
    }

    /// Refuses the change data feed of a table whose history is not shared: 400.
    pub fn check_feed(&self) -> Result<()> {
        if self.0.settings.history_shared {
            return Ok(());
        }
        let TableRecord { share, schema, name, .. } = &self.0;
        Err(Error::invalid(format!(
            "cdf is not enabled on table {share}.{schema}.{name}: its provider does not share its history."
        )))
    }

    /// Refuses versions older than the oldest one shared: 400.
    pub fn check_start(&self, version: u64) -> Result<()> {
        self.check_start_of("data", version)
    }

    /// The same for a range of changes, by its first version.
    pub fn check_start_of_changes(&self, version: u64) -> Result<()> {
        self.check_start_of("changes", version)
    }

    fn check_start_of(&self, what: &str, version: u64) -> Result<()> {
        let oldest = self.0.settings.start_version;
        if version >= oldest {
            return Ok(());
        }
        Err(Error::invalid(format!("You can only query table {what} since version {oldest}.")))
    }

    /// The same for a version that a timestamp was resolved to.
    pub fn check_start_of_timestamp(&self, version: u64, timestamp: &str) -> Result<()> {
        self.check_start(version).map_err(|_| {
            let timestamp: String = timestamp.chars().take(64).collect();
            let oldest = self.0.settings.start_version;
            Error::invalid(format!(
                "You can only query table data since version {oldest}.The provided timestamp({timestamp}) corresponds to {version}."
            ))
        })
    }
}

/// A name in a path. Some clients write a space as `+`, so a name that is not found as it stands is looked up
/// again with its pluses as spaces; an escaped plus, `%2B`, is always a plus.
#[derive(Debug, Clone)]
pub struct PathName {
    literal: String,
    spaced: String,
}

impl PathName {
    /// Decodes a segment of a path, as the client wrote it; 404 if it is not UTF-8, since every name is.
    pub fn decode(segment: &str) -> Result<Self> {
        let decoded = |segment: &str| {
            let name = percent_decode_str(segment).decode_utf8();
            name.map(Cow::into_owned).map_err(|_| Error::not_found("A name in the path is not UTF-8."))
        };
        Ok(Self { literal: decoded(segment)?, spaced: decoded(&segment.replace('+', "%20"))? })
    }

    /// The name as it stands.
    pub fn as_str(&self) -> &str {
        &self.literal
    }

    /// The spellings to look up, in their order. There are always two, the same if the name has no plus, so that
    /// one looked up after the other costs the same whatever an unknown name contains.
    pub fn spellings(&self) -> impl Iterator<Item = String> {
        [self.literal.clone(), self.spaced.clone()].into_iter()
    }
}

impl std::fmt::Display for PathName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.literal.chars().take(255) {
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
    use crate::oidc::LONGEST_JWT;

    fn is_token(header: &str, token: &str) -> bool {
        Authorization::parse(header) == Authorization::Token(token.into())
    }

    fn basic(credentials: impl AsRef<[u8]>) -> String {
        format!("Basic {}", BASIC.encode(credentials))
    }

    #[test]
    fn tokens_as_clients_send_them() {
        for header in ["Bearer t", "bearer t", "BEARER   t ", "Bearer: t", " Bearer\tt"] {
            assert!(is_token(header, "t"), "{header}");
        }
        for header in ["", " ", "Bearer", "Bearer ", "bearer:", "Bearer:  "] {
            assert!(Authorization::parse(header) == Authorization::Nothing, "{header}");
        }
        for header in ["t", "Bearert", "Bearer:t", ":", "Digest username=x", "Negotiate"] {
            assert!(Authorization::parse(header) == Authorization::Unreadable, "{header}");
        }
        for length in [LONGEST_JWT, LONGEST_JWT + 1] {
            let token = format!("{:x<length$}", "eyJ");
            assert_eq!(is_token(&format!("Bearer {token}"), &token), length == LONGEST_JWT);
        }
        for length in [MAX_TOKEN_BYTES, MAX_TOKEN_BYTES + 1] {
            let token = "x".repeat(length);
            assert_eq!(is_token(&format!("Bearer {token}"), &token), length <= MAX_TOKEN_BYTES);
            assert_eq!(is_token(&basic(format!("user:{token}")), &token), length <= MAX_TOKEN_BYTES);
        }
    }

    #[test]
    fn the_password_of_basic_credentials_is_the_token() {
        for (credentials, token) in [
            ("me:dss_t", "dss_t"),
            (":dss_t", "dss_t"),
            ("é:tökén", "tökén"),
            ("me:with:colons:", "with:colons:"),
            ("me: t ", " t "),
        ] {
            assert!(is_token(&basic(credentials), token), "{credentials}");
        }
        for header in ["basic bWU6dA==", "BASIC:  bWU6dA==", "Basic bWU6dA", "Basic bWU6dA="] {
            assert!(is_token(header, "t"), "{header}");
        }
        assert!(Authorization::parse(&basic("me:")) == Authorization::Nothing);
        let bad = [
            "Basic".to_owned(),
            "Basic dGhpcyBpcyBub3QgYmFzZTY0!".to_owned(),
            "Basic bWU6 dA==".to_owned(),
            "Basic bWU6dP__".to_owned(),
            basic("no colon"),
            basic(b"me:\xff"),
            basic("me:t\n"),
            basic("m\0e:t"),
            basic(format!("{}:t", "x".repeat(2 * MAX_TOKEN_BYTES))),
        ];
        for header in bad {
            assert!(Authorization::parse(&header) == Authorization::Unreadable, "{header}");
        }
    }

    #[test]
    fn a_plus_may_be_a_space_and_an_escaped_one_is_not() {
        for (segment, spellings) in [
            ("a+b", ["a+b", "a b"]),
            ("a%2Bb", ["a+b", "a+b"]),
            ("a+%2B%20%25", ["a++ %", "a + %"]),
            ("with%2520space", ["with%20space", "with%20space"]),
        ] {
            let name = PathName::decode(segment).unwrap();
            assert_eq!(name.spellings().collect::<Vec<_>>(), spellings, "{segment}");
        }
        assert!(PathName::decode("%C3").is_err() && PathName::decode("a+%FF").is_err());
    }
}
