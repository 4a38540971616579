//! Which files of a version a cursor gives, decided by their partition values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metadata::Metadata;
use crate::predicate::{BoundAccess, Filter, PartitionConditions, Predicate, Table};

/// The files that may be read, without those that a query can do without.
pub(super) struct FileSelection {
    access: BoundAccess,
    predicates: Arc<[Predicate]>,
    conditions: PartitionConditions,
    left_out: AtomicU64,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Given,
    /// The recipient may not read it.
    Withheld,
    /// No row of it can match the predicates.
    LeftOut,
}

impl FileSelection {
    /// The files of a version with this metadata that `access` allows and that rows matching all of `predicates` may be in.
    pub(super) fn new(access: BoundAccess, predicates: &Arc<[Predicate]>, metadata: &Metadata) -> Self {
        Self::of_table(access, predicates, metadata.columns())
    }

    /// The same for a table with these columns.
    pub(super) fn of_table(access: BoundAccess, predicates: &Arc<[Predicate]>, table: Table<'_>) -> Self {
        let conditions = if predicates.is_empty() {
            PartitionConditions::default()
        } else {
            Filter::new(predicates.to_vec(), false, table).partition_conditions()
        };
        Self { access, predicates: Arc::clone(predicates), conditions, left_out: AtomicU64::new(0) }
    }

    pub(super) fn access(&self) -> &BoundAccess {
        &self.access
    }

    pub(super) fn predicates(&self) -> &[Predicate] {
        &self.predicates
    }

    /// Whether every file is given, so that none needs to be looked at.
    pub(super) fn is_everything(&self) -> bool {
        self.access.allows_everything() && self.conditions.is_empty()
    }

    /// Whether files that are not selected may be passed over in a checkpoint before anything but their partition values is read.
    /// Not if some files are withheld: of a file that a checkpoint names twice, against Delta's protocol, only the first entry
    /// counts, and passing over that one would give the other.
    pub(super) fn may_pass_over(&self) -> bool {
        self.access.allows_everything() && !self.conditions.is_empty()
    }

    /// Decides on a file. `value` gives the value of a partition column by its physical name: `None` if the log has none,
    /// `Some(None)` for a null.
    pub(super) fn choose<'a>(&self, value: impl Fn(&str) -> Option<Option<&'a str>>) -> Choice {
        if !self.access.allows(&value) {
            Choice::Withheld
        } else if self.conditions.may_match(value) {
            Choice::Given
        } else {
            Choice::LeftOut
        }
    }

    /// Counts files that were left out.
    pub(super) fn count_left_out(&self, files: u64) {
        self.left_out.fetch_add(files, Ordering::Relaxed);
    }

    /// How many files were left out. Files of a checkpoint that later commits removed may be among them.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Sets the count back to what it was, because what follows is or was counted in another pass over the log.
    pub(super) fn set_left_out(&self, files: u64) {
        self.left_out.store(files, Ordering::Relaxed);
    }
}
