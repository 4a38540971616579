//! "Read Change Data Feed from a Table", and queries with `startingVersion`: the commits of a range.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;

use super::answer::{End, note_files, write_head};
use super::head::{Head, has_change_data_feed, table_features};
use super::lines::{Change as FileChange, FileLines, QueriedVersion};
use super::open::check_history;
use super::pages::{ChangesPlace, Page, Tokens};
use super::stream::{Asked, Streamed};
use super::{Names, Parameters, blocking};
use crate::app::{App, OpenTable};
use crate::auth::{Recipient, SharedTable};
use crate::catalog::TableRecord;
use crate::delta::{Action, Change, ChangeCursor, ChangeKind, ChangeRange, DeltaTable, Metadata, Snapshot};
use crate::error::{Error, Result};
use crate::ndjson::Lines;
use crate::protocol::capabilities::{ResponseFormat, TableFeatures};
use crate::protocol::query::{Bound, ChangesQuery, ChangesRequest, check_range};

/// `GET …/tables/{table}/changes`
pub async fn query_changes(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    Parameters(parameters): Parameters,
    headers: HeaderMap,
) -> Result<Response> {
    let request = ChangesRequest::parse(&parameters)?;
    let SharedTable(record) = SharedTable::find(&app, &recipient, &names).await?;
    if !record.history_shared {
        let (share, schema, table) = (&record.share, &record.schema, &record.name);
        return Err(Error::invalid(format!(
            "cdf is not enabled on table {share}.{schema}.{table}: its provider does not share its history."
        )));
    }
    let asked = Asked::parse(&headers)?;
    let query = request.query()?;
    let tokens = Tokens::new(&app, &recipient, &record);
    let mut page = Page::new(&query.paging, &tokens, query.fingerprint);
    let place = page.begin(&query.paging)?;
    let action = asked.end_stream_action() || page.is_one_of_several();
    let wanted = Wanted {
        kind: ChangeKind::Data,
        historical_metadata: query.include_historical_metadata,
        historical_protocol: query.include_historical_protocol,
    };
    let shared = record.clone();
    let opened = open(&app, &record, wanted, place, move |delta| feed(delta, &shared, &query)).await?;
    respond_changes(&app, &asked, &record, opened, page, End { action, refresh_token: None }).await
}

/// Opens the range of a query with `startingVersion`, or a page of it.
pub(super) async fn open_since(
    app: &App,
    record: &TableRecord,
    (start, end): (u64, Option<u64>),
    historical_protocol: bool,
    place: Option<ChangesPlace>,
) -> Result<OpenChanges> {
    check_history(record)?;
    if start < record.start_version {
        return Err(Error::invalid(format!(
            "You can only query table data since version {}.",
            record.start_version
        )));
    }
    check_range(start, end)?;
    let wanted = Wanted { kind: ChangeKind::Files, historical_metadata: true, historical_protocol };
    open(app, record, wanted, place, move |delta| {
        let newest = delta.latest()?;
        check_start(start, &newest)?;
        // The end is a hint: one that is not there yet is the newest version.
        let end = end.map_or(newest.version(), |end| end.min(newest.version()));
        delta.change_range(&newest, start, end)
    })
    .await
}

/// What is wanted of a range.
#[derive(Clone, Copy)]
struct Wanted {
    kind: ChangeKind,
    historical_metadata: bool,
    historical_protocol: bool,
}

/// A range of versions, opened where the answer begins.
pub(super) struct OpenChanges {
    table: OpenTable,
    changes: ChangeCursor,
    wanted: Wanted,
}

impl OpenChanges {
    /// The version whose protocol and metadata are the head of the answer.
    fn head(&self) -> &Snapshot {
        let range = self.changes.range();
        if self.wanted.historical_metadata { &range.first } else { &range.last }
    }

    /// The reader features of both ends: files of any version of the range are sent.
    pub(super) fn features(&self) -> TableFeatures {
        let range = self.changes.range();
        let mut features = table_features(&range.first);
        let last = table_features(&range.last);
        for (into, from) in [(&mut features.needed, last.needed), (&mut features.left_over, last.left_over)] {
            let new: Vec<_> = from.into_iter().filter(|name| !into.contains(name)).collect();
            into.extend(new);
        }
        features
    }
}

/// `find` finds the range that the request names; the pages after the first one know it.
async fn open(
    app: &App,
    record: &TableRecord,
    wanted: Wanted,
    place: Option<ChangesPlace>,
    find: impl FnOnce(&DeltaTable) -> Result<ChangeRange> + Send + 'static,
) -> Result<OpenChanges> {
    let table = app.open(record)?;
    let delta = table.delta.clone();
    let kind = wanted.kind;
    let changes = blocking(move || {
        let Some(ChangesPlace { bounds, position }) = place else {
            return delta.changes(&Arc::new(find(&delta)?), kind, None);
        };
        if let Some(paused) = delta.resume_changes(bounds, kind, position) {
            return Ok(paused);
        }
        let range = delta.change_range(&delta.latest()?, bounds.start, bounds.end)?;
        delta.changes(&Arc::new(range), kind, Some(position))
    })
    .await?;
    Ok(OpenChanges { table, changes, wanted })
}

