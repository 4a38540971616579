//! Items of DynamoDB and the records that they hold. `infra/records.md` describes them for people who write them
//! with their own scripts.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

use super::keys::{self, Key};
use super::{ShareRecord, TableRecord, TokenRecord};
use crate::protocol::names::Name;
use crate::role::RoleArn;

/// The attributes of an item.
pub type Item = HashMap<String, AttributeValue>;

/// The version of the record format that this server reads and writes.
pub const FORMAT: u32 = 1;

/// A record that cannot be read, and why. It names the record and not what is in it; the log may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// What the record is, such as `table`.
    pub kind: &'static str,
    /// Its partition key; of a token, no more than the first digits of its hash.
    pub partition: String,
    /// Its sort key.
    pub sort: String,
    /// What is wrong, as the end of a sentence about the record.
    pub reason: String,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, partition, sort, reason } = self;
        write!(f, "the {kind} record {partition} {sort} {reason}")
    }
}

impl std::error::Error for BadRecord {}

type Result<T, E = BadRecord> = std::result::Result<T, E>;

/// An item that is read: its kind, for messages, and its attributes.
struct Reader<'a> {
    kind: &'static str,
    item: &'a Item,
}

impl<'a> Reader<'a> {
    /// Refuses an item that a newer version wrote.
    fn new(kind: &'static str, item: &'a Item) -> Result<Self> {
        let this = Self { kind, item };
        match this.number("format")? {
            Some(format) if format == u64::from(FORMAT) => Ok(this),
            Some(format) => {
                Err(this.unreadable(&format!("has format {format}, which this version does not know")))
            }
            None => Err(this.unreadable("has no format")),
        }
    }

    fn unreadable(&self, reason: &str) -> BadRecord {
        let key =
            |name: &str| self.item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
        let (partition, sort) = (key(keys::PARTITION), key(keys::SORT));
        // Of a token's hash, as much as names it.
        let shown = if partition.starts_with(keys::TOKENS) { keys::TOKENS.len() + 8 } else { usize::MAX };
        BadRecord {
            kind: self.kind,
            partition: partition.chars().take(shown).collect(),
            sort: sort.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn get<T>(
        &self,
        name: &str,
        read: impl FnOnce(&'a AttributeValue) -> Option<T>,
        wanted: &str,
    ) -> Result<Option<T>> {
        match self.item.get(name) {
            None | Some(AttributeValue::Null(_)) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.unreadable(&format!("has an attribute {name} that is not {wanted}"))),
            },
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name, |value| value.as_s().ok().map(String::as_str), "a string")
    }

    fn required(&self, name: &str) -> Result<&'a str> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.unreadable(&format!("has no attribute {name}")))
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        self.get(name, |value| value.as_n().ok()?.parse().ok(), "a whole number")
    }

    fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.get(name, |value| value.as_bool().ok().copied(), "a boolean")?.unwrap_or(false))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>> {
        let read = |value: &AttributeValue| match value {
            AttributeValue::L(list) => list.iter().map(|item| item.as_s().ok().cloned()).collect(),
            AttributeValue::Ss(set) => {
                let mut set = set.clone();
                set.sort_unstable();
                Some(set)
            }
            _ => None,
        };
        Ok(self.get(name, read, "a list of strings")?.unwrap_or_default())
    }

    fn name(
        &self,
        attribute: &str,
        check: fn(&str) -> Result<Name, crate::protocol::names::InvalidName>,
    ) -> Result<Name> {
        check(self.required(attribute)?)
            .map_err(|error| self.unreadable(&format!("has a name that is none: {error}")))
    }

    /// Refuses a record whose name is not the one in its key.
    fn has_sort_key(&self, key: &Key) -> Result<()> {
        match self.item.get(keys::SORT).and_then(|sort| sort.as_s().ok()) {
            Some(sort) if *sort == key.sort => Ok(()),
            _ => Err(self.unreadable("has a name that is not the one in its key")),
        }
    }

    fn role(&self, name: &str) -> Result<Option<RoleArn>> {
        self.get(name, |value| RoleArn::parse(value.as_s().ok()?), "the ARN of a role")
    }

    fn expiry(&self, name: &str) -> Result<Option<DateTime<Utc>>> {
        match self.required(name)? {
            "never" => Ok(None),
            text => DateTime::parse_from_rfc3339(text).map(|time| Some(time.to_utc())).map_err(|_| {
                self.unreadable(&format!(
                    "has an attribute {name} that is neither a time in RFC 3339 nor never"
                ))
            }),
        }
    }
}

