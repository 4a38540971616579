//! From a log to a snapshot, around what is damaged in it. A log is read through its engine, which a snapshot keeps for
//! its scans; so a snapshot can be opened again in another way with nothing but itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use buoyant_kernel::log_segment::LogSegment;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::{DeltaResult, Engine, FileMeta, Snapshot as KernelSnapshot, SnapshotRef};

use super::checksum::{CHECKSUM_BYTES, checksum_name};
use super::engine::{HiddenFiles, LogEngine};
use super::failure::{
    Cause, OpenError, cause, damaged, empty_commit, failure, no_log, not_available, unpanicked,
};
use super::history::Log;
use super::log_names::{LogFile, file_name};
use super::log_store::Part;
use super::metadata::{Metadata, Protocol};
use super::prefetch::NextReads;
use super::snapshot::Snapshot;
use super::stand_in::{UncheckedTable, snapshot_with_stand_in, suits_scan};
use crate::error::{Error, Result};

/// How many damaged checkpoints are passed over one by one before only the commits are tried. Each try reads the log
/// again, and a writer that damaged three checkpoints in a row has probably damaged all of them.
const CHECKPOINTS_TRIED: usize = 3;

/// How many times the log is listed to find an older version, before the log is listed once as a whole. Most logs have a
/// checkpoint within as many versions as these listings cover.
const LISTINGS: u64 = 4;

/// How many versions the kernel looks for in one listing.
const VERSIONS_OF_A_LISTING: u64 = 1_000;

/// How many files one answer of S3 lists.
const PAGE_FILES: usize = 1_000;

/// What a refresh found.
pub(super) enum RefreshResult {
    /// Nothing was committed.
    Unchanged,
    /// There are newer versions.
    Newer(Snapshot),
    /// The commit of the known version is gone or is another one: the table was created again.
    Replaced(Snapshot),
}

/// Opens a version, or the newest one. If the log is damaged, tries again without `_last_checkpoint`,
/// then without the newest checkpoint, and so on, as long as what is left reaches back to a checkpoint
/// or to version 0.
pub(super) fn open_version(engine: &Arc<LogEngine>, version: Option<u64>) -> Result<Snapshot> {
    opened(engine, version, build(engine, version))
}

/// Opens the newest version of a log that nothing is known of.
pub(super) fn open_newest(engine: &Arc<LogEngine>, next: NextReads) -> Result<Snapshot> {
    // To ask a directory for one file after the other costs nothing.
    if engine.root().scheme() != "s3" {
        return open_version(engine, None);
    }
    opened(engine, None, build_newest(engine, next))
}

fn opened(
    engine: &Arc<LogEngine>,
    version: Option<u64>,
    built: Result<Snapshot, OpenError>,
) -> Result<Snapshot> {
    match built {
        Ok(snapshot) => Ok(snapshot),
        Err(OpenError::Final(error)) => Err(error),
        Err(OpenError::Damaged(error)) => {
            // The hint may name a checkpoint that is damaged or gone. Without it, the kernel lists the log.
            let hidden = HiddenFiles { last_checkpoint: true, ..HiddenFiles::default() };
            open_around(engine, hidden, version, error)
        }
    }
}

/// Opens a version of a log whose files are known, from the first one on, without asking for them again.
pub(super) fn open_listed(engine: &Arc<LogEngine>, version: u64, files: &[FileMeta]) -> Result<Snapshot> {
    // The hint says nothing that the list does not say, and would be one more request.
    let hidden = HiddenFiles { last_checkpoint: true, ..HiddenFiles::default() };
    let Some(reach) = Log::of(files.to_vec()).reach(version, &hidden.checkpoints) else {
        return open_version(engine, Some(version));
    };
    let listed = engine.hiding(hidden).with_listing(files.to_vec()).searching(listings(reach));
    let build = || KernelSnapshot::builder_for(engine.root()).at_version(version).build(&listed);
    match unpanicked(build) {
        Ok(Ok(kernel)) => match accept(kernel, engine) {
            Ok(snapshot) => Ok(snapshot),
            Err(OpenError::Final(error)) => Err(error),
            Err(OpenError::Damaged(_)) => open_version(engine, Some(version)),
        },
        // Whatever is wrong with the log, this finds a way around it or says it.
        Ok(Err(_)) | Err(_) => open_version(engine, Some(version)),
    }
}

