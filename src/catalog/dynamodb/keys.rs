//! The keys of the items in DynamoDB: what a record's partition and sort key are.
//!
//! Names stand in keys in lower case, with every byte outside `[a-z0-9_.-]` percent-encoded. So `#` occurs only
//! between the parts of a key, and a prefix that ends with it never matches a neighbour.

use std::fmt::Write as _;

use crate::catalog::TokenHash;
use crate::catalog::oidc::OidcPolicy;
use crate::protocol::activation::ActivationId;
use crate::protocol::names::Name;

/// The name of the partition key attribute.
pub const PARTITION: &str = "pk";
/// The name of the sort key attribute.
pub const SORT: &str = "sk";

/// The two keys of an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The partition key.
    pub partition: String,
    /// The sort key.
    pub sort: String,
}

/// A name as it stands in a key.
pub fn encoded(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for byte in Name::key_of(name).bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' => key.push(byte.into()),
            other => {
                // Writing to a string does not fail.
                _ = write!(key, "%{other:02X}");
            }
        }
    }
    key
}

/// The name that stands in a key, as far as the key says it: in lower case.
pub fn decoded(key: &str) -> Option<String> {
    let name = percent_encoding::percent_decode_str(key).decode_utf8().ok()?;
    Some(name.into_owned()).filter(|name| encoded(name) == key)
}

/// A text as it stands in a key, if it is compared byte for byte: letters keep their case.
fn exact(text: &str) -> String {
    let mut key = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => key.push(byte.into()),
            other => {
                // Writing to a string does not fail.
                _ = write!(key, "%{other:02X}");
            }
        }
    }
    key
}

/// The longest partition key that DynamoDB takes, in bytes.
const LONGEST_PARTITION: usize = 2048;
/// The longest sort key.
const LONGEST_SORT: usize = 1024;

impl Key {
    /// Whether DynamoDB can hold an item with this key; it refuses to look for one that it cannot.
    pub fn fits(&self) -> bool {
        self.partition.len() <= LONGEST_PARTITION && self.sort.len() <= LONGEST_SORT
    }

    fn new(partition: String, sort: impl Into<String>) -> Self {
        Self { partition, sort: sort.into() }
    }

    /// What a token stands for.
    pub fn token(hash: TokenHash) -> Self {
        Self::new(format!("TOKEN#{}", hash.to_hex()), "TOKEN")
    }

    /// What an activation link hands out.
    pub fn activation(id: ActivationId) -> Self {
        Self::new(format!("{ACTIVATIONS}{}", id.to_hex()), "ACTIVATION")
    }

    /// An OIDC policy of a recipient.
    pub fn oidc_policy(policy: &OidcPolicy) -> Self {
        let OidcPolicy { issuer, subject_claim, subject, .. } = policy;
        let sort = format!("{POLICIES}{}#{}", exact(subject_claim), exact(subject));
        Self::new(oidc_partition(issuer), sort)
    }

    /// A recipient.
    pub fn recipient(recipient: &str) -> Self {
        Self::new(recipient_partition(recipient), "RECIPIENT")
    }

    /// A token in the list of its recipient's.
    pub fn token_of(recipient: &str, id: &str) -> Self {
        Self::new(recipient_partition(recipient), format!("{TOKENS}{}", encoded(id)))
    }

    /// A share that is granted to a recipient.
    pub fn grant(recipient: &str, share: &str) -> Self {
        Self::new(recipient_partition(recipient), format!("{GRANTS}{}", encoded(share)))
    }

    /// A share.
    pub fn share(share: &str) -> Self {
        Self::new(share_partition(share), "SHARE")
    }

    /// A recipient that a share is granted to.
    pub fn granted_to(share: &str, recipient: &str) -> Self {
        Self::new(share_partition(share), format!("{GRANTED_TO}{}", encoded(recipient)))
    }

    /// The key that page tokens, refresh tokens and ids of queries are authenticated with.
    pub fn token_key() -> Self {
        Self::new(SERVER.to_owned(), "TOKEN_KEY")
    }

    /// How many requests a recipient has sent in a minute.
    pub fn requests_of(recipient: &str, minute: &str) -> Self {
        Self::new(usage_partition(recipient), format!("MINUTE#{minute}"))
    }

    /// How many bytes a recipient was granted in a day.
    pub fn bytes_of(recipient: &str, day: &str) -> Self {
        Self::new(usage_partition(recipient), format!("DAY#{day}"))
    }

    /// A schema.
    pub fn schema(share: &str, schema: &str) -> Self {
        Self::new(share_partition(share), format!("{SCHEMAS}{}", encoded(schema)))
    }

