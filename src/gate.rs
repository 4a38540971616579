//! Threads for work that blocks, shared out so that no table and no bucket can take all of them.
//!
//! Work waits for its turn without a thread. If the one who waits for its result goes away, work that has not begun
//! never begins, and work that has begun can see that it should stop ([`Stop`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::error::{Error, Result};
use crate::limits::Limits;

/// All threads for work that blocks.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    all: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    buckets: Mutex<HashMap<String, Arc<Bucket>>>,
}

/// What tables in one bucket share.
#[derive(Debug)]
struct Bucket {
    threads: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One table's way to a thread. Cheap to clone; clones share the table's part.
#[derive(Debug, Clone)]
pub struct Lane {
    limits: Limits,
    /// Taken in this order: the table's, the bucket's, and one of all.
    table: Arc<Semaphore>,
    bucket: Arc<Bucket>,
    all: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

/// The right to one thread.
#[derive(Debug)]
pub struct Turn {
    _permits: [OwnedSemaphorePermit; 3],
    memory: Arc<Memory>,
}

/// The memory for large batches that one piece of work uses.
#[derive(Debug)]
struct Memory {
    /// The bucket's, and that of all.
    pools: [(Arc<Semaphore>, u32); 2],
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    _permits: Vec<OwnedSemaphorePermit>,
    /// What the next batch of the same data takes.
    next: u64,
}

/// What decodes in less memory does not wait for it.
pub const LARGE_BATCH: u64 = 8 << 20;

/// What one permit for memory stands for.
const UNIT: u64 = 1 << 20;

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

impl Gate {
    /// Threads as `limits` share them out.
    pub fn new(limits: Limits) -> Self {
        let memory = Arc::new(Semaphore::new(units(limits.decode_bytes) as usize));
        Self { limits, all: Arc::new(Semaphore::new(limits.work_threads)), memory, buckets: Mutex::default() }
    }

    /// The lane of a table in `bucket`.
    pub fn lane(&self, bucket: String) -> Lane {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // A bucket is forgotten with the last of its tables.
        buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1);
        let bucket = buckets.entry(bucket).or_insert_with(|| {
            let threads = Arc::new(Semaphore::new(self.limits.bucket_threads));
            let memory = Arc::new(Semaphore::new(units(self.limits.decode_bytes / 2) as usize));
            Arc::new(Bucket { threads, memory, waiting: AtomicUsize::new(0) })
        });
        Lane {
            limits: self.limits,
            table: Arc::new(Semaphore::new(self.limits.table_threads)),
            bucket: Arc::clone(bucket),
            all: Arc::clone(&self.all),
            memory: Arc::clone(&self.memory),
        }
    }
}

impl Lane {
    /// The limits that the threads are shared out by.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs work that blocks on a thread that may block, as soon as one is free.
    ///
    /// 503 if too many wait already, or if the wait takes too long.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.turn().await?.run(work).await
    }

    /// Waits until new work may start. Fails if too many wait already, or if it takes too long.
    pub async fn turn(&self) -> Result<Turn> {
        if let Some(turn) = self.turn_now() {
            return Ok(turn);
        }
        let _waiting = Waiting::begin(&self.bucket, self.limits.bucket_queue)?;
        let longest = Duration::from_secs(self.limits.queue_seconds);
        tokio::time::timeout(longest, self.next_turn()).await.map_err(|_| busy())?
    }

    /// Waits for a turn of something that has begun and is not to be given up.
    pub async fn next_turn(&self) -> Result<Turn> {
        let take =
            async |from: &Arc<Semaphore>| Arc::clone(from).acquire_owned().await.map_err(Error::internal);
        // The narrowest first: what waits for a table or a bucket then holds nothing that others wait for.
        let permits = [take(&self.table).await?, take(&self.bucket.threads).await?, take(&self.all).await?];
        Ok(self.begin(permits))
    }

    fn turn_now(&self) -> Option<Turn> {
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_owned().ok();
        Some(self.begin([take(&self.table)?, take(&self.bucket.threads)?, take(&self.all)?]))
    }

