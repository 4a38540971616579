//! The share file: the reference server's configuration in YAML, plus `recipients:`.
//!
//! A file is read whole or refused whole, with the line and the reason. The exception is a table in a storage
//! that this server does not support: it is listed, and requests to read it are refused.
//!
//! Shares, schemas and tables are listed in the order of the file.

mod form;
mod ordered;
mod parse;
mod served;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::grant::{GrantState, SchemaScope};
use super::oidc::{OidcPolicy, RecipientPolicy};
use super::properties::Properties;
use super::restrictions::Restrictions;
use super::state::{
    CatalogState, MissingProperties, RecipientState, SchemaState, ShareState, TableState, TokenState,
};
use super::{ShareRecord, TableRecord, TokenHash, TokenRecord};
use crate::predicate::PartitionFilter;
use crate::protocol::names::Name;

use ordered::Ordered;
pub use parse::ShareFileError;
pub use served::ShareFileCatalog;

/// The recipient that `authorization.bearerToken` stands for; it sees every share. No recipient of
/// a file can have this name, because names are not empty.
const EVERYONE: &str = "";

/// A table of the file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableTable {
    /// The table, as `share.schema.table`.
    pub name: String,
    /// The line of its location.
    pub line: u64,
    /// What stands in the way.
    pub reason: String,
}

impl fmt::Display for UnreadableTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: table {} cannot be read: {}", self.line, self.name, self.reason)
    }
}

/// Whether a share file asks for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only who has a token that the file knows may read.
    Tokens,
    /// The file says `authorization: none`: everyone may read every share.
    Everyone,
    /// The file has neither `recipients` nor `authorization`. At the reference server that means everyone; it is
    /// also what is left of a file that was cut off, so not everyone who serves a file wants to take it that way.
    Unsaid,
}

/// A share file that was read and found good.
#[derive(Debug)]
pub struct ShareFile {
    shares: Ordered<Share>,
    tokens: HashMap<TokenHash, TokenRecord>,
    /// When tokens were created, if the file says so.
    created: HashMap<TokenHash, String>,
    /// The OIDC policies, by their issuers.
    policies: HashMap<String, Vec<RecipientPolicy>>,
    /// Keys of the shares granted to each recipient, with what is granted of them.
    grants: HashMap<Arc<str>, BTreeMap<String, GrantState>>,
    /// What else the file says about recipients.
    notes: HashMap<Arc<str>, RecipientNotes>,
    access: Access,
    /// The prefix of all paths, if the file sets `endpoint`.
    pub endpoint: Option<String>,
    /// The life of a presigned URL, if the file sets `preSignedUrlTimeoutSeconds`.
    pub url_ttl_seconds: Option<u64>,
    /// Keys of the file that mean something to the reference server and have no effect here.
    pub without_effect: Vec<&'static str>,
    /// The tables that cannot be read.
    pub unreadable: Vec<UnreadableTable>,
}

/// What a file says about a recipient beside its shares and tokens. What it leaves out is `None`; properties and restrictions
/// that it leaves out do not exist.
#[derive(Debug, Default)]
struct RecipientNotes {
    active: Option<bool>,
    comment: Option<String>,
    properties: Properties,
    restrictions: Restrictions,
}

/// A share, as it is granted to a recipient.
struct Granted<'a> {
    share: &'a Share,
    /// What is granted of it.
    state: &'a GrantState,
    /// The recipient's.
    properties: &'a Properties,
    restrictions: &'a Restrictions,
}

impl<'a> Granted<'a> {
    /// A table of the share, with the recipient's access to it. `None` if it is not granted.
    fn table(&self, table: &TableRecord) -> Option<TableRecord> {
        let table = table.clone().for_caller(self.state, self.properties)?;
        Some(table.restricted(self.restrictions))
    }

    /// The tables that are granted, and of these those of a schema if one is named, with their keys.
    fn tables(&self, schema: Option<&str>) -> impl Iterator<Item = (&'a str, &'a TableRecord)> {
        let state = self.state;
        self.share.tables.iter().filter(move |(_, table)| {
            schema.is_none_or(|schema| table.schema.key() == schema)
                && state.includes(table.schema.key(), table.name.key())
        })
    }

