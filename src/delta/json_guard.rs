//! What actions may cost, checked in the bytes of a commit before a JSON parser sees them.
//!
//! The parsers hold a batch of actions at a time, take several times the room of a text with many tiny values,
//! and one of them shows what it could not read by a recursive walk. So nesting, the size of an action and the size of a
//! batch are counted first, in one pass without memory.

use super::log_rejection::LogRejection;
use crate::limits::Limits;

/// What a value takes in a parser, beside its text.
const VALUE_BYTES: u64 = 32;

/// The longest line that is not looked into. A batch of such lines takes little memory, whatever they are.
const SHORT_LINE: usize = 4 * 1024;

/// Counts what the actions of one file cost, piece by piece.
#[derive(Debug)]
pub(super) struct JsonGuard {
    depth_limit: usize,
    line_limit: u64,
    batch_limit: u64,
    batch_rows: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// Of the action that is under way.
    line: u64,
    /// Of the actions that a parser holds together.
    batch: u64,
    rows: usize,
    rejection: Option<LogRejection>,
}

impl JsonGuard {
    /// `batch_rows` is how many actions a parser holds at most.
    pub(super) fn new(limits: &Limits, batch_rows: usize) -> Self {
        Self {
            depth_limit: limits.log_depth,
            line_limit: limits.log_action_bytes,
            batch_limit: limits.log_batch_bytes,
            batch_rows,
            depth: 0,
            in_text: false,
            escaped: false,
            line: 0,
            batch: 0,
            rows: 0,
            rejection: None,
        }
    }

    /// What the batch takes that is under way, so far.
    pub(super) fn batch(&self) -> u64 {
        self.batch
    }

    /// Counts the next piece of the file. Refuses every piece after one that was refused.
    pub(super) fn count(&mut self, piece: &[u8]) -> Result<(), LogRejection> {
        if self.rejection.is_none() {
            self.rejection = self.scan(piece).err();
        }
        self.rejection.map_or(Ok(()), Err)
    }

    fn scan(&mut self, piece: &[u8]) -> Result<(), LogRejection> {
        // Where the action that is under way begins, or the piece.
        let (mut start, mut at) = (0, 0);
        if self.escaped && !piece.is_empty() {
            self.escaped = false;
            at = 1;
        }
        let (mut depth, mut values) = (self.depth, 0);
        if depth == 0 && !self.in_text && at == 0 && self.line == 0 {
            at = self.short_lines(piece, 0)?;
            start = at;
        }
        while let Some(rest) = piece.get(at..).filter(|rest| !rest.is_empty()) {
            if self.in_text {
                let Some(found) = end_or_escape(rest) else { break };
                at += found + 1;
                if rest.get(found) == Some(&b'"') {
                    self.in_text = false;
                } else if at < piece.len() {
                    at += 1;
                } else {
                    self.escaped = true;
                }
                continue;
            }
            let Some(found) =
                rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b',' | b'\n'))
            else {
                break;
            };
            at += found + 1;
            match rest.get(found) {
                Some(b'"') => self.in_text = true,
                Some(b'{' | b'[') => {
                    depth += 1;
                    values += 1;
                    if depth > self.depth_limit {
                        return Err(LogRejection::TooDeep);
                    }
                }
                Some(b',') => values += 1,
                Some(b'\n') => {
                    if depth == 0 && self.line == 0 {
                        self.add(at - start, values)?;
                        self.line = 0;
                        at = self.short_lines(piece, at)?;
                        (start, values) = (at, 0);
                    }
                }
                _ => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        self.add(at - start, values)?;
                        (start, values) = (at, 0);
                        self.end_action();
                    }
                }
            }
        }
        self.depth = depth;
        self.add(piece.len() - start, values)
    }

    /// Passes over lines from `at` on, where no action is under way, and returns where they end.
    ///
    /// Most lines are short and have few brackets, so they need not be looked into, as long as nothing of them is open
    /// where the next one begins: a line that ends with `}` before one that begins with `{"` and a letter. Inside of a
    /// text, that quote would end it, and no letter may follow; after a value in a list or an object, there has to be a
    /// comma. In either case a parser stops right there, at a character, and not with what it holds.
    fn short_lines(&mut self, piece: &[u8], mut at: usize) -> Result<usize, LogRejection> {
        while let Some(rest) = piece.get(at..)
            && let Some(length) = memchr::memchr(b'\n', rest)
            && length <= SHORT_LINE
            && let Some((line, after)) = rest.split_at_checked(length)
            && line.ends_with(b"}")
            && let [b'\n', b'{', b'"', letter, ..] = after
            && letter.is_ascii_alphabetic()
            && brackets(line) <= self.depth_limit
        {
            self.add(length + 1, 0)?;
            self.end_action();
            at += length + 1;
        }
        Ok(at)
    }

    fn add(&mut self, bytes: usize, values: u64) -> Result<(), LogRejection> {
        let cost = bytes as u64 + values * VALUE_BYTES;
        self.line += cost;
        self.batch += cost;
        if self.line > self.line_limit {
            return Err(LogRejection::Line);
        }
        if self.batch > self.batch_limit {
            return Err(LogRejection::Batch);
        }
        Ok(())
    }

    fn end_action(&mut self) {
        self.line = 0;
        self.rows += 1;
        if self.rows == self.batch_rows {
            (self.rows, self.batch) = (0, 0);
        }
    }
}

