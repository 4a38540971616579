//! The list of files of a table, read as it comes: compressed or not, at once or as a stream.

use std::io::Write as _;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use flate2::write::GzDecoder;
use serde_json::Value;
use url::Url;

use super::finding::Finding;
use super::recipient::{FileUrl, Table};

/// The first two bytes of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An answer must take so long until it tells whether it was streamed.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

/// It must have so much, so that nothing in between holds it back only because it is small.
const LARGE_ENOUGH: u64 = 1_000_000;

/// The longest line: one with the schema of a table, or with the statistics of a file.
const LONGEST_LINE: usize = 64 * 1024 * 1024;

/// The largest answer, without compression: that of a table with ten million files.
const LARGEST: u64 = 16 * 1024 * 1024 * 1024;

/// So much is unpacked at once, because gzip makes a thousand times of it.
const SLICE: usize = 4096;

/// What came for one query.
pub(super) struct QueryAnswer {
    began: Instant,
    decoder: Decoder,
    lines: Lines,
    /// Whether the header says that it is compressed.
    pub(super) says_gzip: bool,
    /// The first bytes as they came.
    start: Vec<u8>,
    undecoded: bool,
    /// From the request to the first line.
    pub(super) first_line: Duration,
    /// From the request to the end.
    pub(super) whole: Duration,
    pub(super) files: u64,
    /// The size of all files in bytes.
    pub(super) bytes: u64,
    pub(super) first_file: Option<FileUrl>,
    /// The bytes of the answer, without compression.
    pub(super) size: u64,
    has_protocol: bool,
    has_metadata: bool,
    /// What the last line says: the end, perhaps with an error. Servers may send none.
    end: Option<Value>,
    unreadable_line: bool,
    /// Why no more is read of it.
    too_large: Option<&'static str>,
    /// A size that no file has, or a sum of sizes that no disk holds.
    impossible_size: bool,
}

/// Turns what comes into what it stands for.
enum Decoder {
    Identity,
    Gzip(Box<GzDecoder<Vec<u8>>>),
}

/// Puts lines together.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl QueryAnswer {
    pub(super) fn begin(encoding: Option<&str>, began: Instant) -> Self {
        let says_gzip = encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case("gzip"));
        let decoder = match says_gzip {
            true => Decoder::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            false => Decoder::Identity,
        };
        Self {
            began,
            decoder,
            lines: Lines::default(),
            says_gzip,
            start: Vec::new(),
            undecoded: false,
            first_line: Duration::ZERO,
            whole: Duration::ZERO,
            files: 0,
            bytes: 0,
            first_file: None,
            size: 0,
            has_protocol: false,
            has_metadata: false,
            end: None,
            unreadable_line: false,
            too_large: None,
            impossible_size: false,
        }
    }

    /// Whether the answer is beyond what servers send, so that no more of it is taken.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large.is_some()
    }

    /// Takes what came at `now`.
    pub(super) fn take(&mut self, chunk: &[u8], now: Instant) {
        for slice in chunk.chunks(SLICE) {
            if !self.is_too_large() {
                self.take_slice(slice, now);
            }
        }
    }

    fn take_slice(&mut self, chunk: &[u8], now: Instant) {
        if self.start.len() < GZIP.len() {
            self.start.extend(chunk.iter().take(GZIP.len()));
        }
        let decoded = match &mut self.decoder {
            Decoder::Identity => chunk.to_vec(),
            Decoder::Gzip(decoder) => {
                let written = decoder.write_all(chunk).and_then(|()| decoder.flush());
                self.undecoded |= written.is_err();
                std::mem::take(decoder.get_mut())
            }
        };
        self.decoded(&decoded, now);
    }

    pub(super) fn end(&mut self, now: Instant) {
        if let Decoder::Gzip(decoder) = &mut self.decoder {
            self.undecoded |= decoder.try_finish().is_err();
            let rest = std::mem::take(decoder.get_mut());
            if !self.is_too_large() {
                self.decoded(&rest, now);
            }
        }
        // Every line of an answer ends with one, so that what is left was cut off.
        self.unreadable_line |= !self.lines.rest.is_empty();
        self.whole = now - self.began;
    }

    fn decoded(&mut self, bytes: &[u8], now: Instant) {
        self.size += bytes.len() as u64;
        let mut lines = std::mem::take(&mut self.lines);
        lines.take(bytes, |line| {
            if self.first_line.is_zero() {
                self.first_line = now - self.began;
            }
            self.line(line);
        });
        self.lines = lines;
        if self.lines.rest.len() > LONGEST_LINE {
            self.too_large = Some("a line of the answer has more than 64 MiB");
        } else if self.size > LARGEST {
            self.too_large = Some("the answer has more than 16 GiB");
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Ok(Value::Object(mut line)) = serde_json::from_slice(line) else {
            self.unreadable_line = true;
            return;
        };
        self.has_protocol |= line.contains_key("protocol");
        self.has_metadata |= line.contains_key("metaData");
        if let Some(end) = line.remove("endStreamAction") {
            self.end = Some(end);
        }
        if let Some(file) = line.get("file") {
            self.files += 1;
            let added = file.pointer("/deltaSingleAction/add");
            // The log has sizes as numbers of 64 bits with a sign.
            let size = match added.unwrap_or(file).get("size") {
                None | Some(Value::Null) => Some(0),
                Some(size) => size.as_i64().and_then(|size| u64::try_from(size).ok()),
            };
            match size.and_then(|size| self.bytes.checked_add(size)) {
                Some(sum) => self.bytes = sum,
                None => self.impossible_size = true,
            }
            if self.first_file.is_none() {
                self.first_file = file_url(file, added);
            }
        }
    }

    /// What is wrong with the answer itself.
    pub(super) fn check(&self, table: &Table) -> Result<(), Finding> {
        let found = |what: &str, help: &str| Err(Finding::new(table, what).help(help));
        if let Some(what) = self.too_large {
            return found(
                what,
                "No server sends so much: something else answers, or the table's log is damaged.",
            );
        }
        if self.start == GZIP && !self.says_gzip {
            return found(
                "the answer is compressed but its header content-encoding is gone, so that no client can read it",
                "Something in between removes the header: turn off compression at the server, or for the function \
                 with DELTASHARE_GZIP=off.",
            );
        }
        if self.undecoded {
            return found(
                "the answer says that it is compressed, but it is not gzip or was cut off",
                "Something in between unpacks or cuts off answers: turn off compression at the server.",
            );
        }
        if let Some(message) =
            self.end.as_ref().and_then(|end| end.get("errorMessage")).and_then(Value::as_str)
        {
            return found(
                &format!("the answer ended with an error: {message}"),
                "The server's log has the cause; deltashare check may say more.",
            );
        }
        if self.unreadable_line || !self.has_protocol || !self.has_metadata {
            return found(
                "the list of files is not complete",
                "The connection was cut off: by a timeout in between, by the 200 MB or the time that Lambda allows, or \
                 by a failure in the server's log.",
            );
        }
        if self.impossible_size {
            return found(
                "the sizes of the files cannot be right: one is no number of bytes, or they add up to more than there is",
                "The table's log names a wrong size: repair the table. deltashare check may say more.",
            );
        }
        Ok(())
    }

    /// Whether the first line came long before the last; `None` if the answer is too small to tell.
    pub(super) fn streamed(&self) -> Option<bool> {
        if self.size < LARGE_ENOUGH || self.whole < LONG_ENOUGH {
            return None;
        }
        // An answer that was held back comes with its last line soon after the first. What lies in between may be a
        // slow network.
        match self.first_line.as_secs_f64() / self.whole.as_secs_f64() {
            early if early < 0.5 => Some(true),
            late if late > 0.8 => Some(false),
            _ => None,
        }
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        let mut from = 0;
        while let Some(at) = bytes.get(from..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let piece = bytes.get(from..from + at).unwrap_or_default();
            if self.rest.is_empty() {
                line(piece);
            } else {
                self.rest.extend_from_slice(piece);
                line(&std::mem::take(&mut self.rest));
            }
            from += at + 1;
        }
        self.rest.extend_from_slice(bytes.get(from..).unwrap_or_default());
    }
}

