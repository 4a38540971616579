//! The hints of one query, applied to the files of one table.

use std::collections::BTreeSet;

use super::Predicate;
use super::bind::{Binder, Bound};
use super::outcomes::Known;
use super::schema::{Column, Columns, Table};
use super::statistics::{Statistics, Wanted};

/// The most comparisons that are evaluated for each file.
const MOST_COMPARISONS: usize = 250;

/// What tells which rows a file can have.
pub struct FileFacts<'a, F> {
    /// The value of a partition column by its physical name: `None` if the log has none, `Some(None)` for a null.
    pub partition_value: F,
    /// The statistics, as JSON.
    pub stats: Option<&'a str>,
    /// How many rows a deletion vector deletes.
    pub deleted_rows: u64,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No row matches.
    LeftOut,
    /// Rows may match. How many surely do, if that is known: all of them.
    Kept {
        /// Rows that match.
        matching_rows: u64,
    },
}

/// A condition that every row must meet, with how many files it left out.
#[derive(Debug)]
pub struct Conjunct {
    /// The condition, as SQL.
    pub text: String,
    /// Why a part of it, or all of it, is not evaluated.
    pub ignored: Vec<String>,
    /// The columns that it reads from statistics, by their names.
    pub columns: Vec<String>,
    /// How many files it left out, after the conditions before it or on its own.
    pub left_out: u64,
    bound: Bound,
    reads_statistics: bool,
}

/// What the statistics of files lack of a column that a condition reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lack {
    /// The column.
    pub column: String,
    /// How many files have no statistics of it.
    pub missing: u64,
    /// In how many files only the beginning of its greatest text is known.
    pub cut_off: u64,
}

/// Decides for each file of a table whether a query can do without it.
#[derive(Debug, Default)]
pub struct Filter {
    conjuncts: Vec<Conjunct>,
    /// How many of them, from the first one on, can leave out files.
    evaluated: usize,
    columns: Vec<Column>,
    wanted: Wanted,
    counts_rows: bool,
    /// One entry for each column; only [`Filter::judge_by_each`] counts.
    lacks: Vec<Lack>,
}

impl Filter {
    /// A filter by predicates that all must hold. If `counts_rows`, the rows that surely match are counted.
    pub fn new(predicates: Vec<Predicate>, counts_rows: bool, table: Table<'_>) -> Self {
        // A schema takes a while to read.
        let schema = if predicates.is_empty() { "" } else { table.schema };
        let mut binder = Binder::new(Columns::new(Table { schema, ..table }));
        let (mut conjuncts, mut comparisons) = (Vec::new(), 0);
        for predicate in predicates.into_iter().flat_map(Predicate::into_conjuncts) {
            // Before columns are looked up for them. A list may turn out to be several.
            let fewest = predicate.comparisons();
            let conjunct =
                (comparisons + fewest <= MOST_COMPARISONS).then(|| Conjunct::new(predicate, &mut binder));
            comparisons += conjunct.as_ref().map_or(fewest, |conjunct| conjunct.bound.comparisons());
            if let Some(conjunct) = conjunct.filter(|_| comparisons <= MOST_COMPARISONS) {
                conjuncts.push(conjunct);
                continue;
            }
            let reason = format!("there are more than {MOST_COMPARISONS} comparisons");
            conjuncts.push(Conjunct::new(Predicate::Unsupported(reason), &mut binder));
            break;
        }
        let columns = binder.columns;
        for conjunct in &mut conjuncts {
            let read = conjunct.bound.columns();
            let read = || {
                read.iter().filter_map(|&column| columns.get(column)).filter(|column| !column.is_partition)
            };
            conjunct.columns = read().map(|column| column.name.clone()).collect();
            conjunct.reads_statistics = !conjunct.columns.is_empty();
        }
        // Those that need no statistics are cheaper. The last ones leave out nothing.
        conjuncts.sort_by_key(|conjunct| (!conjunct.is_evaluated(), conjunct.reads_statistics));
        let evaluated = conjuncts.iter().filter(|conjunct| conjunct.is_evaluated()).count();
        let lacks =
            columns.iter().map(|column| Lack { column: column.name.clone(), ..Lack::default() }).collect();
        Self { wanted: Wanted::new(&columns), conjuncts, evaluated, columns, counts_rows, lacks }
    }

