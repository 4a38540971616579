//! The connections of `serve`: who gets one, and what ends it.
//!
//! A connection costs a file descriptor, and whoever opens one has not shown a token yet. So the number of connections is
//! limited, in all and for each address. At the limit, a new connection takes the place of one that waits for a request;
//! only if all of them have a request does a new one join the reserve, which answers `/health` and says 503 to
//! everything else. The reserve has a limit too; there the oldest connection makes room.
//!
//! HTTP/1.1 only: clients and proxies speak it, and one connection of HTTP/2 could have any number of requests at once.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, HeaderName, HeaderValue};
use axum::http::{Request, Response};
use axum::response::IntoResponse as _;
use deltashare::error::Error;
use deltashare::http::{SourceIp, is_health};
use deltashare::limits::Limits;
use deltashare::network::{Cidr, client_address};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::socket::{Observer, Socket};

/// How many connections there may be beyond the limit, for `/health`.
pub(crate) const RESERVE: usize = 16;

/// How long a connection of the reserve lives.
const RESERVE_LIFE: Duration = Duration::from_secs(5);

/// How much of an answer is kept for a client that is slower than the server, beside what the kernel keeps.
const BUFFER_BYTES: usize = 128 * 1024;

/// How long no connection is accepted after one could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked at whether a connection has waited too long.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Where proxies write the address that a request came from.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How often the same thing is logged.
const SELDOM: Duration = Duration::from_secs(10);

/// Answers connections until `stop` ends. Then it waits for requests in flight, for as long as `grace`; whether all of
/// them were answered.
pub(crate) async fn serve(
    listener: TcpListener,
    front: Front,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> bool {
    let graceful = GracefulShutdown::new();
    let front = Arc::new(front);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Arc::clone(&front).admit(peer);
                tokio::spawn(connection.run(stream, graceful.watcher()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                front.cannot_accept(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::time::timeout(grace, graceful.shutdown()).await.is_ok()
}

/// Whether a connection failed before it was accepted, and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// What all connections share.
pub(crate) struct Front {
    router: Router,
    prefix: String,
    limits: Limits,
    /// The proxies whose `X-Forwarded-For` counts.
    trusted_proxies: Vec<Cidr>,
    connections: Mutex<Connections>,
}

/// The connections that are open, by their numbers, which grow.
#[derive(Default)]
struct Connections {
    next: u64,
    admitted: BTreeMap<u64, Arc<Watched>>,
    reserve: BTreeMap<u64, Arc<Watched>>,
    /// How many admitted connections each sender has.
    by_sender: HashMap<Sender, usize>,
    full: Seldom,
    cannot_accept: Seldom,
    not_taken: Seldom,
}

/// An address that connections come from. One network of IPv6 addresses counts as one, because whoever has one of them
/// has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sender(IpAddr);

impl Sender {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6((address.to_bits() >> 64 << 64).into())),
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
        }
    }
}

/// A connection as the others see it.
struct Watched {
    sender: Sender,
    phase: Mutex<Phase>,
    /// The end of an answer waits for the client, although the answer is over.
    sending: AtomicBool,
    /// The connection gives way to another one.
    end: Notify,
}

/// What a connection does.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nothing was sent yet.
    New(Instant),
    /// The beginning of a request was sent.
    Head(Instant),
    /// A request is being answered.
    Busy,
    /// An answer was sent, and the next request may come.
    Idle(Instant),
}

impl Phase {
    /// Since when a request is waited for.
    fn waits_since(self) -> Option<Instant> {
        match self {
            Self::New(since) | Self::Head(since) | Self::Idle(since) => Some(since),
            Self::Busy => None,
        }
    }
}

impl Watched {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when a request is waited for.
    fn waits_since(&self) -> Option<Instant> {
        self.phase().waits_since().filter(|_| !self.sending.load(Ordering::Relaxed))
    }

    /// When the connection ends unless it does something else until then.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        if self.sending.load(Ordering::Relaxed) {
            return None;
        }
        match *self.phase() {
            Phase::New(since) | Phase::Head(since) => Some(since + limits.header_timeout),
            Phase::Idle(since) => Some(since + limits.idle_timeout),
            Phase::Busy => None,
        }
    }
}

impl Observer for Watched {
    fn received(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::New(_) | Phase::Idle(_)) {
            *phase = Phase::Head(Instant::now());
        }
    }

    fn waits_to_send(&self, waits: bool) {
        self.sending.store(waits, Ordering::Relaxed);
        let mut phase = self.phase();
        if let Phase::Idle(_) = *phase {
            *phase = Phase::Idle(Instant::now());
        }
    }
}

