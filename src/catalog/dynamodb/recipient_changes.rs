//! The arguments of changes to recipients and grants, and the grant that a change replaced.

use crate::catalog::grant::{GrantState, TablePatterns};
use crate::catalog::properties::Properties;
use crate::catalog::restrictions::RestrictionChanges;
use crate::predicate::PartitionFilter;

/// What happens to the filter of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantFilter {
    /// A new grant has no filter. Fails if the grant exists with a filter.
    Unspecified,
    /// The grant gets this filter, or no filter, whatever it has now.
    Set(Option<PartitionFilter>),
}

/// What happens to the tables of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantTables {
    /// A new grant is one of the whole share. Fails if the grant exists for some tables.
    Unspecified,
    /// The grant gets these tables, or the whole share, whatever it has now.
    Set(Option<TablePatterns>),
}

/// What happens to a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantChanges {
    /// Its tables.
    pub tables: GrantTables,
    /// Its filter.
    pub filter: GrantFilter,
}

impl GrantChanges {
    /// What is written for a grant that does not exist yet.
    pub fn state(&self) -> GrantState {
        let tables = match &self.tables {
            GrantTables::Unspecified => None,
            GrantTables::Set(tables) => tables.clone(),
        };
        let filter = match &self.filter {
            GrantFilter::Unspecified => None,
            GrantFilter::Set(filter) => filter.clone(),
        };
        GrantState { tables, filter }
    }
}

/// A grant that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantBefore {
    /// What it shared; everything if it could not be read.
    pub state: GrantState,
    /// Whether its record could be read.
    pub readable: bool,
}

/// Changes of a recipient. What is `None` or empty stays as it is.
#[derive(Debug, Clone, Default)]
pub struct RecipientChanges<'a> {
    /// The comment; `Some(None)` removes it.
    pub comment: Option<Option<&'a str>>,
    /// Whether it may read.
    pub active: Option<bool>,
    /// Properties to set.
    pub properties: Properties,
    /// The names of properties to remove.
    pub no_properties: Vec<String>,
    /// Restrictions to set or to remove.
    pub restrictions: RestrictionChanges,
}