    /// What the conditions say of files by their partition values alone.
    pub fn partition_conditions(&self) -> PartitionConditions {
        let is_partition =
            |&column: &usize| self.columns.get(column).is_some_and(|column| column.is_partition);
        let evaluated = self.conjuncts.iter().take(self.evaluated).map(|conjunct| &conjunct.bound);
        let conditions: Vec<Bound> =
            evaluated.filter(|bound| bound.columns().iter().any(is_partition)).cloned().collect();
        let columns = if conditions.is_empty() { Vec::new() } else { self.columns.clone() };
        PartitionConditions { columns, conditions }
    }

    /// The conditions, with those that need no statistics first.
    pub fn conjuncts(&self) -> &[Conjunct] {
        &self.conjuncts
    }

    /// What the statistics of the files lack that [`Self::judge_by_each`] decided on, by column.
    pub fn lacks(&self) -> impl Iterator<Item = &Lack> {
        self.lacks.iter().filter(|lack| lack.missing + lack.cut_off > 0)
    }

    /// Decides on a file.
    pub fn judge<'a>(&mut self, file: &FileFacts<'a, impl Fn(&str) -> Option<Option<&'a str>>>) -> Verdict {
        self.evaluate(file, true)
    }

    /// The same, but counts for every condition the files that it leaves out on its own.
    pub fn judge_by_each<'a>(
        &mut self,
        file: &FileFacts<'a, impl Fn(&str) -> Option<Option<&'a str>>>,
    ) -> Verdict {
        self.evaluate(file, false)
    }

    fn evaluate<'a>(
        &mut self,
        file: &FileFacts<'a, impl Fn(&str) -> Option<Option<&'a str>>>,
        stops: bool,
    ) -> Verdict {
        let mut known = known_by_partition(&self.columns, &file.partition_value);
        let (mut rows, mut has_read, mut is_kept) = (None, false, true);
        let mut is_certain = self.evaluated == self.conjuncts.len();
        for conjunct in self.conjuncts.iter_mut().take(self.evaluated) {
            if conjunct.reads_statistics && !has_read {
                rows = read_statistics(&self.wanted, &self.columns, file.stats, &mut known);
                has_read = true;
            }
            let outcomes = conjunct.bound.outcomes(&known);
            is_certain &= outcomes.is_certain();
            if outcomes.may_be_true {
                continue;
            }
            conjunct.left_out += 1;
            is_kept = false;
            if stops {
                break;
            }
        }
        if !stops && has_read {
            for (lack, known) in self.lacks.iter_mut().zip(&known) {
                lack.missing += u64::from(known.lacks_statistics());
                lack.cut_off += u64::from(known.is_cut_off());
            }
        }
        if !is_kept {
            return Verdict::LeftOut;
        }
        if !self.counts_rows || !is_certain {
            return Verdict::Kept { matching_rows: 0 };
        }
        let rows = if has_read { rows } else { self.wanted.read(file.stats).num_records };
        Verdict::Kept { matching_rows: rows.map_or(0, |rows| rows.saturating_sub(file.deleted_rows)) }
    }
}

/// Conditions that files are left out by, of which nothing but partition values is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartitionConditions {
    columns: Vec<Column>,
    conditions: Vec<Bound>,
}

impl PartitionConditions {
    /// Whether no file can be left out.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether rows of a file may match. `value` gives the value of a partition column by its physical name: `None` if the
    /// log has none, `Some(None)` for a null.
    pub fn may_match<'a>(&self, value: impl Fn(&str) -> Option<Option<&'a str>>) -> bool {
        if self.is_empty() {
            return true;
        }
        let known = known_by_partition(&self.columns, value);
        self.conditions.iter().all(|condition| condition.outcomes(&known).may_be_true)
    }
}

