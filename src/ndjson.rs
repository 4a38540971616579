//! From lines to a streamed body: one pass, back-pressure, and never a short answer that looks whole.
//!
//! Lines are written on a thread that may block; chunks of them, compressed if the client accepts gzip, go
//! through a channel of two to the body. A slow client gives the thread back until there is room for the next chunk, so
//! that it holds memory and nothing else. A gone client ends the answer, and so does one that leaves a chunk unread for
//! too long.
//!
//! Nothing is sent before the first chunk is complete, so a failure until then is an HTTP error. A
//! failure after that ends the answer with an `endStreamAction` that has an `errorMessage` if the
//! client asked for that action, and otherwise with a line that no JSON parser accepts, after which
//! the connection is broken. An answer whose task panicked breaks the connection too.

mod gzip;

use std::io::{self, Write as _};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures::future::{Either, select};
use futures::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep, timeout, timeout_at};
use tracing::Instrument as _;

use self::gzip::Gzip;
use crate::audit::{Audit, Facts};
use crate::error::{Error, Result};
use crate::gate::{Lane, Turn};
use crate::protocol::actions::{EndStreamAction, EndStreamLine};
use crate::protocol::json::write_json;

/// How many bytes of lines are gathered before they are compressed or sent.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long a thread waits for a client to take a chunk. One that reads as fast as it can is faster.
const ROOM_SOON: Duration = Duration::from_millis(5);

/// How long a thread works for one answer before it is another one's turn, if there is one that waits.
const SLICE: Duration = Duration::from_millis(100);

/// How many bytes wait to be read if the client, or what is in front of this server, is slower than the writer.
const UNREAD_BYTES: u64 = 512 * 1024;

/// How long a broken answer's last line may take to be sent before the connection is broken.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// With gzip.
    Gzip,
}

impl Encoding {
    /// The encoding for a request's `Accept-Encoding`: gzip only if the client names it.
    pub fn negotiate(accept_encoding: Option<&str>) -> Self {
        let accepts = |entry: &str| {
            let mut parts = entry.split(';').map(str::trim);
            let gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
            let refused = parts.filter_map(|part| part.split_once('=')).any(|(name, weight)| {
                name.trim().eq_ignore_ascii_case("q") && weight.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
            });
            gzip && !refused
        };
        if accept_encoding.is_some_and(|header| header.split(',').any(accepts)) {
            Self::Gzip
        } else {
            Self::Identity
        }
    }
}

/// What the last line is if the answer fails after its status was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureLine {
    /// `{"endStreamAction":{"errorMessage":…}}`, for clients that asked for the action.
    EndStreamAction,
    /// Text that no JSON parser accepts, for all others.
    NotJson,
}

/// What answers may cost if something in front of this server would cut them off. An answer that reaches a limit
/// fails as any other does, so that it is never taken for a whole one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// When the answer must be over.
    pub deadline: Option<Instant>,
    /// How many bytes it may have, as they are sent.
    pub bytes: Option<u64>,
    /// Whether the processor has nothing else to do while the client, or what is in front of this server, is slower than
    /// the writer. An answer is then compressed better.
    pub alone: bool,
    /// How many bytes wait in the buffers of the connection, if that can be known. Without it, a slow reader is noticed
    /// only when these buffers are full, which may hold megabytes.
    pub unread: Option<fn() -> u64>,
}

impl Bounds {
    /// Runs what answers a request. An error if it does not answer by the deadline.
    pub async fn run<F: Future>(self, answer: F) -> Result<F::Output> {
        match self.deadline {
            None => Ok(answer.await),
            Some(deadline) => timeout_at(deadline.into(), answer).await.map_err(|_| too_slow()),
        }
    }
}

/// What a call that writes lines came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything is written.
    Whole,
    /// The call paused. The next call continues from there.
    Paused,
}

fn too_slow() -> Error {
    Error::unavailable("The answer took too long; try again later, or ask in pages (maxFiles).")
}

/// How a body ends, after its chunks. It is kept beside them, so that a slow client receives it too.
enum Ending {
    /// With these bytes the answer is over, as its encoding ends.
    Whole(Bytes),
    /// These bytes are the last ones, and then the connection is broken.
    Broken(Bytes),
}

