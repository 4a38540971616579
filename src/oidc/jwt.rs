//! A JSON Web Token before and after it is verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::catalog::oidc::{LONGEST_ISSUER, OidcPolicy};

/// Longer tokens are no JWTs that are verified. Tokens that list the groups of their subject have a few thousand bytes.
pub const LONGEST_JWT: usize = 16 << 10;

/// How much the clocks of this server and of an issuer may differ, in seconds.
pub(super) const CLOCK_SKEW: u64 = 60;

/// What a token says of its signature.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// What whoever verifies the token must understand. Nothing of it is understood here.
    pub(super) crit: Option<Value>,
}

/// A token that has the form of a JWT and names its issuer. Nothing of what it says is verified.
pub(super) struct Jwt<'a> {
    pub(super) text: &'a str,
    pub(super) header: Header,
    pub(super) issuer: String,
}

/// Whether a text may be a JWT, by its first characters: those of a JSON object in Base64.
pub fn may_be_jwt(text: &str) -> bool {
    text.starts_with("eyJ") && text.len() <= LONGEST_JWT
}

impl<'a> Jwt<'a> {
    /// Reads three parts in Base64 of which the first is the header and the second has an issuer.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Payload {
            iss: String,
        }
        if !may_be_jwt(text) {
            return None;
        }
        let mut parts = text.split('.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let is_signature = parts.next().is_none() && URL_SAFE_NO_PAD.decode(signature).is_ok();
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let Payload { iss } = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        (is_signature && !iss.is_empty() && iss.len() <= LONGEST_ISSUER).then_some(Self {
            text,
            header,
            issuer: iss,
        })
    }
}

/// What a verified token says.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Refuses claims that name another issuer or were made in the future. Their signature and their life are verified.
    pub(super) fn new(
        claims: Map<String, Value>,
        issuer: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, &'static str> {
        if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err("its issuer is another one");
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are small")]
        let latest = now.timestamp().saturating_add_unsigned(CLOCK_SKEW) as f64;
        match claims.get("iat").map(Value::as_f64) {
            None => Ok(Self(claims)),
            Some(Some(issued)) if issued <= latest => Ok(Self(claims)),
            Some(Some(_)) => Err("it was issued in the future"),
            Some(None) => Err("iat is not a number"),
        }
    }

    /// Whether the token is for an audience of the policy.
    pub(super) fn has_audience(&self, policy: &OidcPolicy) -> bool {
        self.texts("aud").any(|audience| policy.audiences.contains(audience))
    }

    /// Whether the token has the subject of the policy.
    pub(super) fn has_subject(&self, policy: &OidcPolicy) -> bool {
        self.texts(&policy.subject_claim).any(|subject| subject == policy.subject)
    }

    /// The text that a claim is, or the texts of the list that it is.
    fn texts(&self, claim: &str) -> impl Iterator<Item = &str> {
        let values = match self.0.get(claim) {
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        values.iter().filter_map(Value::as_str)
    }
}
