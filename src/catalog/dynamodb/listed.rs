//! Records as they are written, for people to look at: also those that servers cannot read.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::keys::{self, Key};
use super::policies::{FoundPolicy, policies_of};
use super::records::{self, BadRecord, Item, Kind, text as string};
use super::tokens::{FoundToken, owner, tokens_of};
use super::write_error::{Result, WriteError};
use super::writer::Writer;

/// How many grants are read at a time.
const AT_ONCE: usize = 16;

/// The value of an attribute, whatever its type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WrittenValue {
    /// The record lacks it, or it is of a type that no attribute of a catalog has.
    #[default]
    Nothing,
    /// A string.
    Text(String),
    /// A number, as DynamoDB writes it.
    Number(String),
    /// A boolean.
    Flag(bool),
    /// A list, or a set of strings, which is sorted here.
    List(Vec<Self>),
    /// A map, by its keys.
    Map(BTreeMap<String, Self>),
}

impl WrittenValue {
    fn of(item: &Item, name: &str) -> Self {
        item.get(name).map_or(Self::Nothing, Self::read)
    }

    fn read(value: &AttributeValue) -> Self {
        match value {
            AttributeValue::S(text) => Self::Text(text.clone()),
            AttributeValue::N(number) => Self::Number(number.clone()),
            AttributeValue::Bool(flag) => Self::Flag(*flag),
            AttributeValue::L(list) => Self::List(list.iter().map(Self::read).collect()),
            AttributeValue::Ss(set) => {
                let mut set = set.clone();
                set.sort_unstable();
                Self::List(set.into_iter().map(Self::Text).collect())
            }
            AttributeValue::M(map) => {
                Self::Map(map.iter().map(|(name, value)| (name.clone(), Self::read(value))).collect())
            }
            _ => Self::Nothing,
        }
    }

    /// The string that it is; empty if it is none.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// The value, or another one if the record lacks it.
    #[must_use]
    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Nothing { other() } else { self }
    }
}

/// A share.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are the attributes of the record")]
pub struct ListedShare {
    pub name: WrittenValue,
    pub id: WrittenValue,
    pub comment: WrittenValue,
    pub deleting: WrittenValue,
}

/// A share with what is in it.
#[derive(Debug)]
pub struct ShownShare {
    /// Its own record.
    pub record: ListedShare,
    /// Its schemas.
    pub schemas: Vec<ListedSchema>,
    /// Its tables.
    pub tables: Vec<ListedTable>,
    /// The recipients that it is granted to.
    pub recipients: Vec<ListedGrant>,
}

/// A grant, as its share or its recipient lists it.
#[derive(Debug, Clone)]
pub struct ListedGrant {
    /// The name of the recipient or of the share.
    pub name: WrittenValue,
    /// The patterns of the tables that are granted.
    pub tables: WrittenValue,
    /// The filter of the grant.
    pub filter: WrittenValue,
    /// Why the record cannot be read; servers then refuse requests for the share.
    pub fault: Option<BadRecord>,
}

/// A schema.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are the attributes of the record")]
pub struct ListedSchema {
    pub name: WrittenValue,
}

/// A schema with its tables.
#[derive(Debug)]
pub struct ShownSchema {
    /// Its own record.
    pub record: ListedSchema,
    /// Its tables.
    pub tables: Vec<ListedTable>,
}

/// A table.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the other fields are the attributes of the record")]
pub struct ListedTable {
    /// Where the record is.
    pub key: Key,
    pub schema: WrittenValue,
    pub name: WrittenValue,
    pub id: WrittenValue,
    pub location: WrittenValue,
    pub allowed_locations: WrittenValue,
    pub history_shared: WrittenValue,
    pub start_version: WrittenValue,
    pub directory_access: WrittenValue,
    pub signer_role: WrittenValue,
    pub filter: WrittenValue,
}

