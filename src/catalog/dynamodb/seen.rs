//! What a recipient sees: read as servers read it, for administrators.

use super::DEADLINE;
use super::item_reader::ItemReader;
use super::keys::{self, Key};
use super::records;
use super::write_error::{Result, WriteError};
use super::writer::Writer;
use crate::catalog::PageRequest;
use crate::catalog::grant::TablePatterns;
use crate::error::Error;

/// A table that a recipient sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenTable {
    /// `share.schema.table`
    pub name: String,
    /// The filters of the table and of the grant.
    pub filters: Vec<String>,
}

/// The tables that a recipient sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenTables {
    /// The tables, in the order of servers: by share, schema and table.
    pub tables: Vec<SeenTable>,
    /// Whether there are more.
    pub more: bool,
}

impl Writer {
    /// The tables that the grants of a recipient share, and at most so many. Whether it has a token makes no difference.
    /// Records that servers cannot read are left out, as servers do.
    pub async fn seen_tables(&self, recipient: &str, most: usize) -> Result<SeenTables> {
        let reader = self.reader();
        let mut seen = SeenTables::default();
        for item in self.query(&keys::recipient_partition(recipient), keys::GRANTS).await? {
            let Ok(grant) = records::grant(&item) else { continue };
            let name = grant.share.as_str();
            let share = self.get(&Key::share(name)).await?;
            let share = share.and_then(|share| records::share(&share).ok()?.served());
            let Some(share) = share else { continue };
            let page = PageRequest { after: None, limit: Some(most.saturating_sub(seen.tables.len())) };
            let found = match &grant.state.tables {
                Some(patterns) => reader.granted_tables(name, None, patterns, &page).await,
                None => reader.query(&keys::share_partition(name), keys::TABLES, &page).await.map(Some),
            };
            let Some(found) = found.map_err(unanswered)? else { continue };
            for table in found.items.iter().filter_map(|item| records::table(item, &share).ok()) {
                let filters = [&table.settings.filter, &grant.state.filter].into_iter().flatten();
                seen.tables.push(SeenTable {
                    name: format!("{}.{}.{}", table.share, table.schema, table.name),
                    filters: filters.map(|filter| filter.text().to_owned()).collect(),
                });
            }
            if found.more_after.is_some() {
                seen.more = true;
                break;
            }
        }
        Ok(seen)
    }

    /// The patterns that no table of a share matches now.
    pub async fn unmatched(&self, share: &str, patterns: &TablePatterns) -> Result<Vec<String>> {
        let (reader, mut unmatched) = (self.reader(), Vec::new());
        for pattern in patterns.iter() {
            let alone = TablePatterns::parse(&[pattern.as_str()]).map_err(WriteError::Refused)?;
            let first = PageRequest { after: None, limit: Some(1) };
            let found = reader.granted_tables(share, None, &alone, &first).await.map_err(unanswered)?;
            if found.is_none_or(|found| found.items.is_empty()) {
                unmatched.push(pattern.as_str().to_owned());
            }
        }
        Ok(unmatched)
    }

    fn reader(&self) -> ItemReader {
        ItemReader::new(self.client.clone(), &self.table, DEADLINE)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn unanswered(error: Error) -> WriteError {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    WriteError::Failed(cause.unwrap_or_else(|| error.to_string()))
}
