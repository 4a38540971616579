//! "Read Change Data Feed from a Table", and queries with `startingVersion`: the commits of a range.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;

use super::head::{Head, has_change_data_feed, table_features};
use super::lines::{Change, FileLines, QueriedVersion};
use super::open::check_history;
use super::stream::{Asked, Streamed};
use super::{Names, Parameters, blocking};
use crate::app::{App, OpenTable};
use crate::auth::{Recipient, SharedTable};
use crate::catalog::TableRecord;
use crate::delta::{Action, Commit, DeltaTable, Metadata, Snapshot};
use crate::error::{Error, Result};
use crate::ndjson::Lines;
use crate::protocol::capabilities::TableFeatures;
use crate::protocol::query::{Bound, ChangesQuery};

/// `GET …/tables/{table}/changes`
pub async fn query_changes(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Result<Response> {
    let asked = Asked::parse(&headers)?;
    let query = ChangesQuery::parse(&parameters)?;
    let SharedTable(record) = SharedTable::find(&app, &recipient, &names).await?;
    if !record.history_shared {
        let (share, schema, table) = (&record.share, &record.schema, &record.name);
        return Err(Error::invalid(format!("cdf is not enabled on table {share}.{schema}.{table}")));
    }
    let table = app.open(&record)?;
    let delta = table.delta.clone();
    let shared = record.clone();
    let range = blocking(move || feed(&delta, &shared, &query)).await?;
    respond(&app, &asked, table, &record, range).await
}

/// The answer to a query with `startingVersion`.
pub(super) async fn query_since(
    app: &App,
    asked: &Asked,
    SharedTable(record): SharedTable,
    start: u64,
    end: Option<u64>,
    historical_protocol: bool,
) -> Result<Response> {
    check_history(&record)?;
    if start < record.start_version {
        return Err(Error::invalid(format!(
            "You can only query table data since version {}.",
            record.start_version
        )));
    }
    let table = app.open(&record)?;
    let delta = table.delta.clone();
    let range = blocking(move || {
        let newest = delta.latest()?;
        check_start(start, &newest)?;
        // The end is a hint: one that is not there yet is the newest version.
        let end = end.map_or(newest.version(), |end| end.min(newest.version()));
        let head = delta.at_version(start)?;
        let last = delta.at_version(end)?;
        Ok(Range {
            newest,
            head,
            last,
            start,
            end,
            feed: false,
            historical_metadata: true,
            historical_protocol,
        })
    })
    .await?;
    respond(app, asked, table, &record, range).await
}

/// A range of versions, opened.
struct Range {
    newest: Arc<Snapshot>,
    /// The version whose protocol and metadata are the head of the answer.
    head: Arc<Snapshot>,
    /// The version at the end.
    last: Arc<Snapshot>,
    start: u64,
    end: u64,
    /// Whether change data is wanted, rather than files added and removed.
    feed: bool,
    historical_metadata: bool,
    historical_protocol: bool,
}

fn feed(delta: &DeltaTable, record: &TableRecord, query: &ChangesQuery) -> Result<Range> {
    let newest = delta.latest()?;
    let start = match query.start {
        Bound::Version(version) => version,
        Bound::Timestamp(millis) => delta.version_at_or_after(millis)?,
    };
    check_start(start, &newest)?;
    let end = match query.end {
        None => newest.version(),
        Some(Bound::Version(version)) => version.min(newest.version()),
        Some(Bound::Timestamp(millis)) => delta.version_as_of(millis)?,
    };
    if end < start {
        return Err(Error::invalid(format!(
            "CDF range from start {start} to end {end} was invalid. End cannot be before start."
        )));
    }
    if start < record.start_version {
        return Err(Error::invalid(format!(
            "You can only query table changes since version {}.",
            record.start_version
        )));
    }
    let first = delta.at_version(start)?;
    let last = delta.at_version(end)?;
    check_recorded(first.metadata(), start, (start, end))?;
    check_recorded(last.metadata(), end, (start, end))?;
    let head = Arc::clone(if query.include_historical_metadata { &first } else { &last });
    Ok(Range {
        newest,
        head,
        last,
        start,
        end,
        feed: true,
        historical_metadata: query.include_historical_metadata,
        historical_protocol: query.include_historical_protocol,
    })
}

fn check_start(start: u64, newest: &Snapshot) -> Result<()> {
    let newest = newest.version();
    if start <= newest {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Provided Start version({start}) for reading change data is invalid. Start version cannot be greater than \
         the latest version of the table({newest})."
    )))
}

