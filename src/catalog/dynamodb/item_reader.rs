//! What requests read from the DynamoDB table: always consistent, and within a deadline.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use tokio::time::Instant;

use super::keys::{self, Key};
use super::records::{Item, key_attributes};
use crate::catalog::{ListPage, PageRequest};
use crate::error::{Error, Result, innermost};

/// How many items one `BatchGetItem` may ask for.
const BATCH: usize = 100;

/// How long the first wait is for what a `BatchGetItem` left out; it doubles while nothing comes.
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// Reads one DynamoDB table.
#[derive(Debug, Clone)]
pub(super) struct ItemReader {
    pub(super) client: Client,
    pub(super) table: String,
    deadline: Duration,
}

impl ItemReader {
    /// No answer waits longer than `deadline`.
    pub(super) fn new(client: Client, table: &str, deadline: Duration) -> Self {
        Self { client, table: table.to_owned(), deadline }
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = request.set_key(Some(key_attributes(key))).send().await.map_err(failed)?;
        Ok(answer.item)
    }

    /// The items of these keys, in their order; `None` if there is none.
    pub(super) async fn get_all(&self, wanted: &[Key]) -> Result<Vec<Option<Item>>> {
        let mut found = HashMap::with_capacity(wanted.len());
        let until = Instant::now() + self.deadline;
        // DynamoDB refuses a batch with a key that is too long, and nothing can be stored under one.
        let possible: Vec<&Key> = wanted.iter().filter(|key| key.fits()).collect();
        for chunk in possible.chunks(BATCH) {
            let mut left: Vec<Item> = chunk.iter().copied().map(key_attributes).collect();
            let mut wait = FIRST_WAIT;
            while !left.is_empty() {
                let asked = left.len();
                let keys = KeysAndAttributes::builder().set_keys(Some(left)).consistent_read(true).build();
                let request = self.client.batch_get_item();
                let request = request.request_items(&self.table, keys.map_err(Error::internal)?);
                let answer = tokio::time::timeout_at(until, request.send()).await.map_err(unavailable)?;
                let answer = answer.map_err(failed)?;
                for item in answer.responses.unwrap_or_default().into_values().flatten() {
                    found.insert(key_of(&item)?, item);
                }
                let unprocessed = answer.unprocessed_keys.unwrap_or_default().into_values().next();
                left = unprocessed.map(|keys| keys.keys).unwrap_or_default();
                if !left.is_empty() {
                    if Instant::now() + wait >= until {
                        return Err(unavailable("DynamoDB left out items until the deadline"));
                    }
                    tokio::time::sleep(wait).await;
                    wait = if left.len() < asked { FIRST_WAIT } else { wait * 2 };
                }
            }
        }
        Ok(wanted.iter().map(|key| found.remove(key)).collect())
    }

    /// When an answer that begins now must be there.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// One request for items of a partition whose sort keys begin with `prefix`, sorted by them: those after the sort key
    /// `start`, and at most `limit`. Returns the sort key after which the next request starts.
    pub(super) async fn query_once(
        &self,
        partition: &str,
        prefix: &str,
        limit: Option<usize>,
        start: Option<String>,
        until: Instant,
    ) -> Result<(Vec<Item>, Option<String>)> {
        let start = start.map(|sort| key_attributes(&Key { partition: partition.to_owned(), sort }));
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#pk = :pk AND begins_with(#sk, :prefix)")
            .expression_attribute_names("#pk", keys::PARTITION)
            .expression_attribute_names("#sk", keys::SORT)
            .expression_attribute_values(":pk", AttributeValue::S(partition.to_owned()))
            .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
            .set_limit(limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)))
            .set_exclusive_start_key(start);
        let answer = tokio::time::timeout_at(until, request.send()).await.map_err(unavailable)?;
        let answer = answer.map_err(failed)?;
        let last = answer.last_evaluated_key.filter(|key| !key.is_empty());
        let next = last.map(|last| key_of(&last).map(|key| key.sort)).transpose()?;
        Ok((answer.items.unwrap_or_default(), next))
    }

    /// Items of a partition whose sort keys begin with `prefix`, sorted by them.
    pub(super) async fn query(
        &self,
        partition: &str,
        prefix: &str,
        page: &PageRequest,
    ) -> Result<ListPage<Item>> {
        if !(Key { partition: partition.to_owned(), sort: prefix.to_owned() }).fits() {
            return Ok(ListPage { items: Vec::new(), more_after: None });
        }
        let until = self.until();
        // One more than asked for tells whether there are more.
        let wanted = page.limit.map(|limit| limit + 1);
        let after = page.after.as_ref().filter(|after| !after.is_empty());
        let mut start = after.map(|after| format!("{prefix}{after}"));
        let mut items = Vec::new();
        loop {
            let left = wanted.map(|wanted| wanted - items.len());
            let (found, next) = self.query_once(partition, prefix, left, start, until).await?;
            items.extend(found);
            start = next;
            if start.is_none() || wanted.is_some_and(|wanted| items.len() >= wanted) {
                break;
            }
        }
        ListPage::of(items, page, prefix)
    }
}

impl ListPage<Item> {
    /// A page of items, of which there is one more than the page may have if another page follows. Its end is relative to
    /// `base`, with which every sort key begins.
    pub(super) fn of(mut items: Vec<Item>, page: &PageRequest, base: &str) -> Result<Self> {
        let more = page.limit.is_some_and(|limit| items.len() > limit);
        items.truncate(page.limit.unwrap_or(usize::MAX));
        let more_after = match (more, items.last()) {
            (false, _) => None,
            (true, None) => Some(page.after.clone().unwrap_or_default()),
            (true, Some(last)) => Some(key_of(last)?.sort.strip_prefix(base).unwrap_or_default().to_owned()),
        };
        Ok(Self { items, more_after })
    }
}

fn key_of(item: &Item) -> Result<Key> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    match (text(keys::PARTITION), text(keys::SORT)) {
        (Some(partition), Some(sort)) => Ok(Key { partition, sort }),
        _ => Err(Error::internal("an item has no keys")),
    }
}

pub(super) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("The catalog of shares does not answer; try again later.").with_source(source)
}

/// What DynamoDB refuses for good is a fault of the deployment; all else may pass.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
pub(super) fn failed<E, R>(error: SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    const FOR_GOOD: [&str; 6] = [
        "AccessDeniedException",
        "ResourceNotFoundException",
        "ValidationException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "SerializationException",
    ];
    let (code, source) = described(&error);
    if FOR_GOOD.contains(&code.as_str()) { Error::internal(source) } else { unavailable(source) }
}

/// The code of what DynamoDB answered, and the sentence of the log about it.
pub(super) fn described<E, R>(error: &SdkError<E, R>) -> (String, String)
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let code = error.code().unwrap_or("no answer").to_owned();
    let source = match error.message() {
        Some(message) => format!("DynamoDB: {code}: {message}"),
        None => format!("DynamoDB: {code}: {}", innermost(error)),
    };
    (code, source)
}
