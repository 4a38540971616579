//! "Read Change Data Feed from a Table", and queries with `startingVersion`: from the range that a request asks for,
//! within what the provider shares, to the changes of its commits.

use std::sync::Arc;

use super::access::report_fault;
use super::file_line::{FileAction, FileLineWriter, QueriedVersion, granted_bytes};
use super::head::Head;
use super::page::ChangesPlace;
use super::replay::has_change_data_feed;
use super::writer::{LineCursor, Step};
use crate::app::{App, OpenTable};
use crate::auth::SharedTable;
use crate::delta::{
    Action, Change, ChangeBounds, ChangeCursor, ChangeKind, ChangeRange, DeltaTable, Metadata, Snapshot,
    Survey,
};
use crate::error::{Error, Result};
use crate::ndjson::Lines;
use crate::protocol::capabilities::{Capabilities, FileIdHash, ResponseFormat};
use crate::protocol::query::{Bound, ChangesQuery, SinceQuery, check_range};
use crate::storage::FileSigner;

/// What is wanted of a range.
#[derive(Clone, Copy)]
struct WantedChanges {
    kind: ChangeKind,
    historical_metadata: bool,
    historical_protocol: bool,
}

/// A range of versions, opened for an answer or for a page of it.
pub struct OpenRange {
    table: OpenTable,
    range: Arc<ChangeRange>,
    wanted: WantedChanges,
    begin: RangeStart,
}

/// The place at which an answer begins.
enum RangeStart {
    /// At the start of the range, of which only the ends were looked at.
    Start,
    /// Where another page ended.
    At(ChangesPlace),
    /// The same, with what was kept of it.
    Paused(ChangesPlace, Box<ChangeCursor>),
}

/// A range of versions of which nothing that the log says is in the way of an answer.
pub struct CheckedRange {
    /// The form of the answer.
    pub format: ResponseFormat,
    /// The table and its locations.
    pub table: OpenTable,
    range: Arc<ChangeRange>,
    wanted: WantedChanges,
    changes: ChangeCursor,
    completed: bool,
    signer: FileSigner,
    /// The version whose metadata is in force at the start of the answer.
    metadata: Arc<Snapshot>,
}

impl OpenRange {
    /// Opens the range of a change data feed, or a page of it.
    ///
    /// 400 if the provider does not share history, or does not share it from the first version on, if the range is not
    /// one of the table, or if its ends do not record change data.
    pub async fn feed(
        app: &App,
        shared: &SharedTable,
        query: ChangesQuery,
        place: Option<ChangesPlace>,
    ) -> Result<Self> {
        // The first page may be from a time when the provider shared more.
        place.as_ref().map_or(Ok(()), |place| shared.check_start_of_changes(place.bounds.start))?;
        let wanted = WantedChanges {
            kind: ChangeKind::Data,
            historical_metadata: query.include_historical_metadata,
            historical_protocol: query.include_historical_protocol,
        };
        let of = shared.clone();
        Self::open(app, shared, wanted, place, move |delta, newest| feed(delta, newest, &of, &query)).await
    }

    /// Opens the range of a query with `startingVersion`, or a page of it.
    pub async fn since(
        app: &App,
        shared: &SharedTable,
        query: &SinceQuery,
        place: Option<ChangesPlace>,
    ) -> Result<Self> {
        let (start, end) = (query.starting_version, query.ending_version);
        shared.check_history()?;
        shared.check_start(start)?;
        check_range(start, end)?;
        let wanted = WantedChanges {
            kind: ChangeKind::Files,
            historical_metadata: true,
            historical_protocol: query.include_historical_protocol,
        };
        Self::open(app, shared, wanted, place, move |delta, newest| {
            check_start(start, newest)?;
            // The end is a hint: one that is not there yet is the newest version.
            let end = end.map_or(newest.version(), |end| end.min(newest.version()));
            delta.change_range(newest, start, end)
        })
        .await
    }

    /// `find` finds the range that the request names; the pages after the first one know it.
    async fn open(
        app: &App,
        shared: &SharedTable,
        wanted: WantedChanges,
        place: Option<ChangesPlace>,
        find: impl FnOnce(&DeltaTable, &Arc<Snapshot>) -> Result<ChangeRange> + Send + 'static,
    ) -> Result<Self> {
        let table = app.open(shared)?;
        let (kind, paused) = (wanted.kind, place.as_ref().map(|place| (place.bounds, place.position)));
        let resume = |(bounds, position)| table.delta().resume_changes(bounds, kind, position);
        let (range, begin) = match (place, paused.and_then(resume)) {
            (Some(place), Some(paused)) => {
                (Arc::clone(paused.range()), RangeStart::Paused(place, Box::new(paused)))
            }
            (Some(place), None) => {
                let (newest, bounds) = (table.latest().await?, place.bounds);
                let range = table.run(move |delta| delta.change_range(&newest, bounds.start, bounds.end));
                (Arc::new(range.await?), RangeStart::At(place))
            }
            (None, _) => {
                let newest = table.latest().await?;
                (Arc::new(table.run(move |delta| find(delta, &newest)).await?), RangeStart::Start)
            }
        };
        // What fits is the same in every version of the range, or the survey refuses it.
        report_fault(shared, range.first.metadata());
        Ok(Self { table, range, wanted, begin })
    }

