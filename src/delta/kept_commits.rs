//! Texts of commits that are kept in memory between two passes over them, within a budget.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// How many bytes of commits all answers together may keep.
#[derive(Debug)]
pub struct CommitBudget {
    left: AtomicUsize,
}

impl CommitBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Texts of commits, in their order, which count in a budget until they are taken out.
#[derive(Default)]
pub(super) struct KeptCommits {
    texts: VecDeque<Bytes>,
    budget: Option<Arc<CommitBudget>>,
}

impl KeptCommits {
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn next(&mut self) -> Option<Bytes> {
        let text = self.texts.pop_front()?;
        if let Some(budget) = &self.budget {
            budget.give_back(text.len());
        }
        Some(text)
    }
}

impl Drop for KeptCommits {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

/// Keeps texts of commits, from the first one on, as far as the budgets allow.
pub(super) struct CommitKeeper {
    left: usize,
    full: bool,
    budget: Arc<CommitBudget>,
    texts: KeptCommits,
}

impl CommitKeeper {
    /// Up to so many bytes, and what is left of the budget of all.
    pub(super) fn new(bytes: usize, budget: &Arc<CommitBudget>) -> Self {
        let texts = KeptCommits { texts: VecDeque::new(), budget: Some(Arc::clone(budget)) };
        Self { left: bytes, full: false, budget: Arc::clone(budget), texts }
    }

    /// Keeps the next text, unless it or one before it does not fit.
    pub(super) fn keep(&mut self, text: &Bytes) {
        let left = self.left.checked_sub(text.len()).filter(|_| !self.full);
        match left.filter(|_| self.budget.take(text.len())) {
            Some(left) => {
                self.left = left;
                self.texts.texts.push_back(text.clone());
            }
            // Of those that follow none is kept, not even one without bytes.
            None => self.full = true,
        }
    }

    pub(super) fn into_kept(self) -> KeptCommits {
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(kept: &mut CommitKeeper, texts: &[&'static str]) {
        texts.iter().for_each(|text| kept.keep(&Bytes::from_static(text.as_bytes())));
    }

    fn all(mut texts: KeptCommits) -> Vec<Bytes> {
        std::iter::from_fn(|| texts.next()).collect()
    }

    #[test]
    fn texts_are_kept_from_the_first_one_on() {
        let mut kept = CommitKeeper::new(10, &Arc::new(CommitBudget::new(100)));
        keep(&mut kept, &["1234", "56789", "toolong", "0", "1"]);
        assert_eq!(all(kept.into_kept()), ["1234", "56789"]);
    }

    #[test]
    fn all_answers_together_keep_within_one_budget() {
        let budget = Arc::new(CommitBudget::new(10));
        let (mut one, mut two) = (CommitKeeper::new(8, &budget), CommitKeeper::new(8, &budget));
        keep(&mut one, &["123456"]);
        keep(&mut two, &["123", "45", "6"]);
        assert_eq!(budget.left.load(Ordering::Relaxed), 1);
        assert_eq!(two.texts.len(), 1);
        let mut texts = one.into_kept();
        assert_eq!(texts.next().unwrap(), "123456");
        assert_eq!(budget.left.load(Ordering::Relaxed), 7);
        keep(&mut two, &["6"]);
        assert_eq!(all(two.into_kept()), ["123"]);
        assert_eq!(budget.left.load(Ordering::Relaxed), 10);
        let mut dropped = CommitKeeper::new(8, &budget);
        keep(&mut dropped, &["12345678"]);
        drop(dropped);
        assert_eq!(budget.left.load(Ordering::Relaxed), 10);
    }
}
