//! What is in a log that no table needs, and that would cost more memory or time than one table may take.

use std::fmt;

use buoyant_kernel::object_store;

/// Why bytes of a log were not given to a parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogRejection {
    /// Lists, objects or groups in each other, beyond the limit.
    TooDeep,
    /// One action is larger than the limit.
    Line,
    /// The actions that are read together are larger than the limit.
    Batch,
    /// A commit that is needed as a whole is larger than the limit.
    Commit,
    /// A Parquet footer is larger than the limit, or lists too many columns.
    Footer,
    /// A page of a Parquet file is larger than the limit.
    Page,
    /// The columns of a row group are larger than the limit.
    RowGroup,
    /// A Parquet file claims more rows than its size can hold.
    Rows,
    /// A Parquet file is compressed in a way that does not tell how large its pages get.
    Codec,
    /// A protocol or metadata action lists more names than the limit.
    Names,
    /// A schema is larger than the limit.
    Schema,
    /// No writer writes such bytes.
    Malformed,
}

impl LogRejection {
    /// The sentence for recipients.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::TooDeep => "The table cannot be read: its log is nested too deeply.",
            Self::Line => "The table cannot be read: its log has an action that is too large.",
            Self::Batch => "The table cannot be read: its log has too many large actions in a row.",
            Self::Commit => "The table cannot be read this way: a commit of its log is too large.",
            Self::Footer => {
                "The table cannot be read: a checkpoint of its log has a footer that is too large."
            }
            Self::Page => "The table cannot be read: a checkpoint of its log has a page that is too large.",
            Self::RowGroup => {
                "The table cannot be read: a checkpoint of its log has a row group that is too large."
            }
            Self::Rows => {
                "The table cannot be read: a checkpoint of its log claims more rows than it can have."
            }
            Self::Codec => {
                "The table cannot be read: a checkpoint of its log has a compression that is not supported."
            }
            Self::Names => "The table cannot be read: its protocol or metadata lists too many names.",
            Self::Schema => "The table cannot be read: its schema is too large.",
            Self::Malformed => "The table cannot be read: its Delta log is damaged or incomplete.",
        }
    }
}

impl fmt::Display for LogRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for LogRejection {}

impl From<LogRejection> for object_store::Error {
    fn from(rejection: LogRejection) -> Self {
        Self::Generic { store: "log", source: rejection.into() }
    }
}

impl From<LogRejection> for buoyant_kernel::Error {
    fn from(rejection: LogRejection) -> Self {
        Self::generic_err(rejection)
    }
}
