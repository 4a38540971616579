//! "Read Data from a Table" and "Query Table Metadata": from the version that a request asks for, within what the
//! provider shares, to its files.

use std::sync::Arc;

use super::access::report_fault;
use super::file_line::{FileLineWriter, QueriedVersion, granted_bytes};
use super::head::Head;
use super::page::FilesPlace;
use super::skipping::{ParsedHints, Skipping};
use super::tokens::RefreshClaims;
use super::writer::{LineCursor, Step};
use crate::app::{App, OpenTable};
use crate::auth::SharedTable;
use crate::delta::{DeltaTable, FileCursor, FileStats, NextReads, SELECTION_RULES, Snapshot};
use crate::error::{Error, Result};
use crate::ndjson::Lines;
use crate::protocol::capabilities::{Capabilities, FileIdHash, ResponseFormat};
use crate::protocol::query::{AsOf, Hints, SnapshotQuery};
use crate::protocol::timestamp::parse_timestamp;
use crate::storage::FileSigner;

/// A shared table at one version.
pub struct OpenVersion {
    /// The table and its locations.
    pub table: OpenTable,
    /// The table at that version.
    pub snapshot: Arc<Snapshot>,
}

impl OpenVersion {
    /// Opens a shared table as of what a request asks for. `next` is what the answer has of the newest version, if that is asked for.
    ///
    /// 400 if the request names a version and the provider does not share history, or if the version is older than the
    /// oldest one shared.
    pub async fn open(app: &App, shared: &SharedTable, as_of: &AsOf, next: NextReads) -> Result<Self> {
        check_as_of(shared, as_of)?;
        if let AsOf::Version(version) = as_of {
            shared.check_start(*version)?;
        }
        let table = app.open(shared)?.to_read(match as_of {
            AsOf::Latest => next,
            AsOf::Version(_) | AsOf::Timestamp { .. } => NextReads::default(),
        });
        let snapshot = match as_of {
            AsOf::Latest => {
                let snapshot = table.latest().await?;
                shared.check_start(snapshot.version())?;
                snapshot
            }
            AsOf::Version(version) => table.at_version(*version).await?,
            AsOf::Timestamp { text } => at_timestamp(&table, shared, text).await?,
        };
        report_fault(shared, snapshot.metadata());
        Ok(Self { table, snapshot })
    }

    /// Opens the version that a refresh token names. 400 if it is no longer shared, or if the table was created again.
    pub async fn refresh(app: &App, shared: &SharedTable, refresh: &RefreshClaims) -> Result<Self> {
        shared.check_start(refresh.version)?;
        let table = app.open(shared)?;
        let snapshot = table.at_version(refresh.version).await?;
        if snapshot.metadata().id != refresh.table {
            return Err(Error::invalid(
                "The table specified in the refresh token does not match the table being queried.",
            ));
        }
        report_fault(shared, snapshot.metadata());
        Ok(Self { table, snapshot })
    }

    /// The form of an answer about this version. Reads the log only if the answer depends on it.
    ///
    /// 400 with the names of the features that the client would have to read.
    pub async fn negotiate(&self, capabilities: &Capabilities) -> Result<ResponseFormat> {
        negotiate(&self.table, &self.snapshot, capabilities).await
    }

    /// The files of the version, without those that a query with these hints can do without by their partition values.
    pub async fn files(self, hints: &Hints) -> Result<OpenFiles> {
        let (Self { table, snapshot }, hints) = (self, hints.clone());
        let open = move |delta: &DeltaTable| {
            let hints = ParsedHints::new(&hints);
            Ok((delta.files_matching(&snapshot, &hints.predicates)?, hints))
        };
        let (files, hints) = table.run(open).await?;
        Ok(OpenFiles { table, files, hints, stats: None, rows: 0, refreshed: false })
    }

    /// The files of a version that a refresh token names. A client looks for the URLs of the files that it has. Hints could
    /// leave out others now: by then the log may have another order and other statistics.
    pub async fn refreshed_files(self) -> Result<OpenFiles> {
        Ok(OpenFiles { refreshed: true, ..self.files(&Hints::default()).await? })
    }
}

async fn negotiate(
    table: &OpenTable,
    snapshot: &Arc<Snapshot>,
    capabilities: &Capabilities,
) -> Result<ResponseFormat> {
    let features = snapshot.features();
    if !capabilities.depends_on_vectors(features) {
        return capabilities.negotiate(features);
    }
    let snapshot = Arc::clone(snapshot);
    capabilities.negotiate(&table.run(move |delta| delta.exact_features(&snapshot)).await?)
}

fn check_as_of(shared: &SharedTable, as_of: &AsOf) -> Result<()> {
    if as_of.is_historical() { shared.check_history() } else { Ok(()) }
}

async fn at_timestamp(table: &OpenTable, shared: &SharedTable, text: &str) -> Result<Arc<Snapshot>> {
    let millis = parse_timestamp(text)?;
    let newest = table.latest().await?;
    let (shared, text) = (shared.clone(), text.to_owned());
    let open = move |delta: &DeltaTable| {
        let version = newest.version_as_of(millis)?;
        shared.check_start_of_timestamp(version, &text)?;
        delta.at_version_of(&newest, version)
    };
    table.run(open).await
}

/// The files of a version, opened for an answer or for a page of it.
pub struct OpenFiles {
    table: OpenTable,
    files: FileCursor,
    hints: ParsedHints,
    /// What the first page said, if this is a later one.
    stats: Option<FileStats>,
    /// How many rows surely match in the files of the pages before.
    rows: u64,
    /// Whether the pages before are of an answer that was refreshed.
    refreshed: bool,
}

