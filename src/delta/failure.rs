//! From the kernel's errors, which hold URLs and library text, to sentences for recipients.

use std::panic::{AssertUnwindSafe, catch_unwind};

use buoyant_kernel::object_store;
use buoyant_kernel::parquet::errors::ParquetError;

use crate::error::{Error, Result};

type KernelError = buoyant_kernel::Error;

/// Why the kernel could not do something, as far as the difference matters to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The store did not answer, or asked to be called less often.
    Unavailable,
    /// The store refused access.
    Denied,
    /// A file that the log names, or the log itself, is not there.
    Missing,
    /// The table needs what the kernel does not do.
    Unsupported,
    /// Anything else: the log says something that cannot be right.
    Damaged,
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

/// The store's clients hide the status in text. An answer that blames the request (4xx, a range past the
/// end) will be the same next time; everything else may pass.
fn generic_store_cause(source: &(dyn std::error::Error + 'static)) -> Cause {
    let mut next = Some(source);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<object_store::Error>() {
            return store_cause(error);
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return io_cause(error);
        }
        next = error.source();
    }
    let text = source.to_string();
    match text.split_once("status code: ").map(|(_, status)| status) {
        Some(status) if status.starts_with("429") || status.starts_with("408") => Cause::Unavailable,
        Some(status) if status.starts_with('4') => Cause::Damaged,
        Some(_) => Cause::Unavailable,
        None if text.contains("out of range") || text.contains("Range") => Cause::Damaged,
        None => Cause::Unavailable,
    }
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
        Cause::Unavailable => Error::unavailable("The table's storage does not answer; try again later."),
        Cause::Denied => {
            Error::unreadable_table("The table cannot be read: permission denied by the table's storage.")
        }
        Cause::Missing => Error::unreadable_table("The table cannot be read: table files missing."),
        Cause::Unsupported => {
            Error::unsupported("The table uses a Delta feature that this server does not support.")
        }
        Cause::Damaged => return damaged(error),
    }
    .with_source(error)
}

/// The error for a log that cannot be right. `what` is for the log of this server only.
pub(super) fn damaged(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unreadable_table("The table cannot be read: its Delta log is damaged or incomplete.")
        .with_source(what)
}

/// Turns a panic into an error like any other: the kernel and the Parquet reader panic on some damaged files.
pub(super) fn unpanicked<T>(run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        damaged(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
    })
}
