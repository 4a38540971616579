//! From the kernel's errors, which hold URLs and library text, to sentences for recipients.

use std::panic::{AssertUnwindSafe, catch_unwind};

use buoyant_kernel::object_store;
use buoyant_kernel::parquet::errors::ParquetError;

use super::log_rejection::LogRejection;
use crate::error::{Error, Fault, Result, innermost};
use crate::s3_error::{S3Error, S3ErrorKind};

type KernelError = buoyant_kernel::Error;

/// Why the kernel could not do something, as far as the difference matters to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The store did not answer, or asked to be called less often.
    Unavailable,
    /// There are no credentials to read the store with, or the role that reads it cannot be assumed.
    NoCredentials,
    /// The store refused access.
    Denied,
    /// S3 says what is wrong with the bucket, the credentials or the clock.
    Storage(S3ErrorKind),
    /// A file of the log was written again while it was read.
    Changed,
    /// A file that the log names, or the log itself, is not there.
    Missing,
    /// The table needs what the kernel does not do.
    Unsupported,
    /// The log has what would cost too much.
    Rejected(LogRejection),
    /// Anything else: the log says something that cannot be right.
    Damaged,
}

/// Why a snapshot or a scan could not be opened.
pub(super) enum OpenError {
    /// Another view of the log would not help.
    Final(Error),
    /// Another view of the log may do.
    Damaged(Error),
}

impl OpenError {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Final(error) | Self::Damaged(error) => error,
        }
    }
}

impl From<KernelError> for OpenError {
    fn from(error: KernelError) -> Self {
        match cause(&error) {
            Cause::Unavailable
            | Cause::NoCredentials
            | Cause::Denied
            | Cause::Storage(_)
            | Cause::Changed
            | Cause::Unsupported => Self::Final(failure(error)),
            // What the table is in any view of its log.
            Cause::Rejected(LogRejection::Names | LogRejection::Schema) => Self::Final(failure(error)),
            Cause::Missing | Cause::Damaged | Cause::Rejected(_) => Self::Damaged(failure(error)),
        }
    }
}

/// Finds the cause of a kernel error.
pub(super) fn cause(error: &KernelError) -> Cause {
    match error {
        KernelError::Backtraced { source, .. } => cause(source),
        KernelError::FileNotFound(_) => Cause::Missing,
        KernelError::Unsupported(_) => Cause::Unsupported,
        KernelError::ObjectStore(error) => store_cause(error),
        KernelError::IOError(error) => io_cause(error),
        KernelError::Parquet(ParquetError::External(source)) => chain_cause(source.as_ref()),
        KernelError::GenericError { source } => chain_cause(source.as_ref()),
        KernelError::JoinFailure(_) => Cause::Unavailable,
        other => std::error::Error::source(other).map_or(Cause::Damaged, chain_cause),
    }
}

/// Finds the cause of an error of the object store.
pub(super) fn store_cause(error: &object_store::Error) -> Cause {
    if let object_store::Error::Precondition { .. } = error {
        return Cause::Changed;
    }
    match std::error::Error::source(error).and_then(S3Error::behind).and_then(|answer| answer.kind()) {
        Some(S3ErrorKind::Denied) => return Cause::Denied,
        Some(S3ErrorKind::Busy) => return Cause::Unavailable,
        Some(kind) => return Cause::Storage(kind),
        None => {}
    }
    match error {
        object_store::Error::NotFound { .. } => Cause::Missing,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Cause::Denied
        }
        object_store::Error::JoinError { .. } => Cause::Unavailable,
        object_store::Error::Generic { source, .. } => generic_store_cause(source.as_ref()),
        _ => Cause::Damaged,
    }
}

