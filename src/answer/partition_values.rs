//! Partition values in the form that PROTOCOL.md, "Partition Value Serialization", gives their types. Logs have others
//! too: newer writers store timestamps in ISO 8601 and UTC, and some leave zeros out.

use std::borrow::Cow;
use std::fmt::Write as _;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike as _};

use crate::delta::{Primitive, Schema};
use crate::protocol::json::write_map;

/// The partition columns whose values have one form.
#[derive(Debug, Default)]
pub(super) struct Forms(Vec<(String, Primitive)>);

impl Forms {
    pub(super) fn new(schema: &Schema, columns: &[String]) -> Self {
        let typed = columns.iter().map(|name| (name.clone(), schema.column(name)));
        Self(typed.filter(|(_, primitive)| *primitive != Primitive::Other).collect())
    }

    /// Writes partition values as a JSON object. What cannot be read as its type stays as it is.
    pub(super) fn write<'a>(
        &self,
        values: impl Iterator<Item = (&'a str, Option<&'a str>)>,
        out: &mut Vec<u8>,
    ) {
        if self.0.is_empty() {
            return write_map(values, out);
        }
        write_map(values.map(|(column, value)| (column, value.map(|value| self.form(column, value)))), out);
    }

    fn form<'a>(&self, column: &str, value: &'a str) -> Cow<'a, str> {
        let primitive = self.0.iter().find(|(name, _)| name == column).map(|(_, primitive)| *primitive);
        let formed = match primitive {
            None | Some(Primitive::Other) => None,
            Some(Primitive::Date) => date(value),
            Some(Primitive::Timestamp | Primitive::TimestampNtz) => timestamp(value),
            Some(Primitive::Decimal { scale }) => decimal(value, scale.into()),
            Some(Primitive::Boolean) => boolean(value),
        };
        formed.map_or(Cow::Borrowed(value), Cow::Owned)
    }
}

/// `2023-1-5` as `2023-01-05`; `None` if there is nothing to change.
fn date(value: &str) -> Option<String> {
    if value.len() == 10 {
        return None;
    }
    let date = NaiveDate::parse_from_str(value, "%Y-%m-%d").ok()?;
    Some(date.format("%Y-%m-%d").to_string())
}

/// `2023-11-05T00:00:00.250000Z` and `2023-11-05 00:00:00.25` as `2023-11-05 00:00:00.250000`. A fraction has six
/// digits, or is left out if it is zero. A time with an offset is put in UTC.
fn timestamp(value: &str) -> Option<String> {
    let zoned = DateTime::parse_from_rfc3339(value)
        .or_else(|_| DateTime::parse_from_str(value, "%Y-%m-%d %H:%M:%S%.f%#z"))
        .map(|time| time.naive_utc());
    let time = zoned
        .or_else(|_| NaiveDateTime::parse_from_str(value, "%Y-%m-%d %H:%M:%S%.f"))
        .or_else(|_| NaiveDateTime::parse_from_str(value, "%Y-%m-%dT%H:%M:%S%.f"))
        .or_else(|_| NaiveDate::parse_from_str(value, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN)))
        .ok()?;
    let micros = Some(time.nanosecond() / 1000).filter(|&micros| micros < 1_000_000)?;
    let mut formed = time.format("%Y-%m-%d %H:%M:%S").to_string();
    if micros > 0 {
        write!(formed, ".{micros:06}").ok()?;
    }
    (formed != value).then_some(formed)
}

