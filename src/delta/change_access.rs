//! Which files of a range of changes may be read, while the metadata of the table changes within the range.

use std::sync::Arc;

use super::metadata::Metadata;
use crate::predicate::{BoundAccess, FileAccess};

/// The access to the files of commits, one after the other.
#[derive(Clone)]
pub(super) struct ChangeAccess {
    access: FileAccess,
    /// By the metadata that is in force before the next commit.
    bound: Arc<BoundAccess>,
}

/// The access to the files of one commit.
pub(super) struct CommitAccess {
    /// To those that it removes: they were there before the commit, under the metadata before it.
    pub(super) removed: Arc<BoundAccess>,
    /// To those that it adds, and to its change data.
    pub(super) added: Arc<BoundAccess>,
}

impl ChangeAccess {
    /// The access under the metadata that is in force where a cursor begins.
    pub(super) fn new(access: &FileAccess, metadata: &Metadata) -> Self {
        Self { access: access.clone(), bound: Arc::new(access.bind(metadata.columns())) }
    }

    /// The access to every file.
    pub(super) fn everything(metadata: &Metadata) -> Self {
        Self::new(&FileAccess::everything(), metadata)
    }

    /// What was given.
    pub(super) fn access(&self) -> &FileAccess {
        &self.access
    }

    /// The access to the files of the next commit, which may change the metadata. `None` if every file may be read.
    pub(super) fn next(&mut self, changed: Option<&Metadata>) -> Option<CommitAccess> {
        if !self.access.is_filtered() {
            return None;
        }
        let removed = Arc::clone(&self.bound);
        if let Some(metadata) = changed {
            self.bound = Arc::new(self.access.bind(metadata.columns()));
        }
        Some(CommitAccess { removed, added: Arc::clone(&self.bound) })
    }
}
