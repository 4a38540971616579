//! Values of columns and literals, and how they compare.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// Microseconds by which the time of a time zone can differ from UTC, and more.
const ANY_ZONE: i64 = 18 * 3600 * 1_000_000;
/// Statistics cut timestamps off after the milliseconds.
const CUT_OFF: i64 = 999;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;
/// 1582-10-15, when the Gregorian calendar began, in days since the epoch.
const GREGORIAN_DAYS: i64 = -141_427;
const GREGORIAN_MICROS: i64 = GREGORIAN_DAYS * DAY_MICROS;
/// 1900-01-01, in microseconds since the epoch.
const ZONES_MICROS: i64 = -25_567 * DAY_MICROS;
/// The most days by which dates of the Julian calendar differ, and more.
const CALENDARS_DIFFER: i64 = 15;

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
    /// Whether it can be compared with every other such value of its domain.
    pub(super) fn is_common(&self) -> bool {
        match self {
            Self::Number(number) => number.scale <= 15 && number.digits() <= 22,
            Self::Double(_) | Self::Text(_) | Self::Integer(_) => true,
        }
    }

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
    /// Decimal numbers of few digits.
    Decimal,
    /// Decimal numbers that may have been rounded on the way.
    Rounded,
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
    /// The same, compared with an instant, for which clients put it in their time zone.
    ZonedNtz,
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
    /// A literal.
    Literal,
    /// The value of a partition column.
    Partition,
    /// A minimum or a maximum in statistics, which may be less exact than the values.
    Bound,
}

impl Domain {
    /// Between which values the one lies that `text` stands for. `None` if it cannot be told.
    pub(super) fn read<'a>(self, text: Cow<'a, str>, origin: Origin) -> Option<Interval<'a>> {
        match self {
            Self::Integer { as_int } => {
                // A fraction in the log is a mistake that clients read in different ways.
                let is_whole = origin == Origin::Literal || !text.contains('.');
                let number =
                    Number::parse(&text).filter(|number| is_whole && (!as_int || number.fits_int()))?;
                exact(number, origin)
            }
            Self::Decimal => exact(Number::parse(&text)?, origin),
            Self::Rounded => double(&text, true),
            Self::Double { single } => double(&text, single),
            Self::Text => Some(Interval::exactly(Value::Text(text))),
            Self::Date => {
                let days = date(&text, origin)?.signed_duration_since(NaiveDate::default()).num_days();
                // In the calendar of older writers, the same days have other dates.
                let slack = if days < GREGORIAN_DAYS { CALENDARS_DIFFER } else { 0 };
                Some(Interval::integers(days - slack, days + slack))
            }
            Self::Timestamp | Self::TimestampNtz | Self::ZonedNtz => self.read_time(&text, origin),
            Self::Boolean => {
                let value = boolean(&text)?;
                Some(Interval::integers(value.into(), value.into()))
            }
        }
    }

    fn read_time<'a>(self, text: &str, origin: Origin) -> Option<Interval<'a>> {
        let time = timestamp(text)?;
        // What is written without the zone that the type has, or with one that it has not, is in somebody's zone. Answers in
        // parquet format have partition values without the zone.
        let is_known = match (self, origin) {
            (Self::Timestamp, Origin::Partition) | (Self::ZonedNtz, _) => false,
            (Self::Timestamp, _) => time.zoned,
            _ => !time.zoned,
        };
        let zone = if is_known { 0 } else { ANY_ZONE };
        // Before there were time zones, offsets have seconds, which writers leave out.
        let calendar = match time.micros {
            ..GREGORIAN_MICROS => CALENDARS_DIFFER * DAY_MICROS,
            GREGORIAN_MICROS..ZONES_MICROS => DAY_MICROS,
            _ => 0,
        };
        let slack = zone + calendar;
        let cut_off = if origin == Origin::Bound { CUT_OFF } else { i64::from(time.is_finer) };
        Some(Interval::integers(time.micros.checked_sub(slack)?, time.micros.checked_add(slack + cut_off)?))
    }
}

/// An exact number. One with a point and many digits is a floating-point number for some clients.
fn exact<'a>(number: Number, origin: Origin) -> Option<Interval<'a>> {
    const EXACT_DIGITS: u32 = 15;
    let is_exact = origin != Origin::Literal || number.scale == 0 || number.digits() <= EXACT_DIGITS;
    is_exact.then(|| Interval::exactly(Value::Number(number)))
}

