//! Everything that a catalog holds, to be compared with another one: a share file with what is in DynamoDB.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::settings::Difference;
use super::{TableRecord, TableSettings, expiry};
use crate::location::WrittenLocation;
use crate::role::RoleArn;

/// Shares and recipients, by the keys of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Shares.
    pub shares: BTreeMap<String, ShareState>,
    /// Recipients.
    pub recipients: BTreeMap<String, RecipientState>,
}

/// A share and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareState {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What it is, for the people who look after it; never empty.
    pub comment: Option<String>,
    /// Schemas, by the keys of their names.
    pub schemas: BTreeMap<String, SchemaState>,
}

/// A schema and its tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// Its name.
    pub name: String,
    /// Tables, by the keys of their names.
    pub tables: BTreeMap<String, TableState>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// How it is shared, with locations as they are compared.
    pub settings: TableSettings,
}

/// A recipient, what it may read, and its tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecipientState {
    /// Its name.
    pub name: String,
    /// Whether its tokens are taken.
    pub active: bool,
    /// What it is, for the people who look after it; never empty.
    pub comment: Option<String>,
    /// Keys of shares.
    pub shares: BTreeSet<String>,
    /// Its tokens, by their hashes: 64 hexadecimal digits.
    pub tokens: BTreeMap<String, TokenState>,
}

/// A token of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenState {
    /// Names it in lists and logs.
    pub id: String,
    /// When it ends; `None` for never.
    pub expires: Option<DateTime<Utc>>,
    /// When it was made, as it is written.
    pub created: Option<String>,
}

impl TokenState {
    /// Whether it has not ended yet.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
}

impl TableState {
    /// What makes `self` into `after`, in words.
    pub fn changes_to(&self, after: &Self) -> String {
        let changes = differences(self, after).into_iter();
        let changes: Vec<_> =
            changes.map(|(what, before, after)| format!("{what} {before} -> {after}")).collect();
        changes.join(", ")
    }
}

impl From<&TableRecord> for TableState {
    fn from(table: &TableRecord) -> Self {
        Self {
            name: table.name.as_str().to_owned(),
            id: table.id.clone(),
            settings: table.settings.canonical(),
        }
    }
}

/// One difference between two catalogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A share is new.
    AddShare(ShareState),
    /// The id of a share differs: (name, before, after).
    ShareId(String, String, String),
    /// The comment of a share differs: (name, before, after).
    ShareComment(String, Option<String>, Option<String>),
    /// A share is gone.
    RemoveShare(String),
    /// A schema is new: (share, schema).
    AddSchema(String, String),
    /// A schema is gone: (share, schema).
    RemoveSchema(String, String),
    /// A table is new: (share, schema, table).
    AddTable(String, String, TableState),
    /// A table differs: (share, schema, before, after).
    UpdateTable(String, String, Box<(TableState, TableState)>),
    /// A table is gone: (share, schema, table).
    RemoveTable(String, String, String),
    /// A recipient is new.
    AddRecipient(RecipientState),
    /// The comment of a recipient differs: (name, before, after).
    RecipientComment(String, Option<String>, Option<String>),
    /// Whether a recipient may read differs: (name, whether it may now).
    RecipientStatus(String, bool),
    /// A recipient is gone.
    RemoveRecipient(String),
    /// A share is granted: (recipient, share).
    Grant(String, String),
    /// A share is no longer granted: (recipient, share).
    Revoke(String, String),
    /// A token is new: (recipient, hash, token).
    AddToken(String, String, TokenState),
    /// A token ends at another time: (recipient, hash, before, after).
    TokenEnd(String, String, Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    /// A token is gone: (recipient, hash).
    RemoveToken(String, String),
}

impl Change {
    /// Whether it takes something away.
    pub fn removes(&self) -> bool {
        matches!(
            self,
            Self::RemoveShare(_)
                | Self::RemoveSchema(..)
                | Self::RemoveTable(..)
                | Self::RemoveRecipient(_)
                | Self::Revoke(..)
                | Self::RemoveToken(..)
        )
    }
}