    /// The schemas that the recipient sees: those that are granted as a whole, and those with a table that is granted. With
    /// their keys.
    fn schemas(&self) -> impl Iterator<Item = (&'a str, &'a Name)> {
        // Only grants with patterns look at the tables.
        let some: HashSet<&str> = match self.state.tables {
            Some(_) => self.tables(None).map(|(_, table)| table.schema.key()).collect(),
            None => HashSet::new(),
        };
        let state = self.state;
        let schemas = self.share.schemas.iter();
        schemas.filter(move |(key, _)| state.of_schema(key) == SchemaScope::Whole || some.contains(key))
    }
}

#[derive(Debug)]
struct Share {
    record: ShareRecord,
    /// Whether the id is the file's own; otherwise it was derived from the name.
    has_own_id: bool,
    comment: Option<String>,
    schemas: Ordered<Name>,
    /// By the keys of schema and table, as [`table_key`] joins them.
    tables: Ordered<TableRecord>,
    /// The keys of the tables whose ids are the file's own.
    tables_with_ids: HashSet<String>,
}

impl Share {
    /// What the file says, and of what it leaves out, what is there.
    fn state(&self, now: Option<&ShareState>) -> ShareState {
        let mut schemas: BTreeMap<_, _> = self
            .schemas
            .iter()
            .map(|(key, name)| {
                (key.to_owned(), SchemaState { name: name.as_str().to_owned(), tables: BTreeMap::new() })
            })
            .collect();
        for (key, table) in self.tables.iter() {
            let mut state = TableState::from(table);
            let before =
                now.and_then(|now| now.schemas.get(table.schema.key())?.tables.get(table.name.key()));
            if let Some(before) = before.filter(|_| !self.tables_with_ids.contains(key)) {
                state.id.clone_from(&before.id);
            }
            let schema: &mut SchemaState = schemas.entry(table.schema.key().to_owned()).or_default();
            schema.tables.insert(table.name.key().to_owned(), state);
        }
        let kept_id = now.filter(|_| !self.has_own_id).map(|now| now.id.clone());
        ShareState {
            name: self.record.name.as_str().to_owned(),
            id: kept_id.unwrap_or_else(|| self.record.id.clone()),
            comment: comment_over(self.comment.clone(), now.and_then(|now| now.comment.as_ref())),
            schemas,
        }
    }
}

/// A comment that the file gives or leaves out, over the one that is there. An empty one takes it away.
fn comment_over(said: Option<String>, before: Option<&String>) -> Option<String> {
    said.or_else(|| before.cloned()).filter(|comment| !comment.is_empty())
}

/// The key of a table in its share. Names have no slash.
fn table_key(schema: &str, table: &str) -> String {
    format!("{schema}/{table}")
}

impl ShareFile {
    /// Adds a recipient that is not in the file, with one token; it sees every share.
    pub fn add_guest(&mut self, name: &str, token: &str, expires: DateTime<Utc>) {
        let who: Arc<str> = name.into();
        self.grants.insert(
            Arc::clone(&who),
            self.shares.iter().map(|(key, _)| (key.to_owned(), GrantState::default())).collect(),
        );
        let hash = TokenHash::of(token);
        self.tokens.insert(hash, TokenRecord { recipient: who, id: hash.short(), expires: Some(expires) });
    }

    /// Whether the file asks for tokens.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether the file asks for no token at all, so that anyone may read every share.
    pub fn is_public(&self) -> bool {
        self.access != Access::Tokens
    }

