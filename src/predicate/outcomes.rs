//! What a predicate can come to for the rows of a file.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Comparison;
use super::bind::Bound;
use super::schema::DataType;
use super::statistics::ColumnStatistics;
use super::value::{Domain, Interval, Origin, Value};

/// How Hive writes a null as a partition value.
pub(super) const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// Delta cuts texts in statistics off after so many characters, unless a table says something else.
const CUT_TEXT: usize = 32;
/// What Delta puts after a maximum that it cut off, now and in older versions. The older one is less than some characters.
const TIE_BREAKERS: [char; 2] = ['\u{10ffff}', '\u{fffd}'];

/// Which values a predicate may have among the rows of a file. Never too few of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) may_be_true: bool,
    pub(super) may_be_false: bool,
    pub(super) may_be_null: bool,
}

/// What is known of the values of a column in a file.
#[derive(Debug, Clone)]
pub(super) enum Known<'a> {
    /// Every row has this value; `None` is null.
    Partition(Option<&'a str>),
    /// The statistics, and the number of rows that they are of.
    Statistics(ColumnStatistics<'a>, Option<u64>),
    /// Nothing.
    Nothing,
}

impl Outcomes {
    const ANY: Self = Self { may_be_true: true, may_be_false: true, may_be_null: true };
    const NULL: Self = Self { may_be_true: false, may_be_false: false, may_be_null: true };

    fn constant(value: bool) -> Self {
        Self { may_be_true: value, may_be_false: !value, may_be_null: false }
    }

    fn not(self) -> Self {
        Self { may_be_true: self.may_be_false, may_be_false: self.may_be_true, ..self }
    }

    fn and(self, other: Self) -> Self {
        Self {
            may_be_true: self.may_be_true && other.may_be_true,
            may_be_false: self.may_be_false || other.may_be_false,
            may_be_null: (self.may_be_null && (other.may_be_null || other.may_be_true))
                || (self.may_be_true && other.may_be_null),
        }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    /// Whether every row matches.
    pub(super) fn is_certain(self) -> bool {
        !self.may_be_false && !self.may_be_null
    }
}

impl Bound {
    /// Evaluates the predicate for a file; `known` has what is known of each column.
    pub(super) fn outcomes(&self, known: &[Known<'_>]) -> Outcomes {
        let all = |children: &[Self], both: fn(Outcomes, Outcomes) -> Outcomes, start| {
            children.iter().map(|child| child.outcomes(known)).fold(start, both)
        };
        let of = |column: usize| known.get(column).unwrap_or(&Known::Nothing);
        match self {
            Self::And(children) => all(children, Outcomes::and, Outcomes::constant(true)),
            Self::Or(children) => all(children, Outcomes::or, Outcomes::constant(false)),
            Self::Not(child) => child.outcomes(known).not(),
            Self::Compare { column, domain, comparison, literal } => of(*column)
                .outcomes_of(*domain, |values, may_be_nan| compare(values, may_be_nan, *comparison, literal)),
            Self::In { column, domain, literals, has_null } => {
                let outcomes = of(*column)
                    .outcomes_of(*domain, |values, may_be_nan| is_in(values, may_be_nan, literals));
                // What is in no list with a null may be equal to it.
                Outcomes {
                    may_be_null: outcomes.may_be_null || (*has_null && outcomes.may_be_false),
                    ..outcomes
                }
            }
            Self::StartsWith { column, prefix } => {
                of(*column).outcomes_of(Domain::Text, |values, _| starts_with(values, prefix))
            }
            Self::IsNull { column } => {
                let (may_be_null, may_be_value) = of(*column).nulls();
                Outcomes { may_be_true: may_be_null, may_be_false: may_be_value, may_be_null: false }
            }
            Self::Constant(value) => Outcomes::constant(*value),
            Self::Null => Outcomes::NULL,
            Self::Unknown => Outcomes::ANY,
        }
    }
}

impl<'a> Known<'a> {
    /// The value of a partition column, as the log has it; `None` if it has none.
    pub(super) fn partition(value: Option<Option<&'a str>>, data_type: DataType) -> Self {
        match value {
            None | Some(Some(HIVE_NULL)) => Self::Nothing,
            // An empty text is a null by Delta's protocol; some writers mean an empty text, or no bytes.
            Some(Some("")) if matches!(data_type, DataType::Text | DataType::Other) => Self::Nothing,
            Some(Some("")) => Self::Partition(None),
            Some(value) => Self::Partition(value),
        }
    }

    /// Whether statistics say nothing of the values.
    pub(super) fn lacks_statistics(&self) -> bool {
        matches!(self, Self::Statistics(ColumnStatistics { min: None, max: None, null_count: None }, _))
    }

    /// Whether only the beginning of the greatest text is known.
    pub(super) fn is_cut_off(&self) -> bool {
        match self {
            Self::Statistics(ColumnStatistics { max: Some(max), .. }, _) => cut(max).1,
            _ => false,
        }
    }

    /// Whether rows may be null, and whether rows may be something else.
    fn nulls(&self) -> (bool, bool) {
        match self {
            Self::Partition(value) => (value.is_none(), value.is_some()),
            Self::Statistics(statistics, rows) => match (statistics.null_count, rows) {
                (Some(0), _) => (false, true),
                // Among rows of which some are deleted, a count is only right if it is of all or of none.
                (Some(nulls), Some(rows)) => (true, nulls != *rows),
                _ => (true, true),
            },
            Self::Nothing => (true, true),
        }
    }

    /// The outcomes of a predicate that is null for nulls. `of_values` gives those for values within an interval, among
    /// which NaN may be.
    fn outcomes_of(
        &self,
        domain: Domain,
        of_values: impl FnOnce(&Interval<'_>, bool) -> Outcomes,
    ) -> Outcomes {
        let (may_be_null, may_be_value) = self.nulls();
        if !may_be_value {
            return Outcomes::NULL;
        }
        let outcomes = match self {
            Self::Partition(value) => {
                let values = value.and_then(|value| domain.read(Cow::Borrowed(value), Origin::Partition));
                of_values(&values.unwrap_or_default(), false)
            }
            Self::Statistics(statistics, _) => {
                let is_double = matches!(domain, Domain::Double { .. });
                of_values(&between(statistics, domain), is_double)
            }
            Self::Nothing => Outcomes::ANY,
        };
        Outcomes { may_be_null: may_be_null || outcomes.may_be_null, ..outcomes }
    }
}

/// What a greatest text begins with, and whether the rest was cut off.
fn cut(max: &str) -> (&str, bool) {
    let text = max.trim_end_matches(TIE_BREAKERS);
    (text, text.len() < max.len() || max.chars().count() >= CUT_TEXT)
}

/// Between which values those of a column lie.
fn between<'a>(statistics: &ColumnStatistics<'a>, domain: Domain) -> Interval<'a> {
    let read = |text: Option<&Cow<'a, str>>| text.and_then(|text| domain.read(text.clone(), Origin::Bound));
    let low = read(statistics.min.as_ref()).and_then(|interval| interval.low);
    if domain == Domain::Text {
        let (high, cut) = match &statistics.max {
            Some(max) => {
                let (text, cut) = cut(max);
                (Some(Value::Text(Cow::Owned(text.to_owned()))), cut)
            }
            None => (None, false),
        };
        return Interval { low, high, cut };
    }
    // Writers differ in whether a maximum says that there are NaN, which Spark takes for the greatest number.
    let high = read(statistics.max.as_ref()).and_then(|interval| interval.high);
    // A number that does not fit is another one when it is cast, which may be below the minimum.
    if domain == (Domain::Integer { as_int: true }) && (low.is_none() || high.is_none()) {
        return Interval::default();
    }
    Interval { low, high, cut: false }
}

/// How a comparison of values with a literal can come out.
fn compare(
    values: &Interval<'_>,
    may_be_nan: bool,
    comparison: Comparison,
    literal: &Interval<'_>,
) -> Outcomes {
    let lowest_to_high = order(values.low.as_ref(), literal.high.as_ref());
    let highest_to_low = highest_to(values, literal.low.as_ref());
    // `None` is any order.
    let lowest_is_above = lowest_to_high == Some(Ordering::Greater);
    let lowest_is_at_or_above = matches!(lowest_to_high, Some(Ordering::Greater | Ordering::Equal));
    let highest_is_below = highest_to_low == Some(Ordering::Less);
    let highest_is_at_or_below = matches!(highest_to_low, Some(Ordering::Less | Ordering::Equal));
    let (may_be_true, may_be_false) = match comparison {
        Comparison::Equal => {
            let same = values.is_exact() && literal.is_exact() && highest_to_low == Some(Ordering::Equal);
            (!lowest_is_above && !highest_is_below, !same)
        }
        Comparison::Less => (!lowest_is_at_or_above, !highest_is_below),
        Comparison::LessOrEqual => (!lowest_is_above, !highest_is_at_or_below),
        Comparison::Greater => (!highest_is_at_or_below || may_be_nan, !lowest_is_above),
        Comparison::GreaterOrEqual => (!highest_is_below || may_be_nan, !lowest_is_at_or_above),
    };
    Outcomes { may_be_true, may_be_false: may_be_false || may_be_nan, may_be_null: false }
}

fn order(left: Option<&Value<'_>>, right: Option<&Value<'_>>) -> Option<Ordering> {
    left?.compare(right?)
}

/// How the greatest value compares with `to`. `None` if it may be anything.
fn highest_to(values: &Interval<'_>, to: Option<&Value<'_>>) -> Option<Ordering> {
    let (high, to) = (values.high.as_ref()?, to?);
    match (high, to) {
        // The greatest value begins with `high`, and may go on in any way.
        (Value::Text(high), Value::Text(to)) if values.cut && to.starts_with(high.as_ref()) => None,
        _ => high.compare(to),
    }
}

fn is_in(values: &Interval<'_>, may_be_nan: bool, literals: &[Interval<'_>]) -> Outcomes {
    // Of the literals that do not begin above the greatest value, the last one reaches the farthest.
    let beyond =
        literals.partition_point(|literal| highest_to(values, literal.low.as_ref()) != Some(Ordering::Less));
    let candidates = literals.get(..beyond).unwrap_or(literals);
    let may_be_true = candidates
        .last()
        .is_some_and(|literal| order(values.low.as_ref(), literal.high.as_ref()) != Some(Ordering::Greater));
    let only = candidates.last().map(|literal| compare(values, may_be_nan, Comparison::Equal, literal));
    let may_be_false = only.is_none_or(|equal| equal.may_be_false);
    Outcomes { may_be_true, may_be_false, may_be_null: false }
}

fn starts_with(values: &Interval<'_>, prefix: &str) -> Outcomes {
    let text = |value: &Option<Value<'_>>| match value {
        Some(Value::Text(text)) => Some(text.to_string()),
        _ => None,
    };
    let (low, high) = (text(&values.low), text(&values.high));
    // What begins with the prefix is at or above it, and below everything else that is above it.
    let below =
        high.as_deref().is_some_and(|high| high < prefix && !(values.cut && prefix.starts_with(high)));
    let above = low.as_deref().is_some_and(|low| low > prefix && !low.starts_with(prefix));
    let all = match (&low, &high) {
        (Some(low), Some(high)) => low.starts_with(prefix) && high.starts_with(prefix),
        _ => false,
    };
    Outcomes { may_be_true: !below && !above, may_be_false: !all, may_be_null: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(low: i64, high: i64) -> Interval<'static> {
        Interval { low: Some(Value::Integer(low)), high: Some(Value::Integer(high)), cut: false }
    }

    /// Every way in which values and literals of small intervals can lie to each other, against all their rows.
    #[test]
    fn outcomes_of_comparisons_are_exact_for_intervals() {
        use Comparison::*;
        for (low, high) in (0..6).flat_map(|low| (low..6).map(move |high| (low, high))) {
            for literal in 0..6_i64 {
                for (comparison, holds) in [
                    (Equal, (|row, literal| row == literal) as fn(i64, i64) -> bool),
                    (Less, |row, literal| row < literal),
                    (LessOrEqual, |row, literal| row <= literal),
                    (Greater, |row, literal| row > literal),
                    (GreaterOrEqual, |row, literal| row >= literal),
                ] {
                    let found = compare(&integers(low, high), false, comparison, &integers(literal, literal));
                    let rows = || low..=high;
                    assert_eq!(
                        found.may_be_true,
                        rows().any(|row| holds(row, literal)),
                        "{low} {high} {comparison:?} {literal}"
                    );
                    assert_eq!(
                        found.may_be_false,
                        !rows().all(|row| holds(row, literal)),
                        "{low} {high} {comparison:?} {literal}"
                    );
                }
            }
        }
    }

    #[test]
    fn lists_are_searched_as_if_each_value_was_compared() {
        for mask in 1_u32..64 {
            let literals: Vec<_> =
                (0..6).filter(|bit| mask >> bit & 1 == 1).map(|at| integers(at, at)).collect();
            for (low, high) in (0..6).flat_map(|low| (low..6).map(move |high| (low, high))) {
                let found = is_in(&integers(low, high), false, &literals);
                let any = literals.iter().any(|literal| {
                    compare(&integers(low, high), false, Comparison::Equal, literal).may_be_true
                });
                assert_eq!(found.may_be_true, any, "{mask:b} {low} {high}");
                let all = low == high && mask >> low & 1 == 1;
                assert_eq!(found.may_be_false, !all, "{mask:b} {low} {high}");
            }
        }
    }

    #[test]
    fn three_valued_logic_is_that_of_sql() {
        let [t, f, n] = [Outcomes::constant(true), Outcomes::constant(false), Outcomes::NULL];
        for (left, right, and, or) in
            [(t, t, t, t), (t, f, f, t), (t, n, n, t), (f, f, f, f), (f, n, f, n), (n, n, n, n)]
        {
            assert_eq!((left.and(right), right.and(left)), (and, and));
            assert_eq!((left.or(right), right.or(left)), (or, or));
        }
        assert_eq!((t.not(), f.not(), n.not()), (f, t, n));
    }

    #[test]
    fn a_maximum_that_was_cut_off_does_not_end_what_begins_with_it() {
        let of = |max: &str, literal: &'static str| {
            let statistics = ColumnStatistics {
                min: Some("a".into()),
                max: Some(max.to_owned().into()),
                null_count: Some(0),
            };
            let literal = Interval::exactly(Value::Text(literal.into()));
            Known::Statistics(statistics, Some(1))
                .outcomes_of(Domain::Text, |values, nan| compare(values, nan, Comparison::Equal, &literal))
                .may_be_true
        };
        assert!(!of("abc", "abcd"));
        assert!(of("abc\u{fffd}", "abc\u{10000}"));
        assert!(of("abc\u{10ffff}", "abcd"));
        assert!(!of("abc\u{10ffff}", "abd"));
        assert!(of(&"m".repeat(32), "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmz"));
        assert!(!of(&"m".repeat(31), "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmz"));
    }

    #[test]
    fn prefixes_are_compared_with_both_ends() {
        let of = |low: &'static str, high: &'static str, cut, prefix| {
            let found = starts_with(
                &Interval { low: Some(Value::Text(low.into())), high: Some(Value::Text(high.into())), cut },
                prefix,
            );
            (found.may_be_true, found.may_be_false)
        };
        assert_eq!(of("a", "c", false, "b"), (true, true));
        assert_eq!(of("ba", "bz", false, "b"), (true, false));
        assert_eq!(of("c", "d", false, "b"), (false, true));
        assert_eq!(of("a", "azz", false, "b"), (false, true));
        assert_eq!(of("a", "b", false, "ba"), (false, true));
        assert_eq!(of("a", "b", true, "ba"), (true, true));
        assert_eq!(of("", "", false, ""), (true, false));
    }
}
