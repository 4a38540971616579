//! Profiles: what a recipient is handed, with the token that is shown this once.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use deltashare::catalog::TokenHash;
use deltashare::catalog::diff::until;
use deltashare::catalog::dynamodb::{MissingRecord, NewToken, Writer, to_seconds};
use deltashare::protocol::names::Name;
use deltashare::protocol::profile::{OAuthProfile, Profile};
use serde::Serialize;
use uuid::Uuid;

use super::activation::ActivationLink;
use super::arguments::{Expires, ProfileOptions, ProfileTarget, TokenOptions};
use super::next_step::command;
use super::output::Output;
use super::{Failure, example};

/// A profile on its way to a file that is not there yet, or to standard output.
struct ProfileFile {
    text: String,
    path: Option<PathBuf>,
}

impl ProfileFile {
    fn new(to: &ProfileTarget, token: String, expires: Option<DateTime<Utc>>) -> Result<Self, Failure> {
        Self::of(to, &Profile::new(endpoint(to)?.as_str(), token, expires))
    }

    fn of(to: &ProfileTarget, profile: &impl Serialize) -> Result<Self, Failure> {
        if let Some(path) = to.profile.as_ref().filter(|path| path.exists()) {
            return Err(Failure::usage(format!("{} already exists; name another file", path.display())));
        }
        let text =
            serde_json::to_string_pretty(profile).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Self { text: text + "\n", path: to.profile.clone() })
    }

    /// Where the profile is and what it does, as the beginning of a sentence.
    fn subject(&self) -> String {
        match &self.path {
            Some(path) => format!("The profile {} holds", path.display()),
            None => "The profile above holds".to_owned(),
        }
    }

    /// Only its owner can read the file.
    fn write(&self) -> Result<(), String> {
        let Some(path) = &self.path else {
            print!("{}", self.text);
            return Ok(());
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(path).and_then(|mut file| file.write_all(self.text.as_bytes()));
        written.map_err(|error| format!("its profile {} cannot be written: {error}", path.display()))
    }
}

/// The URL for the profile, which a command that writes one requires.
pub(crate) fn endpoint(to: &ProfileTarget) -> Result<&url::Url, Failure> {
    to.endpoint.as_ref().ok_or_else(|| Failure::usage("--endpoint is missing"))
}

/// A token that was created, and what hands it over.
pub(crate) struct CreatedToken {
    pub(crate) token: NewToken,
    handover: Handover,
}

enum Handover {
    Profile(ProfileFile),
    Link(ActivationLink),
}

/// A new token, which is not stored yet, and its text, which is a secret.
pub(crate) fn generate(expires: Expires) -> Result<(NewToken, String), Failure> {
    let expires = expires.0.map(|life| to_seconds(Utc::now() + life));
    let text = example::Token::random()?.text;
    let id = Uuid::new_v4().simple().to_string().chars().take(8).collect();
    Ok((NewToken { id, hash: TokenHash::of(&text), expires, created: None, activation: None }, text))
}

impl CreatedToken {
    /// A token of a recipient that may read these shares.
    pub(crate) fn new(options: &TokenOptions, recipient: &str, shares: &[String]) -> Result<Self, Failure> {
        if !options.link.activation {
            return Self::with_profile(options.expires, &options.to);
        }
        let (mut token, text) = generate(options.expires)?;
        let profile = ProfileFile::new(&options.to, text, token.expires)?;
        let (link, stored) = ActivationLink::new(options, recipient, shares, &profile.text, token.expires)?;
        token.activation = Some(stored);
        Ok(Self { token, handover: Handover::Link(link) })
    }

    /// A token that a profile hands over.
    pub(crate) fn with_profile(expires: Expires, to: &ProfileTarget) -> Result<Self, Failure> {
        let (token, text) = generate(expires)?;
        let profile = ProfileFile::new(to, text, token.expires)?;
        Ok(Self { token, handover: Handover::Profile(profile) })
    }

    /// The link that hands the token over, if it is not a profile.
    pub(crate) fn link(&self) -> Option<&ActivationLink> {
        match &self.handover {
            Handover::Profile(_) => None,
            Handover::Link(link) => Some(link),
        }
    }

