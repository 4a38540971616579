//! Activation links: what `--activation` prints, and what it stores for the server to hand out.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use chrono::{DateTime, SecondsFormat, Utc};
use deltashare::catalog::diff::until;
use deltashare::catalog::dynamodb::{NewActivation, to_seconds};
use deltashare::network::is_this_machine;
use deltashare::protocol::activation::{ActivationSecret, Invitation, PATH};
use url::Url;

use super::Failure;
use super::arguments::TokenOptions;
use super::profile::endpoint as profile_endpoint;

/// A new link.
pub(crate) struct ActivationLink {
    /// The link. Whoever has it can get the token.
    pub(crate) text: String,
    expires: DateTime<Utc>,
    /// Whether browsers decrypt nothing at the endpoint.
    is_insecure: bool,
}

impl ActivationLink {
    /// A link to a profile, and what is stored for it.
    pub(crate) fn new(
        options: &TokenOptions,
        recipient: &str,
        shares: &[String],
        profile: &str,
        token_expires: Option<DateTime<Utc>>,
    ) -> Result<(Self, NewActivation), Failure> {
        let url = profile_endpoint(&options.to)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Failure::usage(
                "the endpoint of an activation link cannot have a query or a fragment",
            ));
        }
        let secret = ActivationSecret::random()
            .map_err(|error| Failure::failed(format!("random numbers cannot be generated: {error}")))?;
        let end = to_seconds(Utc::now() + options.link.activation_expires);
        let expires = token_expires.map_or(end, |token| token.min(end));
        let written = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let endpoint = format!("{}/", url.as_str().trim_end_matches('/'));
        let invitation = Invitation {
            provider: options.link.activation_from.clone(),
            endpoint: endpoint.clone(),
            recipient: recipient.to_owned(),
            shares: shares.to_vec(),
            link_expires: written(expires),
            token_expires: token_expires.map(written),
        };
        let invitation =
            serde_json::to_string(&invitation).map_err(|error| Failure::failed(error.to_string()))?;
        let stored = NewActivation {
            id: secret.id(),
            expires,
            invitation: encrypted(&secret.invitation_key(), &invitation)?,
            profile: encrypted(&secret.profile_key(), profile)?,
        };
        let text = format!("{endpoint}{PATH}#{}", secret.text());
        Ok((Self { text, expires, is_insecure: is_insecure(url) }, stored))
    }

    /// What the link does, as a sentence without its end. `token_until` says how long the token is valid.
    pub(crate) fn sentence(&self, token: &str, token_until: &str) -> String {
        let insecure = match self.is_insecure {
            true => {
                ". Browsers open it only at an endpoint with https; deltashare activate takes it as it is"
            }
            false => "",
        };
        format!(
            "The link hands out the only copy of the token {token}, which is valid {token_until}. The link works once, {}. \
             Send it to the recipient as you would send a password{insecure}",
            until(Some(self.expires))
        )
    }

    /// What scripts get.
    pub(crate) fn values(&self) -> Vec<(&'static str, String)> {
        let expires = self.expires.to_rfc3339_opts(SecondsFormat::Secs, true);
        vec![("link", self.text.clone()), ("linkExpires", expires)]
    }
}

/// Whether browsers offer no cryptography to pages of this server.
fn is_insecure(endpoint: &Url) -> bool {
    let is_below_localhost = endpoint.domain().is_some_and(|name| name.ends_with(".localhost"));
    endpoint.scheme() != "https" && !is_below_localhost && !is_this_machine(endpoint)
}

fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

/// A random nonce, the ciphertext and its tag. Each key encrypts one text.
fn encrypted(key: &[u8; 32], text: &str) -> Result<Vec<u8>, Failure> {
    let failed = || Failure::failed("the activation link cannot be encrypted");
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| failed())?;
    let mut sealed = text.as_bytes().to_vec();
    let cipher = cipher(key).ok_or_else(failed)?;
    cipher
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .map_err(|_| failed())?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// The text in what [`encrypted`] or a script has written; `None` if it was encrypted with another key, or changed.
pub(crate) fn decrypted(key: &[u8; 32], bytes: &[u8]) -> Option<String> {
    let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
    let mut sealed = sealed.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let text = cipher(key)?.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_is_read_with_its_key_only() {
        let key = [7; 32];
        let sealed = encrypted(&key, "dss_token").ok().unwrap();
        assert_eq!(sealed.len(), NONCE_LEN + 9 + 16);
        assert_eq!(decrypted(&key, &sealed).unwrap(), "dss_token");
        assert_ne!(encrypted(&key, "dss_token").ok().unwrap(), sealed);
        assert_eq!(decrypted(&[8; 32], &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(decrypted(&key, &changed), None, "{at}");
        }
        for length in [0, 11, 12, 27] {
            assert_eq!(decrypted(&key, &sealed[..length]), None, "{length}");
        }
    }

    #[test]
    fn where_browsers_decrypt() {
        for (endpoint, insecure) in [
            ("https://sharing.example.com/", false),
            ("http://sharing.example.com/", true),
            ("http://127.0.0.1:8080/delta-sharing/", false),
            ("http://[::1]/", false),
            ("http://localhost/", false),
            ("http://10.0.0.1/", true),
        ] {
            assert_eq!(is_insecure(&Url::parse(endpoint).unwrap()), insecure, "{endpoint}");
        }
    }
}