/// What a token stands for.
pub(super) fn token(item: &Item) -> Result<TokenRecord> {
    let reader = Reader::new("token", item)?;
    Ok(TokenRecord {
        recipient: reader.required("recipient")?.into(),
        id: reader.text("id")?.unwrap_or("unnamed").into(),
        expires: reader.expiry("expires")?,
    })
}

/// Whether a recipient may read.
pub(super) fn is_active(item: &Item) -> Result<bool> {
    let reader = Reader::new("recipient", item)?;
    match reader.required("status")? {
        "active" => Ok(true),
        "disabled" => Ok(false),
        _ => Err(reader.unreadable("has a status that is neither active nor disabled")),
    }
}

/// A share; `None` while it is being deleted.
pub(super) fn share(item: &Item) -> Result<Option<ShareRecord>> {
    let reader = Reader::new("share", item)?;
    if reader.flag("deleting")? {
        return Ok(None);
    }
    let record =
        ShareRecord { name: reader.name("name", Name::share)?, id: reader.required("id")?.to_owned() };
    Ok(Some(record))
}

/// The name of a share that is granted. The key is what grants it, so the name must be the one in the key.
pub(super) fn grant(item: &Item) -> Result<Name> {
    let reader = Reader::new("grant", item)?;
    let share = reader.name("share", Name::share)?;
    reader.has_sort_key(&Key::grant("", share.as_str()))?;
    Ok(share)
}

/// The name of a schema.
pub(super) fn schema(item: &Item) -> Result<Name> {
    Reader::new("schema", item)?.name("name", Name::schema_or_table)
}

/// A table of `share`.
pub(super) fn table(item: &Item, share: &ShareRecord) -> Result<TableRecord> {
    let reader = Reader::new("table", item)?;
    Ok(TableRecord {
        share: share.name.clone(),
        share_id: share.id.clone(),
        schema: reader.name("schema", Name::schema_or_table)?,
        name: reader.name("name", Name::schema_or_table)?,
        id: reader.required("id")?.to_owned(),
        location: reader.required("location")?.to_owned(),
        may_be_local: false,
        allowed_locations: reader.texts("allowedLocations")?,
        history_shared: reader.flag("historyShared")?,
        start_version: reader.number("startVersion")?.unwrap_or(0),
        directory_access: reader.flag("directoryAccess")?,
        signer_role: reader.role("signerRole")?,
    })
}

/// Finds what is wrong with an item, if it is one that servers read.
pub(super) fn check(item: &Item) -> Result<()> {
    let key = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
    let (partition, sort) = (key(keys::PARTITION), key(keys::SORT));
    match (partition.split_once('#').map(|(kind, _)| kind), sort) {
        (Some("TOKEN"), "TOKEN") => token(item).map(drop),
        (Some("RECIPIENT"), "RECIPIENT") => is_active(item).map(drop),
        (Some("RECIPIENT"), sort) if sort.starts_with(keys::GRANTS) => grant(item).map(drop),
        (Some("RECIPIENT"), sort) if sort.starts_with(keys::TOKENS) => token(item).map(drop),
        (Some("SHARE"), "SHARE") => share(item).map(drop),
        (Some("SHARE"), sort) if sort.starts_with(keys::SCHEMAS) => {
            let reader = Reader::new("schema", item)?;
            reader.has_sort_key(&Key::schema("", schema(item)?.as_str()))
        }
        (Some("SHARE"), sort) if sort.starts_with(keys::TABLES) => {
            let reader = Reader::new("table", item)?;
            // Which share it is in makes no difference.
            let share = ShareRecord { name: reader.name("name", Name::share)?, id: String::new() };
            let table = table(item, &share)?;
            reader.has_sort_key(&Key::table("", table.schema.as_str(), table.name.as_str()))
        }
        _ => Ok(()),
    }
}

/// The key that tokens are authenticated with: 32 bytes.
pub(super) fn token_key(item: &Item) -> Result<[u8; 32]> {
    let reader = Reader::new("token key", item)?;
    let bytes = reader.get("key", |value| value.as_b().ok()?.as_ref().try_into().ok(), "32 bytes")?;
    bytes.ok_or_else(|| reader.unreadable("has no attribute key"))
}

/// The attributes of a new token key.
pub(super) fn new_token_key(key: [u8; 32]) -> Item {
    let mut item = key_attributes(&Key::token_key());
    item.insert("format".to_owned(), AttributeValue::N(FORMAT.to_string()));
    item.insert("key".to_owned(), AttributeValue::B(Blob::new(key)));
    item
}

/// The key attributes of an item.
pub fn key_attributes(key: &Key) -> Item {
    let text = |text: &String| AttributeValue::S(text.clone());
    HashMap::from([
        (keys::PARTITION.to_owned(), text(&key.partition)),
        (keys::SORT.to_owned(), text(&key.sort)),
    ])
}
