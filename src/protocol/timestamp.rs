//! Timestamps in requests: PROTOCOL.md, "Timestamp Format".

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

use crate::error::{Error, Result};
use crate::protocol::parameters::shown;

/// Reads a timestamp parameter as milliseconds since the epoch.
///
/// The protocol's form is ISO 8601 with an offset. Clients also send a space for the `T`, a space
/// where a `+` was decoded, and no offset at all, which is read as UTC.
///
/// The message begins with `Invalid startingTimestamp:` whatever the parameter is called, because
/// clients match on it.
pub fn parse_timestamp(text: &str) -> Result<i64> {
    parse(text.trim()).ok_or_else(|| {
        Error::invalid(format!(
            "Invalid startingTimestamp: '{}' is not an ISO 8601 timestamp such as 2022-01-01T00:00:00Z.",
            shown(text)
        ))
    })
}

fn parse(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let mut text = text.replacen(' ', "T", usize::from(!text.contains('T')));
    if let Some(space) = text.rfind(' ') {
        text.replace_range(space..=space, "+");
    }
    let with_offset = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"];
    if let Some(time) = with_offset.iter().find_map(|form| DateTime::parse_from_str(&text, form).ok()) {
        return Some(time.timestamp_millis());
    }
    let text = text.strip_suffix('Z').unwrap_or(&text);
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    if let Some(time) = naive.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok()) {
        return Some(time.and_utc().timestamp_millis());
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
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
    fn a_bad_timestamp_is_named() {
        for text in ["", "yesterday", "2022-13-01T00:00:00Z", "2022-01-01T00:00:00+25:00", "1640995200000"] {
            let error = parse_timestamp(text).unwrap_err();
            assert!(error.message().starts_with("Invalid startingTimestamp:"), "{error}");
            assert!(error.message().contains(text), "{error}");
        }
    }
}
