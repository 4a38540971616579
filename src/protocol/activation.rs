//! Activation links, which hand out a profile once: `<endpoint>activate#<secret>`.
//!
//! The secret has 256 random bits. What is stored is encrypted with keys that are derived from it, and is found by an id
//! that is derived from it, so only whoever has the link can read it. The server gets nothing but the id. Browsers do the
//! same in `src/http/activation/page.js`, and `infra/records.md` describes it for scripts.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The last segment of the path of a link, and of what hands the profile out.
pub const PATH: &str = "activate";

/// The last segments of the path that answers with the invitation, and changes nothing.
pub const INVITATION_PATH: &str = "activate/invitation";

/// What the server answers to a link that was used, has expired, or never existed, or whose recipient is disabled: one text,
/// so that they look alike.
pub const UNUSABLE: &str = "The activation link was already used, has expired, or is not known to this server. Ask the provider \
                            of the share for a new link.";

/// The secret of a link.
#[derive(Clone, Copy)]
pub struct ActivationSecret([u8; 32]);

impl ActivationSecret {
    /// A new secret.
    ///
    /// # Errors
    ///
    /// The operating system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self(secret))
    }

    /// Reads the fragment of a link: 43 characters of base64url.
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The secret as the fragment of a link.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What the stored record is found by.
    pub fn id(&self) -> ActivationId {
        ActivationId(self.derive("deltashare activation id"))
    }

    /// The AES-256 key of the invitation.
    pub fn invitation_key(&self) -> [u8; 32] {
        self.derive("deltashare activation invitation")
    }

    /// The AES-256 key of the profile.
    pub fn profile_key(&self) -> [u8; 32] {
        self.derive("deltashare activation profile")
    }

    /// HMAC-SHA-256 of a purpose. Nothing that is derived for one purpose says anything about the others.
    fn derive(&self, purpose: &str) -> [u8; 32] {
        // HMAC fills a shorter key up with zeros.
        let mut block = [0; 64];
        block[..self.0.len()].copy_from_slice(&self.0);
        let mut mac = <Hmac<Sha256>>::new(&block.into());
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for ActivationSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ActivationSecret")
    }
}

/// What a stored activation is found by. Whoever knows it can use the link up, so it is not written to logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ActivationId([u8; 32]);

impl ActivationId {
    /// Reads 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        (digits.len() == 64).then(|| bytes.try_into().ok().map(Self)).flatten()
    }

    /// Writes 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for ActivationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ActivationId")
    }
}

/// What the page shows before a link is used: who invites to what. Stored encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// Who invites, as the provider calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The URL of the server.
    pub endpoint: String,
    /// The recipient's name.
    pub recipient: String,
    /// The shares that were granted when the link was created.
    pub shares: Vec<String>,
    /// When the link expires, in ISO 8601.
    pub link_expires: String,
    /// When the token of the profile expires, in ISO 8601; absent if it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires: Option<String>,
}

/// The body of a request about a link.
#[derive(Debug, Serialize, Deserialize)]
pub struct ActivationRequest {
    /// The id, as 64 hexadecimal digits.
    pub id: String,
}

/// The answer to it: a ciphertext in base64.
#[derive(Debug, Serialize, Deserialize)]
pub struct ActivationAnswer {
    /// The nonce of 12 bytes, the ciphertext of AES-256-GCM, and its tag of 16 bytes.
    pub ciphertext: String,
}

impl ActivationAnswer {
    /// An answer with this ciphertext.
    pub fn new(ciphertext: &[u8]) -> Self {
        Self { ciphertext: STANDARD.encode(ciphertext) }
    }

    /// The ciphertext; `None` if it is not base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.ciphertext).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same values are in `infra/records.md` and in the tests of the page.
    #[test]
    fn what_is_derived_from_a_secret() {
        let secret = ActivationSecret::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap();
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(secret.id().to_hex(), "d9e2dad668e8a94aa8dff8d0403410922855ef3c1259f639f418bfdc28c13993");
        assert_eq!(
            hex(secret.invitation_key()),
            "22a0e0a4ba72e3ac64151f84186e909d023ba0e264bdce43cf6ab6587a4e7e65"
        );
        assert_eq!(
            hex(secret.profile_key()),
            "3e7dbf1e2f7e4b69be8a683c3d3b0518e26df9844a239e8d64059c803e80a7a3"
        );
        assert_eq!(ActivationSecret::parse(&secret.text()).unwrap().id(), secret.id());
        assert_ne!(ActivationSecret::random().unwrap().id(), ActivationSecret::random().unwrap().id());
    }

    #[test]
    fn what_is_no_secret_or_id() {
        for text in
            ["", "AAEC", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", &"A".repeat(44), &"+".repeat(43)]
        {
            assert!(ActivationSecret::parse(text).is_none(), "{text}");
        }
        let hex = "0f".repeat(32);
        assert_eq!(ActivationId::from_hex(&hex).unwrap().to_hex(), hex);
        for text in
            ["", "0f", &"0F".repeat(32), &"0".repeat(63), &"0".repeat(65), &"é".repeat(32), &"0g".repeat(32)]
        {
            assert!(ActivationId::from_hex(text).is_none(), "{text}");
        }
    }

    #[test]
    fn secrets_and_ids_never_show() {
        let secret = ActivationSecret::random().unwrap();
        assert_eq!(format!("{secret:?} {:?}", secret.id()), "ActivationSecret ActivationId");
    }
}