impl Front {
    pub(crate) fn new(router: Router, prefix: &str, limits: Limits, trusted_proxies: Vec<Cidr>) -> Self {
        Self { router, prefix: prefix.to_owned(), limits, trusted_proxies, connections: Mutex::default() }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a place for a new connection.
    fn admit(self: Arc<Self>, peer: SocketAddr) -> Connection {
        let sender = Sender::of(peer.ip());
        let watched = Arc::new(Watched {
            sender,
            phase: Mutex::new(Phase::New(Instant::now())),
            sending: AtomicBool::new(false),
            end: Notify::new(),
        });
        let (number, reserve) = self.connections().admit(&watched, &self.limits);
        Connection { number, peer, reserve, watched, front: self }
    }

    /// Logs that the listener failed, and makes room in case descriptors have run out.
    fn cannot_accept(&self, error: &io::Error) {
        let mut open = self.connections();
        if let Some(times) = open.cannot_accept.now() {
            tracing::error!(times, "connections cannot be accepted: {error}");
        }
        open.make_room(None);
    }
}

impl Connections {
    /// The number of a new connection, and whether it is in the reserve.
    fn admit(&mut self, new: &Arc<Watched>, limits: &Limits) -> (u64, bool) {
        let number = self.next;
        self.next += 1;
        let of_sender = self.by_sender.get(&new.sender).copied().unwrap_or_default();
        let sender_is_full = of_sender >= limits.connections_per_address;
        let full = sender_is_full || self.admitted.len() >= limits.connections;
        if full && let Some(times) = self.full.now() {
            tracing::warn!(
                times,
                connections = self.admitted.len(),
                source_ip = %new.sender.0,
                connections_of_address = of_sender,
                "connections are at their limit; those without a request are closed, and beyond that requests get 503"
            );
        }
        if full && !self.make_room(sender_is_full.then_some(new.sender)) {
            if self.reserve.len() >= RESERVE
                && let Some((_, oldest)) = self.reserve.pop_first()
            {
                oldest.end.notify_one();
            }
            self.reserve.insert(number, Arc::clone(new));
            return (number, true);
        }
        self.admitted.insert(number, Arc::clone(new));
        *self.by_sender.entry(new.sender).or_default() += 1;
        (number, false)
    }

    /// Ends a connection that waits for a request: of this sender, or of the one with the most connections. Of several
    /// the one that has waited longest. False if there is none.
    fn make_room(&mut self, sender: Option<Sender>) -> bool {
        let waiting = self.admitted.iter().filter_map(|(number, watched)| {
            let since = watched.waits_since()?;
            sender.is_none_or(|sender| sender == watched.sender).then_some((*number, watched, since))
        });
        let victim = waiting.max_by_key(|(_, watched, since)| {
            (self.by_sender.get(&watched.sender).copied(), std::cmp::Reverse(*since))
        });
        let Some((number, watched, _)) = victim else { return false };
        watched.end.notify_one();
        self.remove(number);
        true
    }

    fn remove(&mut self, number: u64) {
        self.reserve.remove(&number);
        let Some(removed) = self.admitted.remove(&number) else { return };
        if let Some(count) = self.by_sender.get_mut(&removed.sender) {
            *count -= 1;
            if *count == 0 {
                self.by_sender.remove(&removed.sender);
            }
        }
    }
}

/// One connection, with its place among the others, which it leaves when it is dropped.
struct Connection {
    number: u64,
    peer: SocketAddr,
    reserve: bool,
    watched: Arc<Watched>,
    front: Arc<Front>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.front.connections().remove(self.number);
    }
}

impl Connection {
    async fn run(self, stream: TcpStream, graceful: Watcher) {
        let limits = &self.front.limits;
        let socket = Socket::new(stream, limits.send_timeout, Arc::clone(&self.watched));
        let service = service_fn(|request| self.answer(request));
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_header_size(limits.header_bytes)
            .max_buf_size(BUFFER_BYTES.max(limits.header_bytes))
            .keep_alive(!self.reserve)
            .serve_connection(TokioIo::new(socket), service);
        let connection = graceful.watch(connection);
        let over = async {
            if self.reserve {
                return tokio::time::sleep(RESERVE_LIFE).await;
            }
            self.waited_too_long().await;
        };
        tokio::select! {
            done = connection => if let Err(error) = done {
                self.log(&error);
            },
            () = over => tracing::debug!(source_ip = %self.peer.ip(), "a connection without a request is closed"),
            () = self.watched.end.notified() => {}
        }
    }

