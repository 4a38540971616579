//! OIDC policies: which tokens of which OpenID provider stand for a recipient that has no secret of this server.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use url::Url;

use crate::network::is_this_machine;

/// The most policies of a recipient.
pub const MOST_POLICIES: usize = 20;

/// The most audiences of a policy.
pub const MOST_AUDIENCES: usize = 20;

/// The longest issuer, in bytes.
pub const LONGEST_ISSUER: usize = 512;

/// The longest name of a subject claim, in bytes.
pub const LONGEST_CLAIM: usize = 64;

/// The longest subject and the longest audience, in bytes. With every byte escaped, claim and subject fit in a key of DynamoDB.
pub const LONGEST_SUBJECT: usize = 256;

/// The claim that names the subject if a policy does not say another.
pub const DEFAULT_CLAIM: &str = "sub";

/// Claims that say nothing about who has a token.
const NO_SUBJECT: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

/// A policy of a recipient: tokens of `issuer`, for one of `audiences`, whose claim `subject_claim` is `subject`, or is a
/// list that has it. All of them are compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OidcPolicy {
    /// The issuer, exactly as tokens and the provider's configuration have it.
    pub issuer: String,
    /// The name of the claim.
    pub subject_claim: String,
    /// The value of the claim.
    pub subject: String,
    /// The audiences, of which a token needs one.
    pub audiences: BTreeSet<String>,
}

impl OidcPolicy {
    /// Refuses a policy that no recipient can have.
    pub fn check(&self) -> Result<(), String> {
        check_issuer(&self.issuer)?;
        check_text("the subject claim", &self.subject_claim, LONGEST_CLAIM)?;
        if NO_SUBJECT.contains(&self.subject_claim.as_str()) {
            return Err(format!("the claim {} does not name a subject", self.subject_claim));
        }
        check_text("the subject", &self.subject, LONGEST_SUBJECT)?;
        if self.audiences.is_empty() {
            return Err("there is no audience; without one, tokens for any other service would be accepted"
                .to_owned());
        }
        if self.audiences.len() > MOST_AUDIENCES {
            return Err(format!("a policy has at most {MOST_AUDIENCES} audiences"));
        }
        self.audiences.iter().try_for_each(|audience| check_text("an audience", audience, LONGEST_SUBJECT))
    }

    /// Whether both are about the same tokens, apart from their audiences. There is one such policy at most in a catalog.
    pub fn has_subject_of(&self, other: &Self) -> bool {
        (&self.issuer, &self.subject_claim, &self.subject)
            == (&other.issuer, &other.subject_claim, &other.subject)
    }

    /// Names the policy in lists and, with `oidc:` before it, in logs: eight hexadecimal digits that depend on its issuer,
    /// claim, and subject.
    pub fn id(&self) -> String {
        // None of them has a line break.
        let subject = [self.issuer.as_str(), &self.subject_claim, &self.subject].join("\n");
        Sha256::digest(subject).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Display for OidcPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { issuer, subject_claim, subject, .. } = self;
        write!(f, "{subject_claim} {subject:?} of {issuer}, audience {}", shown(&self.audiences))
    }
}

/// Audiences in words.
pub fn shown(audiences: &BTreeSet<String>) -> String {
    audiences.iter().map(|audience| format!("{audience:?}")).collect::<Vec<_>>().join(" or ")
}

/// A policy, and the recipient that it is of.
#[derive(Debug, Clone)]
pub struct RecipientPolicy {
    /// The recipient's name.
    pub recipient: Arc<str>,
    /// The policy.
    pub policy: Arc<OidcPolicy>,
    /// Whether it was read with an earlier request: whatever is read for the caller reads it again.
    pub(super) remembered: bool,
}

impl RecipientPolicy {
    /// A policy that was read just now.
    pub(super) fn checked(recipient: Arc<str>, policy: OidcPolicy) -> Self {
        Self { recipient, policy: Arc::new(policy), remembered: false }
    }

    /// Names it in logs.
    pub fn token_id(&self) -> Arc<str> {
        format!("oidc:{}", self.policy.id()).into()
    }
}

/// Whether a URL is `http://` at this machine, which is for tests of servers on the same machine.
pub fn is_loopback_http(url: &Url) -> bool {
    url.scheme() == "http" && is_this_machine(url)
}

fn check_issuer(issuer: &str) -> Result<(), String> {
    check_text("the issuer", issuer, LONGEST_ISSUER)?;
    let wrong = || {
        "the issuer is not a URL such as https://idp.example.com, without a query and a fragment".to_owned()
    };
    let url = Url::parse(issuer).map_err(|_| wrong())?;
    let is_bare = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let is_safe = url.scheme() == "https" || is_loopback_http(&url);
    if is_bare && is_safe && url.host().is_some() { Ok(()) } else { Err(wrong()) }
}

fn check_text(what: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if text.len() > longest {
        return Err(format!("{what} has more than {longest} bytes"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(format!("{what} has a control character, or begins or ends with white space"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(issuer: &str, claim: &str, subject: &str, audiences: &[&str]) -> OidcPolicy {
        OidcPolicy {
            issuer: issuer.to_owned(),
            subject_claim: claim.to_owned(),
            subject: subject.to_owned(),
            audiences: audiences.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_policy_names_an_issuer_a_subject_and_an_audience() {
        let good = [
            "https://idp.example.com",
            "https://idp.example.com/realms/a/",
            "http://localhost:1",
            "http://127.0.0.1:8080/x",
        ];
        for issuer in good {
            assert_eq!(policy(issuer, "azp", "x", &["a"]).check(), Ok(()), "{issuer}");
        }
        let bad = [
            "",
            "idp.example.com",
            "http://idp.example.com",
            "http://10.0.0.1",
            "https://u:p@idp.example.com",
            "https://idp.example.com?x",
            "https://idp.example.com#x",
            "ftp://idp.example.com",
            " https://idp.example.com",
            "file:///etc/passwd",
            "https://idp.example.com/\n",
            "http://localhost.example.com",
        ];
        for issuer in bad {
            assert!(policy(issuer, "azp", "x", &["a"]).check().is_err(), "{issuer}");
        }
        let longest = "x".repeat(LONGEST_SUBJECT);
        let issuer = "https://idp.example.com";
        assert_eq!(policy(issuer, &"c".repeat(LONGEST_CLAIM), &longest, &[&longest]).check(), Ok(()));
        for (claim, subject, audiences) in [
            ("", "x", vec!["a"]),
            ("aud", "x", vec!["a"]),
            ("iss", "x", vec!["a"]),
            ("sub", "", vec!["a"]),
            ("sub", "x\n", vec!["a"]),
            ("sub", "x", vec![]),
            ("sub", "x", vec![""]),
            ("sub", &format!("{longest}x"), vec!["a"]),
            ("sub", "x", vec![&format!("{longest}x")]),
        ] {
            assert!(
                policy(issuer, claim, subject, &audiences).check().is_err(),
                "{claim} {subject} {audiences:?}"
            );
        }
    }

    #[test]
    fn the_id_depends_on_the_subject_and_not_on_the_audience() {
        let one = policy("https://a", "sub", "x", &["a"]);
        assert_eq!(one.id(), policy("https://a", "sub", "x", &["b"]).id());
        assert_eq!(one.id().len(), 8);
        for other in [policy("https://a/", "sub", "x", &["a"]), policy("https://a", "azp", "x", &["a"])] {
            assert_ne!(one.id(), other.id());
            assert!(!one.has_subject_of(&other));
        }
    }
}