    fn begin(&self, permits: [OwnedSemaphorePermit; 3]) -> Turn {
        let all = self.limits.decode_bytes;
        let pools =
            [(Arc::clone(&self.bucket.memory), units(all / 2)), (Arc::clone(&self.memory), units(all))];
        Turn { _permits: permits, memory: Arc::new(Memory { pools, used: Mutex::default() }) }
    }
}

/// One who waits for a thread.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(bucket: &'a Bucket, most: usize) -> Result<Self> {
        let waiting = Self(&bucket.waiting);
        match bucket.waiting.fetch_add(1, Ordering::Relaxed) {
            before if before < most => Ok(waiting),
            _ => Err(busy()),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy() -> Error {
    Error::unavailable("Too many requests wait for the table's storage; try again later.")
}

impl Turn {
    /// Runs what blocks. The turn is over when the work is, even if nobody waits for the work any more.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = watch::channel(false);
        let mut stopping = StopOnDrop { sender, over: false };
        let span = tracing::Span::current();
        let done = tokio::task::spawn_blocking(move || {
            let stop = Stop { stopped: receiver, memory: Arc::clone(&self.memory) };
            let _turn = self;
            let _known = Known::until_dropped(stop);
            span.in_scope(work)
        });
        // If this future is dropped here, `stopping` tells the work, which cannot be aborted on its thread.
        let done = done.await;
        stopping.over = true;
        done.map_err(Error::internal)
    }
}

