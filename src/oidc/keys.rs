//! The keys of an issuer ("JSON Web Key Set"), and the signatures that they verify.

use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwt::{CLOCK_SKEW, Claims, Jwt};

/// The most keys of an issuer that are looked at. Issuers have two or three, and a few more while they replace them.
const MOST_KEYS: usize = 100;

/// Why a token is refused although its issuer has a key for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was good until it expired.
    Expired,
    /// Anything else.
    Invalid(&'static str),
}

/// What came of looking for the key of a token.
#[derive(Debug)]
pub(super) enum Verified {
    /// The token is signed by its issuer, and valid now.
    Good(Claims),
    /// It is not.
    Refused(Refusal),
    /// None of the keys is the one of the token; the issuer may have a new one.
    UnknownKey,
}

/// A key, with the only kind of signatures that it may verify.
pub(super) struct Key {
    id: Option<String>,
    kind: Kind,
    /// The algorithm that its issuer restricts it to.
    algorithm: Option<String>,
    key: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    Ed25519,
}

/// The algorithms that are accepted, with the kind of key that each needs. No other one is looked at: neither `none` nor one
/// with a shared secret.
const ALGORITHMS: [(&str, Algorithm, Kind); 4] = [
    ("RS256", Algorithm::RS256, Kind::Rsa),
    ("PS256", Algorithm::PS256, Kind::Rsa),
    ("ES256", Algorithm::ES256, Kind::P256),
    ("EdDSA", Algorithm::EdDSA, Kind::Ed25519),
];

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

/// A key as it is published: what of it is read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    /// Reads the keys that can verify signatures here. Those of other kinds are left out.
    pub(super) fn read_all(jwks: &[u8]) -> Result<Vec<Self>, String> {
        let jwks: Jwks =
            serde_json::from_slice(jwks).map_err(|error| format!("its keys are not a key set: {error}"))?;
        if jwks.keys.len() > MOST_KEYS {
            return Err(format!("it has more than {MOST_KEYS} keys"));
        }
        Ok(jwks.keys.into_iter().filter_map(|key| Self::of(serde_json::from_value(key).ok()?)).collect())
    }

    fn of(jwk: Jwk) -> Option<Self> {
        let verifies = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
            && jwk.key_ops.is_none_or(|operations| operations.iter().any(|name| name == "verify"));
        let (kind, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (Kind::Rsa, DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?)),
            ("EC", Some("P-256")) => (Kind::P256, DecodingKey::from_ec_components(&jwk.x?, &jwk.y?)),
            ("OKP", Some("Ed25519")) => (Kind::Ed25519, DecodingKey::from_ed_components(&jwk.x?)),
            _ => return None,
        };
        let key = key.ok().filter(|_| verifies)?;
        Some(Self { id: jwk.kid, kind, algorithm: jwk.alg, key })
    }

    fn fits(&self, jwt: &Jwt<'_>, kind: Kind) -> bool {
        // A token without the id of its key may be signed with any of them.
        let is_named = jwt.header.kid.is_none() || self.id == jwt.header.kid;
        let may_verify = self.algorithm.as_ref().is_none_or(|algorithm| *algorithm == jwt.header.alg);
        is_named && self.kind == kind && may_verify
    }
}

impl Jwt<'_> {
    /// Verifies the token with the keys of its issuer.
    pub(super) fn verify(&self, keys: &[Key], now: DateTime<Utc>) -> Verified {
        let refused = |reason| Verified::Refused(Refusal::Invalid(reason));
        let accepted = ALGORITHMS.iter().find(|(name, ..)| *name == self.header.alg);
        let Some(&(_, algorithm, kind)) = accepted else {
            return refused("its algorithm is not accepted");
        };
        if self.header.crit.is_some() {
            return refused("it has critical headers, which are not understood");
        }
        let mut validation = Validation::new(algorithm);
        validation.leeway = CLOCK_SKEW;
        validation.validate_nbf = true;
        // Which audience is the right one depends on the policy.
        validation.validate_aud = false;
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let mut is_forged = false;
        for key in keys.iter().filter(|key| key.fits(self, kind)) {
            let error = match decode::<Map<String, Value>>(self.text, &key.key, &validation) {
                Ok(token) => {
                    return match Claims::new(token.claims, &self.issuer, now) {
                        Ok(claims) => Verified::Good(claims),
                        Err(reason) => refused(reason),
                    };
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::ExpiredSignature => return Verified::Refused(Refusal::Expired),
                ErrorKind::ImmatureSignature => return refused("it is not valid yet"),
                ErrorKind::MissingRequiredClaim(_) => {
                    return refused("it lacks exp, iss or aud, or one has a wrong type");
                }
                ErrorKind::InvalidIssuer => return refused("its issuer is another one"),
                // There may be another one with the same id, or the token has no id.
                ErrorKind::InvalidSignature => is_forged = self.header.kid.is_some(),
                _ => return refused("it cannot be read"),
            }
        }
        if is_forged { refused("its signature is not that of its key") } else { Verified::UnknownKey }
    }
}
