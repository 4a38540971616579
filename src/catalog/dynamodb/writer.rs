//! The write side of the catalog in DynamoDB, for the command line.
//!
//! Every operation is one transaction, or several of which the first one takes what is removed out of service. If it is
//! interrupted, it has happened, has not happened, or the same operation completes it. Records that are changed carry
//! a revision: of two changes at the same time, the second fails.

use aws_sdk_dynamodb::Client;

use super::contents::CatalogContents;
use super::keys::Key;
use super::recipient_changes::RecipientChanges;
use super::records::{Item, key_attributes};
use super::values::text;
use super::write_error::{Result, WriteError, failed};
use crate::catalog::diff::CatalogChange;
use crate::protocol::names::{InvalidName, Name};

/// Changes the catalog in one DynamoDB table.
#[derive(Debug, Clone)]
pub struct Writer {
    pub(super) client: Client,
    pub(super) table: String,
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

    /// Everything that the table holds, as servers see it, and what they cannot read.
    pub async fn read(&self) -> Result<CatalogContents> {
        Ok(CatalogContents::new(&self.items().await?))
    }

    /// Applies one change. Fails with a conflict if the record is no longer what the change begins from.
    pub async fn apply(&self, change: &CatalogChange) -> Result<()> {
        match change {
            CatalogChange::AddShare(share) => {
                let name = checked(&share.name, Name::share)?;
                self.create_share(&name, &share.id, share.comment.as_deref()).await
            }
            CatalogChange::ShareId { share, before, after } => {
                self.update_share_id(share, before, after).await
            }
            CatalogChange::ShareComment { share, after, .. } => {
                self.update_share(share, after.as_deref()).await
            }
            CatalogChange::RemoveShare { share } => self.delete_share(share, |_| {}).await,
            CatalogChange::AddSchema { share, schema } => {
                self.create_schema(share, &checked(schema, Name::schema_or_table)?).await
            }
            CatalogChange::RemoveSchema { share, schema } => self.delete_schema(share, schema).await,
            CatalogChange::AddTable { share, schema, table } => self.create_table(share, schema, table).await,
            CatalogChange::UpdateTable { share, schema, before, after } => {
                self.update_table(share, schema, before, after).await
            }
            CatalogChange::RemoveTable { share, schema, table } => {
                self.delete_table(share, schema, table).await
            }
            CatalogChange::AddRecipient(recipient) => self.add_recipient(recipient).await,
            CatalogChange::RecipientComment { recipient, after, .. } => {
                let comment = Some(after.as_deref());
                self.update_recipient(recipient, RecipientChanges { comment, ..RecipientChanges::default() })
                    .await
            }
            CatalogChange::RecipientStatus { recipient, active } => {
                let active = Some(*active);
                self.update_recipient(recipient, RecipientChanges { active, ..RecipientChanges::default() })
                    .await
            }
            CatalogChange::RemoveRecipient { recipient } => self.delete_recipient(recipient).await,
            CatalogChange::RecipientProperties { recipient, before, after } => {
                self.update_properties(recipient, before, after).await
            }
            CatalogChange::RecipientRestrictions { recipient, before, after } => {
                self.update_restrictions(recipient, before, after).await
            }
            CatalogChange::Grant { recipient, share, grant } => {
                self.add_grant(recipient, &checked(share, Name::share)?, grant).await
            }
            CatalogChange::UpdateGrant { recipient, share, before, after } => {
                self.update_grant(recipient, share, before, after).await
            }
            CatalogChange::Revoke { recipient, share } => self.revoke(recipient, share).await,
            CatalogChange::AddToken { recipient, hash, token } => {
                self.add_token(recipient, hash, token).await
            }
            CatalogChange::TokenExpiry { recipient, hash, before, after } => {
                self.update_token_expiry(recipient, hash, *before, *after).await
            }
            CatalogChange::AddOidcPolicy { recipient, policy } => {
                self.add_oidc_policy(recipient, policy).await
            }
            CatalogChange::OidcAudiences { recipient, before, after } => {
                self.update_oidc_policy(recipient, before, after).await
            }
            CatalogChange::RemoveOidcPolicy { recipient, policy } => {
                self.delete_oidc_policy(recipient, policy).await
            }
            CatalogChange::RemoveToken { recipient, hash } => self.delete_token(recipient, hash).await,
        }
    }

    pub(super) async fn items(&self) -> Result<Vec<Item>> {
        let request = self.client.scan().table_name(&self.table).consistent_read(true);
        request.into_paginator().items().send().try_collect().await.map_err(failed)
    }

    /// The items of a partition whose sort keys begin with `prefix`.
    pub(super) async fn query(&self, partition: &str, prefix: &str) -> Result<Vec<Item>> {
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .expression_attribute_values(":pk", text(partition));
        let request = match prefix {
            "" => request.key_condition_expression("pk = :pk"),
            prefix => request
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":prefix", text(prefix)),
        };
        request.into_paginator().items().send().try_collect().await.map_err(failed)
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        Ok(request.set_key(Some(key_attributes(key))).send().await.map_err(failed)?.item)
    }
}

/// A name that a record may have.
pub(super) fn checked(name: &str, check: fn(&str) -> Result<Name, InvalidName>) -> Result<Name> {
    check(name).map_err(|error| WriteError::Refused(error.to_string()))
}

pub(super) fn set_comment(item: &mut Item, comment: Option<&str>) {
    match comment {
        Some(comment) => item.insert("comment".to_owned(), text(comment)),
        None => item.remove("comment"),
    };
}
