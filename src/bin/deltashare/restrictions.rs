//! What the commands take that restrict recipients.

use clap::Args;
use deltashare::catalog::restrictions::{RestrictionChanges, Restrictions};
use deltashare::network::{AllowedIps, Cidr};

use super::Failure;

/// The restrictions of a new recipient.
#[derive(Args)]
pub(crate) struct RestrictionOptions {
    /// A range of addresses that the recipient can use, such as 203.0.113.0/24 or 2001:db8::/32. Requests from other
    /// addresses get 403, and S3 refuses the URLs there. Repeat the option for several. Default: every address.
    #[arg(long, value_name = "CIDR", value_parser = Cidr::parse)]
    allowed_ip: Vec<Cidr>,
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
}

impl RestrictionOptions {
    /// The restrictions.
    pub(crate) fn read(self) -> Result<Restrictions, Failure> {
        Ok(Restrictions { allowed_ips: list(self.allowed_ip)? })
    }
}

impl RestrictionUpdate {
    /// The changes.
    pub(crate) fn read(self) -> Result<RestrictionChanges, Failure> {
        let allowed = list(self.allowed_ip)?;
        let allowed_ips = (self.no_allowed_ips || allowed.is_some()).then_some(allowed);
        Ok(RestrictionChanges { allowed_ips })
    }
}

/// The ranges, if there are any.
fn list(ranges: Vec<Cidr>) -> Result<Option<AllowedIps>, Failure> {
    if ranges.is_empty() {
        return Ok(None);
    }
    AllowedIps::new(ranges).map(Some).map_err(Failure::usage)
}