/// A recipient.
#[derive(Debug)]
pub struct ListedRecipient {
    /// Its name. Servers read it from the key if the record lacks it.
    pub name: WrittenValue,
    /// The name in the record's key, in lower case; empty if the key has none.
    pub name_in_key: String,
    /// Whether it may read.
    pub status: WrittenValue,
    /// What it is, for administrators.
    pub comment: WrittenValue,
    /// What filters read of it.
    pub properties: WrittenValue,
    /// The addresses that it may use.
    pub allowed_ips: WrittenValue,
    /// How many requests it may send in a minute.
    pub requests_per_minute: WrittenValue,
    /// For how many bytes it may be given URLs in a day.
    pub bytes_per_day: WrittenValue,
    /// Why the record cannot be read; servers then refuse every token of the recipient.
    pub fault: Option<BadRecord>,
    /// Its tokens, the newest first.
    pub tokens: Vec<FoundToken>,
    /// Its OIDC policies.
    pub oidc_policies: Vec<FoundPolicy>,
    /// The shares that it may read.
    pub shares: Vec<ListedGrant>,
}

impl ListedShare {
    fn read(item: &Item) -> Self {
        let of = |name| WrittenValue::of(item, name);
        Self { name: of("name"), id: of("id"), comment: of("comment"), deleting: of("deleting") }
    }
}

impl ListedGrant {
    /// A grant as it is listed below its recipient.
    fn of_recipient(item: &Item) -> Self {
        Self {
            name: WrittenValue::of(item, "share"),
            tables: WrittenValue::of(item, records::GRANTED_TABLES),
            filter: WrittenValue::of(item, records::FILTER),
            fault: records::grant(item).err(),
        }
    }
}

impl ListedSchema {
    fn read(item: &Item) -> Self {
        Self { name: WrittenValue::of(item, "name") }
    }
}

impl ListedTable {
    fn read(item: &Item) -> Self {
        let of = |name| WrittenValue::of(item, name);
        Self {
            key: records::key_of(item),
            schema: of("schema"),
            name: of("name"),
            id: of("id"),
            location: of("location"),
            allowed_locations: of("allowedLocations"),
            history_shared: of("historyShared"),
            start_version: of("startVersion"),
            directory_access: of("directoryAccess"),
            signer_role: of(records::SIGNER_ROLE),
            filter: of(records::FILTER),
        }
    }
}

impl ListedRecipient {
    fn read(record: &Item, shares: Vec<ListedGrant>, own: &[&Item]) -> Self {
        let of = |name| WrittenValue::of(record, name);
        let in_key = string(record, keys::PARTITION).trim_start_matches("RECIPIENT#");
        Self {
            name: of("name"),
            name_in_key: keys::decoded(in_key).unwrap_or_default(),
            status: of("status"),
            comment: of("comment"),
            properties: of(records::PROPERTIES),
            allowed_ips: of(records::ALLOWED_IPS),
            requests_per_minute: of(records::REQUESTS_PER_MINUTE),
            bytes_per_day: of(records::BYTES_PER_DAY),
            fault: records::recipient(record).err(),
            tokens: tokens_of(own),
            oidc_policies: policies_of(own),
            shares,
        }
    }
}

/// The items of one kind.
fn of_kind(items: &[Item], kind: Kind) -> impl Iterator<Item = &Item> {
    items.iter().filter(move |item| records::kind(item) == kind)
}

impl Writer {
    /// Every share. Reads the whole DynamoDB table.
    pub async fn shares(&self) -> Result<Vec<ListedShare>> {
        let items = self.items().await?;
        Ok(of_kind(&items, Kind::Share).map(ListedShare::read).collect())
    }

    /// A share with what is in it.
    pub async fn share(&self, share: &str) -> Result<Option<ShownShare>> {
        let items = self.query(&keys::share_partition(share), "").await?;
        let Some(record) = of_kind(&items, Kind::Share).next() else { return Ok(None) };
        // What is listed below the share has no tables and no filters, because it is not what servers read.
        let recipients = stream::iter(of_kind(&items, Kind::GrantedTo)).map(|item| async move {
            let recipient = string(item, keys::SORT).trim_start_matches(keys::GRANTED_TO);
            let share = string(item, keys::PARTITION).trim_start_matches("SHARE#");
            let key =
                Key { partition: format!("RECIPIENT#{recipient}"), sort: format!("{}{share}", keys::GRANTS) };
            let grant = self.get(&key).await?.unwrap_or_default();
            let name = WrittenValue::of(item, "recipient");
            let fault = (!grant.is_empty()).then(|| records::grant(&grant).err()).flatten();
            let of = |name| WrittenValue::of(&grant, name);
            let (tables, filter) = (of(records::GRANTED_TABLES), of(records::FILTER));
            Ok::<_, WriteError>(ListedGrant { name, tables, filter, fault })
        });
        Ok(Some(ShownShare {
            record: ListedShare::read(record),
            schemas: of_kind(&items, Kind::Schema).map(ListedSchema::read).collect(),
            tables: of_kind(&items, Kind::Table).map(ListedTable::read).collect(),
            recipients: recipients.buffered(AT_ONCE).try_collect().await?,
        }))
    }