/// Opens a version from a checkpoint that may not be the newest, or from version 0.
pub(super) fn open_from(engine: &Arc<LogEngine>, version: u64, checkpoint: Option<u64>) -> Result<Snapshot> {
    let log = Log::list(engine)?;
    let none = BTreeSet::new();
    let newer = log.checkpoints(version, &none);
    let newer = newer.filter(|&newer| checkpoint.is_none_or(|checkpoint| newer > checkpoint)).collect();
    let hidden = HiddenFiles { last_checkpoint: true, checkpoints: newer };
    let view = Arc::new(engine.hiding(hidden));
    build(&view, Some(version)).map_err(OpenError::into_error)
}

/// Opens a version around what is damaged: without `hidden`, then without one more checkpoint after the other. `engine`
/// hides nothing. `error` is what the log was refused for in the first place.
fn open_around(
    engine: &Arc<LogEngine>,
    mut hidden: HiddenFiles,
    version: Option<u64>,
    error: Error,
) -> Result<Snapshot> {
    let files = engine.list_from(0).map_err(failure)?;
    let log = Log::of(files.clone());
    let Some(latest) = log.latest() else {
        return Err(no_log());
    };
    // A view that ends before the newest commit would be an older version that passes for the newest.
    let target = version.unwrap_or(latest);
    if target > latest {
        return Err(not_available(target, log.range()).with_source(error));
    }
    for attempt in 0.. {
        let Some(reach) = log.reach(target, &hidden.checkpoints) else { break };
        let view = Arc::new(engine.hiding(hidden.clone()).mending());
        let listed = view.with_listing(files.clone()).searching(listings(reach));
        match build_in(&listed, &view, Some(target)) {
            Ok(snapshot) => return Ok(snapshot),
            Err(OpenError::Final(error)) => return Err(error),
            Err(OpenError::Damaged(error)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(attempt, error = source, "a view of the log is damaged");
            }
        }
        let mut left = log.checkpoints(target, &hidden.checkpoints).peekable();
        if left.peek().is_none() {
            break;
        }
        let more = if attempt < CHECKPOINTS_TRIED { 1 } else { usize::MAX };
        let more: Vec<u64> = left.take(more).collect();
        hidden.checkpoints.extend(more);
    }
    match log.range() {
        Some((earliest, _)) if version.is_some() && target < earliest => {
            Err(not_available(target, log.range()).with_source(error))
        }
        _ if log.has_empty_commit(target) => Err(empty_commit().with_source(error)),
        _ => Err(error),
    }
}

/// Builds the newest version with as few round trips as possible. The first answer of S3 lists the whole log if that has
/// no more than a thousand files, and shows its newest checkpoint. `_last_checkpoint`, which is asked for at the same time,
/// is needed for longer logs only.
fn build_newest(engine: &Arc<LogEngine>, next: NextReads) -> Result<Snapshot, OpenError> {
    let (mut page, hint) = engine.first_page(PAGE_FILES)?;
    let hint = match hint {
        Ok(None) | Err(_) if page.is_whole => None,
        Ok(Some(hint)) if page.is_whole => Some(hint),
        Ok(Some(hint)) => {
            page = engine.page_from(hint.version)?;
            Some(hint)
        }
        Ok(None) => return build(engine, None),
        Err(error) => return Err(error.into()),
    };
    let (mut ahead, mut totals) = (engine.prefetch(), engine.prefetch());
    ahead.begin_newest(&page.files, hint.as_ref().filter(|_| next.files));
    let latest = Log::of(page.files.clone()).latest();
    let checksum = latest.map(|latest| checksum_name(engine, latest));
    let checksum = checksum.filter(|name| page.hidden.iter().any(|file| file.location == *name));
    if let Some(checksum) = checksum.as_ref().filter(|_| next.totals) {
        totals.begin(Path::from(checksum.path()), Part::Start(CHECKSUM_BYTES));
    }
    let hidden = HiddenFiles { last_checkpoint: true, ..HiddenFiles::default() };
    let listed = engine.hiding(hidden).with_listing(page.files);
    let snapshot = build_in(&listed, engine, None)?;
    if next.totals {
        snapshot.find_checksum(checksum.is_some() && latest == Some(snapshot.version()));
    }
    if next.files {
        ahead.leave();
    }
    Ok(snapshot)
}

fn build(engine: &Arc<LogEngine>, version: Option<u64>) -> Result<Snapshot, OpenError> {
    let search = engine.searching(LISTINGS);
    match (build_in(&search, engine, version), version) {
        (Err(OpenError::Damaged(error)), Some(version)) if search.is_exhausted() => {
            let files = engine.list_from(0)?;
            match Log::of(files.clone()).reach(version, &engine.hidden().checkpoints) {
                Some(reach) => {
                    let listed = engine.with_listing(files).searching(listings(reach));
                    build_in(&listed, engine, Some(version))
                }
                None => Err(OpenError::Damaged(error)),
            }
        }
        (built, _) => built,
    }
}

