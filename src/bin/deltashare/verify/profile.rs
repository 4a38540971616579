//! The profile, and what may be wrong with it before anything is asked.

use chrono::{DateTime, TimeDelta, Utc};
use deltashare::network::is_this_machine;
use deltashare::protocol::profile::Profile;
use serde_json::{Map, Value};

use super::finding::Finding;
use super::report::Report;

/// A token that expires sooner than this gets a warning.
const TOKEN_ENDS_SOON: TimeDelta = TimeDelta::days(7);

/// What a profile is, for who has something else.
const WHAT_IT_IS: &str = "A profile is a JSON object with shareCredentialsVersion, endpoint and bearerToken. deltashare token \
                          rotate RECIPIENT --profile FILE writes another.";

/// The profile, with what is wrong with it; `None` if nothing can be asked with it.
pub(super) fn read(text: &[u8], report: &mut Report) -> Option<Profile> {
    let profile = match parse(text) {
        Ok(profile) => profile,
        Err(finding) => {
            report.fail(finding);
            return None;
        }
    };
    if !profile.endpoint.ends_with('/') {
        let what = "the endpoint does not end with a slash";
        report.warn(Finding::new("profile", what).help("One client needs the slash; add it to the profile."));
    }
    if profile.endpoint.starts_with("http://")
        && !url::Url::parse(&profile.endpoint).is_ok_and(|url| is_this_machine(&url))
    {
        let what = "the endpoint is http://, so everybody on the way can read the token";
        report.warn(Finding::new("profile", what).help("Put a proxy or load balancer with TLS in front."));
    }
    match profile.expiration_time.as_deref().map(DateTime::parse_from_rfc3339) {
        None => {}
        Some(Err(_)) => {
            let what = "expirationTime is not a time such as 2027-06-01T00:00:00.000Z";
            let help = "Some clients refuse such a profile: write the time in that form, or leave it out.";
            report.fail(Finding::new("profile", what).help(help));
        }
        Some(Ok(end)) => {
            let (end, now) = (end.with_timezone(&Utc), Utc::now());
            report.token_ends = Some(end);
            if end <= now {
                let help = "deltashare token rotate RECIPIENT --profile FILE creates another token.";
                report.fail(Finding::new("profile", format!("the token expired at {end}")).help(help));
            } else if end - now < TOKEN_ENDS_SOON {
                let what = format!("the token expires at {end}, in {} hours", (end - now).num_hours());
                let help =
                    "deltashare token rotate RECIPIENT --expires 90d creates one that is valid for longer.";
                report.warn(Finding::new("profile", what).help(help));
            }
        }
    }
    report.endpoint = without_secrets(&profile.endpoint);
    report.token = Some(profile.bearer_token.clone());
    Some(profile)
}

/// The profile that a file holds. No finding has any of the values, one of which is the token.
fn parse(text: &[u8]) -> Result<Profile, Finding> {
    let wrong = |what: String| Err(Finding::new("profile", what).help(WHAT_IT_IS));
    let text = match std::str::from_utf8(text) {
        // Some editors begin a file with this mark, and some clients do not read it then.
        Ok(text) if text.starts_with('\u{feff}') => {
            return wrong("the file begins with a byte order mark: save it as UTF-8 without one".to_owned());
        }
        Ok(text) => text.trim(),
        Err(_) => return wrong("the file is not a profile: it is not text in UTF-8".to_owned()),
    };
    if text.is_empty() {
        return wrong("the file is empty".to_owned());
    }
    if text.starts_with('<') {
        return wrong(
            "the file is a web page, not a profile: it may be the page from which the profile is downloaded"
                .to_owned(),
        );
    }
    let profile: Value = match serde_json::from_str(text) {
        Ok(profile) => profile,
        // The text of the error may have values.
        Err(error) => {
            return wrong(format!(
                "the profile is not one that clients read: it is not valid JSON (line {}, column {})",
                error.line(),
                error.column()
            ));
        }
    };
    let Value::Object(fields) = &profile else {
        return wrong("the profile is not one that clients read: it is JSON, but not an object".to_owned());
    };
    check_kind(fields)?;
    let version = fields.get("shareCredentialsVersion").and_then(Value::as_u64);
    if version != Some(1) {
        let what = match fields.get("shareCredentialsVersion") {
            None => "the profile is not one that clients read: it has no shareCredentialsVersion".to_owned(),
            Some(_) => match version {
                Some(version) => format!("shareCredentialsVersion is {version}"),
                None => "shareCredentialsVersion is not a number".to_owned(),
            },
        };
        let help = "Every client reads version 1; this command supports no other.";
        return Err(Finding::new("profile", what).help(help));
    }
    for (name, what) in [("endpoint", "the URL of the server"), ("bearerToken", "the token")] {
        match fields.get(name) {
            Some(Value::String(_)) => {}
            None => {
                return wrong(format!("the profile is not one that clients read: it has no {name}, {what}"));
            }
            Some(_) => {
                return wrong(format!("the profile is not one that clients read: {name} is not a string"));
            }
        }
    }
    if fields.get("expirationTime").is_some_and(|time| !time.is_string() && !time.is_null()) {
        return wrong("the profile is not one that clients read: expirationTime is not a string".to_owned());
    }
    // All that is read of it was looked at.
    serde_json::from_value(profile).or_else(|_| wrong("the profile is not one that clients read".to_owned()))
}

/// Refuses the profiles of other kinds of credentials.
fn check_kind(fields: &Map<String, Value>) -> Result<(), Finding> {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or("bearer_token");
    let has = |name: &str| fields.contains_key(name);
    let oauth = kind.starts_with("oauth") || has("tokenEndpoint") || has("clientSecret") || has("clientId");
    let (what, help) = if oauth {
        (
            "the profile is one for OAuth, without a bearer token",
            "This command tests bearer tokens, and clients get the token of this profile from an OpenID provider. To test \
             it, get a token from the tokenEndpoint, and write it as bearerToken into a profile with \
             shareCredentialsVersion 1.",
        )
    } else if kind == "basic" || (has("username") && has("password")) {
        (
            "the profile is one with a user name and a password, without a bearer token",
            "This command tests bearer tokens. To use the same token, write it as bearerToken into a profile with \
             shareCredentialsVersion 1.",
        )
    } else {
        return Ok(());
    };
    Err(Finding::new("profile", what).help(help))
}

/// An endpoint without the credentials that it may have.
fn without_secrets(endpoint: &str) -> String {
    let Ok(mut url) = url::Url::parse(endpoint) else { return "(not a URL)".to_owned() };
    // Both fail only for URLs without a host, which have no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}
