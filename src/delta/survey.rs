//! A first pass over the commits of a range, before anything of it is sent: what its versions take to read, and
//! whether anything stands in the way. The commits are fetched in parallel. The first ones are kept in memory for the
//! answer; those beyond a budget are read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::changes::{
    Action, Change, ChangeCursor, ChangeKind, ChangePosition, ChangeRange, RemovedFile, RemovedFiles,
    not_recorded,
};
use super::cursor::FileCursor;
use super::deletion_vector::FileKey;
use super::engine::LogEngine;
use super::features::{COLUMN_MAPPING, features};
use super::kept_commits::{CommitBudget, CommitKeeper, KeptCommits};
use super::metadata::{Metadata, Protocol};
use super::open::open_version;
use super::schema::Schema;
use super::snapshot::Snapshot;
use crate::error::{Error, ErrorCode, Result};
use crate::predicate::{BoundAccess, FileAccess};
use crate::protocol::capabilities::TableFeatures;

/// How many bytes of commits one answer keeps between the two passes, if that much of the budget of all is left.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// What a first pass over a range found.
pub struct Survey {
    /// What the versions and files of the range take to read.
    pub features: TableFeatures,
    /// Whether columns are found under other names in some files than in others, so that a reader needs the metadata of
    /// every version.
    pub remapped: bool,
    /// Whether the partition columns are not the same in every version.
    pub repartitioned: bool,
    /// Whether removals were completed from what other actions say, which every page has to do.
    pub completed: bool,
    /// The changes.
    pub changes: ChangeCursor,
}

