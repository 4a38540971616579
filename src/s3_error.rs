//! The errors that S3 answers with: what each means, and what an administrator does about it.

use std::fmt;

/// How many characters of a message are kept: those of AWS have no limit that is documented.
const LONGEST_MESSAGE: usize = 600;

/// How the text of an error begins with which the client of S3 repeats an answer.
const REPEATED: &str = "Server returned non-2xx status code: ";

/// The text of its error for an answer that names another region.
const REDIRECTED: &str = "Received redirect without LOCATION";

/// An error response of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Error {
    /// Its HTTP status.
    pub status: u16,
    /// Its code, such as `AccessDenied`; empty if it has none.
    pub code: String,
    /// Its message.
    pub message: String,
}

/// What an error says is wrong: each kind has its own remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3ErrorKind {
    /// A permission is missing.
    Denied,
    /// The credentials have expired.
    Expired,
    /// The credentials are not known.
    Unknown,
    /// The signature is not the one that S3 expects.
    Signature,
    /// The time of the request differs from that of S3.
    Clock,
    /// There is no such bucket.
    NoBucket,
    /// The bucket is in another region.
    Region,
    /// The object is archived.
    Archived,
    /// The KMS key of the object cannot be used.
    Key,
    /// S3, or the KMS key behind it, has a problem that passes by itself.
    Busy,
}