    /// Checks every version of the range. The first page reads every commit; later pages rely on that check, and `format`
    /// is the form of the first one.
    ///
    /// 400 with the reason if the log has something that an answer cannot carry.
    pub async fn check(
        self,
        app: &App,
        capabilities: &Capabilities,
        format: Option<ResponseFormat>,
    ) -> Result<CheckedRange> {
        let Self { table, range, mut wanted, begin } = self;
        let mut metadata = range.bounds().start;
        if let RangeStart::At(place) | RangeStart::Paused(place, _) = &begin {
            wanted.historical_metadata |= place.historical_metadata;
            metadata = place.metadata;
        }
        let mut signer = app.signer(&table).await?;
        let (of, capabilities) = (table.clone(), capabilities.clone());
        of.run(move |delta| {
            let survey = |position, signer: &mut FileSigner| {
                let bounds = range.bounds();
                let mut check = |change: &Change<'_>| check_change(change, wanted.kind, bounds, signer);
                delta.survey(&range, wanted.kind, position, &mut check)
            };
            let (format, changes, completed) = match (begin, format) {
                (RangeStart::Paused(place, changes), Some(format)) => (format, *changes, place.completed),
                (RangeStart::At(place), Some(format)) if !place.completed => {
                    (format, delta.changes_from(&range, wanted.kind, place.position)?, false)
                }
                (RangeStart::At(place), Some(format)) => {
                    (format, survey(Some(place.position), &mut signer)?.changes, true)
                }
                (RangeStart::Start | RangeStart::At(_) | RangeStart::Paused(..), _) => {
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
            Ok(CheckedRange { format, table, range, wanted, changes, completed, signer, metadata })
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
    shared: &SharedTable,
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
    shared.check_start_of_changes(start)?;
    let range = delta.change_range(newest, start, end)?;
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

impl CheckedRange {
    /// The first version of the range.
    pub fn first_version(&self) -> u64 {
        self.range.bounds().start
    }

    /// What an answer with these changes is written from.
    pub fn into_lines(
        self,
        shared: &SharedTable,
        id_hash: FileIdHash,
        capabilities: &Capabilities,
    ) -> RangeLines {
        let Self { format, table, range, wanted, changes, completed, signer, metadata } = self;
        let head = Head::new(format, shared.record());
        let head = if wanted.kind == ChangeKind::Data { head.of_feed() } else { head };
        let mut lines = FileLineWriter::new(format, id_hash, capabilities, None, signer);
        lines.set_partition_columns(metadata.schema(), &metadata.metadata().partition_columns);
        let metadata = metadata.version();
        RangeLines { table: table.delta().clone(), range, wanted, changes, completed, metadata, head, lines }
    }
}

/// The lines of the changes of a range, read in one pass over what was kept of the log.
pub struct RangeLines {
    table: DeltaTable,
    range: Arc<ChangeRange>,
    wanted: WantedChanges,
    changes: ChangeCursor,
    completed: bool,
    /// The version whose metadata is in force.
    metadata: u64,
    head: Head,
    lines: FileLineWriter,
}

impl LineCursor for RangeLines {
    type Place = ChangesPlace;

    const FIRST_FILES: u64 = 0;

    /// The head of "Read Change Data Feed" is of the last version, unless the client asks for the metadata of every
    /// version.
    fn head(&mut self) -> Result<[Vec<u8>; 2]> {
        let of = if self.wanted.historical_metadata { &self.range.first } else { &self.range.last };
        let version = Some(of.version());
        let protocol = self.head.protocol_of(of, version.filter(|_| self.wanted.historical_protocol))?;
        Ok([protocol, self.head.metadata(of.metadata(), None, version)?])
    }

    fn write_next(&mut self, lines: &mut Lines) -> Result<Step> {
        let Some(Change { version, timestamp, action }) = self.changes.advance()? else {
            return Ok(Step::End);
        };
        let after_head = version > self.range.bounds().start;
        let (kind, file) = match action {
            Action::Add(file) => (FileAction::Add, file),
            Action::Remove(file) => (FileAction::Remove, file),
            Action::Cdc(file) => (FileAction::Cdc, file),
            Action::Metadata(metadata) => {
                self.lines.set_partition_columns(&metadata.schema()?, &metadata.partition_columns);
                self.metadata = version;
                if self.wanted.historical_metadata && after_head {
                    lines.copy(&self.head.metadata(metadata, None, Some(version))?)?;
                }
                return Ok(Step::Other);
            }
            Action::Protocol(protocol) => {
                let in_delta = self.head.format == ResponseFormat::Delta;
                if self.wanted.historical_protocol && in_delta && after_head {
                    lines.copy(&self.head.protocol(protocol, Some(version))?)?;
                }
                return Ok(Step::Other);
            }
        };
        self.lines.set_version(Some(QueriedVersion { version, timestamp: Some(timestamp) }));
        let bytes = granted_bytes(file.size.unwrap_or_default(), file.deletion_vector().as_ref());
        let until = self.lines.expiration_millis();
        lines.file(bytes, until, |out| self.lines.write_change(kind, file, out))?;
        Ok(Step::File)
    }

    fn held_bytes(&self) -> usize {
        self.changes.held_bytes()
    }

    fn lines(&self) -> &FileLineWriter {
        &self.lines
    }

    fn next_place(&mut self) -> Result<Option<ChangesPlace>> {
        let more = self.changes.has_more()?;
        let position = self.changes.position().filter(|_| more);
        Ok(position.map(|position| ChangesPlace {
            bounds: self.range.bounds(),
            position,
            completed: self.completed,
            metadata: self.metadata,
            historical_metadata: self.wanted.historical_metadata,
        }))
    }

    fn pause(self) {
        self.table.pause_changes(self.changes);
    }
}