/// Where the lines of an answer are written.
pub struct Lines {
    buffer: Vec<u8>,
    gzip: Option<Gzip>,
    /// Whether chunks wait for the reader of the last one (`true`), or it takes them as they come (`false`). `None` in between.
    crowded: Option<bool>,
    chunks: mpsc::Sender<Bytes>,
    ending: oneshot::Sender<Ending>,
    first: Option<oneshot::Sender<Result<()>>>,
    gone: bool,
    written: u64,
    sent: u64,
    bounds: Bounds,
    /// How long a client may leave a chunk unread.
    patience: Duration,
    audit: Option<Arc<Audit>>,
    /// What was granted by lines that are in no chunk yet.
    granted: Granted,
    /// The bytes of all files whose lines were written.
    granted_bytes: u64,
    /// A chunk that there is no room for yet, and what it grants.
    waiting: Option<(Bytes, Granted)>,
    /// When this answer has had its thread for long enough.
    slice_ends: Instant,
    pause: bool,
    /// How many steps may have written no line.
    steps: u32,
}

/// Files whose URLs are in lines.
#[derive(Debug, Default, Clone, Copy)]
struct Granted {
    files: u64,
    bytes: u64,
    urls_end: Option<i64>,
}

impl Lines {
    /// Writes one line: `write` appends it without its end. If `write` fails, nothing of the line
    /// stays. Blocks while the client is slow; fails when it is gone.
    pub fn line(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        self.append(write)?;
        self.send_if_full()
    }

    /// The same for a line that is written already.
    pub fn copy(&mut self, line: &[u8]) -> Result<()> {
        self.line(|out| {
            out.extend_from_slice(line);
            Ok(())
        })
    }

    /// The same for a line that grants a file of so many bytes, until a time in milliseconds since the epoch.
    pub fn file(
        &mut self,
        bytes: u64,
        until: i64,
        write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.append(write)?;
        self.granted.files += 1;
        self.granted.bytes = self.granted.bytes.saturating_add(bytes);
        self.granted.urls_end = Some(until);
        self.granted_bytes = self.granted_bytes.saturating_add(bytes);
        self.send_if_full()
    }

    fn send_if_full(&mut self) -> Result<()> {
        if self.buffer.len() >= CHUNK_BYTES { self.send(false) } else { Ok(()) }
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let start = self.buffer.len();
        if let Err(error) = write(&mut self.buffer) {
            self.buffer.truncate(start);
            return Err(error);
        }
        self.buffer.push(b'\n');
        self.written += (self.buffer.len() - start) as u64;
        Ok(())
    }

    /// Whether the writer should return [`Progress::Paused`], because the client is slow or it is another answer's turn.
    /// Lines that are written in spite of it block until there is room for them.
    pub fn should_pause(&self) -> bool {
        self.pause
    }

    /// Counts a step that may have written no line, so that many of them in a row neither keep the thread from other answers nor go
    /// on after the deadline or for a client that is gone.
    pub fn without_line(&mut self) -> Result<()> {
        /// A look at the clock for each would take longer than the step.
        const LOOK_AFTER: u32 = 64;
        self.steps = self.steps.wrapping_add(1);
        if !self.steps.is_multiple_of(LOOK_AFTER) {
            return Ok(());
        }
        if self.is_late() {
            return Err(too_slow());
        }
        self.gone |= self.chunks.is_closed();
        self.pause |= Instant::now() >= self.slice_ends;
        if self.gone { Err(gone()) } else { Ok(()) }
    }

    /// How many bytes the files have whose lines were written.
    pub fn granted_bytes(&self) -> u64 {
        self.granted_bytes
    }

    /// How many bytes the lines have so far, before they are compressed.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Counts what was granted as given. From here on it cannot be taken back.
    fn give(&self, granted: Granted) {
        let Granted { files, bytes, urls_end } = granted;
        if files > 0 {
            self.note(|facts| {
                facts.files += files;
                facts.bytes = facts.bytes.saturating_add(bytes);
                facts.urls_end = facts.urls_end.or(urls_end);
            });
        }
    }

    /// Adds to the facts of the request.
    fn note(&self, note: impl FnOnce(&mut Facts)) {
        if let Some(audit) = &self.audit {
            audit.note(note);
        }
    }

    /// Sends what was written so far, so that the client has it before more is computed.
    pub fn flush(&mut self) -> Result<()> {
        self.send(true)
    }

