//! A socket that does not wait for ever until its other end takes what is written.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How much the kernel keeps that it could not send yet. With less, a write waits as soon as the client is slow, and
/// continues as soon as it takes a little; with the kernel's own megabytes it would wait for a large part of them.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Learns what happens to a socket.
pub(crate) trait Observer {
    /// Bytes came in.
    fn received(&self);

    /// Whether a write waits for the other end.
    fn waits_to_send(&self, waits: bool);
}

/// A socket whose writes fail once the other end has taken nothing for `patience`.
pub(crate) struct Socket<O> {
    stream: TcpStream,
    patience: Duration,
    /// Ends when a write that waits has waited too long.
    stalled: Option<Pin<Box<Sleep>>>,
    observer: Arc<O>,
}

impl<O: Observer> Socket<O> {
    pub(crate) fn new(stream: TcpStream, patience: Duration, observer: Arc<O>) -> Self {
        let socket = SockRef::from(&stream);
        // Small writes must not wait for the acknowledgement of the one before.
        let set = socket.set_tcp_nodelay(true);
        #[cfg(target_os = "linux")]
        let set = set.and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES));
        if let Err(error) = set {
            tracing::debug!(%error, "options of a socket cannot be set");
        }
        Self { stream, patience, stalled: None, observer }
    }

    /// The outcome of a write, or a failure if it has waited too long.
    fn within_patience(
        &mut self,
        context: &mut Context<'_>,
        write: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if write.is_ready() {
            if self.stalled.take().is_some() {
                self.observer.waits_to_send(false);
            }
            return write;
        }
        if self.stalled.is_none() {
            self.observer.waits_to_send(true);
        }
        let patience = self.patience;
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<O: Observer> AsyncRead for Socket<O> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.observer.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<O: Observer> AsyncWrite for Socket<O> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within_patience(context, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within_patience(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
