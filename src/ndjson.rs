//! From lines to a streamed body: one pass, back-pressure, and never a short answer that looks whole.
//!
//! A blocking task writes lines; chunks of them, compressed where the client accepts gzip, go through
//! a channel of two to the body. A slow client stops the task, a gone client ends it.
//!
//! Nothing is sent before the first chunk is complete, so a failure until then is an HTTP error. A
//! failure after that ends the answer with an `endStreamAction` that has an `errorMessage`, where the
//! client asked for that action, and otherwise with a line that no JSON parser accepts, after which
//! the connection is broken. An answer whose task died without a word breaks the connection too.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use crate::audit::{Audit, Facts};
use crate::error::{Error, Result};
use crate::protocol::actions::{EndStreamAction, EndStreamLine};
use crate::protocol::json::write_json;

/// How many bytes of lines are gathered before they are compressed or sent.
const CHUNK_BYTES: usize = 64 * 1024;

/// Level 1 costs a third of level 6 and compresses presigned lines six times.
const GZIP_LEVEL: u32 = 1;

/// How long a broken answer's last line has to be sent before the connection is broken.
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
    /// The encoding for a request's `Accept-Encoding`: gzip only where the client names it.
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

/// What the last line is where the answer fails after its status was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureLine {
    /// `{"endStreamAction":{"errorMessage":…}}`, for clients that asked for the action.
    EndStreamAction,
    /// Text that no JSON parser accepts, for all others.
    NotJson,
}

/// What answers may cost where something in front of this server would cut them off. An answer that reaches a limit
/// fails as any other does, so that it is never taken for a whole one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// When the answer must be over.
    pub deadline: Option<Instant>,
    /// How many bytes it may have, as they are sent.
    pub bytes: Option<u64>,
}

tokio::task_local! {
    static BOUNDS: Bounds;
}

impl Bounds {
    /// Runs what answers a request under these bounds. An error where it does not answer by the deadline.
    pub async fn scope<F: Future>(self, answer: F) -> Result<F::Output> {
        let answer = BOUNDS.scope(self, answer);
        match self.deadline {
            None => Ok(answer.await),
            Some(deadline) => timeout_at(deadline.into(), answer).await.map_err(|_| too_slow()),
        }
    }
}

fn too_slow() -> Error {
    Error::unavailable("The answer took too long; try again later, or ask in pages (maxFiles).")
}

/// How a body ends, after its chunks. It is kept beside them, so that it is told to a slow client too.
enum Ending {
    /// With these bytes the answer is over, as its encoding ends.
    Whole(Bytes),
    /// These bytes are the last ones, and then the connection is broken.
    Broken(Bytes),
}

/// Where the lines of an answer are written.
pub struct Lines {
    buffer: Vec<u8>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    chunks: mpsc::Sender<Bytes>,
    ending: oneshot::Sender<Ending>,
    first: Option<oneshot::Sender<Result<()>>>,
    gone: bool,
    written: u64,
    sent: u64,
    bounds: Bounds,
    audit: Option<Arc<Audit>>,
    /// What was granted by lines that the connection does not have yet.
    granted: Granted,
}

/// Files whose URLs are in lines.
#[derive(Debug, Default)]
struct Granted {
    files: u64,
    bytes: u64,
    urls_end: Option<i64>,
}

impl Lines {
    /// Writes one line: `write` appends it without its end. Where `write` fails, nothing of the line
    /// stays. Blocks while the client is slow; fails when it is gone.
    pub fn line(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        self.append(write)?;
        self.send_if_full()
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

    /// How many bytes the lines have so far, before they are compressed.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Counts what was granted as given. From here on it cannot be taken back.
    fn give(&mut self) {
        let Granted { files, bytes, urls_end } = std::mem::take(&mut self.granted);
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
            None => std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8)),
            Some(gzip) => {
                gzip.write_all(&self.buffer).map_err(Error::internal)?;
                self.buffer.clear();
                if flush {
                    gzip.flush().map_err(Error::internal)?;
                }
                if !flush && gzip.get_ref().len() < CHUNK_BYTES / 4 {
                    return Ok(());
                }
                std::mem::take(gzip.get_mut())
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
        self.gone = self.gone
            || match self.bounds.deadline {
                None => self.chunks.blocking_send(chunk).is_err(),
                Some(deadline) => {
                    let sent = timeout_at(deadline.into(), self.chunks.send(chunk));
                    Handle::current().block_on(sent).map_err(|_| too_slow())?.is_err()
                }
            };
        if self.gone {
            return Err(gone());
        }
        self.give();
        Ok(())
    }

    /// What is left to send, with the end of its encoding.
    fn rest(&mut self) -> Result<Bytes> {
        let rest = std::mem::take(&mut self.buffer);
        let Some(mut gzip) = self.gzip.take() else { return Ok(rest.into()) };
        gzip.write_all(&rest).map_err(Error::internal)?;
        Ok(gzip.finish().map_err(Error::internal)?.into())
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
        self.give();
        self.ending.send(ending).map_err(|_| gone())
    }

