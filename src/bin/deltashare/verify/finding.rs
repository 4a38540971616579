//! What stands in the way of a recipient, and the sentence that helps.

use std::fmt;

use deltashare::s3_error::{S3Error, S3ErrorKind};

/// One thing that was found.
pub(super) struct Finding {
    /// The table, or what else it is about.
    pub(super) about: String,
    /// What was seen.
    pub(super) what: String,
    /// What to do.
    pub(super) help: String,
}

impl Finding {
    pub(super) fn new(about: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { about: about.to_string(), what: what.into(), help: String::new() }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

/// What to do about a request to the server that got no answer.
pub(super) fn unreachable(about: &str, host: &str, error: &reqwest::Error) -> Finding {
    let cause = cause(error);
    let text = cause.to_lowercase();
    let (what, help) = if text.contains("dns error") || text.contains("failed to lookup") {
        (format!("no machine has the name {host}"), "Correct the endpoint, or add the name to DNS.")
    } else if ["certificate", "tls", "ssl", "corrupt message", "handshake", "alert"]
        .iter()
        .any(|word| text.contains(word))
    {
        (
            format!("the TLS connection to {host} fails: {cause}"),
            "The certificate must be one that clients trust, and be issued for this name. If the server speaks plain \
             HTTP, the endpoint must be http://, or TLS must end at a proxy before it.",
        )
    } else if error.is_timeout() {
        (format!("{host} does not answer in time"), "Is a firewall in between? Is the server running?")
    } else if error.is_connect() {
        (format!("{host} cannot be reached: {cause}"), "Is the server running, and is this its address?")
    } else {
        (format!("the answer of {host} broke off: {cause}"), "The server's log says why.")
    };
    Finding::new(about, what).help(help)
}

/// The innermost cause, which is the one that says something; without the URL.
fn cause(error: &reqwest::Error) -> String {
    // An error without a cause may name the URL.
    let Some(mut inner) = std::error::Error::source(error) else {
        return "the connection failed".to_owned();
    };
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// An answer of the server that is not the one a recipient needs.
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The protocol's own code, which only a Delta Sharing server sends.
    pub(super) code: Option<String>,
    pub(super) message: String,
    pub(super) request_id: Option<String>,
}

impl Refusal {
    /// A failed request for the lists, or for a table.
    pub(super) fn finding(&self, about: &str, is_list: bool) -> Finding {
        let code = self.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
        let message = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        let id = self.request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default();
        let what = format!("the server answers {}{code}{message}{id}", self.status);
        let help = match self.status {
            401 if self.code.is_some() => {
                "The token is unknown, was revoked or has expired, or the recipient is disabled. See deltashare \
                 recipient show RECIPIENT; deltashare token rotate RECIPIENT creates another token."
            }
            401 | 403 | 404 | 405 if self.code.is_none() => {
                "What answers is not a Delta Sharing server. The endpoint of the profile must end with the server's \
                 prefix, such as https://HOST/delta-sharing/; deltashare serve prints it, and the stack's output \
                 Endpoint has it."
            }
            404 if is_list => {
                "The endpoint of the profile may lead to the wrong prefix: it is the line that deltashare serve \
                 prints, or the stack's output Endpoint."
            }
            404 => {
                "The table is listed, but does not exist. If it was removed in the meantime, run this again."
            }
            429 if self.message.starts_with("This recipient has a limit") => {
                "Wait as long as the message says, or raise the limit: deltashare recipient update RECIPIENT, with \
                 --requests-per-minute or --bytes-per-day."
            }
            429 => "Too many requests at once: wait a minute and run this again, or raise RateLimit.",
            500..=599 if !is_list => {
                "deltashare check says why a table cannot be read; the server's log has the cause by the request id."
            }
            500..=599 => "The server's log has the cause, by the request id.",
            300..=399 => "Clients do not follow this; put the address that it leads to into the profile.",
            _ if is_list => "The message says what is wrong.",
            _ => "The message says what is wrong; deltashare check says more about the table.",
        };
        Finding::new(about, what).help(help)
    }
}

/// What S3, or a server in its place, answers instead of a file. `body` is its XML.
pub(super) fn file_refused(table: &str, status: u16, host: &str, body: &str) -> Finding {
    let answer = S3Error::read(status, body);
    let message = answer.message.to_lowercase();
    let help = match (answer.kind(), status) {
        (Some(S3ErrorKind::Expired), _) => {
            "The credentials that the server signs with have expired: renew them, or let the server assume a role."
        }
        _ if message.contains("expired") => {
            "The URL has expired already: the server's clock is wrong, or the credentials that sign have expired."
        }
        (Some(S3ErrorKind::Unknown), _) => {
            "AWS does not recognize the credentials that the server signs with: give the server an existing access \
             key."
        }
        (Some(S3ErrorKind::Clock), _) => "The server's clock is wrong: synchronize it with NTP.",
        (Some(S3ErrorKind::Signature), _) => {
            "Something between here and S3 changes the URL or the Host header, or the server signs for another address: \
             see --public-url and AWS_ENDPOINT_URL_S3."
        }
        (Some(S3ErrorKind::NoBucket), _) => {
            "The bucket of the table does not exist: correct the table's location."
        }
        (Some(S3ErrorKind::Region), _) => {
            "The bucket is in a different region from the one that the server signs for."
        }
        (Some(S3ErrorKind::Archived), _) => {
            "S3 has archived the file: restore it, and exclude the table from the lifecycle rule that archives."
        }
        (Some(S3ErrorKind::Key), _) => {
            "The role that signs is not allowed to use the KMS key of the file: allow kms:Decrypt in its policy and \
             in the key policy."
        }
        (Some(S3ErrorKind::Denied), _) => {
            "The role that signs is not allowed to read the file, or the bucket policy denies access from this \
             network. deltashare check --signer-role ARN says which permission is missing; infra/bucket-policies.md \
             has the policies."
        }
        (Some(S3ErrorKind::Busy), _) | (None, 500..) => "S3 has a temporary problem; run this again.",
        (None, 404) => {
            "The table's log names a file that is gone. VACUUM with too short a retention, or a lifecycle rule of the \
             bucket, deletes files that are still shared: restore the file, or repair the table."
        }
        (None, 416) => "The file is empty, so it is not a Parquet file: restore it, or repair the table.",
        (None, 301 | 307) => "The bucket is in a different region from the one that the server signs for.",
        (None, 400) => "S3 does not take the URL: see the region and the endpoint of S3 at the server.",
        (None, _) => "What answers refuses the URL; its code says why. deltashare check may say more.",
    };
    let code = if answer.code.is_empty() { "without a code" } else { &answer.code };
    Finding::new(table, format!("{host} answers {status} {code} for a file of the table")).help(help)
}
