//! Addresses that requests come from: ranges of addresses, lists of them, and the address that proxies report.
//!
//! An IPv4 address that is written as IPv6 (`::ffff:203.0.113.7`) is that IPv4 address, in ranges and in requests.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use url::{Host, Url};

/// The most ranges of a list.
pub const MOST_RANGES: usize = 50;

/// The most characters of a list, with quotes and commas as in JSON. A session policy has 2,048 characters at most, and
/// needs the others for the location of a table.
pub const LONGEST_LIST: usize = 1200;

/// A range of addresses in CIDR notation, such as `203.0.113.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The first address of the range.
    address: IpAddr,
    /// How many bits of it all addresses of the range have in common.
    length: u8,
}

impl Cidr {
    /// Reads a range. An address without a length is a range of one address. The reason of a refusal names the right form.
    ///
    /// ```
    /// use deltashare::network::Cidr;
    ///
    /// assert!(Cidr::parse("203.0.113.0/24").is_ok_and(|range| range.contains("203.0.113.7".parse().unwrap())));
    /// assert!(Cidr::parse("203.0.113.7/24").unwrap_err().contains("write 203.0.113.0/24"));
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = || text.chars().take(64).flat_map(char::escape_debug).collect::<String>();
        let invalid =
            || format!("'{}' is not a range of addresses such as 203.0.113.0/24 or 2001:db8::/32", shown());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| invalid())?;
        let length = match length {
            Some(digits) => {
                parse_length(digits).filter(|length| *length <= bits(written)).ok_or_else(invalid)?
            }
            None => bits(written),
        };
        let (address, length) = match (written, written.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if length >= 96 => (IpAddr::V4(mapped), length - 96),
            _ => (written, length),
        };
        let range = Self { address: network(address, length), length };
        if range.address != address {
            return Err(format!(
                "'{}' is an address within a range: write {range} for the range, or {address}/{} for the address",
                shown(),
                bits(address)
            ));
        }
        Ok(range)
    }

    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        bits(address) == bits(self.address) && network(address, self.length) == self.address
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Digits without a sign or leading zeros, which other programs read as octal.
fn parse_length(digits: &str) -> Option<u8> {
    let is_plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_plain)
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first address of the range of this length that an address is in.
fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// The addresses that a recipient may use: at least one range. Two lists with the same ranges are equal, in whatever
/// order they were written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AllowedIps(Arc<[Cidr]>);

impl AllowedIps {
    /// Refuses an empty list, which could be meant to allow every address or none, and one that is too long for a
    /// session policy.
    pub fn new(ranges: impl IntoIterator<Item = Cidr>) -> Result<Self, String> {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        ranges.dedup();
        if ranges.is_empty() {
            return Err(
                "the list of allowed addresses is empty: add a range such as 203.0.113.0/24, or remove the \
                        list to allow every address"
                    .to_owned(),
            );
        }
        if ranges.len() > MOST_RANGES {
            return Err(format!("a recipient has at most {MOST_RANGES} ranges of allowed addresses"));
        }
        let length: usize = ranges.iter().map(|range| range.to_string().len() + 3).sum();
        if length > LONGEST_LIST {
            return Err(format!(
                "the list of allowed addresses does not fit into the session policy that limits URLs to it: it has \
                 {length} characters, of which at most {LONGEST_LIST} are possible; join ranges, or remove some"
            ));
        }
        Ok(Self(ranges.into()))
    }

    /// Reads ranges as [`Cidr::parse`] does.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        Self::new(texts.into_iter().map(Cidr::parse).collect::<Result<Vec<_>, _>>()?)
    }

    /// Whether an address is in one of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// Whether every address of another list is in one range of this one. `false` if only several ranges together have a
    /// range of the other list.
    pub fn covers(&self, other: &Self) -> bool {
        let is_within =
            |inner: &Cidr, outer: &Cidr| outer.length <= inner.length && outer.contains(inner.address);
        other.0.iter().all(|inner| self.0.iter().any(|outer| is_within(inner, outer)))
    }

    /// The ranges as they are written, in order.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for AllowedIps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join(", "))
    }
}

