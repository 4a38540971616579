//! Why a file of a table cannot be read.

use crate::s3_error::S3Error;

/// Why recipients cannot read a file that the log names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileFault {
    /// S3 answers with something else.
    Refused(S3Error),
    /// There is no such file in the directory.
    Gone,
    /// What is in the directory cannot be read, for this reason.
    Unreadable(String),
    /// It does not begin as Parquet files do.
    NotParquet,
    /// It has no bytes.
    Empty,
}