fn file_url(file: &Value, added: Option<&Value>) -> Option<FileUrl> {
    let url = match added {
        Some(added) => added.get("path"),
        None => file.get("url"),
    };
    let url = Url::parse(url?.as_str()?).ok()?;
    let ends = file
        .get("expirationTimestamp")
        .and_then(Value::as_i64)
        .and_then(DateTime::<Utc>::from_timestamp_millis);
    Some(FileUrl { url, ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_streamed_is_told_from_what_was_held_back() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let line = |name: &str| format!("{{\"{name}\":{{}}}}\n");
        let answer = |first: u64, last: u64, size: usize| {
            let mut answer = QueryAnswer::begin(None, began);
            answer.take((line("protocol") + &line("metaData")).as_bytes(), at(first));
            let file = format!("{{\"file\":{{\"size\":1,\"id\":\"{}\"}}}}\n", "x".repeat(size));
            answer.take(file.as_bytes(), at(last));
            answer.end(at(last));
            assert_eq!((answer.files, answer.bytes), (1, 1));
            answer.streamed()
        };
        assert_eq!(answer(10, 2000, 2_000_000), Some(true));
        assert_eq!(answer(1900, 2000, 2_000_000), Some(false));
        assert_eq!(answer(1200, 2000, 2_000_000), None);
        assert_eq!(answer(1900, 2000, 2_000), None);
        assert_eq!(answer(1, 2, 2_000_000), None);
    }

    #[test]
    fn sizes_that_no_file_has_are_noticed_and_added_up_without_a_panic() {
        let sizes_are_possible = |sizes: &[&str]| {
            let mut answer = QueryAnswer::begin(None, Instant::now());
            for size in sizes {
                answer.take(format!("{{\"file\":{{\"size\":{size}}}}}\n").as_bytes(), Instant::now());
            }
            !answer.impossible_size
        };
        assert!(sizes_are_possible(&["1", "9223372036854775807", "null"]));
        for sizes in [
            &["18446744073709551615", "18446744073709551615"][..],
            &["9223372036854775807", "9223372036854775807", "2"],
            &["-1"],
            &["1.5"],
            &["\"9\""],
        ] {
            assert!(!sizes_are_possible(sizes), "{sizes:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut answer = QueryAnswer::begin(None, Instant::now());
        let piece = vec![b'x'; 1024 * 1024];
        let taken = (0..1000).take_while(|_| {
            answer.take(&piece, Instant::now());
            !answer.is_too_large()
        });
        assert_eq!(taken.count(), LONGEST_LINE / piece.len());
    }
}
