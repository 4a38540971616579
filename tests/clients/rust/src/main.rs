//! The Rust client, told on standard input what to read: see `tests/python/clients/programs.py`.

use std::io::{BufRead, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};

use delta_sharing::blocking::Client;
use delta_sharing::protocol::{FilesRequest, Share, Table};
use polars::prelude::AnyValue;
use serde_json::{json, Map, Value};

fn value(cell: &AnyValue) -> Value {
    match cell {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(is) => json!(is),
        AnyValue::Int32(number) => json!(number),
        AnyValue::Int64(number) => json!(number),
        AnyValue::Float32(number) => json!(number),
        AnyValue::Float64(number) => json!(number),
        AnyValue::String(text) => json!(text),
        AnyValue::Binary(bytes) => json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        // A date is shown as 2024-01-31.
        other => json!(other.to_string()),
    }
}

fn table(name: &str) -> Table {
    let parts: Vec<&str> = name.split('.').collect();
    Table { share: parts[0].into(), schema: parts[1].into(), name: parts[2].into() }
}

fn rows(client: &mut Client, asked: &Value) -> Result<Value, Box<dyn std::error::Error>> {
    let limit = asked["limit"].as_i64().map(|limit| limit as i32);
    let version = asked["version"].as_i64().map(|version| version as i32);
    let request = FilesRequest { predicate_hints: None, limit_hint: limit, version };
    let frame = client.get_dataframe(&table(asked["table"].as_str().unwrap()), Some(request))?.collect()?;
    let mut rows = Vec::new();
    for at in 0..frame.height() {
        let cells =
            frame.get_columns().iter().map(|column| Ok((column.name().to_owned(), value(&column.get(at)?))));
        rows.push(Value::Object(cells.collect::<Result<Map<_, _>, polars::error::PolarsError>>()?));
    }
    Ok(json!({ "rows": rows }))
}

fn answer(client: &mut Client, asked: &Value) -> Result<Value, Box<dyn std::error::Error>> {
    match asked["do"].as_str() {
        Some("tables") => {
            let share = Share { name: asked["share"].as_str().unwrap().into() };
            let tables = client.list_all_tables(&share)?;
            Ok(json!({ "tables": tables.iter().map(Table::fully_qualified_name).collect::<Vec<_>>() }))
        }
        Some("version") => {
            Ok(json!({ "version": client.get_table_version(&table(asked["table"].as_str().unwrap())) }))
        }
        // Another object, over the same directory: the old one shows what it read first.
        Some("renew") => {
            *client = connect();
            Ok(json!({}))
        }
        _ => rows(client, asked),
    }
}

fn connect() -> Client {
    let arguments: Vec<String> = std::env::args().collect();
    let profile = serde_json::from_str(&std::fs::read_to_string(&arguments[1]).unwrap()).unwrap();
    Client::new(profile, Some(arguments[2].clone()), None).unwrap()
}

fn main() {
    let mut client = connect();
    for line in std::io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let told = match catch_unwind(AssertUnwindSafe(|| answer(&mut client, &asked))) {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => json!({ "error": error.to_string() }),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                json!({ "error": text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())), "panicked": true })
            }
        };
        println!("{told}");
        std::io::stdout().flush().unwrap();
    }
}