/// The store's clients hide what happened in text. An answer that blames the request will be the same next
/// time, and so will a file that is shorter than it should be; everything else may pass.
fn generic_store_cause(source: &(dyn std::error::Error + 'static)) -> Cause {
    if matches!(Fault::behind(source), Some(Fault::Role | Fault::Credentials)) {
        return Cause::NoCredentials;
    }
    let mut next = Some(source);
    while let Some(error) = next {
        if let Some(rejection) = error.downcast_ref::<LogRejection>() {
            return rejection_cause(*rejection);
        }
        if let Some(error) = error.downcast_ref::<object_store::Error>() {
            return store_cause(error);
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return match io_cause(error) {
                Cause::Damaged if !is_about_directories(error) => Cause::Unavailable,
                cause => cause,
            };
        }
        next = error.source();
    }
    let text = source.to_string();
    match text.split_once("status code: ").map(|(_, status)| status) {
        // Statuses and codes of S3 that do not blame the request for good.
        Some(status)
            if ["429", "408"].iter().any(|code| status.starts_with(code))
                || status.contains("RequestTimeout") =>
        {
            Cause::Unavailable
        }
        // Of a list; of a file the client says it by itself.
        Some(status) if status.starts_with("403") || status.starts_with("401") => Cause::Denied,
        Some(status) if status.starts_with('4') => Cause::Damaged,
        Some(_) => Cause::Unavailable,
        None if ["Out of range", "Invalid range", "Requested range"]
            .iter()
            .any(|start| text.starts_with(start)) =>
        {
            Cause::Damaged
        }
        None => Cause::Unavailable,
    }
}

fn rejection_cause(rejection: LogRejection) -> Cause {
    match rejection {
        LogRejection::Malformed => Cause::Damaged,
        rejection => Cause::Rejected(rejection),
    }
}

fn is_about_directories(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::IsADirectory | std::io::ErrorKind::NotADirectory)
}

fn io_cause(error: &std::io::Error) -> Cause {
    match error.kind() {
        std::io::ErrorKind::NotFound => Cause::Missing,
        std::io::ErrorKind::PermissionDenied => Cause::Denied,
        std::io::ErrorKind::TimedOut
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::ConnectionRefused
        | std::io::ErrorKind::ConnectionAborted
        | std::io::ErrorKind::BrokenPipe
        | std::io::ErrorKind::Interrupted => Cause::Unavailable,
        _ => Cause::Damaged,
    }
}

fn chain_cause(error: &(dyn std::error::Error + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rejection) = error.downcast_ref::<LogRejection>() {
            return rejection_cause(*rejection);
        }
        if let Some(error) = error.downcast_ref::<object_store::Error>() {
            return store_cause(error);
        }
        if let Some(error) = error.downcast_ref::<KernelError>() {
            return cause(error);
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return io_cause(error);
        }
        next = error.source();
    }
    Cause::Damaged
}

/// The error for a recipient: no text of the kernel in the message, all of it in the source.
pub(super) fn failure(error: KernelError) -> Error {
    match cause(&error) {
        Cause::Unavailable => {
            let why = match S3Error::behind(of_store(&error)) {
                Some(answer) => answer.explain(),
                None => format!("the storage of the table does not answer: {}", innermost(of_store(&error))),
            };
            Error::unavailable(UNAVAILABLE).with_explanation(why).explained_by(of_store(&error))
        }
        Cause::NoCredentials => Error::unavailable(UNAVAILABLE).explained_by(of_store(&error)),
        Cause::Changed => Error::unavailable(CHANGED),
        Cause::Denied => explained(&error, Error::unreadable_table(DENIED).with_fault(Fault::AccessDenied)),
        Cause::Storage(kind) => explained(&error, in_storage(kind)),
        Cause::Missing => Error::unreadable_table("The table cannot be read: table files missing."),
        Cause::Unsupported => {
            Error::unsupported("The table uses a Delta feature that this server does not support.")
        }
        Cause::Rejected(rejection) => Error::unreadable_table(rejection.message()),
        Cause::Damaged => return odd_column(error),
    }
    .with_source(error)
}

/// The error for a recipient when S3 says what is wrong.
fn in_storage(kind: S3ErrorKind) -> Error {
    match kind {
        // Credentials of a role are renewed, and clocks are set.
        S3ErrorKind::Expired | S3ErrorKind::Clock => {
            Error::unavailable(UNAVAILABLE).with_fault(Fault::Credentials)
        }
        S3ErrorKind::Busy => Error::unavailable(UNAVAILABLE),
        S3ErrorKind::Unknown | S3ErrorKind::Signature => Error::unreadable_table(
            "The table cannot be read: its storage does not accept the credentials of this server.",
        )
        .with_fault(Fault::Credentials),
        S3ErrorKind::NoBucket | S3ErrorKind::Region => {
            Error::unreadable_table("The table cannot be read: its storage was not found.")
                .with_fault(Fault::Location)
        }
        S3ErrorKind::Archived => {
            Error::unreadable_table("The table cannot be read: files of its log are archived.")
                .with_fault(Fault::Location)
        }
        S3ErrorKind::Denied | S3ErrorKind::Key => {
            Error::unreadable_table(DENIED).with_fault(Fault::AccessDenied)
        }
    }
}

