//! Why the catalog in DynamoDB was not changed.

use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::records::BadRecord;
use crate::error::innermost;

/// Why the catalog was not changed.
#[derive(Debug)]
pub enum WriteError {
    /// It exists already.
    Exists(String),
    /// It does not exist.
    Missing(MissingRecord),
    /// Somebody else changed it at the same time.
    Conflict(String),
    /// It is not allowed.
    Refused(String),
    /// A record that it depends on cannot be read.
    Unreadable(BadRecord),
    /// The DynamoDB table does not exist.
    NoTable,
    /// DynamoDB refused it, or did not answer.
    Failed(String),
}

/// What a command names and the catalog does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are names, and say of what")]
pub enum MissingRecord {
    Share { share: String },
    Schema { share: String, schema: String },
    Table { share: String, schema: String, table: String },
    Recipient { recipient: String },
    Grant { recipient: String, share: String },
    Token { recipient: String, id: String },
    Property { recipient: String, name: String },
    OidcPolicy { recipient: String, id: String },
}

impl MissingRecord {
    /// There is no such share.
    pub fn share(share: &str) -> Self {
        Self::Share { share: share.to_owned() }
    }

    /// The share has no such schema.
    pub fn schema(share: &str, schema: &str) -> Self {
        Self::Schema { share: share.to_owned(), schema: schema.to_owned() }
    }

    /// The schema has no such table.
    pub fn table(share: &str, schema: &str, table: &str) -> Self {
        Self::Table { share: share.to_owned(), schema: schema.to_owned(), table: table.to_owned() }
    }

    /// There is no such recipient.
    pub fn recipient(recipient: &str) -> Self {
        Self::Recipient { recipient: recipient.to_owned() }
    }

    /// The share is not granted to the recipient.
    pub fn grant(recipient: &str, share: &str) -> Self {
        Self::Grant { recipient: recipient.to_owned(), share: share.to_owned() }
    }

    /// The recipient has no such token.
    pub fn token(recipient: &str, id: &str) -> Self {
        Self::Token { recipient: recipient.to_owned(), id: id.to_owned() }
    }

    /// The recipient has no OIDC policy with this id.
    pub fn oidc_policy(recipient: &str, id: &str) -> Self {
        Self::OidcPolicy { recipient: recipient.to_owned(), id: id.to_owned() }
    }

    /// The recipient has no such property.
    pub fn property(recipient: &str, name: &str) -> Self {
        Self::Property { recipient: recipient.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for MissingRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { share } => write!(f, "share '{share}'"),
            Self::Schema { share, schema } => write!(f, "schema '{schema}' in share '{share}'"),
            Self::Table { share, schema, table } => write!(f, "table '{share}.{schema}.{table}'"),
            Self::Recipient { recipient } => write!(f, "recipient '{recipient}'"),
            Self::Grant { recipient, share } => write!(f, "grant of share '{share}' to '{recipient}'"),
            Self::Token { recipient, id } => write!(f, "token '{id}' of recipient '{recipient}'"),
            Self::OidcPolicy { recipient, id } => write!(f, "OIDC policy '{id}' of recipient '{recipient}'"),
            Self::Property { recipient, name } => write!(f, "property '{name}' of recipient '{recipient}'"),
        }
    }
}

pub(super) type Result<T, E = WriteError> = std::result::Result<T, E>;

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(what) => write!(f, "{what} already exists"),
            Self::Missing(what) => write!(f, "there is no {what}"),
            Self::Conflict(what) => {
                write!(f, "{what} was changed by somebody else at the same time; try again")
            }
            Self::Unreadable(record) => {
                write!(
                    f,
                    "{record}. Correct it with the script that wrote it, or delete it and create it again"
                )
            }
            Self::NoTable => f.write_str("the DynamoDB table does not exist"),
            Self::Refused(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<MissingRecord> for WriteError {
    fn from(missing: MissingRecord) -> Self {
        Self::Missing(missing)
    }
}

impl From<BadRecord> for WriteError {
    fn from(record: BadRecord) -> Self {
        Self::Unreadable(record)
    }
}

/// What DynamoDB or the network refused.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
pub(super) fn failed<E, R>(error: SdkError<E, R>) -> WriteError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: fmt::Debug + Send + Sync + 'static,
{
    if error.code() == Some("ResourceNotFoundException") {
        return WriteError::NoTable;
    }
    let message = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("DynamoDB refused: {code}: {message}"),
        (Some(code), None) => format!("DynamoDB refused: {code}"),
        (None, _) => format!("DynamoDB does not answer: {}", innermost(&error)),
    };
    WriteError::Failed(message)
}
