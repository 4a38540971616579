//! Actions that break a rule of Delta's protocol and that Spark reads all the same: fields that are left out or null
//! and have one possible value, numbers and texts that are written as the other. They are put right before they are
//! read. What leaves open which rows a table has is never guessed, and stays an error.

use serde_json::{Map, Value, json};

/// The lines of a commit, put right. What is no JSON stays as it is.
pub(super) fn mended(commit: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(commit.len() + 64);
    for line in commit.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        match serde_json::from_slice(line) {
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

/// Puts one line of a commit right.
pub(super) fn mend(line: &mut Value) {
    let Value::Object(line) = line else { return };
    if let Some(Value::Object(metadata)) = line.get_mut("metaData") {
        mend_metadata(metadata);
    }
    for name in ["add", "remove", "cdc"] {
        if let Some(Value::Object(file)) = line.get_mut(name) {
            mend_file(file, name);
        }
    }
}

fn mend_metadata(metadata: &mut Map<String, Value>) {
    for (name, default) in [
        ("id", json!("")),
        // No schema: a later action has to bring one, or the table is refused.
        ("schemaString", json!("")),
        ("partitionColumns", json!([])),
        ("configuration", json!({})),
        ("format", json!({})),
    ] {
        set_default(metadata, name, default);
    }
    mend_texts(metadata.get_mut("configuration"));
    mend_integer(metadata, "createdTime");
    if let Some(Value::Object(format)) = metadata.get_mut("format") {
        set_default(format, "provider", json!("parquet"));
        set_default(format, "options", json!({}));
        mend_texts(format.get_mut("options"));
    }
}

fn mend_file(file: &mut Map<String, Value>, name: &str) {
    if name == "add" {
        // Only tables without partition columns can leave this out; in others the values stay missing.
        set_default(file, "partitionValues", json!({}));
        set_default(file, "modificationTime", json!(0));
    }
    let data_change = match file.get("dataChange") {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    };
    file.insert("dataChange".to_owned(), Value::Bool(data_change));
    if file.get("stats").is_some_and(|stats| !stats.is_string() && !stats.is_null()) {
        file.remove("stats");
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
fn mend_texts(map: Option<&mut Value>) {
    let Some(Value::Object(map)) = map else { return };
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
                json!({"metaData": {"id": "x", "configuration": {"a": null, "b": true, "c": "d"}, "format": null}}),
                json!({"metaData": {
                    "id": "x", "schemaString": "", "partitionColumns": [], "configuration": {"b": "true", "c": "d"},
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
    fn what_is_open_stays_open() {
        let add = json!({"add": {
            "path": "a", "size": 4.5, "partitionValues": {"p": null}, "modificationTime": 1, "dataChange": true
        }});
        let mut mended = add.clone();
        mend(&mut mended);
        assert_eq!(mended, add);
        assert_eq!(super::mended(b"{\"add\":{\n\n7"), b"{\"add\":{\n7\n");
    }
}