/// What the partition values of a file say of each column.
fn known_by_partition<'a>(
    columns: &[Column],
    value: impl Fn(&str) -> Option<Option<&'a str>>,
) -> Vec<Known<'a>> {
    let known = |column: &Column| match column.physical.first().filter(|_| column.is_partition) {
        Some(name) => Known::partition(value(name), column.data_type),
        None => Known::Nothing,
    };
    columns.iter().map(known).collect()
}

/// Reads what the statistics say of each column, and the number of rows.
fn read_statistics<'a>(
    wanted: &Wanted,
    columns: &[Column],
    stats: Option<&'a str>,
    known: &mut [Known<'a>],
) -> Option<u64> {
    let Statistics { num_records: rows, columns: read } = wanted.read(stats);
    for ((known, statistics), column) in known.iter_mut().zip(read).zip(columns) {
        if !column.is_partition {
            *known = Known::Statistics(statistics, rows);
        }
    }
    rows
}

impl Conjunct {
    fn new(predicate: Predicate, binder: &mut Binder<'_>) -> Self {
        let text = predicate.to_string();
        let bound = binder.bind(predicate);
        let ignored = std::mem::take(&mut binder.ignored);
        Self { text, ignored, columns: Vec::new(), left_out: 0, bound, reads_statistics: false }
    }

    /// Whether it is evaluated at all.
    pub fn is_evaluated(&self) -> bool {
        self.bound != Bound::Unknown
    }
}

impl Bound {
    /// How many comparisons it takes to evaluate.
    fn comparisons(&self) -> usize {
        match self {
            Self::And(children) | Self::Or(children) => children.iter().map(Self::comparisons).sum(),
            Self::Not(child) => child.comparisons(),
            _ => 1,
        }
    }

    /// The columns that it reads.
    fn columns(&self) -> BTreeSet<usize> {
        match self {
            Self::And(children) | Self::Or(children) => children.iter().flat_map(Self::columns).collect(),
            Self::Not(child) => child.columns(),
            Self::Compare { column, .. }
            | Self::In { column, .. }
            | Self::StartsWith { column, .. }
            | Self::IsNull { column } => BTreeSet::from([*column]),
            Self::Constant(_) | Self::Null | Self::Unknown => BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"struct","fields":[
        {"name":"day","type":"date","nullable":true,"metadata":{}},
        {"name":"region","type":"string","nullable":true,"metadata":{}},
        {"name":"n","type":"long","nullable":true,"metadata":{}},
        {"name":"i","type":"integer","nullable":true,"metadata":{}},
        {"name":"x","type":"double","nullable":true,"metadata":{}},
        {"name":"f","type":"float","nullable":true,"metadata":{}},
        {"name":"d","type":"decimal(10,2)","nullable":true,"metadata":{}},
        {"name":"t","type":"timestamp","nullable":true,"metadata":{}},
        {"name":"w","type":"timestamp_ntz","nullable":true,"metadata":{}},
        {"name":"s","type":"string","nullable":true,"metadata":{}},
        {"name":"b","type":"boolean","nullable":true,"metadata":{}},
        {"name":"wide","type":"double","nullable":true,"metadata":{"delta.typeChanges":[{"fromType":"float","toType":"double"}]}},
        {"name":"big","type":"decimal(38,20)","nullable":true,"metadata":{}},
        {"name":"old","type":"date","nullable":true,"metadata":{}},
        {"name":"wrap","type":"long","nullable":true,"metadata":{}},
        {"name":"bin","type":"binary","nullable":true,"metadata":{}}
    ]}"#;
    const STATS: &str = r#"{"numRecords":10,
        "minValues":{"big":0.1,"old":"1500-01-01","wrap":10,"wide":-0.1,"n":5,"i":-3,"x":-0.0,"f":0.1,"d":1.50,"t":"2024-05-01T00:00:00.000Z","w":"2024-05-01T00:00:00","s":"b"},
        "maxValues":{"big":0.1,"old":"1500-01-01","wrap":4294967299,"wide":-0.1,"n":7,"i":3,"x":2.5,"f":0.1,"d":9.99,"t":"2024-05-02T00:00:00.000Z","w":"2024-05-02T00:00:00","s":"d"},
        "nullCount":{"n":0,"i":10,"x":1,"f":0,"d":0,"t":0,"w":0,"s":2,"bin":10}}"#;