impl S3Error {
    /// Reads an error response from its status and its body in XML.
    pub fn read(status: u16, body: &str) -> Self {
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>"))
                .map(|(text, _)| text.chars().take(LONGEST_MESSAGE).collect())
        };
        Self {
            status,
            code: element("Code").unwrap_or_default(),
            message: element("Message").unwrap_or_default(),
        }
    }

    /// The error response that caused `error`, which comes from a client of S3.
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let causes: Vec<_> = std::iter::successors(Some(error), |error| error.source()).collect();
        // Those further out may repeat paths, which others choose. They come before the answer.
        causes.iter().rev().find_map(|cause| Self::in_text(&cause.to_string()))
    }

    fn in_text(text: &str) -> Option<Self> {
        if text.contains(REDIRECTED) {
            let (code, message) = ("PermanentRedirect".to_owned(), String::new());
            return Some(Self { status: 301, code, message });
        }
        let (_, answer) = text.rsplit_once(REPEATED)?;
        let (status, body) = answer.split_at_checked(3)?;
        Some(Self::read(status.parse().ok()?, body))
    }

    /// What is wrong; `None` if the code does not say.
    pub fn kind(&self) -> Option<S3ErrorKind> {
        Some(match self.code.as_str() {
            "AccessDenied" if self.message.contains("to perform: kms:") => S3ErrorKind::Key,
            "AccessDenied" => S3ErrorKind::Denied,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => S3ErrorKind::Expired,
            "InvalidAccessKeyId" | "InvalidToken" | "InvalidSecurity" => S3ErrorKind::Unknown,
            "SignatureDoesNotMatch" => S3ErrorKind::Signature,
            "RequestTimeTooSkewed" => S3ErrorKind::Clock,
            "NoSuchBucket" => S3ErrorKind::NoBucket,
            "PermanentRedirect" | "IllegalLocationConstraintException" => S3ErrorKind::Region,
            "AuthorizationHeaderMalformed" | "AuthorizationQueryParametersError"
                if self.message.contains("region") =>
            {
                S3ErrorKind::Region
            }
            "InvalidObjectState" => S3ErrorKind::Archived,
            "SlowDown"
            | "ThrottlingException"
            | "RequestTimeout"
            | "InternalError"
            | "ServiceUnavailable"
            | "TemporaryRedirect"
            | "KMS.ThrottlingException"
            | "KMS.InternalException"
            | "KMS.KMSInternalException"
            | "KMS.DependencyTimeoutException"
            | "KMS.KeyUnavailableException" => S3ErrorKind::Busy,
            code if code.starts_with("KMS.") => S3ErrorKind::Key,
            _ => return None,
        })
    }

    /// The KMS key that may not be used, if the message names it.
    pub fn kms_key(&self) -> Option<&str> {
        // Text before it may come from a caller, such as the name of a session.
        let named = match self.message.split_once("on resource: ") {
            Some((_, named)) => named,
            None if self.code.starts_with("KMS.") => &self.message,
            None => return None,
        };
        let mut words = named.split([' ', '"', '\'', ',']);
        words.find(|word| word.starts_with("arn:") && word.contains(":kms:") && word.contains(":key/"))
    }

    /// What is wrong and what to do about it, as far as the response tells, and the response itself.
    pub fn explain(&self) -> String {
        match self.kind() {
            Some(kind) => format!("{} ({self})", kind.advice()),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3 answers {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl S3ErrorKind {
    /// What is wrong and what to do, as the beginning of a sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Denied => "permission denied: the credentials that read the table lack a permission",
            Self::Expired => "the AWS credentials have expired: sign in again, or set new ones",
            Self::Unknown => {
                "AWS does not recognize the credentials: set an existing access key, with its session token"
            }
            Self::Signature => {
                "S3 does not accept the signature: the secret access key does not belong to the access key, or something \
                 on the way to S3 changes requests"
            }
            Self::Clock => "the clock of this machine is wrong: synchronize it with NTP",
            Self::NoBucket => {
                "there is no such bucket: correct the location of the table, or create the bucket"
            }
            Self::Region => {
                "the bucket is in a different region from the one that the request went to: if an endpoint of S3 is set, \
                 also set AWS_REGION to the region of the bucket"
            }
            Self::Archived => {
                "S3 has archived the object: restore it, and exclude the table from the lifecycle rule that archives"
            }
            Self::Key => {
                "the KMS key of the table's files cannot be used: check its state, its key policy, and the policy of \
                 the role"
            }
            Self::Busy => "S3 has a temporary problem: try again later",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, message: &str) -> S3Error {
        S3Error::read(status, &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
    }

    #[test]
    fn the_key_that_may_not_be_used_is_named() {
        let message = "User: arn:aws:sts::111122223333:assumed-role/signer/x is not authorized to perform: kms:Decrypt on \
                       resource: arn:aws:kms:eu-central-1:111122223333:key/0b4f1f0a because no identity-based policy \
                       allows the kms:Decrypt action";
        let refused = answer(403, "AccessDenied", message);
        assert_eq!(refused.kind(), Some(S3ErrorKind::Key));
        assert_eq!(refused.kms_key(), Some("arn:aws:kms:eu-central-1:111122223333:key/0b4f1f0a"));
        assert_eq!(S3Error::read(403, "<Error><Code>AccessDenied</Code></Error>").kms_key(), None);
    }

    #[test]
    fn only_access_denied_is_a_missing_permission() {
        for (status, code, message, expected) in [
            (403, "AccessDenied", "Access Denied", Some(S3ErrorKind::Denied)),
            (400, "ExpiredToken", "The provided token has expired.", Some(S3ErrorKind::Expired)),
            (403, "InvalidAccessKeyId", "", Some(S3ErrorKind::Unknown)),
            (403, "SignatureDoesNotMatch", "", Some(S3ErrorKind::Signature)),
            (403, "RequestTimeTooSkewed", "", Some(S3ErrorKind::Clock)),
            (404, "NoSuchBucket", "", Some(S3ErrorKind::NoBucket)),
            (301, "PermanentRedirect", "", Some(S3ErrorKind::Region)),
            (
                400,
                "AuthorizationHeaderMalformed",
                "the region 'us-east-1' is wrong; expecting 'eu-west-1'",
                Some(S3ErrorKind::Region),
            ),
            (403, "InvalidObjectState", "", Some(S3ErrorKind::Archived)),
            (400, "KMS.DisabledException", "", Some(S3ErrorKind::Key)),
            (404, "NoSuchKey", "", None),
            (403, "", "", None),
            (503, "SlowDown", "", Some(S3ErrorKind::Busy)),
            (400, "KMS.ThrottlingException", "", Some(S3ErrorKind::Busy)),
            (307, "TemporaryRedirect", "", Some(S3ErrorKind::Busy)),
            (403, "AccessDenied", "no access to key kms:x", Some(S3ErrorKind::Denied)),
        ] {
            assert_eq!(answer(status, code, message).kind(), expected, "{code}");
        }
    }

    #[test]
    fn an_answer_is_found_in_the_error_of_the_client() {
        let text = |rest: &str| -> Box<dyn std::error::Error> {
            format!("Error performing GET https://b/k in 1s - {rest}").into()
        };
        let expired = text(
            "Server returned non-2xx status code: 400 Bad Request: <Error><Code>ExpiredToken</Code><Message>The provided \
             token has expired.</Message></Error>",
        );
        assert_eq!(
            S3Error::behind(expired.as_ref()).unwrap().to_string(),
            "S3 answers 400 ExpiredToken: The provided token has expired."
        );
        let redirected = text(
            "Received redirect without LOCATION, this normally indicates an incorrectly configured region",
        );
        assert_eq!(S3Error::behind(redirected.as_ref()).unwrap().kind(), Some(S3ErrorKind::Region));
        let head = text("Server returned non-2xx status code: 404 Not Found: ");
        assert_eq!(S3Error::behind(head.as_ref()).unwrap().to_string(), "S3 answers 404");
        assert_eq!(S3Error::behind(text("HTTP error: error sending request").as_ref()), None);
    }
}
