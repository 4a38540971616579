//! Actions that break a rule of Delta's protocol and that Spark reads all the same: fields that are left out or null
//! and have one possible value, numbers and texts that are written as the other. They are put right before they are
//! read. What leaves open which rows a table has is never guessed, and stays an error.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::deletion_vector::FileKey;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The lines of a commit, put right. What is no JSON stays as it is; lists are left out.
pub(super) fn mended(commit: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(commit.len() + 64);
    for line in lines_of(commit) {
        match read(line) {
            Ok(Value::Array(_)) => continue,
            Ok(mut action) => {
                mend(&mut action);
                lines.extend_from_slice(action.to_string().as_bytes());
            }
            Err(_) => lines.extend_from_slice(line),
        }
        lines.push(b'\n');
    }
    lines
}

/// The lines of a commit that are not blank.
pub(super) fn lines_of(commit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let commit = commit.strip_prefix(BYTE_ORDER_MARK).unwrap_or(commit);
    commit.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

/// Reads a line whose texts may have halves of surrogate pairs, which Java writes and JSON parsers refuse.
pub(super) fn read(line: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(line).or_else(|error| match whole_characters(line) {
        Some(line) => serde_json::from_slice(&line),
        None => Err(error),
    })
}

/// The text with a replacement character in the place of each half of a pair; `None` if there is none.
fn whole_characters(text: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
    };
    let (mut whole, mut at, mut replaced) = (Vec::with_capacity(text.len()), 0, false);
    while let Some(&byte) = text.get(at) {
        let length = match (byte, unit(at), unit(at + 6)) {
            (b'\\', Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff), _) => {
                whole.extend_from_slice(b"\\ufffd");
                replaced = true;
                at += 6;
                continue;
            }
            (b'\\', Some(_), _) => 6,
            (b'\\', None, _) => 2,
            _ => 1,
        };
        whole.extend_from_slice(text.get(at..at + length)?);
        at += length;
    }
    replaced.then_some(whole)
}

/// The commit with only the last of several actions about the same file, and only the last change of the protocol and of
/// the metadata, as Spark reads it; `None` if there is one of each, as Delta's protocol demands. The kernel would take the
/// first.
pub(super) fn last_of_each(commit: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        add: Option<File<'a>>,
        #[serde(borrow)]
        remove: Option<File<'a>>,
        #[serde(rename = "metaData")]
        metadata: Option<IgnoredAny>,
        protocol: Option<IgnoredAny>,
    }
    impl<'a> Line<'a> {
        /// Spark reads one action of a line: a file before the others.
        fn subject(self) -> Option<Subject<'a>> {
            let file = self.add.or(self.remove).map(Subject::File);
            file.or(self.metadata.map(|_| Subject::Metadata)).or(self.protocol.map(|_| Subject::Protocol))
        }
    }
    enum Subject<'a> {
        File(File<'a>),
        Metadata,
        Protocol,
    }
    impl<'a> Subject<'a> {
        /// No path of a file is empty or `/`.
        fn name(self) -> Cow<'a, str> {
            match self {
                Self::File(File { path, .. }) => path,
                Self::Metadata => Cow::Borrowed(""),
                Self::Protocol => Cow::Borrowed("/"),
            }
        }
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File<'a> {
        #[serde(borrow)]
        path: Cow<'a, str>,
        #[serde(borrow)]
        deletion_vector: Option<&'a RawValue>,
    }
    fn subject(line: &[u8]) -> Option<Subject<'_>> {
        serde_json::from_slice::<Line<'_>>(line).ok()?.subject()
    }
    let mut names = HashSet::new();
    if !lines_of(commit).filter_map(subject).map(Subject::name).any(|name| !names.insert(name)) {
        return None;
    }
    let key = |line: &[u8]| {
        let File { path, deletion_vector } = match subject(line)? {
            Subject::File(file) => file,
            other => return Some((other.name().into_owned(), None)),
        };
        let vector: Option<Value> =
            deletion_vector.and_then(|vector| serde_json::from_str(vector.get()).ok());
        let id = vector.filter(|vector| !vector.is_null()).map(|vector| {
            [&vector["storageType"], &vector["pathOrInlineDv"], &vector["offset"]]
                .map(Value::to_string)
                .concat()
        });
        Some((path.into_owned(), id))
    };
    let lines: Vec<&[u8]> = lines_of(commit).collect();
    let mut seen: HashSet<FileKey> = HashSet::new();
    let is_last = |line: &&&[u8]| key(line).is_none_or(|key| seen.insert(key));
    let mut last: Vec<&[u8]> = lines.iter().rev().filter(is_last).copied().collect();
    if last.len() == lines.len() {
        return None;
    }
    last.reverse();
    Some(last.join(&b'\n'))
}