impl OpenFiles {
    /// Continues at a place that a page token of `query` names, within what is shared by now.
    pub async fn resume(
        app: &App,
        shared: &SharedTable,
        query: &SnapshotQuery,
        place: FilesPlace,
    ) -> Result<Self> {
        check_as_of(shared, &query.as_of)?;
        shared.check_start(place.origin.version)?;
        let table = app.open(shared)?;
        let hints = if place.refreshed { Hints::default() } else { query.hints.clone() };
        if hints.predicate_bytes() > 0 {
            place.check_rules()?;
        }
        let FilesPlace { origin, position, stats, rows, refreshed, .. } = place;
        let open = move |delta: &DeltaTable| {
            let hints = ParsedHints::new(&hints);
            Ok((delta.files_matching_from(&origin, position, &hints.predicates)?, hints))
        };
        let (files, hints) = table.run(open).await?;
        report_fault(shared, files.snapshot().metadata());
        Ok(Self { table, files, hints, stats, rows, refreshed })
    }

    /// Negotiates the form of an answer with these files, and checks that they can be signed. `format` is the form of the
    /// first page, if this is a later one.
    ///
    /// 400 with the names of the features that the client would have to read.
    pub async fn check(
        self,
        app: &App,
        capabilities: &Capabilities,
        format: Option<ResponseFormat>,
    ) -> Result<CheckedFiles> {
        let format = match format {
            Some(format) => format,
            None => negotiate(&self.table, self.files.snapshot(), capabilities).await?,
        };
        let signer = app.signer(&self.table).await?;
        Ok(CheckedFiles { format, opened: self, signer })
    }
}

/// The files of a version, with nothing in the way of an answer.
pub struct CheckedFiles {
    /// The form of the answer.
    pub format: ResponseFormat,
    opened: OpenFiles,
    signer: FileSigner,
}

impl CheckedFiles {
    /// The table and its locations.
    pub fn table(&self) -> &OpenTable {
        &self.opened.table
    }

    /// The version that the files belong to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        self.opened.files.snapshot()
    }

    /// What an answer with these files is written from, without those that the query can do without.
    pub fn into_lines(
        self,
        shared: &SharedTable,
        id_hash: FileIdHash,
        capabilities: &Capabilities,
        query: &SnapshotQuery,
    ) -> VersionLines {
        let Self { format, opened: OpenFiles { table, files, hints, stats, rows, refreshed }, signer } = self;
        let skipping = Skipping::new(hints, rows, &files);
        // Without the time of the version: no client needs it here, and it is gone once its commit is cleaned up.
        let version = files.snapshot().version();
        let queried = query.as_of.is_historical().then_some(QueriedVersion { version, timestamp: None });
        let lines = FileLineWriter::new(format, id_hash, capabilities, queried, signer);
        VersionLines {
            refreshed,
            ..VersionLines::new(
                table.delta().clone(),
                files,
                skipping,
                stats,
                Head::new(format, shared.record()),
                lines,
            )
        }
    }
}

/// The lines of the files of a version.
pub struct VersionLines {
    table: DeltaTable,
    files: FileCursor,
    skipping: Skipping,
    refreshed: bool,
    stats: Option<FileStats>,
    head: Head,
    lines: FileLineWriter,
}

impl VersionLines {
    /// `stats` is the number of files and their bytes, if a page before this one said them.
    pub fn new(
        table: DeltaTable,
        files: FileCursor,
        skipping: Skipping,
        stats: Option<FileStats>,
        head: Head,
        mut lines: FileLineWriter,
    ) -> Self {
        let snapshot = files.snapshot();
        lines.set_partition_columns(snapshot.schema(), &snapshot.metadata().partition_columns);
        Self { table, files, skipping, refreshed: false, stats, head, lines }
    }
}

impl LineCursor for VersionLines {
    type Place = FilesPlace;

    const FIRST_FILES: u64 = 64;

    fn head(&mut self) -> Result<[Vec<u8>; 2]> {
        self.skipping.prepare(self.files.snapshot().metadata());
        if self.stats.is_none() {
            self.stats = self.head.stats(&self.table, self.files.snapshot())?;
        }
        self.head.lines(self.files.snapshot(), self.stats)
    }

    fn write_next(&mut self, lines: &mut Lines) -> Result<Step> {
        if self.skipping.is_enough() {
            return Ok(Step::End);
        }
        let Some(file) = self.files.advance()? else { return Ok(Step::End) };
        if !self.skipping.keeps(&file) {
            return Ok(Step::Other);
        }
        let bytes = granted_bytes(file.size, file.deletion_vector.as_ref());
        let until = self.lines.expiration_millis();
        lines.file(bytes, until, |out| self.lines.write(&file, out))?;
        Ok(Step::File)
    }

    fn pass_over(&mut self) -> Result<bool> {
        if !self.skipping.has_hints() || self.skipping.is_enough() {
            return Ok(false);
        }
        let Some(file) = self.files.peek()? else { return Ok(false) };
        if !self.skipping.leaves_out(&file) {
            return Ok(false);
        }
        Ok(self.files.advance()?.is_some())
    }

    fn held_bytes(&self) -> usize {
        self.files.held_bytes()
    }

    fn lines(&self) -> &FileLineWriter {
        &self.lines
    }

    fn next_place(&mut self) -> Result<Option<FilesPlace>> {
        if self.skipping.is_enough() || !self.files.has_more()? {
            return Ok(None);
        }
        let (origin, position) = (self.files.origin().clone(), self.files.position());
        Ok(Some(FilesPlace {
            origin,
            position,
            stats: self.stats,
            rows: self.skipping.rows(),
            refreshed: self.refreshed,
            rules: SELECTION_RULES,
        }))
    }

    fn pause(self) {
        self.table.pause_files(self.files);
    }
}
