//! Items of DynamoDB and the records that they hold. `infra/records.md` describes them for people who write them
//! with their own scripts.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

use super::keys::{self, Key};
use super::values::{number, text as value};
use crate::catalog::grant::{GrantState, TablePatterns};
use crate::catalog::oidc::{OidcPolicy, RecipientPolicy};
use crate::catalog::properties::{self, Properties};
use crate::catalog::restrictions::{Restrictions, check_bytes, check_requests};
use crate::catalog::{ShareRecord, TableRecord, TableSettings, TokenHash, TokenRecord, expiry};
use crate::location::WrittenLocation;
use crate::network::AllowedIps;
use crate::predicate::{FileAccess, PartitionFilter};
use crate::protocol::names::Name;
use crate::role::RoleArn;

/// The attributes of an item.
pub type Item = HashMap<String, AttributeValue>;

/// The version of the record format that this server reads and writes.
pub const FORMAT: u32 = 1;

/// The same for grants and tables with a filter. Older servers would ignore the filter, so they must not read them.
pub const FILTERED_FORMAT: u32 = 2;

/// The same for grants of some tables, whether they have a filter or not. Older servers would ignore the patterns.
pub const PATTERNS_FORMAT: u32 = 3;

/// The same for recipients with a restriction. Older servers would ignore it, so they must not read them.
pub const RESTRICTED_FORMAT: u32 = 2;

/// The version of the record format.
pub(super) const FORMAT_ATTRIBUTE: &str = "format";

/// The filter of a table or a grant.
pub(super) const FILTER: &str = "filter";

/// The patterns of the tables that a grant shares.
pub(super) const GRANTED_TABLES: &str = "tables";

/// The properties of a recipient.
pub(super) const PROPERTIES: &str = "properties";

/// How many requests a recipient may send in a minute.
pub(super) const REQUESTS_PER_MINUTE: &str = "requestsPerMinute";

/// For how many bytes a recipient may be given URLs in a day.
pub(super) const BYTES_PER_DAY: &str = "bytesPerDay";

/// What restricts a recipient.
pub(super) const RESTRICTIONS: [&str; 3] = [ALLOWED_IPS, REQUESTS_PER_MINUTE, BYTES_PER_DAY];

/// The addresses that a recipient may use.
pub(super) const ALLOWED_IPS: &str = "allowedIps";

/// The role that reads a table and signs its URLs.
pub(super) const SIGNER_ROLE: &str = "signerRole";

