//! Items of DynamoDB and the records that they hold. `infra/records.md` describes them for people who write them
//! with their own scripts.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

use super::keys::{self, Key};
use super::{ShareRecord, TableRecord, TokenRecord};
use crate::error::{Error, Result};
use crate::protocol::names::Name;
use crate::role::RoleArn;

/// The attributes of an item.
pub type Item = HashMap<String, AttributeValue>;

/// The version of the record format that this server reads and writes.
pub const FORMAT: u32 = 1;

/// An item that is read: its kind, for messages, and its attributes.
pub(super) struct Reader<'a> {
    kind: &'static str,
    item: &'a Item,
}

impl<'a> Reader<'a> {
    /// Refuses an item that a newer version wrote.
    pub(super) fn new(kind: &'static str, item: &'a Item) -> Result<Self> {
        let this = Self { kind, item };
        match this.number("format")? {
            Some(format) if format == u64::from(FORMAT) => Ok(this),
            Some(format) => {
                Err(this.unreadable(&format!("has format {format}, which this version does not know")))
            }
            None => Err(this.unreadable("has no format")),
        }
    }

    /// The record is named in the log and not to the recipient; what is in it is shown to nobody.
    fn unreadable(&self, what: &str) -> Error {
        Error::internal(format!("a {} record {what}", self.kind))
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

    pub(super) fn required(&self, name: &str) -> Result<&'a str> {
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

/// The name of a share that is granted.
pub(super) fn grant(item: &Item) -> Result<Name> {
    Reader::new("grant", item)?.name("share", Name::share)
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
