//! What the provider learns if a filter shares nothing of a table. The recipient sees a table without files.

use crate::audit;
use crate::auth::SharedTable;
use crate::delta::Metadata;

/// Writes to the log, and to the event of the request, why nothing is shared under this metadata. Does nothing if the
/// filters of the table and the grant fit.
pub(super) fn report_fault(shared: &SharedTable, metadata: &Metadata) {
    let record = shared.record();
    let bound = record.access.bind(metadata.columns());
    let Some(fault) = bound.fault() else { return };
    let table = format!("{}.{}.{}", record.share, record.schema, record.name);
    tracing::error!(
        table,
        filter = fault.filter,
        reason = fault.reason,
        "a filter shares nothing of a table"
    );
    audit::note(|facts| facts.filter_fault = Some(fault.reason.clone()));
}