    fn send(&mut self, flush: bool) -> Result<()> {
        let data = match &mut self.gzip {
            // With room for the line that goes beyond a chunk, so that the buffer does not grow.
            None => std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8)),
            Some(gzip) => {
                if let Some(crowded) = self.crowded.take().filter(|_| self.bounds.alone) {
                    gzip.change_level(crowded)?;
                }
                gzip.write(&self.buffer)?;
                self.buffer.clear();
                if flush {
                    gzip.flush()?;
                }
                // A chunk takes a place in the channel and a write to the socket however small it is.
                if !flush && gzip.len() < CHUNK_BYTES / 4 {
                    return Ok(());
                }
                gzip.take()
            }
        };
        self.sent += data.len() as u64;
        if self.bounds.bytes.is_some_and(|most| self.sent > most) {
            return Err(Error::too_large(
                "The answer is larger than this server can send at once; accept gzip, or ask in pages (maxFiles).",
            ));
        }
        self.push(data.into())
    }

    fn push(&mut self, chunk: Bytes) -> Result<()> {
        if let Some(first) = self.first.take() {
            self.gone |= first.send(Ok(())).is_err();
        }
        if self.gone {
            return Err(gone());
        }
        if self.waiting.is_some() {
            // Only a writer that did not pause comes here. It is on a thread that may block, not on a worker of the
            // runtime, so it can wait for a future.
            Handle::current().block_on(self.make_room())?;
        }
        if self.is_late() {
            return Err(too_slow());
        }
        self.pause = Instant::now() >= self.slice_ends;
        let granted = std::mem::take(&mut self.granted);
        let room = self.chunks.capacity();
        let unread = self.bounds.unread.map_or(0, |unread| unread());
        self.crowded = if room == 0 || unread > UNREAD_BYTES {
            Some(true)
        } else if room == self.chunks.max_capacity() && unread < UNREAD_BYTES / 2 {
            Some(false)
        } else {
            None
        };
        match self.chunks.try_send(chunk) {
            Ok(()) => self.give(granted),
            Err(TrySendError::Closed(_)) => self.gone = true,
            Err(TrySendError::Full(chunk)) => match within(ROOM_SOON, self.chunks.reserve()) {
                Some(Ok(room)) => {
                    room.send(chunk);
                    self.give(granted);
                }
                Some(Err(_)) => self.gone = true,
                None => {
                    self.waiting = Some((chunk, granted));
                    self.pause = true;
                }
            },
        }
        if self.gone { Err(gone()) } else { Ok(()) }
    }

    /// Whether the answer must be over by now.
    fn is_late(&self) -> bool {
        self.bounds.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Sends the chunk that waits, as soon as there is room. Fails if the client is gone or leaves it unread.
    async fn make_room(&mut self) -> Result<()> {
        let Some((chunk, granted)) = self.waiting.take() else { return Ok(()) };
        let unread = Instant::now() + self.patience;
        let until = self.bounds.deadline.map_or(unread, |deadline| deadline.min(unread));
        match timeout_at(until.into(), self.chunks.reserve()).await {
            Ok(Ok(room)) => {
                room.send(chunk);
                self.give(granted);
                Ok(())
            }
            Ok(Err(_)) => {
                self.gone = true;
                Err(gone())
            }
            Err(_) if until < unread => Err(too_slow()),
            Err(_) => Err(left_unread()),
        }
    }

    /// What is left to send, with the end of its encoding.
    fn rest(&mut self) -> Result<Bytes> {
        let rest = std::mem::take(&mut self.buffer);
        let Some(mut gzip) = self.gzip.take() else { return Ok(rest.into()) };
        gzip.write(&rest)?;
        Ok(gzip.finish()?.into())
    }

    fn complete(mut self) -> Result<()> {
        let rest = self.rest()?;
        self.end(Ending::Whole(rest))
    }

    fn end(mut self, ending: Ending) -> Result<()> {
        let begun = self.first.take().is_none_or(|first| first.send(Ok(())).is_ok());
        if !begun || self.ending.is_closed() {
            self.note(|facts| facts.gone = true);
            return Err(gone());
        }
        let granted = std::mem::take(&mut self.granted);
        self.give(granted);
        self.ending.send(ending).map_err(|_| gone())
    }

    fn fail(mut self, error: Error, line: FailureLine) {
        if self.gone || self.ending.is_closed() {
            self.note(|facts| facts.gone = true);
            return;
        }
        if let Some(first) = self.first.take() {
            // The receiver may have gone with its request; then nobody is left to tell.
            drop(first.send(Err(error)));
            return;
        }
        self.note(|facts| facts.fail(&error));
        tracing::error!("an answer failed after its status was sent");
        if self.fail_visibly(&error, line).is_err() {
            tracing::info!("the client closed the connection before it received the error");
        }
    }

    fn fail_visibly(mut self, error: &Error, line: FailureLine) -> Result<()> {
        match line {
            FailureLine::EndStreamAction => {
                let end_stream_action = EndStreamAction {
                    error_message: Some(error.message()),
                    http_status_error_code: Some(error.code().status()),
                    ..EndStreamAction::default()
                };
                write_json(&mut self.buffer, &EndStreamLine { end_stream_action })
                    .map_err(Error::internal)?;
                self.buffer.push(b'\n');
                self.complete()
            }
            FailureLine::NotJson => {
                let advice = if error.is_temporary() { " Ask again." } else { "" };
                let printable = |character: &char| character.is_ascii() && !character.is_ascii_control();
                let message: String = error.message().chars().filter(printable).collect();
                writeln!(self.buffer, "INCOMPLETE ANSWER: {message}{advice}").map_err(Error::internal)?;
                let rest = self.rest()?;
                self.end(Ending::Broken(rest))
            }
        }
    }
}

