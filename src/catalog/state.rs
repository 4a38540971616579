//! Everything that a catalog holds, whether it is a share file or in DynamoDB.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};

use super::grant::GrantState;
use super::oidc::OidcPolicy;
use super::properties::Properties;
use super::restrictions::Restrictions;
use super::{TableRecord, TableSettings};
use crate::predicate::PartitionFilter;
use crate::protocol::names::Name;

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
    /// What filters read of it.
    pub properties: Properties,
    /// What restricts it.
    pub restrictions: Restrictions,
    /// The shares that are granted to it, by the keys of their names, with what is granted of them.
    pub shares: BTreeMap<String, GrantState>,
    /// Its tokens, by their hashes: 64 hexadecimal digits.
    pub tokens: BTreeMap<String, TokenState>,
    /// Its OIDC policies.
    pub oidc: BTreeSet<OidcPolicy>,
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

/// Properties that filters read and a recipient lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingProperties {
    /// The recipient's name; empty for readers that are no recipient.
    pub recipient: String,
    /// The names of the properties.
    pub properties: BTreeSet<String>,
    /// What it sees no rows of for this reason: a share, or a table as `share.schema.table`.
    pub of: String,
}

impl fmt::Display for MissingProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.properties.iter().map(String::as_str).collect();
        match self.recipient.as_str() {
            "" => f.write_str("a reader who is not a recipient")?,
            recipient => write!(f, "recipient {recipient}")?,
        }
        write!(f, " has no property {}, so it sees no rows of {}", names.join(" and "), self.of)
    }
}

/// The keys of a schema and of a table in it.
type TableKeys<'a> = (&'a str, &'a str);

/// A table with a filter: its keys, its name, and the properties that the filter reads.
type TableProperties<'a> = (TableKeys<'a>, String, BTreeSet<String>);

impl CatalogState {
    /// The filters of a table, named `share.schema.table`, and of the grants that share it, each with its owner, such as
    /// `the grant to acme`.
    pub fn filters_of(&self, name: &str, table: &TableState) -> Vec<(String, PartitionFilter)> {
        let own = table.settings.filter.iter().map(|filter| ("the table".to_owned(), filter.clone()));
        // The name of a share may have points in it.
        let mut parts = name.rsplitn(3, '.').map(Name::key_of);
        let [table, schema, share] = [(); 3].map(|()| parts.next().unwrap_or_default());
        let of_grants = self.recipients.values().filter_map(|recipient| {
            let grant = recipient.shares.get(&share).filter(|grant| grant.includes(&schema, &table))?;
            let filter = grant.filter.clone()?;
            Some((format!("the grant to {}", recipient.name), filter))
        });
        own.chain(of_grants).collect()
    }

    /// The properties that filters read and recipients with these grants lack. Disabled recipients see nothing anyway.
    pub fn missing_properties(&self) -> Vec<MissingProperties> {
        let read = |filter: &PartitionFilter| filter.properties().into_iter().map(str::to_owned).collect();
        // What the filters of each share's tables read, so that tables are not looked at for each recipient.
        let mut of_tables: BTreeMap<&str, Vec<TableProperties<'_>>> = BTreeMap::new();
        for (key, share) in &self.shares {
            for (schema_key, schema) in &share.schemas {
                for (table_key, table) in &schema.tables {
                    let names: BTreeSet<String> =
                        table.settings.filter.as_ref().map(read).unwrap_or_default();
                    if !names.is_empty() {
                        let name = format!("{}.{}.{}", share.name, schema.name, table.name);
                        of_tables.entry(key).or_default().push(((schema_key, table_key), name, names));
                    }
                }
            }
        }
        let mut missing = Vec::new();
        for recipient in self.recipients.values().filter(|recipient| recipient.active) {
            for (key, grant) in &recipient.shares {
                let mut look = |of: &str, names: &BTreeSet<String>| {
                    let lacks = names.iter().filter(|name| !recipient.properties.contains_key(*name));
                    let properties: BTreeSet<String> = lacks.cloned().collect();
                    let is_missing = !properties.is_empty();
                    if is_missing {
                        let (recipient, of) = (recipient.name.clone(), of.to_owned());
                        missing.push(MissingProperties { recipient, properties, of });
                    }
                    is_missing
                };
                let share = self.shares.get(key).map_or(key, |share| &share.name);
                if grant.filter.as_ref().is_some_and(|filter| look(share, &read(filter))) {
                    continue;
                }
                for ((schema_key, table_key), table, names) in
                    of_tables.get(key.as_str()).into_iter().flatten()
                {
                    if grant.includes(schema_key, table_key) {
                        look(table, names);
                    }
                }
            }
        }
        missing
    }
}
