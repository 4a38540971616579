//! The body of a request.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::limits::Limits;

/// How much of a body that is too large is received and thrown away, as a multiple of the limit.
const MOST_DISCARDED: usize = 16;

/// The body of a request, in time and within its limit.
pub(super) async fn read_body(body: Body, limits: &Limits) -> Result<Bytes> {
    let read = read_to_limit(body, limits.body_bytes);
    timeout(limits.body_timeout, read)
        .await
        .unwrap_or_else(|_| Err(Error::request_timeout("The body of the request did not arrive in time.")))
}

/// What is beyond the limit is received as well, up to a point, but not kept: a client that is still sending when
/// its connection is closed does not see the answer.
async fn read_to_limit(body: Body, limit: usize) -> Result<Bytes> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut received) = (BytesMut::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|error| Error::malformed("The body of the request breaks off.").with_source(error))?;
        received += chunk.len();
        if received <= limit {
            kept.extend_from_slice(&chunk);
        } else if received > limit.saturating_mul(MOST_DISCARDED) {
            break;
        }
    }
    if received > limit {
        return Err(Error::request_too_large(format!(
            "The body of the request has more than {limit} bytes, which is the most that this server takes."
        )));
    }
    Ok(kept.freeze())
}
