//! What recipients have used of their limits, counted in the DynamoDB table for all servers together.
//!
//! Each window has an item of its own, so that nothing has to be set back; DynamoDB deletes it some time after its end.
//! Recipients without limits have no such items.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use chrono::{DateTime, Utc};

use super::item_reader::{ItemReader, described};
use super::keys::Key;
use super::records::{FORMAT, FORMAT_ATTRIBUTE, Item, key_attributes};
use super::values::number;
use crate::catalog::expiry::DELETE_AFTER;
use crate::catalog::restrictions::Restrictions;
use crate::catalog::usage::{Counted, Window, too_many_bytes, too_many_requests, warn_of};
use crate::error::{Error, Result};

/// What is counted in a window.
const USED: &str = "used";

/// For how many seconds an item stays after the end of its window.
const KEPT: i64 = 3600;

impl ItemReader {
    /// Counts a request of a recipient, or refuses it with 429. 503 if it cannot be counted.
    pub(super) async fn admit(
        &self,
        recipient: &str,
        restrictions: &Restrictions,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let requests = async {
            match restrictions.requests_per_minute {
                Some(limit) => self.count_request(recipient, limit, now).await,
                None => Ok(()),
            }
        };
        let bytes = async {
            match restrictions.bytes_per_day {
                Some(limit) => self.check_bytes(recipient, limit, now).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(requests, bytes).map(drop)
    }

    async fn count_request(&self, recipient: &str, limit: u64, now: DateTime<Utc>) -> Result<()> {
        let window = Window::minute(now);
        let key = Key::requests_of(recipient, &window.format("%Y-%m-%dT%H:%M"));
        match self.add(&key, 1, window, Some(limit)).await? {
            Some(after) => {
                warn_of(Counted::Requests, recipient, limit, after.saturating_sub(1), after);
                Ok(())
            }
            None => Err(too_many_requests(limit, now)),
        }
    }

    async fn check_bytes(&self, recipient: &str, limit: u64, now: DateTime<Utc>) -> Result<()> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = request.set_key(Some(key_attributes(&bytes_key(recipient, now)))).send().await;
        let item = answer.map_err(|error| uncounted(&error))?.item;
        let granted = item.as_ref().map(used).transpose()?.unwrap_or(0);
        if granted >= limit { Err(too_many_bytes(limit, now)) } else { Ok(()) }
    }

    /// Adds bytes that were granted to a recipient. 503 if they cannot be counted.
    pub(super) async fn charge(
        &self,
        recipient: &str,
        limit: u64,
        bytes: u64,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let after = self.add(&bytes_key(recipient, now), bytes, Window::day(now), None).await?;
        let after = after.unwrap_or(bytes);
        warn_of(Counted::Bytes, recipient, limit, after.saturating_sub(bytes), after);
        Ok(())
    }

    /// Adds to the sum of a window if it is below `limit` so far. Returns the new sum, or `None` if it is not below.
    async fn add(&self, key: &Key, more: u64, window: Window, limit: Option<u64>) -> Result<Option<u64>> {
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .update_expression("ADD #used :more SET #format = :format, #end = :end")
            .expression_attribute_names("#used", USED)
            .expression_attribute_names("#format", FORMAT_ATTRIBUTE)
            .expression_attribute_names("#end", DELETE_AFTER)
            .expression_attribute_values(":more", number(more))
            .expression_attribute_values(":format", number(FORMAT.into()))
            .expression_attribute_values(":end", AttributeValue::N((window.end() + KEPT).to_string()))
            .return_values(ReturnValue::UpdatedNew);
        let request = match limit {
            Some(limit) => request
                .condition_expression("attribute_not_exists(#used) OR #used < :limit")
                .expression_attribute_values(":limit", number(limit)),
            None => request,
        };
        match request.send().await {
            Ok(answer) => answer.attributes.as_ref().map(used).transpose(),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(None),
            Err(error) => Err(uncounted(&error)),
        }
    }
}

fn bytes_key(recipient: &str, now: DateTime<Utc>) -> Key {
    Key::bytes_of(recipient, &Window::day(now).format("%Y-%m-%d"))
}

/// The sum that an item has. One that cannot be read is never taken for nothing.
fn used(item: &Item) -> Result<u64> {
    let Some(value) = item.get(USED) else { return Ok(0) };
    let sum = value.as_n().ok().and_then(|digits| digits.parse::<u128>().ok());
    sum.map(|sum| u64::try_from(sum).unwrap_or(u64::MAX))
        .ok_or_else(|| refused("an item of USAGE# has a sum that is not a whole number".to_owned()))
}

fn refused(source: String) -> Error {
    Error::unavailable("The requests of this recipient cannot be counted now; try again later.")
        .with_source(source)
}

/// Whatever the reason is: a recipient with a limit is not served without counting.
fn uncounted<E, R>(error: &SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let (code, source) = described(error);
    let answer = refused(source);
    match code.as_str() {
        "AccessDeniedException" => answer.with_explanation(
            "the server needs the permission dynamodb:UpdateItem for items whose partition key begins with USAGE#",
        ),
        _ => answer,
    }
}