/// Blocks until a future is ready; `None` if that takes longer than `limit`.
///
/// A timer of the runtime would wake its driver each time, which costs as much as all the rest of a chunk.
fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let end = Instant::now() + limit;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        thread::park_timeout(left);
    }
}

fn gone() -> Error {
    Error::unavailable("The client closed the connection.")
}

fn left_unread() -> Error {
    Error::unavailable("The answer was not read in time; ask again.")
}

/// How an answer is sent.
pub struct Sending {
    /// How the body is encoded.
    pub encoding: Encoding,
    /// What the last line is if the answer fails after its status was sent.
    pub failure: FailureLine,
    /// What the answer may cost.
    pub bounds: Bounds,
    /// What the answer gets its threads from.
    pub lane: Lane,
    /// Dropped when the answer is over.
    pub in_flight: Box<dyn Send + Sync>,
}

/// The body of an answer whose lines `produce` writes on threads that may block. It is called again and again
/// while it returns [`Progress::Paused`].
///
/// Returns when the first chunk is ready, or with the error if `produce` fails before that.
pub async fn stream(
    sending: Sending,
    produce: impl FnMut(&mut Lines) -> Result<Progress> + Send + 'static,
) -> Result<Body> {
    let Sending { encoding, failure, bounds, lane, in_flight } = sending;
    let turn = lane.turn().await?;
    // One chunk that is sent and one that is ready: more would only be memory.
    let (chunks, receiver) = mpsc::channel(2);
    let (ending, ended) = oneshot::channel();
    let (first, started) = oneshot::channel();
    let (reading, over) = oneshot::channel();
    let taken = Arc::new(AtomicU64::new(0));
    let gzip = (encoding == Encoding::Gzip).then(Gzip::new);
    let patience = Duration::from_secs(lane.limits().chunk_seconds);
    let audit = Audit::current();
    let lines = Lines {
        buffer: Vec::with_capacity(CHUNK_BYTES),
        gzip,
        crowded: None,
        chunks,
        ending,
        first: Some(first),
        gone: false,
        written: 0,
        sent: 0,
        bounds,
        patience,
        audit: audit.clone(),
        granted: Granted::default(),
        granted_bytes: 0,
        waiting: None,
        slice_ends: Instant::now(),
        pause: false,
        steps: 0,
    };
    let reader = Reader {
        stage: Stage::Chunks(receiver, ended),
        taken: Arc::clone(&taken),
        _reading: reading,
        audit,
        over: false,
    };
    let reader = Arc::new(Mutex::new(Some(reader)));
    let writing = Writing { lines, produce, failure, result: None };
    let watched = Watched { reader: Arc::downgrade(&reader), over, taken, patience };
    let answer = async move {
        write(writing, turn, &lane, watched).await;
        // Only now: an answer that the client has not read still takes memory.
        drop(in_flight);
    };
    // A task of its own, because the body is read after the handler has returned.
    tokio::spawn(answer.in_current_span());
    let body = body(reader);
    started.await.map_err(|_| Error::internal("the task that writes the answer died"))??;
    Ok(body)
}

/// An answer that is being written.
struct Writing<P> {
    lines: Lines,
    produce: P,
    failure: FailureLine,
    /// What `produce` returned in the end, while its last chunk waits.
    result: Option<Result<()>>,
}

impl<P: FnMut(&mut Lines) -> Result<Progress>> Writing<P> {
    /// Writes until the client is too slow or the answer is over; then nothing is returned.
    fn go_on(mut self) -> Option<Self> {
        self.lines.slice_ends = Instant::now() + SLICE;
        self.lines.pause = false;
        let result = match self.result.take() {
            Some(result) => result,
            None => match (self.produce)(&mut self.lines) {
                Ok(Progress::Paused) => return Some(self),
                Ok(Progress::Whole) => Ok(()),
                Err(error) => Err(error),
            },
        };
        if self.lines.waiting.is_some() && !self.lines.gone {
            self.result = Some(result);
            return Some(self);
        }
        match result {
            Ok(()) => {
                if let Err(error) = self.lines.complete() {
                    tracing::info!(%error, "an answer could not be completed");
                }
            }
            Err(error) => self.lines.fail(error, self.failure),
        }
        None
    }
}

