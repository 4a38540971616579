//! What restricts a recipient's use of its tokens, whatever is granted to it.

use std::net::IpAddr;

use crate::error::Error;
use crate::network::AllowedIps;

/// The restrictions of a recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// The addresses that the recipient may send requests from, and use URLs from; `None` for every address.
    pub allowed_ips: Option<AllowedIps>,
    /// How many requests the recipient may send in a minute.
    pub requests_per_minute: Option<u64>,
    /// For how many bytes of files the recipient may be given URLs in a day.
    pub bytes_per_day: Option<u64>,
}

/// Changes of restrictions. What is `None` stays as it is, and `Some(None)` removes a restriction.
#[derive(Debug, Clone, Default)]
pub struct RestrictionChanges {
    /// The addresses.
    pub allowed_ips: Option<Option<AllowedIps>>,
    /// The requests in a minute.
    pub requests_per_minute: Option<Option<u64>>,
    /// The bytes in a day.
    pub bytes_per_day: Option<Option<u64>>,
}

impl Restrictions {
    /// 403 if the recipient may not send requests from an address, or if nobody knows the address.
    pub fn check_source(&self, source: Option<IpAddr>) -> crate::error::Result<()> {
        let Some(allowed) = &self.allowed_ips else { return Ok(()) };
        match source {
            Some(address) if allowed.contains(address) => Ok(()),
            Some(address) => Err(Error::forbidden(format!(
                "This profile cannot be used from the address {address}. Contact the provider of the share, who can allow \
                 the address."
            ))),
            None => Err(Error::forbidden(
                "This profile can be used from some addresses only, and the address of the request is not known. Contact \
                 the provider of the share.",
            )),
        }
    }

    /// Whether requests or bytes are counted.
    pub fn has_limits(&self) -> bool {
        self.requests_per_minute.is_some() || self.bytes_per_day.is_some()
    }

    /// The restrictions with these changes.
    #[must_use]
    pub fn with(self, changes: RestrictionChanges) -> Self {
        Self {
            allowed_ips: changes.allowed_ips.unwrap_or(self.allowed_ips),
            requests_per_minute: changes.requests_per_minute.unwrap_or(self.requests_per_minute),
            bytes_per_day: changes.bytes_per_day.unwrap_or(self.bytes_per_day),
        }
    }

    /// What makes `self` into `after`, in words.
    pub(super) fn changes_to(&self, after: &Self) -> String {
        let ips = |ips: Option<&AllowedIps>| ips.map_or_else(|| "none".to_owned(), |ips| format!("[{ips}]"));
        let requests =
            |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let bytes = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), shown_bytes);
        let all = [
            ("allowedIps", ips(self.allowed_ips.as_ref()), ips(after.allowed_ips.as_ref())),
            ("requestsPerMinute", requests(self.requests_per_minute), requests(after.requests_per_minute)),
            ("bytesPerDay", bytes(self.bytes_per_day), bytes(after.bytes_per_day)),
        ];
        let changed = all.into_iter().filter(|(_, before, after)| before != after);
        let changes: Vec<_> =
            changed.map(|(name, before, after)| format!("{name} {before} -> {after}")).collect();
        changes.join(", ")
    }

    /// Whether a restriction of `self` is not one of `after`.
    pub(super) fn loses_some(&self, after: &Self) -> bool {
        let loses = |before: Option<u64>, after: Option<u64>| before.is_some() && after.is_none();
        (self.allowed_ips.is_some() && after.allowed_ips.is_none())
            || loses(self.requests_per_minute, after.requests_per_minute)
            || loses(self.bytes_per_day, after.bytes_per_day)
    }

    /// Whether `after` allows something that `self` does not.
    pub(super) fn is_loosened_by(&self, after: &Self) -> bool {
        let is_higher = |before: Option<u64>, after: Option<u64>| {
            before.is_some_and(|before| after.is_none_or(|after| after > before))
        };
        let is_wider =
            |before: &AllowedIps| after.allowed_ips.as_ref().is_none_or(|after| !before.covers(after));
        self.allowed_ips.as_ref().is_some_and(is_wider)
            || is_higher(self.requests_per_minute, after.requests_per_minute)
            || is_higher(self.bytes_per_day, after.bytes_per_day)
    }
}

impl RestrictionChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.allowed_ips.is_none() && self.requests_per_minute.is_none() && self.bytes_per_day.is_none()
    }
}

/// The most requests of a limit. DynamoDB takes about a thousand writes a second to the items of one recipient.
pub const MOST_REQUESTS: u64 = 60_000;

/// The most bytes of a limit: an exabyte.
pub const MOST_BYTES: u64 = 1_000_000_000_000_000_000;

/// The units of bytes, in the order in which a number is written in them.
const UNITS: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Refuses a number of requests in a minute that is no limit.
pub fn check_requests(requests: u64) -> Result<u64, String> {
    if (1..=MOST_REQUESTS).contains(&requests) {
        return Ok(requests);
    }
    Err(format!("the number of requests per minute must be from 1 to {MOST_REQUESTS}"))
}

