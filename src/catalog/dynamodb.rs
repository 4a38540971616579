//! The catalog in one DynamoDB table: no scan, no filter expression, no secondary index; every read is strongly
//! consistent, so that what was revoked is gone with the next request.
//!
//! A request for a table takes two round trips: the token's item, then recipient, grant, share and table
//! together. What a token stands for is remembered, so that the next request with it takes one: the token's item is
//! then read with the others. For a JWT, the first of the two queries the policies of its issuer, and the policy that it met
//! is remembered for a minute. Throttling and failures of the network are tried again within a deadline and then answered with 503:
//! never with 401, never with an empty list.

mod activations;
pub mod contents;
mod granted;
mod item_reader;
pub mod keys;
mod listed;
mod policies;
mod recipient_changes;
mod recipients;
pub mod records;
mod seen;
mod shares;
mod tokens;
mod transaction;
mod usage;
mod values;
mod write_error;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{
    Activation, Caller, Catalog, ListPage, PageRequest, Remembered, SchemaPage, ShareRecord, TableRecord,
    TokenHash, TokenRecord,
    grant::GrantState,
    oidc::{OidcPolicy, RecipientPolicy},
    restrictions::Restrictions,
    unknown_token,
};
use crate::error::{Error, Fault, Result};
use crate::protocol::activation::ActivationId;

pub use activations::{NewActivation, UnusedLink};
pub use contents::CatalogContents;
use granted::decided;
use item_reader::{ItemReader, failed, unavailable};
use keys::Key;
pub use listed::{
    ListedGrant, ListedRecipient, ListedSchema, ListedShare, ListedTable, ShownSchema, ShownShare,
    WrittenValue,
};
pub use policies::FoundPolicy;
pub use recipient_changes::{GrantBefore, GrantChanges, GrantFilter, GrantTables, RecipientChanges};
pub use recipients::Credential;
pub use records::BadRecord;
use records::{Item, StoredRecipient};
pub use seen::{SeenTable, SeenTables};
pub use tokens::{FoundToken, LIVE_TOKENS, NewToken, ReplacedToken, to_seconds};
pub use write_error::{MissingRecord, WriteError};
pub use writer::Writer;

/// How long one answer may wait for DynamoDB, attempts and all.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How many tokens are remembered.
const TOKENS_REMEMBERED: usize = 1000;

/// How long it is remembered which policy a JWT meets. The policy itself is read with every request. New policies that the JWT
/// also meets are noticed only after this time.
const POLICIES_REMEMBERED: TimeDelta = TimeDelta::minutes(1);

/// A [`Catalog`] over a DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoDbCatalog {
    reader: ItemReader,
    /// What tokens stood for when they were read last.
    tokens: Arc<Mutex<HashMap<TokenHash, TokenRecord>>>,
    /// Which policies verified JWTs met.
    policies: Arc<Mutex<HashMap<TokenHash, MetPolicy>>>,
}