    fn fail(mut self, error: Error, line: FailureLine) {
        if self.gone {
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
            tracing::info!("the client closed the connection before it could be told of the failure");
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
                let plain = |character: &char| character.is_ascii() && !character.is_ascii_control();
                let message: String = error.message().chars().filter(plain).collect();
                writeln!(self.buffer, "INCOMPLETE ANSWER: {message}{advice}").map_err(Error::internal)?;
                let rest = self.rest()?;
                self.end(Ending::Broken(rest))
            }
        }
    }
}

fn gone() -> Error {
    Error::unavailable("The client closed the connection.")
}

/// The body of an answer whose lines `produce` writes on a thread of its own.
///
/// Returns when the first chunk is ready, or with the error where `produce` fails before that.
pub async fn stream(
    encoding: Encoding,
    failure: FailureLine,
    produce: impl FnOnce(&mut Lines) -> Result<()> + Send + 'static,
) -> Result<Body> {
    let (chunks, receiver) = mpsc::channel(2);
    let (ending, ended) = oneshot::channel();
    let (first, started) = oneshot::channel();
    let gzip = (encoding == Encoding::Gzip)
        .then(|| GzEncoder::new(Vec::with_capacity(CHUNK_BYTES), Compression::new(GZIP_LEVEL)));
    let mut lines = Lines {
        buffer: Vec::with_capacity(CHUNK_BYTES),
        gzip,
        chunks,
        ending,
        first: Some(first),
        gone: false,
        written: 0,
        sent: 0,
        bounds: BOUNDS.try_with(|bounds| *bounds).unwrap_or_default(),
        audit: Audit::current(),
        granted: Granted::default(),
    };
    let reading = Reading { audit: Audit::current(), over: false };
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || {
        let _entered = span.enter();
        match produce(&mut lines) {
            Ok(()) => {
                if let Err(error) = lines.complete() {
                    tracing::info!(%error, "an answer could not be completed");
                }
            }
            Err(error) => lines.fail(error, failure),
        }
    });
    started.await.map_err(|_| Error::internal("the task that writes the answer died"))??;
    Ok(body(receiver, ended, reading))
}

/// A client that reads an answer. The event of the request waits for it.
struct Reading {
    audit: Option<Arc<Audit>>,
    over: bool,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let (Some(audit), false) = (&self.audit, self.over) {
            audit.note(|facts| facts.gone = true);
        }
    }
}

/// The chunks as a body. It ends well only when the task said that the answer is whole.
fn body(chunks: mpsc::Receiver<Bytes>, ending: oneshot::Receiver<Ending>, reading: Reading) -> Body {
    Body::from_stream(stream::unfold(
        (Place::Chunks(chunks, ending), reading),
        |(place, mut reading)| async {
            let (data, place) = match place {
                Place::Chunks(mut chunks, ending) => match chunks.recv().await {
                    Some(data) => (Ok(data), Place::Chunks(chunks, ending)),
                    None => match ending.await {
                        Ok(Ending::Whole(rest)) => (Ok(rest), Place::Over),
                        Ok(Ending::Broken(rest)) => (Ok(rest), Place::LastWords),
                        Err(_) => (Err(incomplete()), Place::Over),
                    },
                },
                Place::LastWords => {
                    // The HTTP library drops what it has not sent when a body fails, and sends while it waits.
                    tokio::time::sleep(LAST_WORDS).await;
                    (Err(incomplete()), Place::Over)
                }
                Place::Over => return None,
            };
            reading.over = matches!(place, Place::Over);
            Some((data, (place, reading)))
        },
    ))
}

/// Where a body stands.
enum Place {
    Chunks(mpsc::Receiver<Bytes>, oneshot::Receiver<Ending>),
    LastWords,
    Over,
}

fn incomplete() -> io::Error {
    io::Error::other("the answer is incomplete")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

    use super::*;

    fn write(lines: &mut Lines, text: &str) -> Result<()> {
        lines.line(|out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })
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
        let soon = || Bounds { deadline: Some(Instant::now() + Duration::from_millis(300)), bytes: None };
        let small = || Bounds { deadline: None, bytes: Some(4 * CHUNK_BYTES as u64) };
        let line = format!("\"{}\"", "x".repeat(CHUNK_BYTES));
        for (bounds, message) in [(soon(), "took too long"), (small(), "larger than")] {
            let line = line.clone();
            let body = bounds.scope(stream(Encoding::Identity, FailureLine::EndStreamAction, move |lines| {
                loop {
                    write(lines, &line)?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }));
            let (bytes, _) = read(body.await.unwrap().unwrap()).await;
            let text = String::from_utf8(bytes).unwrap();
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            let told = last["endStreamAction"]["errorMessage"].as_str().unwrap();
            assert!(told.contains(message), "{told}");
        }
        // A client that reads nothing does not hold the task beyond the deadline.
        let (done, mut over) = oneshot::channel::<()>();
        let body = soon().scope(stream(Encoding::Identity, FailureLine::NotJson, move |lines| {
            let _done = done;
            loop {
                write(lines, &line)?;
            }
        }));
        let body = body.await.unwrap().unwrap();
        assert!(over.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert!(over.await.is_err());
        let (_, whole) = read(body).await;
        assert!(!whole);
        // What does not answer at all is given up.
        assert!(soon().scope(std::future::pending::<()>()).await.is_err());
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
}
