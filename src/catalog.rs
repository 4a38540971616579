//! Who may read what: shares, their tables, recipients and their tokens.
//!
//! [`Catalog`] is the read side, as requests need it. It knows neither storage nor HTTP. A table's location is parsed
//! when its record is read.

pub mod diff;
pub mod dynamodb;
pub mod expiry;
pub mod grant;
pub mod oidc;
pub mod properties;
pub mod restrictions;
mod settings;
#[cfg(feature = "cli")]
pub mod share_file;
pub mod state;
mod usage;

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::error::{Error, Result};
use crate::network::AllowedIps;
use crate::predicate::FileAccess;
use crate::protocol::activation::ActivationId;
use crate::protocol::names::Name;

use grant::GrantState;
use oidc::{OidcPolicy, RecipientPolicy};
use properties::Properties;
use restrictions::Restrictions;
pub use settings::TableSettings;

/// The SHA-256 of a bearer token: what is stored and looked up in its place.
///
/// Tokens have 256 random bits, so a plain hash cannot be reversed, and looking up the hash takes
/// the same work whether the token is known or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> =
            text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        (digits.len() == 64).then(|| bytes.try_into().ok().map(Self)).flatten()
    }

    /// The first digits: a name for a token that has no other.
    pub fn short(self) -> Arc<str> {
        self.to_hex().chars().take(8).collect::<String>().into()
    }

    /// Writes 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash")
    }
}

/// What a token stands for.
#[derive(Debug, Clone)]
pub struct TokenRecord {
    /// The recipient's name, which grants hang on.
    pub recipient: Arc<str>,
    /// Names the token in logs.
    pub id: Arc<str>,
    /// When the token expires; `None` if it never expires, which its owner must say expressly.
    pub expires: Option<DateTime<Utc>>,
}

impl TokenRecord {
    /// 401 if the token has expired.
    pub fn check_expiry(&self) -> Result<()> {
        if self.expires.is_some_and(|expires| expires <= Utc::now()) {
            return Err(Error::unauthenticated(
                "The bearer token has expired; contact the provider of the share for a new one.",
            ));
        }
        Ok(())
    }
}

/// The answer to a token that stands for nobody.
pub fn unknown_token() -> Error {
    Error::unauthenticated("The bearer token is missing or is not one this server knows.")
}

/// Who asks, as far as the token tells.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the token stands for.
    pub token: TokenRecord,
    /// What says so, if it was remembered: whatever is read for the caller reads it again.
    remembered: Option<Remembered>,
    /// The address that the request comes from, if it is known.
    source: Option<IpAddr>,
    /// The limits within which the request was counted, once it was. All that is read for the caller is one request.
    counted: Arc<OnceCell<Restrictions>>,
}

/// What was read with an earlier request.
#[derive(Debug, Clone)]
enum Remembered {
    /// The token with this hash.
    Token(TokenHash),
    /// The policy that the JWT with this hash meets.
    Policy(TokenHash, Arc<OidcPolicy>),
}

impl Caller {
    /// Who a token stands for that was read just now.
    pub fn checked(token: TokenRecord) -> Self {
        Self { token, remembered: None, source: None, counted: Arc::default() }
    }

    /// Who the token with this hash stood for when it was read last.
    fn remembered(token: TokenRecord, hash: TokenHash) -> Self {
        Self { remembered: Some(Remembered::Token(hash)), ..Self::checked(token) }
    }

    /// Who a verified JWT with this hash stands for, by a policy that it meets.
    fn of_policy(found: &RecipientPolicy, hash: TokenHash) -> Self {
        let recipient = Arc::clone(&found.recipient);
        // The JWT says when it expires, and was verified just now.
        let token = TokenRecord { recipient, id: found.token_id(), expires: None };
        let remembered = found.remembered.then(|| Remembered::Policy(hash, Arc::clone(&found.policy)));
        Self { remembered, ..Self::checked(token) }
    }

    /// The same caller, whose request comes from this address.
    #[must_use]
    pub fn at_address(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// The recipient's name.
    pub fn recipient(&self) -> &str {
        &self.token.recipient
    }

    /// Whether the bytes of the caller's answers have to be counted, as far as is known: once something was read for it.
    pub fn counts_bytes(&self) -> bool {
        self.bytes_per_day().is_some()
    }

    fn bytes_per_day(&self) -> Option<u64> {
        self.counted.get().and_then(|restrictions| restrictions.bytes_per_day)
    }

    /// Refuses the request if the caller may not send it from its address.
    fn check(&self, restrictions: &Restrictions) -> Result<()> {
        restrictions.check_source(self.source)
    }
}

/// A share.
#[derive(Debug, Clone)]
pub struct ShareRecord {
    /// Its name.
    pub name: Name,
    /// A UUID that stays with it.
    pub id: String,
}

/// A table in a share.
#[derive(Debug, Clone)]
pub struct TableRecord {
    /// The share's name.
    pub share: Name,
    /// The share's id.
    pub share_id: String,
    /// The schema's name.
    pub schema: Name,
    /// The table's name in the share.
    pub name: Name,
    /// A UUID that stays with it, or the id its owner gave.
    pub id: String,
    /// How it is shared.
    pub settings: TableSettings,
    /// Which files the caller may read, by the filters of the table and of the grant. Without a caller, by the table's
    /// filter alone and without properties.
    pub access: FileAccess,
    /// The addresses from which the caller may use URLs of the table's files; `None` for every address.
    pub allowed_ips: Option<AllowedIps>,
    /// Whether the log already says which of its locations cannot be read, as when a share file is read.
    pub locations_checked: bool,
}

impl TableRecord {
    /// The table's root without a slash at its end, if the caller may have its directory: not if it may read some of the files
    /// only.
    pub fn directory(&self) -> Option<&str> {
        self.settings.directory().filter(|_| !self.access.is_filtered())
    }

