//! Ends what the kernel reads for somebody who does not wait any more.
//!
//! The kernel blocks until its store answers. The tasks that it starts on the runtime know for whose request they work, so
//! that their requests to the store fail as soon as nobody waits for the result.

use buoyant_kernel::DeltaResult;
use buoyant_kernel::object_store::{Error, Result};
use buoyant_kernel_engine::executor::TaskExecutor;
use buoyant_kernel_engine::executor::tokio::TokioMultiThreadExecutor;
use futures::StreamExt as _;
use futures::future::{BoxFuture, Either, select};
use futures::stream::BoxStream;

use crate::gate::Stop;

tokio::task_local! {
    static STOP: Option<Stop>;
}

/// What this task, or this thread, works for.
fn current() -> Option<Stop> {
    STOP.try_with(Clone::clone).ok().flatten().or_else(Stop::current)
}

/// The kernel's executor, whose tasks know what they are for.
#[derive(Debug)]
pub(super) struct StoppableExecutor(TokioMultiThreadExecutor);

impl StoppableExecutor {
    pub(super) fn new(runtime: tokio::runtime::Handle) -> Self {
        Self(TokioMultiThreadExecutor::new(runtime))
    }
}

impl TaskExecutor for StoppableExecutor {
    type Guard<'a> = <TokioMultiThreadExecutor as TaskExecutor>::Guard<'a>;

    fn block_on<T>(&self, task: T) -> T::Output
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        // The kernel calls this on threads that may block. A worker of the runtime would panic here.
        self.0.block_on(STOP.scope(current(), task))
    }

    fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn(STOP.scope(current(), task));
    }

    fn spawn_blocking<T, R>(&self, task: T) -> BoxFuture<'_, DeltaResult<R>>
    where
        T: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.0.spawn_blocking(task)
    }

    fn enter(&self) -> Self::Guard<'_> {
        self.0.enter()
    }
}

/// Waits until there is memory to decode a batch. `first` and `next` are as in [`Stop::use_memory`]; both are estimates.
pub(super) async fn memory_for(first: u64, next: u64) -> Result<()> {
    let Some(stop) = current() else { return Ok(()) };
    let taken = async {
        stop.use_memory(first, next).await;
        Ok(())
    };
    unless_stopped(taken).await
}

/// The same on a thread that may block.
pub(super) fn wait_for_memory(runtime: &tokio::runtime::Handle, first: u64, next: u64) -> Result<()> {
    match current() {
        // Batches are read by iterators, which cannot await. Their thread may block.
        Some(_) => runtime.block_on(memory_for(first, next)),
        None => Ok(()),
    }
}

/// Gives back the memory that a batch was decoded with; returns what the next one of the same data takes.
pub(super) fn batch_is_decoded() -> u64 {
    current().map_or(0, |stop| stop.batch_is_decoded())
}

/// A request to the store, which fails when nobody waits for it any more.
pub(super) async fn unless_stopped<T>(request: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(stop) = current() else { return request.await };
    let (request, stopped) = (std::pin::pin!(request), std::pin::pin!(stop.stopped()));
    match select(request, stopped).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(stopped_error()),
    }
}

/// A listing that ends with an error when nobody waits for it any more.
pub(super) fn stoppable<T: Send + 'static>(
    listed: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    let Some(stop) = current() else { return listed };
    let rest = futures::stream::iter([stop.clone()]);
    let rest = rest.filter_map(async |stop| stop.is_stopped().then(|| Err(stopped_error())));
    listed.take_until(stop.stopped()).chain(rest).boxed()
}

fn stopped_error() -> Error {
    Error::Generic { store: "log", source: "the client no longer waits for the answer".into() }
}
