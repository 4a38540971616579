//! Changes of shares, schemas and tables.

use aws_sdk_dynamodb::types::AttributeValue;

use super::keys::{self, Key};
use super::records::{self, BadRecord, Item, Kind, key_of, text as string};
use super::transaction::Step;
use super::values::text;
use super::write_error::{MissingRecord, Result, WriteError};
use super::writer::{Writer, checked, set_comment};
use crate::catalog::state::TableState;
use crate::protocol::names::Name;

impl Writer {
    /// Creates a share. Refused while an older share of that name is being deleted.
    pub async fn create_share(&self, name: &Name, id: &str, comment: Option<&str>) -> Result<()> {
        if self.get(&Key::share(name.as_str())).await?.is_some_and(|item| item.contains_key("deleting")) {
            return Err(WriteError::Refused(format!(
                "share '{name}' is being deleted; delete it again to finish that, and then create it"
            )));
        }
        let mut attributes = vec![("name", text(name.as_str())), ("id", text(id))];
        attributes.extend(comment.map(|comment| ("comment", text(comment))));
        self.transact(vec![self.put_new(&Key::share(name.as_str()), attributes, format!("share '{name}'"))])
            .await
    }

    /// Creates a schema in a share.
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

    /// Creates a table in a schema.
    pub async fn create_table(&self, share: &str, schema: &str, table: &TableState) -> Result<()> {
        check_locations(table)?;
        let name = &checked(&table.name, Name::schema_or_table)?;
        if self.get(&Key::share(share)).await?.is_none() {
            return Err(WriteError::Missing(MissingRecord::share(share)));
        }
        let missing = || MissingRecord::schema(share, schema);
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
        let missing = MissingRecord::table(share, schema, table);
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
        let missing = MissingRecord::schema(share, schema);
        self.transact(vec![self.delete_old(&Key::schema(share, schema), missing)]).await
    }

    /// Deletes a share with its schemas, tables and grants. The first step takes it out of service.
    /// If a call is interrupted, the same call completes it. `progress` gets the number of records deleted so far.
    pub async fn delete_share(&self, share: &str, progress: impl FnMut(usize)) -> Result<()> {
        let key = Key::share(share);
        let deleting = ("deleting", AttributeValue::Bool(true));
        let missing = MissingRecord::share(share);
        self.transact(vec![self.set_if(&key, deleting, ("attribute_exists(pk)", None), missing.into())?])
            .await?;
        // Grants as servers find them, including those that the share does not list: if a share of this name is created
        // again, it must not be granted to anyone.
        let granted = Key::grant("", share).sort;
        let is_of_share = |item: &Item| {
            string(item, keys::PARTITION) == key.partition && string(item, keys::SORT) != key.sort
                || records::kind(item) == Kind::Grant && string(item, keys::SORT) == granted
        };
        let doomed: Vec<Key> =
            self.items().await?.iter().filter(|item| is_of_share(item)).map(key_of).collect();
        self.delete_all(&doomed, progress).await?;
        self.transact(vec![self.delete_any(&key)]).await
    }

    /// Changes the comment of a share; `None` removes it.
    pub async fn update_share(&self, share: &str, comment: Option<&str>) -> Result<()> {
        let missing = MissingRecord::share(share);
        self.update(&Key::share(share), missing, |item| {
            set_comment(item, comment);
            Ok(())
        })
        .await
    }

    /// A table as it is shared.
    pub async fn table(&self, share: &str, schema: &str, table: &str) -> Result<TableState> {
        let item = self.get(&Key::table(share, schema, table)).await?;
        let missing = MissingRecord::table(share, schema, table);
        Ok(table_state(&item.ok_or(WriteError::Missing(missing))?)?)
    }

    /// Changes a table that was read as `before`. Fails with a conflict if it has changed since.
    pub(super) async fn update_table(
        &self,
        share: &str,
        schema: &str,
        before: &TableState,
        after: &TableState,
    ) -> Result<()> {
        check_locations(after)?;
        let name = checked(&after.name, Name::schema_or_table)?;
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
        put.remove(records::FILTER);
        put.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self.transact(vec![self.replace(&item, put, what)?]).await
    }

    /// Changes the id of a share from `before`.
    pub(super) async fn update_share_id(&self, share: &str, before: &str, after: &str) -> Result<()> {
        let set = [("id", text(before), text(after))];
        self.transact(vec![self.set(&Key::share(share), &set, format!("share '{share}'"))?]).await
    }

    pub(super) fn share_is_there(&self, share: &str) -> Step {
        let missing = WriteError::Missing(MissingRecord::share(share));
        self.check(&Key::share(share), "attribute_exists(pk) AND attribute_not_exists(deleting)", missing)
    }
}

/// Refuses locations that are not in S3: a server over DynamoDB reads no others, and never files of its own machine.
fn check_locations(table: &TableState) -> Result<()> {
    let is_s3 = |text: &str| ["s3://", "s3a://", "s3n://"].iter().any(|scheme| text.starts_with(scheme));
    let mut locations = table.settings.locations();
    locations.find(|location| !is_s3(location.text())).map_or(Ok(()), |location| {
        Err(WriteError::Refused(format!(
            "location {location}: a table in a DynamoDB catalog must be in s3://"
        )))
    })
}

fn table_state(item: &Item) -> Result<TableState, BadRecord> {
    Ok(TableState::from(&records::table_alone(item)?))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