    fn filter(sql: &[&str], counts_rows: bool) -> Filter {
        let partition_columns = ["day".to_owned(), "region".to_owned()];
        let table = Table { schema: SCHEMA, partition_columns: &partition_columns, is_mapped: false };
        Filter::new(sql.iter().map(|sql| Predicate::from_sql(sql)).collect(), counts_rows, table)
    }

    fn facts(stats: Option<&str>) -> FileFacts<'_, impl Fn(&str) -> Option<Option<&'static str>>> {
        let partition_value = |name: &str| match name {
            "day" => Some(Some("2024-05-01")),
            "region" => Some(None),
            _ => None,
        };
        FileFacts { partition_value, stats, deleted_rows: 4 }
    }

    fn keeps(sql: &str) -> bool {
        filter(&[sql], false).judge(&facts(Some(STATS))) != Verdict::LeftOut
    }

    #[test]
    fn files_in_which_no_row_can_match_are_left_out() {
        for sql in [
            "day = '2024-05-02'",
            "day <> DATE '2024-05-01'",
            "day > '2024-05-01'",
            "CAST(partitionValues.day AS DATE) = DATE '2021-04-28'",
            "day IN ('2024-04-01', '2024-06-01')",
            "day NOT IN ('2024-05-01')",
            "day BETWEEN '2024-01-01' AND '2024-04-30'",
            "NOT (day >= '2024-05-01')",
            "day IS NULL",
            "region = 'EU'",
            "NOT region = 'EU'",
            "region LIKE 'E%'",
            "region IS NOT NULL",
            "n = 4",
            "n = 8",
            "n < 5",
            "n > 7",
            "7.5 < n",
            "n = NULL",
            "n IS NULL",
            "n IN (1, 8)",
            "NOT (n >= 5 AND n <= 7)",
            "i = 0",
            "i IS NOT NULL",
            "x < -0.5",
            "big > 0.2",
            "old = '1600-01-01'",
            "t IN ('2024-06-01 18:00:00', '2024-06-01T10:00:00Z')",
            "region <=> 'EU'",
            "CAST(n AS BIGINT) = 8",
            "x = 3",
            "wide < -0.2",
            "d < 1.5",
            "d > 9.99",
            "t > TIMESTAMP '2024-05-02T00:00:00.001Z'",
            "t < '2024-04-01 00:00:00'",
            "w < '2024-05-01 00:00:00'",
            "s < 'b'",
            "s > 'd'",
            "s LIKE 'e%'",
            "bin IS NOT NULL",
            "n = 4 OR s = 'x'",
            "n = 6 AND s = 'x'",
            "n + 1 = 6 AND s = 'x'",
        ] {
            assert!(!keeps(sql), "{sql}");
        }
    }

