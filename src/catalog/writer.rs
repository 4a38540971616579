//! The write side of the catalog in DynamoDB, for the command line.
//!
//! Every operation is one transaction, or a row of them that begins by taking what it removes out of service: killed
//! at any point it happened, did not happen, or is gone on with by the same operation. Records that are changed carry
//! a revision; of two who change one at the same time, the second is told.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem, Update};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::keys::{self, Key};
use super::reading::Reading;
use super::records::{self, BadRecord, FORMAT, Item, Kind, key_attributes, text as string};
use super::state::{Change, RecipientState, TableState, TokenState};
use super::{TokenHash, TokenRecord, expiry};
use crate::error::innermost;
use crate::protocol::names::{InvalidName, Name};

/// The most live tokens of a recipient: two, while one replaces the other.
pub const LIVE_TOKENS: usize = 2;

/// How many items one transaction may have.
const TRANSACTION: usize = 100;

/// Why a change was not made.
#[derive(Debug)]
pub enum WriteError {
    /// It is there already.
    Exists(String),
    /// It is not there.
    Missing(Missing),
    /// Somebody else changed it at the same time.
    Conflict(String),
    /// It may not be.
    Refused(String),
    /// A record stands in the way that cannot be read.
    Unreadable(BadRecord),
    /// The DynamoDB table is not there.
    NoTable,
    /// DynamoDB did not do it.
    Failed(String),
}

/// What is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// A share.
    Share(String),
    /// A schema: (share, schema).
    Schema(String, String),
    /// A table: (share, schema, table).
    Table(String, String, String),
    /// A recipient.
    Recipient(String),
    /// A grant: (recipient, share).
    Grant(String, String),
    /// A token: (recipient, id).
    Token(String, String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "share '{share}'"),
            Self::Schema(share, schema) => write!(f, "schema '{schema}' in share '{share}'"),
            Self::Table(share, schema, table) => write!(f, "table '{share}.{schema}.{table}'"),
            Self::Recipient(recipient) => write!(f, "recipient '{recipient}'"),
            Self::Grant(recipient, share) => write!(f, "grant of share '{share}' to '{recipient}'"),
            Self::Token(recipient, id) => write!(f, "token '{id}' of recipient '{recipient}'"),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(what) => write!(f, "{what} is there already"),
            Self::Missing(what) => write!(f, "there is no {what}"),
            Self::Conflict(what) => {
                write!(f, "{what} was changed by somebody else at the same time; try again")
            }
            Self::Unreadable(record) => {
                write!(
                    f,
                    "{record}. Put it right with the script that wrote it, or delete it and make it again"
                )
            }
            Self::NoTable => f.write_str("the DynamoDB table is not there"),
            Self::Refused(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<BadRecord> for WriteError {
    fn from(record: BadRecord) -> Self {
        Self::Unreadable(record)
    }
}

type Result<T, E = WriteError> = std::result::Result<T, E>;

/// A token to store; the token itself is not.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Names it in lists and logs.
    pub id: String,
    /// Its hash.
    pub hash: TokenHash,
    /// When it ends; `None` where its owner said never.
    pub expires: Option<DateTime<Utc>>,
    /// When it was made; `None` for now.
    pub created: Option<String>,
}

/// A token of a recipient: its two records, or the one that is there.
#[derive(Debug, Clone)]
pub struct FoundToken {
    /// Names it.
    pub id: String,
    /// When it ends; `None` for never.
    pub expires: Option<DateTime<Utc>>,
    /// When it was made, as it is written.
    pub created: String,
    /// Its hash, where one of its records says it.
    pub hash: Option<TokenHash>,
    /// Whether servers know it. If not, it does not work, whenever it ends.
    pub is_known: bool,
    /// Whether it is in the list of its recipient's tokens.
    pub is_listed: bool,
    /// Why a record of it cannot be read.
    pub fault: Option<String>,
    /// The keys of its records, as they were written.
    records: Vec<Key>,
}

impl FoundToken {
    /// By the record that servers look up.
    fn known(item: &Item) -> Self {
        let hash = string(item, keys::PARTITION).strip_prefix(keys::TOKENS).and_then(TokenHash::from_hex);
        let read = records::token(item);
        let id = || hash.map_or_else(String::new, |hash| hash.short().to_string());
        Self {
            id: Some(string(item, "id")).filter(|id| !id.is_empty()).map_or_else(id, str::to_owned),
            expires: read.as_ref().ok().and_then(|token| token.record.expires),
            created: string(item, "created").to_owned(),
            hash,
            is_known: read.is_ok(),
            is_listed: false,
            fault: read.err().map(|bad| bad.reason),
            records: vec![key_of(item)],
        }
    }