fn double<'a>(text: &str, single: bool) -> Option<Interval<'a>> {
    let between = |low: f64, high: f64| Interval {
        low: Some(Value::Double(low)),
        high: Some(Value::Double(high)),
        cut: false,
    };
    if single {
        // As far apart as rounding to 32 bits can put the two sides of a comparison.
        let value = text.parse::<f32>().ok().filter(|value| !value.is_nan())?;
        return Some(between(value.next_down().into(), value.next_up().into()));
    }
    let value = text.parse::<f64>().ok().filter(|value| !value.is_nan())?;
    // For some clients, -0.0 is less than 0.0.
    Some(if value == 0.0 { between(value.next_down(), value.next_up()) } else { between(value, value) })
}

/// `yyyy-mm-dd`. A literal has it in full: where dates are compared as text, only that form compares like a date.
fn date(text: &str, origin: Origin) -> Option<NaiveDate> {
    let is_full = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| is_full || origin != Origin::Literal)
}

/// A time as it is written.
struct Time {
    /// Microseconds since the epoch, in UTC or on the wall.
    micros: i64,
    zoned: bool,
    /// Whether there is a part of a microsecond beyond.
    is_finer: bool,
}

fn timestamp(text: &str) -> Option<Time> {
    let zoned = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%#z"));
    let (time, zoned) = match zoned {
        Ok(time) => (time.to_utc(), true),
        Err(_) => {
            let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
                .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
                .or_else(|_| date(text, Origin::Bound).map(|date| date.and_time(NaiveTime::MIN)).ok_or(()))
                .ok()?;
            (time.and_utc(), false)
        }
    };
    Some(Time { micros: time.timestamp_micros(), zoned, is_finer: time.timestamp_subsec_nanos() % 1000 != 0 })
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

    fn integers(domain: Domain, text: &'static str, origin: Origin) -> (i64, i64) {
        let interval = domain.read(text.into(), origin).unwrap();
        match (interval.low, interval.high) {
            (Some(Value::Integer(low)), Some(Value::Integer(high))) => (low, high - low),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn timestamps_are_as_exact_as_they_are_known() {
        use Origin::{Bound, Literal, Partition};
        let hour = 3_600_000_000;
        for (domain, text, origin, expected) in [
            (Domain::Timestamp, "1970-01-01T01:00:00Z", Literal, (hour, 0)),
            (Domain::Timestamp, "1970-01-01T01:00:00.000000001Z", Literal, (hour, 1)),
            (Domain::Timestamp, "1970-01-01T01:00:00.000+01:00", Bound, (0, 999)),
            (Domain::Timestamp, "1970-01-01T18:00:00Z", Partition, (0, 36 * hour)),
            (Domain::Timestamp, "1970-01-01 18:00:00", Literal, (0, 36 * hour)),
            (Domain::TimestampNtz, "1970-01-01 01:00:00", Partition, (hour, 0)),
            (Domain::TimestampNtz, "1970-01-01T18:00:00Z", Literal, (0, 36 * hour)),
            (Domain::TimestampNtz, "1970-01-02", Bound, (24 * hour, 999)),
            (Domain::ZonedNtz, "1970-01-01 18:00:00", Literal, (0, 36 * hour)),
            (Domain::TimestampNtz, "1899-12-31 00:00:00", Literal, (-25_569 * 24 * hour, 48 * hour)),
        ] {
            assert_eq!(integers(domain, text, origin), expected, "{domain:?} {text} {origin:?}");
        }
        assert_eq!(Domain::Timestamp.read("yesterday".into(), Literal), None);
    }

    #[test]
    fn dates_are_as_exact_as_they_are_known() {
        assert_eq!(integers(Domain::Date, "1970-01-02", Origin::Literal), (1, 0));
        assert_eq!(integers(Domain::Date, "1970-1-2", Origin::Partition), (1, 0));
        assert_eq!(integers(Domain::Date, "1582-10-15", Origin::Bound), (GREGORIAN_DAYS, 0));
        assert_eq!(integers(Domain::Date, "1582-10-14", Origin::Bound), (GREGORIAN_DAYS - 16, 30));
        for text in ["1970-1-2", " 1970-1-2", "1970-01-02 ", "+1970-1-2", "10000-01-01", "0000-00-00"] {
            assert_eq!(Domain::Date.read(text.into(), Origin::Literal), None, "{text}");
        }
    }

    #[test]
    fn zeros_may_have_a_sign_for_some_clients() {
        let zero = Domain::Double { single: false }.read("-0.0".into(), Origin::Bound).unwrap();
        let [low, high] = [zero.low, zero.high].map(|end| match end {
            Some(Value::Double(end)) => end,
            other => panic!("{other:?}"),
        });
        assert!(low < 0.0 && high > 0.0);
    }
}