/// Adds what S3 says, with what to do.
fn explained(error: &KernelError, shown: Error) -> Error {
    match S3Error::behind(of_store(error)) {
        Some(answer) => shown.with_explanation(answer.explain()),
        None => shown,
    }
}

/// The error of the object store behind an error of the kernel, which does not name it as its cause; otherwise the
/// innermost one.
fn of_store<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut at = error;
    loop {
        at = match (at.downcast_ref::<KernelError>(), at.source()) {
            (Some(KernelError::ObjectStore(error)), _) => return error,
            (Some(KernelError::Backtraced { source, .. }), _) => source.as_ref(),
            (_, Some(source)) => source,
            (_, None) => return at,
        };
    }
}

const DENIED: &str = "The table cannot be read: permission denied by the table's storage.";

const CHANGED: &str = "The log of the table was changed while it was read. Please restart the query.";

const UNAVAILABLE: &str = "The table's storage does not answer; try again later.";

const DAMAGED: &str = "The table cannot be read: its Delta log is damaged or incomplete.";

/// The error for a location without a log. Whatever the kernel said of it would only say it again.
pub(super) fn no_log() -> Error {
    Error::unreadable_table("The table cannot be read: there is no Delta table at its location.")
        .with_source("it has no _delta_log/ with a version")
}

/// The error for a log that cannot be right. `what` is for the log of this server only.
pub(super) fn damaged(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unreadable_table(DAMAGED).with_source(what)
}

/// The same, with the reason if a column of a checkpoint is not what Delta's protocol says. Spark reads some of these.
fn odd_column(error: KernelError) -> Error {
    let text = error.to_string();
    let reason = if text.contains("Incorrect datatype") {
        "a column of a checkpoint has another type than in Delta's protocol"
    } else if text.contains("field is not nullable") {
        "a checkpoint lacks a column that Delta's protocol requires"
    } else {
        return match without_debug_text(&text) {
            Some(readable) => damaged(readable),
            None => damaged(error),
        };
    };
    Error::unreadable_table(format!("{} ({reason}).", DAMAGED.trim_end_matches('.'))).with_source(error)
}

/// The same text with the names of files in place of what the kernel writes of them for its own developers; `None` where
/// it has nothing of the kind.
fn without_debug_text(text: &str) -> Option<String> {
    const BEGIN: &str = "ParsedLogPath { ";
    let (mut readable, mut rest) = (String::new(), text);
    while let Some((before, file)) = rest.split_once(BEGIN) {
        let (_, name) = file.split_once("filename: \"")?;
        let (name, after) = name.split_once('"')?;
        readable.push_str(before);
        readable.push_str(name);
        // The type of the file comes last, and may have braces of its own.
        let (_, after) = after.split_once("file_type: ")?;
        let mut depth = 0;
        let end = after.find(|character| {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth < 0
        })?;
        rest = after.get(end + 1..)?;
    }
    (!readable.is_empty()).then(|| readable + rest)
}

/// Whether this is the error for a log that cannot be right.
pub(super) fn is_damage(error: &Error) -> bool {
    error.message().starts_with(DAMAGED.trim_end_matches('.'))
}

/// Whether this is the error for a log that was changed while it was read.
pub(super) fn is_change(error: &Error) -> bool {
    error.message() == CHANGED
}

/// Turns a panic into an error like any other: the kernel and the Parquet reader panic on some damaged files.
pub(super) fn unpanicked<T>(run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        damaged(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
    })
}

/// The error for a commit file of no bytes. Spark reads it as a commit of no actions; here it counts as one that was
/// cut off.
pub(super) fn empty_commit() -> Error {
    Error::unreadable_table(
        "The table cannot be read: a commit of its log is empty, as after a write that was cut off.",
    )
}

