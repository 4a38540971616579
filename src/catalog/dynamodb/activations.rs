//! Activation links: stored with the token that they hand out, and used once.
//!
//! The profile and the invitation are encrypted with keys that only the link has. Nothing here can read them.

use std::sync::Arc;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, TransactWriteItem};
use chrono::{DateTime, Utc};

use super::DynamoDbCatalog;
use super::item_reader::{failed, unavailable};
use super::keys::Key;
use super::records::{self, Item, StoredActivation, key_attributes, key_of, text as string};
use super::transaction::Step;
use super::values::text;
use super::writer::Writer;
use crate::catalog::{Activation, TokenHash, TokenRecord, expiry};
use crate::error::{Error, Result};
use crate::protocol::activation::ActivationId;
use crate::protocol::names::Name;

/// What a new activation link hands out.
#[derive(Clone)]
pub struct NewActivation {
    /// What it is found by.
    pub id: ActivationId,
    /// When the link expires.
    pub expires: DateTime<Utc>,
    /// The invitation, encrypted.
    pub invitation: Vec<u8>,
    /// The profile, encrypted.
    pub profile: Vec<u8>,
}

impl std::fmt::Debug for NewActivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewActivation").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// An activation link that was not used.
#[derive(Debug, Clone)]
pub struct UnusedLink {
    /// When it expires; `None` if its record cannot be read, so that it does not work.
    pub expires: Option<DateTime<Utc>>,
    pub(super) key: Key,
}

impl UnusedLink {
    pub(super) fn read(item: &Item) -> Self {
        Self { expires: expiry::parse(string(item, "expires")).flatten(), key: key_of(item) }
    }
}

impl Writer {
    /// Stores what the link to a new token hands out. DynamoDB deletes it when the link has expired.
    pub(super) fn activation_step(&self, recipient: &str, token: TokenHash, new: &NewActivation) -> Step {
        let bytes = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
        let attributes = vec![
            ("recipient", text(recipient)),
            ("sha256", text(token.to_hex())),
            ("expires", text(expiry::format(Some(new.expires)))),
            (expiry::DELETE_AFTER, AttributeValue::N(new.expires.timestamp().max(0).to_string())),
            ("invitation", bytes(&new.invitation)),
            ("profile", bytes(&new.profile)),
        ];
        self.put_new(&Key::activation(new.id), attributes, "the activation link".to_owned())
    }
}

impl DynamoDbCatalog {
    /// What the page of a link shows.
    pub(super) async fn read_invitation(&self, id: ActivationId) -> Result<Option<Activation>> {
        let found = self.usable(id).await?;
        Ok(found.map(|(stored, token_id)| handed_out(&stored, token_id, stored.invitation.clone())))
    }

    /// Uses a link up.
    pub(super) async fn use_link(&self, id: ActivationId) -> Result<Option<Activation>> {
        let Some((stored, token_id)) = self.usable(id).await? else { return Ok(None) };
        let is_first = self.delete_activation(&Key::activation(id)).await?;
        Ok(is_first.then(|| handed_out(&stored, token_id, stored.profile.clone())))
    }

    /// The record of a link that can still be used, and the id of its token. DynamoDB may keep expired records for days, a
    /// script may have deleted the token alone, and the recipient may be disabled.
    async fn usable(&self, id: ActivationId) -> Result<Option<(StoredActivation, Arc<str>)>> {
        let Some(item) = self.reader.get(&Key::activation(id)).await? else { return Ok(None) };
        let Some(stored) = self.listed(records::activation(&item)) else { return Ok(None) };
        if stored.expires <= Utc::now() {
            return Ok(None);
        }
        let keys = [Key::token(stored.token), Key::recipient(stored.recipient.as_str())];
        let mut items = self.reader.get_all(&keys).await?.into_iter();
        let (token, recipient) = (items.next().flatten(), items.next().flatten());
        let recipient = recipient.and_then(|item| self.listed(records::recipient(&item)));
        if !recipient.is_some_and(|recipient| recipient.active) {
            return Ok(None);
        }
        let is_own =
            |token: &TokenRecord| Name::key_of(&token.recipient) == Name::key_of(stored.recipient.as_str());
        let token = self.token_of(token.as_ref());
        let token = token.filter(|token| is_own(token) && token.check_expiry().is_ok());
        Ok(token.map(|token| (stored, token.id)))
    }

    /// Deletes the record of a link. `false` if somebody else was faster.
    ///
    /// This is a transaction because DynamoDB recognizes it when the SDK sends it again after an answer was lost. A plain
    /// `DeleteItem` would then find nothing, and the recipient would lose the profile.
    async fn delete_activation(&self, key: &Key) -> Result<bool> {
        let delete = Delete::builder()
            .table_name(self.table_name())
            .set_key(Some(key_attributes(key)))
            .condition_expression("attribute_exists(pk)")
            .build()
            .map_err(Error::internal)?;
        let request = self.reader.client.transact_write_items();
        let request = request.transact_items(TransactWriteItem::builder().delete(delete).build());
        let Err(error) = request.send().await else { return Ok(true) };
        let reasons = match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                cancelled.cancellation_reasons()
            }
            _ => return Err(failed(error)),
        };
        if reasons.iter().any(|reason| reason.code() == Some("ConditionalCheckFailed")) {
            return Ok(false);
        }
        // Another transaction has the record at this moment.
        Err(unavailable("the transaction was cancelled"))
    }
}

fn handed_out(stored: &StoredActivation, token_id: Arc<str>, ciphertext: Vec<u8>) -> Activation {
    Activation { recipient: stored.recipient.as_str().into(), token_id, ciphertext }
}
