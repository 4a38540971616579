//! JSON in the form that every client can read: one line, ASCII only.
//!
//! Some clients split an answer at every character that Unicode calls a line end, so everything
//! outside ASCII is written as `\uXXXX`.

use std::io;

use serde::de::Error as _;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use serde_json::ser::Formatter;

/// Parses JSON of at most `deepest` levels, which may be more than parsers allow by default.
pub fn parse_nested(text: &str, deepest: usize) -> serde_json::Result<Value> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > deepest {
            return Err(serde_json::Error::custom(format!("it has more than {deepest} levels")));
        }
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// Appends `value` as one line of JSON, in ASCII, without the line's end.
///
/// Errors only if `value` cannot be JSON, such as a map whose keys are not strings.
pub fn write_json(out: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Ascii))
}

/// Appends `text` as a JSON string, in ASCII.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    if !write_common(out, text.as_bytes()) {
        out.truncate(start);
        write_any(out, text);
    }
}

/// How many bytes are written in one step.
const STEP: usize = 8;

/// Writes a text of plain characters, quotes and backslashes, which statistics are, without a branch
/// for each byte. `false` if there is anything else; what was written is then wrong.
fn write_common(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let start = out.len();
    // A quote is preceded by the backslash that already lies in its place.
    out.resize(start + 2 * text.len(), b'\\');
    let (steps, rest) = text.as_chunks::<STEP>();
    let mut seen = 0;
    let mut written = start;
    for bytes in steps {
        // Within a step, places do not depend on the steps before, so that the processor works on several at once.
        let Some(room) = out.get_mut(written..).and_then(|room| room.first_chunk_mut()) else { return false };
        written += write_step(room, bytes, &mut seen);
    }
    // The rest may have less room than a step takes.
    let (mut room, mut last) = ([b'\\'; 2 * STEP], [b' '; STEP]);
    last[..rest.len()].copy_from_slice(rest);
    let length = write_step(&mut room, &last, &mut seen) - (STEP - rest.len());
    out.truncate(written);
    out.extend_from_slice(&room[..length]);
    seen & OTHER == 0
}

/// Writes a few bytes into room full of backslashes, and returns how much of it they take.
fn write_step(room: &mut [u8; 2 * STEP], bytes: &[u8; STEP], seen: &mut u8) -> usize {
    let mut written = 0;
    for &byte in bytes {
        let class = CLASS[usize::from(byte)];
        *seen |= class;
        written += usize::from(class & ESCAPED);
        // Never more than the room: the remainder only spares a check.
        room[written % (2 * STEP)] = byte;
        written += 1;
    }
    written
}

const ESCAPED: u8 = 1;
const OTHER: u8 = 2;

/// What becomes of each byte inside a JSON string in ASCII: 0 for what stands for itself, `ESCAPED` for
/// what a backslash precedes, `OTHER` for the rest.
static CLASS: [u8; 256] = {
    let mut class = [OTHER; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        class[byte] = 0;
        byte += 1;
    }
    class[b'"' as usize] = ESCAPED;
    class[b'\\' as usize] = ESCAPED;
    class
};

/// Writes any text, copying runs of plain characters as they are.
fn write_any(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        if CLASS[usize::from(bytes[at])] == 0 {
            at += 1;
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        at += write_special(out, text, at);
        plain = at;
    }
    out.extend_from_slice(&bytes[plain..]);
}

/// Writes the character at `at`, and returns its length in bytes.
fn write_special(out: &mut Vec<u8>, text: &str, at: usize) -> usize {
    match text.as_bytes()[at] {
        byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        byte if byte < 0x80 => write_unit(out, u16::from(byte)),
        _ => {
            let Some(character) = text[at..].chars().next() else { return 1 };
            for unit in character.encode_utf16(&mut [0; 2]) {
                write_unit(out, *unit);
            }
            return character.len_utf8();
        }
    }
    1
}

fn write_unit(out: &mut Vec<u8>, unit: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[usize::from(unit >> shift & 0xf)]);
    }
}

/// Appends a number in decimal.
pub fn write_integer(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut escaped = Vec::with_capacity(fragment.len() + 16);
        write_escaped(&mut escaped, fragment);
        writer.write_all(&escaped)
    }
}

/// Writes a map of text to text or null.
pub fn write_map<'a, V: AsRef<str>>(values: impl Iterator<Item = (&'a str, Option<V>)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, value)) in values.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.push(b':');
        match value {
            Some(value) => write_string(out, value.as_ref()),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "a\"b\\c\n\r\t\u{0}\u{1f}\u{7f}\u{85}\u{2028}\u{2029}ü€😀/é";

    #[test]
    fn a_string_survives_and_is_ascii() {
        let mut out = Vec::new();
        write_string(&mut out, ODD);
        assert!(out.is_ascii());
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), ODD);
    }

    #[test]
    fn statistics_survive_too() {
        for text in ["", "plain", r#"{"minValues":{"a":"\\x"}}"#, "\"\"\"", "\\\\"] {
            let mut out = b"before".to_vec();
            write_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out[6..]).unwrap(), text);
        }
    }

    #[test]
    fn a_value_survives_and_is_one_ascii_line() {
        let value = serde_json::json!({ODD: [ODD, 1, null]});
        let mut out = Vec::new();
        write_json(&mut out, &value).unwrap();
        assert!(out.is_ascii() && !out.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), value);
    }

    #[test]
    fn integers() {
        for value in [0, 7, -7, 10, 1_640_995_200_000, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_integer(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