/// Puts one line of a commit right.
pub(super) fn mend(line: &mut Value) {
    let Value::Object(line) = line else { return };
    if let Some(Value::Object(metadata)) = line.get_mut("metaData") {
        mend_metadata(metadata);
    }
    if let Some(Value::Object(protocol)) = line.get_mut("protocol") {
        set_default(protocol, "minWriterVersion", json!(1));
    }
    match line.get_mut("commitInfo") {
        Some(Value::Object(info)) => mend_integer(info, "inCommitTimestamp"),
        Some(_) => drop(line.remove("commitInfo")),
        None => {}
    }
    for name in ["add", "remove", "cdc"] {
        if let Some(Value::Object(file)) = line.get_mut(name) {
            mend_file(file, name);
        }
    }
}

fn mend_metadata(metadata: &mut Map<String, Value>) {
    for (name, default) in [
        // No schema: a later action has to bring one, or the table is refused.
        ("schemaString", json!("")),
        ("configuration", json!({})),
        ("format", json!({})),
    ] {
        set_default(metadata, name, default);
    }
    if let Some(Value::Object(configuration)) = metadata.get_mut("configuration") {
        mend_texts(configuration);
    }
    mend_integer(metadata, "createdTime");
    if let Some(Value::Object(format)) = metadata.get_mut("format") {
        set_default(format, "provider", json!("parquet"));
        set_default(format, "options", json!({}));
        if let Some(Value::Object(options)) = format.get_mut("options") {
            mend_texts(options);
        }
    }
}

fn mend_file(file: &mut Map<String, Value>, name: &str) {
    if name == "add" {
        // Only tables without partition columns can leave this out; in others the values stay missing.
        set_default(file, "partitionValues", json!({}));
        set_default(file, "modificationTime", json!(0));
        // No size: whoever needs the file refuses it for that.
        set_default(file, "size", json!(-1));
    }
    let data_change = match file.get("dataChange") {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        // What Spark takes for the value of a field that is not there.
        None => name == "remove",
        Some(_) => false,
    };
    file.insert("dataChange".to_owned(), Value::Bool(data_change));
    if file.get("stats").is_some_and(|stats| !stats.is_string() && !stats.is_null()) {
        file.remove("stats");
    }
    if let Some(Value::Object(values)) = file.get_mut("partitionValues") {
        // Digits of other numbers may have been lost, so that those stay an error.
        for value in
            values.values_mut().filter(|value| value.is_i64() || value.is_u64() || value.is_boolean())
        {
            *value = Value::String(value.to_string());
        }
    }
    for name in ["size", "modificationTime", "deletionTimestamp", "baseRowId", "defaultRowCommitVersion"] {
        mend_integer(file, name);
    }
}

fn set_default(object: &mut Map<String, Value>, name: &str, default: Value) {
    if object.get(name).is_none_or(Value::is_null) {
        object.insert(name.to_owned(), default);
    }
}

/// Leaves nulls out of a map of texts, and writes what is no text as one.
fn mend_texts(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut() {
        if !value.is_string() {
            *value = Value::String(value.to_string());
        }
    }
}

