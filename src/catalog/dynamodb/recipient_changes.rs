//! What changes of recipients and grants say, and what they tell of before.

use crate::catalog::properties::Properties;
use crate::predicate::PartitionFilter;

/// The filter that a grant is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantFilter {
    /// None, unless the grant exists. Refused if it has a filter, which must not get lost unsaid.
    Unsaid,
    /// This filter, or none, whatever the grant has now.
    Said(Option<PartitionFilter>),
}

/// A grant before it was made again.
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