    /// By the record that lists it.
    fn listed(item: &Item) -> Self {
        let read = records::listed_token(item);
        let in_key = || string(item, keys::SORT).trim_start_matches(keys::TOKENS).to_owned();
        Self {
            id: Some(string(item, "id")).filter(|id| !id.is_empty()).map_or_else(in_key, str::to_owned),
            expires: expiry::parse(string(item, "expires")).flatten(),
            created: string(item, "created").to_owned(),
            hash: TokenHash::from_hex(string(item, "sha256")),
            is_known: false,
            is_listed: true,
            fault: read.err().map(|bad| bad.reason),
            records: vec![key_of(item)],
        }
    }

    /// Whether it works at `now`.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.is_known && self.expires.is_none_or(|expires| expires > now)
    }

    fn has_hash(&self, digits: &str) -> bool {
        self.hash.is_some_and(|hash| hash.to_hex().starts_with(digits))
    }
}

/// The partition of the recipient that a token or a grant is of.
fn owner(item: &Item) -> Option<String> {
    match records::kind(item) {
        Kind::Token => Some(keys::recipient_partition(string(item, "recipient"))),
        Kind::ListedToken | Kind::Grant => Some(string(item, keys::PARTITION).to_owned()),
        _ => None,
    }
}

/// The tokens among the records of a recipient, the newest first: those that servers know, whether they are listed or
/// not, and those that are only listed.
fn tokens_of(records: &[&Item]) -> Vec<FoundToken> {
    let of_kind = |kind| records.iter().filter(move |item| records::kind(item) == kind);
    let mut tokens: Vec<FoundToken> = of_kind(Kind::Token).map(|item| FoundToken::known(item)).collect();
    let known = tokens.len();
    for item in of_kind(Kind::ListedToken) {
        let listed = FoundToken::listed(item);
        let pair =
            tokens.iter_mut().take(known).find(|token| token.hash.is_some() && token.hash == listed.hash);
        match pair {
            Some(token) => {
                token.is_listed = true;
                token.id = listed.id;
                token.records.extend(listed.records);
            }
            None => tokens.push(listed),
        }
    }
    let age = |token: &FoundToken| (expiry::parse(&token.created).flatten(), token.created.clone());
    tokens.sort_by(|a, b| age(b).cmp(&age(a)).then_with(|| a.id.cmp(&b.id)));
    tokens
}

/// A recipient, as it is listed.
#[derive(Debug)]
pub struct ListedRecipient {
    /// Its record.
    pub record: Item,
    /// Why the record cannot be read; servers refuse every token of the recipient then.
    pub fault: Option<BadRecord>,
    /// Its tokens, the newest first.
    pub tokens: Vec<FoundToken>,
    /// The names of the shares that it may read.
    pub shares: Vec<String>,
}

/// Changes the catalog in one DynamoDB table.
#[derive(Debug, Clone)]
pub struct Writer {
    client: Client,
    table: String,
}

/// One step of a transaction, and what it means where its condition fails.
struct Step {
    item: TransactWriteItem,
    otherwise: WriteError,
}

/// The turn to change a recipient's tokens.
struct Turn {
    step: Step,
    /// The recipient's name, as it was spelled when it was made.
    who: String,
    /// Its tokens, the newest first.
    tokens: Vec<FoundToken>,
}

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Sets when a token ends, and when DynamoDB may delete its record.
fn set_end(item: &mut Item, end: Option<DateTime<Utc>>) {
    item.insert("expires".to_owned(), text(expiry::format(end)));
    match expiry::delete_after(end) {
        Some(seconds) => item.insert(expiry::DELETE_AFTER.to_owned(), AttributeValue::N(seconds.to_string())),
        None => item.remove(expiry::DELETE_AFTER),
    };
}

/// Where an item is.
fn key_of(item: &Item) -> Key {
    Key { partition: string(item, keys::PARTITION).to_owned(), sort: string(item, keys::SORT).to_owned() }
}

fn set_comment(item: &mut Item, comment: Option<&str>) {
    match comment {
        Some(comment) => item.insert("comment".to_owned(), text(comment)),
        None => item.remove("comment"),
    };
}

fn revision(item: &Item) -> Option<u64> {
    item.get("revision")?.as_n().ok()?.parse().ok()
}

impl Writer {
    /// A writer to `table`, reached as `config` says.
    pub fn new(config: aws_sdk_dynamodb::config::Builder, table: &str) -> Self {
        Self { client: Client::from_conf(config.build()), table: table.to_owned() }
    }

    /// The DynamoDB table.
    pub fn table_name(&self) -> &str {
        &self.table
    }

    /// Makes a share. Refused while an older one of the name is being deleted.
    pub async fn create_share(&self, name: &Name, id: &str, comment: Option<&str>) -> Result<()> {
        if self.get(&Key::share(name.as_str())).await?.is_some_and(|item| item.contains_key("deleting")) {
            return Err(WriteError::Refused(format!(
                "share '{name}' is being deleted; finish that with: deltashare share delete '{name}'"
            )));
        }
        let mut attributes = vec![("name", text(name.as_str())), ("id", text(id))];
        attributes.extend(comment.map(|comment| ("comment", text(comment))));
        self.transact(vec![self.put_new(&Key::share(name.as_str()), attributes, format!("share '{name}'"))])
            .await
    }

