//! Conditions on partition columns that a provider sets: which files of a table a recipient may read.
//!
//! They are not hints. A file is shared only if every row of it surely meets every condition: what is unknown is not
//! shared. The language has nothing that turns "not sure" into "true", so each condition is simply met or not.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Word};

use super::outcomes::HIVE_NULL;
use super::schema::{Column, Columns, DataType, Table};
use super::sql::is_keyword;
use super::value::{Domain, Interval, Origin, Value};

/// The longest filter, in bytes.
const LONGEST: usize = 4096;
/// The most levels of parentheses.
const DEEPEST: usize = 32;
/// The longest name of a property.
const LONGEST_PROPERTY: usize = 64;
/// What a filter may consist of, as the end of a sentence.
const LANGUAGE: &str =
    "a filter consists of partition columns with =, IN, LIKE or IS NULL, joined by AND, OR and parentheses";

/// A condition on partition columns, as SQL: `region = 'EU' AND day IN ('2024-05-01', '2024-05-02')`. In place of a
/// literal it can have a property of the recipient: `region = ${recipient.region}`.
///
/// ```
/// use std::collections::BTreeMap;
/// use deltashare::predicate::{FileAccess, PartitionFilter, Table};
///
/// let filter = PartitionFilter::parse("region = ${recipient.region}")?;
/// let properties = BTreeMap::from([("region".to_owned(), "EU".to_owned())]);
/// let schema = r#"{"type":"struct","fields":[{"name":"region","type":"string","nullable":true,"metadata":{}}]}"#;
/// let columns = ["region".to_owned()];
/// let table = Table { schema, partition_columns: &columns, is_mapped: false };
///
/// let access = FileAccess::filtered([filter.clone()], &properties).bind(table);
/// assert!(access.allows(|_| Some(Some("EU"))));
/// assert!(!access.allows(|_| Some(Some("US"))));
///
/// // A property that the recipient does not have shares nothing.
/// let access = FileAccess::filtered([filter], &BTreeMap::new()).bind(table);
/// assert!(!access.allows(|_| Some(Some("EU"))));
/// # Ok::<_, String>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PartitionFilter {
    text: Arc<str>,
    condition: Arc<Condition>,
}

/// What the text of a filter says.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    And(Vec<Self>),
    Or(Vec<Self>),
    /// `=` and `IN`
    OneOf(String, Vec<Term>),
    Like(String, String),
    IsNull(String),
}

/// A literal or a property of the recipient.
#[derive(Debug, PartialEq, Eq)]
enum Term {
    /// In quotes; it stands for a value of the type of its column.
    Text(String),
    /// Without quotes: a number, or a word such as `TRUE`.
    Bare(String),
    /// The name of a property.
    Property(String),
}

impl PartitionFilter {
    /// Parses a filter. The error says what is wrong with it, as a sentence without a full stop.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.len() > LONGEST {
            return Err(format!("it has more than {LONGEST} bytes"));
        }
        if text.contains("--") || text.contains("/*") || text.contains('\\') {
            return Err(format!("{LANGUAGE}; comments and backslashes are not supported"));
        }
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|error| error.message)?;
        let tokens: Vec<Token> =
            tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
        let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
        let condition = parser.disjunction()?;
        match parser.peek() {
            None => Ok(Self { text: text.into(), condition: Arc::new(condition) }),
            Some(token) => Err(unexpected(token)),
        }
    }

    /// The filter, as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the filter fits a table, whatever properties recipients have. The error says what is wrong, as a sentence
    /// without a full stop.
    pub fn check(&self, table: Table<'_>) -> Result<(), String> {
        self.condition.bind(&Columns::new(table), None).map(drop)
    }

    /// The names of the recipient's properties that the filter reads.
    pub fn properties(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.condition.add_properties(&mut names);
        names
    }
}