fn comment(comment: Option<&String>) -> String {
    comment.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// Until when a token works, as the end of a sentence.
pub fn until(end: Option<DateTime<Utc>>) -> String {
    end.map_or_else(|| "without end".to_owned(), |end| format!("until {}", expiry::format(Some(end))))
}

/// A token as it is shown: enough of its hash to tell it from others.
fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddShare(share) => write!(f, "+ share {}", share.name),
            Self::ShareId(share, before, after) => write!(f, "~ share {share}: id {before} -> {after}"),
            Self::ShareComment(share, before, after) => {
                write!(
                    f,
                    "~ share {share}: comment {} -> {}",
                    comment(before.as_ref()),
                    comment(after.as_ref())
                )
            }
            Self::RemoveShare(share) => write!(f, "- share {share}, with all that is in it"),
            Self::AddSchema(share, schema) => write!(f, "+ schema {share}.{schema}"),
            Self::RemoveSchema(share, schema) => write!(f, "- schema {share}.{schema}"),
            Self::AddTable(share, schema, table) => {
                write!(f, "+ table {share}.{schema}.{}: {}", table.name, table.settings.location)
            }
            Self::UpdateTable(share, schema, both) => {
                let (before, after) = &**both;
                write!(f, "~ table {share}.{schema}.{}: {}", after.name, before.changes_to(after))
            }
            Self::RemoveTable(share, schema, table) => write!(f, "- table {share}.{schema}.{table}"),
            Self::AddRecipient(recipient) => {
                write!(f, "+ recipient {}", recipient.name)?;
                if recipient.active { Ok(()) } else { f.write_str(", disabled") }
            }
            Self::RecipientComment(recipient, before, after) => {
                let (before, after) = (comment(before.as_ref()), comment(after.as_ref()));
                write!(f, "~ recipient {recipient}: comment {before} -> {after}")
            }
            Self::RecipientStatus(recipient, true) => {
                write!(f, "~ recipient {recipient}: status disabled -> active")
            }
            Self::RecipientStatus(recipient, false) => {
                write!(f, "~ recipient {recipient}: status active -> disabled")
            }
            Self::RemoveRecipient(recipient) => {
                write!(f, "- recipient {recipient}, with its tokens and grants")
            }
            Self::Grant(recipient, share) => write!(f, "+ grant of {share} to {recipient}"),
            Self::Revoke(recipient, share) => write!(f, "- grant of {share} to {recipient}"),
            Self::AddToken(recipient, hash, token) => {
                write!(f, "+ token {} of {recipient}, {}", short(hash), until(token.expires))
            }
            Self::TokenEnd(recipient, hash, before, after) => {
                let (before, after) = (expiry::format(*before), expiry::format(*after));
                write!(f, "~ token {} of {recipient}: until {before} -> {after}", short(hash))
            }
            Self::RemoveToken(recipient, hash) => write!(f, "- token {} of {recipient}", short(hash)),
        }
    }
}

fn differences(before: &TableState, after: &TableState) -> Vec<Difference> {
    let own =
        [("name", before.name.clone(), after.name.clone()), ("id", before.id.clone(), after.id.clone())];
    let own = own.into_iter().filter(|(_, before, after)| before != after);
    own.chain(before.settings.differences(&after.settings)).collect()
}

impl State {
    /// What makes `self` into `wanted`, in an order in which it can be done: what is added before what needs it,
    /// what is removed after what needed it.
    pub fn changes_to(&self, wanted: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, after) in &wanted.shares {
            match self.shares.get(key) {
                None => changes.push(Change::AddShare(after.clone())),
                Some(before) => {
                    if before.id != after.id {
                        let (before, after_id) = (before.id.clone(), after.id.clone());
                        changes.push(Change::ShareId(after.name.clone(), before, after_id));
                    }
                    if before.comment != after.comment {
                        let (before, comment) = (before.comment.clone(), after.comment.clone());
                        changes.push(Change::ShareComment(after.name.clone(), before, comment));
                    }
                }
            }
            schemas(self.shares.get(key), after, &mut changes);
        }
        for (key, after) in &wanted.recipients {
            recipient(self.recipients.get(key), after, &mut changes);
        }
        for (key, before) in &self.recipients {
            if !wanted.recipients.contains_key(key) {
                changes.push(Change::RemoveRecipient(before.name.clone()));
            }
        }
        for (key, before) in &self.shares {
            match wanted.shares.get(key) {
                None => changes.push(Change::RemoveShare(before.name.clone())),
                Some(after) => gone(before, after, &mut changes),
            }
        }
        changes
    }

    /// As a share file.
    pub fn to_share_file(&self) -> impl Serialize + use<> {
        File::from(self)
    }
}

fn schemas(before: Option<&ShareState>, after: &ShareState, changes: &mut Vec<Change>) {
    for (key, schema) in &after.schemas {
        let there = before.and_then(|share| share.schemas.get(key));
        if there.is_none() {
            changes.push(Change::AddSchema(after.name.clone(), schema.name.clone()));
        }
        for (key, table) in &schema.tables {
            let (share, schema) = (after.name.clone(), schema.name.clone());
            match there.and_then(|schema| schema.tables.get(key)) {
                None => changes.push(Change::AddTable(share, schema, table.clone())),
                Some(before) if before != table => {
                    let both = Box::new((before.clone(), table.clone()));
                    changes.push(Change::UpdateTable(share, schema, both));
                }
                Some(_) => {}
            }
        }
    }
}