fn check_recorded(metadata: &Metadata, version: u64, (start, end): (u64, u64)) -> Result<()> {
    if has_change_data_feed(metadata) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Error getting change data for range [{start}, {end}] as change data was not recorded for version [{version}]"
    )))
}

async fn respond(
    app: &App,
    asked: &Asked,
    table: OpenTable,
    record: &TableRecord,
    range: Range,
) -> Result<Response> {
    // Files of any version of the range are sent, so the client must know what either end of it needs.
    let mut features = table_features(&range.head);
    let last = table_features(&range.last);
    merge(&mut features, last);
    let format = asked.capabilities.negotiate(&features)?;
    let signer = app.storage.signer(&table.location, &table.allowed, Utc::now()).await?;
    let head = Head { format, history_shared: record.history_shared };
    let files = FileLines::new(format, asked.id_hash(format), &asked.capabilities, None, signer);
    let streamed = Streamed { format, version: range.start, end_stream_action: asked.end_stream_action() };
    let changes =
        Changes { delta: table.delta, range, head, files, end_stream_action: streamed.end_stream_action };
    streamed.respond(asked, move |lines| changes.write(lines)).await
}

fn merge(features: &mut TableFeatures, more: TableFeatures) {
    for (into, from) in [(&mut features.needed, more.needed), (&mut features.left_over, more.left_over)] {
        let new: Vec<_> = from.into_iter().filter(|name| !into.contains(name)).collect();
        into.extend(new);
    }
}

/// What is streamed: the head lines, what each commit changed, and the end where it was asked for.
struct Changes {
    delta: DeltaTable,
    range: Range,
    head: Head,
    files: FileLines,
    end_stream_action: bool,
}

impl Changes {
    fn write(mut self, lines: &mut Lines) -> Result<()> {
        let Range { head, start, end, historical_protocol, .. } = &self.range;
        let (start, end) = (*start, *end);
        let protocol_version = historical_protocol.then(|| head.version());
        let protocol = self.head.protocol(head.protocol(), protocol_version)?;
        let metadata = self.head.metadata(head.metadata(), head.file_stats(), Some(head.version()))?;
        for head in [protocol, metadata] {
            lines.line(|out| {
                out.extend_from_slice(&head);
                Ok(())
            })?;
        }
        let mut any = false;
        for commit in self.delta.changes(&self.range.newest, start, end)? {
            any |= self.commit(commit?, lines)?;
            lines.flush()?;
        }
        if self.end_stream_action {
            super::answer::write_end(lines, any.then(|| self.files.expiration_millis()))?;
        }
        Ok(())
    }

    /// Writes the changes of one commit; whether there was a file among them.
    fn commit(&mut self, commit: Commit, lines: &mut Lines) -> Result<bool> {
        let (version, timestamp) = (commit.version, commit.timestamp);
        let Range { start, end, feed, historical_metadata, historical_protocol, .. } = self.range;
        self.files.set_version(Some(QueriedVersion { version, timestamp: Some(timestamp) }));
        let actions: Box<dyn Iterator<Item = Action>> =
            if feed { Box::new(commit.change_data()) } else { Box::new(commit.file_changes()) };
        let mut any = false;
        for action in actions {
            let (change, file) = match &action {
                Action::Add(file) => (Change::Add, file),
                Action::Remove(file) => (Change::Remove, file),
                Action::Cdc(file) => (Change::Cdc, file),
                Action::Metadata(metadata) => {
                    if feed {
                        check_recorded(metadata, version, (start, end))?;
                    }
                    if historical_metadata && version > start {
                        let line = self.head.metadata(metadata, None, Some(version))?;
                        lines.line(|out| {
                            out.extend_from_slice(&line);
                            Ok(())
                        })?;
                    }
                    continue;
                }
                Action::Protocol(protocol) => {
                    let wanted = historical_protocol
                        && self.head.format == crate::protocol::capabilities::ResponseFormat::Delta;
                    if wanted && version > start {
                        let line = self.head.protocol(protocol, Some(version))?;
                        lines.line(|out| {
                            out.extend_from_slice(&line);
                            Ok(())
                        })?;
                    }
                    continue;
                }
            };
            lines.line(|out| self.files.write_change(change, file, out))?;
            any = true;
        }
        Ok(any)
    }
}
