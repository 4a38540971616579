//! What a grant shares of its share: the tables that its patterns name, and of their files those that its filter leaves.

use std::fmt;

use crate::predicate::PartitionFilter;
use crate::protocol::names::Name;

/// The most patterns of a grant.
pub const MOST_PATTERNS: usize = 100;

/// What a grant shares of its share. The default is everything, also what is added later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantState {
    /// The tables; `None` for every table.
    pub tables: Option<TablePatterns>,
    /// Which files of them; `None` for every file.
    pub filter: Option<PartitionFilter>,
}

impl GrantState {
    /// Whether a table is shared, by the keys of its names.
    pub fn includes(&self, schema: &str, table: &str) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.include(schema, table))
    }

    /// The same for a table by its name.
    pub fn includes_named(&self, schema: &str, table: &str) -> bool {
        self.includes(&Name::key_of(schema), &Name::key_of(table))
    }

    /// What is shared of a schema, by the key of its name.
    pub fn of_schema(&self, schema: &str) -> SchemaScope<'_> {
        match &self.tables {
            None => SchemaScope::Whole,
            Some(tables) => tables.of_schema(schema),
        }
    }

    /// Whether it has neither patterns nor a filter.
    pub fn is_whole_share(&self) -> bool {
        self.tables.is_none() && self.filter.is_none()
    }
}

/// The tables of a grant: at least one pattern, each of them once, sorted by their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePatterns(Vec<TablePattern>);

/// `SCHEMA.TABLE`, in which `*` stands for any characters of a name. Compared without regard to case.
#[derive(Debug, Clone)]
pub struct TablePattern {
    spelling: String,
    schema: String,
    table: String,
}

/// What is shared of a schema.
#[derive(Debug, PartialEq, Eq)]
pub enum SchemaScope<'a> {
    /// Nothing, whatever tables it gets.
    Nothing,
    /// The tables whose names match one of these patterns.
    Matching(Vec<&'a TablePattern>),
    /// Every table, and the schema itself if it has none.
    Whole,
}

impl TablePattern {
    /// Reads a pattern. Names that nothing can have are refused.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, table) =
            text.split_once('.').filter(|(_, table)| !table.contains('.')).ok_or_else(|| {
                format!("'{}' is not SCHEMA.TABLE, such as sales.orders or sales.*", text.escape_debug())
            })?;
        for part in [schema, table] {
            Name::schema_or_table(part).map_err(|error| format!("'{}': {error}", text.escape_debug()))?;
        }
        let (schema, table) = (Name::key_of(schema), Name::key_of(table));
        Ok(Self { spelling: text.to_owned(), schema, table })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.spelling
    }

    /// The pattern of the schema's key.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The pattern of the table's key.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether it matches a table, by the keys of its names.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        matches(&self.schema, schema) && matches(&self.table, table)
    }

    /// Whether it matches whatever the other one matches. May be false although it does.
    fn covers(&self, other: &Self) -> bool {
        // A wildcard of the other pattern is a character here that only a wildcard matches.
        self.matches(&other.schema, &other.table)
    }

    fn key(&self) -> (&str, &str) {
        (&self.schema, &self.table)
    }
}

impl PartialEq for TablePattern {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for TablePattern {}

impl TablePatterns {
    /// Reads the patterns of a grant.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, String> {
        let patterns = texts.iter().map(|text| TablePattern::parse(text.as_ref()));
        let mut patterns: Vec<TablePattern> = patterns.collect::<Result<_, _>>()?;
        patterns.sort_by(|a, b| a.key().cmp(&b.key()));
        patterns.dedup();
        match patterns.len() {
            // Nobody means every table by it, and a grant of nothing is no grant.
            0 => Err("the list is empty".to_owned()),
            1..=MOST_PATTERNS => Ok(Self(patterns)),
            _ => Err(format!("a grant has at most {MOST_PATTERNS} patterns; use * to match several tables")),
        }
    }

    /// The patterns in their order.
    pub fn iter(&self) -> impl Iterator<Item = &TablePattern> {
        self.0.iter()
    }

    /// The patterns as they are written.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(TablePattern::as_str)
    }

    /// Whether one of them matches a table, by the keys of its names.
    pub fn include(&self, schema: &str, table: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(schema, table))
    }

    /// What they match of a schema, by the key of its name.
    pub fn of_schema(&self, schema: &str) -> SchemaScope<'_> {
        let found: Vec<_> = self.0.iter().filter(|pattern| matches(&pattern.schema, schema)).collect();
        if found.iter().any(|pattern| pattern.table == "*") {
            SchemaScope::Whole
        } else if found.is_empty() {
            SchemaScope::Nothing
        } else {
            SchemaScope::Matching(found)
        }
    }

    /// Whether they match whatever the others match. May be false although they do.
    pub fn cover(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.0.iter().any(|pattern| pattern.covers(other)))
    }
}