/// Builds a version from what `view` lists. What the snapshot reads later, it reads by way of `engine`.
fn build_in(view: &LogEngine, engine: &Arc<LogEngine>, version: Option<u64>) -> Result<Snapshot, OpenError> {
    let build = || -> DeltaResult<SnapshotRef> {
        let mut builder = KernelSnapshot::builder_for(view.root());
        if let Some(version) = version {
            builder = builder.at_version(version);
        }
        builder.build(view)
    };
    match unpanicked(build).map_err(OpenError::Damaged)? {
        Ok(kernel) => accept(kernel, engine),
        Err(error) => match cause(&error) {
            Cause::Unsupported | Cause::Damaged if !view.is_exhausted() => {
                build_with_stand_in(engine, version, error)
            }
            _ => Err(error.into()),
        },
    }
}

/// Tells a damaged log from one whose protocol or metadata the kernel refuses, and opens the latter with a stand-in if
/// this server knows every reader feature of it.
fn build_with_stand_in(
    engine: &Arc<LogEngine>,
    version: Option<u64>,
    error: buoyant_kernel::Error,
) -> Result<Snapshot, OpenError> {
    let read = unpanicked(|| UncheckedTable::read(engine, version)).map_err(OpenError::Damaged)?;
    // What cannot be read even without the kernel's checks is damaged, and the kernel's own error says how.
    let Ok(raw) = read else { return Err(error.into()) };
    raw.protocol.check().map_err(OpenError::Final)?;
    if unpanicked(|| raw.suits_kernel(engine.root())).map_err(OpenError::Damaged)? {
        return Err(error.into());
    }
    accept_with_stand_in(raw.segment, raw.protocol, raw.metadata, engine)
}

fn accept_with_stand_in(
    segment: LogSegment,
    protocol: Protocol,
    metadata: Metadata,
    engine: &Arc<LogEngine>,
) -> Result<Snapshot, OpenError> {
    check(&segment)?;
    let kernel =
        unpanicked(|| snapshot_with_stand_in(segment, engine.root())).map_err(OpenError::Damaged)??;
    Snapshot::with(Arc::new(kernel), Arc::clone(engine), protocol, metadata).map_err(OpenError::Final)
}

fn accept(kernel: SnapshotRef, engine: &Arc<LogEngine>) -> Result<Snapshot, OpenError> {
    let segment = kernel.log_segment();
    check(segment)?;
    let table = kernel.table_configuration();
    if suits_scan(table).is_err() {
        let (protocol, metadata) = (Protocol::new(table.protocol()), Metadata::new(table.metadata()));
        return accept_with_stand_in(segment.clone(), protocol, metadata, engine);
    }
    Snapshot::new(kernel, Arc::clone(engine)).map_err(OpenError::Final)
}

/// Whether `known` is the newest version, as far as two files of the log tell. If the result is `false`, [`refresh`] finds
/// out.
pub(super) fn is_newest(known: &Snapshot) -> Result<bool> {
    // Listing a directory costs nothing, and shows what is no file, such as a link that leads nowhere.
    if known.engine().root().scheme() != "s3" {
        return Ok(false);
    }
    match &known.kernel().log_segment().listed.latest_commit_file {
        Some(commit) if commit.version == known.version() => {
            known.engine().is_unchanged(&commit.location, commit.version).map_err(failure)
        }
        // The checkpoint is all there is of the known version.
        Some(_) | None => Ok(false),
    }
}

