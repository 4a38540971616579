//! Which files a query can do without: predicates over partition values and statistics. And which files a recipient may
//! read at all: [`PartitionFilter`].
//!
//! "SQL Expressions for Filtering" and "JSON predicates for Filtering" of the protocol become one [`Predicate`], which is
//! bound to the columns of a table and evaluated for each file. A file is left out only if no row of it can match. What
//! cannot be parsed, bound or evaluated leaves out nothing.

mod bind;
mod display;
mod filter;
mod json;
mod outcomes;
mod partition_filter;
mod schema;
mod sql;
mod statistics;
mod value;

pub use filter::{Conjunct, FileFacts, Filter, Lack, PartitionConditions, Verdict};
pub use partition_filter::{AccessFault, BoundAccess, FileAccess, PartitionFilter, is_property_name};
pub use schema::Table;

/// A condition on rows, not bound to a table. SQL's three-valued logic.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// All of them.
    And(Vec<Self>),
    /// One of them.
    Or(Vec<Self>),
    /// The opposite.
    Not(Box<Self>),
    /// A comparison.
    Compare(Operand, Comparison, Operand),
    /// `IN`
    In(Operand, Vec<Operand>),
    /// `LIKE`
    Like {
        /// What is compared.
        operand: Operand,
        /// The text before the wildcard.
        prefix: String,
        /// Whether anything may follow: `'prefix%'`.
        rest: bool,
    },
    /// `<=>`, which is never null.
    NullSafeEqual(Operand, Operand),
    /// `IS NULL`
    IsNull(Operand),
    /// Something that this server does not evaluate, with the reason.
    Unsupported(String),
}

/// The operator of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The column or the literal.
    pub term: Term,
    /// The type that it is cast to.
    pub cast: Option<ValueType>,
}

/// A column or a literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// A column by the parts of its name.
    Column(Vec<String>),
    /// A literal.
    Literal(Literal),
}

/// A literal, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `NULL`
    Null,
    /// Digits, with or without a point or an exponent.
    Number(String),
    /// Text, which may stand for a value of another type.
    Text(String),
    /// `TRUE` or `FALSE`.
    Boolean(bool),
    /// `DATE '…'`
    Date(String),
    /// `TIMESTAMP '…'`
    Timestamp(String),
}

/// A type that values are compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `bool`
    Boolean,
    /// `int`
    Int,
    /// `long`
    Long,
    /// `string`
    Text,
    /// `date`
    Date,
    /// `float`
    Float,
    /// `double`
    Double,
    /// `timestamp`
    Timestamp,
}

impl Predicate {
    /// Parses a value of `jsonPredicateHints`. What is not understood becomes [`Self::Unsupported`].
    pub fn from_json(text: &str) -> Self {
        json::parse(text).unwrap_or_else(Self::Unsupported)
    }

    /// Parses an expression of `predicateHints`. What is not understood becomes [`Self::Unsupported`].
    pub fn from_sql(text: &str) -> Self {
        sql::parse(text).unwrap_or_else(Self::Unsupported)
    }

    /// The conditions that must all hold.
    fn into_conjuncts(self) -> Vec<Self> {
        match self {
            Self::And(children) => children.into_iter().flat_map(Self::into_conjuncts).collect(),
            other => vec![other],
        }
    }

    /// How many comparisons it takes to evaluate.
    fn comparisons(&self) -> usize {
        match self {
            Self::And(children) | Self::Or(children) => children.iter().map(Self::comparisons).sum(),
            Self::Not(child) => child.comparisons(),
            _ => 1,
        }
    }

    fn not(self) -> Self {
        Self::Not(Box::new(self))
    }
}

impl Comparison {
    /// The operator if the two sides change places.
    fn flipped(self) -> Self {
        match self {
            Self::Equal => Self::Equal,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}