struct StopOnDrop {
    sender: watch::Sender<bool>,
    over: bool,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if !self.over {
            self.sender.send_replace(true);
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

/// Tells work that nobody waits for its result any more, and shares out memory to it.
#[derive(Debug, Clone)]
pub struct Stop {
    stopped: watch::Receiver<bool>,
    memory: Arc<Memory>,
}

impl Stop {
    /// The stop of the work that this thread does, if it does any.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Whether nobody waits any more.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Returns when nobody waits any more, and never if the work is over before that.
    pub async fn stopped(mut self) {
        if self.stopped.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until memory for a large batch is free, in place of what this work uses already. `first` is what the batch takes in
    /// all, `next` what each further batch of the same data takes. Small batches do not wait.
    pub async fn use_memory(&self, first: u64, next: u64) {
        self.memory.take(first, next).await;
    }

    /// Gives back the memory that the last batch was decoded with; returns what the next one takes.
    pub fn batch_is_decoded(&self) -> u64 {
        self.memory.give_back()
    }
}

impl Memory {
    async fn take(&self, first: u64, next: u64) {
        // Nobody who has some waits for more, so that some work always continues.
        self.give_back();
        let mut permits = Vec::new();
        if first >= LARGE_BATCH {
            for (pool, most) in &self.pools {
                let wanted = units(first).min(*most);
                // The semaphores are never closed.
                permits.extend(Arc::clone(pool).acquire_many_owned(wanted).await);
            }
        }
        *self.used() = Used { _permits: permits, next };
    }

    fn give_back(&self) -> u64 {
        std::mem::take(&mut *self.used()).next
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this thread works for nobody any more.
pub fn is_stopped() -> bool {
    Stop::current().is_some_and(|stop| stop.is_stopped())
}

struct Known;

impl Known {
    fn until_dropped(stop: Stop) -> Self {
        CURRENT.set(Some(stop));
        Self
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(stop) = CURRENT.take() {
            stop.batch_is_decoded();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::error::ErrorCode;

    fn gate(limits: Limits) -> Gate {
        Gate::new(limits)
    }

    /// Holds a thread of the lane until the sender is dropped.
    async fn hold(lane: &Lane) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<()>>) {
        let (release, released) = mpsc::channel::<()>();
        let (lane, (began, beginning)) = (lane.clone(), tokio::sync::oneshot::channel());
        let held = tokio::spawn(async move {
            lane.run(move || {
                began.send(()).unwrap();
                let _ = released.recv();
            })
            .await
        });
        beginning.await.unwrap();
        (release, held)
    }

    #[tokio::test]
    async fn a_bucket_that_hangs_leaves_threads_to_the_others() {
        let gate = gate(Limits { work_threads: 3, bucket_threads: 2, table_threads: 1, ..Limits::default() });
        let (one, two, three) =
            (gate.lane("dead".into()), gate.lane("dead".into()), gate.lane("dead".into()));
        let held = [hold(&one).await, hold(&two).await];
        let waits = tokio::time::timeout(Duration::from_millis(50), three.run(|| ())).await;
        assert!(waits.is_err(), "a third thread of the bucket");
        let waits = tokio::time::timeout(Duration::from_millis(50), one.run(|| ())).await;
        assert!(waits.is_err(), "a second thread of the table");
        assert_eq!(gate.lane("alive".into()).run(|| 1).await.unwrap(), 1);
        for (release, held) in held {
            drop(release);
            held.await.unwrap().unwrap();
        }
        three.run(|| ()).await.unwrap();
    }

    #[tokio::test]
    async fn a_queue_that_is_full_or_does_not_move_is_503() {
        let limits = Limits { bucket_threads: 1, bucket_queue: 1, queue_seconds: 1, ..Limits::default() };
        let gate = gate(limits);
        let (one, two) = (gate.lane("dead".into()), gate.lane("dead".into()));
        let (release, held) = hold(&one).await;
        let waiting = tokio::spawn({
            let two = two.clone();
            async move { two.run(|| ()).await }
        });
        while two.bucket.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = two.run(|| ()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::TemporarilyUnavailable);
        assert!(refused.retry_after().is_some());
        assert_eq!(waiting.await.unwrap().unwrap_err().code(), ErrorCode::TemporarilyUnavailable);
        assert_eq!(two.bucket.waiting.load(Ordering::Relaxed), 0);
        drop(release);
        held.await.unwrap().unwrap();
        two.run(|| ()).await.unwrap();
    }

    #[tokio::test]
    async fn large_batches_wait_for_memory_and_small_ones_do_not() {
        let gate = gate(Limits { decode_bytes: 100 * UNIT, ..Limits::default() });
        let lanes = ["fat", "fat", "thin"].map(|bucket| gate.lane(bucket.into()));
        let memory = lanes.map(|lane| lane.turn_now().unwrap().memory);
        let [first, second, other] = &memory;
        let waits = async |memory: &Memory, bytes: u64| {
            let taken = memory.take(bytes, 0);
            tokio::time::timeout(Duration::from_millis(50), taken).await.is_err()
        };
        assert!(!waits(first, 30 * UNIT).await);
        assert!(waits(second, 30 * UNIT).await, "more than half of it in one bucket");
        assert!(!waits(second, LARGE_BATCH - 1).await);
        assert!(!waits(other, 50 * UNIT).await);
        assert!(!waits(first, 50 * UNIT).await, "what it has is given back first");
        assert!(waits(second, 10 * UNIT).await);
        first.give_back();
        // More than there is means: alone.
        assert!(waits(second, 1000 * UNIT).await);
        other.give_back();
        assert!(!waits(second, 1000 * UNIT).await);
        assert!(waits(other, LARGE_BATCH).await);
        assert!(waits(first, LARGE_BATCH).await);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_stopped_or_never_begins() {
        let gate = gate(Limits { table_threads: 1, ..Limits::default() });
        let lane = gate.lane("b".into());
        let (began, beginning) = tokio::sync::oneshot::channel();
        let (told, was_told) = tokio::sync::oneshot::channel();
        let running = tokio::spawn({
            let lane = lane.clone();
            async move {
                lane.run(move || {
                    began.send(()).unwrap();
                    let stop = Stop::current().unwrap();
                    tokio::runtime::Handle::current().block_on(stop.stopped());
                    told.send(is_stopped()).unwrap();
                })
                .await
            }
        });
        beginning.await.unwrap();
        let (ran, never_ran) = tokio::sync::oneshot::channel::<()>();
        let waiting = tokio::spawn({
            let lane = lane.clone();
            async move { lane.run(move || ran.send(())).await }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        running.abort();
        assert!(was_told.await.unwrap());
        assert!(never_ran.await.is_err());
        assert!(lane.run(|| !is_stopped()).await.unwrap());
    }
}