/// Whether a property of a recipient can have this name: letters, digits and underscores, no digit at the beginning.
pub fn is_property_name(name: &str) -> bool {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word
        && name.len() <= LONGEST_PROPERTY
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

impl fmt::Display for PartitionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PartitionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionFilter({:?})", self.text)
    }
}

impl Condition {
    fn add_properties<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        match self {
            Self::And(children) | Self::Or(children) => {
                children.iter().for_each(|child| child.add_properties(names));
            }
            Self::OneOf(_, terms) => names.extend(terms.iter().filter_map(|term| match term {
                Term::Property(name) => Some(name.as_str()),
                Term::Text(_) | Term::Bare(_) => None,
            })),
            Self::Like(..) | Self::IsNull(_) => {}
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

fn unexpected(token: &Token) -> String {
    format!("'{token}' is not allowed at this place: {LANGUAGE}")
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<&'a Token, String> {
        let token = self.peek().ok_or_else(|| format!("it ends too early: {LANGUAGE}"))?;
        self.at += 1;
        Ok(token)
    }

    fn takes_word(&mut self, keyword: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Word(word)) if is_keyword(word, keyword));
        self.at += usize::from(is);
        is
    }

    fn needs(&mut self, wanted: &Token) -> Result<(), String> {
        match self.next()? {
            token if token == wanted => Ok(()),
            token => Err(unexpected(token)),
        }
    }

    fn disjunction(&mut self) -> Result<Condition, String> {
        let mut all = vec![self.conjunction()?];
        while self.takes_word("OR") {
            all.push(self.conjunction()?);
        }
        Ok(joined(all, Condition::Or))
    }

    fn conjunction(&mut self) -> Result<Condition, String> {
        let mut all = vec![self.term()?];
        while self.takes_word("AND") {
            all.push(self.term()?);
        }
        Ok(joined(all, Condition::And))
    }

    fn term(&mut self) -> Result<Condition, String> {
        let column = match self.next()? {
            Token::LParen => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(format!("it has more than {DEEPEST} levels of parentheses"));
                }
                let inner = self.disjunction()?;
                self.depth -= 1;
                self.needs(&Token::RParen)?;
                return Ok(inner);
            }
            Token::Word(word) if is_name(word) => word.value.clone(),
            token => return Err(unexpected(token)),
        };
        match self.next()? {
            Token::Eq => Ok(Condition::OneOf(column, vec![self.value()?])),
            Token::Word(word) if is_keyword(word, "IN") => Ok(Condition::OneOf(column, self.list()?)),
            Token::Word(word) if is_keyword(word, "LIKE") => match self.value()? {
                Term::Text(pattern) => Ok(Condition::Like(column, pattern)),
                // Its wildcards would be the recipient's.
                Term::Bare(_) | Term::Property(_) => {
                    Err("the pattern of LIKE must be a text in quotes".to_owned())
                }
            },
            Token::Word(word) if is_keyword(word, "IS") => {
                if self.takes_word("NULL") {
                    return Ok(Condition::IsNull(column));
                }
                Err(self.peek().map_or_else(|| format!("it ends too early: {LANGUAGE}"), unexpected))
            }
            token => Err(unexpected(token)),
        }
    }

    fn list(&mut self) -> Result<Vec<Term>, String> {
        self.needs(&Token::LParen)?;
        let mut values = vec![self.value()?];
        loop {
            match self.next()? {
                Token::Comma => values.push(self.value()?),
                Token::RParen => return Ok(values),
                token => return Err(unexpected(token)),
            }
        }
    }

    fn value(&mut self) -> Result<Term, String> {
        match self.next()? {
            Token::SingleQuotedString(text) if text.contains("${") => {
                Err("write a property without quotes: ${recipient.name}".to_owned())
            }
            Token::SingleQuotedString(text) => Ok(Term::Text(text.clone())),
            Token::Number(text, _) => Ok(Term::Bare(text.clone())),
            Token::Minus => match self.next()? {
                Token::Number(text, _) => Ok(Term::Bare(format!("-{text}"))),
                token => Err(unexpected(token)),
            },
            Token::Word(word) if is_keyword(word, "TRUE") || is_keyword(word, "FALSE") => {
                Ok(Term::Bare(word.value.clone()))
            }
            Token::Word(word) if is_keyword(word, "DATE") => match self.next()? {
                Token::SingleQuotedString(text) => Ok(Term::Text(text.clone())),
                token => Err(unexpected(token)),
            },
            Token::Word(word) if is_keyword(word, "NULL") => {
                Err("nothing is equal to NULL: write IS NULL".to_owned())
            }
            // `${recipient.name}`, of which the tokenizer makes several tokens.
            Token::Placeholder(dollar) if dollar == "$" => self.property(),
            token => Err(unexpected(token)),
        }
    }

    fn property(&mut self) -> Result<Term, String> {
        let malformed = || "a property is written ${recipient.name}".to_owned();
        let rest = self.tokens.get(self.at..self.at + 5).ok_or_else(malformed)?;
        self.at += 5;
        match rest {
            [Token::LBrace, Token::Word(owner), Token::Period, Token::Word(name), Token::RBrace]
                if owner.quote_style.is_none()
                    && owner.value == "recipient"
                    && name.quote_style.is_none()
                    && is_property_name(&name.value) =>
            {
                Ok(Term::Property(name.value.clone()))
            }
            _ => Err(malformed()),
        }
    }
}