    #[test]
    fn files_in_which_a_row_may_match_are_kept() {
        for sql in [
            "day = '2024-05-01'",
            "day <=> '2024-05-01'",
            "day IN ('2024-05-01')",
            "region IS NULL",
            "region <=> NULL",
            "n = 5",
            "n = 6",
            "n <> 6",
            "NOT n = 6",
            "n BETWEEN 7 AND 9",
            "n = 6.0",
            "i IS NULL",
            "x = 0",
            "x <= 0",
            // NaN.
            "x > 3",
            "NOT x < 3",
            // A 32-bit 0.1 is greater than a 64-bit one.
            "f > 0.1",
            "f = 0.1",
            "f = 0.10000000149011612",
            // Statistics from a time when the column was a 32-bit number: -0.1 is -0.10000000149011612 as a 64-bit one.
            "wide = -0.10000000149011612",
            "wide < -0.1",
            "d >= 9.99",
            // Cut off after the milliseconds.
            "t > '2024-05-02T00:00:00.000500Z'",
            // In somebody's time zone.
            "t > '2024-05-02 10:00:00'",
            "s = 'c'",
            "s IS NULL",
            "s LIKE 'd%'",
            "s LIKE '%z'",
            "b = true",
            "bin = 'x'",
            // Statistics that went through a floating-point number.
            "big = 0.10000000000000000555",
            "big <> 0.1",
            // Older calendars.
            "old = '1500-01-10'",
            // Casts that change a number.
            "n = CAST(5.7 AS INT)",
            "x = CAST(5.7 AS INT)",
            "CAST(wrap AS INT) = 3",
            "t IN ('2024-05-01 18:00:00', '2024-05-01T10:00:00Z')",
            // What cannot be read is null for some clients.
            "i <=> 'abc'",
            "CAST('abc' AS INT) IS NULL",
            "DATE '2024-13-45' IS NULL",
            "w = TIMESTAMP '2024-05-02 03:30:00'",
            "w < '2024-05-01 00:00:00.0000009'",
            "day NOT LIKE '2024-05-01'",
            "x < 0.0",
            "n >= 7.0000000000000001",
            "s = 'it''s'",
            // Unknown columns, types that do not fit, and what is not evaluated.
            "nothing = 1",
            "n = 'x'",
            "s = 1",
            "day = 7",
            "day = '2024-5-2'",
            "f(n) = 100",
            "n = i",
            "n + 1 = 100",
            "n = 4 OR nothing = 1",
            "NOT (n = 6 AND nothing = 1)",
            "string",
            "",
        ] {
            assert!(keeps(sql), "{sql}");
        }
        for sql in ["n = 4", "n IS NULL", "s LIKE 'e%'"] {
            assert_ne!(filter(&[sql], false).judge(&facts(None)), Verdict::LeftOut, "{sql}");
        }
    }

    #[test]
    fn rows_are_counted_only_if_all_of_them_match() {
        let rows = |sql: &[&str], stats| match filter(sql, true).judge(&facts(stats)) {
            Verdict::Kept { matching_rows } => matching_rows,
            Verdict::LeftOut => panic!("left out"),
        };
        assert_eq!(rows(&[], Some(STATS)), 6);
        assert_eq!(rows(&["day = '2024-05-01'"], Some(STATS)), 6);
        assert_eq!(rows(&["n >= 5", "day = '2024-05-01'"], Some(STATS)), 6);
        assert_eq!(rows(&["n > 5"], Some(STATS)), 0);
        assert_eq!(rows(&["s >= 'b'"], Some(STATS)), 0);
        assert_eq!(rows(&["day = '2024-05-01'", "nothing = 1"], Some(STATS)), 0);
        assert_eq!(rows(&[], None), 0);
        assert_eq!(rows(&[], Some(r#"{"numRecords":3}"#)), 0);
    }

    #[test]
    fn each_condition_says_what_it_did() {
        let mut filter = filter(&["n = 4 AND day = '2024-05-02' AND f(n) = 1", "s = 'c'"], false);
        assert_eq!(filter.judge_by_each(&facts(Some(STATS))), Verdict::LeftOut);
        let found: Vec<_> = filter
            .conjuncts()
            .iter()
            .map(|conjunct| (conjunct.text.as_str(), conjunct.left_out, conjunct.ignored.len()))
            .collect();
        assert_eq!(
            found,
            [
                ("day = '2024-05-02'", 1, 0),
                ("n = 4", 1, 0),
                ("s = 'c'", 0, 0),
                ("a function is not supported", 0, 1),
            ]
        );
    }

    #[test]
    fn the_work_for_each_file_is_bounded() {
        let list = vec!["n = 4"; 150].join(" OR ");
        let mut filter = filter(&[&list, &list, "n = 4"], true);
        assert_eq!(filter.judge(&facts(Some(STATS))), Verdict::LeftOut);
        let evaluated =
            |filter: &Filter| filter.conjuncts().iter().map(Conjunct::is_evaluated).collect::<Vec<_>>();
        assert_eq!(evaluated(&filter), [true, false]);
        let list = format!("x IN ({})", ["1.5e0, 0"; 10].join(", "));
        assert_eq!(
            evaluated(&self::filter(&[list.as_str(); 20], true)),
            [[true; 12].as_slice(), &[false]].concat()
        );
    }
}