    /// Makes a schema in a share.
    pub async fn create_schema(&self, share: &str, schema: &Name) -> Result<()> {
        self.transact(vec![
            self.share_is_there(share),
            self.put_new(
                &Key::schema(share, schema.as_str()),
                vec![("name", text(schema.as_str()))],
                format!("schema '{schema}' in share '{share}'"),
            ),
        ])
        .await
    }

    /// Makes a table in a schema.
    pub async fn create_table(&self, share: &str, schema: &str, table: &TableState) -> Result<()> {
        check_locations(table)?;
        let name =
            &Name::schema_or_table(&table.name).map_err(|error| WriteError::Refused(error.to_string()))?;
        if self.get(&Key::share(share)).await?.is_none() {
            return Err(WriteError::Missing(Missing::Share(share.to_owned())));
        }
        let missing = || Missing::Schema(share.to_owned(), schema.to_owned());
        let item = self.get(&Key::schema(share, schema)).await?;
        let item = item.ok_or_else(|| WriteError::Missing(missing()))?;
        let schema = records::schema(&item)?;
        let schema = schema.as_str();
        self.transact(vec![
            self.share_is_there(share),
            self.is_there(&Key::schema(share, schema), missing()),
            self.put_new(
                &Key::table(share, schema, name.as_str()),
                records::table_attributes(schema, name, &table.id, &table.settings),
                format!("table '{share}.{schema}.{name}'"),
            ),
        ])
        .await
    }

    /// Deletes a table from its share. The table's files are not touched.
    pub async fn delete_table(&self, share: &str, schema: &str, table: &str) -> Result<()> {
        let key = Key::table(share, schema, table);
        let missing = Missing::Table(share.to_owned(), schema.to_owned(), table.to_owned());
        self.transact(vec![self.delete_old(&key, missing)]).await
    }

    /// Deletes a schema that has no table.
    pub async fn delete_schema(&self, share: &str, schema: &str) -> Result<()> {
        let tables = self.query(&keys::share_partition(share), &keys::tables_of(schema)).await?;
        if !tables.is_empty() {
            return Err(WriteError::Refused(format!(
                "schema '{schema}' has {}; delete them first",
                count(tables.len(), "table")
            )));
        }
        let missing = Missing::Schema(share.to_owned(), schema.to_owned());
        self.transact(vec![self.delete_old(&Key::schema(share, schema), missing)]).await
    }