    /// Whether there is any token, also one that has expired, or an OIDC policy.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty() || !self.policies.is_empty()
    }

    /// The policies for tokens of an issuer. Those of disabled recipients are among them: a token that also meets such a policy
    /// is ambiguous, and must not change what it stands for when the recipient is enabled.
    fn oidc_policies(&self, issuer: &str) -> Vec<RecipientPolicy> {
        self.policies.get(issuer).cloned().unwrap_or_default()
    }

    /// The policies of a recipient.
    fn policies_of(&self, recipient: &str) -> impl Iterator<Item = &OidcPolicy> {
        let all = self.policies.values().flatten();
        all.filter(move |found| &*found.recipient == recipient).map(|found| &*found.policy)
    }

    /// Whether the tokens of a recipient are taken.
    fn is_active(&self, recipient: &str) -> bool {
        self.notes.get(recipient).and_then(|notes| notes.active) != Some(false)
    }

    /// Everything in the file, to be compared with another catalog. What the file leaves out is as it is in `now`: the
    /// ids of shares and tables, which recipients' checkpoints hold, comments, and whether a recipient is disabled. The id
    /// of a token, and when it was created, never change. Filters, properties
    /// and restrictions are what the file says, and no others.
    pub fn state(&self, now: &CatalogState) -> CatalogState {
        let mut state = CatalogState::default();
        for (key, share) in self.shares.iter() {
            state.shares.insert(key.to_owned(), share.state(now.shares.get(key)));
        }
        for (name, shares) in &self.grants {
            let key = Name::key_of(name);
            let before = now.recipients.get(&key);
            let notes = self.notes.get(name);
            let comment = notes.and_then(|notes| notes.comment.clone());
            let active = notes.and_then(|notes| notes.active);
            let tokens = self.tokens.iter().filter(|(_, token)| token.recipient == *name);
            let recipient = RecipientState {
                name: name.to_string(),
                active: active.or(before.map(|before| before.active)).unwrap_or(true),
                comment: comment_over(comment, before.and_then(|before| before.comment.as_ref())),
                properties: notes.map(|notes| notes.properties.clone()).unwrap_or_default(),
                restrictions: notes.map(|notes| notes.restrictions.clone()).unwrap_or_default(),
                shares: shares.clone(),
                tokens: tokens
                    .map(|(hash, token)| {
                        let hex = hash.to_hex();
                        let own = before.and_then(|before| before.tokens.get(&hex));
                        // The token may move from another recipient.
                        let before =
                            own.or_else(|| now.recipients.values().find_map(|other| other.tokens.get(&hex)));
                        (hex, self.token_state(*hash, token, before))
                    })
                    .collect(),
                oidc: self.policies_of(name).cloned().collect(),
            };
            state.recipients.insert(key, recipient);
        }
        state
    }

    fn token_state(&self, hash: TokenHash, token: &TokenRecord, before: Option<&TokenState>) -> TokenState {
        let expires = token.expires;
        match before {
            Some(before) => TokenState { expires, ..before.clone() },
            None => {
                TokenState { id: token.id.to_string(), expires, created: self.created.get(&hash).cloned() }
            }
        }
    }

    /// Every table of the file, in its order.
    pub fn tables(&self) -> impl Iterator<Item = &TableRecord> {
        self.shares.iter().flat_map(|(_, share)| share.tables.iter().map(|(_, table)| table))
    }

    /// The properties that filters read and recipients lack.
    pub fn missing_properties(&self) -> Vec<MissingProperties> {
        let reads = |filter: &PartitionFilter| !filter.properties().is_empty();
        let of_tables = self.tables().filter_map(|table| table.settings.filter.as_ref()).any(reads);
        let granted = self.grants.values().flat_map(BTreeMap::values);
        let mut of_grants = granted.filter_map(|grant| grant.filter.as_ref());
        // Most files read no property, and a large one takes a while to copy.
        if of_tables || of_grants.any(reads) {
            self.state(&CatalogState::default()).missing_properties()
        } else {
            Vec::new()
        }
    }

    /// A share, if it is granted to a recipient.
    fn granted<'a>(&'a self, recipient: &str, share: &str) -> Option<Granted<'a>> {
        const NONE: &Properties = &Properties::new();
        let key = Name::key_of(share);
        let state = self.grants.get(recipient)?.get(&key)?;
        let properties = self.notes.get(recipient).map_or(NONE, |notes| &notes.properties);
        let restrictions = self.restrictions(recipient);
        Some(Granted { share: self.shares.get(&key)?, state, properties, restrictions })
    }

    fn restrictions(&self, recipient: &str) -> &Restrictions {
        const NONE: &Restrictions =
            &Restrictions { allowed_ips: None, requests_per_minute: None, bytes_per_day: None };
        self.notes.get(recipient).map_or(NONE, |notes| &notes.restrictions)
    }
}
