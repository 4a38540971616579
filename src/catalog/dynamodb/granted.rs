//! Lists of a share of which some tables are granted: what the patterns of the grant match, and nothing else. Neither the
//! length of a page nor where it ends shows that there are other tables.

use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::item_reader::ItemReader;
use super::keys;
use super::records::{Item, text};
use crate::catalog::grant::{SchemaScope, TablePattern, TablePatterns};
use crate::catalog::{ListPage, PageRequest};
use crate::error::Result;
use crate::protocol::names::Name;

/// How many queries for the tables of one grant run at a time.
const AT_ONCE: usize = 8;

impl ItemReader {
    /// The tables of a schema, or of a share if `schema` is `None`, that the patterns match. `None` if nothing of the schema
    /// is granted.
    pub(super) fn granted_tables<'a>(
        &'a self,
        share: &'a str,
        schema: Option<&'a str>,
        patterns: &'a TablePatterns,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Option<ListPage<Item>>>> {
        self.list_tables(share, schema, patterns, page).boxed()
    }

    async fn list_tables(
        &self,
        share: &str,
        schema: Option<&str>,
        patterns: &TablePatterns,
        page: &PageRequest,
    ) -> Result<Option<ListPage<Item>>> {
        let tables = GrantedTables::new(share, schema, patterns);
        let until = self.until();
        // One more than asked for tells whether there are more.
        let most = page.limit.map(|limit| limit.saturating_add(1));
        let after = page.after.as_deref().filter(|after| !after.is_empty());
        let items = tables.read(self, after, most, until).await?;
        let found = ListPage::of(items, page, &tables.base)?;
        let is_seen = match schema.map(|schema| patterns.of_schema(&Name::key_of(schema))) {
            None | Some(SchemaScope::Whole) => true,
            Some(SchemaScope::Nothing) => false,
            Some(SchemaScope::Matching(_)) => {
                !found.items.is_empty()
                    || found.more_after.is_some()
                    || (after.is_some() && !tables.read(self, None, Some(1), until).await?.is_empty())
            }
        };
        Ok(is_seen.then_some(found))
    }

    /// The schemas that are granted as a whole, and those with a table that the patterns match.
    pub(super) fn granted_schemas<'a>(
        &'a self,
        share: &'a str,
        patterns: &'a TablePatterns,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<ListPage<Item>>> {
        self.list_schemas(share, patterns, page).boxed()
    }

    async fn list_schemas(
        &self,
        share: &str,
        patterns: &TablePatterns,
        page: &PageRequest,
    ) -> Result<ListPage<Item>> {
        let until = self.until();
        let partition = keys::share_partition(share);
        let most = page.limit.map(|limit| limit.saturating_add(1));
        let after = page.after.as_deref().filter(|after| !after.is_empty());
        let mut start = after.map(|after| format!("{}{after}", keys::SCHEMAS));
        let mut seen = Vec::new();
        loop {
            let (items, next) = self.query_once(&partition, keys::SCHEMAS, most, start, until).await?;
            let of = items.into_iter().map(|item| self.seen_schema(share, patterns, item, until).boxed());
            let mut of = stream::iter(of.collect::<Vec<_>>()).buffered(AT_ONCE);
            while let Some(item) = of.try_next().await? {
                seen.extend(item);
            }
            start = next;
            if start.is_none() || most.is_some_and(|most| seen.len() >= most) {
                break;
            }
        }
        ListPage::of(seen, page, keys::SCHEMAS)
    }

    /// The schema, if it is granted or has a table that is.
    async fn seen_schema(
        &self,
        share: &str,
        patterns: &TablePatterns,
        schema: Item,
        until: Instant,
    ) -> Result<Option<Item>> {
        let key = text(&schema, keys::SORT).strip_prefix(keys::SCHEMAS).and_then(keys::decoded);
        let Some(key) = key else { return Ok(None) };
        let is_seen = match patterns.of_schema(&key) {
            SchemaScope::Whole => true,
            SchemaScope::Nothing => false,
            SchemaScope::Matching(_) => {
                let tables = GrantedTables::new(share, Some(&key), patterns);
                !tables.read(self, None, Some(1), until).await?.is_empty()
            }
        };
        Ok(is_seen.then_some(schema))
    }
}

/// Where the tables are that patterns match.
struct GrantedTables<'a> {
    partition: String,
    /// What the places of pages are relative to.
    base: String,
    /// Beginnings of sort keys, sorted; none of them begins with another one.
    prefixes: Vec<String>,
    patterns: &'a TablePatterns,
}