/// Refuses a number of bytes in a day that is no limit.
pub fn check_bytes(bytes: u64) -> Result<u64, String> {
    if (1..=MOST_BYTES).contains(&bytes) {
        return Ok(bytes);
    }
    Err("the number of bytes per day must be from 1 to 1000000TB".to_owned())
}

/// Reads a number of requests in a minute.
pub fn parse_requests(text: &str) -> Result<u64, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let requests = text.parse().ok().filter(|_| digits).ok_or("not a whole number such as 600")?;
    check_requests(requests)
}

/// Reads a number of bytes in a day: a whole number with a unit, such as `10GB` or `512MiB`, or without one.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let invalid = "not a number of bytes such as 10GB or 512MiB";
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "B"),
    };
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start_matches(' ')).ok_or(invalid)?.1;
    let bytes = number.parse::<u64>().map_err(|_| invalid)?;
    check_bytes(bytes.saturating_mul(unit))
}

/// A number of bytes in the largest unit of which it is a multiple.
pub fn shown_bytes(bytes: u64) -> String {
    let unit = UNITS.iter().filter(|(_, size)| bytes.is_multiple_of(*size)).max_by_key(|(_, size)| *size);
    let (unit, size) = unit.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_allowed_learns_which_address_the_server_sees() {
        let of = |ranges: &[&str]| Restrictions {
            allowed_ips: Some(AllowedIps::parse(ranges.iter().copied()).unwrap()),
            ..Restrictions::default()
        };
        let message = |restrictions: &Restrictions, source: Option<&str>| {
            let checked = restrictions.check_source(source.map(|source| source.parse().unwrap()));
            checked.map_err(|error| (error.code().status(), error.message().to_owned()))
        };
        let some = of(&["203.0.113.0/24"]);
        assert_eq!(message(&some, Some("::ffff:203.0.113.7")), Ok(()));
        let (status, text) = message(&some, Some("198.51.100.1")).unwrap_err();
        assert!(status == 403 && text.contains("from the address 198.51.100.1."), "{text}");
        assert_eq!(message(&of(&["0.0.0.0/0", "::/0"]), None).unwrap_err().0, 403);
        assert_eq!(message(&Restrictions::default(), None), Ok(()));
    }

    #[test]
    fn wider_addresses_and_higher_limits_loosen() {
        let of = |ips: Option<&[&str]>, requests: Option<u64>| Restrictions {
            allowed_ips: ips.map(|ips| AllowedIps::parse(ips.iter().copied()).unwrap()),
            requests_per_minute: requests,
            bytes_per_day: None,
        };
        let some = of(Some(&["10.0.0.0/8", "2001:db8::/32"]), Some(5));
        for (after, loosened) in [
            (of(Some(&["10.0.0.0/8", "2001:db8::/32"]), Some(5)), false),
            (of(Some(&["10.1.0.0/16", "10.2.0.1", "2001:db8:1::/48"]), Some(4)), false),
            (of(Some(&["10.0.0.0/7"]), Some(5)), true),
            (of(Some(&["10.0.0.0/8", "192.0.2.1"]), Some(5)), true),
            (of(Some(&["::/0"]), Some(5)), true),
            (of(None, Some(5)), true),
            (of(Some(&["10.0.0.0/8"]), Some(6)), true),
            (of(Some(&["10.0.0.0/8"]), None), true),
        ] {
            assert_eq!(some.is_loosened_by(&after), loosened, "{after:?}");
        }
        assert!(
            !Restrictions::default().is_loosened_by(&some) && some.is_loosened_by(&Restrictions::default())
        );
    }

    #[test]
    fn sizes_have_units_and_are_written_in_the_largest_one() {
        for (text, bytes, shown) in [
            ("10GB", 10_000_000_000, "10GB"),
            ("10 GB", 10_000_000_000, "10GB"),
            ("1000MB", 1_000_000_000, "1GB"),
            ("512MiB", 536_870_912, "512MiB"),
            ("1024GiB", 1_099_511_627_776, "1TiB"),
            ("1", 1, "1B"),
            ("1500", 1500, "1500B"),
            ("2KB", 2000, "2KB"),
            ("1000000TB", MOST_BYTES, "1000000TB"),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(shown_bytes(bytes), shown);
            assert_eq!(parse_bytes(shown), Ok(bytes));
        }
        for text in [
            "",
            "GB",
            "10gb",
            "10G",
            "1.5GB",
            "-1",
            "+1",
            "1e3",
            "10GB ",
            "0",
            "0GB",
            "1000001TB",
            "99999999999999999999",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_requests("60"), Ok(60));
        for text in ["", "0", "-1", "+1", "1.5", "60001", "99999999999999999999", "many"] {
            assert!(parse_requests(text).is_err(), "{text}");
        }
    }
}
