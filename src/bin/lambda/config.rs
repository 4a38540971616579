//! The settings in the environment. Every error in them is reported, not only the first.

use std::fmt;
use std::time::Duration;

use deltashare::limits::Limits;
use deltashare::role::RoleArn;
use deltashare::storage::S3Options;

/// The longest life of a URL: what AWS gives a role that was assumed with a role's credentials.
const MAX_URL_TTL: u64 = 3600;
/// The shortest: clients refresh a URL a quarter of an hour before it expires.
const MIN_URL_TTL: u64 = 900;

/// How the function is set up.
#[derive(Debug)]
pub(crate) struct Config {
    /// `DELTASHARE_TABLE`: the DynamoDB table with shares and recipients. Required.
    pub(crate) table: String,
    /// `DELTASHARE_BASE_PATH`: what paths begin with if a custom domain keeps a base path, such as
    /// `/consumer`. Default: nothing.
    pub(crate) base_path: String,
    /// `DELTASHARE_URL_TTL`: the life of a presigned URL in seconds, from 900 to 3600. Default: 3600.
    pub(crate) url_ttl: Duration,
    /// `DELTASHARE_LIMITS`: limits that differ from the defaults, such as `log_depth=1000,answers=10`.
    pub(crate) limits: Limits,
    /// `DELTASHARE_GZIP`: `off` if something between the function and its clients undoes compression. Default: `on`.
    pub(crate) gzip: bool,
    /// `DELTASHARE_PAGES`: `off` if browsers get no page at the endpoint. Default: `on`.
    pub(crate) pages: bool,
    /// `DELTASHARE_SIGNER_ROLE_ARN`: the role that reads and signs, and gives recipients credentials for
    /// directories. Required. The rest is what Lambda sets.
    pub(crate) s3: S3Options,
    /// `AWS_LAMBDA_RUNTIME_API`: where invocations come from. Set by Lambda.
    pub(crate) runtime_api: String,
}

/// What is wrong with the environment.
#[derive(Debug)]
pub(crate) struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Faults {}

impl Config {
    /// Reads the environment through `variable`, which is [`std::env::var`] outside tests.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut required = |name: &str| {
            get(name).unwrap_or_else(|| {
                faults.push(format!("{name} is not set"));
                String::new()
            })
        };
        let table = required("DELTASHARE_TABLE");
        let role = required("DELTASHARE_SIGNER_ROLE_ARN");
        let runtime_api = required("AWS_LAMBDA_RUNTIME_API");
        let signer_role = RoleArn::parse(&role);
        if !role.is_empty() && signer_role.is_none() {
            faults.push("DELTASHARE_SIGNER_ROLE_ARN is not the ARN of a role".to_owned());
        }
        let url_ttl = get("DELTASHARE_URL_TTL").map_or(Some(MAX_URL_TTL), |text| text.parse().ok());
        let url_ttl = url_ttl.filter(|ttl| (MIN_URL_TTL..=MAX_URL_TTL).contains(ttl)).unwrap_or_else(|| {
            faults.push(format!("DELTASHARE_URL_TTL is not a number from {MIN_URL_TTL} to {MAX_URL_TTL}"));
            MAX_URL_TTL
        });
        // One request at a time is answered, so that a failure that is remembered would spare nobody.
        let limits = Limits { unavailable_millis: 0, ..Limits::default() };
        let settings = get("DELTASHARE_LIMITS").unwrap_or_default();
        let settings = settings.split(',').map(str::trim).filter(|setting| !setting.is_empty());
        let limits = limits.set(settings).unwrap_or_else(|fault| {
            faults.push(format!("DELTASHARE_LIMITS: {fault}"));
            limits
        });
        let mut switch = |name: &str| match get(name).as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(_) => {
                faults.push(format!("{name} is neither on nor off"));
                true
            }
        };
        let (gzip, pages) = (switch("DELTASHARE_GZIP"), switch("DELTASHARE_PAGES"));
        let s3 = S3Options::from_env(&variable).unwrap_or_else(|fault| {
            faults.push(fault);
            S3Options::default()
        });
        if s3.credentials.is_none() {
            faults.push("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set".to_owned());
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        Ok(Self {
            table,
            base_path: get("DELTASHARE_BASE_PATH").unwrap_or_default(),
            url_ttl: Duration::from_secs(url_ttl),
            limits,
            gzip,
            pages,
            s3: S3Options { signer_role, ..s3 },
            runtime_api,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 6] = [
        ("DELTASHARE_TABLE", "deltashare"),
        ("DELTASHARE_SIGNER_ROLE_ARN", "arn:aws:iam::123456789012:role/signer"),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ("AWS_REGION", "eu-west-1"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<Config, Faults> {
        Config::from_env(|name| {
            let set = more.iter().chain(&GOOD).find(|(known, _)| *known == name);
            set.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_set_is_read() {
        let config = read(&[
            ("DELTASHARE_BASE_PATH", "/consumer"),
            ("DELTASHARE_URL_TTL", "900"),
            ("DELTASHARE_LIMITS", "log_depth=1000, body_bytes=5,"),
        ])
        .unwrap();
        assert_eq!((config.limits.log_depth, config.limits.body_bytes), (1000, 5));
        assert_eq!(config.limits.unavailable_millis, 0);
        assert_eq!((config.table.as_str(), config.base_path.as_str()), ("deltashare", "/consumer"));
        assert_eq!(config.url_ttl, Duration::from_secs(900));
        assert_eq!(config.s3.region, None);
        assert!(config.s3.signer_role.is_some());
        assert!(!format!("{config:?}").contains("hidden"));
        assert_eq!(read(&[]).unwrap().url_ttl, Duration::from_secs(3600));
        assert!(config.gzip && !read(&[("DELTASHARE_GZIP", "off")]).unwrap().gzip);
        assert!(config.pages && !read(&[("DELTASHARE_PAGES", "off")]).unwrap().pages);
    }

    #[test]
    fn every_fault_is_told() {
        let faults = read(&[
            ("DELTASHARE_TABLE", ""),
            ("DELTASHARE_SIGNER_ROLE_ARN", "x"),
            ("DELTASHARE_URL_TTL", "60"),
            ("DELTASHARE_LIMITS", "depth=1"),
            ("DELTASHARE_GZIP", "no"),
            ("DELTASHARE_PAGES", "false"),
            ("AWS_SECRET_ACCESS_KEY", ""),
        ])
        .unwrap_err()
        .to_string();
        for fault in [
            "DELTASHARE_TABLE is not set",
            "DELTASHARE_SIGNER_ROLE_ARN is not the ARN of a role",
            "DELTASHARE_GZIP is neither on nor off",
            "DELTASHARE_PAGES is neither on nor off",
            "DELTASHARE_LIMITS: there is no limit 'depth'",
            "DELTASHARE_URL_TTL is not a number from 900 to 3600",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ] {
            assert!(faults.contains(fault), "{faults}");
        }
    }
}