impl fmt::Display for TablePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(", "))
    }
}

/// Whether a name matches a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut middle: Vec<&str> = parts.collect();
    let Some(last) = middle.pop() else { return rest.is_empty() };
    let Some(mut rest) = rest.strip_suffix(last) else { return false };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> TablePatterns {
        TablePatterns::parse(texts).unwrap()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("*", "", true),
            ("*", "x", true),
            ("eu_*", "eu_", true),
            ("eu_*", "eu_sales", true),
            ("eu_*", "us_eu_sales", false),
            ("*_eu", "sales_eu", true),
            ("*_eu", "sales_eu_old", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("a**b", "ab", true),
            ("*a*b*", "xxbxxa", false),
            ("*ab*ab", "xabab", true),
            ("*ab*ab", "xab", false),
            ("日*語", "日本語", true),
            ("ü*", "u", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_wildcard_is_the_same_as_a_slow_and_obvious_one() {
        fn obvious(pattern: &[char], name: &[char]) -> bool {
            match pattern {
                [] => name.is_empty(),
                ['*', rest @ ..] => (0..=name.len()).any(|at| obvious(rest, &name[at..])),
                [first, rest @ ..] => name.first() == Some(first) && obvious(rest, &name[1..]),
            }
        }
        let words = |letters: [char; 3], longest: u32| {
            (0..=longest).flat_map(move |length| {
                (0..3_usize.pow(length)).map(move |number| {
                    (0..length).map(|at| letters[number / 3_usize.pow(at) % 3]).collect::<String>()
                })
            })
        };
        for pattern in words(['a', 'b', '*'], 5) {
            for name in words(['a', 'b', 'c'], 5) {
                let (chars, in_name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
                assert_eq!(matches(&pattern, &name), obvious(&chars, &in_name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn patterns_are_compared_without_regard_to_case_order_and_repetition() {
        let one = patterns(&["Sales.*", "stock.EU_*", "sales.*"]);
        assert_eq!(one, patterns(&["STOCK.eu_*", "sales.*"]));
        assert_eq!(one.to_string(), "Sales.*, stock.EU_*");
        assert!(one.include("sales", "x") && one.include("stock", "eu_1") && !one.include("stock", "us_1"));
    }

    #[test]
    fn what_is_shared_of_a_schema() {
        let some = patterns(&["sales.*", "eu_*.orders", "stock.a", "stock.b*"]);
        assert_eq!(some.of_schema("sales"), SchemaScope::Whole);
        assert_eq!(some.of_schema("sales2"), SchemaScope::Nothing);
        for (schema, expected) in [("eu_x", vec!["eu_*.orders"]), ("stock", vec!["stock.a", "stock.b*"])] {
            let SchemaScope::Matching(found) = some.of_schema(schema) else { panic!("{schema}") };
            assert_eq!(found.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>(), expected);
        }
        assert_eq!(patterns(&["*.*"]).of_schema("x"), SchemaScope::Whole);
        assert_eq!(GrantState::default().of_schema("x"), SchemaScope::Whole);
    }

    #[test]
    fn what_covers_others() {
        for (wide, narrow, expected) in [
            (vec!["*.*"], vec!["sales.*", "a.b"], true),
            (vec!["sales.*"], vec!["sales.*"], true),
            (vec!["sales.*"], vec!["sales.eu_*", "sales.x"], true),
            (vec!["sales.eu_*"], vec!["sales.*"], false),
            (vec!["sales.*", "stock.*"], vec!["stock.x"], true),
            (vec!["sales.*"], vec!["sales.x", "stock.x"], false),
            (vec!["s*.*"], vec!["sales.x", "s*s.*"], true),
        ] {
            assert_eq!(patterns(&wide).cover(&patterns(&narrow)), expected, "{wide:?} {narrow:?}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for bad in [
            "",
            "*",
            "sales",
            "a.b.c",
            ".x",
            "x.",
            "a/b.*",
            " a.b",
            "a.b ",
            "a.\n*",
            "..",
            &format!("{}.x", "y".repeat(256)),
        ] {
            let refused = TablePattern::parse(bad).unwrap_err();
            assert!(refused.starts_with('\'') && !refused.contains('\n'), "{refused}");
        }
        assert!(TablePatterns::parse::<&str>(&[]).is_err());
        let many: Vec<_> = (0..=MOST_PATTERNS).map(|number| format!("s.t{number}")).collect();
        assert!(TablePatterns::parse(&many).is_err() && TablePatterns::parse(&many[1..]).is_ok());
    }
}
