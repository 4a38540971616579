//! `token new`: a token for a share file, created without a catalog.

use std::path::PathBuf;

use clap::Args;
use deltashare::catalog::expiry;
use serde_json::json;

use super::Failure;
use super::arguments::{Common, Expires, ProfileTarget, TokenOptions, parse_expires};
use super::profile::CreatedToken;

/// What a new token takes.
#[derive(Args)]
pub(crate) struct NewTokenOptions {
    /// When the token expires: after a time such as 90d or 12h, or never.
    #[arg(long, value_name = "TIME", value_parser = parse_expires, default_value = "90d")]
    expires: Expires,
    /// The URL of the server, with its prefix; it goes into the profile.
    // Without an environment variable, which would make --profile required.
    #[arg(long, value_name = "URL", requires = "profile")]
    endpoint: Option<url::Url>,
    /// The file to write a profile with the token to. The token is then not printed.
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    profile: Option<PathBuf>,
}

/// Creates a token and prints what a share file has of it. Nothing is stored, and AWS is not contacted.
pub(crate) fn run(options: &NewTokenOptions, common: &Common) -> Result<(), Failure> {
    let target = options.endpoint.clone().zip(options.profile.clone());
    let created = match target {
        Some((endpoint, profile)) => {
            let to = ProfileTarget { endpoint, profile: Some(profile) };
            CreatedToken::new(&TokenOptions { expires: options.expires, to })?
        }
        None => CreatedToken::without_profile(options.expires)?,
    };
    let handed_over = created.has_profile().then(|| created.hand_over()).transpose()?;
    let (token, hash) = (&created.token, created.token.hash.to_hex());
    let expires = expiry::format(token.expires);
    if common.is_json() {
        let mut shown = json!({"id": token.id, "sha256": hash, "expires": expires});
        if handed_over.is_none()
            && let Some(fields) = shown.as_object_mut()
        {
            fields.insert("token".to_owned(), created.text().into());
        }
        println!("{shown}");
        return Ok(());
    }
    if handed_over.is_none() {
        println!("token:  {}", created.text());
        println!("sha256: {hash}\n");
    }
    println!("  tokens:\n  - sha256: {hash}\n    expires: {expires}\n    id: '{}'", token.id);
    let next = match handed_over {
        Some(said) => format!("{said}. Add the lines above to the recipient in the share file."),
        None => "Add these lines to the recipient in the share file. The token is not stored: put it into the recipient's \
                 profile, and send it as you would send a password."
            .to_owned(),
    };
    common.output.note(&next);
    Ok(())
}