    /// Whether there is a record of the share.
    pub async fn has_share(&self, share: &str) -> Result<bool> {
        Ok(self.get(&Key::share(share)).await?.is_some())
    }

    /// The schemas of a share.
    pub async fn schemas(&self, share: &str) -> Result<Vec<ListedSchema>> {
        let items = self.query(&keys::share_partition(share), keys::SCHEMAS).await?;
        Ok(items.iter().map(ListedSchema::read).collect())
    }

    /// A schema with its tables.
    pub async fn schema(&self, share: &str, schema: &str) -> Result<Option<ShownSchema>> {
        let Some(record) = self.get(&Key::schema(share, schema)).await? else { return Ok(None) };
        let tables = self.query(&keys::share_partition(share), &keys::tables_of(schema)).await?;
        let tables = tables.iter().map(ListedTable::read).collect();
        Ok(Some(ShownSchema { record: ListedSchema::read(&record), tables }))
    }

    /// The tables of a share.
    pub async fn tables(&self, share: &str) -> Result<Vec<ListedTable>> {
        let items = self.query(&keys::share_partition(share), keys::TABLES).await?;
        Ok(items.iter().map(ListedTable::read).collect())
    }

    /// A table as its record is written. [`Writer::table`] reads it as servers do.
    pub async fn listed_table(&self, share: &str, schema: &str, table: &str) -> Result<Option<ListedTable>> {
        let item = self.get(&Key::table(share, schema, table)).await?;
        Ok(item.as_ref().map(ListedTable::read))
    }

    /// Every recipient. Reads the whole DynamoDB table.
    pub async fn recipients(&self) -> Result<Vec<ListedRecipient>> {
        let items = self.items().await?;
        let mut owned: HashMap<String, Vec<&Item>> = HashMap::new();
        for item in &items {
            if let Some(partition) = owner(item) {
                owned.entry(partition).or_default().push(item);
            }
        }
        let listed = of_kind(&items, Kind::Recipient).map(|record| {
            let own = owned.remove(string(record, keys::PARTITION)).unwrap_or_default();
            let grants = own.iter().filter(|item| records::kind(item) == Kind::Grant);
            let shares = grants.map(|item| ListedGrant::of_recipient(item)).collect();
            ListedRecipient::read(record, shares, &own)
        });
        Ok(listed.collect())
    }

    /// A recipient. Reads the whole DynamoDB table, because a token may be in no list.
    pub async fn recipient(&self, recipient: &str) -> Result<Option<ListedRecipient>> {
        let items = self.query(&keys::recipient_partition(recipient), "").await?;
        let Some(record) = of_kind(&items, Kind::Recipient).next() else { return Ok(None) };
        let shares = of_kind(&items, Kind::Grant).map(ListedGrant::of_recipient).collect();
        let all = self.items().await?;
        let partition = keys::recipient_partition(recipient);
        let own: Vec<_> = all.iter().filter(|item| owner(item).as_ref() == Some(&partition)).collect();
        Ok(Some(ListedRecipient::read(record, shares, &own)))
    }

    /// The names of the shares that are granted to a recipient.
    pub async fn granted_shares(&self, recipient: &str) -> Result<Vec<String>> {
        let grants = self.query(&keys::recipient_partition(recipient), keys::GRANTS).await?;
        Ok(grants.iter().map(|grant| string(grant, "share").to_owned()).collect())
    }

    /// Whether there is a record of the recipient.
    pub async fn has_recipient(&self, recipient: &str) -> Result<bool> {
        Ok(self.get(&Key::recipient(recipient)).await?.is_some())
    }
}
