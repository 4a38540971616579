//! When a token expires: the forms that people write, the one form that is written here, and when DynamoDB may delete the
//! token's records.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, Utc};

/// The word for a token that does not expire, which has to be written.
pub const NEVER: &str = "never";

/// What an expiry may be, as the end of a sentence.
pub const FORMS: &str = "a time such as 2027-01-31T12:00:00Z, a date such as 2027-01-31 (the beginning of that day in UTC), or the word never";

/// The attribute that DynamoDB's time to live looks at: seconds since 1970.
pub const DELETE_AFTER: &str = "deleteAfter";

/// How long a token's records outlive the token, so that lists and `check` still know it when somebody asks.
const KEPT: TimeDelta = TimeDelta::days(90);

/// Reads an expiry: `Some(None)` for never, `None` for what is no expiry.
///
/// Takes RFC 3339 and what is close to it: a space for the `T`, no seconds, an offset without its colon. A time without an
/// offset is in UTC. A date is the first moment of that day in UTC, as everywhere in this server and in ISO 8601: of the two
/// ends of a day, the one that never lets a token live longer than was meant.
pub fn parse(text: &str) -> Option<Option<DateTime<Utc>>> {
    let text = text.trim();
    if text == NEVER {
        return Some(None);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(Some(time.to_utc()));
    }
    // chrono takes years of any length and with a sign.
    let (year, rest) = text.split_at_checked(4)?;
    if !year.bytes().all(|digit| digit.is_ascii_digit()) || !rest.starts_with('-') {
        return None;
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(Some(date.and_time(NaiveTime::MIN).and_utc()));
    }
    let text = text.replacen(' ', "T", usize::from(!text.contains('T')));
    let text = text.strip_suffix('Z').map_or_else(|| text.clone(), |time| format!("{time}+00:00"));
    let offset = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"];
    let with_offset = offset.iter().find_map(|form| DateTime::parse_from_str(&text, form).ok());
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    let without = || naive.iter().find_map(|form| NaiveDateTime::parse_from_str(&text, form).ok());
    with_offset.map(|time| time.to_utc()).or_else(|| without().map(|time| time.and_utc())).map(Some)
}

/// Writes an expiry so that it reads back as the same instant.
pub fn format(end: Option<DateTime<Utc>>) -> String {
    end.map_or_else(|| NEVER.to_owned(), |end| end.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// When DynamoDB may delete the records of a token that expires then; `None` if it never expires.
pub fn delete_after(end: Option<DateTime<Utc>>) -> Option<i64> {
    end.map(|end| (end + KEPT).timestamp().max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_back_as_the_same_instant() {
        for (text, instant) in [
            ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
            ("2027-01-31t12:00:00z", "2027-01-31T12:00:00Z"),
            (" 2027-01-31T12:00:00Z\n", "2027-01-31T12:00:00Z"),
            ("2027-01-31T12:00:00.000Z", "2027-01-31T12:00:00Z"),
            ("2027-01-31T12:00:00.123456789+01:00", "2027-01-31T11:00:00.123456789Z"),
            ("2027-01-31 12:00:00+00:00", "2027-01-31T12:00:00Z"),
            ("2027-01-31T12:00:00+0100", "2027-01-31T11:00:00Z"),
            ("2027-01-31T12:00:00-08", "2027-01-31T20:00:00Z"),
            ("2027-01-31T12:00Z", "2027-01-31T12:00:00Z"),
            ("2027-01-31T12:00+01:00", "2027-01-31T11:00:00Z"),
            ("2027-01-31T12:00:00", "2027-01-31T12:00:00Z"),
            ("2027-01-31 12:00:00.5", "2027-01-31T12:00:00.500Z"),
            ("2027-01-31 12:00", "2027-01-31T12:00:00Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2028-02-29", "2028-02-29T00:00:00Z"),
        ] {
            let read = parse(text).unwrap_or_else(|| panic!("{text:?} is not read"));
            assert_eq!(format(read), instant, "{text:?}");
            assert_eq!(parse(instant), Some(read), "{text:?}");
        }
        assert_eq!(parse("never"), Some(None));
        assert_eq!(format(None), "never");
    }

    #[test]
    fn what_is_no_expiry_is_not_read_as_one() {
        for text in [
            "",
            "soon",
            "Never",
            "none",
            "null",
            "1801396800",
            "2027",
            "2027-01",
            "27-01-31",
            "+12027-01-31",
            "31.01.2027",
            "01/31/2027",
            "2027-02-30",
            "2027-13-01",
            "2027-01-31T25:00:00Z",
            "2027-01-31T12:00:00 UTC",
            "2027-01-31T",
            "2027-01-31Z",
            "2027-01-31T12:00:00+25:00",
            "90d",
            "2027-01-31T12:00:00Z until then",
            "é027-01-31",
            "20271-01-31",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn records_outlive_their_token_by_ninety_days() {
        let end = parse("2027-01-31T12:00:00Z").unwrap();
        assert_eq!(delete_after(end), Some(end.unwrap().timestamp() + 90 * 24 * 3600));
        assert_eq!(delete_after(None), None);
    }
}
