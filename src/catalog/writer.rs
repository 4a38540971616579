//! The write side of the catalog in DynamoDB, for the command line.
//!
//! Every operation is one transaction, or a row of them that begins by taking what it removes out of service: killed
//! at any point it happened, did not happen, or is gone on with by the same operation. Records that are changed carry
//! a revision; of two who change one at the same time, the second is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata as _, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem, Update};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::keys::{self, Key};
use super::records::{self, BadRecord, FORMAT, Item, key_attributes};
use super::state::{Change, RecipientState, ShareState, State, TableState};
use super::unpaired::unpaired;
use super::{TokenHash, TokenRecord};
use crate::protocol::names::{InvalidName, Name};
use crate::role::RoleArn;

/// The most live tokens of a recipient: two, while one replaces the other.
const LIVE_TOKENS: usize = 2;

/// How many items one transaction may have.
const TRANSACTION: usize = 100;

/// Why a change was not made.
#[derive(Debug)]
pub enum WriteError {
    /// It is there already.
    Exists(String),
    /// It is not there.
    Missing(String),
    /// Somebody else changed it at the same time.
    Conflict(String),
    /// It may not be.
    Refused(String),
    /// DynamoDB did not do it.
    Failed(String),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(what) => write!(f, "{what} is there already"),
            Self::Missing(what) => write!(f, "there is no {what}"),
            Self::Conflict(what) => {
                write!(f, "{what} was changed by somebody else at the same time; try again")
            }
            Self::Refused(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for WriteError {}

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
}

/// A token of a recipient, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedToken {
    /// Names it.
    pub id: String,
    /// When it ends; `None` for never.
    pub expires: Option<DateTime<Utc>>,
    /// When it was made.
    pub created: String,
    hash: String,
}

impl ListedToken {
    fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
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
    tokens: Vec<ListedToken>,
}

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn time(time: Option<DateTime<Utc>>) -> AttributeValue {
    text(time.map_or_else(|| "never".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true)))
}

