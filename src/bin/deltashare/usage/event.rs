//! Lines of a log: events of requests as `deltashare serve` and the function write them, and everything else.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Map, Value};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The client has the whole answer, or closed the connection before that.
    Answered,
    /// With a status of 4xx.
    Refused,
    /// With a status of 5xx, or after its status was sent.
    Failed,
}

impl Outcome {
    /// By the message of an event.
    pub(super) fn of(message: &str) -> Option<Self> {
        match message {
            "answered" | "gone" => Some(Self::Answered),
            "refused" => Some(Self::Refused),
            "failed" | "broken" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// A request, or several of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The day on which it ended, in UTC.
    pub(super) day: NaiveDate,
    /// `None` if it had no valid token.
    pub(super) recipient: Option<String>,
    /// The table, as `share.schema.table`, or the share; empty if the request was for neither.
    pub(super) object: String,
    pub(super) outcome: Outcome,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Event(Event),
    /// Nothing of a request of a recipient.
    Other,
    /// An event, but not a whole one.
    Unreadable(String),
}

/// What is no request for data: downloads from the server's own machine, whose files the query has counted already, requests
/// of load balancers, and what browsers ask for beside answers.
pub(super) const NOT_COUNTED: [&str; 6] =
    ["GetFile", "Health", "GetPage", "Preflight", "GetActivation", "Activate"];

/// The module that writes events, as a log in text names it.
const TARGET: &str = "deltashare::audit: ";

/// What is left of events that were cut off, at the end or at the beginning, in the forms of a log. Few other lines have
/// any of them.
const PARTS: [&[&str]; 5] = [
    &["\"request.id\":\""],
    &["\"Action\":\"", "\"FunctionName\":"],
    &["\"Latency\":", "\"_aws\":{"],
    &[" files=", " bytes=", " http.status="],
    &[" http.status=", " duration_ms=", " cold="],
];

/// Reads a line, with or without its end.
pub(super) fn read(line: &str) -> Line {
    let plain;
    let line = if line.contains('\x1b') {
        plain = without_colors(line);
        plain.trim()
    } else {
        line.trim()
    };
    match text_event(line) {
        Some(found) => found,
        // What comes before is the time, and the stream, as `aws logs tail` and exports write them.
        None => match line.find('{').and_then(|at| json_event(line.get(at..).unwrap_or_default())) {
            Some(found) => found,
            None if PARTS.iter().any(|parts| parts.iter().all(|part| line.contains(part))) => {
                unreadable("an event is not whole")
            }
            None => Line::Other,
        },
    }
}

/// A line without what sets colors on a terminal.
fn without_colors(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

fn unreadable(reason: impl Into<String>) -> Line {
    Line::Unreadable(reason.into())
}

// JSON

/// `None` if it is no JSON object.
fn json_event(text: &str) -> Option<Line> {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { return None };
    Some(object_event(&object))
}

fn object_event(object: &Map<String, Value>) -> Line {
    // Some formats of logs have the fields of an event in an object of their own.
    let inner = object.get("fields").and_then(Value::as_object).unwrap_or(object);
    let text_of = |name: &str| inner.get(name).and_then(Value::as_str);
    let (Some(outcome), Some(action)) =
        (text_of("message").and_then(Outcome::of), text_of("Action").or_else(|| text_of("action")))
    else {
        return Line::Other;
    };
    let Some(time) = object.get("timestamp").and_then(Value::as_str) else {
        return unreadable("an event has no timestamp");
    };
    let number = |names: [&str; 2]| number_of(inner, names);
    let (files, bytes) = match (number(["FilesSigned", "files"]), number(["BytesGranted", "bytes"])) {
        (Ok(files), Ok(bytes)) => (files, bytes),
        (Err(reason), _) | (_, Err(reason)) => return unreadable(reason),
    };
    event(time, action, text_of("recipient"), text_of("object"), outcome, files, bytes)
}

/// A count, of which 0 is left out.
fn number_of(object: &Map<String, Value>, names: [&str; 2]) -> Result<u64, String> {
    match names.iter().find_map(|name| object.get(*name)) {
        None => Ok(0),
        Some(value) => {
            value.as_u64().ok_or_else(|| format!("{} of an event is not a whole number", names[0]))
        }
    }
}

fn event(
    time: &str,
    action: &str,
    recipient: Option<&str>,
    object: Option<&str>,
    outcome: Outcome,
    files: u64,
    bytes: u64,
) -> Line {
    let Ok(time) = DateTime::parse_from_rfc3339(time) else {
        return unreadable("the timestamp of an event is not a time");
    };
    if NOT_COUNTED.contains(&action) {
        return Line::Other;
    }
    Line::Event(Event {
        day: time.with_timezone(&Utc).date_naive(),
        recipient: recipient.map(str::to_owned),
        object: object.unwrap_or_default().to_owned(),
        outcome,
        files,
        bytes,
    })
}

// Text

/// An event in the text format of `deltashare serve`: the time, the level, perhaps the request, and the fields. `None` if
/// the line is none.
fn text_event(line: &str) -> Option<Line> {
    let (before, fields) = line.split_once(TARGET)?;
    let before = before.strip_suffix(' ')?;
    // The request has no spaces in its path.
    let before = match before.strip_suffix("}:") {
        Some(before) => before.rsplit_once(" request{").map(|(before, _)| before)?,
        None => before,
    };
    let mut words = before.split_whitespace().rev();
    let level = words.next()?;
    let time = words.next().filter(|_| ["INFO", "WARN", "ERROR"].contains(&level))?;
    DateTime::parse_from_rfc3339(time).ok()?;
    let (message, fields) = fields.split_once(' ').unwrap_or((fields, ""));
    let outcome = match Outcome::of(message) {
        Some(outcome) => outcome,
        None => return Some(unreadable("an event is not whole")),
    };
    Some(match text_fields(fields) {
        Ok(fields) => text_line(time, outcome, &fields),
        Err(reason) => unreadable(reason),
    })
}

fn text_line(time: &str, outcome: Outcome, fields: &[(&str, String)]) -> Line {
    let text =
        |wanted: &str| fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
    let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
    // The last of them shows that the fields before it are whole.
    match (text("action"), number("files"), number("bytes"), number("duration_ms")) {
        (Some(action), Some(files), Some(bytes), Some(_)) => {
            event(time, action, text("recipient"), text("object"), outcome, files, bytes)
        }
        _ => unreadable("an event is not whole"),
    }
}

/// `name=value name="a \"quoted\" value"`
fn text_fields(mut text: &str) -> Result<Vec<(&str, String)>, String> {
    let mut fields = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (value.to_owned(), rest)
            }
        };
        fields.push((name.trim(), value));
        text = rest.trim_start();
    }
    Ok(fields)
}

