//! The error if there are no credentials for AWS, as object stores report it.

use crate::error::{Error, Fault};

/// That there are no credentials, and why.
pub(super) fn no_credentials(reason: &str) -> object_store::Error {
    let error = Error::unavailable("The storage of the table does not answer.")
        .with_fault(Fault::Credentials)
        .with_explanation(format!("there are no AWS credentials: {reason}"));
    object_store::Error::Generic { store: "S3", source: error.into() }
}
