//! The bytes that an answer grants, which count for the limit of its recipient.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::catalog::{Caller, Catalog};
use crate::error::Result;

/// The bytes of one answer to a recipient whose bytes are counted. They are added when the answer ends, or when this is dropped
/// because the answer broke off.
#[derive(Default)]
pub struct Charge(Option<Open>);

struct Open {
    catalog: Arc<dyn Catalog>,
    caller: Caller,
    runtime: Handle,
    bytes: u64,
}

impl Charge {
    /// Counts nothing if nothing has to be counted. Must be called within a runtime.
    pub(super) fn new(catalog: &Arc<dyn Catalog>, caller: &Caller) -> Self {
        let open = || Open {
            catalog: Arc::clone(catalog),
            caller: caller.clone(),
            runtime: Handle::current(),
            bytes: 0,
        };
        Self(caller.counts_bytes().then(open))
    }

    /// Says that the answer has granted so many bytes by now.
    pub fn granted(&mut self, bytes: u64) {
        if let Some(open) = &mut self.0 {
            open.bytes = bytes;
        }
    }

    /// Adds the bytes at the end of the answer, so that the next request finds them added. Blocks.
    pub fn settle(mut self) -> Result<()> {
        let Some(open) = &mut self.0 else { return Ok(()) };
        if open.bytes > 0 {
            open.runtime.block_on(open.catalog.charge(&open.caller, open.bytes))?;
            open.bytes = 0;
        }
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(Open { catalog, caller, runtime, bytes: bytes @ 1.. }) = self.0.take() else { return };
        runtime.spawn(async move {
            if let Err(error) = catalog.charge(&caller, bytes).await {
                let reason = error.source_text();
                tracing::error!(
                    recipient = caller.recipient(),
                    bytes,
                    reason,
                    "bytes of a recipient could not be counted"
                );
            }
        });
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Charge").field(&self.0.as_ref().map(|open| open.bytes)).finish()
    }
}
