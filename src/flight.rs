//! Work that many ask for at the same time, done once for all of them.
//!
//! Whoever asks gets the result of work that begins after they asked, never of work that is under way: it may have
//! looked before something happened that they know of. So there are at most two flights for one thing: one that is
//! under way, and one that begins when that is over, which all who ask meanwhile wait for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::error::Result;

/// How many things are looked through for those that nobody asks for any more.
const TIDY_ABOVE: usize = 16;

/// The flights for things that are named by a `K`.
pub struct Flights<K, T: Clone>(Mutex<HashMap<K, Slot<T>>>);

/// What all who wait for one flight hold. The work ends with the last of them.
pub type Flight<T> = Shared<BoxFuture<'static, Result<T>>>;

struct Slot<T: Clone> {
    /// Held by the flight that is under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The flight that began last.
    last: Option<Last<T>>,
}

struct Last<T: Clone> {
    begun: Arc<AtomicBool>,
    flight: WeakShared<BoxFuture<'static, Result<T>>>,
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// The flight for `key` that has not begun yet, or a new one that does `work`.
    pub fn join<F>(&self, key: K, work: impl FnOnce() -> F + Send + 'static) -> Flight<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() > TIDY_ABOVE {
            slots.retain(|_, slot| Arc::strong_count(&slot.turn) > 1);
        }
        let slot = slots.entry(key).or_insert_with(|| Slot { turn: Arc::default(), last: None });
        if let Some(last) = &slot.last
            && !last.begun.load(Ordering::SeqCst)
            && let Some(flight) = last.flight.upgrade()
        {
            return flight;
        }
        let begun = Arc::new(AtomicBool::new(false));
        let (turn, begins) = (Arc::clone(&slot.turn), Arc::clone(&begun));
        let flight = async move {
            let _turn = turn.lock_owned().await;
            // From here on it may look at what happens next, so nobody else may join.
            begins.store(true, Ordering::SeqCst);
            work().await
        };
        let flight = flight.boxed().shared();
        slot.last = flight.downgrade().map(|flight| Last { begun, flight });
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::error::{Error, ErrorCode};

    /// Work that takes until a permit is there, and counts its beginnings.
    struct Work {
        flights: Flights<u64, usize>,
        begun: Arc<AtomicUsize>,
        gate: Arc<Semaphore>,
    }

    impl Work {
        fn new() -> Self {
            Self { flights: Flights::default(), begun: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
        }

        /// Asks, and lets what was asked for begin if it can.
        async fn ask(&self, key: u64) -> tokio::task::JoinHandle<Result<usize>> {
            let (begun, gate) = (Arc::clone(&self.begun), Arc::clone(&self.gate));
            let flight = self.flights.join(key, move || async move {
                let number = begun.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                match number {
                    0 => Err(Error::unavailable("the first one fails")),
                    number => Ok(number),
                }
            });
            let waiting = tokio::spawn(flight);
            tokio::time::sleep(Duration::from_millis(5)).await;
            waiting
        }
    }

    #[tokio::test]
    async fn a_flight_under_way_is_not_joined_and_the_next_one_is_shared() {
        let work = Work::new();
        let first = work.ask(1).await;
        let mut next = Vec::new();
        for _ in 0..50 {
            next.push(work.ask(1).await);
        }
        assert_eq!(work.begun.load(Ordering::SeqCst), 1, "two at the same time");
        work.gate.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap_err().code(), ErrorCode::TemporarilyUnavailable);
        for next in next {
            assert_eq!(next.await.unwrap().unwrap(), 1);
        }
        assert_eq!(work.begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_error_goes_to_everybody_who_waits() {
        let work = Work::new();
        let (begun, flights) = (Arc::clone(&work.begun), &work.flights);
        let asked: Vec<_> = (0..10)
            .map(|_| {
                let begun = Arc::clone(&begun);
                flights.join(1, move || async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    Err(Error::unavailable("gone").with_source("the cause"))
                })
            })
            .collect();
        for flight in asked {
            let error = flight.await.unwrap_err();
            assert_eq!(error.message(), "gone");
            assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the cause");
        }
        assert_eq!(work.begun.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn different_things_do_not_wait_for_each_other() {
        let work = Work::new();
        let asked = [work.ask(1).await, work.ask(2).await, work.ask(3).await];
        assert_eq!(work.begun.load(Ordering::SeqCst), 3);
        work.gate.add_permits(3);
        for asked in asked {
            drop(asked.await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_flight_that_nobody_waits_for_ends() {
        let work = Work::new();
        let (first, second, third) = (work.ask(1).await, work.ask(1).await, work.ask(1).await);
        second.abort();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(work.begun.load(Ordering::SeqCst), 2, "the flight that one still waits for did not begin");
        work.gate.add_permits(1);
        assert_eq!(third.await.unwrap().unwrap(), 1);
        for key in 10..100 {
            drop(work.flights.join(key, || async { Ok(0) }));
        }
        assert!(work.flights.0.lock().unwrap().len() <= TIDY_ABOVE + 1);
    }
}