fn joined(mut all: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match all.pop() {
        Some(only) if all.is_empty() => only,
        last => join(all.into_iter().chain(last).collect()),
    }
}

/// Whether a word can be the name of a column: quoted, or none of the words of the language.
fn is_name(word: &Word) -> bool {
    const RESERVED: [&str; 10] = ["AND", "OR", "NOT", "IN", "LIKE", "IS", "NULL", "TRUE", "FALSE", "BETWEEN"];
    match word.quote_style {
        Some(_) => !word.value.is_empty(),
        None => !RESERVED.iter().any(|reserved| is_keyword(word, reserved)),
    }
}

/// Which files of a table a recipient may read: every file, or those that meet all filters of the table and the grant.
/// Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileAccess(Option<Arc<Filtered>>);

#[derive(Debug, PartialEq, Eq)]
struct Filtered {
    filters: Vec<PartitionFilter>,
    /// Those properties of the recipient that the filters read.
    properties: BTreeMap<String, String>,
}

impl FileAccess {
    /// Every file.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The files that meet all of `filters`, for a recipient with these properties; every file if there are no filters.
    pub fn filtered(
        filters: impl IntoIterator<Item = PartitionFilter>,
        properties: &BTreeMap<String, String>,
    ) -> Self {
        let filters: Vec<PartitionFilter> = filters.into_iter().collect();
        if filters.is_empty() {
            return Self(None);
        }
        let read: BTreeSet<&str> = filters.iter().flat_map(PartitionFilter::properties).collect();
        let properties = properties.iter().filter(|(name, _)| read.contains(name.as_str()));
        let properties = properties.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self(Some(Arc::new(Filtered { filters, properties })))
    }

    /// Whether files may be withheld.
    pub fn is_filtered(&self) -> bool {
        self.0.is_some()
    }

    /// The filters that files must meet.
    pub fn filters(&self) -> &[PartitionFilter] {
        self.0.as_ref().map_or(&[], |filtered| &filtered.filters)
    }

    /// A text that two accesses share only if they have the same filters and the same values of the properties that these
    /// read. `None` if every file may be read.
    pub fn identity(&self) -> Option<String> {
        // `Debug` quotes every text, so no two lists of filters and properties look the same. Tokens depend on it: it must
        // keep the whole text of a filter.
        self.0.as_ref().map(|filtered| format!("{filtered:?}"))
    }

