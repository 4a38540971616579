//! Transactions: records that change together or not at all.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem, Update};

use super::keys::Key;
use super::records::{FORMAT, FORMAT_ATTRIBUTE, Item, key_attributes};
use super::values::number;
use super::write_error::{MissingRecord, Result, WriteError, failed};
use super::writer::Writer;

/// How many items one transaction may have.
pub(super) const LARGEST: usize = 100;

/// One step of a transaction, and what it means if its condition fails.
pub(super) struct Step {
    item: TransactWriteItem,
    otherwise: WriteError,
}

impl Writer {
    /// Does all steps or none. The error is that of the first step whose condition failed.
    pub(super) async fn transact(&self, steps: Vec<Step>) -> Result<()> {
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

    fn put(
        &self,
        key: &Key,
        attributes: Vec<(&str, AttributeValue)>,
        condition: Option<&str>,
    ) -> TransactWriteItem {
        let mut item: HashMap<String, AttributeValue> = key_attributes(key);
        // Attributes may name another format.
        item.insert(FORMAT_ATTRIBUTE.to_owned(), number(FORMAT.into()));
        item.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let put = Put::builder().table_name(&self.table).set_item(Some(item));
        let put = put.set_condition_expression(condition.map(str::to_owned)).build();
        TransactWriteItem::builder().set_put(put.ok()).build()
    }

    pub(super) fn put_new(&self, key: &Key, attributes: Vec<(&str, AttributeValue)>, what: String) -> Step {
        self.put_unless_there(key, attributes, WriteError::Exists(what))
    }

    /// Puts a record whose key was not there when it was looked for.
    pub(super) fn put_unless_there(
        &self,
        key: &Key,
        attributes: Vec<(&str, AttributeValue)>,
        otherwise: WriteError,
    ) -> Step {
        Step { item: self.put(key, attributes, Some("attribute_not_exists(pk)")), otherwise }
    }

    fn delete(&self, key: &Key, condition: Option<&str>) -> TransactWriteItem {
        let delete = Delete::builder().table_name(&self.table).set_key(Some(key_attributes(key)));
        let delete = delete.set_condition_expression(condition.map(str::to_owned)).build();
        TransactWriteItem::builder().set_delete(delete.ok()).build()
    }

    pub(super) fn delete_old(&self, key: &Key, missing: MissingRecord) -> Step {
        Step { item: self.delete(key, Some("attribute_exists(pk)")), otherwise: WriteError::Missing(missing) }
    }

    pub(super) fn delete_any(&self, key: &Key) -> Step {
        let otherwise = WriteError::Conflict(format!("the record {}", key.sort));
        Step { item: self.delete(key, None), otherwise }
    }

    pub(super) fn check(&self, key: &Key, condition: &str, otherwise: WriteError) -> Step {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .condition_expression(condition)
            .build();
        Step { item: TransactWriteItem::builder().set_condition_check(check.ok()).build(), otherwise }
    }

    pub(super) fn is_there(&self, key: &Key, missing: MissingRecord) -> Step {
        self.check(key, "attribute_exists(pk)", WriteError::Missing(missing))
    }

    /// Puts a record, whether there is one with its key or not.
    pub(super) fn put_any(
        &self,
        key: &Key,
        attributes: Vec<(&str, AttributeValue)>,
        otherwise: WriteError,
    ) -> Step {
        Step { item: self.put(key, attributes, None), otherwise }
    }

    /// Sets an attribute of a record if `condition` holds, which may use `:before`.
    pub(super) fn set_if(
        &self,
        key: &Key,
        (name, value): (&str, AttributeValue),
        (condition, before): (&str, Option<AttributeValue>),
        otherwise: WriteError,
    ) -> Result<Step> {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .update_expression("SET #name = :value")
            .condition_expression(condition)
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":value", value);
        let update = match before {
            Some(before) => update.expression_attribute_values(":before", before),
            None => update,
        };
        let item = TransactWriteItem::builder().update(built(update.build())?).build();
        Ok(Step { item, otherwise })
    }

    /// Deletes the records with these keys in transactions as large as they can be. After each of
    /// them, `progress` gets the number of records deleted so far.
    pub(super) async fn delete_all(&self, keys: &[Key], mut progress: impl FnMut(usize)) -> Result<()> {
        let mut gone = 0;
        for chunk in keys.chunks(LARGEST) {
            self.transact(chunk.iter().map(|key| self.delete_any(key)).collect()).await?;
            gone += chunk.len();
            progress(gone);
        }
        Ok(())
    }

    /// Replaces an item with `after` if every attribute of it is still as in `before`.
    pub(super) fn replace(&self, before: &Item, after: Item, what: String) -> Result<Step> {
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
    pub(super) fn set(
        &self,
        key: &Key,
        set: &[(&str, AttributeValue, AttributeValue)],
        what: String,
    ) -> Result<Step> {
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

    pub(super) async fn update(
        &self,
        key: &Key,
        missing: MissingRecord,
        change: impl FnOnce(&mut Item) -> Result<()>,
    ) -> Result<()> {
        let what = missing.to_string();
        let before = self.get(key).await?.ok_or(WriteError::Missing(missing))?;
        let mut after = before.clone();
        change(&mut after)?;
        self.transact(vec![self.replace(&before, after, what)?]).await
    }
}

fn built<T>(built: std::result::Result<T, aws_sdk_dynamodb::error::BuildError>) -> Result<T> {
    built.map_err(|error| WriteError::Failed(error.to_string()))
}