/// Looks for newer versions than `known`, and for a newer checkpoint, with one listing.
pub(super) fn refresh(engine: &Arc<LogEngine>, known: &Snapshot) -> Result<RefreshResult> {
    let segment = known.kernel().log_segment();
    let Some(newest) = &segment.listed.latest_commit_file else {
        // The checkpoint is all there is of the known version; there is nothing to compare.
        return open_version(engine, None).map(|snapshot| match snapshot.version() > known.version() {
            true => RefreshResult::Newer(snapshot),
            false => RefreshResult::Unchanged,
        });
    };
    // From the checkpoint on, and not from the known version: the new snapshot is built from the same listing.
    let files = known.engine().list_from(segment.checkpoint_version.unwrap_or(0)).map_err(failure)?;
    let mut found = None;
    let mut newer = false;
    for file in &files {
        match LogFile::parse(file_name(file.location.path())) {
            Some(LogFile::Commit(version)) if version == known.version() => found = Some(file),
            Some(LogFile::Commit(version)) => newer |= version > known.version(),
            Some(LogFile::Checkpoint(version)) => newer |= Some(version) > segment.checkpoint_version,
            Some(LogFile::Other) | None => {}
        }
    }
    match found {
        Some(found) if same(found, &newest.location) => {}
        Some(_) => return open_version(engine, None).map(RefreshResult::Replaced),
        None => return replaced(engine, known, &newest.location),
    }
    if !newer {
        return Ok(RefreshResult::Unchanged);
    }
    if known.has_stand_in() {
        return open_version(engine, None).map(RefreshResult::Newer);
    }
    let listed = known.engine().with_listing(files);
    let build = || KernelSnapshot::builder_from(Arc::clone(known.kernel())).build(&listed);
    let built = unpanicked(build)
        .map_err(OpenError::Damaged)
        .and_then(|kernel| Ok(kernel?))
        .and_then(|kernel| accept(kernel, known.engine()));
    let snapshot = match built {
        Ok(snapshot) => snapshot,
        Err(OpenError::Final(error)) => return Err(error),
        Err(OpenError::Damaged(_)) => open_version(engine, None)?,
    };
    if snapshot.version() < known.version() {
        return Err(incomplete_listing());
    }
    Ok(RefreshResult::Newer(snapshot))
}

/// The listing lacks the commit of the known version. Either the table was created again, or the listing is
/// short, which a look at the file itself tells apart.
fn replaced(engine: &Arc<LogEngine>, known: &Snapshot, commit: &FileMeta) -> Result<RefreshResult> {
    match known.engine().storage_handler().head(&commit.location) {
        // Some stores tell the time to the second here and to the millisecond in listings.
        Ok(found)
            if found.size == commit.size && found.last_modified / 1000 == commit.last_modified / 1000 =>
        {
            Err(incomplete_listing())
        }
        Ok(_) => open_version(engine, None).map(RefreshResult::Replaced),
        Err(error) if cause(&error) == Cause::Missing => {
            open_version(engine, None).map(RefreshResult::Replaced)
        }
        Err(error) => Err(failure(error)),
    }
}

/// Opens the version of `snapshot` again, from the same files, whose actions are put right before they are read.
pub(super) fn open_mended(snapshot: &Snapshot) -> Result<Snapshot> {
    let engine = Arc::new(snapshot.engine().mending());
    build(&engine, Some(snapshot.version())).map_err(OpenError::into_error)
}

/// Opens the version of `snapshot` again, without the checkpoint it was built from. Fails with `error` if it was built
/// from none.
pub(super) fn open_without_checkpoint(snapshot: &Snapshot, error: Error) -> Result<Snapshot> {
    let mut hidden = snapshot.engine().hidden().clone();
    hidden.last_checkpoint = true;
    match snapshot.kernel().log_segment().checkpoint_version {
        Some(damaged) if hidden.checkpoints.insert(damaged) => {
            // The log is listed with what `snapshot` leaves out: errors say which versions it has.
            let engine = Arc::new(snapshot.engine().hiding(HiddenFiles::default()));
            open_around(&engine, hidden, Some(snapshot.version()), error)
        }
        Some(_) | None => Err(error),
    }
}

/// What the kernel leaves unchecked: that the log reaches back to its start, and that commits have bytes.
fn check(segment: &LogSegment) -> Result<(), OpenError> {
    let commits = &segment.listed.ascending_commit_files;
    if segment.checkpoint_version.is_none() && commits.first().is_none_or(|commit| commit.version != 0) {
        return Err(OpenError::Damaged(damaged("the log starts after version 0 and has no checkpoint")));
    }
    if commits.iter().any(|commit| commit.location.size == 0) {
        return Err(OpenError::Final(empty_commit()));
    }
    Ok(())
}

/// How many listings the kernel takes for so many versions, with those that a range begins and ends within.
fn listings(reach: u64) -> u64 {
    reach / VERSIONS_OF_A_LISTING + 3
}

fn same(a: &FileMeta, b: &FileMeta) -> bool {
    a.size == b.size && a.last_modified == b.last_modified
}

fn incomplete_listing() -> Error {
    Error::unavailable("The table's storage does not answer; try again later.")
        .with_source("a listing of the log lacks a commit that exists")
}