    /// The access to the files of a version with these columns.
    pub fn bind(&self, table: Table<'_>) -> BoundAccess {
        let bound = |files| BoundAccess { access: self.clone(), files };
        let Some(filtered) = &self.0 else { return bound(SharedFiles::All) };
        let columns = Columns::new(table);
        let conditions = filtered.filters.iter().map(|filter| {
            let condition = filter.condition.bind(&columns, Some(&filtered.properties));
            condition.map_err(|reason| AccessFault { filter: filter.text.to_string(), reason })
        });
        bound(match conditions.collect() {
            Ok(all) => SharedFiles::Some(all),
            Err(fault) => SharedFiles::None(fault),
        })
    }
}

/// Which files of a version a recipient may read. Equal for two versions if the filters mean the same in both.
#[derive(Debug, PartialEq)]
pub struct BoundAccess {
    access: FileAccess,
    files: SharedFiles,
}

#[derive(Debug, PartialEq)]
enum SharedFiles {
    All,
    Some(Vec<BoundCondition>),
    None(AccessFault),
}

/// Why a filter shares nothing of a version. This is for the provider, not for the recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessFault {
    /// The filter.
    pub filter: String,
    /// What is wrong, as a sentence without a full stop.
    pub reason: String,
}

impl fmt::Display for AccessFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the filter `{}` shares nothing: {}", self.filter, self.reason)
    }
}

impl BoundAccess {
    /// Whether the recipient may read a file. `value` gives the value of a partition column by its physical name: `None` if
    /// the log has none, `Some(None)` for a null.
    pub fn allows<'a>(&self, value: impl Fn(&str) -> Option<Option<&'a str>>) -> bool {
        match &self.files {
            SharedFiles::All => true,
            SharedFiles::Some(conditions) => conditions.iter().all(|condition| condition.is_met(&value)),
            SharedFiles::None(_) => false,
        }
    }

    /// The access that was bound.
    pub fn access(&self) -> &FileAccess {
        &self.access
    }

    /// Whether every file may be read, so that none needs to be looked at.
    pub fn allows_everything(&self) -> bool {
        matches!(self.files, SharedFiles::All)
    }

    /// The physical names of the columns that files are judged by; none if all files or no files are shared.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let mut names = BTreeSet::new();
        if let SharedFiles::Some(conditions) = &self.files {
            conditions.iter().for_each(|condition| condition.add_columns(&mut names));
        }
        names.into_iter()
    }

    /// Why nothing is shared, if a filter does not fit the table or the recipient lacks a property.
    pub fn fault(&self) -> Option<&AccessFault> {
        match &self.files {
            SharedFiles::None(fault) => Some(fault),
            SharedFiles::All | SharedFiles::Some(_) => None,
        }
    }
}