impl<'a> GrantedTables<'a> {
    fn new(share: &str, schema: Option<&str>, patterns: &'a TablePatterns) -> Self {
        let key = schema.map(Name::key_of);
        let prefix = |pattern: &TablePattern| {
            let schema = key.as_deref().unwrap_or_else(|| pattern.schema());
            match schema.split_once('*').filter(|_| key.is_none()) {
                Some((literal, _)) => format!("{}{}", keys::TABLES, keys::encoded(literal)),
                None => {
                    let literal = pattern.table().split('*').next().unwrap_or_default();
                    format!("{}{}", keys::tables_of(schema), keys::encoded(literal))
                }
            }
        };
        let mut prefixes: Vec<String> = match key.as_deref().map(|key| patterns.of_schema(key)) {
            None => patterns.iter().map(prefix).collect(),
            Some(SchemaScope::Nothing) => Vec::new(),
            Some(SchemaScope::Matching(found)) => found.into_iter().map(prefix).collect(),
            Some(SchemaScope::Whole) => key.iter().map(|key| keys::tables_of(key)).collect(),
        };
        prefixes.sort_unstable();
        prefixes.dedup_by(|next, kept| next.starts_with(kept.as_str()));
        Self {
            partition: keys::share_partition(share),
            base: key.as_deref().map_or_else(|| keys::TABLES.to_owned(), keys::tables_of),
            prefixes,
            patterns,
        }
    }

    fn include(&self, item: &Item) -> bool {
        let names = text(item, keys::SORT).strip_prefix(keys::TABLES).and_then(|names| {
            let (schema, table) = names.split_once('#')?;
            Some((keys::decoded(schema)?, keys::decoded(table)?))
        });
        names.is_some_and(|(schema, table)| self.patterns.include(&schema, &table))
    }

    /// The tables after a place, in the order of their keys, and at most so many.
    async fn read(
        &self,
        reader: &ItemReader,
        after: Option<&str>,
        most: Option<usize>,
        until: Instant,
    ) -> Result<Vec<Item>> {
        let after = after.map(|after| format!("{}{after}", self.base));
        let left = self.prefixes.iter().filter_map(|prefix| match &after {
            Some(after) if after.starts_with(prefix.as_str()) => Some((prefix, Some(after.clone()))),
            Some(after) if prefix < after => None,
            _ => Some((prefix, None)),
        });
        let left: Vec<_> = left.collect();
        let reads = left
            .into_iter()
            .map(|(prefix, start)| self.read_prefix(reader, prefix, start, most, until).boxed());
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(AT_ONCE);
        let mut items = Vec::new();
        while let Some(found) = reads.try_next().await? {
            items.extend(found);
            if most.is_some_and(|most| items.len() >= most) {
                break;
            }
        }
        items.truncate(most.unwrap_or(usize::MAX));
        Ok(items)
    }

    async fn read_prefix(
        &self,
        reader: &ItemReader,
        prefix: &str,
        mut start: Option<String>,
        most: Option<usize>,
        until: Instant,
    ) -> Result<Vec<Item>> {
        let (mut found, mut limit) = (Vec::new(), most);
        loop {
            let (items, next) = reader.query_once(&self.partition, prefix, limit, start, until).await?;
            found.extend(items.into_iter().filter(|item| self.include(item)));
            start = next;
            if start.is_none() || most.is_some_and(|most| found.len() >= most) {
                return Ok(found);
            }
            // A page of a few tables reads a few records; many records of other tables take few requests.
            limit = limit.map(|limit| limit.saturating_mul(4));
        }
    }
}

/// Waits for what decides, and for what is read at the same time if it is needed then.
pub(super) async fn decided<D, T>(
    decides: BoxFuture<'_, Result<D>>,
    needs: impl FnOnce(&D) -> bool,
    reads: BoxFuture<'_, Result<T>>,
) -> Result<(D, Option<T>)> {
    let (decided, read) = match select(decides, reads).await {
        Either::Left((decided, reads)) => {
            let decided = decided?;
            let read = if needs(&decided) { Some(reads.await?) } else { None };
            (decided, read)
        }
        Either::Right((read, decides)) => {
            let decided = decides.await?;
            let read = if needs(&decided) { Some(read?) } else { None };
            (decided, read)
        }
    };
    Ok((decided, read))
}
