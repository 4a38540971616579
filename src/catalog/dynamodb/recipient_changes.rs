//! The arguments of changes to recipients and grants, and the grant that a change replaced.

use crate::catalog::properties::Properties;
use crate::predicate::PartitionFilter;

/// What happens to the filter of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantFilter {
    /// A new grant has no filter. Fails if the grant exists with a filter.
    Unspecified,
    /// The grant gets this filter, or no filter, whatever it has now.
    Set(Option<PartitionFilter>),
}

/// A grant that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantBefore {
    /// The filter that it had; `None` if it had none, or if it could not be read.
    pub filter: Option<PartitionFilter>,
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
}