fn gone(before: &ShareState, after: &ShareState, changes: &mut Vec<Change>) {
    for (key, schema) in &before.schemas {
        let left = after.schemas.get(key);
        for (key, table) in &schema.tables {
            if left.is_none_or(|left| !left.tables.contains_key(key)) {
                let (share, schema) = (before.name.clone(), schema.name.clone());
                changes.push(Change::RemoveTable(share, schema, table.name.clone()));
            }
        }
        if left.is_none() {
            changes.push(Change::RemoveSchema(before.name.clone(), schema.name.clone()));
        }
    }
}

fn recipient(before: Option<&RecipientState>, after: &RecipientState, changes: &mut Vec<Change>) {
    let name = || after.name.clone();
    match before {
        None => changes.push(Change::AddRecipient(after.clone())),
        Some(before) => {
            if before.comment != after.comment {
                let (before, comment) = (before.comment.clone(), after.comment.clone());
                changes.push(Change::RecipientComment(name(), before, comment));
            }
            if before.active != after.active {
                changes.push(Change::RecipientStatus(name(), after.active));
            }
        }
    }
    let (no_shares, no_tokens) = (BTreeSet::new(), BTreeMap::new());
    let shares = before.map_or(&no_shares, |before| &before.shares);
    let tokens = before.map_or(&no_tokens, |before| &before.tokens);
    changes.extend(after.shares.difference(shares).map(|share| Change::Grant(name(), share.clone())));
    changes.extend(shares.difference(&after.shares).map(|share| Change::Revoke(name(), share.clone())));
    // Tokens that go make room for those that come: a recipient has few.
    let removed = tokens.keys().filter(|hash| !after.tokens.contains_key(*hash));
    changes.extend(removed.map(|hash| Change::RemoveToken(name(), hash.clone())));
    for (hash, token) in &after.tokens {
        match tokens.get(hash) {
            None => changes.push(Change::AddToken(name(), hash.clone(), token.clone())),
            Some(before) if before.expires != token.expires => {
                changes.push(Change::TokenEnd(name(), hash.clone(), before.expires, token.expires));
            }
            Some(_) => {}
        }
    }
}

/// The share file's own form.
#[derive(Serialize)]
struct File {
    version: u32,
    shares: Vec<FileShare>,
    recipients: Vec<FileRecipient>,
}

#[derive(Serialize)]
struct FileShare {
    name: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    schemas: Vec<FileSchema>,
}

#[derive(Serialize)]
struct FileSchema {
    name: String,
    tables: Vec<FileTable>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileTable {
    name: String,
    location: String,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_locations: Vec<String>,
    history_shared: bool,
    #[serde(skip_serializing_if = "is_zero")]
    start_version: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    directory_access: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer_role: Option<String>,
}

#[derive(Serialize)]
struct FileRecipient {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    status: &'static str,
    shares: Vec<String>,
    tokens: Vec<FileToken>,
}

#[derive(Serialize)]
struct FileToken {
    sha256: String,
    id: String,
    expires: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&State> for File {
    fn from(state: &State) -> Self {
        let table = |table: &TableState| FileTable {
            name: table.name.clone(),
            location: table.settings.location.to_string(),
            id: table.id.clone(),
            allowed_locations: table
                .settings
                .allowed_locations
                .iter()
                .map(WrittenLocation::to_string)
                .collect(),
            history_shared: table.settings.history_shared,
            start_version: table.settings.start_version,
            directory_access: table.settings.directory_access,
            signer_role: table.settings.signer_role.as_ref().map(|role| role.as_str().to_owned()),
        };
        let schema = |schema: &SchemaState| FileSchema {
            name: schema.name.clone(),
            tables: schema.tables.values().map(table).collect(),
        };
        let share = |share: &ShareState| FileShare {
            name: share.name.clone(),
            id: share.id.clone(),
            comment: share.comment.clone(),
            schemas: share.schemas.values().map(schema).collect(),
        };
        let name_of =
            |key: &String| state.shares.get(key).map_or_else(|| key.clone(), |share| share.name.clone());
        let recipient = |recipient: &RecipientState| FileRecipient {
            name: recipient.name.clone(),
            comment: recipient.comment.clone(),
            status: if recipient.active { "active" } else { "disabled" },
            shares: recipient.shares.iter().map(name_of).collect(),
            tokens: recipient
                .tokens
                .iter()
                .map(|(hash, token)| FileToken {
                    sha256: hash.clone(),
                    id: token.id.clone(),
                    expires: expiry::format(token.expires),
                    created: token.created.clone(),
                })
                .collect(),
        };
        Self {
            version: 1,
            shares: state.shares.values().map(share).collect(),
            recipients: state.recipients.values().map(recipient).collect(),
        }
    }
}
