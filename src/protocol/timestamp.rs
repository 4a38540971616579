//! Timestamps in requests: PROTOCOL.md, "Timestamp Format".

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

use crate::error::{Error, Result};
use crate::protocol::parameters::shown;

/// Reads a timestamp parameter as milliseconds since the epoch.
///
/// The protocol's form is ISO 8601 with an offset. Clients also send a space for the `T`, a space
/// if a `+` was decoded, and no offset at all, which is read as UTC.
///
/// The message begins with `Invalid startingTimestamp:` whatever the parameter is called, because
/// clients match on it.
///
/// Digits beyond the milliseconds are cut off, which is right for the end of a range and for the newest version at a
/// time. Its start has to be [`parse_start`].
///
/// ```
/// use deltashare::protocol::timestamp::parse_timestamp;
///
/// assert_eq!(parse_timestamp("1970-01-01T00:00:01.5Z")?, 1_500);
/// assert_eq!(parse_timestamp("1970-01-01T01:00:00+01:00")?, 0);
/// assert!(parse_timestamp("yesterday").is_err());
/// # Ok::<_, deltashare::error::Error>(())
/// ```
pub fn parse_timestamp(text: &str) -> Result<i64> {
    read(text).map(|time| time.timestamp_millis())
}

/// Reads a timestamp parameter from which on versions are wanted: the first whole millisecond that is not before it.
pub fn parse_start(text: &str) -> Result<i64> {
    let time = read(text)?;
    let is_whole = time.timestamp_subsec_nanos() % 1_000_000 == 0;
    Ok(time.timestamp_millis().saturating_add(i64::from(!is_whole)))
}

fn read(text: &str) -> Result<DateTime<Utc>> {
    parse(text.trim()).ok_or_else(|| {
        Error::invalid(format!(
            "Invalid startingTimestamp: '{}' is not an ISO 8601 timestamp such as 2022-01-01T00:00:00Z.",
            shown(text)
        ))
    })
}

fn parse(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let mut text = text.replacen(' ', "T", usize::from(!text.contains('T')));
    if let Some(space) = text.rfind(' ') {
        text.replace_range(space..=space, "+");
    }
    let with_offset = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"];
    if let Some(time) = with_offset.iter().find_map(|form| DateTime::parse_from_str(&text, form).ok()) {
        return Some(time.to_utc());
    }
    let text = text.strip_suffix('Z').unwrap_or(&text);
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    if let Some(time) = naive.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok()) {
        return Some(time.and_utc());
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc())
}

/// Writes milliseconds since the epoch as the protocol does: ISO 8601 in UTC.
pub fn format_timestamp(millis: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(millis)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_clients_send() {
        let midnight = 1_640_995_200_000;
        for text in [
            "2022-01-01T00:00:00Z",
            "2022-01-01T00:00:00.000Z",
            "2022-01-01T01:00:00+01:00",
            "2022-01-01T01:00:00 01:00",
            "2021-12-31T16:00:00-08:00",
            "2022-01-01 00:00:00",
            "2022-01-01 01:00:00+0100",
            "2022-01-01T00:00:00",
            "2022-01-01T00:00Z",
            "2022-01-01",
        ] {
            assert_eq!(parse_timestamp(text).unwrap(), midnight, "{text}");
        }
        assert_eq!(parse_timestamp("2022-01-01T00:00:00.123456Z").unwrap(), midnight + 123);
    }

    #[test]
    fn a_start_is_never_before_its_timestamp() {
        for (text, millis) in [
            ("2022-01-01T00:00:00.123Z", 123),
            ("2022-01-01T00:00:00.123000Z", 123),
            ("2022-01-01T00:00:00.123000001Z", 124),
            ("2022-01-01T01:00:00.1239 01:00", 124),
            ("2022-01-01 00:00:00.9999", 1000),
            ("1969-12-31T23:59:59.9995Z", 0),
        ] {
            let midnight = if text.starts_with("1969") { 0 } else { 1_640_995_200_000 };
            assert_eq!(parse_start(text).unwrap(), midnight + millis, "{text}");
        }
    }

    #[test]
    fn a_bad_timestamp_is_named() {
        for text in ["", "yesterday", "2022-13-01T00:00:00Z", "2022-01-01T00:00:00+25:00", "1640995200000"] {
            let error = parse_timestamp(text).unwrap_err();
            assert!(error.message().starts_with("Invalid startingTimestamp:"), "{error}");
            assert!(error.message().contains(text), "{error}");
        }
    }
}