/// A record that cannot be read, and why. It names the record and not what is in it; the log may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// What the record is, such as `table`.
    pub kind: &'static str,
    /// Its partition key; of a token or an activation, no more than the first digits of its hash or id.
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
        match this.format()? {
            FORMAT => Ok(this),
            format => Err(this.unknown_format(format)),
        }
    }

    /// The same for an item that may have a filter, and the filter.
    fn filtered(kind: &'static str, item: &'a Item) -> Result<(Self, Option<PartitionFilter>)> {
        let this = Self { kind, item };
        match (this.format()?, this.filter()?) {
            (FORMAT | FILTERED_FORMAT, Some(filter)) => Ok((this, Some(filter))),
            (FORMAT, None) => Ok((this, None)),
            // A script that misspells the attribute must not share every row.
            (FILTERED_FORMAT, None) => {
                Err(this.unreadable(&format!("has format {FILTERED_FORMAT}, but no attribute {FILTER}")))
            }
            (format, _) => Err(this.unknown_format(format)),
        }
    }

    /// The same for a grant, which may also have patterns.
    fn granted(item: &'a Item) -> Result<(Self, GrantState)> {
        let kind = "grant";
        let this = Self { kind, item };
        let state = match (this.format()?, this.tables()?) {
            (PATTERNS_FORMAT, Some(tables)) => GrantState { tables: Some(tables), filter: this.filter()? },
            // A script that misspells the attribute must not share every table.
            (PATTERNS_FORMAT, None) => {
                let reason = format!("has format {PATTERNS_FORMAT}, but no attribute {GRANTED_TABLES}");
                return Err(this.unreadable(&reason));
            }
            (_, tables) => GrantState { tables, filter: Self::filtered(kind, item)?.1 },
        };
        Ok((this, state))
    }

    /// The same for a recipient, and its restrictions.
    fn restricted(kind: &'static str, item: &'a Item) -> Result<(Self, Restrictions)> {
        let this = Self { kind, item };
        let (format, restrictions) = (this.format()?, this.restrictions()?);
        match format {
            FORMAT => Ok((this, restrictions)),
            RESTRICTED_FORMAT if restrictions != Restrictions::default() => Ok((this, restrictions)),
            // A script that misspells the attribute must not remove the restriction.
            RESTRICTED_FORMAT => Err(this.unreadable(&format!(
                "has format {RESTRICTED_FORMAT}, but none of the attributes {}",
                RESTRICTIONS.join(", ")
            ))),
            format => Err(this.unknown_format(format)),
        }
    }

    /// The restrictions of a recipient. What is there and cannot be read is never taken for none.
    fn restrictions(&self) -> Result<Restrictions> {
        let allowed_ips = match self.item.get(ALLOWED_IPS) {
            None => None,
            // The same as an empty list.
            Some(AttributeValue::Null(_)) => Some(Vec::new()),
            Some(_) => Some(self.texts(ALLOWED_IPS)?),
        };
        let parse = |texts: Vec<String>| AllowedIps::parse(texts.iter().map(String::as_str));
        let allowed_ips = allowed_ips.map(parse).transpose();
        Ok(Restrictions {
            allowed_ips: allowed_ips
                .map_err(|reason| self.unreadable(&format!("has invalid {ALLOWED_IPS}: {reason}")))?,
            requests_per_minute: self.limit(REQUESTS_PER_MINUTE, check_requests)?,
            bytes_per_day: self.limit(BYTES_PER_DAY, check_bytes)?,
        })
    }

    /// A limit, which is never taken for none if it is there.
    fn limit(&self, name: &str, check: fn(u64) -> Result<u64, String>) -> Result<Option<u64>> {
        let Some(value) = self.item.get(name) else { return Ok(None) };
        let number = value.as_n().ok().and_then(|digits| digits.parse().ok());
        let number = number
            .ok_or_else(|| self.unreadable(&format!("has an attribute {name} that is not a whole number")))?;
        check(number).map(Some).map_err(|reason| self.unreadable(&format!("has invalid {name}: {reason}")))
    }

    fn format(&self) -> Result<u32> {
        let format = self.number(FORMAT_ATTRIBUTE)?.ok_or_else(|| self.unreadable("has no format"))?;
        u32::try_from(format).map_err(|_| self.unknown_format(format))
    }

    fn unknown_format(&self, format: impl fmt::Display) -> BadRecord {
        self.unreadable(&format!("has format {format}, which this version does not know"))
    }

    /// The filter. What is there and is no filter is never taken for none: that would share every row.
    fn filter(&self) -> Result<Option<PartitionFilter>> {
        match self.item.get(FILTER) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => PartitionFilter::parse(text).map(Some).map_err(|reason| {
                self.unreadable(&format!("has an attribute {FILTER} that is not a filter: {reason}"))
            }),
            Some(_) => Err(self.unreadable(&format!("has an attribute {FILTER} that is not a string"))),
        }
    }

    /// The patterns of a grant. What is there and is no list of them is never taken for none: that would share every table.
    fn tables(&self) -> Result<Option<TablePatterns>> {
        if !self.item.contains_key(GRANTED_TABLES) {
            return Ok(None);
        }
        TablePatterns::parse(&self.texts(GRANTED_TABLES)?).map(Some).map_err(|reason| {
            self.unreadable(&format!("has an attribute {GRANTED_TABLES} that names no tables: {reason}"))
        })
    }

    /// The properties of a recipient. The reasons never repeat their values.
    fn properties(&self) -> Result<Properties> {
        let read = |value: &'a AttributeValue| {
            let each = value.as_m().ok()?.iter();
            each.map(|(name, value)| Some((name.clone(), value.as_s().ok()?.clone()))).collect()
        };
        let found: Properties = self.get(PROPERTIES, read, "a map of strings")?.unwrap_or_default();
        properties::check_properties(&found)
            .map_err(|reason| self.unreadable(&format!("has invalid {PROPERTIES}: {reason}")))?;
        Ok(found)
    }

    fn unreadable(&self, reason: &str) -> BadRecord {
        let (partition, sort) = (self.key(keys::PARTITION), self.key(keys::SORT));
        // Of a token's hash or the id of an activation, as much as names it.
        let secret = [keys::TOKENS, keys::ACTIVATIONS].into_iter().find(|kind| partition.starts_with(kind));
        let shown = secret.map_or(usize::MAX, |kind| kind.len() + 8);
        BadRecord {
            kind: self.kind,
            partition: partition.chars().take(shown).collect(),
            sort: sort.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn key(&self, name: &str) -> &'a str {
        text(self.item, name)
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
            .map_err(|error| self.unreadable(&format!("has an invalid name: {error}")))
    }

    /// An attribute that is for people, whatever its type: nothing is refused because of it.
    fn written(&self, name: &str) -> Option<String> {
        match self.item.get(name) {
            Some(AttributeValue::S(text) | AttributeValue::N(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    fn has_key(&self, key: &Key) -> bool {
        self.key(keys::PARTITION) == key.partition && self.key(keys::SORT) == key.sort
    }

    /// Refuses a record whose name is not the one in its key.
    fn must_have_key(&self, key: &Key) -> Result<()> {
        if self.has_key(key) { Ok(()) } else { Err(self.misnamed()) }
    }

    /// The same, if the partition is that of another record.
    fn must_have_sort_key(&self, key: &Key) -> Result<()> {
        if self.key(keys::SORT) == key.sort { Ok(()) } else { Err(self.misnamed()) }
    }

    /// The name that the partition key has after `prefix`.
    fn name_in_key(&self, prefix: &str) -> Result<Name> {
        let name = self.key(keys::PARTITION).strip_prefix(prefix).and_then(keys::decoded);
        let name = name.ok_or_else(|| self.unreadable("has a key without a name"))?;
        Name::share(&name).map_err(|error| self.unreadable(&format!("has an invalid name: {error}")))
    }

    fn misnamed(&self) -> BadRecord {
        self.unreadable("has a name that is not the one in its key")
    }

    fn role(&self, name: &str) -> Result<Option<RoleArn>> {
        self.get(name, |value| RoleArn::parse(value.as_s().ok()?), "the ARN of a role")
    }

    /// How a table is shared. No record of DynamoDB can name a directory of the server's machine.
    fn settings(&self, filter: Option<PartitionFilter>) -> Result<TableSettings> {
        let location = |text: &str| WrittenLocation::parse(text, None);
        Ok(TableSettings {
            location: location(self.required("location")?),
            allowed_locations: self.texts("allowedLocations")?.iter().map(|text| location(text)).collect(),
            history_shared: self.flag("historyShared")?,
            start_version: self.number("startVersion")?.unwrap_or(0),
            directory_access: self.flag("directoryAccess")?,
            signer_role: self.role(SIGNER_ROLE)?,
            filter,
        })
    }

    fn expiry(&self, name: &str) -> Result<Option<DateTime<Utc>>> {
        expiry::parse(self.required(name)?)
            .ok_or_else(|| self.unreadable(&format!("has an attribute {name} that is not {}", expiry::FORMS)))
    }
}

/// A token as it is stored.
pub(super) struct StoredToken {
    pub(super) hash: TokenHash,
    pub(super) record: TokenRecord,
    /// When it was created, as it is written; it orders lists and rotations.
    pub(super) created: Option<String>,
}

/// What a token stands for, by the item that servers look up.
pub(super) fn token(item: &Item) -> Result<StoredToken> {
    let reader = Reader::new("token", item)?;
    let hash = reader.key(keys::PARTITION).strip_prefix(keys::TOKENS).and_then(TokenHash::from_hex);
    // Servers look a hash up in lower case.
    let hash = hash.filter(|hash| reader.has_key(&Key::token(*hash)));
    let hash = hash.ok_or_else(|| {
        reader.unreadable(
            "has a key that is not TOKEN# and 64 lower-case hexadecimal digits, so it is never looked up",
        )
    })?;
    let id = reader.text("id")?.filter(|id| !id.is_empty()).map_or_else(|| hash.short(), Into::into);
    let recipient = reader.name("recipient", Name::share)?.as_str().into();
    let record = TokenRecord { recipient, id, expires: reader.expiry("expires")? };
    Ok(StoredToken { hash, record, created: reader.written("created") })
}

/// The entry of a token in the list of its recipient: its id, and the hash in the key of the token's own item. Servers do
/// not read it.
pub(super) fn listed_token(item: &Item) -> Result<(String, TokenHash)> {
    let reader = Reader::new("listed token", item)?;
    let hash = TokenHash::from_hex(reader.required("sha256")?)
        .ok_or_else(|| reader.unreadable("has an attribute sha256 that is not 64 hexadecimal digits"))?;
    reader.expiry("expires")?;
    let in_key = || reader.key(keys::SORT).strip_prefix(keys::TOKENS).unwrap_or_default();
    let id = reader.text("id")?.filter(|id| !id.is_empty()).unwrap_or_else(in_key);
    Ok((id.to_owned(), hash))
}

/// What an activation link hands out, as it is stored. Both texts are encrypted with keys that only the link has.
pub(super) struct StoredActivation {
    /// The recipient's name.
    pub(super) recipient: Name,
    /// The hash of the token in the profile.
    pub(super) token: TokenHash,
    /// When the link expires.
    pub(super) expires: DateTime<Utc>,
    /// What the page shows.
    pub(super) invitation: Vec<u8>,
    /// The profile.
    pub(super) profile: Vec<u8>,
}

/// What an activation link hands out.
pub(super) fn activation(item: &Item) -> Result<StoredActivation> {
    let reader = Reader::new("activation", item)?;
    let bytes = |name: &str| {
        let bytes = reader.get(name, |value| Some(value.as_b().ok()?.as_ref().to_vec()), "binary")?;
        bytes.ok_or_else(|| reader.unreadable(&format!("has no attribute {name}")))
    };
    let token = TokenHash::from_hex(reader.required("sha256")?)
        .ok_or_else(|| reader.unreadable("has an attribute sha256 that is not 64 hexadecimal digits"))?;
    let expires = reader.expiry("expires")?.ok_or_else(|| reader.unreadable("never expires"))?;
    Ok(StoredActivation {
        recipient: reader.name("recipient", Name::share)?,
        token,
        expires,
        invitation: bytes("invitation")?,
        profile: bytes("profile")?,
    })
}

/// An OIDC policy and its recipient. Servers look for it below its issuer, so its key must be the one of what it says.
pub(super) fn oidc_policy(item: &Item) -> Result<RecipientPolicy> {
    let reader = Reader::new("OIDC policy", item)?;
    let policy = OidcPolicy {
        issuer: reader.required("issuer")?.to_owned(),
        subject_claim: reader.required("subjectClaim")?.to_owned(),
        subject: reader.required("subject")?.to_owned(),
        audiences: reader.texts("audiences")?.into_iter().collect(),
    };
    policy.check().map_err(|reason| reader.unreadable(&format!("has an invalid policy: {reason}")))?;
    if !reader.has_key(&Key::oidc_policy(&policy)) {
        return Err(reader.unreadable("has a key that is not the one of its issuer, claim and subject"));
    }
    Ok(RecipientPolicy::checked(reader.name("recipient", Name::share)?.as_str().into(), policy))
}

/// The attributes of an OIDC policy, without its keys.
pub(super) fn oidc_policy_attributes(
    recipient: &str,
    policy: &OidcPolicy,
) -> Vec<(&'static str, AttributeValue)> {
    let audiences = policy.audiences.iter().map(value).collect();
    vec![
        ("recipient", value(recipient)),
        ("issuer", value(&policy.issuer)),
        ("subjectClaim", value(&policy.subject_claim)),
        ("subject", value(&policy.subject)),
        ("audiences", AttributeValue::L(audiences)),
    ]
}

/// A recipient as it is stored.
pub(super) struct StoredRecipient {
    pub(super) name: Name,
    /// Whether it may read.
    pub(super) active: bool,
    pub(super) comment: Option<String>,
    /// What filters read of it.
    pub(super) properties: Properties,
    pub(super) restrictions: Restrictions,
}

/// A recipient.
pub(super) fn recipient(item: &Item) -> Result<StoredRecipient> {
    let (reader, restrictions) = Reader::restricted("recipient", item)?;
    // Servers go by the key, so a script may have left the name out.
    let name = match reader.text("name")? {
        Some(_) => reader.name("name", Name::share)?,
        None => reader.name_in_key("RECIPIENT#")?,
    };
    reader.must_have_key(&Key::recipient(name.as_str()))?;
    let active = match reader.required("status")? {
        "active" => true,
        "disabled" => false,
        _ => return Err(reader.unreadable("has a status that is neither active nor disabled")),
    };
    let properties = reader.properties()?;
    Ok(StoredRecipient { name, active, comment: reader.written("comment"), properties, restrictions })
}

/// A share as it is stored.
pub(super) struct StoredShare {
    pub(super) record: ShareRecord,
    pub(super) comment: Option<String>,
    /// It is being deleted, and no longer served.
    pub(super) deleting: bool,
}

impl StoredShare {
    /// The share, unless it is being deleted.
    pub(super) fn served(self) -> Option<ShareRecord> {
        (!self.deleting).then_some(self.record)
    }
}

/// A share.
pub(super) fn share(item: &Item) -> Result<StoredShare> {
    let reader = Reader::new("share", item)?;
    let name = reader.name("name", Name::share)?;
    reader.must_have_key(&Key::share(name.as_str()))?;
    let record = ShareRecord { name, id: reader.required("id")?.to_owned() };
    Ok(StoredShare { record, comment: reader.written("comment"), deleting: reader.flag("deleting")? })
}

/// Whether a newer version wrote the record. Its other attributes may restrict what is shared.
pub(super) fn is_newer(item: &Item) -> bool {
    let format = item.get(FORMAT_ATTRIBUTE).and_then(|format| format.as_n().ok()?.parse::<u64>().ok());
    format.is_some_and(|format| format > u64::from(PATTERNS_FORMAT))
}

/// Whether a grant that cannot be read may be one of some tables.
pub(super) fn may_have_patterns(item: &Item) -> bool {
    let format = item.get(FORMAT_ATTRIBUTE).and_then(|format| format.as_n().ok());
    item.contains_key(GRANTED_TABLES) || format.is_some_and(|format| *format == PATTERNS_FORMAT.to_string())
}

/// A grant as it is stored.
pub(super) struct StoredGrant {
    /// The share's name.
    pub(super) share: Name,
    /// What is shared of it.
    pub(super) state: GrantState,
}

/// A grant of a share. The key is what grants it, so the name must be the one in the key.
pub(super) fn grant(item: &Item) -> Result<StoredGrant> {
    let (reader, state) = Reader::granted(item)?;
    let share = reader.name("share", Name::share)?;
    reader.must_have_sort_key(&Key::grant("", share.as_str()))?;
    Ok(StoredGrant { share, state })
}

/// The attributes of a grant, without its keys. A grant may lack its patterns and its filter, and no other attributes.
pub(super) fn grant_attributes(
    recipient: &str,
    share: &str,
    state: &GrantState,
) -> Vec<(&'static str, AttributeValue)> {
    let mut attributes = vec![("share", value(share)), ("recipient", value(recipient))];
    attributes.extend(filter_attributes(state.filter.as_ref()));
    if let Some(tables) = &state.tables {
        attributes.push((GRANTED_TABLES, AttributeValue::L(tables.texts().map(value).collect())));
        // The last one counts.
        attributes.push((FORMAT_ATTRIBUTE, number(PATTERNS_FORMAT.into())));
    }
    attributes
}

/// The filter, and the format of a record that has it.
fn filter_attributes(
    filter: Option<&PartitionFilter>,
) -> impl Iterator<Item = (&'static str, AttributeValue)> {
    let format = if filter.is_some() { FILTERED_FORMAT } else { FORMAT };
    let filter = filter.map(|filter| (FILTER, value(filter.text())));
    std::iter::once((FORMAT_ATTRIBUTE, number(format.into()))).chain(filter)
}

/// Properties as an attribute; `None` if there are none.
pub(super) fn properties_attribute(properties: &Properties) -> Option<(&'static str, AttributeValue)> {
    let map = properties.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    (!properties.is_empty()).then_some((PROPERTIES, AttributeValue::M(map)))
}

/// The restrictions of a recipient, and the format of a record that has them.
pub(super) fn restriction_attributes(restrictions: &Restrictions) -> Vec<(&'static str, AttributeValue)> {
    let Restrictions { allowed_ips, requests_per_minute, bytes_per_day } = restrictions;
    let is_restricted = *restrictions != Restrictions::default();
    let format = if is_restricted { RESTRICTED_FORMAT } else { FORMAT };
    let mut attributes = vec![(FORMAT_ATTRIBUTE, number(format.into()))];
    let list = |ips: &AllowedIps| AttributeValue::L(ips.texts().into_iter().map(value).collect());
    attributes.extend(allowed_ips.as_ref().map(|ips| (ALLOWED_IPS, list(ips))));
    attributes.extend(requests_per_minute.map(|limit| (REQUESTS_PER_MINUTE, number(limit))));
    attributes.extend(bytes_per_day.map(|limit| (BYTES_PER_DAY, number(limit))));
    attributes
}

/// The name of a schema.
pub(super) fn schema(item: &Item) -> Result<Name> {
    let reader = Reader::new("schema", item)?;
    let name = reader.name("name", Name::schema_or_table)?;
    reader.must_have_sort_key(&Key::schema("", name.as_str()))?;
    Ok(name)
}

/// A table of `share`.
pub(super) fn table(item: &Item, share: &ShareRecord) -> Result<TableRecord> {
    let (reader, filter) = Reader::filtered("table", item)?;
    let schema = reader.name("schema", Name::schema_or_table)?;
    let name = reader.name("name", Name::schema_or_table)?;
    reader.must_have_sort_key(&Key::table("", schema.as_str(), name.as_str()))?;
    Ok(TableRecord {
        share: share.name.clone(),
        share_id: share.id.clone(),
        schema,
        name,
        id: reader.required("id")?.to_owned(),
        access: FileAccess::filtered(filter.clone(), &Properties::new()),
        allowed_ips: None,
        settings: reader.settings(filter)?,
        locations_checked: false,
    })
}

/// The attributes of a table, without its keys. The signer role and the filter are the only ones that a table may lack.
pub(super) fn table_attributes(
    schema: &str,
    name: &Name,
    id: &str,
    settings: &TableSettings,
) -> Vec<(&'static str, AttributeValue)> {
    let allowed = settings.allowed_locations.iter().map(|location| value(location.text()));
    let mut attributes = vec![
        ("name", value(name.as_str())),
        ("schema", value(schema)),
        ("id", value(id)),
        ("location", value(settings.location.text())),
        ("allowedLocations", AttributeValue::L(allowed.collect())),
        ("historyShared", AttributeValue::Bool(settings.history_shared)),
        ("startVersion", number(settings.start_version)),
        ("directoryAccess", AttributeValue::Bool(settings.directory_access)),
    ];
    attributes.extend(settings.signer_role.as_ref().map(|role| (SIGNER_ROLE, value(role.as_str()))));
    attributes.extend(filter_attributes(settings.filter.as_ref()));
    attributes
}

/// A table as its own record says it; which share it is in makes no difference to that.
pub(super) fn table_alone(item: &Item) -> Result<TableRecord> {
    let (reader, _) = Reader::filtered("table", item)?;
    let name = reader.name("name", Name::share)?;
    table(item, &ShareRecord { name, id: String::new() })
}

/// What an item is, by its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Activation,
    OidcPolicy,
    Recipient,
    Grant,
    ListedToken,
    Share,
    GrantedTo,
    Schema,
    Table,
    /// Nothing that this version knows.
    Other,
}

/// What an item is, by its keys.
pub(super) fn kind(item: &Item) -> Kind {
    let (partition, sort) = (text(item, keys::PARTITION), text(item, keys::SORT));
    let of = |prefixes: &[(&str, Kind)]| {
        prefixes.iter().find(|(prefix, _)| sort.starts_with(prefix)).map_or(Kind::Other, |(_, kind)| *kind)
    };
    match (partition.split_once('#').map(|(kind, _)| kind), sort) {
        (Some("TOKEN"), "TOKEN") => Kind::Token,
        (Some("ACTIVATION"), "ACTIVATION") => Kind::Activation,
        (Some("OIDC"), _) => of(&[(keys::POLICIES, Kind::OidcPolicy)]),
        (Some("RECIPIENT"), "RECIPIENT") => Kind::Recipient,
        (Some("RECIPIENT"), _) => of(&[(keys::GRANTS, Kind::Grant), (keys::TOKENS, Kind::ListedToken)]),
        (Some("SHARE"), "SHARE") => Kind::Share,
        (Some("SHARE"), _) => of(&[
            (keys::SCHEMAS, Kind::Schema),
            (keys::TABLES, Kind::Table),
            (keys::GRANTED_TO, Kind::GrantedTo),
        ]),
        _ => Kind::Other,
    }
}

/// The text of an attribute; empty if it is none.
pub(super) fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

/// A record that is read as it should be, but has a fault that its reader does not see.
pub(super) fn fault(kind: &'static str, item: &Item, reason: &str) -> BadRecord {
    Reader { kind, item }.unreadable(reason)
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
    item.insert(FORMAT_ATTRIBUTE.to_owned(), AttributeValue::N(FORMAT.to_string()));
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

/// Where an item is.
pub(super) fn key_of(item: &Item) -> Key {
    Key { partition: text(item, keys::PARTITION).to_owned(), sort: text(item, keys::SORT).to_owned() }
}