fn feed(delta: &DeltaTable, record: &TableRecord, query: &ChangesQuery) -> Result<ChangeRange> {
    let newest = delta.latest()?;
    let start = match query.start {
        Bound::Version(version) => version,
        Bound::Timestamp(millis) => newest.version_at_or_after(millis)?,
    };
    check_start(start, &newest)?;
    let end = match query.end {
        None => newest.version(),
        Some(Bound::Version(version)) => version.min(newest.version()),
        Some(Bound::Timestamp(millis)) => newest.version_as_of(millis)?,
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
    let range = delta.change_range(&newest, start, end)?;
    check_recorded(range.first.metadata(), start, (start, end))?;
    check_recorded(range.last.metadata(), end, (start, end))?;
    Ok(range)
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

/// Streams an opened range, or a page of it.
pub(super) async fn respond_changes(
    app: &App,
    asked: &Asked,
    record: &TableRecord,
    opened: OpenChanges,
    page: Page,
    end: End,
) -> Result<Response> {
    let format = asked.capabilities.negotiate(&opened.features())?;
    let signer = app.storage.signer(&opened.table.location, &opened.table.allowed, Utc::now()).await?;
    let head = Head::new(format, record);
    let lines = FileLines::new(format, asked.id_hash(format), &asked.capabilities, None, signer);
    let streamed = Streamed::new(format, opened.changes.range().bounds().start);
    let answer = ChangesAnswer { opened, head, lines, page, end };
    streamed.respond(asked, move |lines| answer.write(lines)).await
}

/// What is streamed: the head lines, what each commit changed, and the end where it was asked for.
struct ChangesAnswer {
    opened: OpenChanges,
    head: Head,
    lines: FileLines,
    page: Page,
    end: End,
}

impl ChangesAnswer {
    fn write(mut self, lines: &mut Lines) -> Result<()> {
        // What can be known of the first commit is known before the status is sent.
        self.opened.changes.has_more()?;
        let wanted = self.opened.wanted;
        let head = self.opened.head();
        let protocol_version = wanted.historical_protocol.then(|| head.version());
        let head = [
            self.head.protocol(head.protocol(), protocol_version)?,
            self.head.metadata(head.metadata(), head.file_stats(), Some(head.version()))?,
        ];
        self.page.check_head(&head)?;
        write_head(lines, &head)?;
        lines.flush()?;
        let bounds = self.opened.changes.range().bounds();
        let mut bytes = 0;
        while !self.page.is_full(lines.written()) {
            let Some(change) = self.opened.changes.advance()? else { break };
            let Change { version, timestamp, action } = change;
            let (kind, file) = match action {
                Action::Add(file) => (FileChange::Add, file),
                Action::Remove(file) => (FileChange::Remove, file),
                Action::Cdc(file) => (FileChange::Cdc, file),
                Action::Metadata(metadata) => {
                    if wanted.kind == ChangeKind::Data {
                        check_recorded(metadata, version, (bounds.start, bounds.end))?;
                    }
                    if wanted.historical_metadata && version > bounds.start {
                        let line = self.head.metadata(metadata, None, Some(version))?;
                        write_line(lines, &line)?;
                    }
                    continue;
                }
                Action::Protocol(protocol) => {
                    let in_delta = self.head.format == ResponseFormat::Delta;
                    if wanted.historical_protocol && in_delta && version > bounds.start {
                        write_line(lines, &self.head.protocol(protocol, Some(version))?)?;
                    }
                    continue;
                }
            };
            self.lines.set_version(Some(QueriedVersion { version, timestamp: Some(timestamp) }));
            lines.line(|out| self.lines.write_change(kind, file, out))?;
            self.page.count();
            bytes += file.size.unwrap_or_default().unsigned_abs();
        }
        let expires = (self.page.files() > 0).then(|| self.lines.expiration_millis());
        note_files(lines, self.page.files(), bytes, expires);
        let more = self.opened.changes.has_more()?;
        let Some(position) = self.opened.changes.position().filter(|_| more) else {
            return self.end.write(lines, expires, None);
        };
        let next = self.page.next_token(ChangesPlace { bounds, position })?;
        self.opened.table.delta.pause_changes(self.opened.changes);
        self.end.write(lines, expires, Some(&next))
    }
}

fn write_line(lines: &mut Lines, line: &[u8]) -> Result<()> {
    lines.line(|out| {
        out.extend_from_slice(line);
        Ok(())
    })
}
