//! Tokens that the server hands out and takes back: page tokens, refresh tokens, ids of queries.
//!
//! What a token says is authenticated, not secret; it is bound to what it was created for, has an expiry, and
//! holds only characters that need no escape in a URL. If one token leads to the next, each has the time when the
//! first one was created, so that the row of them can end.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{Error, Result};

const TAG_BYTES: usize = 16;

/// What a kind of token says.
pub trait Claims: Serialize + DeserializeOwned {
    /// The name of the kind; a token of one kind is never taken for another.
    const KIND: &'static str;
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidToken {
    /// It was not sealed with this key, or was sealed for something else.
    NotOurs,
    /// Its time is over.
    Expired,
}

/// The key that tokens are authenticated with.
///
/// ```
/// use chrono::{TimeDelta, Utc};
/// use deltashare::protocol::tokens::{Claims, InvalidToken, TokenKey};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Position(u64);
///
/// impl Claims for Position {
///     const KIND: &'static str = "position";
/// }
///
/// let (key, now) = (TokenKey::random()?, Utc::now());
/// let token = key.seal(&["acme", "orders"], &Position(7), now, now + TimeDelta::hours(1))?;
/// let read = |bound_to| key.unseal::<Position>(&token, bound_to, now).map(|(position, _)| position);
/// assert_eq!(read(&["acme", "orders"]), Ok(Position(7)));
/// assert_eq!(read(&["globex", "orders"]), Err(InvalidToken::NotOurs));
/// # Ok::<_, deltashare::error::Error>(())
/// ```
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

#[derive(Serialize, Deserialize)]
struct Payload<C> {
    /// When the first of a row of tokens was created, in seconds since the epoch. Tokens of an older server do not say it.
    #[serde(rename = "b", default)]
    began: Option<i64>,
    /// Seconds since the epoch.
    #[serde(rename = "e")]
    expires: i64,
    #[serde(rename = "c")]
    claims: C,
}

impl TokenKey {
    /// A key derived from `secret`, which should be 32 random bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut block = [0; 64];
        block[..secret.len()].copy_from_slice(secret);
        // HMAC pads a shorter key with zeros to the block's length, so this is the key itself.
        Self(Hmac::new(&block.into()))
    }

    /// A key that lives as long as this process.
    pub fn random() -> Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self::new(&secret))
    }

    /// Each part goes in with its length, so that no two lists of parts read the same.
    fn tag(&self, kind: &str, bound_to: &[&str], payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        let bound_to = bound_to.iter().map(|part| part.as_bytes());
        for part in std::iter::once(kind.as_bytes()).chain(bound_to).chain([payload]) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    /// The token that says `claims`, for nothing but `bound_to`, until `expires`. It is the first of its row, or follows
    /// on one that was created at `began`.
    pub fn seal<C: Claims>(
        &self,
        bound_to: &[&str],
        claims: &C,
        began: DateTime<Utc>,
        expires: DateTime<Utc>,
    ) -> Result<String> {
        let payload = Payload { began: Some(began.timestamp()), expires: expires.timestamp(), claims };
        let mut bytes = serde_json::to_vec(&payload).map_err(Error::internal)?;
        let tag = self.tag(C::KIND, bound_to, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a token says and when its row began, if it was sealed with this key for the same `bound_to` and is still
    /// good.
    pub fn unseal<C: Claims>(
        &self,
        token: &str,
        bound_to: &[&str],
        now: DateTime<Utc>,
    ) -> Result<(C, DateTime<Utc>), InvalidToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| InvalidToken::NotOurs)?;
        let (payload, tag) =
            bytes.split_at_checked(bytes.len().wrapping_sub(TAG_BYTES)).ok_or(InvalidToken::NotOurs)?;
        let mac = self.tag(C::KIND, bound_to, payload);
        mac.verify_truncated_left(tag).map_err(|_| InvalidToken::NotOurs)?;
        let payload: Payload<C> = serde_json::from_slice(payload).map_err(|_| InvalidToken::NotOurs)?;
        if payload.expires <= now.timestamp() {
            return Err(InvalidToken::Expired);
        }
        let began = payload.began.and_then(|began| DateTime::from_timestamp(began, 0));
        Ok((payload.claims, began.unwrap_or(now)))
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Cursor(String);

    impl Claims for Cursor {
        const KIND: &'static str = "cursor";
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other(String);

    impl Claims for Other {
        const KIND: &'static str = "other";
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn seal(key: &TokenKey, bound_to: &[&str]) -> String {
        let began = now() - Duration::days(1);
        key.seal(bound_to, &Cursor("sä\"les".to_owned()), began, now() + Duration::hours(1)).unwrap()
    }

    #[test]
    fn a_token_is_unsealed_only_for_what_it_was_sealed_for() {
        let key = TokenKey::new(&[7; 32]);
        let token = seal(&key, &["acme", "retail"]);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        let unseal = |bound_to: &[&str]| key.unseal::<Cursor>(&token, bound_to, now());
        let (cursor, began) = unseal(&["acme", "retail"]).unwrap();
        assert_eq!((cursor.0.as_str(), began), ("sä\"les", now() - Duration::days(1)));
        for other in [&["acme", "sales"][..], &["globex", "retail"], &["acmeretail"], &["acme", "retail", ""]]
        {
            assert_eq!(unseal(other), Err(InvalidToken::NotOurs), "{other:?}");
        }
        assert_eq!(key.unseal::<Other>(&token, &["acme", "retail"], now()), Err(InvalidToken::NotOurs));
        let late = key.unseal::<Cursor>(&token, &["acme", "retail"], now() + Duration::hours(1));
        assert_eq!(late, Err(InvalidToken::Expired));
        let other = TokenKey::new(&[8; 32]).unseal::<Cursor>(&token, &["acme", "retail"], now());
        assert_eq!(other, Err(InvalidToken::NotOurs));
    }

    #[test]
    fn no_changed_byte_is_accepted() {
        let key = TokenKey::new(&[7; 32]);
        let token = seal(&key, &["acme"]);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let changed = URL_SAFE_NO_PAD.encode(changed);
                assert_eq!(key.unseal::<Cursor>(&changed, &["acme"], now()), Err(InvalidToken::NotOurs));
            }
        }
        for short in ["", "A", "AAAA", "not base64!", &token[..token.len() - 4]] {
            assert!(key.unseal::<Cursor>(short, &["acme"], now()).is_err(), "{short}");
        }
    }
}