    /// Deletes a share with its schemas, tables and grants. It is out of service with the first step; the same
    /// call goes on where an earlier one was interrupted. `progress` hears how many items are gone.
    pub async fn delete_share(&self, share: &str, mut progress: impl FnMut(usize)) -> Result<()> {
        let key = Key::share(share);
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key_attributes(&key)))
            .update_expression("SET deleting = :true")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .build();
        self.transact(vec![Step {
            item: TransactWriteItem::builder().update(built(update)?).build(),
            otherwise: WriteError::Missing(Missing::Share(share.to_owned())),
        }])
        .await?;
        // The grants as servers find them, also those that the share does not list: a share that is created again by this
        // name must be granted to nobody.
        let granted = Key::grant("", share).sort;
        let is_of_share = |item: &Item| {
            string(item, keys::PARTITION) == key.partition && string(item, keys::SORT) != key.sort
                || records::kind(item) == Kind::Grant && string(item, keys::SORT) == granted
        };
        let doomed: Vec<Key> =
            self.items().await?.iter().filter(|item| is_of_share(item)).map(key_of).collect();
        let mut gone = 0;
        for chunk in doomed.chunks(TRANSACTION) {
            let steps = chunk.iter().map(|key| self.delete_any(key)).collect();
            self.transact(steps).await?;
            gone += chunk.len();
            progress(gone);
        }
        self.transact(vec![self.delete_any(&key)]).await
    }

    /// Makes a recipient, with shares and a token, at once.
    pub async fn create_recipient(
        &self,
        name: &Name,
        comment: Option<&str>,
        shares: &[Name],
        token: &NewToken,
    ) -> Result<()> {
        let who = name.as_str();
        let mut attributes = vec![("name", text(who)), ("status", text("active"))];
        attributes.extend(comment.map(|comment| ("comment", text(comment))));
        let mut steps = vec![self.put_new(&Key::recipient(who), attributes, format!("recipient '{name}'"))];
        for share in shares {
            steps.extend(self.grant_steps(who, &self.share_name(share.as_str()).await?));
        }
        steps.extend(self.token_steps(who, token));
        if steps.len() > TRANSACTION {
            return Err(WriteError::Refused(
                "grant some of the shares later: these are too many at once".to_owned(),
            ));
        }
        self.transact(steps).await
    }

    /// Grants a share to a recipient. Nothing changes where it is granted already.
    pub async fn grant(&self, recipient: &str, share: &Name) -> Result<()> {
        let key = Key::recipient(recipient);
        let (_, who) = self.recipient_item(recipient).await?;
        let share = self.share_name(share.as_str()).await?;
        let mut steps = vec![self.is_there(&key, Missing::Recipient(recipient.to_owned()))];
        steps.extend(self.grant_steps(&who, &share));
        self.transact(steps).await
    }

    /// The name of a share, as it was spelled when it was made.
    async fn share_name(&self, share: &str) -> Result<String> {
        let item = self.get(&Key::share(share)).await?;
        let item = item.ok_or_else(|| WriteError::Missing(Missing::Share(share.to_owned())))?;
        Ok(records::share(&item)?.record.name.as_str().to_owned())
    }

    /// A recipient's record, and its name as it was spelled when it was made.
    async fn recipient_item(&self, recipient: &str) -> Result<(Item, String)> {
        let item = self.get(&Key::recipient(recipient)).await?;
        let item = item.ok_or_else(|| WriteError::Missing(Missing::Recipient(recipient.to_owned())))?;
        let name = records::recipient(&item)?.name.as_str().to_owned();
        Ok((item, name))
    }

    /// Takes a share from a recipient.
    pub async fn revoke(&self, recipient: &str, share: &str) -> Result<()> {
        self.transact(vec![
            self.delete_old(
                &Key::grant(recipient, share),
                Missing::Grant(recipient.to_owned(), share.to_owned()),
            ),
            self.delete_any(&Key::granted_to(share, recipient)),
        ])
        .await
    }

    /// Deletes a recipient with its tokens and grants. No token of it is good from the first step on.
    pub async fn delete_recipient(&self, recipient: &str) -> Result<()> {
        let key = Key::recipient(recipient);
        let disabled = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key_attributes(&key)))
            .update_expression("SET #status = :disabled")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":disabled", text("disabled"))
            .build();
        self.transact(vec![Step {
            item: TransactWriteItem::builder().update(built(disabled)?).build(),
            otherwise: WriteError::Missing(Missing::Recipient(recipient.to_owned())),
        }])
        .await?;
        let listed = Key::granted_to("", recipient).sort;
        let who = Name::key_of(recipient);
        let is_of_recipient = |item: &Item| match records::kind(item) {
            Kind::Token => Name::key_of(string(item, "recipient")) == who,
            Kind::GrantedTo => string(item, keys::SORT) == listed,
            _ => string(item, keys::PARTITION) == key.partition && string(item, keys::SORT) != key.sort,
        };
        let doomed: Vec<Key> =
            self.items().await?.iter().filter(|item| is_of_recipient(item)).map(key_of).collect();
        for chunk in doomed.chunks(TRANSACTION) {
            self.transact(chunk.iter().map(|key| self.delete_any(key)).collect()).await?;
        }
        self.transact(vec![self.delete_any(&key)]).await
    }

    /// A table as it is shared.
    pub async fn table(&self, share: &str, schema: &str, table: &str) -> Result<TableState> {
        let item = self.get(&Key::table(share, schema, table)).await?;
        let missing = Missing::Table(share.to_owned(), schema.to_owned(), table.to_owned());
        Ok(table_state(&item.ok_or(WriteError::Missing(missing))?)?)
    }

    /// What a token stands for now; `None` where it is not known.
    pub async fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>> {
        let item = self.get(&Key::token(hash)).await?;
        Ok(item.as_ref().map(records::token).transpose()?.map(|token| token.record))
    }

    /// The tokens of a recipient, the newest first: those that servers know, whether they are listed or not, and those
    /// that are only listed.
    pub async fn tokens(&self, recipient: &str) -> Result<Vec<FoundToken>> {
        let partition = keys::recipient_partition(recipient);
        let items = self.items().await?;
        let own: Vec<_> = items.iter().filter(|item| owner(item).as_ref() == Some(&partition)).collect();
        Ok(tokens_of(&own))
    }

    /// Every recipient's record, with its tokens and the names of the shares that are granted to it.
    pub async fn recipients(&self) -> Result<Vec<ListedRecipient>> {
        let items = self.items().await?;
        let mut owned: HashMap<String, Vec<&Item>> = HashMap::new();
        for item in &items {
            if let Some(partition) = owner(item) {
                owned.entry(partition).or_default().push(item);
            }
        }
        let recipients = items.iter().filter(|item| records::kind(item) == Kind::Recipient);
        let listed = recipients.map(|record| {
            let own = owned.remove(string(record, keys::PARTITION)).unwrap_or_default();
            let grants = own.iter().filter(|item| records::kind(item) == Kind::Grant);
            ListedRecipient {
                fault: records::recipient(record).err(),
                shares: grants.map(|item| string(item, "share").to_owned()).collect(),
                tokens: tokens_of(&own),
                record: record.clone(),
            }
        });
        Ok(listed.collect())
    }

    /// Gives a recipient a token more. Refused where it has two live ones.
    pub async fn create_token(&self, recipient: &str, token: &NewToken) -> Result<()> {
        let Turn { step, who, tokens } = self.turn(recipient).await?;
        let now = Utc::now();
        let is_live = token.expires.is_none_or(|expires| expires > now);
        if is_live && tokens.iter().filter(|token| token.is_live(now)).count() >= LIVE_TOKENS {
            return Err(WriteError::Refused(format!(
                "recipient '{recipient}' has {LIVE_TOKENS} live tokens; revoke one first, or rotate"
            )));
        }
        let mut steps = vec![step];
        steps.extend(self.token_steps(&who, token));
        self.transact(steps).await
    }

    /// Replaces a recipient's token: the newest one is good for `grace` more at most, older ones end now. The
    /// life of a token is only ever shortened. Of several rotations at the same time, one succeeds. Returns when the
    /// tokens end that worked until now, by their ids, the newest first.
    pub async fn rotate_token(
        &self,
        recipient: &str,
        token: &NewToken,
        grace: TimeDelta,
    ) -> Result<Vec<(String, DateTime<Utc>)>> {
        let Turn { step, who, tokens } = self.turn(recipient).await?;
        let mut steps = vec![step];
        let mut ends = Vec::new();
        let now = to_seconds(Utc::now());
        for (age, old) in tokens.iter().filter(|token| token.is_live(now)).enumerate() {
            let end = if age == 0 { now + grace } else { now };
            let end = old.expires.map_or(end, |expires| expires.min(end));
            steps.extend(self.end_steps(recipient, old, Some(end)).await?);
            ends.push((old.id.clone(), end));
        }
        steps.extend(self.token_steps(&who, token));
        if steps.len() > TRANSACTION {
            return Err(WriteError::Refused(format!(
                "recipient '{recipient}' has {} live tokens, which cannot end at once; revoke some first",
                ends.len()
            )));
        }
        self.transact(steps).await?;
        Ok(ends)
    }

    /// Changes when a token ends, in the records that it has, if nobody changes them at the same time.
    async fn end_steps(
        &self,
        recipient: &str,
        token: &FoundToken,
        end: Option<DateTime<Utc>>,
    ) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for key in &token.records {
            let what = format!("recipient '{recipient}'");
            let before = self.get(key).await?.ok_or_else(|| WriteError::Conflict(what.clone()))?;
            let mut after = before.clone();
            set_end(&mut after, end);
            steps.push(self.replace(&before, after, what)?);
        }
        Ok(steps)
    }

    /// Ends a token now: the one with this id, or whose hash begins with it, where it has eight digits or more.
    pub async fn revoke_token(&self, recipient: &str, id: &str) -> Result<()> {
        let tokens = self.tokens(recipient).await?;
        let mut found: Vec<_> = tokens.iter().filter(|token| token.id == id).collect();
        if found.is_empty() && id.len() >= 8 {
            let digits = id.to_lowercase();
            found = tokens.iter().filter(|token| token.has_hash(&digits)).collect();
        }
        match found.as_slice() {
            [] => Err(WriteError::Missing(Missing::Token(recipient.to_owned(), id.to_owned()))),
            [token] => self.remove_token(token).await,
            several => {
                let hashes: Vec<_> = several
                    .iter()
                    .filter_map(|token| token.hash)
                    .map(|hash| hash.short().to_string())
                    .collect();
                Err(WriteError::Refused(format!(
                    "{} tokens of recipient '{recipient}' have the id '{id}'; in its place, name one by the first digits \
                     of its hash: {}",
                    several.len(),
                    hashes.join(", ")
                )))
            }
        }
    }

    async fn remove_token(&self, token: &FoundToken) -> Result<()> {
        self.transact(token.records.iter().map(|key| self.delete_any(key)).collect()).await
    }

    /// Takes the turn to change a recipient's tokens: the step fails where somebody else changed them since.
    async fn turn(&self, recipient: &str) -> Result<Turn> {
        let key = Key::recipient(recipient);
        let (item, who) = self.recipient_item(recipient).await?;
        let before = revision(&item);
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key_attributes(&key)))
            .update_expression("SET revision = :next")
            .expression_attribute_values(":next", number(before.unwrap_or(0) + 1));
        let update = match before {
            Some(before) => update
                .condition_expression("revision = :before")
                .expression_attribute_values(":before", number(before)),
            None => update.condition_expression("attribute_exists(pk) AND attribute_not_exists(revision)"),
        };
        let step = Step {
            item: TransactWriteItem::builder().update(built(update.build())?).build(),
            otherwise: WriteError::Conflict(format!("recipient '{recipient}'")),
        };
        Ok(Turn { step, who, tokens: self.tokens(recipient).await? })
    }

    /// Everything that the table holds, as servers see it, and what they cannot read.
    pub async fn read(&self) -> Result<Reading> {
        Ok(Reading::new(&self.items().await?))
    }

    /// The records that servers cannot read.
    pub async fn bad_records(&self) -> Result<Vec<BadRecord>> {
        Ok(self.read().await?.bad)
    }

    /// Makes one change. Refused or told of a conflict where what it begins from is no longer there.
    pub async fn apply(&self, change: &Change) -> Result<()> {
        let name = |text: &str, check: fn(&str) -> Result<Name, InvalidName>| {
            check(text).map_err(|error| WriteError::Refused(error.to_string()))
        };
        match change {
            Change::AddShare(share) => {
                let comment = share.comment.as_deref();
                self.create_share(&name(&share.name, Name::share)?, &share.id, comment).await
            }
            Change::ShareComment(share, _, comment) => self.update_share(share, comment.as_deref()).await,
            Change::ShareId(share, before, after) => {
                let set = [("id", text(before), text(after))];
                self.transact(vec![self.set(&Key::share(share), &set, format!("share '{share}'"))?]).await
            }
            Change::RemoveShare(share) => self.delete_share(share, |_| {}).await,
            Change::AddSchema(share, schema) => {
                self.create_schema(share, &name(schema, Name::schema_or_table)?).await
            }
            Change::RemoveSchema(share, schema) => self.delete_schema(share, schema).await,
            Change::AddTable(share, schema, table) => self.create_table(share, schema, table).await,
            Change::UpdateTable(share, schema, both) => self.update_table(share, schema, both).await,
            Change::RemoveTable(share, schema, table) => self.delete_table(share, schema, table).await,
            Change::AddRecipient(recipient) => {
                let RecipientState { name, active, comment, .. } = recipient;
                let mut attributes = vec![("name", text(name)), ("status", text(status(*active)))];
                attributes.extend(comment.as_ref().map(|comment| ("comment", text(comment))));
                let what = format!("recipient '{name}'");
                self.transact(vec![self.put_new(&Key::recipient(name), attributes, what)]).await
            }
            Change::RecipientComment(recipient, _, comment) => {
                self.update_recipient(recipient, Some(comment.as_deref()), None).await
            }
            Change::RecipientStatus(recipient, active) => {
                self.update_recipient(recipient, None, Some(*active)).await
            }
            Change::RemoveRecipient(recipient) => self.delete_recipient(recipient).await,
            Change::Grant(recipient, share) => self.grant(recipient, &name(share, Name::share)?).await,
            Change::Revoke(recipient, share) => self.revoke(recipient, share).await,
            Change::AddToken(recipient, hash, token) => {
                let parsed = TokenHash::from_hex(hash);
                let hash = parsed.ok_or_else(|| WriteError::Refused(format!("{hash} is not a hash")))?;
                let TokenState { id, expires, created } = token.clone();
                self.create_token(recipient, &NewToken { id, hash, expires, created }).await
            }
            Change::TokenEnd(recipient, hash, before, after) => {
                let Turn { step, tokens, .. } = self.turn(recipient).await?;
                let token = found_token(recipient, hash, tokens)?;
                if token.expires != *before {
                    return Err(WriteError::Conflict(format!(
                        "token '{}' of recipient '{recipient}'",
                        token.id
                    )));
                }
                let mut steps = vec![step];
                steps.extend(self.end_steps(recipient, &token, *after).await?);
                self.transact(steps).await
            }
            Change::RemoveToken(recipient, hash) => {
                self.remove_token(&found_token(recipient, hash, self.tokens(recipient).await?)?).await
            }
        }
    }

    /// Changes a table from what it was read as. Told of a conflict where it is no longer that.
    async fn update_table(&self, share: &str, schema: &str, both: &(TableState, TableState)) -> Result<()> {
        let (before, after) = both;
        check_locations(after)?;
        let name =
            Name::schema_or_table(&after.name).map_err(|error| WriteError::Refused(error.to_string()))?;
        let key = Key::table(share, schema, &before.name);
        let what = format!("table '{share}.{schema}.{}'", before.name);
        let item = self.get(&key).await?.ok_or_else(|| WriteError::Conflict(what.clone()))?;
        if table_state(&item)? != *before {
            return Err(WriteError::Conflict(what));
        }
        let attributes =
            records::table_attributes(string(&item, "schema"), &name, &after.id, &after.settings);
        let mut put = item.clone();
        put.remove(records::SIGNER_ROLE);
        put.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self.transact(vec![self.replace(&item, put, what)?]).await
    }

    /// Changes the comment of a share; `None` takes it away.
    pub async fn update_share(&self, share: &str, comment: Option<&str>) -> Result<()> {
        let missing = Missing::Share(share.to_owned());
        self.update(&Key::share(share), missing, |item| set_comment(item, comment)).await
    }

    /// Changes the comment of a recipient, where `comment` is given, and whether it may read, where `active` is.
    pub async fn update_recipient(
        &self,
        recipient: &str,
        comment: Option<Option<&str>>,
        active: Option<bool>,
    ) -> Result<()> {
        let missing = Missing::Recipient(recipient.to_owned());
        self.update(&Key::recipient(recipient), missing, |item| {
            if let Some(comment) = comment {
                set_comment(item, comment);
            }
            if let Some(active) = active {
                item.insert("status".to_owned(), text(status(active)));
            }
        })
        .await
    }

    async fn update(&self, key: &Key, missing: Missing, change: impl FnOnce(&mut Item)) -> Result<()> {
        let what = missing.to_string();
        let before = self.get(key).await?.ok_or(WriteError::Missing(missing))?;
        let mut after = before.clone();
        change(&mut after);
        self.transact(vec![self.replace(&before, after, what)?]).await
    }

    /// Puts `after` where the item still is what `before` says, in every attribute.
    fn replace(&self, before: &Item, after: Item, what: String) -> Result<Step> {
        let mut condition = vec!["attribute_exists(pk)".to_owned()];
        let mut put = Put::builder().table_name(&self.table);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for (at, name) in names.into_iter().enumerate() {
            put = put.expression_attribute_names(format!("#n{at}"), name);
            match before.get(name) {
                Some(value) => {
                    condition.push(format!("#n{at} = :v{at}"));
                    put = put.expression_attribute_values(format!(":v{at}"), value.clone());
                }
                None => condition.push(format!("attribute_not_exists(#n{at})")),
            }
        }
        let put = put.set_item(Some(after)).condition_expression(condition.join(" AND ")).build();
        let item = TransactWriteItem::builder().put(built(put)?).build();
        Ok(Step { item, otherwise: WriteError::Conflict(what) })
    }

    /// Sets attributes of a record that have the values they are expected to have.
    fn set(&self, key: &Key, set: &[(&str, AttributeValue, AttributeValue)], what: String) -> Result<Step> {
        let list = |joined: &str| {
            let each: Vec<_> = (0..set.len()).map(|at| format!("#n{at} = {joined}{at}")).collect();
            each
        };
        let mut update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .update_expression(format!("SET {}", list(":after").join(", ")))
            .condition_expression(list(":before").join(" AND "));
        for (at, (name, before, after)) in set.iter().enumerate() {
            update = update
                .expression_attribute_names(format!("#n{at}"), *name)
                .expression_attribute_values(format!(":before{at}"), before.clone())
                .expression_attribute_values(format!(":after{at}"), after.clone());
        }
        let item = TransactWriteItem::builder().update(built(update.build())?).build();
        Ok(Step { item, otherwise: WriteError::Conflict(what) })
    }

    /// Every item with this sort key, for lists; reads the whole table.
    pub async fn scan(&self, sort: &str) -> Result<Vec<Item>> {
        let mut items = self.items().await?;
        items.retain(|item| string(item, keys::SORT) == sort);
        Ok(items)
    }

    async fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let answer = self
                .client
                .scan()
                .table_name(&self.table)
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(failed)?;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// The items of a partition whose sort keys begin with `prefix`.
    pub async fn query(&self, partition: &str, prefix: &str) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let request = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .expression_attribute_values(":pk", text(partition))
                .set_exclusive_start_key(start);
            let request = match prefix {
                "" => request.key_condition_expression("pk = :pk"),
                prefix => request
                    .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                    .expression_attribute_values(":prefix", text(prefix)),
            };
            let answer = request.send().await.map_err(failed)?;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        Ok(request.set_key(Some(key_attributes(key))).send().await.map_err(failed)?.item)
    }

    fn put(
        &self,
        key: &Key,
        attributes: Vec<(&str, AttributeValue)>,
        condition: Option<&str>,
    ) -> TransactWriteItem {
        let mut item: HashMap<String, AttributeValue> = key_attributes(key);
        item.insert("format".to_owned(), number(FORMAT.into()));
        item.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let put = Put::builder().table_name(&self.table).set_item(Some(item));
        let put = put.set_condition_expression(condition.map(str::to_owned)).build();
        TransactWriteItem::builder().set_put(put.ok()).build()
    }

    fn put_new(&self, key: &Key, attributes: Vec<(&str, AttributeValue)>, what: String) -> Step {
        let item = self.put(key, attributes, Some("attribute_not_exists(pk)"));
        Step { item, otherwise: WriteError::Exists(what) }
    }

    fn delete(&self, key: &Key, condition: Option<&str>) -> TransactWriteItem {
        let delete = Delete::builder().table_name(&self.table).set_key(Some(key_attributes(key)));
        let delete = delete.set_condition_expression(condition.map(str::to_owned)).build();
        TransactWriteItem::builder().set_delete(delete.ok()).build()
    }

    fn delete_old(&self, key: &Key, missing: Missing) -> Step {
        Step { item: self.delete(key, Some("attribute_exists(pk)")), otherwise: WriteError::Missing(missing) }
    }

    fn delete_any(&self, key: &Key) -> Step {
        let otherwise = WriteError::Conflict(format!("the record {}", key.sort));
        Step { item: self.delete(key, None), otherwise }
    }

    fn check(&self, key: &Key, condition: &str, otherwise: WriteError) -> Step {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .condition_expression(condition)
            .build();
        Step { item: TransactWriteItem::builder().set_condition_check(check.ok()).build(), otherwise }
    }

    fn is_there(&self, key: &Key, missing: Missing) -> Step {
        self.check(key, "attribute_exists(pk)", WriteError::Missing(missing))
    }

    fn share_is_there(&self, share: &str) -> Step {
        let missing = WriteError::Missing(Missing::Share(share.to_owned()));
        self.check(&Key::share(share), "attribute_exists(pk) AND attribute_not_exists(deleting)", missing)
    }

    fn grant_steps(&self, recipient: &str, share: &str) -> [Step; 3] {
        let attributes = || vec![("share", text(share)), ("recipient", text(recipient))];
        let conflict = || WriteError::Conflict(format!("the grant of share '{share}'"));
        [
            self.share_is_there(share),
            Step { item: self.put(&Key::grant(recipient, share), attributes(), None), otherwise: conflict() },
            Step {
                item: self.put(&Key::granted_to(share, recipient), attributes(), None),
                otherwise: conflict(),
            },
        ]
    }

    fn token_steps(&self, recipient: &str, token: &NewToken) -> [Step; 2] {
        let now = || Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut item = Item::from([
            ("recipient".to_owned(), text(recipient)),
            ("id".to_owned(), text(&token.id)),
            ("created".to_owned(), text(token.created.clone().unwrap_or_else(now))),
        ]);
        set_end(&mut item, token.expires);
        let attributes = || item.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let mut listed: Vec<_> = attributes();
        listed.push(("sha256", text(token.hash.to_hex())));
        [
            self.put_new(&Key::token(token.hash), attributes(), "the token".to_owned()),
            self.put_new(&Key::token_of(recipient, &token.id), listed, format!("token '{}'", token.id)),
        ]
    }

    /// Makes all steps or none. The error is that of the first step whose condition failed.
    async fn transact(&self, steps: Vec<Step>) -> Result<()> {
        let (items, otherwise): (Vec<_>, Vec<_>) =
            steps.into_iter().map(|step| (step.item, step.otherwise)).unzip();
        let Err(error) = self.client.transact_write_items().set_transact_items(Some(items)).send().await
        else {
            return Ok(());
        };
        let reasons = match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                cancelled.cancellation_reasons()
            }
            _ => return Err(failed(error)),
        };
        let failed_at = |code: &str| reasons.iter().position(|reason| reason.code() == Some(code));
        if let Some(at) = failed_at("ConditionalCheckFailed") {
            if let Some(otherwise) = otherwise.into_iter().nth(at) {
                return Err(otherwise);
            }
        } else if failed_at("TransactionConflict").is_some() {
            return Err(WriteError::Conflict("the record".to_owned()));
        }
        Err(failed(error))
    }
}