    /// A table.
    pub fn table(share: &str, schema: &str, table: &str) -> Self {
        Self::new(share_partition(share), format!("{}{}", tables_of(schema), encoded(table)))
    }
}

/// The partition of what servers share. They put items into this one and into those of [`usage_partition`], and into no other.
pub const SERVER: &str = "SERVER";
/// What the partitions of activations begin with; servers may delete their items.
pub const ACTIVATIONS: &str = "ACTIVATION#";
/// What the sort keys of a recipient's tokens begin with.
pub const TOKENS: &str = "TOKEN#";
/// What the sort keys of a recipient's grants begin with.
pub const GRANTS: &str = "SHARE#";
/// What the sort keys of a share's recipients begin with.
pub const GRANTED_TO: &str = "GRANT#";
/// What the sort keys of a share's schemas begin with.
pub const SCHEMAS: &str = "SCHEMA#";
/// What the sort keys of a share's tables begin with.
pub const TABLES: &str = "TABLE#";

/// What the sort keys of OIDC policies begin with.
pub const POLICIES: &str = "POLICY#";

/// The partition of the OIDC policies for tokens of an issuer, by its SHA-256.
pub fn oidc_partition(issuer: &str) -> String {
    format!("OIDC#{}", TokenHash::of(issuer).to_hex())
}

/// What the sort keys of a schema's tables begin with.
pub fn tables_of(schema: &str) -> String {
    format!("{TABLES}{}#", encoded(schema))
}

/// The partition of a recipient, its grants and the list of its tokens.
pub fn recipient_partition(recipient: &str) -> String {
    format!("RECIPIENT#{}", encoded(recipient))
}

/// The partition of what a recipient has used of its limits.
pub fn usage_partition(recipient: &str) -> String {
    format!("USAGE#{}", encoded(recipient))
}

/// The partition of a share, its schemas, its tables and the list of its recipients.
pub fn share_partition(share: &str) -> String {
    format!("SHARE#{}", encoded(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_keys() {
        for (name, key) in [
            ("Retail", "retail"),
            ("a-b_c.d", "a-b_c.d"),
            ("a#b", "a%23b"),
            ("a b%", "a%20b%25"),
            ("Ärger", "%C3%A4rger"),
            ("日本", "%E6%97%A5%E6%9C%AC"),
            ("%20", "%2520"),
        ] {
            assert_eq!(encoded(name), key);
            assert_eq!(decoded(key), Some(Name::key_of(name)));
        }
    }

    #[test]
    fn what_is_no_key_has_no_name() {
        for key in ["Retail", "a b", "%c3%a4rger", "%C3", "a#b", "%61"] {
            assert_eq!(decoded(key), None, "{key}");
        }
    }

    #[test]
    fn keys_that_dynamodb_cannot_hold() {
        let longest = "x".repeat(255);
        assert!(Key::table(&longest, &longest, &longest).fits());
        let letters = |count: usize| "日".repeat(count);
        assert!(Key::share(&letters(226)).fits() && !Key::share(&letters(227)).fits());
        assert!(Key::table("s", &letters(56), &letters(57)).fits());
        assert!(!Key::table("s", &letters(57), &letters(57)).fits());
    }

    #[test]
    fn policies_have_keys_that_differ_as_they_do() {
        let key = |issuer: &str, claim: &str, subject: &str| {
            Key::oidc_policy(&OidcPolicy {
                issuer: issuer.to_owned(),
                subject_claim: claim.to_owned(),
                subject: subject.to_owned(),
                audiences: std::collections::BTreeSet::new(),
            })
        };
        let policy = key("https://a", "azp", "Acme client#1");
        assert_eq!(policy.sort, "POLICY#azp#Acme%20client%231");
        // printf %s https://a | sha256sum
        let hash = TokenHash::of("https://a").to_hex();
        assert_eq!(policy.partition, format!("OIDC#{hash}"));
        for other in [key("https://a/", "azp", "Acme client#1"), key("https://a", "azp", "acme client#1")] {
            assert_ne!(policy, other);
        }
        assert!(key("https://a", &"€".repeat(21), &"€".repeat(85)).fits());
    }

    #[test]
    fn a_prefix_matches_no_neighbour() {
        let table = Key::table("s", "sales", "orders");
        assert_eq!((table.partition.as_str(), table.sort.as_str()), ("SHARE#s", "TABLE#sales#orders"));
        for other in ["sales2", "sales#", "sal", "sales#orders"] {
            assert!(!Key::table("s", other, "orders").sort.starts_with(&tables_of("sales")), "{other}");
        }
        assert_ne!(share_partition("a#b"), share_partition("a%23b"));
    }
}