    /// Writes the profile or the link, and says where it is and what to do with it. A link for scripts is written later.
    pub(crate) fn hand_over(&self, output: Output) -> Result<String, Failure> {
        let (id, until) = (&self.token.id, until(self.token.expires));
        let profile = match &self.handover {
            Handover::Profile(profile) => profile,
            Handover::Link(link) => {
                if output == Output::Text {
                    println!("{}", link.text);
                }
                return Ok(link.sentence(id, &until));
            }
        };
        profile.write().map_err(|reason| {
            Failure::failed(format!(
                "the token {id} was created and is valid {until}, but {reason}; revoke the token and create another"
            ))
        })?;
        Ok(format!(
            "{} the only copy of the token {id}, which is valid {until}. Send it to the recipient as you would send \
             a password",
            profile.subject()
        ))
    }
}

/// Writes the profile of a token that the caller has, if it is a valid one of the recipient, or a profile for tokens of an
/// OpenID provider.
pub(crate) async fn write(writer: &Writer, options: &ProfileOptions) -> Result<String, Failure> {
    let Some(token_file) = &options.token_file else { return write_oauth(writer, options).await };
    let token = read_token(token_file)?;
    let found = writer.token(TokenHash::of(&token)).await?;
    let of_recipient = |name: &str| Name::key_of(name) == Name::key_of(&options.recipient);
    let found = found.filter(|token| of_recipient(&token.recipient)).ok_or_else(|| {
        let file = token_file.display();
        Failure::usage(format!("{file} does not contain a token of recipient '{}'", options.recipient))
    })?;
    found.check_expiry().map_err(|_| {
        Failure::usage(format!(
            "the token has expired; create another with: {}",
            command(&options.common, "token rotate", Some(&options.recipient), "")
        ))
    })?;
    let written = ProfileFile::new(&options.to, token, found.expires)?;
    written.write().map_err(|reason| Failure::failed(format!("the token is valid, but {reason}")))?;
    Ok(format!(
        "{} the token {}, which is valid {}. Send it to the recipient as you would send a password",
        written.subject(),
        found.id,
        until(found.expires)
    ))
}

/// What stands in a profile for a client secret that only the recipient has.
const SECRET_PLACEHOLDER: &str = "REPLACE-WITH-YOUR-CLIENT-SECRET";

/// Writes a profile with which clients get tokens from an OpenID provider.
async fn write_oauth(writer: &Writer, options: &ProfileOptions) -> Result<String, Failure> {
    let (recipient, oidc) = (&options.recipient, &options.oidc);
    let found = writer.recipient(recipient).await?;
    let found = found.ok_or_else(|| Failure::from(MissingRecord::recipient(recipient)))?;
    if found.oidc_policies.is_empty() {
        let policy = "--oidc-issuer URL --oidc-subject VALUE --oidc-audience AUDIENCE";
        return Err(Failure::usage(format!(
            "recipient '{recipient}' has no OIDC policy; add one with: {}",
            command(&options.common, "recipient update", Some(recipient), policy)
        )));
    }
    let (Some(token_endpoint), Some(client_id)) = (&oidc.oidc_token_endpoint, &oidc.oidc_client_id) else {
        return Err(Failure::usage("--oidc-token-endpoint and --oidc-client-id are missing"));
    };
    let secret = oidc.oidc_client_secret_file.as_deref().map(read_token).transpose()?;
    let has_secret = secret.is_some();
    let profile = OAuthProfile::new(
        endpoint(&options.to)?.as_str(),
        token_endpoint.as_str(),
        client_id.clone(),
        secret.unwrap_or_else(|| SECRET_PLACEHOLDER.to_owned()),
        oidc.oidc_scope.clone(),
    );
    let written = ProfileFile::of(&options.to, &profile)?;
    written.write().map_err(Failure::failed)?;
    Ok(match has_secret {
        true => format!("{} the client secret, so keep it as you would keep a password", written.subject()),
        false => format!(
            "{} no secret. Send it to the recipient, which replaces {SECRET_PLACEHOLDER} with its own client secret",
            written.subject()
        ),
    })
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}