fn string<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
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
        let missing = || format!("schema '{schema}' in share '{share}'");
        let item = self.get(&Key::schema(share, schema)).await?;
        let item = item.ok_or_else(|| WriteError::Missing(missing()))?;
        let schema = string(&item, "name");
        self.transact(vec![
            self.share_is_there(share),
            self.is_there(&Key::schema(share, schema), missing()),
            self.put_new(
                &Key::table(share, schema, name.as_str()),
                table_attributes(schema, name, table),
                format!("table '{share}.{schema}.{name}'"),
            ),
        ])
        .await
    }

    /// Deletes a table from its share. The table's files are not touched.
    pub async fn delete_table(&self, share: &str, schema: &str, table: &str) -> Result<()> {
        let key = Key::table(share, schema, table);
        self.transact(vec![self.delete_old(&key, format!("table '{share}.{schema}.{table}'"))]).await
    }

    /// Deletes a schema that has no table.
    pub async fn delete_schema(&self, share: &str, schema: &str) -> Result<()> {
        let tables = self.query(&keys::share_partition(share), &keys::tables_of(schema)).await?;
        if !tables.is_empty() {
            return Err(WriteError::Refused(format!(
                "schema '{schema}' has {} tables; delete them first",
                tables.len()
            )));
        }
        let what = format!("schema '{schema}' in share '{share}'");
        self.transact(vec![self.delete_old(&Key::schema(share, schema), what)]).await
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
            otherwise: WriteError::Missing(format!("share '{share}'")),
        }])
        .await?;
        let mut doomed = Vec::new();
        for item in self.query(&key.partition, "").await? {
            let sort = string(&item, keys::SORT).to_owned();
            if sort.starts_with(keys::GRANTED_TO) {
                doomed.push(Key::grant(string(&item, "recipient"), share));
            }
            if sort != key.sort {
                doomed.push(Key { partition: key.partition.clone(), sort });
            }
        }
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
        let who = self.name_of(&key, format!("recipient '{recipient}'")).await?;
        let share = self.share_name(share.as_str()).await?;
        let mut steps = vec![self.is_there(&key, format!("recipient '{recipient}'"))];
        steps.extend(self.grant_steps(&who, &share));
        self.transact(steps).await
    }

    /// The name of a record, as it was spelled when it was made.
    async fn name_of(&self, key: &Key, what: String) -> Result<String> {
        let item = self.get(key).await?.ok_or(WriteError::Missing(what))?;
        Ok(string(&item, "name").to_owned())
    }

    async fn share_name(&self, share: &str) -> Result<String> {
        self.name_of(&Key::share(share), format!("share '{share}'")).await
    }

    /// Takes a share from a recipient.
    pub async fn revoke(&self, recipient: &str, share: &str) -> Result<()> {
        self.transact(vec![
            self.delete_old(
                &Key::grant(recipient, share),
                format!("grant of share '{share}' to '{recipient}'"),
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
            otherwise: WriteError::Missing(format!("recipient '{recipient}'")),
        }])
        .await?;
        let mut doomed = Vec::new();
        for item in self.query(&key.partition, "").await? {
            let sort = string(&item, keys::SORT).to_owned();
            if sort.starts_with(keys::TOKENS) {
                doomed.push(Key {
                    partition: format!("TOKEN#{}", string(&item, "sha256")),
                    sort: "TOKEN".to_owned(),
                });
            }
            if sort.starts_with(keys::GRANTS) {
                doomed.push(Key::granted_to(string(&item, "share"), recipient));
            }
            if sort != key.sort {
                doomed.push(Key { partition: key.partition.clone(), sort });
            }
        }
        for chunk in doomed.chunks(TRANSACTION) {
            self.transact(chunk.iter().map(|key| self.delete_any(key)).collect()).await?;
        }
        self.transact(vec![self.delete_any(&key)]).await
    }

    /// A table as it is shared.
    pub async fn table(&self, share: &str, schema: &str, table: &str) -> Result<TableState> {
        let item = self.get(&Key::table(share, schema, table)).await?;
        let missing = || WriteError::Missing(format!("table '{share}.{schema}.{table}'"));
        item.as_ref().map(table_state).ok_or_else(missing)
    }

    /// What a token stands for now; `None` where it is not known.
    pub async fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>> {
        let item = self.get(&Key::token(hash)).await?;
        let token = item.as_ref().map(records::token).transpose();
        token.map_err(|error| WriteError::Failed(error.to_string()))
    }

    /// The tokens of a recipient, the newest first.
    pub async fn tokens(&self, recipient: &str) -> Result<Vec<ListedToken>> {
        let items = self.query(&keys::recipient_partition(recipient), keys::TOKENS).await?;
        let mut tokens: Vec<_> = items.iter().map(listed_token).collect();
        tokens.sort_by(|a, b| b.created.cmp(&a.created));
        Ok(tokens)
    }

    /// Gives a recipient a token more. Refused where it has two live ones.
    pub async fn create_token(&self, recipient: &str, token: &NewToken) -> Result<()> {
        let Turn { step, who, tokens } = self.turn(recipient).await?;
        let now = Utc::now();
        if tokens.iter().filter(|token| token.is_live(now)).count() >= LIVE_TOKENS {
            return Err(WriteError::Refused(format!(
                "recipient '{recipient}' has {LIVE_TOKENS} live tokens; revoke one first, or rotate"
            )));
        }
        let mut steps = vec![step];
        steps.extend(self.token_steps(&who, token));
        self.transact(steps).await
    }

    /// Replaces a recipient's token: the newest one is good for `grace` more at most, older ones end now. The
    /// life of a token is only ever shortened. Of several rotations at the same time one is made.
    pub async fn rotate_token(&self, recipient: &str, token: &NewToken, grace: TimeDelta) -> Result<()> {
        let Turn { step, who, tokens } = self.turn(recipient).await?;
        let mut steps = vec![step];
        let now = Utc::now();
        for (age, old) in tokens.iter().filter(|token| token.is_live(now)).enumerate() {
            let end = if age == 0 { now + grace } else { now };
            let end = old.expires.map_or(end, |expires| expires.min(end));
            for key in [token_key(&old.hash), Key::token_of(recipient, &old.id)] {
                let update = Update::builder()
                    .table_name(&self.table)
                    .set_key(Some(key_attributes(&key)))
                    .update_expression("SET expires = :end")
                    .condition_expression("attribute_exists(pk)")
                    .expression_attribute_values(":end", time(Some(end)))
                    .build();
                steps.push(Step {
                    item: TransactWriteItem::builder().update(built(update)?).build(),
                    otherwise: WriteError::Conflict(format!("recipient '{recipient}'")),
                });
            }
        }
        steps.extend(self.token_steps(&who, token));
        self.transact(steps).await
    }

    /// Ends a token now.
    pub async fn revoke_token(&self, recipient: &str, id: &str) -> Result<()> {
        let found = self.tokens(recipient).await?.into_iter().find(|token| token.id == id);
        let missing = || format!("token '{id}' of recipient '{recipient}'");
        let token = found.ok_or_else(|| WriteError::Missing(missing()))?;
        self.transact(vec![
            self.delete_old(&Key::token_of(recipient, id), missing()),
            self.delete_any(&token_key(&token.hash)),
        ])
        .await
    }

    /// Takes the turn to change a recipient's tokens: the step fails where somebody else changed them since.
    async fn turn(&self, recipient: &str) -> Result<Turn> {
        let key = Key::recipient(recipient);
        let item = self.get(&key).await?;
        let item = item.ok_or_else(|| WriteError::Missing(format!("recipient '{recipient}'")))?;
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
        Ok(Turn { step, who: string(&item, "name").to_owned(), tokens: self.tokens(recipient).await? })
    }

    /// Every record that misses another one which it belongs to.
    pub async fn unpaired_records(&self) -> Result<Vec<BadRecord>> {
        Ok(unpaired(&self.items().await?))
    }

    /// The records that servers cannot read.
    pub async fn bad_records(&self) -> Result<Vec<BadRecord>> {
        let mut bad: Vec<_> =
            self.items().await?.iter().filter_map(|item| records::check(item).err()).collect();
        bad.sort_by(|a, b| (&a.partition, &a.sort).cmp(&(&b.partition, &b.sort)));
        Ok(bad)
    }

    /// Everything that the table holds, but for shares that are being deleted.
    pub async fn state(&self) -> Result<State> {
        let items = self.items().await?;
        let mut state = State::default();
        let mut shares = HashMap::new();
        let mut recipients = HashMap::new();
        let sort = |item: &Item| string(item, keys::SORT).to_owned();
        for item in &items {
            let (partition, name) =
                (string(item, keys::PARTITION).to_owned(), string(item, "name").to_owned());
            let key = Name::key_of(&name);
            match sort(item).as_str() {
                "SHARE" if !item.contains_key("deleting") => {
                    let share =
                        ShareState { name, id: string(item, "id").to_owned(), schemas: BTreeMap::new() };
                    state.shares.insert(key.clone(), share);
                    shares.insert(partition, key);
                }
                "RECIPIENT" => {
                    let recipient = RecipientState { name, shares: BTreeSet::new(), tokens: BTreeMap::new() };
                    state.recipients.insert(key.clone(), recipient);
                    recipients.insert(partition, key);
                }
                _ => {}
            }
        }
        for item in &items {
            let (partition, sort) = (string(item, keys::PARTITION), sort(item));
            if let Some(share) = shares.get(partition).and_then(|key| state.shares.get_mut(key)) {
                if sort.starts_with(keys::SCHEMAS) {
                    let name = string(item, "name");
                    share.schemas.entry(Name::key_of(name)).or_default().name = name.to_owned();
                } else if sort.starts_with(keys::TABLES) {
                    let schema = share.schemas.entry(Name::key_of(string(item, "schema"))).or_default();
                    let table = table_state(item);
                    schema.tables.insert(Name::key_of(&table.name), table);
                }
            }
            if let Some(recipient) = recipients.get(partition).and_then(|key| state.recipients.get_mut(key)) {
                if sort.starts_with(keys::GRANTS) {
                    recipient.shares.insert(Name::key_of(string(item, "share")));
                } else if sort.starts_with(keys::TOKENS) {
                    let token = listed_token(item);
                    recipient.tokens.insert(token.hash, token.expires);
                }
            }
        }
        Ok(state)
    }

    /// Makes one change. Refused or told of a conflict where what it begins from is no longer there.
    pub async fn apply(&self, change: &Change) -> Result<()> {
        let name = |text: &str, check: fn(&str) -> Result<Name, InvalidName>| {
            check(text).map_err(|error| WriteError::Refused(error.to_string()))
        };
        match change {
            Change::AddShare(share) => {
                self.create_share(&name(&share.name, Name::share)?, &share.id, None).await
            }
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
                let attributes = vec![("name", text(&recipient.name)), ("status", text("active"))];
                let what = format!("recipient '{}'", recipient.name);
                self.transact(vec![self.put_new(&Key::recipient(&recipient.name), attributes, what)]).await
            }
            Change::RemoveRecipient(recipient) => self.delete_recipient(recipient).await,
            Change::Grant(recipient, share) => self.grant(recipient, &name(share, Name::share)?).await,
            Change::Revoke(recipient, share) => self.revoke(recipient, share).await,
            Change::AddToken(recipient, hash, expires) => {
                let parsed = TokenHash::from_hex(hash);
                let hash = parsed.ok_or_else(|| WriteError::Refused(format!("{hash} is not a hash")))?;
                let id = hash.to_hex().chars().take(8).collect();
                self.create_token(recipient, &NewToken { id, hash, expires: *expires }).await
            }
            Change::TokenEnd(recipient, hash, before, after) => {
                let id = self.token_id(recipient, hash).await?;
                let set = [("expires", time(*before), time(*after))];
                let what = || format!("token '{id}' of recipient '{recipient}'");
                let steps = [token_key(hash), Key::token_of(recipient, &id)]
                    .iter()
                    .map(|key| self.set(key, &set, what()))
                    .collect::<Result<_>>()?;
                self.transact(steps).await
            }
            Change::RemoveToken(recipient, hash) => {
                self.revoke_token(recipient, &self.token_id(recipient, hash).await?).await
            }
        }
    }

    async fn token_id(&self, recipient: &str, hash: &str) -> Result<String> {
        let found = self.tokens(recipient).await?.into_iter().find(|token| token.hash == hash);
        let found = found.map(|token| token.id);
        found.ok_or_else(|| WriteError::Missing(format!("such token of recipient '{recipient}'")))
    }

    /// Changes a table from what it was read as. Told of a conflict where it is no longer that.
    async fn update_table(&self, share: &str, schema: &str, both: &(TableState, TableState)) -> Result<()> {
        let (before, after) = both;
        check_locations(after)?;
        let name =
            Name::schema_or_table(&after.name).map_err(|error| WriteError::Refused(error.to_string()))?;
        let key = Key::table(share, schema, &before.name);
        let what = format!("table '{share}.{schema}.{}'", before.name);
        let item = self.get(&key).await?.filter(|item| table_state(item) == *before);
        let item = item.ok_or_else(|| WriteError::Conflict(what.clone()))?;
        let attributes = table_attributes(string(&item, "schema"), &name, after);
        let mut put = item.clone();
        // The one attribute that may be left out.
        put.remove("signerRole");
        put.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self.transact(vec![self.replace(&item, put, what)?]).await
    }

    /// Changes the comment of a share; `None` takes it away.
    pub async fn update_share(&self, share: &str, comment: Option<&str>) -> Result<()> {
        self.update(&Key::share(share), format!("share '{share}'"), |item| set_comment(item, comment)).await
    }

    /// Changes the comment of a recipient, where `comment` is given, and whether it may read, where `active` is.
    pub async fn update_recipient(
        &self,
        recipient: &str,
        comment: Option<Option<&str>>,
        active: Option<bool>,
    ) -> Result<()> {
        self.update(&Key::recipient(recipient), format!("recipient '{recipient}'"), |item| {
            if let Some(comment) = comment {
                set_comment(item, comment);
            }
            if let Some(active) = active {
                item.insert("status".to_owned(), text(if active { "active" } else { "disabled" }));
            }
        })
        .await
    }

    async fn update(&self, key: &Key, what: String, change: impl FnOnce(&mut Item)) -> Result<()> {
        let before = self.get(key).await?.ok_or_else(|| WriteError::Missing(what.clone()))?;
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

    fn delete_old(&self, key: &Key, what: String) -> Step {
        Step { item: self.delete(key, Some("attribute_exists(pk)")), otherwise: WriteError::Missing(what) }
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

    fn is_there(&self, key: &Key, what: String) -> Step {
        self.check(key, "attribute_exists(pk)", WriteError::Missing(what))
    }

    fn share_is_there(&self, share: &str) -> Step {
        let missing = WriteError::Missing(format!("share '{share}'"));
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
        let attributes = || {
            vec![
                ("recipient", text(recipient)),
                ("id", text(&token.id)),
                ("expires", time(token.expires)),
                ("created", text(Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true))),
            ]
        };
        let mut listed = attributes();
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
    let mut locations = std::iter::once(&table.location).chain(&table.allowed_locations);
    locations.find(|location| !is_s3(location)).map_or(Ok(()), |location| {
        Err(WriteError::Refused(format!("location {location}: a table served from DynamoDB lies in s3://")))
    })
}

fn table_attributes<'a>(schema: &str, name: &Name, table: &TableState) -> Vec<(&'a str, AttributeValue)> {
    let mut attributes = vec![
        ("name", text(name.as_str())),
        ("schema", text(schema)),
        ("id", text(&table.id)),
        ("location", text(&table.location)),
        ("allowedLocations", AttributeValue::L(table.allowed_locations.iter().map(text).collect())),
        ("historyShared", AttributeValue::Bool(table.history_shared)),
        ("startVersion", number(table.start_version)),
        ("directoryAccess", AttributeValue::Bool(table.directory_access)),
    ];
    attributes.extend(table.signer_role.as_ref().map(|role| ("signerRole", text(role.as_str()))));
    attributes
}

