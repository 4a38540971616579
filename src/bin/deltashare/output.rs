//! How commands answer: in columns for people, as JSON for scripts.

use std::io::IsTerminal as _;

use chrono::TimeDelta;
use clap::ValueEnum;
use deltashare::catalog::dynamodb::WrittenValue;
use serde_json::{Map, Value, json};

use super::Failure;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Values in the order of their columns.
pub(crate) type Row = Vec<WrittenValue>;

/// A list that belongs to a record: its name, its columns and its rows.
pub(crate) type Part<'a> = (&'a str, &'a [&'a str], Vec<Row>);

impl Output {
    /// Says what was done. Standard output is kept for what scripts read.
    pub(crate) fn done(self, what: &str) {
        match self {
            Self::Text => eprintln!("{}", printable_lines(what)),
            Self::Json => println!("{}", json!({"done": what})),
        }
    }

    /// The same, with values for scripts.
    pub(crate) fn done_with(self, what: &str, values: &[(&str, String)]) {
        match self {
            Self::Text => self.done(what),
            Self::Json => {
                let values = values.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into()));
                let done = std::iter::once(("done".to_owned(), what.into()));
                println!("{}", Value::Object(done.chain(values).collect()));
            }
        }
    }

    /// Says what there is to know about what is printed, to people.
    pub(crate) fn note(self, what: &str) {
        if self == Self::Text {
            eprintln!("{}", printable_lines(what));
        }
    }

    /// Prints rows: in columns, or as a JSON array.
    pub(crate) fn list(self, columns: &[&str], rows: &[Row]) {
        match self {
            Self::Text => print_columns(columns, rows),
            Self::Json => println!("{}", array(columns, rows)),
        }
    }

    /// Prints the attributes of one record, a line each, and then the lists that belong to it; or all of it as one JSON
    /// object.
    pub(crate) fn record(self, attributes: &[&str], values: &Row, parts: &[Part<'_>]) {
        if self == Self::Json {
            let mut record = object(attributes, values);
            record
                .extend(parts.iter().map(|(name, columns, rows)| ((*name).to_owned(), array(columns, rows))));
            println!("{}", Value::Object(record));
            return;
        }
        let width = attributes.iter().map(|name| name.len()).max().unwrap_or(0);
        for (name, value) in attributes.iter().zip(values) {
            let value = shown(value);
            if !value.is_empty() {
                println!("{}  {value}", bold(&format!("{name:<width$}")));
            }
        }
        for (name, columns, rows) in parts {
            println!();
            if rows.is_empty() {
                println!("no {name}");
            } else {
                println!("{name}:");
                print_columns(columns, rows);
            }
        }
    }
}

fn print_columns(columns: &[&str], rows: &[Row]) {
    let mut rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    rows.sort();
    let used: Vec<usize> = (0..columns.len())
        .filter(|&at| at == 0 || rows.iter().any(|row| row.get(at).is_some_and(|cell| !cell.is_empty())))
        .collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain(columns.get(at).map(|name| name.len())).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let padded: Vec<_> =
            used.iter().zip(cells).map(|(&at, cell)| format!("{cell:<0$}", width(at))).collect();
        padded.join("  ").trim_end().to_owned()
    };
    println!("{}", bold(&line(used.iter().filter_map(|&at| columns.get(at).copied()).collect())));
    for row in &rows {
        println!("{}", line(used.iter().filter_map(|&at| row.get(at).map(String::as_str)).collect()));
    }
}

/// Bold on a terminal, plain elsewhere.
fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

fn array(columns: &[&str], rows: &[Row]) -> Value {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_cached_key(|row| row.iter().map(shown).collect::<Vec<_>>());
    rows.into_iter().map(|row| Value::Object(object(columns, row))).collect()
}

fn object(columns: &[&str], row: &Row) -> Map<String, Value> {
    let present =
        columns.iter().zip(row).filter_map(|(name, value)| Some(((*name).to_owned(), json_of(value)?)));
    present.collect()
}

fn json_of(value: &WrittenValue) -> Option<Value> {
    match value {
        WrittenValue::Text(text) => Some(text.as_str().into()),
        WrittenValue::Number(number) => serde_json::from_str(number).ok(),
        WrittenValue::Flag(flag) => Some((*flag).into()),
        WrittenValue::List(list) => list.iter().map(json_of).collect(),
        WrittenValue::Map(map) => {
            let each = map.iter().map(|(name, value)| Some((name.clone(), json_of(value)?)));
            each.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        WrittenValue::Nothing => None,
    }
}

/// A time in the largest unit of which there are at least two, or in minutes.
pub(crate) fn duration(time: TimeDelta) -> String {
    if time >= TimeDelta::days(2) {
        format!("{} days", time.num_days())
    } else if time >= TimeDelta::hours(2) {
        format!("{} hours", time.num_hours())
    } else {
        format!("{} minutes", time.num_minutes())
    }
}

/// What others wrote, without what would move the cursor of a terminal or change the order of what is read.
pub(crate) fn printable(text: &str) -> String {
    let moves = |character: char| {
        character.is_control()
            || matches!(character, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if moves(character) { '?' } else { character }).collect()
}

/// The same for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

fn shown(value: &WrittenValue) -> String {
    printable(&as_text(value))
}

fn as_text(value: &WrittenValue) -> String {
    match value {
        WrittenValue::Text(text) | WrittenValue::Number(text) => text.clone(),
        WrittenValue::Flag(flag) => flag.to_string(),
        WrittenValue::List(list) => {
            let texts = list.iter().filter_map(|value| match value {
                WrittenValue::Text(text) => Some(text.as_str()),
                _ => None,
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        WrittenValue::Map(map) => {
            let each = map.iter().map(|(name, value)| format!("{name}={}", as_text(value)));
            each.collect::<Vec<_>>().join(", ")
        }
        WrittenValue::Nothing => String::new(),
    }
}

/// Asks before what cannot be undone. Without a terminal to ask on, `--yes` must have been said.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Confirm with --yes.")));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Failure::failed(error.to_string()))?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(())
    } else {
        Err(Failure::failed("nothing was changed"))
    }
}
