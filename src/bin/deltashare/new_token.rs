//! `token new`: a token for a share file, created without a catalog.

use std::path::PathBuf;

use clap::Args;
use deltashare::catalog::expiry;
use serde_json::json;

use super::Failure;
use super::arguments::{Common, Expires, ProfileTarget, parse_expires};
use super::profile::{CreatedToken, generate};

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
    // What was said when the profile was written, or else the token.
    let (token, handed_over) = match target {
        Some((endpoint, profile)) => {
            let to = ProfileTarget { endpoint: Some(endpoint), profile: Some(profile) };
            let created = CreatedToken::with_profile(options.expires, &to)?;
            let said = created.hand_over(common.output)?;
            (created.token, Ok(said))
        }
        None => {
            let (token, text) = generate(options.expires)?;
            (token, Err(text))
        }
    };
    let hash = token.hash.to_hex();
    let expires = expiry::format(token.expires);
    if common.is_json() {
        let mut shown = json!({"id": token.id, "sha256": hash, "expires": expires});
        if let (Err(text), Some(fields)) = (&handed_over, shown.as_object_mut()) {
            fields.insert("token".to_owned(), text.as_str().into());
        }
        println!("{shown}");
        return Ok(());
    }
    if let Err(text) = &handed_over {
        println!("token:  {text}\nsha256: {hash}\n");
    }
    println!("  tokens:\n  - sha256: {hash}\n    expires: {expires}\n    id: '{}'", token.id);
    let next = match handed_over {
        Ok(said) => format!("{said}. Add the lines above to the recipient in the share file."),
        Err(_) => {
            "Add these lines to the recipient in the share file. The token is not stored: put it into the recipient's \
             profile, and send it as you would send a password."
                .to_owned()
        }
    };
    common.output.note(&next);
    Ok(())
}