/// Writes an answer to its end, and waits until the client has all of it.
async fn write<P>(mut writing: Writing<P>, mut turn: Turn, lane: &Lane, mut watched: Watched)
where
    P: FnMut(&mut Lines) -> Result<Progress> + Send + 'static,
{
    let audit = writing.lines.audit.as_ref().map(Arc::downgrade);
    loop {
        // If the client goes away, the turn is given up, so that nothing more is read for it.
        let step = {
            let (step, gone) = (pin!(turn.run(move || writing.go_on())), pin!(watched.gone()));
            match select(step, gone).await {
                Either::Left((step, _)) => step,
                Either::Right(_) => return,
            }
        };
        match step {
            Ok(Some(paused)) => writing = paused,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the task that writes an answer died");
                return;
            }
        }
        match writing.lines.make_room().await {
            Ok(()) => {}
            Err(_) if writing.lines.gone => {
                writing.lines.note(|facts| facts.gone = true);
                return;
            }
            // The last line of one that is cut off at a deadline may still be read.
            Err(error) if writing.lines.is_late() => {
                writing.lines.fail(error, writing.failure);
                break;
            }
            Err(_) => {
                drop(writing);
                watched.give_up(audit.as_ref());
                return;
            }
        }
        let next = {
            let (next, gone) = (pin!(lane.next_turn()), pin!(watched.gone()));
            match select(next, gone).await {
                Either::Left((next, _)) => next,
                Either::Right(_) => return,
            }
        };
        turn = match next {
            Ok(turn) => turn,
            Err(error) => {
                writing.lines.fail(error, writing.failure);
                break;
            }
        };
    }
    watched.until_read(audit.as_ref()).await;
}

/// A client, as the task sees it that writes for it.
struct Watched {
    reader: Weak<Mutex<Option<Reader>>>,
    /// Ready when the reader is dropped.
    over: oneshot::Receiver<()>,
    /// How many chunks were taken. Nobody is woken for one: that would cost as much as the chunk.
    taken: Arc<AtomicU64>,
    patience: Duration,
}

/// How often in the time that a client may leave a chunk unread it is looked whether it took one.
const LOOKS: u32 = 8;

impl Watched {
    /// Returns when the client has all or is gone.
    async fn gone(&mut self) {
        // An error is what is waited for: nothing is ever sent, and the sender is dropped with the reader.
        let _ = (&mut self.over).await;
    }

    /// Waits until the client has all or is gone, or leaves something unread for too long.
    async fn until_read(mut self, audit: Option<&Weak<Audit>>) {
        let (mut taken, mut unread) = (self.taken.load(Ordering::Relaxed), 0);
        while unread < LOOKS {
            if timeout(self.patience / LOOKS, self.gone()).await.is_ok() {
                return;
            }
            let before = std::mem::replace(&mut taken, self.taken.load(Ordering::Relaxed));
            unread = if before == taken { unread + 1 } else { 0 };
        }
        self.give_up(audit);
    }

    /// Breaks the body, and drops what the client has not read.
    fn give_up(&self, audit: Option<&Weak<Audit>>) {
        if let Some(audit) = audit.and_then(Weak::upgrade) {
            audit.note(|facts| facts.fail(&left_unread()));
        }
        if let Some(reader) = self.reader.upgrade() {
            drop(reader.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// The chunks as a body. It ends well only when the task said that the answer is whole.
fn body(reader: Arc<Mutex<Option<Reader>>>) -> Body {
    Body::from_stream(stream::poll_fn(move |context| {
        match reader.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(reader) => reader.poll_next(context),
            None => Poll::Ready(Some(Err(incomplete()))),
        }
    }))
}

/// A client that reads an answer. The event of the request waits for it.
struct Reader {
    stage: Stage,
    taken: Arc<AtomicU64>,
    /// Dropped with the reader, for who waits for that.
    _reading: oneshot::Sender<()>,
    audit: Option<Arc<Audit>>,
    over: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let (Some(audit), false) = (&self.audit, self.over) {
            audit.note(|facts| facts.gone = true);
        }
    }
}

/// Where a body stands.
enum Stage {
    Chunks(mpsc::Receiver<Bytes>, oneshot::Receiver<Ending>),
    Ending(oneshot::Receiver<Ending>),
    LastWords(Pin<Box<Sleep>>),
    Over,
}

impl Reader {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let data = loop {
            break match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Chunks(mut chunks, ending) => match chunks.poll_recv(context) {
                    Poll::Pending => {
                        self.stage = Stage::Chunks(chunks, ending);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(data)) => {
                        self.stage = Stage::Chunks(chunks, ending);
                        Ok(data)
                    }
                    Poll::Ready(None) => {
                        self.stage = Stage::Ending(ending);
                        continue;
                    }
                },
                Stage::Ending(mut ending) => match Pin::new(&mut ending).poll(context) {
                    Poll::Pending => {
                        self.stage = Stage::Ending(ending);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Ending::Whole(rest))) => Ok(rest),
                    Poll::Ready(Ok(Ending::Broken(rest))) => {
                        // The HTTP library drops what it has not sent when a body fails, and sends while it waits.
                        self.stage = Stage::LastWords(Box::pin(sleep(LAST_WORDS)));
                        Ok(rest)
                    }
                    Poll::Ready(Err(_)) => Err(incomplete()),
                },
                Stage::LastWords(mut wait) => match wait.as_mut().poll(context) {
                    Poll::Pending => {
                        self.stage = Stage::LastWords(wait);
                        return Poll::Pending;
                    }
                    Poll::Ready(()) => Err(incomplete()),
                },
                Stage::Over => return Poll::Ready(None),
            };
        };
        self.over = matches!(self.stage, Stage::Over);
        self.taken.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(data))
    }
}