/// A number in plain digits, with as many after the point as the type has, if no digit is lost.
fn decimal(value: &str, scale: usize) -> Option<String> {
    /// The largest exponent of a number of 38 digits, and more.
    const MOST_DIGITS: i32 = 80;
    let (mantissa, exponent) = match value.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (value, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all: String = [whole, fraction].concat();
    let all_digits = !all.is_empty() && all.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits || exponent.abs() > MOST_DIGITS || all.len() > MOST_DIGITS.unsigned_abs() as usize {
        return None;
    }
    // How many digits are before the point.
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let all = format!("{}{all}{}", zeros(-point), zeros(point - i32::try_from(all.len()).ok()?));
    let (whole, fraction) = all.split_at(usize::try_from(point.max(0)).ok()?);
    let whole = Some(whole.trim_start_matches('0')).filter(|whole| !whole.is_empty()).unwrap_or("0");
    let fraction = fraction.trim_end_matches('0');
    let is_zero = whole == "0" && fraction.is_empty();
    let sign = if negative && !is_zero { "-" } else { "" };
    let formed = match fraction.len().max(scale) {
        0 => format!("{sign}{whole}"),
        places => format!("{sign}{whole}.{fraction:0<places$}"),
    };
    (formed != value).then_some(formed)
}

/// What Spark takes for true and false.
fn boolean(value: &str) -> Option<String> {
    let formed = match value.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => "true",
        "false" | "f" | "no" | "n" | "0" => "false",
        _ => return None,
    };
    (formed != value).then(|| formed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formed(form: impl Fn(&str) -> Option<String>, value: &str) -> String {
        form(value).unwrap_or_else(|| value.to_owned())
    }

    #[test]
    fn timestamps_have_one_form() {
        for (value, expected) in [
            ("2023-11-05T00:00:00.000000Z", "2023-11-05 00:00:00"),
            ("2023-11-05 00:00:00.25", "2023-11-05 00:00:00.250000"),
            ("2023-11-05 00:00:00", "2023-11-05 00:00:00"),
            ("2023-11-05 00:00:00.000", "2023-11-05 00:00:00"),
            ("2023-11-05T01:30:00.123456789+01:00", "2023-11-05 00:30:00.123456"),
            ("2023-11-05 01:30:00+01:00", "2023-11-05 00:30:00"),
            ("2023-11-05T00:00:00.000001", "2023-11-05 00:00:00.000001"),
            ("2023-11-05", "2023-11-05 00:00:00"),
            ("1969-12-31T23:59:59.999999Z", "1969-12-31 23:59:59.999999"),
            ("0001-01-01 00:00:00", "0001-01-01 00:00:00"),
            ("", ""),
            ("yesterday", "yesterday"),
            ("2023-11-05 00:00:60.1", "2023-11-05 00:00:60.1"),
        ] {
            assert_eq!(formed(timestamp, value), expected);
        }
    }

    #[test]
    fn dates_have_one_form() {
        for (value, expected) in [
            ("2023-1-5", "2023-01-05"),
            ("2023-01-05", "2023-01-05"),
            ("", ""),
            ("2023", "2023"),
            ("2023-13-1", "2023-13-1"),
        ] {
            assert_eq!(formed(date, value), expected);
        }
    }

    #[test]
    fn decimals_have_one_form() {
        for (value, expected) in [
            ("1.5", "1.50"),
            ("1.50", "1.50"),
            ("1.500", "1.50"),
            ("1E+2", "100.00"),
            ("-1.25e-1", "-0.125"),
            ("-0", "0.00"),
            (".5", "0.50"),
            ("007", "7.00"),
            ("+3", "3.00"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678.00"),
            ("", ""),
            ("1e999999999", "1e999999999"),
            ("NaN", "NaN"),
            ("1.2.3", "1.2.3"),
        ] {
            assert_eq!(formed(|value| decimal(value, 2), value), expected);
        }
        assert_eq!(formed(|value| decimal(value, 0), "1E+2"), "100");
    }

    #[test]
    fn only_columns_with_one_form_are_looked_at() {
        let schema = Schema::parse(
            r#"{"type":"struct","fields":[{"name":"d","type":"date","nullable":true},{"name":"s","type":"string","nullable":true},{"name":"b","type":"boolean","nullable":true}]}"#,
        )
        .unwrap();
        let forms = Forms::new(&schema, &["d".to_owned(), "s".to_owned(), "b".to_owned()]);
        let mut out = Vec::new();
        let values = [("d", Some("2023-1-5")), ("s", Some("2023-1-5")), ("b", Some("True")), ("x", None)];
        forms.write(values.into_iter(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"d":"2023-01-05","s":"2023-1-5","b":"true","x":null}"#
        );
    }
}