/// Reads a whole number that is written with a point, with an exponent, or as text.
fn mend_integer(object: &mut Map<String, Value>, name: &str) {
    /// Beyond this, not every whole number is a floating one.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64);
    let Some(value) = object.get_mut(name) else { return };
    let number = match value {
        Value::Number(number) if !number.is_i64() => number.as_f64().and_then(whole),
        Value::String(text) => text.parse::<i64>().ok().or_else(|| text.parse().ok().and_then(whole)),
        _ => None,
    };
    if let Some(number) = number {
        *value = json!(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_possible_value_gets_it() {
        for (before, after) in [
            (
                json!({"metaData": {"configuration": {"a": null, "b": true, "c": "d"}, "format": null}}),
                json!({"metaData": {
                    "schemaString": "", "configuration": {"b": "true", "c": "d"},
                    "format": {"provider": "parquet", "options": {}}
                }}),
            ),
            (
                json!({"add": {"path": "a", "size": "450", "partitionValues": null, "stats": {"numRecords": 1}}}),
                json!({"add": {
                    "path": "a", "size": 450, "partitionValues": {}, "modificationTime": 0, "dataChange": false
                }}),
            ),
            (
                json!({"remove": {"path": "a", "size": 450.0, "deletionTimestamp": 1e3, "dataChange": "True"}}),
                json!({"remove": {"path": "a", "size": 450, "deletionTimestamp": 1000, "dataChange": true}}),
            ),
            (json!({"commitInfo": {"timestamp": null}}), json!({"commitInfo": {"timestamp": null}})),
            (json!(7), json!(7)),
        ] {
            let mut mended = before.clone();
            mend(&mut mended);
            assert_eq!(mended, after);
        }
    }

    #[test]
    fn texts_of_other_writers_are_read() {
        for (before, after) in [
            ("\u{feff}{\"a\":1}\r\n[]\n\n{\"b\":2}", "{\"a\":1}\n{\"b\":2}\n"),
            (
                r#"{"commitInfo":{"a":"\ud800 \ud83d\ude00 \\ud800"}}"#,
                "{\"commitInfo\":{\"a\":\"\u{fffd} \u{1f600} \\\\ud800\"}}\n",
            ),
            (r#"{"commitInfo":"text"}"#, "{}\n"),
        ] {
            assert_eq!(String::from_utf8(super::mended(before.as_bytes())).unwrap(), after);
        }
    }

    #[test]
    fn the_last_action_about_a_file_counts() {
        let add =
            |path: &str, vector: &str| format!(r#"{{"add":{{"path":"{path}","deletionVector":{vector}}}}}"#);
        let remove = |path: &str| format!(r#"{{"remove":{{"path":"{path}"}}}}"#);
        let vector = r#"{"storageType":"u","pathOrInlineDv":"x","offset":1}"#;
        let last = |lines: &[String]| last_of_each(lines.join("\n").as_bytes());
        let text = |lines: &[String]| Some(lines.join("\n").into_bytes());
        let info = r#"{"commitInfo":{}}"#.to_owned();
        assert_eq!(last(&[info.clone(), add("a", "null"), remove("b")]), None);
        assert_eq!(last(&[remove("a"), add("a", vector)]), None);
        let both = [info.clone(), remove("a"), add("a", "null")];
        assert_eq!(last(&both), text(&[info.clone(), add("a", "null")]));
        assert_eq!(last(&[add("a", "null"), info.clone(), remove("a")]), text(&[info, remove("a")]));
        let twice = [add("a", vector), add("a", "null"), add("a", vector)];
        assert_eq!(last(&twice), text(&twice[1..]));
        let metadata = |id: u8| format!(r#"{{"metaData":{{"id":"{id}"}}}}"#);
        let protocol = |version: u8| format!(r#"{{"protocol":{{"minReaderVersion":{version}}}}}"#);
        assert_eq!(last(&[metadata(1), protocol(1), add("a", "null")]), None);
        let changes = [metadata(1), protocol(1), metadata(2), add("a", "null"), protocol(3)];
        assert_eq!(last(&changes), text(&changes[2..]));
    }

    #[test]
    fn what_has_several_readings_stays_as_it_is() {
        let add = json!({"add": {
            "path": "a", "size": 4.5, "partitionValues": {"p": null}, "modificationTime": 1, "dataChange": true
        }});
        let mut mended = add.clone();
        mend(&mut mended);
        assert_eq!(mended, add);
        assert_eq!(super::mended(b"{\"add\":{\n\n7"), b"{\"add\":{\n7\n");
    }
}
