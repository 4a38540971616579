//! "Read Change Data Feed from a Table", and queries with `startingVersion`: the commits of a range.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::Utc;

use super::answer::{End, Steps, in_steps, write_head};
use super::head::{Head, has_change_data_feed};
use super::lines::{Change as FileChange, FileLines, QueriedVersion};
use super::open::check_history;
use super::pages::{ChangesPlace, Page, Tokens};
use super::stream::{Asked, Streamed};
use super::{Names, Parameters};
use crate::app::{App, InFlight, Memory, OpenTable};
use crate::auth::{Recipient, SharedTable};
use crate::catalog::TableRecord;
use crate::delta::{
    Action, Change, ChangeBounds, ChangeCursor, ChangeKind, ChangeRange, DeltaTable, Metadata, Snapshot,
    Survey,
};
use crate::error::{Error, Result};
use crate::ndjson::{Lines, Progress};
use crate::protocol::capabilities::{Capabilities, ResponseFormat};
use crate::protocol::query::{Bound, ChangesQuery, ChangesRequest, check_range};
use crate::storage::FileSigner;

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
    let in_flight = app.begin_answer(recipient.name())?;
    let tokens = Tokens::new(&app, &recipient, &record);
    let mut page = Page::new(&query.paging, &tokens, query.fingerprint);
    let place: Option<ChangesPlace> = page.begin(&query.paging)?;
    // The first page was asked for when the provider may have shared more.
    place.as_ref().map_or(Ok(()), |place| check_shared(&record, place.bounds.start))?;
    let action = asked.end_stream_action() || page.is_one_of_several();
    let wanted = Wanted {
        kind: ChangeKind::Data,
        historical_metadata: query.include_historical_metadata,
        historical_protocol: query.include_historical_protocol,
    };
    let shared = record.clone();
    let find = move |delta: &DeltaTable, newest: &Arc<Snapshot>| feed(delta, newest, &shared, &query);
    let opened = open(&app, &record, wanted, place, find).await?;
    let end = End { action, refresh_token: None };
    respond_changes(&app, &asked, &record, opened, page, end, in_flight).await
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
    open(app, record, wanted, place, move |delta, newest| {
        check_start(start, newest)?;
        // The end is a hint: one that is not there yet is the newest version.
        let end = end.map_or(newest.version(), |end| end.min(newest.version()));
        delta.change_range(newest, start, end)
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
    range: Arc<ChangeRange>,
    wanted: Wanted,
    begin: Begin,
}

/// Where an answer begins.
enum Begin {
    /// At the start of the range, of which only the ends were looked at.
    Start,
    /// Where another page ended.
    At(ChangesPlace),
    /// The same, with what was kept of it.
    Paused(ChangesPlace, Box<ChangeCursor>),
}

/// A range of versions of which nothing that the log says is in the way of an answer.
pub(super) struct CheckedChanges {
    /// The form of the answer.
    pub(super) format: ResponseFormat,
    table: OpenTable,
    range: Arc<ChangeRange>,
    wanted: Wanted,
    changes: ChangeCursor,
    completed: bool,
    signer: FileSigner,
    /// The version whose metadata is in force where the answer begins.
    metadata: Arc<Snapshot>,
}

/// `find` finds the range that the request names; the pages after the first one know it.
async fn open(
    app: &App,
    record: &TableRecord,
    wanted: Wanted,
    place: Option<ChangesPlace>,
    find: impl FnOnce(&DeltaTable, &Arc<Snapshot>) -> Result<ChangeRange> + Send + 'static,
) -> Result<OpenChanges> {
    let table = app.open(record)?;
    let (kind, paused) = (wanted.kind, place.as_ref().map(|place| (place.bounds, place.position)));
    let resume = |(bounds, position)| table.delta().resume_changes(bounds, kind, position);
    let (range, begin) = match (place, paused.and_then(resume)) {
        (Some(place), Some(paused)) => (Arc::clone(paused.range()), Begin::Paused(place, Box::new(paused))),
        (Some(place), None) => {
            let (newest, bounds) = (table.latest().await?, place.bounds);
            let range = table.run(move |delta| delta.change_range(&newest, bounds.start, bounds.end));
            (Arc::new(range.await?), Begin::At(place))
        }
        (None, _) => {
            let newest = table.latest().await?;
            (Arc::new(table.run(move |delta| find(delta, &newest)).await?), Begin::Start)
        }
    };
    Ok(OpenChanges { table, range, wanted, begin })
}

impl OpenChanges {
    /// Reads what the answer needs to be certain of, in every version of the range: the first page reads every commit,
    /// a later one has the word of the page before it. `format` is the form of that page.
    ///
    /// 400 with what the log says that stands in the way.
    pub(super) async fn check(
        self,
        app: &App,
        asked: &Asked,
        format: Option<ResponseFormat>,
    ) -> Result<CheckedChanges> {
        let Self { table, range, mut wanted, begin } = self;
        let mut metadata = range.bounds().start;
        if let Begin::At(place) | Begin::Paused(place, _) = &begin {
            wanted.historical_metadata |= place.historical_metadata;
            metadata = place.metadata;
        }
        let mut signer = app.storage.signer(&table.location, &table.allowed, Utc::now()).await?;
        let (of, capabilities) = (table.clone(), asked.capabilities.clone());
        of.run(move |delta| {
            let survey = |position, signer: &mut FileSigner| {
                let bounds = range.bounds();
                let mut check = |change: &Change<'_>| check_change(change, wanted.kind, bounds, signer);
                delta.survey(&range, wanted.kind, position, &mut check)
            };
            let (format, changes, completed) = match (begin, format) {
                (Begin::Paused(place, changes), Some(format)) => (format, *changes, place.completed),
                (Begin::At(place), Some(format)) if !place.completed => {
                    (format, delta.changes_from(&range, wanted.kind, place.position)?, false)
                }
                (Begin::At(place), Some(format)) => {
                    (format, survey(Some(place.position), &mut signer)?.changes, true)
                }
                (Begin::Start | Begin::At(_) | Begin::Paused(..), _) => {
                    let found = survey(None, &mut signer)?;
                    // With the metadata of one version only, columns of the files of others would be null.
                    wanted.historical_metadata |= found.remapped;
                    (negotiate(&capabilities, wanted.kind, &found)?, found.changes, found.completed)
                }
            };
            let metadata = match [&range.first, &range.last].into_iter().find(|end| end.version() == metadata)
            {
                Some(end) => Arc::clone(end),
                None => delta.at_version(metadata)?,
            };
            Ok(CheckedChanges { format, table, range, wanted, changes, completed, signer, metadata })
        })
        .await
    }
}

/// The form of an answer about a range. A client that replays a change data feed has one set of partition columns, so
/// that a feed in which they change is right in parquet format only.
fn negotiate(capabilities: &Capabilities, kind: ChangeKind, found: &Survey) -> Result<ResponseFormat> {
    let format = capabilities.negotiate(&found.features)?;
    if format == ResponseFormat::Parquet || kind != ChangeKind::Data || !found.repartitioned {
        return Ok(format);
    }
    if found.features.used.is_empty() && capabilities.accepts(ResponseFormat::Parquet) {
        return Ok(ResponseFormat::Parquet);
    }
    Err(Error::unsupported(
        "The partition columns of the table change within the range, which a change data feed in delta format cannot \
         carry. Read the versions before and after that separately.",
    ))
}

/// Whether a change can be sent. Its files must be ones that this server hands out, and the change data feed must be
/// on.
fn check_change(
    change: &Change<'_>,
    kind: ChangeKind,
    bounds: ChangeBounds,
    signer: &mut FileSigner,
) -> Result<()> {
    match change.action {
        Action::Add(file) | Action::Remove(file) | Action::Cdc(file) => {
            signer.check(&file.path)?;
            let mut scratch = String::new();
            match file.deletion_vector() {
                Some(vector) => vector.log_path(&mut scratch)?.map_or(Ok(()), |path| signer.check(path)),
                None => Ok(()),
            }
        }
        Action::Metadata(metadata) if kind == ChangeKind::Data => {
            check_recorded(metadata, change.version, (bounds.start, bounds.end))
        }
        Action::Metadata(_) | Action::Protocol(_) => Ok(()),
    }
}

fn feed(
    delta: &DeltaTable,
    newest: &Arc<Snapshot>,
    record: &TableRecord,
    query: &ChangesQuery,
) -> Result<ChangeRange> {
    let start = match query.start {
        Bound::Version(version) => version,
        Bound::Timestamp(millis) => newest.version_at_or_after(millis)?,
    };
    check_start(start, newest)?;
    let end = match query.end {
        None => newest.version(),
        Some(Bound::Version(version)) => version.min(newest.version()),
        Some(Bound::Timestamp(millis)) => newest.version_up_to(millis)?,
    };
    if end < start {
        return Err(Error::invalid(format!(
            "CDF range from start {start} to end {end} was invalid. End cannot be before start."
        )));
    }
    check_shared(record, start)?;
    let range = delta.change_range(newest, start, end)?;
    check_recorded(range.first.metadata(), start, (start, end))?;
    check_recorded(range.last.metadata(), end, (start, end))?;
    Ok(range)
}

/// Refuses a range that begins before the oldest version shared.
fn check_shared(record: &TableRecord, start: u64) -> Result<()> {
    if start >= record.start_version {
        return Ok(());
    }
    Err(Error::invalid(format!("You can only query table changes since version {}.", record.start_version)))
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
    in_flight: InFlight,
) -> Result<Response> {
    let format = page.format(&asked.capabilities)?;
    let checked = opened.check(app, asked, format).await?;
    let CheckedChanges { format, table, range, wanted, changes, completed, signer, metadata } = checked;
    let head = Head::new(format, record);
    let head = if wanted.kind == ChangeKind::Data { head.of_feed() } else { head };
    let mut lines = FileLines::new(format, asked.id_hash(format), &asked.capabilities, None, signer);
    lines.set_partition_columns(metadata.schema(), &metadata.metadata().partition_columns);
    let metadata = metadata.version();
    let streamed = Streamed::new(format, range.bounds().start);
    let answer = ChangesAnswer {
        table: table.delta().clone(),
        range,
        wanted,
        changes,
        completed,
        metadata,
        head,
        lines,
        memory: in_flight.memory(),
        page,
        end,
    };
    streamed.respond(asked, table.lane(), in_flight, in_steps(answer)).await
}

/// What is streamed: the head lines, what each commit changed, and the end if it was asked for.
struct ChangesAnswer {
    table: DeltaTable,
    range: Arc<ChangeRange>,
    wanted: Wanted,
    changes: ChangeCursor,
    completed: bool,
    /// The version whose metadata is in force.
    metadata: u64,
    head: Head,
    lines: FileLines,
    /// The account of what the cursor holds.
    memory: Memory,
    page: Page,
    end: End,
}

impl ChangesAnswer {
    /// The first two lines. Those of "Read Change Data Feed" are of the last version, unless the client asks for the
    /// metadata of every version.
    fn head(&self) -> Result<[Vec<u8>; 2]> {
        let of = if self.wanted.historical_metadata { &self.range.first } else { &self.range.last };
        let version = Some(of.version());
        let protocol = self.head.protocol_of(of, version.filter(|_| self.wanted.historical_protocol))?;
        Ok([protocol, self.head.metadata(of.metadata(), None, version)?])
    }
}

/// Writes the answer in one pass over what was kept of the log.
impl Steps for ChangesAnswer {
    fn begin(&mut self, lines: &mut Lines) -> Result<()> {
        let head = self.head()?;
        self.page.check_head(&head)?;
        write_head(lines, &head)?;
        lines.flush()
    }

    fn go_on(&mut self, lines: &mut Lines) -> Result<Progress> {
        let bounds = self.range.bounds();
        while !self.page.is_full(lines.written()) {
            // Before a pause, in which what is held counts.
            self.memory.hold(self.changes.held_bytes())?;
            if lines.should_pause() {
                return Ok(Progress::Paused);
            }
            let Some(change) = self.changes.advance()? else { break };
            let Change { version, timestamp, action } = change;
            let (kind, file) = match action {
                Action::Add(file) => (FileChange::Add, file),
                Action::Remove(file) => (FileChange::Remove, file),
                Action::Cdc(file) => (FileChange::Cdc, file),
                Action::Metadata(metadata) => {
                    self.lines.set_partition_columns(&metadata.schema()?, &metadata.partition_columns);
                    self.metadata = version;
                    if self.wanted.historical_metadata && version > bounds.start {
                        let line = self.head.metadata(metadata, None, Some(version))?;
                        write_line(lines, &line)?;
                    }
                    continue;
                }
                Action::Protocol(protocol) => {
                    let in_delta = self.head.format == ResponseFormat::Delta;
                    if self.wanted.historical_protocol && in_delta && version > bounds.start {
                        write_line(lines, &self.head.protocol(protocol, Some(version))?)?;
                    }
                    continue;
                }
            };
            self.lines.set_version(Some(QueriedVersion { version, timestamp: Some(timestamp) }));
            let (bytes, until) =
                (file.size.unwrap_or_default().unsigned_abs(), self.lines.expiration_millis());
            lines.file(bytes, until, |out| self.lines.write_change(kind, file, out))?;
            self.page.count();
        }
        Ok(Progress::Whole)
    }

    fn end(mut self, lines: &mut Lines) -> Result<()> {
        let bounds = self.range.bounds();
        let expires = (self.page.files() > 0).then(|| self.lines.expiration_millis());
        let more = self.changes.has_more()?;
        let Some(position) = self.changes.position().filter(|_| more) else {
            return self.end.write(lines, expires, None);
        };
        let historical_metadata = self.wanted.historical_metadata;
        let (completed, metadata) = (self.completed, self.metadata);
        let place = ChangesPlace { bounds, position, completed, metadata, historical_metadata };
        let next = self.page.next_token(self.head.format, place)?;
        self.table.pause_changes(self.changes);
        self.end.write(lines, expires, Some(&next))
    }
}

fn write_line(lines: &mut Lines, line: &[u8]) -> Result<()> {
    lines.line(|out| {
        out.extend_from_slice(line);
        Ok(())
    })
}
