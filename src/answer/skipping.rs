//! Which files of a version a query can do without, by the hints of its request: `predicateHints`,
//! `jsonPredicateHints` and `limitHint`. "Read Data from a Table" leaves it to the server to use them.

use std::sync::Arc;

use crate::audit::Audit;
use crate::delta::{AddFile, FileCursor, Metadata};
use crate::predicate::{FileFacts, Filter, Predicate, Verdict};
use crate::protocol::query::Hints;

/// The most bytes of predicates that are parsed.
const MOST_BYTES: usize = 1 << 20;
/// The most expressions of `predicateHints` that are parsed.
const MOST_EXPRESSIONS: usize = 1_000;
/// The most characters of an event that say why hints were ignored.
const MOST_REASONS: usize = 500;

/// Applies the hints of one query, or of one page of it. What it did is noted in the event of the request when it is
/// dropped.
pub struct Skipping {
    hints: ParsedHints,
    /// `None` before [`Self::prepare`], and without hints.
    filter: Option<Filter>,
    /// How many rows surely match in the files that were kept, by this page and those before it.
    rows: u64,
    left_out: u64,
    /// How many files the cursor left out.
    by_cursor: Box<dyn Fn() -> u64 + Send>,
    /// How many of them pages before this one said.
    said_before: u64,
    audit: Option<Arc<Audit>>,
}

/// The hints of a query, parsed.
#[derive(Debug, Clone, Default)]
pub struct ParsedHints {
    /// Predicates, all of which must hold.
    pub predicates: Arc<[Predicate]>,
    /// How many rows the client reads.
    limit: Option<u64>,
    is_empty: bool,
}

impl ParsedHints {
    /// Parses hints. That takes a while if they are long, so it is done where other work is done that blocks.
    pub fn new(hints: &Hints) -> Self {
        Self { predicates: predicates(hints).into(), limit: hints.limit, is_empty: hints.is_empty() }
    }
}

impl Skipping {
    /// The hints of the current request, for the files of a cursor that knows their predicates. `rows` is what the pages
    /// before have.
    pub fn new(hints: ParsedHints, rows: u64, files: &FileCursor) -> Self {
        let by_cursor = Box::new(files.left_out());
        let said_before = by_cursor();
        Self { hints, filter: None, rows, left_out: 0, by_cursor, said_before, audit: Audit::current() }
    }

    /// Binds the predicates to a version with this metadata. That takes a while if the schema is long, so it is done where
    /// other work is done that blocks.
    pub(super) fn prepare(&mut self, metadata: &Metadata) {
        if !self.hints.is_empty {
            let predicates = self.hints.predicates.to_vec();
            self.filter = Some(Filter::new(predicates, self.hints.limit.is_some(), metadata.columns()));
        }
    }

    /// Whether any file can be left out.
    pub(super) fn has_hints(&self) -> bool {
        self.filter.is_some()
    }

    /// Whether the files that were kept have as many rows as the client reads.
    pub(super) fn is_enough(&self) -> bool {
        self.hints.limit.is_some_and(|limit| self.rows >= limit)
    }

    /// How many rows surely match in the files that were kept.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Decides on a file, and counts it: every file is decided on once, in their order.
    pub(super) fn keeps(&mut self, file: &AddFile<'_>) -> bool {
        match self.judge(file) {
            Verdict::LeftOut => {
                self.left_out += 1;
                false
            }
            Verdict::Kept { matching_rows } => {
                self.rows = self.rows.saturating_add(matching_rows);
                true
            }
        }
    }

    /// Whether a file is left out, which is counted then. One that is kept is not: [`Self::keeps`] decides on it again.
    pub(super) fn leaves_out(&mut self, file: &AddFile<'_>) -> bool {
        let left_out = self.judge(file) == Verdict::LeftOut;
        self.left_out += u64::from(left_out);
        left_out
    }

    fn judge(&mut self, file: &AddFile<'_>) -> Verdict {
        match &mut self.filter {
            Some(filter) => filter.judge(&facts(file)),
            None => Verdict::Kept { matching_rows: 0 },
        }
    }
}

/// The predicates of hints, all of which must hold.
pub fn predicates(hints: &Hints) -> Vec<Predicate> {
    if hints.predicate_bytes() > MOST_BYTES {
        return vec![Predicate::Unsupported(format!("the predicates have more than {MOST_BYTES} bytes"))];
    }
    let more = (hints.sql.len() > MOST_EXPRESSIONS)
        .then(|| Predicate::Unsupported(format!("there are more than {MOST_EXPRESSIONS} expressions")));
    let sql = hints.sql.iter().take(MOST_EXPRESSIONS).map(|sql| Predicate::from_sql(sql));
    sql.chain(hints.json.iter().map(|json| Predicate::from_json(json))).chain(more).collect()
}

/// What a predicate reads of a file.
pub fn facts<'a>(file: &AddFile<'a>) -> FileFacts<'a, impl Fn(&str) -> Option<Option<&'a str>> + use<'a>> {
    let values = file.partition_values.clone();
    FileFacts {
        partition_value: move |name: &str| values.get(name),
        stats: file.stats,
        deleted_rows: file.deletion_vector.map_or(0, |vector| vector.cardinality.max(0).unsigned_abs()),
    }
}

impl Drop for Skipping {
    fn drop(&mut self) {
        let (Some(audit), Some(filter)) = (&self.audit, &self.filter) else { return };
        let reasons = filter.conjuncts().iter().flat_map(|conjunct| &conjunct.ignored);
        let reasons = reasons.map(String::as_str).collect::<Vec<_>>().join("; ");
        audit.note(|facts| {
            facts.left_out = Some(self.left_out + (self.by_cursor)().saturating_sub(self.said_before));
            facts.limit_reached = self.is_enough();
            facts.hints_ignored = (!reasons.is_empty()).then(|| reasons.chars().take(MOST_REASONS).collect());
        });
    }
}