/// Reads every commit of the range and calls `check` with every change that an answer may send. Fails with the first
/// error of `check`, and if a file that is sent lacks what a recipient needs of it. Every file is looked at: which ones may be
/// read is known only after removals were completed, and then `access` decides. Also fails if the filters mean something else
/// in another version of the range: the recipient would keep files whose removal it is not sent.
pub(super) fn survey(
    engine: &Arc<LogEngine>,
    commits: &Arc<CommitBudget>,
    range: &Arc<ChangeRange>,
    kind: ChangeKind,
    position: Option<ChangePosition>,
    access: Arc<BoundAccess>,
    check: &mut dyn FnMut(&Change<'_>) -> Result<()>,
) -> Result<Survey> {
    let everything = everything(range);
    let mut cursor =
        ChangeCursor::new(range, kind, None, KeptCommits::default(), RemovedFiles::unknown(), everything)?;
    cursor.keep_commits(CommitKeeper::new(KEPT_BYTES, commits));
    let start = range.bounds().start;
    let mut current = Definition::of(&range.first);
    let mut seen = RangeSummary::default();
    seen.add(&current);
    let (mut vectors, mut unjudged_vectors) = (false, false);
    let (mut changed_at_start, mut removed_at_start) = (false, false);
    let mut incomplete: HashMap<FileKey, u64> = HashMap::new();
    // Missing partition values are none at all unless some version of the range, perhaps a later one, has columns.
    let mut valueless: HashMap<FileKey, u64> = HashMap::new();
    let mut valueless_for_good = None;
    while let Some(change) = cursor.advance()? {
        check(&change)?;
        match change.action {
            Action::Protocol(new) => {
                changed_at_start |= change.version == start;
                current.protocol = new.clone();
                seen.add(&current);
            }
            Action::Metadata(new) => {
                changed_at_start |= change.version == start;
                check_access(&access, new, change.version)?;
                current.schema = new.schema()?;
                current.metadata = (**new).clone();
                seen.add(&current);
            }
            Action::Add(file) | Action::Remove(file) | Action::Cdc(file) => {
                let removed = matches!(change.action, Action::Remove(_));
                removed_at_start |= removed && change.version == start;
                if file.deletion_vector().is_some() {
                    match file.partition_values {
                        // Known once the removal is completed.
                        None if !access.allows_everything() => unjudged_vectors = true,
                        _ => vectors |= file.may_be_read(&access),
                    }
                }
                if removed && file.hides_whether_it_may_be_read(&access) {
                    return Err(not_recorded(change.version));
                }
                let can_complete = removed && kind == ChangeKind::Files;
                match (file.is_complete(false), file.is_complete(true)) {
                    (true, true) => {}
                    (true, false) if can_complete => {
                        valueless.entry(file.key()).or_insert(change.version);
                    }
                    (true, false) => {
                        valueless_for_good.get_or_insert(change.version);
                    }
                    (false, _) if can_complete => {
                        incomplete.entry(file.key()).or_insert(change.version);
                    }
                    (false, _) => return Err(not_recorded(change.version)),
                }
            }
        }
    }
    let (remapped, repartitioned) = (seen.remapped, seen.partitions.len() > 1);
    // What the first commit removes are files of the version before it, which may have been another kind of table. What a
    // recipient has from that version must be judged as the range is, even if this commit removes nothing.
    let compares = changed_at_start && (removed_at_start || !access.allows_everything());
    if let Some(before) = start.checked_sub(1).filter(|_| compares) {
        let before = open_version(engine, Some(before)).map_err(|error| match error.is_temporary() {
            true => error,
            false => removes_of_another(start).with_source(error),
        })?;
        let before = Definition::of(&before);
        check_access(&access, &before.metadata, start)?;
        if removed_at_start {
            let mut both = RangeSummary::default();
            both.add(&before);
            both.add(&Definition::of(&range.first));
            // A feed is read with the metadata of its own versions. Who asks for files does not read removed ones.
            if kind == ChangeKind::Data && (both.remapped || both.partitions.len() > 1) {
                return Err(removes_of_another(start));
            }
            seen.add(&before);
        }
    }
    let (mut all, partitioned) = (seen.features.clone(), seen.partitioned());
    if partitioned {
        if let Some(version) = valueless_for_good {
            return Err(not_recorded(version));
        }
        incomplete.extend(valueless);
    }
    let completed = !incomplete.is_empty();
    let files = if completed { removed_files(engine, range, incomplete)? } else { HashMap::new() };
    let removed = Arc::new(RemovedFiles { partitioned, files });
    // Later pages have the form of the first one, whatever the features are.
    if unjudged_vectors && !vectors && position.is_none() {
        vectors = has_vectors(range, kind, &removed, &access)?;
    }
    all.set_vectors(vectors);
    let kept = if position.is_none() { cursor.into_kept() } else { KeptCommits::default() };
    let changes = ChangeCursor::new(range, kind, position, kept, removed, access)?;
    Ok(Survey { features: all, remapped, repartitioned, completed, changes })
}

/// The protocol and the metadata that are in force at a version.
struct Definition {
    protocol: Protocol,
    metadata: Metadata,
    schema: Schema,
}

impl Definition {
    fn of(snapshot: &Snapshot) -> Self {
        let (protocol, metadata) = (snapshot.protocol().clone(), snapshot.metadata().clone());
        Self { protocol, metadata, schema: snapshot.schema().clone() }
    }
}

/// What the versions of a range are, taken together.
#[derive(Default)]
struct RangeSummary {
    features: TableFeatures,
    partitions: BTreeSet<Vec<String>>,
    /// The names that files carry, by the paths of columns.
    carried: BTreeMap<String, String>,
    remapped: bool,
}

impl RangeSummary {
    fn add(&mut self, current: &Definition) {
        let needs = features(&current.protocol, &current.metadata, &current.schema);
        self.partitions.insert(current.metadata.partition_columns.clone());
        for (path, name) in current.schema.carried_names(needs.used.contains(COLUMN_MAPPING)) {
            match self.carried.get(path) {
                None => drop(self.carried.insert(path.to_owned(), name.to_owned())),
                Some(before) => self.remapped |= before != name,
            }
        }
        self.features.extend(needs);
    }

    fn partitioned(&self) -> bool {
        self.partitions.iter().any(|columns| !columns.is_empty())
    }
}

/// The error for a range whose first commit turned the table into another kind and removed the files of the one before.
fn removes_of_another(version: u64) -> Error {
    Error::unsupported(format!(
        "The changes of version {version} cannot be read by themselves: the version removes files that were written under \
         other metadata. Begin with an earlier version, or with the next one."
    ))
}

/// Access to every file of the range.
fn everything(range: &ChangeRange) -> Arc<BoundAccess> {
    Arc::new(FileAccess::everything().bind(range.first.metadata().columns()))
}

/// Fails if the filters of an access mean something else under this metadata, or fit under one and not under the other.
fn check_access(access: &BoundAccess, metadata: &Metadata, version: u64) -> Result<()> {
    if access.allows_everything() {
        return Ok(());
    }
    let other = access.access().bind(metadata.columns());
    if other == *access {
        return Ok(());
    }
    let error = Error::unsupported(format!(
        "The changes of version {version} cannot be read together with those before it, because this version changes which \
         part of the table is shared. Query the table again, then read the changes of later versions."
    ));
    let reasons = [access.fault(), other.fault()].into_iter().flatten().map(ToString::to_string);
    let reasons: Vec<_> = reasons.collect();
    Err(if reasons.is_empty() { error } else { error.with_source(reasons.join("; ")) })
}

/// Whether a file of the range that may be read has a deletion vector.
fn has_vectors(
    range: &Arc<ChangeRange>,
    kind: ChangeKind,
    removed: &Arc<RemovedFiles>,
    access: &Arc<BoundAccess>,
) -> Result<bool> {
    let (removed, access) = (Arc::clone(removed), Arc::clone(access));
    let mut cursor = ChangeCursor::new(range, kind, None, KeptCommits::default(), removed, access)?;
    while let Some(change) = cursor.advance()? {
        if let Action::Add(file) | Action::Remove(file) | Action::Cdc(file) = change.action
            && file.deletion_vector().is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Finds what added the files that are removed without their size: in the range, or among the files before it. The
/// versions are those that remove them.
fn removed_files(
    engine: &Arc<LogEngine>,
    range: &Arc<ChangeRange>,
    mut wanted: HashMap<FileKey, u64>,
) -> Result<HashMap<FileKey, RemovedFile>> {
    let mut found = HashMap::with_capacity(wanted.len());
    let mut cursor = ChangeCursor::new(
        range,
        ChangeKind::AllFiles,
        None,
        KeptCommits::default(),
        RemovedFiles::unknown(),
        everything(range),
    )?;
    while let Some(change) = cursor.advance()? {
        if let Action::Add(file) = change.action
            && let Some(size) = file.size
            && let Some((key, _)) = wanted.remove_entry(&file.key())
        {
            let partition_values = file.partition_values.clone().unwrap_or_default();
            found.insert(key, RemovedFile { size, partition_values });
        }
    }
    let start = range.bounds().start;
    if !wanted.is_empty() {
        match start.checked_sub(1).map(|before| open_version(engine, Some(before))) {
            Some(Ok(before)) => find_files(&Arc::new(before), &mut wanted, &mut found)?,
            Some(Err(error)) if error.code() == ErrorCode::TemporarilyUnavailable => return Err(error),
            // What the first version of the range removed is gone with the version before it.
            Some(Err(_)) | None => find_files(&range.first, &mut wanted, &mut found)?,
        }
    }
    match wanted.into_values().min() {
        Some(version) => Err(not_recorded(version)),
        None => Ok(found),
    }
}

/// Looks for files among those of a version.
fn find_files(
    snapshot: &Arc<Snapshot>,
    wanted: &mut HashMap<FileKey, u64>,
    found: &mut HashMap<FileKey, RemovedFile>,
) -> Result<()> {
    let mut files = FileCursor::new(snapshot, &FileAccess::everything())?;
    while let Some(file) = files.advance()? {
        let key = (file.path.to_owned(), file.deletion_vector.map(|vector| vector.unique_id()));
        if let Some((key, _)) = wanted.remove_entry(&key) {
            let values = file.partition_values.iter();
            let partition_values =
                values.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect();
            found.insert(key, RemovedFile { size: file.size, partition_values });
        }
    }
    Ok(())
}