/// A condition on the columns of one table.
#[derive(Debug, PartialEq)]
enum BoundCondition {
    And(Vec<Self>),
    Or(Vec<Self>),
    OneOf { column: String, domain: Domain, values: Vec<Value<'static>> },
    Like { column: String, pattern: Vec<char> },
    IsNull { column: String },
}

impl Condition {
    /// `properties` are the recipient's; without any recipient, values of properties are left out.
    fn bind(
        &self,
        columns: &Columns<'_>,
        properties: Option<&BTreeMap<String, String>>,
    ) -> Result<BoundCondition, String> {
        let all = |children: &[Self]| -> Result<Vec<_>, String> {
            children.iter().map(|child| child.bind(columns, properties)).collect()
        };
        Ok(match self {
            Self::And(children) => BoundCondition::And(all(children)?),
            Self::Or(children) => BoundCondition::Or(all(children)?),
            Self::OneOf(name, terms) => {
                let (column, data_type) = partition_column(columns, name)?;
                let domain = domain(name, data_type)?;
                let values = terms.iter().filter_map(|term| read(name, domain, term, properties).transpose());
                BoundCondition::OneOf { column, domain, values: values.collect::<Result<_, _>>()? }
            }
            Self::Like(name, pattern) => {
                let (column, data_type) = partition_column(columns, name)?;
                if data_type != DataType::Text {
                    return Err(format!(
                        "LIKE needs a column of type string without a collation, or varchar, and {name} is not one"
                    ));
                }
                BoundCondition::Like { column, pattern: pattern.chars().collect() }
            }
            Self::IsNull(name) => BoundCondition::IsNull { column: partition_column(columns, name)?.0 },
        })
    }
}

/// The physical name of a partition column, and its type.
fn partition_column(columns: &Columns<'_>, name: &str) -> Result<(String, DataType), String> {
    let found = columns.at(&[name.to_owned()]);
    let Column { physical, data_type, is_partition, .. } =
        found.ok_or_else(|| format!("the table has no column {name}"))?;
    if !is_partition {
        return Err(format!("the table is not partitioned by the column {name}"));
    }
    let physical =
        physical.into_iter().next().ok_or_else(|| format!("the column {name} has no name in the log"))?;
    Ok((physical, data_type))
}

fn domain(name: &str, data_type: DataType) -> Result<Domain, String> {
    match data_type {
        DataType::Text => Ok(Domain::Text),
        DataType::Integer | DataType::Long => Ok(Domain::Integer { as_int: false }),
        DataType::Decimal | DataType::LongDecimal => Ok(Domain::Decimal),
        DataType::Date => Ok(Domain::Date),
        DataType::Boolean => Ok(Domain::Boolean),
        // What the log has of them is not exact, or is in a time zone that is not known.
        DataType::Float
        | DataType::Double
        | DataType::Timestamp
        | DataType::TimestampNtz
        | DataType::Other => Err(format!(
            "the column {name} cannot be compared: its type must be string without a collation, varchar, a whole number, decimal, date or boolean"
        )),
    }
}

/// The value of a term; `None` if it is a property and there is no recipient.
fn read(
    name: &str,
    domain: Domain,
    term: &Term,
    properties: Option<&BTreeMap<String, String>>,
) -> Result<Option<Value<'static>>, String> {
    let (text, is_bare) = match term {
        Term::Text(text) => (text, false),
        Term::Bare(text) => (text, true),
        Term::Property(property) => {
            let Some(properties) = properties else { return Ok(None) };
            let value = properties.get(property);
            (value.ok_or_else(|| format!("the recipient has no property {property}"))?, false)
        }
    };
    if is_bare && domain == Domain::Text {
        return Err(format!("the column {name} is a string, so its value must be in quotes"));
    }
    if text.is_empty() {
        return Err(format!("in a partition column, an empty text is a null: write {name} IS NULL"));
    }
    let value = exact(domain, Cow::Owned(text.clone()));
    let wrong = || match term {
        // Its value is the recipient's, and this text is for logs.
        Term::Property(property) => {
            format!("the recipient's property {property} is not a value of the type of the column {name}")
        }
        Term::Text(_) | Term::Bare(_) => format!("{text} is not a value of the type of the column {name}"),
    };
    value.map(Some).ok_or_else(wrong)
}

/// The value that a text stands for; `None` if it is not exactly one.
fn exact(domain: Domain, text: Cow<'_, str>) -> Option<Value<'_>> {
    let read: Option<Interval<'_>> = domain.read(text, Origin::Partition);
    read.filter(Interval::is_exact).and_then(|interval| interval.low)
}

impl BoundCondition {
    fn add_columns<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        match self {
            Self::And(children) | Self::Or(children) => {
                children.iter().for_each(|child| child.add_columns(names));
            }
            Self::OneOf { column, .. } | Self::Like { column, .. } | Self::IsNull { column } => {
                names.insert(column);
            }
        }
    }

    fn is_met<'a>(&self, value: &impl Fn(&str) -> Option<Option<&'a str>>) -> bool {
        match self {
            Self::And(children) => children.iter().all(|child| child.is_met(value)),
            Self::Or(children) => children.iter().any(|child| child.is_met(value)),
            Self::OneOf { column, domain, values } => {
                let own = not_null(value(column)).and_then(|text| exact(*domain, Cow::Borrowed(text)));
                own.is_some_and(|own| {
                    values.iter().any(|value| value.compare(&own) == Some(std::cmp::Ordering::Equal))
                })
            }
            Self::Like { column, pattern } => {
                not_null(value(column)).is_some_and(|text| matches(pattern, text))
            }
            // An empty text is a null by Delta's protocol, "Partition Value Serialization".
            Self::IsNull { column } => matches!(value(column), Some(None | Some(""))),
        }
    }
}

