//! Values of columns and literals, and how they compare.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// Microseconds by which the time of a time zone can differ from UTC, and more.
const ANY_ZONE: i64 = 18 * 3600 * 1_000_000;
/// Statistics cut timestamps off after the milliseconds.
const CUT_OFF: i64 = 999;

/// A value that can be compared with others of its domain.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// An exact number.
    Number(Number),
    /// A floating-point number; never NaN.
    Double(f64),
    /// Text, in the order of its bytes in UTF-8, which is the order of its code points.
    Text(Cow<'a, str>),
    /// Days or microseconds since the Unix epoch, or 0 and 1 for false and true.
    Integer(i64),
}

impl Value<'_> {
    /// `None` if the values cannot be compared, so that nothing may be concluded.
    pub(super) fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(left), Value::Number(right)) => left.compare(*right),
            (Self::Double(left), Value::Double(right)) => left.partial_cmp(right),
            (Self::Text(left), Value::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
            (Self::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}

/// A decimal number of at most 38 digits: `units` times ten to the power of `-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    units: i128,
    scale: u32,
}

impl Number {
    /// Reads digits with an optional sign and point. `None` for anything else, an exponent among it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        const MOST_DIGITS: usize = 38;
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        if all().count() == 0
            || whole.len() + fraction.len() > MOST_DIGITS
            || !all().all(|digit| digit.is_ascii_digit())
        {
            return None;
        }
        let units = all().fold(0_i128, |units, digit| units * 10 + i128::from(digit - b'0'));
        let scale = u32::try_from(fraction.len()).ok()?;
        Some(Self { units: if text.starts_with('-') { -units } else { units }, scale })
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        let scale = self.scale.max(other.scale);
        let scaled = |number: Self| number.units.checked_mul(10_i128.checked_pow(scale - number.scale)?);
        Some(scaled(self)?.cmp(&scaled(other)?))
    }

    /// How many digits are significant.
    fn digits(self) -> u32 {
        self.units.unsigned_abs().checked_ilog10().map_or(1, |digits| digits + 1)
    }

    /// Whether a 32-bit integer holds the number.
    pub(super) fn fits_int(self) -> bool {
        self.scale == 0 && i32::try_from(self.units).is_ok()
    }
}

/// How values of a column are read, and how exactly they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Domain {
    /// Whole numbers. If they are cast to 32 bits, nothing is concluded from larger ones.
    Integer {
        /// Whether the comparison is of 32-bit integers.
        as_int: bool,
    },
    /// `decimal`
    Decimal,
    /// Floating-point numbers, and others that are compared as such.
    Double {
        /// Whether either side may have been rounded to 32 bits.
        single: bool,
    },
    /// `string`
    Text,
    /// `date`
    Date,
    /// `timestamp`, an instant.
    Timestamp,
    /// `timestamp_ntz`, a time on the wall.
    TimestampNtz,
    /// `boolean`
    Boolean,
}

/// Between which values something lies, both included; `None` is no bound.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Interval<'a> {
    pub(super) low: Option<Value<'a>>,
    pub(super) high: Option<Value<'a>>,
    /// Whether values above `high` may begin with it: the rest was cut off.
    pub(super) cut: bool,
}

impl<'a> Interval<'a> {
    pub(super) fn exactly(value: Value<'a>) -> Self {
        Self { low: Some(value.clone()), high: Some(value), cut: false }
    }

    fn integers(low: i64, high: i64) -> Self {
        Self { low: Some(Value::Integer(low)), high: Some(Value::Integer(high)), cut: false }
    }

    /// Whether it is one value.
    pub(super) fn is_exact(&self) -> bool {
        match (&self.low, &self.high) {
            (Some(low), Some(high)) => !self.cut && low.compare(high) == Some(Ordering::Equal),
            _ => false,
        }
    }
}

/// What a text says of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The value of a partition column, or a literal: it is the value.
    Whole,
    /// A minimum or a maximum in statistics: a date, a number or a text there may be less exact than the values.
    Bound,
}