    /// The table for a caller with these properties, if this grant shares it. The table's own filter applies too.
    fn for_caller(self, grant: &GrantState, properties: &Properties) -> Option<Self> {
        let is_shared = grant.includes(self.schema.key(), self.name.key());
        is_shared.then(|| Self { access: self.settings.access(grant.filter.as_ref(), properties), ..self })
    }

    /// The table for a caller with these restrictions.
    #[must_use]
    fn restricted(self, restrictions: &Restrictions) -> Self {
        let mut settings = self.settings;
        // What is read of a directory with credentials cannot be counted.
        settings.directory_access &= restrictions.bytes_per_day.is_none();
        Self { allowed_ips: restrictions.allowed_ips.clone(), settings, ..self }
    }
}

/// What an activation link hands out, or shows before that.
#[derive(Debug, Clone)]
pub struct Activation {
    /// The recipient that it is for.
    pub recipient: Arc<str>,
    /// Names the token of the profile in logs.
    pub token_id: Arc<str>,
    /// The profile or the invitation, encrypted with a key that only the link has.
    pub ciphertext: Vec<u8>,
}

/// One page of a listing, and where the next one begins.
#[derive(Debug)]
pub struct ListPage<T> {
    /// The items, in the catalog's order: that of the share file, or of the keys in DynamoDB.
    pub items: Vec<T>,
    /// Where the page ends, if more follow: what the next [`PageRequest`] says.
    pub more_after: Option<String>,
}

/// A page of the schemas of a share.
#[derive(Debug)]
pub struct SchemaPage {
    /// The share.
    pub share: ShareRecord,
    /// Its schemas.
    pub schemas: ListPage<Name>,
}

/// Which part of a listing: after which page, and how many at most.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// The `more_after` of the page before, which only the same catalog understands.
    pub after: Option<String>,
    /// The most items; `None` for all.
    pub limit: Option<usize>,
}

/// The read side of the sharing model. Names are compared without regard to case.
///
/// Every method that takes a caller answers as if what is not granted to it did not exist, with 401 if its
/// token is no longer good, with 403 if the caller may not send requests from its address, and with 429 if it has reached a
/// limit. The first of them for a caller counts its request.
pub trait Catalog: Send + Sync {
    /// Who the token with this hash stands for; `None` if it stands for nobody. Its expiry is not checked. The
    /// answer may be remembered from an earlier request: it is good for nothing but the methods below, which make
    /// sure of it.
    fn caller(&self, hash: TokenHash) -> BoxFuture<'_, Result<Option<Caller>>>;

    /// The OIDC policies for tokens of an issuer; none if no recipient has one. Of a JWT with this hash that met a policy
    /// before, it may be that policy alone, remembered from an earlier request.
    fn oidc_policies<'a>(
        &'a self,
        issuer: &'a str,
        jwt: TokenHash,
    ) -> BoxFuture<'a, Result<Vec<RecipientPolicy>>>;

    /// Who the verified JWT with this hash stands for, by one of these policies, which it meets.
    fn oidc_caller(&self, policy: RecipientPolicy, jwt: TokenHash) -> Caller;

    /// Who requests without a token come from; `None` if a token is required.
    fn anonymous(&self) -> BoxFuture<'_, Result<Option<Caller>>>;

    /// The shares granted to the caller.
    fn shares<'a>(
        &'a self,
        caller: &'a Caller,
        page: PageRequest,
    ) -> BoxFuture<'a, Result<ListPage<ShareRecord>>>;

    /// One share, if it is granted to the caller.
    fn share<'a>(&'a self, caller: &'a Caller, share: &'a str) -> BoxFuture<'a, Result<Option<ShareRecord>>>;

    /// The schemas of a share; `None` if the share is not granted.
    fn schemas<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        page: PageRequest,
    ) -> BoxFuture<'a, Result<Option<SchemaPage>>>;

    /// The tables of a schema, or of the whole share if `schema` is `None`; `None` if the share
    /// is not granted, or has no such schema.
    fn tables<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: Option<&'a str>,
        page: PageRequest,
    ) -> BoxFuture<'a, Result<Option<ListPage<TableRecord>>>>;

    /// One table, if its share is granted to the recipient.
    fn table<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: &'a str,
        table: &'a str,
    ) -> BoxFuture<'a, Result<Option<TableRecord>>>;

    /// What the page of an activation link shows: the invitation. `None` if the link was used, has expired, or never existed,
    /// or if its token no longer works or its recipient is disabled. Changes nothing. Only a catalog that commands write to has
    /// links.
    fn invitation(&self, _: ActivationId) -> BoxFuture<'_, Result<Option<Activation>>> {
        Box::pin(async { Ok(None) })
    }

    /// Uses an activation link up: the profile, which is deleted. `None` as above. Of several calls at the same time, one gets
    /// the profile.
    fn activate(&self, _: ActivationId) -> BoxFuture<'_, Result<Option<Activation>>> {
        Box::pin(async { Ok(None) })
    }

    /// Adds bytes of files whose URLs were given to the caller, if its bytes are counted. 503 if they cannot be counted.
    fn charge<'a>(&'a self, caller: &'a Caller, bytes: u64) -> BoxFuture<'a, Result<()>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_read_back_and_never_show() {
        let hash = TokenHash::of("secret");
        assert_eq!(TokenHash::from_hex(&hash.to_hex().to_uppercase()), Some(hash));
        assert_eq!(format!("{hash:?}"), "TokenHash");
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(64)] {
            assert_eq!(TokenHash::from_hex(bad), None, "{bad}");
        }
    }
}