fn incomplete() -> io::Error {
    io::Error::other("the answer is incomplete")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::gate::Gate;
    use crate::limits::Limits;

    fn write(lines: &mut Lines, text: &str) -> Result<()> {
        lines.line(|out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })
    }

    fn lane(limits: Limits) -> Lane {
        Gate::new(limits).lane("bucket".to_owned())
    }

    fn sending(encoding: Encoding, failure: FailureLine, limits: Limits) -> Sending {
        Sending { encoding, failure, bounds: Bounds::default(), lane: lane(limits), in_flight: Box::new(()) }
    }

    /// An answer that is written in one go, however slow its client is.
    async fn stream(
        encoding: Encoding,
        failure: FailureLine,
        produce: impl FnOnce(&mut Lines) -> Result<()> + Send + 'static,
    ) -> Result<Body> {
        stream_within(Bounds::default(), encoding, failure, produce).await
    }

    /// The same under these bounds.
    async fn stream_within(
        bounds: Bounds,
        encoding: Encoding,
        failure: FailureLine,
        produce: impl FnOnce(&mut Lines) -> Result<()> + Send + 'static,
    ) -> Result<Body> {
        let mut produce = Some(produce);
        let sending = Sending { bounds, ..sending(encoding, failure, Limits::default()) };
        super::stream(sending, move |lines| {
            produce.take().unwrap()(lines)?;
            Ok(Progress::Whole)
        })
        .await
    }

    async fn read(body: Body) -> (Vec<u8>, bool) {
        let mut body = body;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
                Err(_) => return (bytes, false),
            }
        }
        (bytes, true)
    }

    fn gunzip(bytes: &[u8]) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn gzip_only_where_it_is_named() {
        for header in ["gzip", "deflate, GZIP", "gzip;q=0.5", "br;q=1, gzip ; q=1.0"] {
            assert_eq!(Encoding::negotiate(Some(header)), Encoding::Gzip, "{header}");
        }
        for header in ["", "identity", "gzip;q=0", "gzip; q=0.0", "*", "x-gzip"] {
            assert_eq!(Encoding::negotiate(Some(header)), Encoding::Identity, "{header}");
        }
        assert_eq!(Encoding::negotiate(None), Encoding::Identity);
    }

    #[tokio::test]
    async fn lines_arrive_whole_in_both_encodings() {
        let expected: String = (0..100_000).map(|number| format!("{{\"line\":{number}}}\n")).collect();
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let body = stream(encoding, FailureLine::NotJson, |lines| {
                (0..100_000).try_for_each(|number| write(lines, &format!("{{\"line\":{number}}}")))
            });
            let (bytes, whole) = read(body.await.unwrap()).await;
            assert!(whole);
            let text =
                if encoding == Encoding::Gzip { gunzip(&bytes) } else { String::from_utf8(bytes).unwrap() };
            assert!(text == expected, "{encoding:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_compressed_better_while_its_client_is_slow_and_nothing_else_is_to_do() {
        const LINES: u64 = 6_000;
        let line = |number: u64| {
            let mixed = (number ^ 0x9e37_79b9).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            format!(
                "{{\"url\":\"https://my-bucket.s3.amazonaws.com/{number:08}?signature={mixed:032x}\",\"stats\":\"{}\"}}",
                "min max ".repeat(40)
            )
        };
        let mut sizes = Vec::new();
        for alone in [false, true] {
            let bounds = Bounds { alone, ..Bounds::default() };
            // How much was sent when the writer had to wait for room, or everything once it has written all lines.
            let full = Arc::new(AtomicU64::new(0));
            let told = Arc::clone(&full);
            let body = stream_within(bounds, Encoding::Gzip, FailureLine::NotJson, move |lines| {
                for number in 0..LINES {
                    write(lines, &line(number))?;
                    if lines.waiting.is_some() {
                        told.store(lines.sent, Ordering::Relaxed);
                    }
                }
                told.store(u64::MAX, Ordering::Relaxed);
                Ok(())
            });
            let (mut body, mut bytes, mut seen) = (body.await.unwrap(), Vec::new(), 0);
            loop {
                // The client takes one chunk each time the writer waits for it, however fast either is.
                while seen != u64::MAX && full.load(Ordering::Relaxed) == seen {
                    sleep(Duration::from_millis(5)).await;
                }
                seen = full.load(Ordering::Relaxed);
                let Some(frame) = body.frame().await else { break };
                bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
            }
            let expected: String = (0..LINES).map(|number| line(number) + "\n").collect();
            assert!(gunzip(&bytes) == expected);
            sizes.push(bytes.len());
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
    }

    #[tokio::test]
    async fn an_answer_is_compressed_better_while_the_buffers_of_the_connection_hold_it() {
        let line = |number: u64| {
            format!("{{\"id\":{:032x},\"name\":\"n{number}\"}}", number.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        };
        let mut sizes = Vec::new();
        let held: fn() -> u64 = || UNREAD_BYTES + 1;
        for unread in [None, Some(held)] {
            let bounds = Bounds { alone: unread.is_some(), unread, ..Bounds::default() };
            let body = stream_within(bounds, Encoding::Gzip, FailureLine::NotJson, move |lines| {
                (0..20_000).try_for_each(|number| write(lines, &line(number)))
            });
            // The body takes every chunk as it comes.
            let (bytes, whole) = read(body.await.unwrap()).await;
            assert!(whole && gunzip(&bytes).lines().count() == 20_000);
            sizes.push(bytes.len());
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
    }

    #[tokio::test]
    async fn a_failure_before_the_first_chunk_is_an_error() {
        let failed = stream(Encoding::Identity, FailureLine::NotJson, |lines| {
            write(lines, "{}")?;
            Err(Error::unsupported("no"))
        });
        assert_eq!(failed.await.unwrap_err().message(), "no");
        let died = stream(Encoding::Identity, FailureLine::NotJson, |_| panic!("died"));
        assert!(died.await.is_err());
    }

    #[tokio::test]
    async fn a_failure_after_the_first_chunk_cannot_be_missed() {
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let body = stream(encoding, FailureLine::NotJson, |lines| {
                write(lines, "{}")?;
                lines.flush()?;
                lines.line(|out| {
                    out.extend_from_slice(b"{\"half");
                    Err(Error::unavailable("the source went away"))
                })
            });
            let (bytes, whole) = read(body.await.unwrap()).await;
            assert!(!whole, "{encoding:?}");
            if encoding == Encoding::Identity {
                let text = String::from_utf8(bytes).unwrap();
                let lines: Vec<_> = text.lines().collect();
                assert_eq!(lines[0], "{}");
                assert!(lines.len() == 2 && serde_json::from_str::<serde_json::Value>(lines[1]).is_err());
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_asked_for_it_gets_the_failure_as_an_action() {
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let body = stream(encoding, FailureLine::EndStreamAction, |lines| {
                write(lines, "{}")?;
                lines.flush()?;
                Err(Error::unavailable("the source went away"))
            });
            let (bytes, whole) = read(body.await.unwrap()).await;
            assert!(whole);
            let text =
                if encoding == Encoding::Gzip { gunzip(&bytes) } else { String::from_utf8(bytes).unwrap() };
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            let expected =
                serde_json::json!({"errorMessage": "the source went away", "httpStatusErrorCode": 503});
            assert_eq!(last["endStreamAction"], expected);
        }
    }

    #[tokio::test]
    async fn an_answer_that_reaches_a_limit_fails_visibly() {
        let soon =
            || Bounds { deadline: Some(Instant::now() + Duration::from_millis(300)), ..Bounds::default() };
        let small = || Bounds { bytes: Some(4 * CHUNK_BYTES as u64), ..Bounds::default() };
        let line = format!("\"{}\"", "x".repeat(CHUNK_BYTES));
        for (bounds, message) in [(soon(), "took too long"), (small(), "larger than")] {
            let line = line.clone();
            let answer =
                stream_within(bounds, Encoding::Identity, FailureLine::EndStreamAction, move |lines| {
                    loop {
                        write(lines, &line)?;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            let (bytes, _) = read(bounds.run(answer).await.unwrap().unwrap()).await;
            let text = String::from_utf8(bytes).unwrap();
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            let told = last["endStreamAction"]["errorMessage"].as_str().unwrap();
            assert!(told.contains(message), "{told}");
        }
        // A client that reads nothing does not hold the task beyond the deadline.
        let (done, mut over) = oneshot::channel::<()>();
        let bounds = soon();
        let answer = stream_within(bounds, Encoding::Identity, FailureLine::NotJson, move |lines| {
            let _done = done;
            loop {
                write(lines, &line)?;
            }
        });
        let body = bounds.run(answer).await.unwrap().unwrap();
        assert!(over.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert!(over.await.is_err());
        let (_, whole) = read(body).await;
        assert!(!whole);
        // What does not answer at all is given up.
        assert!(soon().run(std::future::pending::<()>()).await.is_err());
    }

    #[tokio::test]
    async fn a_task_that_dies_breaks_the_body() {
        let body = stream(Encoding::Identity, FailureLine::EndStreamAction, |lines| {
            write(lines, "{}")?;
            lines.flush()?;
            panic!("died")
        });
        let (_, whole) = read(body.await.unwrap()).await;
        assert!(!whole);
    }

    #[tokio::test]
    async fn a_gone_client_ends_the_task_and_a_slow_one_stops_it() {
        let (count, mut counted) = mpsc::unbounded_channel();
        let body = stream(Encoding::Identity, FailureLine::NotJson, move |lines| {
            let line = "x".repeat(CHUNK_BYTES);
            for number in 0_u32.. {
                write(lines, &line)?;
                assert!(count.send(number).is_ok());
            }
            Ok(())
        });
        let body = body.await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let mut sent = 0;
        while counted.try_recv().is_ok() {
            sent += 1;
        }
        assert!(sent <= 3, "{sent} chunks were made for a client that reads none");
        drop(body);
        while counted.recv().await.is_some() {}
    }

    /// Writes so many numbered lines of 1 kB, and pauses when it should.
    fn numbers(until: u32) -> impl FnMut(&mut Lines) -> Result<Progress> {
        let mut next = 0;
        move |lines| {
            while next < until {
                write(lines, &format!("{next:01000}"))?;
                next += 1;
                if lines.should_pause() {
                    return Ok(Progress::Paused);
                }
            }
            Ok(Progress::Whole)
        }
    }

    #[tokio::test]
    async fn slow_clients_hold_no_thread_and_get_everything() {
        let limits = Limits { table_threads: 1, ..Limits::default() };
        let lane = lane(limits);
        let mut bodies = Vec::new();
        for _ in 0..20 {
            let sending =
                Sending { lane: lane.clone(), ..sending(Encoding::Identity, FailureLine::NotJson, limits) };
            bodies.push(super::stream(sending, numbers(2000)).await.unwrap());
        }
        // All of them have an answer that is not read, and the table's only thread is free.
        assert_eq!(lane.run(|| 1).await.unwrap(), 1);
        let expected: String = (0..2000).map(|number| format!("{number:01000}\n")).collect();
        for body in bodies {
            let (bytes, whole) = read(body).await;
            assert!(whole && bytes == expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_a_chunk_unread_is_given_up() {
        let limits = Limits { chunk_seconds: 1, ..Limits::default() };
        // One that reads nothing while there is more to write, and one that leaves the end.
        for lines in [2000, 100] {
            let (over, mut is_over) = oneshot::channel::<()>();
            let sending = Sending {
                in_flight: Box::new(over),
                ..sending(Encoding::Identity, FailureLine::NotJson, limits)
            };
            let mut body = super::stream(sending, numbers(lines)).await.unwrap();
            body.frame().await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(is_over.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
            assert!(is_over.await.is_err());
            let (_, whole) = read(body).await;
            assert!(!whole);
        }
        // Who reads slowly, but reads, is not.
        let mut body = super::stream(sending(Encoding::Identity, FailureLine::NotJson, limits), numbers(400))
            .await
            .unwrap();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().unwrap().len();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(bytes, 400 * 1001);
    }

    #[tokio::test]
    async fn an_answer_that_is_over_or_left_lets_go_of_what_it_held() {
        for reads in [true, false] {
            let (over, is_over) = oneshot::channel::<()>();
            let sending = Sending {
                in_flight: Box::new(over),
                ..sending(Encoding::Identity, FailureLine::NotJson, Limits::default())
            };
            let body = super::stream(sending, numbers(1000)).await.unwrap();
            if reads {
                assert!(read(body).await.1);
            } else {
                drop(body);
            }
            assert!(timeout(Duration::from_secs(10), is_over).await.unwrap().is_err());
        }
    }
}