    /// Ends when a request has not come in time.
    async fn waited_too_long(&self) {
        loop {
            let now = Instant::now();
            let deadline = self.watched.deadline(&self.front.limits);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            // What the connection does may change meanwhile.
            let next = now + LOOK_AGAIN;
            tokio::time::sleep_until(deadline.map_or(next, |deadline| deadline.min(next)).into()).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        *self.watched.phase() = Phase::Busy;
        let mut request = request.map(Body::new);
        let response = if self.reserve && !is_health(&self.front.prefix, request.uri().path()) {
            let full = Error::unavailable("The server has too many connections; try again later.");
            let mut response = full.into_response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        } else {
            let forwarded = request.headers().get_all(FORWARDED_FOR).iter().map(|value| value.to_str().ok());
            if let Some(source) = client_address(self.peer.ip(), forwarded, &self.front.trusted_proxies) {
                request.extensions_mut().insert(SourceIp(source.to_string()));
            }
            match self.front.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        Ok(response.map(|body| Answer { body, watched: Arc::clone(&self.watched) }))
    }

    fn log(&self, error: &hyper::Error) {
        let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
            && let Some(times) = self.front.connections().not_taken.now()
        {
            tracing::warn!(
                times,
                source_ip = %self.peer.ip(),
                "a client did not read its answer for {} s, so the connection was closed",
                self.front.limits.send_timeout.as_secs()
            );
        }
        tracing::debug!(source_ip = %self.peer.ip(), %error, "a connection ended");
    }
}

/// The body of an answer. When it is over, the connection is idle.
struct Answer {
    body: Body,
    watched: Arc<Watched>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        *self.watched.phase() = Phase::Idle(Instant::now());
    }
}

/// Something that is logged now and then, however often it happens.
#[derive(Default)]
struct Seldom {
    last: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// How often it has happened since it was logged, if it is to be logged now.
    fn now(&mut self) -> Option<u64> {
        self.times += 1;
        if self.last.is_some_and(|last| last.elapsed() < SELDOM) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: (usize, usize) = (4, 3);

    fn limits() -> Limits {
        Limits { connections: LIMITS.0, connections_per_address: LIMITS.1, ..Limits::default() }
    }

    fn watched(address: &str) -> Arc<Watched> {
        let sender = Sender::of(address.parse().unwrap());
        let phase = Mutex::new(Phase::New(Instant::now()));
        Arc::new(Watched { sender, phase, sending: AtomicBool::new(false), end: Notify::new() })
    }

    /// Opens a connection, with a request or without one; its number, and whether it is in the reserve.
    fn open(open: &mut Connections, address: &str, busy: bool) -> (u64, bool) {
        let new = watched(address);
        let place = open.admit(&new, &limits());
        if busy {
            *new.phase() = Phase::Busy;
        }
        place
    }

    #[test]
    fn a_network_of_ipv6_is_one_sender() {
        let of = |address: &str| Sender::of(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn the_sender_with_the_most_connections_makes_room_and_its_oldest_goes_first() {
        let mut all = Connections::default();
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.3"] {
            assert!(!open(&mut all, address, false).1);
        }
        assert_eq!(all.admitted.keys().copied().collect::<Vec<_>>(), [0, 2, 3, 4]);
        // The sender with three of them would have a fourth one.
        let mut all = Connections::default();
        for _ in 0..5 {
            assert!(!open(&mut all, "10.0.0.1", false).1);
        }
        assert_eq!(all.admitted.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn a_connection_with_a_request_is_never_closed_for_another_one() {
        let mut all = Connections::default();
        assert!(!open(&mut all, "10.0.0.2", true).1);
        assert!((0..3).all(|_| !open(&mut all, "10.0.0.1", true).1));
        assert!((0..100).all(|_| open(&mut all, "10.0.0.1", false).1), "a sender has more than its part");
        assert!(open(&mut all, "10.0.0.3", false).1, "there is more than the limit");
        assert_eq!((all.admitted.len(), all.reserve.len()), (LIMITS.0, RESERVE));
        // The reserve has the newest ones.
        assert_eq!(all.reserve.keys().next_back(), Some(&104));
        for number in 0..105 {
            all.remove(number);
        }
        assert!(all.admitted.is_empty() && all.reserve.is_empty() && all.by_sender.is_empty());
    }
}
