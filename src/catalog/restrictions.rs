//! What restricts a recipient's use of its tokens, whatever is granted to it.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::network::AllowedIps;

/// The restrictions of a recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// The addresses that the recipient may send requests from, and use URLs from; `None` for every address.
    pub allowed_ips: Option<AllowedIps>,
}

/// Changes of restrictions. What is `None` stays as it is, and `Some(None)` removes a restriction.
#[derive(Debug, Clone, Default)]
pub struct RestrictionChanges {
    /// The addresses.
    pub allowed_ips: Option<Option<AllowedIps>>,
}

impl Restrictions {
    /// 403 if the recipient may not send requests from an address, or if nobody knows the address.
    pub fn check_source(&self, source: Option<IpAddr>) -> Result<()> {
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

    /// The restrictions with these changes.
    #[must_use]
    pub fn with(self, changes: RestrictionChanges) -> Self {
        Self { allowed_ips: changes.allowed_ips.unwrap_or(self.allowed_ips) }
    }

    /// What makes `self` into `after`, in words.
    pub(super) fn changes_to(&self, after: &Self) -> String {
        let ips = |ips: Option<&AllowedIps>| ips.map_or_else(|| "none".to_owned(), |ips| format!("[{ips}]"));
        let all = [("allowedIps", ips(self.allowed_ips.as_ref()), ips(after.allowed_ips.as_ref()))];
        let changed = all.into_iter().filter(|(_, before, after)| before != after);
        let changes: Vec<_> =
            changed.map(|(name, before, after)| format!("{name} {before} -> {after}")).collect();
        changes.join(", ")
    }

    /// Whether a restriction of `self` is not one of `after`.
    pub(super) fn loses_some(&self, after: &Self) -> bool {
        self.allowed_ips.is_some() && after.allowed_ips.is_none()
    }
}

impl RestrictionChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.allowed_ips.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_allowed_learns_which_address_the_server_sees() {
        let of = |ranges: &[&str]| Restrictions {
            allowed_ips: Some(AllowedIps::parse(ranges.iter().copied()).unwrap()),
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
}