/// A server over DynamoDB reads tables in S3 only, and least of all files of its own machine.
fn check_locations(table: &TableState) -> Result<()> {
    let is_s3 = |text: &str| ["s3://", "s3a://", "s3n://"].iter().any(|scheme| text.starts_with(scheme));
    let mut locations = table.settings.locations();
    locations.find(|location| !is_s3(location.text())).map_or(Ok(()), |location| {
        Err(WriteError::Refused(format!("location {location}: a table served from DynamoDB lies in s3://")))
    })
}

fn table_state(item: &Item) -> Result<TableState, BadRecord> {
    Ok(TableState::from(&records::table_alone(item)?))
}

fn status(active: bool) -> &'static str {
    if active { "active" } else { "disabled" }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn found_token(recipient: &str, hash: &str, tokens: Vec<FoundToken>) -> Result<FoundToken> {
    let found = tokens.into_iter().find(|token| token.has_hash(hash));
    let short = || hash.chars().take(8).collect();
    found.ok_or_else(|| WriteError::Missing(Missing::Token(recipient.to_owned(), short())))
}

/// The time without its fraction of a second: what lists and profiles show is then all there is.
pub fn to_seconds(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}

fn built<T>(built: std::result::Result<T, aws_sdk_dynamodb::error::BuildError>) -> Result<T> {
    built.map_err(|error| WriteError::Failed(error.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn failed<E, R>(error: SdkError<E, R>) -> WriteError
where
    E: std::error::Error + aws_sdk_dynamodb::error::ProvideErrorMetadata + Send + Sync + 'static,
    R: fmt::Debug + Send + Sync + 'static,
{
    if error.code() == Some("ResourceNotFoundException") {
        return WriteError::NoTable;
    }
    let message = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("DynamoDB refused: {code}: {message}"),
        (Some(code), None) => format!("DynamoDB refused: {code}"),
        (None, _) => format!("DynamoDB does not answer: {}", innermost(&error)),
    };
    WriteError::Failed(message)
}
