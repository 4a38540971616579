//! IAM roles that are assumed: to read tables and sign their URLs, and to give recipients credentials.

/// The ARN of an IAM role. It needs `s3:GetObject` and `s3:ListBucket` on the tables that it is assumed for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleArn(String);

impl RoleArn {
    /// Reads `arn:PARTITION:iam::ACCOUNT:role/NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut part = || parts.next();
        let partition = part() == Some("arn") && part().is_some_and(|partition| partition.starts_with("aws"));
        let service = part() == Some("iam") && part() == Some("");
        let account = part().is_some_and(|account| account.len() == 12 && digits(account));
        let role = part().and_then(|resource| resource.strip_prefix("role/"));
        let role = role.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic()));
        (partition && service && account && role).then(|| Self(text.to_owned()))
    }

    /// The ARN as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `aws`, `aws-cn` or another one.
    pub fn partition(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or("aws")
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        for role in ["arn:aws:iam::123456789012:role/x", "arn:aws-cn:iam::123456789012:role/path/x+=,.@-_"] {
            assert!(RoleArn::parse(role).is_some(), "{role}");
        }
        for bad in [
            "",
            "x",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::12345678901:role/x",
            "arn:aws:iam::123456789012:role/",
            "arn:gcp:iam::123456789012:role/x",
            "arn:aws:iam:eu-west-1:123456789012:role/x",
            "arn:aws:iam::123456789012:role/a b",
        ] {
            assert!(RoleArn::parse(bad).is_none(), "{bad}");
        }
    }
}