/// The text of a value that is not null and not how Hive writes a null.
fn not_null(value: Option<Option<&str>>) -> Option<&str> {
    value.flatten().filter(|text| !text.is_empty() && *text != HIVE_NULL)
}

/// Whether a text is like a pattern: `%` stands for any characters, `_` for one.
fn matches(pattern: &[char], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut in_text) = (0, 0);
    // Where to go on if what follows the last `%` does not match: one character further in the text.
    let mut again = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some('%') => {
                again = Some((at + 1, in_text));
                at += 1;
            }
            Some(&wanted) if wanted == '_' || text.get(in_text) == Some(&wanted) => {
                at += 1;
                in_text += 1;
            }
            _ => match again {
                Some((after, from)) => {
                    again = Some((after, from + 1));
                    (at, in_text) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|&character| character == '%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"struct","fields":[
        {"name":"region","type":"string","nullable":true,"metadata":{"delta.columnMapping.physicalName":"col-1"}},
        {"name":"year","type":"integer","nullable":true,"metadata":{}},
        {"name":"day","type":"date","nullable":true,"metadata":{}},
        {"name":"price","type":"decimal(20,2)","nullable":true,"metadata":{}},
        {"name":"open","type":"boolean","nullable":true,"metadata":{}},
        {"name":"at","type":"timestamp","nullable":true,"metadata":{}},
        {"name":"and","type":"string","nullable":true,"metadata":{}},
        {"name":"n","type":"long","nullable":true,"metadata":{}}
    ]}"#;

    fn bound(filters: &[&str], properties: &[(&str, &str)]) -> BoundAccess {
        let columns = ["region", "year", "day", "price", "open", "at", "and"].map(str::to_owned);
        let filters = filters.iter().map(|text| PartitionFilter::parse(text).unwrap());
        let properties =
            properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let table = Table { schema: SCHEMA, partition_columns: &columns, is_mapped: true };
        FileAccess::filtered(filters, &properties).bind(table)
    }

    fn allows(filter: &str, values: &[(&str, Option<&str>)]) -> bool {
        let access =
            bound(&[filter], &[("region", "EU"), ("quoted", "O'Brien' OR 'x' = 'x"), ("year", "2024")]);
        assert_eq!(access.fault(), None, "{filter}");
        access.allows(|column| values.iter().find(|(name, _)| *name == column).map(|&(_, value)| value))
    }

    #[test]
    fn conditions_on_values() {
        for (filter, column, value, met) in [
            ("region = 'EU'", "col-1", Some("EU"), true),
            ("region = 'EU'", "col-1", Some("eu"), false),
            ("region = 'EU'", "col-1", Some("EU "), false),
            ("region = 'EU'", "col-1", None, false),
            ("region = 'O''Brien'", "col-1", Some("O'Brien"), true),
            ("REGION = ${recipient.region}", "col-1", Some("EU"), true),
            ("region = ${recipient.quoted}", "col-1", Some("O'Brien' OR 'x' = 'x"), true),
            ("region = ${recipient.quoted}", "col-1", Some("US"), false),
            ("region in ('US', ${recipient.region})", "col-1", Some("EU"), true),
            ("region IN ('US', 'CA')", "col-1", Some("EU"), false),
            ("region LIKE 'E%'", "col-1", Some("EU"), true),
            ("region LIKE 'E%'", "col-1", Some("UE"), false),
            ("region LIKE '%'", "col-1", None, false),
            ("region IS NULL", "col-1", None, true),
            ("region IS NULL", "col-1", Some(""), true),
            ("region IS NULL", "col-1", Some("EU"), false),
            ("region IS NULL", "col-1", Some(HIVE_NULL), false),
            ("region LIKE '%'", "col-1", Some(HIVE_NULL), false),
            ("year = 2024", "year", Some("2024"), true),
            ("year = '2024'", "year", Some("02024"), true),
            ("year = ${recipient.year}", "year", Some("2024"), true),
            ("year = -1", "year", Some("-1"), true),
            ("year = 2024", "year", Some("2024.0"), false),
            ("year = 2024", "year", Some("x"), false),
            ("day = '2024-05-01'", "day", Some("2024-5-1"), true),
            ("day = DATE '2024-05-01'", "day", Some("2024-05-01"), true),
            ("day = '2024-05-01'", "day", Some("2024-05-02"), false),
            ("price = 1.5", "price", Some("1.50"), true),
            ("price = 12345678901234567.01", "price", Some("12345678901234567.01"), true),
            ("price = 12345678901234567.01", "price", Some("12345678901234567.02"), false),
            ("open = true", "open", Some("TRUE"), true),
            ("open = FALSE", "open", Some("true"), false),
            ("at IS NULL", "at", None, true),
            ("`and` = 'x'", "and", Some("x"), true),
            ("\"and\" = 'x'", "and", Some("x"), true),
        ] {
            assert_eq!(allows(filter, &[(column, value)]), met, "{filter} {value:?}");
        }
        assert!(!allows("region IS NULL", &[]), "a value that the log does not have is not shared");
    }

    #[test]
    fn conditions_are_joined() {
        let values = |region, year| [("col-1", Some(region)), ("year", Some(year))];
        for (filter, met) in [
            ("region = 'EU' AND year = 2024", [true, false, false, false]),
            ("region = 'EU' OR year = 2024", [true, true, true, false]),
            ("region = 'EU' OR region = 'US' AND year = 2024", [true, true, true, false]),
            ("(region = 'EU' OR region = 'US') AND year = 2024", [true, false, true, false]),
            ("region IS NULL OR (year = 2023)", [false, true, false, true]),
        ] {
            let of = [("EU", "2024"), ("EU", "2023"), ("US", "2024"), ("US", "2023")];
            assert_eq!(of.map(|(region, year)| allows(filter, &values(region, year))), met, "{filter}");
        }
        let both = bound(&["region = 'EU'", "year = 2024"], &[]);
        let of = |region, year| {
            both.allows(|column| {
                values(region, year).iter().find(|(name, _)| *name == column).map(|(_, value)| *value)
            })
        };
        assert_eq!([of("EU", "2024"), of("EU", "2023"), of("US", "2024")], [true, false, false]);
    }

    #[test]
    fn a_filter_that_does_not_fit_shares_nothing() {
        for (filter, reason) in [
            ("area = 'EU'", "the table has no column area"),
            ("n = 1", "the table is not partitioned by the column n"),
            ("n IS NULL OR region = 'EU'", "the table is not partitioned by the column n"),
            ("region = ${recipient.country}", "the recipient has no property country"),
            ("region = 'EU' OR region = ${recipient.country}", "the recipient has no property country"),
            (
                "year = ${recipient.region}",
                "the recipient's property region is not a value of the type of the column year",
            ),
            ("year = 'x'", "x is not a value of the type of the column year"),
            ("region = ''", "in a partition column, an empty text is a null: write region IS NULL"),
            ("region = 5", "the column region is a string, so its value must be in quotes"),
            (
                "year LIKE '2%'",
                "LIKE needs a column of type string without a collation, or varchar, and year is not one",
            ),
        ] {
            let access = bound(&[filter], &[("region", "EU")]);
            assert_eq!(access.fault().map(|fault| fault.reason.as_str()), Some(reason), "{filter}");
            assert!(!access.allows(|_| Some(Some("EU"))) && !access.allows(|_| None));
            let columns = ["region", "year"].map(str::to_owned);
            let table = Table { schema: SCHEMA, partition_columns: &columns, is_mapped: true };
            let own = PartitionFilter::parse(filter).unwrap().check(table).err();
            assert_eq!(
                own.as_deref(),
                Some(reason).filter(|reason| !reason.contains("the recipient")),
                "{filter}"
            );
        }
        assert!(bound(&["at = '2024-05-01 00:00:00'"], &[]).fault().is_some());
    }

    #[test]
    fn what_is_not_a_filter() {
        for text in [
            "",
            " ",
            "region",
            "region =",
            "region = region",
            "region <> 'EU'",
            "region != 'EU'",
            "region > 'A'",
            "NOT region = 'EU'",
            "region IS NOT NULL",
            "region NOT IN ('EU')",
            "region = NULL",
            "region == 'EU'",
            "region = 'EU' AND",
            "(region = 'EU'",
            "region = 'EU')",
            "region IN ()",
            "region IN 'EU'",
            "1 = 1",
            "TRUE",
            "region = 'EU' -- all",
            "region = 'EU' /* all */",
            "region = 'E\\U'",
            "upper(region) = 'EU'",
            "region = 'a' 'b'",
            "t.region = 'EU'",
            "region LIKE ${recipient.region}",
            "region = '${recipient.region}'",
            "region = ${region}",
            "region = ${recipient.}",
            "region = ${recipient.1}",
            "region = $recipient",
            "region = ${Recipient.region}",
            "region BETWEEN 'A' AND 'B'",
            "region = 'EU'; DROP",
            "region = 'EU' OR",
            "\u{0}",
        ] {
            assert!(PartitionFilter::parse(text).is_err(), "{text}");
        }
        let deep = format!("{}region = 'EU'{}", "(".repeat(DEEPEST + 1), ")".repeat(DEEPEST + 1));
        assert!(
            PartitionFilter::parse(&deep).is_err()
                && PartitionFilter::parse(&deep[1..deep.len() - 1]).is_ok()
        );
        assert!(PartitionFilter::parse(&format!("region = '{}'", "x".repeat(LONGEST))).is_err());
    }

    #[test]
    fn patterns() {
        for (pattern, text, met) in [
            ("%", "", true),
            ("", "", true),
            ("", "x", false),
            ("_", "", false),
            ("_", "日", true),
            ("a%", "a", true),
            ("a%b", "ab", true),
            ("a%b", "axxb", true),
            ("a%b", "axxbc", false),
            ("%a%b%", "xxaxxbxx", true),
            ("%ab", "aab", true),
            ("%aab", "aaab", true),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("a%%c", "abc", true),
            ("%_", "", false),
        ] {
            let pattern: Vec<char> = pattern.chars().collect();
            assert_eq!(matches(&pattern, text), met, "{pattern:?} {text}");
        }
        let pattern: Vec<char> = "%a".repeat(1000).chars().chain("b".chars()).collect();
        assert!(!matches(&pattern, &"a".repeat(4000)), "it ends, and soon");
    }

    #[test]
    fn accesses_are_told_apart_by_what_they_read() {
        let access = |filter: &str, region: &str| {
            let properties = BTreeMap::from([
                ("region".to_owned(), region.to_owned()),
                ("other".to_owned(), region.to_owned()),
            ]);
            FileAccess::filtered([PartitionFilter::parse(filter).unwrap()], &properties).identity()
        };
        let by_region = "region = ${recipient.region}";
        assert_eq!(access(by_region, "EU"), access(by_region, "EU"));
        assert_ne!(access(by_region, "EU"), access(by_region, "US"));
        assert_eq!(access("region = 'EU'", "EU"), access("region = 'EU'", "US"));
        assert_eq!(FileAccess::everything().identity(), None);
        assert!(!FileAccess::filtered([], &BTreeMap::new()).is_filtered());
    }
}