fn listed_token(item: &Item) -> ListedToken {
    ListedToken {
        id: string(item, "id").to_owned(),
        expires: DateTime::parse_from_rfc3339(string(item, "expires")).ok().map(|time| time.to_utc()),
        created: string(item, "created").to_owned(),
        hash: string(item, "sha256").to_owned(),
    }
}

fn table_state(item: &Item) -> TableState {
    let flag = |name: &str| item.get(name).and_then(|value| value.as_bool().ok()).is_some_and(|flag| *flag);
    let allowed = item.get("allowedLocations").and_then(|value| value.as_l().ok());
    let allowed = allowed.into_iter().flatten().filter_map(|location| location.as_s().ok());
    let start = item.get("startVersion").and_then(|value| value.as_n().ok()?.parse().ok());
    TableState {
        name: string(item, "name").to_owned(),
        id: string(item, "id").to_owned(),
        location: bare(string(item, "location")),
        allowed_locations: allowed.map(|location| bare(location)).collect(),
        history_shared: flag("historyShared"),
        start_version: start.unwrap_or(0),
        directory_access: flag("directoryAccess"),
        signer_role: RoleArn::parse(string(item, "signerRole")),
    }
}

/// A location without the slashes at its end, unless it has nothing else.
fn bare(location: &str) -> String {
    let bare = location.trim_end_matches('/');
    if bare.is_empty() { location.to_owned() } else { bare.to_owned() }
}

fn token_key(hash: &str) -> Key {
    Key { partition: format!("TOKEN#{hash}"), sort: "TOKEN".to_owned() }
}

fn built<T>(built: std::result::Result<T, aws_sdk_dynamodb::error::BuildError>) -> Result<T> {
    built.map_err(|error| WriteError::Failed(error.to_string()))
}

fn failed<E, R>(error: SdkError<E, R>) -> WriteError
where
    E: std::error::Error + aws_sdk_dynamodb::error::ProvideErrorMetadata + Send + Sync + 'static,
    R: fmt::Debug + Send + Sync + 'static,
{
    let message = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("DynamoDB refused: {code}: {message}"),
        (Some(code), None) => format!("DynamoDB refused: {code}"),
        (None, _) => format!("DynamoDB does not answer: {}", DisplayErrorContext(error)),
    };
    WriteError::Failed(message)
}
