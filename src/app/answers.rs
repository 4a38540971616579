//! Answers in flight: how many each recipient has, and how many there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::limits::Limits;

/// The answers in flight.
#[derive(Debug)]
pub(super) struct Answers {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<Arc<str>, usize>,
}

/// One answer, which counts until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    answers: Arc<Answers>,
    recipient: Arc<str>,
}

impl Answers {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, counts: Mutex::default() }
    }

    pub(super) fn begin(self: &Arc<Self>, recipient: &str) -> Result<InFlight> {
        let mut counts = self.counts();
        let own = counts.of.get(recipient).copied().unwrap_or_default();
        let free = self.limits.answers.saturating_sub(counts.all);
        // The fewer are free, the fewer a recipient may add, and the last ones are for those who have none.
        if own >= self.limits.recipient_answers || (own > 0 && own >= free / 2) {
            return Err(Error::too_many_requests(
                "Too many answers to this recipient are in flight; read some of them, or try again later.",
            ));
        }
        if free == 0 {
            return Err(Error::unavailable("Too many answers are in flight; try again later."));
        }
        counts.all += 1;
        let recipient: Arc<str> = recipient.into();
        counts.of.insert(Arc::clone(&recipient), own + 1);
        Ok(InFlight { answers: Arc::clone(self), recipient })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut counts = self.answers.counts();
        counts.all -= 1;
        match counts.of.get_mut(&self.recipient) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(counts.of.remove(&self.recipient)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn a_recipient_has_a_share_of_all_answers() {
        let limits = Limits { answers: 16, recipient_answers: 3, ..Limits::default() };
        let answers = Arc::new(Answers::new(limits));
        let mut greedy: Vec<_> = (0..3).map(|_| answers.begin("greedy").unwrap()).collect();
        let refused = || answers.begin("greedy").map(drop).unwrap_err().code();
        assert_eq!(refused(), ErrorCode::RequestLimitExceeded);
        greedy.pop();
        greedy.push(answers.begin("greedy").unwrap());
        assert_eq!(refused(), ErrorCode::RequestLimitExceeded);
        drop(greedy);
        assert!(answers.counts().of.is_empty() && answers.counts().all == 0);
    }

    #[test]
    fn greedy_recipients_leave_answers_to_the_others() {
        let limits = Limits { answers: 256, recipient_answers: 64, ..Limits::default() };
        let answers = Arc::new(Answers::new(limits));
        let take_all =
            |recipient: &str| -> Vec<_> { std::iter::from_fn(|| answers.begin(recipient).ok()).collect() };
        let greedy: Vec<_> = (0..8).map(|number| take_all(&number.to_string())).collect();
        assert_eq!(greedy.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 43, 28, 19, 13, 8, 6]);
        let others: Vec<_> = (100..111).map(|number| answers.begin(&number.to_string()).unwrap()).collect();
        assert_eq!(
            answers.begin("one more").map(drop).unwrap_err().code(),
            ErrorCode::TemporarilyUnavailable
        );
        assert_eq!(answers.begin("0").map(drop).unwrap_err().code(), ErrorCode::RequestLimitExceeded);
        drop((greedy, others));
        assert!(answers.counts().of.is_empty() && answers.counts().all == 0);
    }
}
