//! A first pass over the commits of a range, before anything of it is sent: what its versions take to read, and
//! whether anything stands in the way. The commits are fetched in parallel. The first ones are kept in memory for the
//! answer; those beyond a budget are read again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::changes::{
    Action, Change, ChangeCursor, ChangeKind, ChangePosition, ChangeRange, FileKey, RemovedFile, RemovedFiles,
};
use super::features::{COLUMN_MAPPING, features};
use super::open::Opener;
use super::snapshot::Snapshot;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::capabilities::TableFeatures;

/// How many bytes of commits one answer keeps between the two passes.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// What a first pass over a range found.
pub struct Survey {
    /// What the versions and files of the range take to read.
    pub features: TableFeatures,
    /// Whether columns are found under other names in some files than in others, so that a reader needs the metadata of
    /// every version.
    pub remapped: bool,
    /// Whether removals were completed from what other actions say, which every page has to do.
    pub completed: bool,
    /// The changes.
    pub changes: ChangeCursor,
}

/// Reads every commit of the range and calls `check` with every change that an answer may send. Fails with the first
/// error of `check`, and if a file that is sent lacks what a recipient needs of it.
pub(super) fn survey(
    opener: &Arc<Opener>,
    range: &Arc<ChangeRange>,
    kind: ChangeKind,
    position: Option<ChangePosition>,
    check: &mut dyn FnMut(&Change<'_>) -> Result<()>,
) -> Result<Survey> {
    let mut cursor = ChangeCursor::new(range, kind, None, Vec::new(), RemovedFiles::unknown())?;
    cursor.keep_texts(KEPT_BYTES);
    let (mut protocol, mut metadata) = (range.first.protocol().clone(), range.first.metadata().clone());
    let mut schema = range.first.schema().clone();
    let mut all = range.first.features().clone();
    let mut partitioned = !metadata.partition_columns.is_empty();
    let mut mapped = all.used.contains(COLUMN_MAPPING);
    let (mut remapped, mut vectors) = (false, false);
    let mut incomplete: HashMap<FileKey, u64> = HashMap::new();
    while let Some(change) = cursor.advance()? {
        check(&change)?;
        match change.action {
            Action::Protocol(new) => {
                protocol = new.clone();
                all.extend(features(&protocol, &metadata, &schema));
            }
            Action::Metadata(new) => {
                let (before, mapped_before) = (schema, mapped);
                schema = new.schema()?;
                metadata = (**new).clone();
                partitioned |= !metadata.partition_columns.is_empty();
                let needs = features(&protocol, &metadata, &schema);
                mapped = needs.used.contains(COLUMN_MAPPING);
                remapped |= before.is_mapped_otherwise(mapped_before, &schema, mapped);
                all.extend(needs);
            }
            Action::Add(file) | Action::Remove(file) | Action::Cdc(file) => {
                vectors |= file.deletion_vector().is_some();
                if !file.is_complete(partitioned) {
                    let removed = matches!(change.action, Action::Remove(_)) && kind == ChangeKind::Files;
                    if !removed {
                        return Err(not_recorded(change.version));
                    }
                    incomplete.entry(file.key()).or_insert(change.version);
                }
            }
        }
    }
    all.set_vectors(vectors);
    let completed = !incomplete.is_empty();
    let files = if completed { removed_files(opener, range, incomplete)? } else { HashMap::new() };
    let removed = Arc::new(RemovedFiles { partitioned, files });
    let kept = if position.is_none() { cursor.into_texts() } else { Vec::new() };
    let changes = ChangeCursor::new(range, kind, position, kept, removed)?;
    Ok(Survey { features: all, remapped, completed, changes })
}

fn not_recorded(version: u64) -> Error {
    Error::unsupported(format!(
        "The changes of version {version} cannot be read: its commit names a file without the file's size or partition \
         values, and the log does not have them elsewhere. Read a range of versions without that one, or the table \
         without changes."
    ))
}

/// Finds what added the files that are removed without their size: in the range, or among the files before it. The
/// versions are those that remove them.
fn removed_files(
    opener: &Arc<Opener>,
    range: &Arc<ChangeRange>,
    mut wanted: HashMap<FileKey, u64>,
) -> Result<HashMap<FileKey, RemovedFile>> {
    let mut found = HashMap::with_capacity(wanted.len());
    let mut cursor =
        ChangeCursor::new(range, ChangeKind::AllFiles, None, Vec::new(), RemovedFiles::unknown())?;
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
        match start.checked_sub(1).map(|before| opener.open(Some(before))) {
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
    for batch in snapshot.scan()? {
        for file in batch?.files() {
            let file = file?;
            let key = (file.path.to_owned(), file.deletion_vector.map(|vector| vector.unique_id()));
            if let Some((key, _)) = wanted.remove_entry(&key) {
                let values = file.partition_values.iter();
                let partition_values =
                    values.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect();
                found.insert(key, RemovedFile { size: file.size, partition_values });
            }
        }
    }
    Ok(())
}

/// Texts of commits, from the first one on, as far as a budget allows.
#[derive(Default)]
pub(super) struct Kept {
    budget: usize,
    texts: Vec<Bytes>,
}

impl Kept {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, texts: Vec::new() }
    }

    /// Keeps the next text, unless one before it did not fit.
    pub(super) fn keep(&mut self, text: &Bytes) {
        match self.budget.checked_sub(text.len()) {
            Some(left) => {
                self.budget = left;
                self.texts.push(text.clone());
            }
            None => self.budget = 0,
        }
    }

    pub(super) fn into_texts(self) -> Vec<Bytes> {
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_from_the_first_one_on() {
        let mut kept = Kept::new(10);
        for text in ["1234", "56789", "toolong", "0", "1"] {
            kept.keep(&Bytes::from_static(text.as_bytes()));
        }
        assert_eq!(kept.into_texts(), ["1234", "56789"]);
    }
}
