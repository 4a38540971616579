//! From a request's version or timestamp to a snapshot, within what the provider shares.

use std::sync::Arc;

use crate::app::{App, OpenTable};
use crate::catalog::TableRecord;
use crate::delta::{DeltaTable, Snapshot};
use crate::error::{Error, Result};
use crate::protocol::capabilities::{Capabilities, ResponseFormat};
use crate::protocol::query::AsOf;
use crate::protocol::timestamp::parse_timestamp;

/// A shared table at one version.
pub(super) struct OpenSnapshot {
    /// The table and its places.
    pub(super) table: OpenTable,
    /// The table at that version.
    pub(super) snapshot: Arc<Snapshot>,
}

/// Opens a shared table as of what the request asks for.
///
/// 400 where the request names a version and the provider does not share history, or where the version
/// is older than the oldest one shared.
pub(super) async fn open_snapshot(app: &App, record: &TableRecord, as_of: &AsOf) -> Result<OpenSnapshot> {
    if as_of.is_historical() {
        check_history(record)?;
    }
    if let AsOf::Version(version) = as_of {
        check_start(record, *version)?;
    }
    let table = app.open(record)?;
    let snapshot = snapshot(&table, record, as_of).await?;
    Ok(OpenSnapshot { table, snapshot })
}

/// The form of an answer about one version. Looks into the log only if the answer depends on it.
///
/// 400 with the names of the features that the client would have to know.
pub(super) async fn negotiate(
    capabilities: &Capabilities,
    table: &OpenTable,
    snapshot: &Arc<Snapshot>,
) -> Result<ResponseFormat> {
    let features = snapshot.features();
    if !capabilities.depends_on_vectors(features) {
        return capabilities.negotiate(features);
    }
    let snapshot = Arc::clone(snapshot);
    capabilities.negotiate(&table.run(move |_| snapshot.exact_features()).await?)
}

async fn snapshot(table: &OpenTable, record: &TableRecord, as_of: &AsOf) -> Result<Arc<Snapshot>> {
    match as_of {
        AsOf::Latest => {
            let snapshot = table.latest().await?;
            check_start(record, snapshot.version())?;
            Ok(snapshot)
        }
        AsOf::Version(version) => table.at_version(*version).await,
        AsOf::Timestamp { text } => {
            let millis = parse_timestamp(text)?;
            let newest = table.latest().await?;
            let (record, text) = (record.clone(), text.clone());
            let open = move |delta: &DeltaTable| {
                let version = newest.version_as_of(millis)?;
                check_start_of_timestamp(&record, version, &text)?;
                delta.at_version_of(&newest, version)
            };
            table.run(open).await
        }
    }
}

/// Refuses to look into the past of a table whose history is not shared.
pub(super) fn check_history(record: &TableRecord) -> Result<()> {
    if record.history_shared {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Reading table by version or timestamp is not supported because history sharing is not enabled on table: \
         {}.{}.{}",
        record.share, record.schema, record.name
    )))
}

/// Refuses versions older than the oldest one shared.
pub(super) fn check_start(record: &TableRecord, version: u64) -> Result<()> {
    if version >= record.start_version {
        return Ok(());
    }
    Err(Error::invalid(format!("You can only query table data since version {}.", record.start_version)))
}

/// The same, for a version that a timestamp was resolved to.
pub(super) fn check_start_of_timestamp(record: &TableRecord, version: u64, timestamp: &str) -> Result<()> {
    check_start(record, version).map_err(|_| {
        let timestamp: String = timestamp.chars().take(64).collect();
        Error::invalid(format!(
            "You can only query table data since version {}.The provided timestamp({timestamp}) corresponds to {version}.",
            record.start_version
        ))
    })
}