/// The error for a version that is not in the log. The words are the ones that clients look for.
pub(super) fn not_available(version: u64, range: Option<(u64, u64)>) -> Error {
    Error::invalid(match range {
        Some((earliest, latest)) => format!(
            "Cannot load table version {version}, because it does not exist or is no longer available. The \
             available versions are {earliest} to {latest}."
        ),
        None => format!("Cannot load table version {version}, because it does not exist."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: source.to_owned().into() }
    }

    #[test]
    fn causes_of_the_store() {
        let http =
            |rest: &str| generic(&format!("Error performing GET https://b/orange/status in 1s - {rest}"));
        for (error, expected) in [
            (
                http("Server returned non-2xx status code: 503 Service Unavailable: SlowDown"),
                Cause::Unavailable,
            ),
            (http("Server returned non-2xx status code: 429 Too Many Requests: "), Cause::Unavailable),
            (
                http("Server returned non-2xx status code: 400 Bad Request: <Code>ExpiredToken</Code>"),
                Cause::Storage(S3ErrorKind::Expired),
            ),
            (
                http("Server returned non-2xx status code: 404 Not Found: <Code>NoSuchBucket</Code>"),
                Cause::Storage(S3ErrorKind::NoBucket),
            ),
            (
                http("Server returned non-2xx status code: 403 Forbidden: <Code>InvalidAccessKeyId</Code>"),
                Cause::Storage(S3ErrorKind::Unknown),
            ),
            (
                http("Server returned non-2xx status code: 400 Bad Request: <Code>RequestTimeout</Code>"),
                Cause::Unavailable,
            ),
            (
                http("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>"),
                Cause::Denied,
            ),
            (
                object_store::Error::Precondition { path: "x".to_owned(), source: "changed".into() },
                Cause::Changed,
            ),
            (http("Server returned non-2xx status code: 416 Range Not Satisfiable: "), Cause::Damaged),
            (http("HTTP error: error sending request"), Cause::Unavailable),
            (generic("Out of range of file /x, expected: 1, actual: 2"), Cause::Damaged),
            (
                generic("Invalid range: Wanted range starting at 8, but object was only 3 bytes long"),
                Cause::Damaged,
            ),
        ] {
            assert_eq!(store_cause(&error), expected, "{error}");
        }
        let io = |kind: std::io::ErrorKind| object_store::Error::Generic {
            store: "local",
            source: std::io::Error::from(kind).into(),
        };
        for (kind, expected) in [
            (std::io::ErrorKind::PermissionDenied, Cause::Denied),
            (std::io::ErrorKind::NotFound, Cause::Missing),
            (std::io::ErrorKind::IsADirectory, Cause::Damaged),
            (std::io::ErrorKind::TimedOut, Cause::Unavailable),
            (std::io::ErrorKind::NotConnected, Cause::Unavailable),
        ] {
            assert_eq!(store_cause(&io(kind)), expected, "{kind:?}");
        }
    }

    #[test]
    fn files_of_the_log_are_called_by_their_names() {
        let file = |version: u64, kind: &str| {
            format!(
                "ParsedLogPath {{ location: FileMeta {{ location: Url {{ scheme: \"s3\", host: Some(Domain(\"b\")) }}, \
                 size: 1 }}, filename: \"{version:020}.json\", extension: \"json\", version: {version}, file_type: {kind} }}"
            )
        };
        let text = format!(
            "found gap: {} -> {}.",
            file(1, "Commit"),
            file(3, "MultiPartCheckpoint { part_num: 1, num_parts: 2 }")
        );
        assert_eq!(
            without_debug_text(&text).unwrap(),
            "found gap: 00000000000000000001.json -> 00000000000000000003.json."
        );
        assert_eq!(without_debug_text("Invalid log path"), None);
        assert_eq!(without_debug_text("ParsedLogPath { cut"), None);
    }

    #[test]
    fn wrapped_causes() {
        let wrapped = KernelError::Parquet(ParquetError::External(generic("timed out").into()));
        assert_eq!(cause(&wrapped), Cause::Unavailable);
        let wrapped = KernelError::generic_err(wrapped);
        assert_eq!(cause(&wrapped), Cause::Unavailable);
        assert_eq!(cause(&KernelError::generic("x")), Cause::Damaged);
    }
}
