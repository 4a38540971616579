//! Forged, stale and foreign tokens, and keys that issuers publish.

// Clippy does not take a module with more than one condition for a test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::issuer::Known;
use super::jwt::{Claims, Jwt, LONGEST_JWT};
use super::keys::{Key, Refusal, Verified};
use super::*;
use crate::catalog::oidc::OidcPolicy;
use crate::catalog::share_file::{ShareFile, ShareFileCatalog};
use crate::error::ErrorCode;

const ISSUER: &str = "https://idp.example.com";

/// Signs a message.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key that signs, and how it is published.
struct Signer {
    algorithm: &'static str,
    sign: Sign,
    jwk: Value,
}

impl Signer {
    fn rsa(algorithm: &'static str, encoding: &'static dyn RsaEncoding) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
        let jwk = json!({"kty": "RSA", "n": BASE64.encode(&public.n), "e": BASE64.encode(&public.e)});
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        Self { algorithm, sign: Box::new(sign), jwk }
    }

    fn rs256() -> Self {
        Self::rsa("RS256", &RSA_PKCS1_SHA256)
    }

    fn es256() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = key.public_key().as_ref().to_vec();
        let (x, y) = public[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y)});
        let sign = move |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        Self { algorithm: "ES256", sign: Box::new(sign), jwk }
    }

    fn eddsa() -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(key.public_key().as_ref())});
        Self { algorithm: "EdDSA", sign: Box::new(move |message| key.sign(message).as_ref().to_vec()), jwk }
    }

    /// Published with this id.
    fn published(&self, id: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = id.into();
        jwk
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        self.with_header(&json!({"alg": self.algorithm, "kid": id, "typ": "at+jwt"}), claims)
    }

    fn with_header(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        format!("{message}.{}", BASE64.encode((self.sign)(message.as_bytes())))
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

fn keys(published: &[Value]) -> Vec<Key> {
    Key::read_all(json!({"keys": published}).to_string().as_bytes()).unwrap()
}

/// Claims that are good, with some that are others; null takes one away.
fn claims(others: &Value) -> Value {
    let now = Utc::now().timestamp();
    let mut claims =
        json!({"iss": ISSUER, "aud": "sharing", "sub": "acme", "iat": now, "nbf": now, "exp": now + 300});
    for (name, value) in others.as_object().unwrap() {
        match value {
            Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn verify(token: &str, keys: &[Key]) -> Verified {
    Jwt::read(token).map_or(Verified::UnknownKey, |jwt| jwt.verify(keys, Utc::now()))
}

fn is_good(token: &str, keys: &[Key]) -> bool {
    matches!(verify(token, keys), Verified::Good(_))
}

fn policy(claim: &str, subject: &str) -> OidcPolicy {
    OidcPolicy {
        issuer: ISSUER.to_owned(),
        subject_claim: claim.to_owned(),
        subject: subject.to_owned(),
        audiences: ["sharing".to_owned(), "other".to_owned()].into(),
    }
}

#[test]
fn each_algorithm_is_verified_with_its_own_kind_of_key_only() {
    let signers = [Signer::rs256(), Signer::rsa("PS256", &RSA_PSS_SHA256), Signer::es256(), Signer::eddsa()];
    let all: Vec<Value> =
        signers.iter().enumerate().map(|(number, signer)| signer.published(&number.to_string())).collect();
    let all = keys(&all);
    assert_eq!(all.len(), 4);
    let claims = claims(&json!({}));
    for (number, signer) in signers.iter().enumerate() {
        let own = number.to_string();
        assert!(is_good(&signer.token(&own, &claims), &all), "{}", signer.algorithm);
        // Without an id, the key is found among those of its kind.
        assert!(is_good(&signer.with_header(&json!({"alg": signer.algorithm}), &claims), &all));
        for other in (0..signers.len()).filter(|other| *other != number) {
            assert!(!is_good(&signer.token(&other.to_string(), &claims), &all), "{number} {other}");
            let lie = json!({"alg": signers[other].algorithm, "kid": own});
            assert!(!is_good(&signer.with_header(&lie, &claims), &all), "{number} as {other}");
        }
        // What the issuer says of a key is respected.
        for (name, value, works) in [
            ("alg", json!(signer.algorithm), true),
            ("alg", json!("RS512"), false),
            ("use", json!("sig"), true),
            ("use", json!("enc"), false),
            ("key_ops", json!(["verify"]), true),
            ("key_ops", json!(["encrypt"]), false),
        ] {
            let mut jwk = signer.published("k");
            jwk[name] = value.clone();
            assert_eq!(is_good(&signer.token("k", &claims), &keys(&[jwk])), works, "{name} {value}");
        }
    }
}

#[test]
fn algorithms_without_a_signature_or_with_a_shared_secret_are_refused() {
    let signer = Signer::rs256();
    let jwk = signer.published("k");
    let published = keys(&[jwk.clone(), json!({"kty": "oct", "kid": "o", "k": BASE64.encode("secret")})]);
    assert_eq!(published.len(), 1, "a shared secret was taken for a key");
    let claims = claims(&json!({}));
    assert!(is_good(&signer.token("k", &claims), &published));
    for algorithm in
        ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS384", "RS512", "ES384", "rs256"]
    {
        for header in [json!({"alg": algorithm, "kid": "k"}), json!({"alg": algorithm})] {
            for token in [signer.with_header(&header, &claims), format!("{}.", message(&header, &claims))] {
                assert!(!is_good(&token, &published), "{header}");
            }
        }
    }
    let modulus = BASE64.decode(jwk["n"].as_str().unwrap()).unwrap();
    for (id, secret) in
        [("k", modulus), ("k", jwk.to_string().into_bytes()), ("k", vec![0]), ("o", b"secret".to_vec())]
    {
        let message = message(&json!({"alg": "HS256", "kid": id}), &claims);
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        mac.update(message.as_bytes());
        let token = format!("{message}.{}", BASE64.encode(mac.finalize().into_bytes()));
        assert!(!is_good(&token, &published), "{id}");
    }
    assert!(!is_good(&format!("{}.", message(&json!({"alg": "RS256", "kid": "k"}), &claims)), &published));
}

#[test]
fn only_the_signature_of_the_issuer_counts() {
    let (signer, stranger) = (Signer::es256(), Signer::es256());
    let published = keys(&[signer.published("k")]);
    let claims = claims(&json!({}));
    let token = signer.token("k", &claims);
    assert!(is_good(&token, &published));
    let forged = stranger.token("k", &claims);
    assert!(matches!(verify(&forged, &published), Verified::Refused(Refusal::Invalid(_))));
    assert!(matches!(verify(&signer.token("other", &claims), &published), Verified::UnknownKey));
    assert!(matches!(
        verify(&stranger.with_header(&json!({"alg": "ES256"}), &claims), &published),
        Verified::UnknownKey
    ));
    // Keys in the token are not looked at, and what must be understood is refused.
    let with_key =
        json!({"alg": "ES256", "kid": "k", "jwk": stranger.jwk, "jku": "https://evil.example.com/keys"});
    assert!(!is_good(&stranger.with_header(&with_key, &claims), &published));
    for critical in [json!(["b64"]), json!([]), json!("x")] {
        let header = json!({"alg": "ES256", "kid": "k", "crit": critical});
        assert!(!is_good(&signer.with_header(&header, &claims), &published), "{header}");
    }
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let altered = BASE64.encode(self::claims(&json!({"sub": "globex"})).to_string());
    assert!(!is_good(&format!("{header}.{altered}.{signature}"), &published));
    for at in [0, 30, 63] {
        let mut bytes = BASE64.decode(signature).unwrap();
        bytes[at] ^= 1;
        assert!(!is_good(&format!("{head}.{}", BASE64.encode(bytes)), &published));
    }
    // Two keys with one id, as while keys are replaced.
    assert!(is_good(&token, &keys(&[stranger.published("k"), signer.published("k")])));
}

#[test]
fn claims_are_of_the_right_type_and_time() {
    let signer = Signer::eddsa();
    let published = keys(&[signer.published("k")]);
    let now = Utc::now().timestamp();
    let check = |others: Value| verify(&signer.token("k", &claims(&others)), &published);
    for good in [
        json!({"exp": now - 50}),
        json!({"nbf": now + 50, "iat": now + 50}),
        json!({"nbf": null, "iat": null}),
        json!({"exp": now as f64 + 100.5}),
        json!({"aud": ["x", "sharing"]}),
    ] {
        assert!(matches!(check(good.clone()), Verified::Good(_)), "{good}");
    }
    assert!(matches!(check(json!({"exp": now - 70})), Verified::Refused(Refusal::Expired)));
    for bad in [
        json!({"exp": null}),
        json!({"exp": (now + 300).to_string()}),
        json!({"exp": -1}),
        json!({"exp": [now + 300]}),
        json!({"nbf": now + 70}),
        json!({"nbf": now.to_string()}),
        json!({"iat": now + 70}),
        json!({"iat": now.to_string()}),
        json!({"aud": null}),
    ] {
        assert!(matches!(check(bad.clone()), Verified::Refused(_)), "{bad}");
    }
    // Who another issuer is, its own keys do not say.
    for issuer in
        [json!("https://idp.example.com/"), json!([ISSUER]), json!("HTTPS://idp.example.com"), json!(7)]
    {
        let claims = claims(&json!({"iss": issuer}));
        let claims = claims.as_object().unwrap().clone();
        assert!(Claims::new(claims, ISSUER, Utc::now()).is_err(), "{issuer}");
    }
}

#[test]
fn a_policy_is_met_by_its_own_subject_and_audience() {
    let of = |others: Value| {
        let claims = claims(&others).as_object().unwrap().clone();
        Claims::new(claims, ISSUER, Utc::now()).unwrap()
    };
    for (others, subject, audience) in [
        (json!({}), true, true),
        (json!({"sub": ["x", "acme"], "aud": ["x", "other"]}), true, true),
        (json!({"sub": "Acme", "aud": "Sharing"}), false, false),
        (json!({"sub": "acme ", "aud": "sharing other"}), false, false),
        (json!({"sub": 7, "aud": 7}), false, false),
        (json!({"sub": {"acme": "acme"}, "aud": {"sharing": "sharing"}}), false, false),
        (json!({"sub": [["acme"]], "aud": [["sharing"]]}), false, false),
        (json!({"sub": null, "aud": null, "azp": "acme"}), false, false),
        (json!({"sub": [], "aud": []}), false, false),
    ] {
        let (found, policy) = (of(others.clone()), policy("sub", "acme"));
        assert_eq!(
            (found.has_subject(&policy), found.has_audience(&policy)),
            (subject, audience),
            "{others}"
        );
    }
    assert!(of(json!({"groups": ["a", "b"]})).has_subject(&policy("groups", "b")));
    assert!(!of(json!({"groups": "a,b"})).has_subject(&policy("groups", "b")));
}

#[test]
fn what_is_no_jwt_is_left_to_others() {
    let signer = Signer::eddsa();
    let token = signer.token("k", &claims(&json!({})));
    assert_eq!(Jwt::read(&token).unwrap().issuer, ISSUER);
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let encoded = |text: &str| BASE64.encode(text);
    for other in [
        String::new(),
        "dss_0123456789".to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{header}.{payload}.!"),
        format!("{header}.x.{signature}"),
        format!("{}.{payload}.{signature}", encoded("[]")),
        format!("{}.{payload}.{signature}", encoded(r#"{"kid":"k"}"#)),
        format!("{}.{payload}.{signature}", encoded(r#"{"alg":7}"#)),
        format!("{header}.{}.{signature}", encoded(r#"{"sub":"acme"}"#)),
        format!("{header}.{}.{signature}", encoded(r#"{"iss":""}"#)),
        format!("{header}.{}.{signature}", encoded(&format!(r#"{{"iss":"{}"}}"#, "x".repeat(600)))),
        format!("{header}.{}.{signature}", encoded(&"[".repeat(4000))),
        format!("{token}{}", "A".repeat(LONGEST_JWT)),
    ] {
        assert!(Jwt::read(&other).is_none(), "{other}");
    }
}

fn catalog(issuer: &str) -> ShareFileCatalog {
    let text = format!(
        "version: 1\nrecipients:\n- name: acme\n  oidc:\n  - {{issuer: '{issuer}', audiences: [sharing], subject: acme}}\n"
    );
    ShareFileCatalog::new(ShareFile::parse(&text, None).unwrap())
}

#[tokio::test]
async fn only_issuers_of_policies_are_contacted_and_only_as_is_allowed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let contacts = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&contacts);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let count = || contacts.load(std::sync::atomic::Ordering::SeqCst);
    let token = Signer::es256().token("k", &claims(&json!({"iss": issuer})));
    let oidc = Oidc::new(true);
    assert!(oidc.caller(&catalog("https://idp.example.com"), &token).await.unwrap().is_none());
    let forbidden = Oidc::new(false).caller(&catalog(&issuer), &token).await.unwrap_err();
    assert_eq!((forbidden.code(), count()), (ErrorCode::TemporarilyUnavailable, 0));
    let failed = oidc.caller(&catalog(&issuer), &token).await.unwrap_err();
    assert_eq!((failed.code(), count()), (ErrorCode::TemporarilyUnavailable, 1));
    // It is left alone for a while.
    oidc.caller(&catalog(&issuer), &token).await.unwrap_err();
    assert_eq!(count(), 1);
}

#[test]
fn keys_are_fetched_again_after_an_hour_and_forgotten_after_a_day() {
    let signer = Signer::es256();
    let token = signer.token("k", &claims(&json!({})));
    let jwt = Jwt::read(&token).unwrap();
    let now = Utc::now();
    for (minutes, is_fresh, is_known) in
        [(0, true, true), (59, true, true), (61, false, true), (1439, false, true), (1441, false, false)]
    {
        let at = now - TimeDelta::minutes(minutes);
        let known = Known {
            keys: Some(Arc::new(keys(&[signer.published("k")]))),
            fetched: at,
            tried: at,
            ..Known::default()
        };
        assert_eq!(known.is_fresh(now), is_fresh, "{minutes}");
        assert_eq!(matches!(known.verify(&jwt, now), Verified::Good(_)), is_known, "{minutes}");
    }
    for (seconds, may_ask) in [(0, false), (9, false), (11, true), (-5, true)] {
        let known = Known { tried: now - TimeDelta::seconds(seconds), ..Known::default() };
        assert_eq!(known.may_ask(now), may_ask, "{seconds}");
    }
    assert!(Known::default().may_ask(now) && !Known::default().is_fresh(now));
}