/// How many lists and objects a text may open.
fn brackets(text: &[u8]) -> usize {
    // Both differ in one bit. Sums of bytes are what compilers make vectors of.
    let count = |part: &[u8]| part.iter().map(|&byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    text.chunks(128).map(|part| usize::from(count(part))).sum()
}

/// The place of the first quote or backslash. Texts of statistics have one every few bytes, for which eight bytes at a
/// time are faster than a search for long distances.
fn end_or_escape(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut at = 0;
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        // The lowest high bit is that of the first byte that is zero.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
        let found = zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64));
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        (at, rest) = (at + 8, after);
    }
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> JsonGuard {
        let limits =
            Limits { log_depth: 4, log_action_bytes: 400, log_batch_bytes: 1_000, ..Limits::default() };
        JsonGuard::new(&limits, 3)
    }

    /// The answer must not depend on where the pieces end.
    fn count(text: &str) -> Result<(), LogRejection> {
        let whole = guard().count(text.as_bytes());
        for length in [1, 2, 3, 7] {
            let mut guard = guard();
            let counted = text.as_bytes().chunks(length).try_for_each(|piece| guard.count(piece));
            assert_eq!(counted, whole, "{text} in pieces of {length}");
        }
        whole
    }

    #[test]
    fn nesting_counts_outside_of_texts_only() {
        assert_eq!(count(r#"{"a":[[[1]]]}"#), Ok(()));
        assert_eq!(count(r#"{"a":[[[[1]]]]}"#), Err(LogRejection::TooDeep));
        assert_eq!(count(r#"{"a":"[[[[[[","b":"\"[[[[[","c":"\\","d":[[[]]]}"#), Ok(()));
        assert_eq!(count(r#"{"a":"\\\"[[[[["}"#), Ok(()));
        assert_eq!(count(r#"{"a":"\\","b":[[[[]]]]}"#), Err(LogRejection::TooDeep));
        assert_eq!(count(&format!("]]]]{}", "[".repeat(5))), Err(LogRejection::TooDeep));
        assert_eq!(count("[[\n[[\n["), Err(LogRejection::TooDeep));
    }

    #[test]
    fn an_action_is_measured_with_its_values() {
        let text = |length| format!(r#"{{"a":"{}"}}"#, "x".repeat(length));
        assert_eq!(count(&text(300)), Ok(()));
        assert_eq!(count(&text(400)), Err(LogRejection::Line));
        assert_eq!(count(&format!(r#"{{"a":[{}1]}}"#, "1,".repeat(20))), Err(LogRejection::Line));
        assert_eq!(count(&"x".repeat(401)), Err(LogRejection::Line));
    }

    #[test]
    fn a_batch_is_as_many_actions_as_the_parser_holds() {
        let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(240));
        assert_eq!(count(&line.repeat(100)), Ok(()));
        let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(340));
        assert_eq!(count(&line.repeat(2)), Ok(()));
        assert_eq!(count(&line.repeat(3)), Err(LogRejection::Batch));
    }

    #[test]
    fn lines_that_are_not_looked_into_leave_nothing_open() {
        let line = |text: &str| format!("{text}\n").repeat(20);
        assert_eq!(count(&line(r#"{"a":[{"b":1}]}"#)), Ok(()));
        // Each of these opens more than it closes, though it does not look like it.
        for text in [r#"{"a":["]}","#, r#"{"a":[["]]]",{}"#, r#"{"a":[["]]]",{},"#, "[{}", "["] {
            let lines = line(text);
            let refused = guard().count(lines.as_bytes());
            let stops = lines.contains("}\n{\"");
            assert!(refused.is_err() || stops, "{text}");
        }
        // A text that begins in one line and ends in the next one.
        assert_eq!(count("{\"a\":1}\n{\"a\":\"}\n\",\"b\":[[[[1]]]]}\n"), Err(LogRejection::TooDeep));
    }

    #[test]
    fn what_was_refused_stays_refused() {
        let mut guard = guard();
        assert!(guard.count(b"[[[[[").is_err());
        assert_eq!(guard.count(b"{}"), Err(LogRejection::TooDeep));
    }
}