/// Whether a URL leads to this machine: to `localhost`, or to a loopback address.
pub fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The address that a request comes from, through proxies or not.
///
/// `peer` is at the other end of the connection. `forwarded` has the `X-Forwarded-For` headers in their order, and `None`
/// for one that is not text. Every proxy adds the address that it got the request from at the end, so they are read from the
/// right, and only as far as addresses are those of trusted proxies: whatever is to the left of the first other address
/// may have been written by the client.
///
/// `None` if a trusted proxy has written something that is not an address.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = Option<&'a str>>,
    trusted: &[Cidr],
) -> Option<IpAddr> {
    let mut entries = forwarded.rev().flat_map(|header| match header {
        // RFC 9110 has recipients of lists ignore empty elements.
        Some(list) => {
            list.rsplit(',').map(str::trim).filter(|entry| !entry.is_empty()).map(Some).collect::<Vec<_>>()
        }
        None => vec![None],
    });
    let mut address = peer.to_canonical();
    while trusted.iter().any(|range| range.contains(address)) {
        let Some(entry) = entries.next() else { break };
        address = forwarded_address(entry?)?;
    }
    Some(address)
}

/// An address, which some proxies write with a port, or in brackets.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address = entry.parse().ok().or_else(with_port).or_else(in_brackets)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_and_written() {
        for (text, written) in [
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("203.0.113.7", "203.0.113.7/32"),
            ("203.0.113.7/32", "203.0.113.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("128.0.0.0/1", "128.0.0.0/1"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(Cidr::parse(text).unwrap().to_string(), written, "{text}");
        }
        for text in [
            "",
            "/",
            "/24",
            "203.0.113.0/",
            "203.0.113.0/33",
            "203.0.113.0/-1",
            "203.0.113.0/+8",
            "203.0.113.0/08",
            "203.0.113.0/24/24",
            "203.0.113/24",
            "203.0.113.0 /24",
            " 203.0.113.0/24",
            "0203.0.113.0/24",
            "2001:db8::/129",
            "2001:db8::%eth0/64",
            "[2001:db8::]/32",
            "example.com",
            "203.0.113.0-203.0.113.9",
            "*",
            "203.0.113.0/２４",
        ] {
            let reason = Cidr::parse(text).unwrap_err();
            assert!(
                reason.contains("is not a range of addresses such as 203.0.113.0/24"),
                "{text}: {reason}"
            );
        }
        assert!(!Cidr::parse("\u{1b}[2J").unwrap_err().contains('\u{1b}'));
    }

    #[test]
    fn bits_beyond_the_length_are_refused_with_the_right_form() {
        for (text, range, address) in [
            ("203.0.113.7/24", "203.0.113.0/24", "203.0.113.7/32"),
            ("10.0.0.1/0", "0.0.0.0/0", "10.0.0.1/32"),
            ("2001:db8::1/32", "2001:db8::/32", "2001:db8::1/128"),
            ("::ffff:203.0.113.7/120", "203.0.113.0/24", "203.0.113.7/32"),
        ] {
            let reason = Cidr::parse(text).unwrap_err();
            assert!(reason.contains(&format!("write {range} for the range, or {address} for")), "{reason}");
        }
    }

    #[test]
    fn addresses_in_ranges() {
        for (range, inside, outside) in [
            (
                "203.0.113.0/24",
                vec!["203.0.113.0", "203.0.113.255", "::ffff:203.0.113.7"],
                vec!["203.0.112.255", "::1"],
            ),
            ("203.0.113.7/32", vec!["203.0.113.7"], vec!["203.0.113.6", "203.0.113.8"]),
            ("0.0.0.0/0", vec!["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], vec!["::", "2001:db8::1"]),
            ("::/0", vec!["::", "2001:db8::1"], vec!["1.2.3.4", "::ffff:1.2.3.4"]),
            ("2001:db8::/33", vec!["2001:db8:7fff::1"], vec!["2001:db8:8000::1", "2001:db7::1"]),
        ] {
            let cidr = Cidr::parse(range).unwrap();
            assert!(inside.iter().all(|address| cidr.contains(ip(address))), "{range}");
            assert!(!outside.iter().any(|address| cidr.contains(ip(address))), "{range}");
        }
    }

    #[test]
    fn lists_are_compared_by_their_ranges_and_are_neither_empty_nor_long() {
        let list = |texts: &[&str]| AllowedIps::parse(texts.iter().copied());
        let one = list(&["2001:db8::/32", "203.0.113.7", "203.0.113.7/32"]).unwrap();
        assert_eq!(one, list(&["203.0.113.7/32", "2001:db8::/32"]).unwrap());
        assert_eq!(one.to_string(), "203.0.113.7/32, 2001:db8::/32");
        assert!(
            one.contains(ip("203.0.113.7")) && one.contains(ip("2001:db8::9")) && !one.contains(ip("::9"))
        );
        assert!(list(&[]).unwrap_err().contains("is empty"));
        assert!(list(&["203.0.113.0/24", "x"]).is_err());
        let many = |count: u32| {
            AllowedIps::new((0..count).map(|at| Cidr::parse(&format!("203.{at}.113.100/32")).unwrap()))
        };
        assert!(many(50).is_ok() && many(51).unwrap_err().contains("at most 50"));
        let long = |count: u32| {
            let text = |at| format!("2001:db8:1111:1111:1111:1111:1111:{:x}", 0x1000 + at);
            AllowedIps::new((0..count).map(|at| Cidr::parse(&text(at)).unwrap()))
        };
        assert!(long(20).is_ok());
        assert!(long(50).unwrap_err().contains("does not fit into the session policy"));
    }

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> Option<String> {
        let trusted: Vec<_> = trusted.iter().map(|range| Cidr::parse(range).unwrap()).collect();
        let forwarded = forwarded.iter().map(|header| (*header != "\u{fffd}").then_some(*header));
        client_address(ip(peer), forwarded, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_header_counts_only_from_trusted_proxies() {
        let is = |address: &str| Some(address.to_owned());
        let proxies = ["10.0.0.0/8", "2001:db8:ffff::/48"];
        for (peer, forwarded, trusted, expected) in [
            // Nobody is trusted, or not this one.
            ("192.0.2.1", &["203.0.113.7"][..], &[][..], is("192.0.2.1")),
            ("192.0.2.1", &["203.0.113.7"], &proxies, is("192.0.2.1")),
            ("192.0.2.1", &["\u{fffd}"], &proxies, is("192.0.2.1")),
            ("192.0.2.1", &["garbage"], &proxies, is("192.0.2.1")),
            ("::ffff:192.0.2.1", &["203.0.113.7"], &proxies, is("192.0.2.1")),
            // One proxy, and what a client wrote before it.
            ("10.0.0.1", &["203.0.113.7"], &proxies, is("203.0.113.7")),
            ("::ffff:10.0.0.1", &["203.0.113.7"], &proxies, is("203.0.113.7")),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.7"], &proxies, is("203.0.113.7")),
            ("10.0.0.1", &["garbage, 203.0.113.7"], &proxies, is("203.0.113.7")),
            ("10.0.0.1", &["\u{fffd}", "203.0.113.7"], &proxies, is("203.0.113.7")),
            // Several proxies, and several headers.
            ("10.0.0.1", &["198.51.100.1,203.0.113.7,10.9.9.9,\t10.0.0.2"], &proxies, is("203.0.113.7")),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.7, 10.9.9.9", "10.0.0.2"], &proxies, is("203.0.113.7")),
            ("10.0.0.1", &["203.0.113.7", "198.51.100.1"], &proxies, is("198.51.100.1")),
            // Only proxies, or nothing.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &proxies, is("10.0.0.3")),
            ("10.0.0.1", &[], &proxies, is("10.0.0.1")),
            ("10.0.0.1", &["", " , "], &proxies, is("10.0.0.1")),
            ("10.0.0.1", &["203.0.113.7, ,"], &proxies, is("203.0.113.7")),
            // Other spellings.
            ("10.0.0.1", &["203.0.113.7:51000"], &proxies, is("203.0.113.7")),
            ("10.0.0.1", &["2001:db8::7"], &proxies, is("2001:db8::7")),
            ("10.0.0.1", &["[2001:db8::7]"], &proxies, is("2001:db8::7")),
            ("10.0.0.1", &["[2001:db8::7]:443"], &proxies, is("2001:db8::7")),
            ("10.0.0.1", &["::ffff:203.0.113.7"], &proxies, is("203.0.113.7")),
            ("2001:db8:ffff::1", &["203.0.113.7, [::ffff:10.0.0.1]:80"], &proxies, is("203.0.113.7")),
            // A trusted proxy that does not say who asks.
            ("10.0.0.1", &["203.0.113.7, unknown"], &proxies, None),
            ("10.0.0.1", &["203.0.113.7", "\u{fffd}"], &proxies, None),
            ("10.0.0.1", &["203.0.113.7, _hidden, 10.0.0.2"], &proxies, None),
            ("10.0.0.1", &["203.0.113.7:"], &proxies, None),
            ("10.0.0.1", &["203.0.113.7:99999"], &proxies, None),
            ("10.0.0.1", &["[203.0.113.7]"], &proxies, None),
            ("10.0.0.1", &["203.0.113.07"], &proxies, None),
            ("10.0.0.1", &["203.0.113.7;198.51.100.1"], &proxies, None),
        ] {
            assert_eq!(client(peer, forwarded, trusted), expected, "{peer} {forwarded:?}");
        }
    }
}
