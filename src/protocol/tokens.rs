//! Page tokens of listings: authenticated, bound to recipient and listing, with an expiry, URL-safe.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{Error, Result};

const LIFE: Duration = Duration::hours(24);
const TAG_BYTES: usize = 16;

/// The key that page tokens are authenticated with.
pub struct TokenKey(Hmac<Sha256>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

/// What a page token says: where the next page of which listing, for whom, begins.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    /// The listing, such as `schemas/retail`.
    #[serde(rename = "l", borrow)]
    listing: std::borrow::Cow<'a, str>,
    #[serde(rename = "r", borrow)]
    recipient: std::borrow::Cow<'a, str>,
    /// The key of the last item of the page before.
    #[serde(rename = "a", borrow)]
    after: std::borrow::Cow<'a, str>,
    /// Seconds since the epoch.
    #[serde(rename = "e")]
    expires: i64,
}

impl TokenKey {
    /// A key made of `secret`, which should be 32 random bytes.
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

    fn tag(&self, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(payload);
        mac
    }

    /// The token of the page that begins after the item with the key `after`.
    pub fn seal(&self, listing: &str, recipient: &str, after: &str, now: DateTime<Utc>) -> Result<String> {
        let payload = Payload {
            listing: listing.into(),
            recipient: recipient.into(),
            after: after.into(),
            expires: (now + LIFE).timestamp(),
        };
        let mut bytes = serde_json::to_vec(&payload).map_err(Error::internal)?;
        let tag = self.tag(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The key that the page asked for begins after. 400 for a token that is not ours, was made for
    /// another listing or recipient, or has expired.
    pub fn open(&self, token: &str, listing: &str, recipient: &str, now: DateTime<Utc>) -> Result<String> {
        let refuse = || Error::invalid("invalid 'nextPageToken'");
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| refuse())?;
        let (payload, tag) =
            bytes.split_at_checked(bytes.len().wrapping_sub(TAG_BYTES)).ok_or_else(refuse)?;
        self.tag(payload).verify_truncated_left(tag).map_err(|_| refuse())?;
        let payload: Payload<'_> = serde_json::from_slice(payload).map_err(|_| refuse())?;
        if payload.listing != listing || payload.recipient != recipient {
            return Err(refuse());
        }
        if payload.expires <= now.timestamp() {
            return Err(Error::invalid("invalid 'nextPageToken': it has expired, begin the listing again"));
        }
        Ok(payload.after.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    #[test]
    fn a_token_opens_only_for_what_it_was_made_for() {
        let key = TokenKey::new(&[7; 32]);
        let token = key.seal("schemas/retail", "acme", "sä\"les", now()).unwrap();
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(key.open(&token, "schemas/retail", "acme", now()).unwrap(), "sä\"les");
        assert!(key.open(&token, "schemas/other", "acme", now()).is_err());
        assert!(key.open(&token, "schemas/retail", "globex", now()).is_err());
        assert!(key.open(&token, "schemas/retail", "acme", now() + LIFE).is_err());
        assert!(TokenKey::new(&[8; 32]).open(&token, "schemas/retail", "acme", now()).is_err());
    }

    #[test]
    fn no_changed_byte_is_accepted() {
        let key = TokenKey::new(&[7; 32]);
        let token = key.seal("shares", "acme", "retail", now()).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let changed = URL_SAFE_NO_PAD.encode(changed);
                assert!(key.open(&changed, "shares", "acme", now()).is_err());
            }
        }
        for short in ["", "A", "AAAA", "not base64!", &token[..token.len() - 4]] {
            assert!(key.open(short, "shares", "acme", now()).is_err(), "{short}");
        }
    }
}