impl Domain {
    /// Between which values the one lies that `text` stands for. `None` if it cannot be told.
    pub(super) fn read<'a>(self, text: Cow<'a, str>, origin: Origin) -> Option<Interval<'a>> {
        match self {
            Self::Integer { as_int } => {
                let number = Number::parse(&text).filter(|number| !as_int || number.fits_int())?;
                Some(Interval::exactly(Value::Number(number)))
            }
            Self::Decimal => {
                // Some writers go through floating-point numbers, which hold 15 digits.
                let number = Number::parse(&text)?;
                let exact = origin == Origin::Whole || number.digits() <= 15;
                exact.then(|| Interval::exactly(Value::Number(number)))
            }
            Self::Double { single } => double(&text, single),
            Self::Text => Some(Interval::exactly(Value::Text(text))),
            Self::Date => {
                let date = date(&text)?.signed_duration_since(NaiveDate::default()).num_days();
                Some(Interval::integers(date, date))
            }
            Self::Timestamp | Self::TimestampNtz => {
                let (micros, zoned) = timestamp(&text)?;
                // What is written without the zone that the type has, or with one that it has not, is in somebody's zone.
                let slack = if zoned == (self == Self::Timestamp) { 0 } else { ANY_ZONE };
                let cut_off = if origin == Origin::Bound { CUT_OFF } else { 0 };
                Some(Interval::integers(micros.checked_sub(slack)?, micros.checked_add(slack + cut_off)?))
            }
            Self::Boolean => {
                let value = boolean(&text)?;
                Some(Interval::integers(value.into(), value.into()))
            }
        }
    }
}

fn double<'a>(text: &str, single: bool) -> Option<Interval<'a>> {
    if !single {
        let value = text.parse::<f64>().ok().filter(|value| !value.is_nan())?;
        return Some(Interval::exactly(Value::Double(value)));
    }
    // As far apart as rounding to 32 bits can put the two sides of a comparison.
    let value = text.parse::<f32>().ok().filter(|value| !value.is_nan())?;
    let (low, high) = (Value::Double(value.next_down().into()), Value::Double(value.next_up().into()));
    Some(Interval { low: Some(low), high: Some(high), cut: false })
}

/// `yyyy-mm-dd`, as the protocol has it.
fn date(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()
}

/// Microseconds since the epoch, and whether the text has a time zone.
fn timestamp(text: &str) -> Option<(i64, bool)> {
    let zoned = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%#z"));
    if let Ok(time) = zoned {
        return Some((time.timestamp_micros(), true));
    }
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
        .or_else(|_| date(text).map(|date| date.and_time(NaiveTime::MIN)).ok_or(()))
        .ok()?;
    Some((time.and_utc().timestamp_micros(), false))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn numbers_compare_exactly() {
        for (less, more) in
            [("1", "1.5"), ("-1.5", "-1"), ("9007199254740992", "9007199254740993"), ("-0.1", "0")]
        {
            assert_eq!(number(less).compare(number(more)), Some(Ordering::Less), "{less} {more}");
        }
        assert_eq!(number("1.50").compare(number("+1.5")), Some(Ordering::Equal));
        assert_eq!(number("-0").compare(number("0.000")), Some(Ordering::Equal));
        let (long, fine) = ("9".repeat(38), format!("0.{}", "1".repeat(37)));
        assert_eq!(number(&long).compare(number(&fine)), None);
        for text in ["", "-", ".", "1e3", "1.2.3", " 1", "0x1", "٣", &"1".repeat(39)] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_are_as_exact_as_they_are_known() {
        let read = |domain: Domain, text: &'static str, origin| {
            let interval = domain.read(text.into(), origin).unwrap();
            match (interval.low, interval.high) {
                (Some(Value::Integer(low)), Some(Value::Integer(high))) => (low, high - low),
                other => panic!("{other:?}"),
            }
        };
        let hour = 3_600_000_000;
        assert_eq!(read(Domain::Timestamp, "1970-01-01T01:00:00Z", Origin::Whole), (hour, 0));
        assert_eq!(read(Domain::Timestamp, "1970-01-01T01:00:00.000+01:00", Origin::Bound), (0, 999));
        assert_eq!(read(Domain::TimestampNtz, "1970-01-01 01:00:00", Origin::Whole), (hour, 0));
        assert_eq!(read(Domain::Timestamp, "1970-01-01 18:00:00", Origin::Whole), (0, 36 * hour));
        assert_eq!(read(Domain::TimestampNtz, "1970-01-01T18:00:00Z", Origin::Whole), (0, 36 * hour));
        assert_eq!(read(Domain::TimestampNtz, "1970-01-02", Origin::Bound), (24 * hour, 999));
        assert_eq!(Domain::Timestamp.read("yesterday".into(), Origin::Whole), None);
    }
}
