//! Reading the first bytes of a table's file, as a recipient does: by its presigned URL.

use axum::http::header::RANGE;
use axum::http::{HeaderValue, Request};
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::client::{HttpConnector as _, HttpRequestBody, ReqwestConnector};

use super::s3::client_options;
use super::{Location, SIGNER_READY, Storage, unavailable};
use crate::error::{Error, Result};

/// As much of an answer is read: a message of S3 with its XML.
const ENOUGH: usize = 4096;

/// What S3 says in place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRefused {
    /// The status of its answer.
    pub status: u16,
    /// Its code, such as `AccessDenied`.
    pub code: String,
    /// Its message.
    pub message: String,
}

impl FileRefused {
    /// An answer of S3: its status, and its body in XML.
    pub fn read(status: u16, body: &str) -> Self {
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(text, _)| text.to_owned())
        };
        Self {
            status,
            code: element("Code").unwrap_or_else(|| "without a code".to_owned()),
            message: element("Message").unwrap_or_default(),
        }
    }

    /// Whether a permission is missing.
    pub fn is_denied(&self) -> bool {
        self.status == 403 && self.code == "AccessDenied"
    }

    /// The KMS key that may not be used, where the message names it.
    pub fn kms_key(&self) -> Option<&str> {
        let mut words = self.message.split([' ', '"', '\'', ',']);
        words.find(|word| word.starts_with("arn:") && word.contains(":kms:") && word.contains(":key/"))
    }
}

impl Storage {
    /// Reads the first bytes of the file that the log of the table at `location` names `log_path`, and says what S3 says
    /// in their place. `allowed` are the other places that the log may point into.
    pub async fn first_bytes(
        &self,
        location: &Location,
        allowed: &[Location],
        log_path: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<FileRefused>> {
        let locations = || std::iter::once(location).chain(allowed);
        if locations().any(|location| matches!(location, Location::Local(_))) {
            // The gateway reads a directory with the rights of this process, and answers nobody but the server's clients.
            return Ok(None);
        }
        let mut url = Vec::new();
        self.signer(location, allowed, now).await?.presign(log_path, &mut url)?;
        let url = String::from_utf8(url).map_err(Error::internal)?;
        let client = ReqwestConnector::default()
            .connect(&client_options().with_allow_http(url.starts_with("http://")))
            .map_err(unavailable)?;
        let mut request = Request::get(url).body(HttpRequestBody::empty()).map_err(Error::internal)?;
        request.headers_mut().insert(RANGE, HeaderValue::from_static("bytes=0-3"));
        let answer = tokio::time::timeout(SIGNER_READY, client.execute(request)).await;
        let answer = answer.map_err(unavailable)?.map_err(unavailable)?;
        let status = answer.status().as_u16();
        // An empty file has no byte 0.
        if answer.status().is_success() || status == 416 {
            return Ok(None);
        }
        let (mut body, mut pieces) = (Vec::new(), answer.into_body().bytes_stream());
        while body.len() < ENOUGH
            && let Some(piece) = pieces.try_next().await.map_err(unavailable)?
        {
            body.extend_from_slice(&piece);
        }
        Ok(Some(FileRefused::read(status, &String::from_utf8_lossy(&body))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_may_not_be_used_is_named() {
        let body = "<Error><Code>AccessDenied</Code><Message>User: arn:aws:sts::111122223333:assumed-role/signer/x is not \
                    authorized to perform: kms:Decrypt on resource: \
                    arn:aws:kms:eu-central-1:111122223333:key/0b4f1f0a because no identity-based policy allows the \
                    kms:Decrypt action</Message></Error>";
        let refused = FileRefused::read(403, body);
        assert!(refused.is_denied());
        assert_eq!(refused.kms_key(), Some("arn:aws:kms:eu-central-1:111122223333:key/0b4f1f0a"));
        assert_eq!(FileRefused::read(403, "<Error><Code>AccessDenied</Code></Error>").kms_key(), None);
    }
}
