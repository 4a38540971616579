//! Everything that a catalog holds, whether it is a share file or in DynamoDB.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::{TableRecord, TableSettings};

/// Shares and recipients, by the keys of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogState {
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
    /// When it expires; `None` for never.
    pub expires: Option<DateTime<Utc>>,
    /// When it was created, as it is written.
    pub created: Option<String>,
}

impl TokenState {
    /// Whether it has not expired.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_none_or(|expires| expires > now)
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