impl DynamoDbCatalog {
    /// A catalog over `table`, reached as `config` says, that waits no longer than `deadline`.
    pub fn new(config: aws_sdk_dynamodb::config::Builder, table: &str, deadline: Duration) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(deadline / 4)
            .operation_attempt_timeout(deadline / 2)
            .operation_timeout(deadline)
            .build();
        let retries =
            RetryConfig::standard().with_max_attempts(5).with_initial_backoff(Duration::from_millis(50));
        let client = Client::from_conf(config.timeout_config(timeouts).retry_config(retries).build());
        let reader = ItemReader::new(client, table, deadline);
        Self { reader, tokens: Arc::default(), policies: Arc::default() }
    }

    /// The DynamoDB table.
    pub fn table_name(&self) -> &str {
        &self.reader.table
    }

    /// The key that every server over this table authenticates its page tokens, refresh tokens and ids of
    /// queries with. The first server creates it.
    pub async fn token_key(&self) -> Result<[u8; 32]> {
        let key = Key::token_key();
        if let Some(item) = self.reader.get(&key).await? {
            return records::token_key(&item).map_err(Error::internal);
        }
        let mut made = [0; 32];
        getrandom::fill(&mut made).map_err(|error| Error::internal(error.to_string()))?;
        let ItemReader { client, table, .. } = &self.reader;
        let put = client.put_item().table_name(table).set_item(Some(records::new_token_key(made)));
        let condition = format!("attribute_not_exists({})", keys::PARTITION);
        match put.condition_expression(condition).send().await {
            Ok(_) => Ok(made),
            // Another server was faster, and its key is the one that counts.
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => {
                let item = self.reader.get(&key).await?;
                let item = item.ok_or_else(|| unavailable("the key is gone"))?;
                records::token_key(&item).map_err(Error::internal)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens a connection before the first request needs one.
    pub async fn warm(&self) -> Result<()> {
        self.reader.get(&Key::token(TokenHash::of(""))).await.map(drop)
    }

    /// Leaves a record that cannot be read out of a list, so that the others are listed.
    fn listed<T>(&self, record: Result<T, BadRecord>) -> Option<T> {
        record.map_err(|bad| self.report(&bad)).ok()
    }

    /// Tells the log of a record that cannot be read.
    fn report(&self, bad: &BadRecord) {
        tracing::error!(
            dynamodb.table = self.reader.table,
            record.kind = bad.kind,
            record.partition = bad.partition,
            record.sort = bad.sort,
            reason = bad.reason,
            "a record of the catalog cannot be read"
        );
    }

    /// What a token's item says. One that cannot be read stands for nobody.
    fn token_of(&self, item: Option<&Item>) -> Option<TokenRecord> {
        item.and_then(|item| self.listed(records::token(item))).map(|token| token.record)
    }

    /// What is remembered of tokens. A panic while it was held has left it as it was.
    fn tokens(&self) -> MutexGuard<'_, HashMap<TokenHash, TokenRecord>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, hash: TokenHash, token: &TokenRecord) {
        put_bounded(&mut self.tokens(), hash, token.clone());
    }

    /// What is remembered of policies.
    fn policies(&self) -> MutexGuard<'_, HashMap<TokenHash, MetPolicy>> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The items of these keys, for a caller that may read, and the caller's recipient: it is read with them, and the
    /// caller's token or policy if that was only remembered. A recipient that is gone or disabled gets the answer to an
    /// unknown token.
    async fn get_for(&self, caller: &Caller, keys: &[Key]) -> Result<(StoredRecipient, Vec<Option<Item>>)> {
        let mut wanted = vec![Key::recipient(caller.recipient())];
        wanted.extend(caller.remembered.as_ref().map(|remembered| match remembered {
            Remembered::Token(hash) => Key::token(*hash),
            Remembered::Policy(_, policy) => Key::oidc_policy(policy),
        }));
        wanted.extend_from_slice(keys);
        let mut items = self.reader.get_all(&wanted).await?.into_iter();
        let recipient = items.next().flatten();
        match &caller.remembered {
            Some(Remembered::Token(hash)) => {
                self.check_remembered(caller, *hash, items.next().flatten().as_ref())?;
            }
            Some(Remembered::Policy(hash, policy)) => {
                let found = items.next().flatten();
                let found = found.and_then(|item| self.listed(records::oidc_policy(&item)));
                self.check_policy(caller, *hash, policy, found)?;
            }
            None => {}
        }
        match recipient.as_ref().map(records::recipient).transpose() {
            Ok(Some(recipient)) if recipient.active => {
                caller.check(&recipient.restrictions)?;
                self.count(caller, &recipient.restrictions).await?;
                Ok((recipient, items.collect()))
            }
            Ok(Some(_) | None) => Err(unknown_token()),
            Err(bad) => {
                self.report(&bad);
                let message =
                    "The record of the recipient cannot be read. Contact the provider of the share.";
                Err(Error::forbidden(message).with_fault(Fault::Record).with_source(bad))
            }
        }
    }

    /// Counts the caller's request, unless it is counted already or has no limit.
    async fn count(&self, caller: &Caller, restrictions: &Restrictions) -> Result<()> {
        if !restrictions.has_limits() {
            return Ok(());
        }
        let count = || async {
            self.reader.admit(caller.recipient(), restrictions, Utc::now()).await?;
            Ok(restrictions.clone())
        };
        caller.counted.get_or_try_init(count).await.map(drop)
    }

    fn check_remembered(&self, caller: &Caller, hash: TokenHash, item: Option<&Item>) -> Result<()> {
        match self.token_of(item) {
            Some(token) if token.recipient == caller.token.recipient => {
                self.remember(hash, &token);
                token.check_expiry()
            }
            other => {
                self.tokens().remove(&hash);
                // 503 makes the client ask once more, and the token is then read before anything else.
                Err(other.map_or_else(unknown_token, |_| unavailable("the token has another recipient now")))
            }
        }
    }

    fn check_policy(
        &self,
        caller: &Caller,
        hash: TokenHash,
        policy: &OidcPolicy,
        found: Option<RecipientPolicy>,
    ) -> Result<()> {
        match found {
            Some(found) if found.recipient == caller.token.recipient && *found.policy == *policy => Ok(()),
            other => {
                self.policies().remove(&hash);
                // 503 makes the client ask once more, and the policies are then read before anything else.
                Err(other.map_or_else(unknown_token, |_| unavailable("the policy has changed")))
            }
        }
    }

    /// The share, if it is granted to the caller, and the item of another key.
    async fn granted_with(
        &self,
        caller: &Caller,
        share: &str,
        other: Option<Key>,
    ) -> Result<(Option<GrantedShare>, Option<Item>)> {
        let mut keys = vec![Key::grant(caller.recipient(), share), Key::share(share)];
        keys.extend(other);
        let (recipient, items) = self.get_for(caller, &keys).await?;
        let mut items = items.into_iter();
        let mut next = || items.next().flatten();
        let (grant, share, other) = (next(), next(), next());
        let Some(grant) = grant else { return Ok((None, None)) };
        let grant = records::grant(&grant).map_err(|bad| {
            self.report(&bad);
            let message = "The grant of the share cannot be read. Contact the provider of the share.";
            Error::forbidden(message).with_fault(Fault::Record).with_source(bad)
        })?;
        let share = share.as_ref().map(records::share).transpose().map_err(|bad| {
            self.report(&bad);
            let message = "The record of the share cannot be read. Contact the provider of the share.";
            Error::unreadable_table(message).with_fault(Fault::Record).with_source(bad)
        })?;
        let share = share.and_then(records::StoredShare::served);
        Ok((share.map(|record| GrantedShare { record, state: grant.state, recipient }), other))
    }

    /// The share, if it is granted to the caller.
    async fn granted(&self, caller: &Caller, share: &str) -> Result<Option<ShareRecord>> {
        self.granted_with(caller, share, None).await.map(|(share, _)| share.map(|share| share.record))
    }
}

/// A policy that a JWT met, and until when that is remembered.
#[derive(Debug, Clone)]
struct MetPolicy {
    policy: RecipientPolicy,
    until: DateTime<Utc>,
}

/// Adds to what is remembered, which is never much.
fn put_bounded<T>(known: &mut HashMap<TokenHash, T>, hash: TokenHash, value: T) {
    if known.len() >= TOKENS_REMEMBERED && !known.contains_key(&hash) {
        // To forget all of them is simple, and costs each recipient one more read.
        known.clear();
    }
    known.insert(hash, value);
}

/// A share, as it is granted to a caller.
struct GrantedShare {
    record: ShareRecord,
    /// What is granted of it.
    state: GrantState,
    /// The caller's.
    recipient: StoredRecipient,
}

impl GrantedShare {
    /// A table of the share, with the caller's access to it. `None` if it is not granted.
    fn table(&self, item: &Item) -> Result<Option<TableRecord>, BadRecord> {
        let table = records::table(item, &self.record)?;
        let recipient = &self.recipient;
        let table = table.for_caller(&self.state, &recipient.properties);
        Ok(table.map(|table| table.restricted(&recipient.restrictions)))
    }
}

impl Catalog for DynamoDbCatalog {
    fn invitation(&self, id: ActivationId) -> BoxFuture<'_, Result<Option<Activation>>> {
        self.read_invitation(id).boxed()
    }

    fn activate(&self, id: ActivationId) -> BoxFuture<'_, Result<Option<Activation>>> {
        self.use_link(id).boxed()
    }

    fn caller(&self, hash: TokenHash) -> BoxFuture<'_, Result<Option<Caller>>> {
        async move {
            // A token that has expired, as far as is remembered, is read again: it may have been extended.
            let remembered = self.tokens().get(&hash).filter(|token| token.check_expiry().is_ok()).cloned();
            if let Some(token) = remembered {
                return Ok(Some(Caller::remembered(token, hash)));
            }
            let item = self.reader.get(&Key::token(hash)).await?;
            let token = self.token_of(item.as_ref());
            token.iter().for_each(|token| self.remember(hash, token));
            Ok(token.map(Caller::checked))
        }
        .boxed()
    }

    fn oidc_policies<'a>(
        &'a self,
        issuer: &'a str,
        jwt: TokenHash,
    ) -> BoxFuture<'a, Result<Vec<RecipientPolicy>>> {
        async move {
            let known = self.policies().get(&jwt).filter(|met| met.until > Utc::now()).cloned();
            if let Some(known) = known {
                return Ok(vec![RecipientPolicy { remembered: true, ..known.policy }]);
            }
            let partition = keys::oidc_partition(issuer);
            let found = self.reader.query(&partition, keys::POLICIES, &PageRequest::default()).await?;
            Ok(found.items.iter().filter_map(|item| self.listed(records::oidc_policy(item))).collect())
        }
        .boxed()
    }

    fn oidc_caller(&self, policy: RecipientPolicy, jwt: TokenHash) -> Caller {
        let caller = Caller::of_policy(&policy, jwt);
        if !policy.remembered {
            let met = MetPolicy { policy, until: Utc::now() + POLICIES_REMEMBERED };
            put_bounded(&mut self.policies(), jwt, met);
        }
        caller
    }

    fn anonymous(&self) -> BoxFuture<'_, Result<Option<Caller>>> {
        async { Ok(None) }.boxed()
    }

    fn shares<'a>(
        &'a self,
        caller: &'a Caller,
        page: PageRequest,
    ) -> BoxFuture<'a, Result<ListPage<ShareRecord>>> {
        async move {
            let partition = keys::recipient_partition(caller.recipient());
            // Both are read at the same time. If the caller may not read, nothing of its grants is shown.
            let (_, grants) = tokio::try_join!(
                self.get_for(caller, &[]),
                self.reader.query(&partition, keys::GRANTS, &page)
            )?;
            let granted = grants.items.iter().filter_map(|item| self.listed(records::grant(item)));
            let wanted: Vec<Key> = granted.map(|grant| Key::share(grant.share.as_str())).collect();
            let shares = self.reader.get_all(&wanted).await?;
            // A share that is gone leaves its grants for a moment.
            let shares = shares.iter().flatten().filter_map(|item| self.listed(records::share(item)));
            let items = shares.filter_map(records::StoredShare::served).collect();
            Ok(ListPage { items, more_after: grants.more_after })
        }
        .boxed()
    }

    fn share<'a>(&'a self, caller: &'a Caller, share: &'a str) -> BoxFuture<'a, Result<Option<ShareRecord>>> {
        self.granted(caller, share).boxed()
    }

    fn schemas<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        page: PageRequest,
    ) -> BoxFuture<'a, Result<Option<SchemaPage>>> {
        async move {
            let partition = keys::share_partition(share);
            let ((granted, _), whole) = decided(
                self.granted_with(caller, share, None).boxed(),
                |(granted, _)| granted.as_ref().is_none_or(|granted| granted.state.tables.is_none()),
                self.reader.query(&partition, keys::SCHEMAS, &page).boxed(),
            )
            .await?;
            let Some(granted) = granted else { return Ok(None) };
            let found = match (whole, &granted.state.tables) {
                (Some(whole), _) => whole,
                (None, Some(patterns)) => self.reader.granted_schemas(share, patterns, &page).await?,
                (None, None) => return Ok(None),
            };
            let items = found.items.iter().filter_map(|item| self.listed(records::schema(item))).collect();
            let schemas = ListPage { items, more_after: found.more_after };
            Ok(Some(SchemaPage { share: granted.record, schemas }))
        }
        .boxed()
    }

    fn tables<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: Option<&'a str>,
        page: PageRequest,
    ) -> BoxFuture<'a, Result<Option<ListPage<TableRecord>>>> {
        async move {
            let partition = keys::share_partition(share);
            let prefix = schema.map_or_else(|| keys::TABLES.to_owned(), keys::tables_of);
            let schema_key = schema.map(|schema| Key::schema(share, schema));
            let ((granted, schema_item), whole) = decided(
                self.granted_with(caller, share, schema_key).boxed(),
                |(granted, _)| granted.as_ref().is_none_or(|granted| granted.state.tables.is_none()),
                self.reader.query(&partition, &prefix, &page).boxed(),
            )
            .await?;
            let Some(granted) = granted.filter(|_| schema.is_none() || schema_item.is_some()) else {
                return Ok(None);
            };
            let found = match (whole, &granted.state.tables) {
                (Some(whole), _) => Some(whole),
                (None, Some(patterns)) => self.reader.granted_tables(share, schema, patterns, &page).await?,
                (None, None) => None,
            };
            let Some(found) = found else { return Ok(None) };
            let items =
                found.items.iter().filter_map(|item| self.listed(granted.table(item)).flatten()).collect();
            Ok(Some(ListPage { items, more_after: found.more_after }))
        }
        .boxed()
    }

    fn table<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: &'a str,
        table: &'a str,
    ) -> BoxFuture<'a, Result<Option<TableRecord>>> {
        async move {
            let key = Key::table(share, schema, table);
            let (granted, found) = self.granted_with(caller, share, Some(key)).await?;
            // A record that cannot be read must not tell anyone that there is a table which is not granted.
            let granted = granted.filter(|granted| granted.state.includes_named(schema, table));
            match (granted, found) {
                (Some(share), Some(item)) => share.table(&item).map_err(|bad| {
                    self.report(&bad);
                    let message =
                        "The record of the table cannot be read. Contact the provider of the share.";
                    Error::unreadable_table(message).with_fault(Fault::Record).with_source(bad)
                }),
                _ => Ok(None),
            }
        }
        .boxed()
    }

    fn charge<'a>(&'a self, caller: &'a Caller, bytes: u64) -> BoxFuture<'a, Result<()>> {
        async move {
            match caller.bytes_per_day() {
                Some(limit) => self.reader.charge(caller.recipient(), limit, bytes, Utc::now()).await,
                None => Ok(()),
            }
        }
        .boxed()
    }
}
