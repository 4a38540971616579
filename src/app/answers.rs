//! Answers in flight: how many each recipient has, and how many there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::charge::Charge;
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
    all: Sum,
    of: HashMap<Arc<str>, Sum>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    answers: usize,
    bytes: usize,
}

/// One answer, which counts until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    answers: Arc<Answers>,
    recipient: Arc<str>,
    charge: Charge,
}

/// The memory that an answer holds of the log, which counts until this is dropped.
#[derive(Debug)]
pub struct MemoryAccount {
    answers: Arc<Answers>,
    recipient: Arc<str>,
    bytes: usize,
}

impl Answers {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, counts: Mutex::default() }
    }

    pub(super) fn begin(self: &Arc<Self>, recipient: &str) -> Result<InFlight> {
        let mut counts = self.counts();
        let own = counts.of.get(recipient).map_or(0, |own| own.answers);
        let free = self.limits.answers.saturating_sub(counts.all.answers);
        // The fewer are free, the fewer a recipient may add, and the last ones are for those who have none.
        if own >= self.limits.recipient_answers || (own > 0 && own >= free / 2) {
            return Err(Error::too_many_requests(
                "Too many answers to this recipient are in flight; read some of them, or try again later.",
            ));
        }
        if free == 0 {
            return Err(Error::unavailable("Too many answers are in flight; try again later."));
        }
        let recipient: Arc<str> = recipient.into();
        counts.update(&recipient, |sum| sum.answers += 1);
        Ok(InFlight { answers: Arc::clone(self), recipient, charge: Charge::default() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn update(&mut self, recipient: &Arc<str>, change: impl Fn(&mut Sum)) {
        change(&mut self.all);
        let own = self.of.entry(Arc::clone(recipient)).or_default();
        change(own);
        if own.answers == 0 && own.bytes == 0 {
            self.of.remove(recipient);
        }
    }
}

impl InFlight {
    /// The same answer, whose bytes are counted.
    pub(super) fn charged(mut self, charge: Charge) -> Self {
        self.charge = charge;
        self
    }

    /// What counts the bytes of the answer: once, for who writes it.
    pub fn take_charge(&mut self) -> Charge {
        std::mem::take(&mut self.charge)
    }

    /// The account of what the answer holds in memory.
    pub fn memory(&self) -> MemoryAccount {
        MemoryAccount { answers: Arc::clone(&self.answers), recipient: Arc::clone(&self.recipient), bytes: 0 }
    }
}

impl Default for MemoryAccount {
    /// An account that no other answer shares.
    fn default() -> Self {
        Self { answers: Arc::new(Answers::new(Limits::default())), recipient: Arc::from(""), bytes: 0 }
    }
}

impl MemoryAccount {
    /// Says that the answer holds so many bytes by now. Fails if the recipient's answers together, or all answers, hold too much;
    /// one answer alone may hold any amount.
    pub fn hold(&mut self, bytes: usize) -> Result<()> {
        if bytes == self.bytes {
            return Ok(());
        }
        let limits = self.answers.limits;
        let mut counts = self.answers.counts();
        let own = counts.of.get(&self.recipient).map_or(0, |own| own.bytes);
        let exceeds = |sum: usize, limit: usize| {
            let others = sum.saturating_sub(self.bytes);
            bytes > self.bytes && others > 0 && others + bytes > limit
        };
        if exceeds(own, limits.recipient_answer_bytes) {
            return Err(Error::too_many_requests(
                "The answers to this recipient that are in flight take too much memory; read some of them, or try again later.",
            ));
        }
        if exceeds(counts.all.bytes, limits.answer_bytes) {
            return Err(Error::unavailable("The answers in flight take too much memory; try again later."));
        }
        let before = std::mem::replace(&mut self.bytes, bytes);
        counts.update(&self.recipient, |sum| sum.bytes = sum.bytes + bytes - before);
        Ok(())
    }
}

impl Drop for MemoryAccount {
    fn drop(&mut self) {
        let bytes = self.bytes;
        self.answers.counts().update(&self.recipient, |sum| sum.bytes -= bytes);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.answers.counts().update(&self.recipient, |sum| sum.answers -= 1);
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
        assert!(answers.counts().of.is_empty() && answers.counts().all.answers == 0);
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
        assert!(answers.counts().of.is_empty() && answers.counts().all.answers == 0);
    }

    #[test]
    fn answers_of_one_recipient_hold_so_much_memory() {
        let limits = Limits { recipient_answer_bytes: 100, answer_bytes: 150, ..Limits::default() };
        let answers = Arc::new(Answers::new(limits));
        let memory = |recipient: &str| answers.begin(recipient).unwrap().memory();
        let refused = |held: Result<()>| held.unwrap_err().code();
        let mut alone = memory("greedy");
        alone.hold(1000).unwrap();
        alone.hold(60).unwrap();
        let mut second = memory("greedy");
        second.hold(40).unwrap();
        assert_eq!(refused(second.hold(41)), ErrorCode::RequestLimitExceeded);
        second.hold(30).unwrap();
        let mut other = memory("other");
        other.hold(60).unwrap();
        assert_eq!(refused(other.hold(61)), ErrorCode::TemporarilyUnavailable);
        drop(alone);
        other.hold(61).unwrap();
        drop((second, other));
        assert!(answers.counts().of.is_empty() && answers.counts().all.bytes == 0);
    }
}
