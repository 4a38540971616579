//! What the commands take that restrict recipients.

use clap::Args;
use deltashare::catalog::restrictions::{RestrictionChanges, Restrictions, parse_bytes, parse_requests};
use deltashare::network::{AllowedIps, Cidr};

use super::Failure;

/// The arguments of [`RestrictionUpdate`].
pub(crate) const RESTRICTIONS: [&str; 6] = [
    "allowed_ip",
    "no_allowed_ips",
    "requests_per_minute",
    "no_requests_per_minute",
    "bytes_per_day",
    "no_bytes_per_day",
];

/// The restrictions of a new recipient.
#[derive(Args)]
pub(crate) struct RestrictionOptions {
    /// A range of addresses that the recipient can use, such as 203.0.113.0/24 or 2001:db8::/32. Requests from other
    /// addresses get 403, and URLs do not work there. Repeat the option for several. Default: every address.
    #[arg(long, value_name = "CIDR", value_parser = Cidr::parse)]
    allowed_ip: Vec<Cidr>,
    /// How many requests the recipient can send in a minute; the others get 429. Default: no limit.
    #[arg(long, value_name = "NUMBER", value_parser = parse_requests)]
    requests_per_minute: Option<u64>,
    /// For how many bytes of files the recipient can get URLs in a day (UTC), such as 10GB or 512MiB; requests after that
    /// get 429. Default: no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    bytes_per_day: Option<u64>,
}

/// The restrictions of a recipient to change.
#[derive(Args)]
pub(crate) struct RestrictionUpdate {
    /// A range of addresses that the recipient can use, such as 203.0.113.0/24 or 2001:db8::/32; replaces the current ones.
    /// Repeat the option for several.
    #[arg(long, value_name = "CIDR", value_parser = Cidr::parse, conflicts_with = "no_allowed_ips")]
    allowed_ip: Vec<Cidr>,
    /// Let the recipient use every address again.
    #[arg(long)]
    no_allowed_ips: bool,
    /// How many requests the recipient can send in a minute; the others get 429.
    #[arg(long, value_name = "NUMBER", value_parser = parse_requests, conflicts_with = "no_requests_per_minute")]
    requests_per_minute: Option<u64>,
    /// Remove the limit of requests.
    #[arg(long)]
    no_requests_per_minute: bool,
    /// For how many bytes of files the recipient can get URLs in a day (UTC), such as 10GB or 512MiB; requests after that
    /// get 429.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "no_bytes_per_day")]
    bytes_per_day: Option<u64>,
    /// Remove the limit of bytes.
    #[arg(long)]
    no_bytes_per_day: bool,
}

impl RestrictionOptions {
    /// The restrictions.
    pub(crate) fn read(self) -> Result<Restrictions, Failure> {
        let Self { allowed_ip, requests_per_minute, bytes_per_day } = self;
        Ok(Restrictions { allowed_ips: list(allowed_ip)?, requests_per_minute, bytes_per_day })
    }
}

impl RestrictionUpdate {
    /// The changes.
    pub(crate) fn read(self) -> Result<RestrictionChanges, Failure> {
        let allowed = list(self.allowed_ip)?;
        let allowed_ips = (self.no_allowed_ips || allowed.is_some()).then_some(allowed);
        let limit = |limit: Option<u64>, remove: bool| (remove || limit.is_some()).then_some(limit);
        Ok(RestrictionChanges {
            allowed_ips,
            requests_per_minute: limit(self.requests_per_minute, self.no_requests_per_minute),
            bytes_per_day: limit(self.bytes_per_day, self.no_bytes_per_day),
        })
    }
}

/// The ranges, if there are any.
fn list(ranges: Vec<Cidr>) -> Result<Option<AllowedIps>, Failure> {
    if ranges.is_empty() {
        return Ok(None);
    }
    AllowedIps::new(ranges).map(Some).map_err(Failure::usage)
}