/// A string as Rust writes it for debugging, after its first quote, and what follows it.
fn unquoted(text: &str) -> Result<(String, &str), String> {
    let cut = || "an event is not whole: a text in it has no end".to_owned();
    let (mut value, mut characters) = (String::new(), text.char_indices());
    loop {
        match characters.next().ok_or_else(cut)? {
            (at, '"') => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            (_, '\\') => match characters.next().ok_or_else(cut)?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                '0' => value.push('\0'),
                'u' => {
                    let digits: String = characters
                        .by_ref()
                        .map(|(_, digit)| digit)
                        .take_while(|digit| *digit != '}')
                        .collect();
                    let code = u32::from_str_radix(digits.trim_start_matches('{'), 16).ok();
                    value.push(code.and_then(char::from_u32).ok_or_else(cut)?);
                }
                other => value.push(other),
            },
            (_, other) => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"2026-11-27T07:19:15.732777Z  INFO deltashare::audit: answered request.id="f" action="QueryTable" recipient="Acme \"EU\" \\ \u{200b}=x" token.id="1" object="r.s.t" version=3 format="parquet" files=2 bytes=12345 http.status=200 duration_ms=7 cold=true user_agent="a \"b\" deltashare::audit: refused files=9" source_ip="127.0.0.1""#;

    const JSON: &str = r#"{"timestamp":"2026-11-27T23:59:59.999Z","level":"INFO","message":"answered","request.id":"f","recipient":"acme","token.id":"1","object":"r.s.t","version":3,"http.status":200,"FunctionName":"f","Action":"QueryTable","Latency":7,"FilesSigned":2,"BytesGranted":12345,"_aws":{}}"#;

    fn event_of(line: &str) -> Event {
        match read(line) {
            Line::Event(event) => event,
            other => panic!("{other:?}: {line}"),
        }
    }

    #[test]
    fn events_in_every_form() {
        let text = event_of(TEXT);
        assert_eq!(text.recipient.as_deref(), Some("Acme \"EU\" \\ \u{200b}=x"));
        assert_eq!((text.object.as_str(), text.files, text.bytes), ("r.s.t", 2, 12345));
        assert_eq!((text.day.to_string().as_str(), text.outcome), ("2026-11-27", Outcome::Answered));
        let in_request = TEXT.replace(
            " deltashare::audit: answered",
            " request{request.id=f http.method=GET http.path=/a}:b}: deltashare::audit: broken",
        );
        assert_eq!(event_of(&in_request), Event { outcome: Outcome::Failed, ..text.clone() });
        for line in [
            format!("Nov 27 07:19:15 host deltashare[12]: {TEXT}\n"),
            TEXT.replace(
                "  INFO deltashare::audit:",
                " \x1b[32m INFO\x1b[0m \x1b[2mdeltashare::audit\x1b[0m\x1b[2m:\x1b[0m",
            ),
        ] {
            assert_eq!(event_of(&line), text, "{line}");
        }

        let json = event_of(JSON);
        assert_eq!((json.recipient.as_deref(), json.files, json.bytes), (Some("acme"), 2, 12345));
        assert_eq!((json.object.as_str(), json.day.to_string().as_str()), ("r.s.t", "2026-11-27"));
        for line in [
            format!("2026-11-27T23:59:59+00:00 2026/11/27/[5]3f {JSON}\r\n"),
            JSON.replace("Action", "action").replace("FilesSigned", "files").replace("BytesGranted", "bytes"),
            JSON.replace("\"message\"", "\"fields\":{\"message\"").replace("\"_aws\":{}}", "\"x\":1}}"),
        ] {
            assert_eq!(event_of(&line), json, "{line}");
        }
        // Counts of 0 are left out, and times have offsets.
        let none =
            JSON.replace(r#""FilesSigned":2,"BytesGranted":12345,"#, "").replace("59.999Z", "59.999-01:00");
        let none = event_of(&none);
        assert_eq!((none.files, none.bytes, none.day.to_string().as_str()), (0, 0, "2026-11-28"));
        let refused = event_of(&JSON.replace("answered", "refused").replace(r#""recipient":"acme","#, ""));
        assert_eq!((refused.recipient, refused.outcome), (None, Outcome::Refused));
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "{",
            "{}",
            "[1]",
            "hello",
            "2026-11-27T07:19:13Z  WARN deltashare::share_file: the share file {x} deltashare::audit: answered files=1",
            r#"{"time":"2026-11-27T07:19:13Z","type":"platform.report","record":{"requestId":"f"}}"#,
            r#"{"timestamp":"2026-11-27T07:19:13Z","level":"WARN","message":"a table is no longer kept","table":"t"}"#,
            r#"{"timestamp":"2026-11-27T07:19:13Z","message":"answered"}"#,
            &TEXT.replace("QueryTable", "GetFile"),
            &JSON.replace("QueryTable", "Health"),
        ] {
            assert_eq!(read(line), Line::Other, "{line}");
        }
    }

    #[test]
    fn no_event_that_is_cut_off_counts_as_less() {
        for whole in [TEXT, JSON] {
            let expected = event_of(whole);
            for end in whole.char_indices().map(|(at, _)| at).skip(1) {
                match read(&whole[..end]) {
                    Line::Event(event) => assert_eq!(event, expected, "{end}"),
                    Line::Unreadable(_) => {}
                    // So little is left of it that it may be anything.
                    Line::Other => assert!(end < 100, "{}", &whole[..end]),
                }
                match read(&whole[end..]) {
                    Line::Unreadable(_) => {}
                    Line::Other => assert!(whole.len() - end < 320, "{}", &whole[end..]),
                    Line::Event(event) => panic!("{event:?}: {}", &whole[end..]),
                }
            }
        }
        for (line, reason) in [
            (JSON.replace("12345", "-1"), "BytesGranted of an event is not a whole number"),
            (JSON.replace("\"FilesSigned\":2", "\"FilesSigned\":\"2\""), "FilesSigned of an event is not"),
            (JSON.replace("\"timestamp\"", "\"time\""), "an event has no timestamp"),
            (JSON.replace("2026-11-27T", "2026-13-27T"), "is not a time"),
            (TEXT.replace("bytes=12345", "bytes=x"), "an event is not whole"),
        ] {
            let Line::Unreadable(found) = read(&line) else { panic!("{line}") };
            assert!(found.contains(reason), "{found}");
        }
    }
}
