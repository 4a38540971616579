//! `deltashare activate`: uses an activation link as its page does, on a terminal.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use deltashare::protocol::activation::{
    ActivationAnswer, ActivationRequest, ActivationSecret, INVITATION_PATH, Invitation, PATH, UNUSABLE,
};
use reqwest::{Client, StatusCode};
use serde_json::json;
use url::Url;

use super::activation::decrypted;
use super::output::{Output, printable};
use super::{Failure, blocking};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Use an activation link without a browser: get the profile, and write it to a file.
///
/// The link works once. With --show, the command only says who invites to what, and the link is not used.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare activate 'https://sharing.example.com/delta-sharing/activate#…' --profile acme.share\n  deltashare activate - --show < link.txt"
)]
pub(crate) struct Options {
    /// The link, in quotes because of its #, or - to read it from standard input.
    link: String,
    /// The file to write the profile to.
    #[arg(long, value_name = "FILE", required_unless_present = "show")]
    profile: Option<PathBuf>,
    /// Show the invitation without using the link.
    #[arg(long, conflicts_with = "profile")]
    show: bool,
    /// The output format: text for people, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Where a link leads, and its secret.
struct Link {
    /// The endpoint, which ends with a slash.
    endpoint: Url,
    secret: ActivationSecret,
}

impl Link {
    fn parse(text: &str) -> Option<Self> {
        let mut endpoint = Url::parse(text.trim()).ok()?;
        let secret = ActivationSecret::parse(endpoint.fragment()?)?;
        endpoint.set_fragment(None);
        let path = endpoint.path().trim_end_matches('/').strip_suffix(PATH)?.to_owned();
        endpoint.set_path(&path);
        (matches!(endpoint.scheme(), "http" | "https") && path.ends_with('/'))
            .then_some(Self { endpoint, secret })
    }

    /// The text that the server has at `path`, decrypted.
    async fn ask(&self, client: &Client, path: &str, key: &[u8; 32]) -> Result<String, Failure> {
        let body = ActivationRequest { id: self.secret.id().to_hex() };
        let body = serde_json::to_vec(&body).map_err(|error| Failure::failed(error.to_string()))?;
        let url = self.endpoint.join(path).map_err(|error| Failure::failed(error.to_string()))?;
        let host = self.endpoint.host_str().unwrap_or_default().to_owned();
        let failed = |why: String| Failure::failed(format!("the server {host} {why}"));
        let request = client.post(url).header("content-type", "application/json").body(body);
        // The error of a request has its URL, which is not secret: the secret is not in it.
        let answer = request.send().await.map_err(|error| failed(format!("does not answer: {error}")))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Failure::failed(UNUSABLE)),
            status => return Err(failed(format!("answers {status}; try again later"))),
        }
        let answer = answer.bytes().await.map_err(|error| failed(format!("broke off: {error}")))?;
        let answer: Option<ActivationAnswer> = serde_json::from_slice(&answer).ok();
        let text = answer.and_then(|answer| decrypted(key, &answer.bytes()?));
        text.ok_or_else(|| {
            failed("sent what this link does not decrypt; ask the provider for a new link".to_owned())
        })
    }
}

/// The file for a profile. It is created before the link is used, so that nothing is lost if it cannot be.
fn created(path: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| {
        Failure::usage(format!("{}: {error}; the link was not used. Name another file", path.display()))
    })
}

/// Uses or shows the link, on a runtime of its own.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let text = match options.link.as_str() {
        "-" => {
            std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::usage(error.to_string()))?
        }
        link => link.to_owned(),
    };
    let link = Link::parse(&text).ok_or_else(|| {
        Failure::usage(
            "this is not an activation link, such as https://sharing.example.com/delta-sharing/activate#…; put it in quotes",
        )
    })?;
    let client = Client::builder()
        .user_agent(concat!("deltashare/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .map_err(|error| Failure::failed(error.to_string()))?;
    blocking(async {
        let invitation = link.ask(&client, INVITATION_PATH, &link.secret.invitation_key()).await?;
        let invitation: Invitation = serde_json::from_str(&invitation)
            .map_err(|error| Failure::failed(format!("the invitation cannot be read: {error}")))?;
        let Some(path) = &options.profile else {
            show(&invitation, options.output);
            return Ok(());
        };
        let mut file = created(path)?;
        let profile = match link.ask(&client, PATH, &link.secret.profile_key()).await {
            Ok(profile) => profile,
            Err(failure) => {
                // An empty file would stand in the way of the next attempt.
                _ = std::fs::remove_file(path);
                return Err(failure);
            }
        };
        if let Err(error) = file.write_all(profile.as_bytes()) {
            print!("{profile}");
            return Err(Failure::failed(format!(
                "{} cannot be written: {error}; the link was used, and the profile is above",
                path.display()
            )));
        }
        options.output.done(&format!(
            "The profile {} lets {} read {}. Keep it like a password; the link no longer works.",
            path.display(),
            invitation.recipient,
            if invitation.shares.is_empty() {
                "what is shared with it".to_owned()
            } else {
                invitation.shares.join(", ")
            }
        ));
        Ok(())
    })
}

fn show(invitation: &Invitation, output: Output) {
    if output == Output::Json {
        println!("{}", json!(invitation));
        return;
    }
    let provider = invitation.provider.as_deref().unwrap_or(&invitation.endpoint);
    let token = invitation.token_expires.as_deref().unwrap_or("never");
    for (name, value) in [
        ("from", provider),
        ("endpoint", &invitation.endpoint),
        ("recipient", &invitation.recipient),
        ("shares", &invitation.shares.join(", ")),
        ("linkExpires", &invitation.link_expires),
        ("tokenExpires", token),
    ] {
        println!("{name:<12}  {}", printable(value));
    }
}

#[cfg(test)]
mod tests {
    use super::Link;

    #[test]
    fn links_are_taken_apart() {
        let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        for (text, endpoint) in [
            (
                format!("https://a.example/delta-sharing/activate#{secret}\n"),
                "https://a.example/delta-sharing/",
            ),
            (format!("https://a.example/activate/#{secret}"), "https://a.example/"),
            (format!("http://127.0.0.1:80/x/y/activate#{secret}"), "http://127.0.0.1/x/y/"),
        ] {
            let link = Link::parse(&text).unwrap();
            assert_eq!((link.endpoint.as_str(), link.secret.text().as_str()), (endpoint, secret));
        }
        for text in [
            "",
            secret,
            "https://a.example/delta-sharing/activate",
            "https://a.example/delta-sharing/activate#AAEC",
            &format!("https://a.example/delta-sharing/#{secret}"),
            &format!("https://a.example/deactivate#{secret}"),
            &format!("file:///activate#{secret}"),
        ] {
            assert!(Link::parse(text).is_none(), "{text}");
        }
    }
}
