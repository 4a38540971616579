//! Files of the log, fetched together, handed out in order.

use std::collections::VecDeque;
use std::sync::Arc;

use buoyant_kernel::FileMeta;
use buoyant_kernel::object_store::path::Path;
use buoyant_kernel::object_store::{self, Error as StoreError, ObjectStore, ObjectStoreExt as _};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::executor::unless_stopped;
use super::failure::failure;
use crate::error::Result;

/// The most files that are fetched at the same time: commits are small, so that the time for each is the way to S3.
const FILES: usize = 48;

/// The most bytes that are fetched and not yet handed out, unless one file alone is larger.
const BYTES: u64 = 16 * 1024 * 1024;

/// Reads whole files of the log. Dropping it ends what is under way.
pub(super) struct ReadAhead {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    files: std::vec::IntoIter<FileMeta>,
    running: VecDeque<Fetch>,
    bytes: u64,
}

struct Fetch {
    task: JoinHandle<object_store::Result<Bytes>>,
    bytes: u64,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ReadAhead {
    pub(super) fn new(store: Arc<dyn ObjectStore>, runtime: Handle, files: Vec<FileMeta>) -> Self {
        Self { store, runtime, files: files.into_iter(), running: VecDeque::new(), bytes: 0 }
    }

    /// The next file; `None` after the last one. Blocks.
    pub(super) fn next(&mut self) -> Option<Result<Bytes>> {
        self.fill();
        let mut fetch = self.running.pop_front()?;
        self.bytes -= fetch.bytes;
        let task =
            async { (&mut fetch.task).await.unwrap_or_else(|source| Err(StoreError::JoinError { source })) };
        // The kernel's readers are iterators, so this thread, which may block, waits for the future.
        let read = self.runtime.block_on(unless_stopped(task));
        Some(read.map_err(|error| failure(error.into())))
    }

    fn fill(&mut self) {
        while let Some(file) = self.files.as_slice().first() {
            let (path, bytes) = (Path::from(file.location.path()), file.size);
            let full = self.running.len() >= FILES || self.bytes + bytes > BYTES;
            if full && !self.running.is_empty() {
                return;
            }
            self.files.next();
            let store = Arc::clone(&self.store);
            let task = self.runtime.spawn(async move { store.get(&path).await?.bytes().await });
            self.running.push_back(Fetch { task, bytes });
            self.bytes += bytes;
        }
    }
}
