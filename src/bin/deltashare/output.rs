//! How commands answer: in columns for people, as JSON for scripts.

use std::io::IsTerminal as _;

use aws_sdk_dynamodb::types::AttributeValue;
use clap::ValueEnum;
use deltashare::catalog::records::Item;
use serde_json::{Map, Value, json};

use super::Failure;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// A list that belongs to a record: its name, the attributes that are shown, and the items.
pub(crate) type Part<'a> = (&'a str, &'a [&'a str], Vec<Item>);

impl Output {
    /// Says what was done. Standard output is kept for what scripts read.
    pub(crate) fn done(self, what: &str) {
        match self {
            Self::Text => eprintln!("{}", printable_lines(what)),
            Self::Json => println!("{}", json!({"done": what})),
        }
    }

    /// Says what there is to know about what is printed, to people.
    pub(crate) fn note(self, what: &str) {
        if self == Self::Text {
            eprintln!("{}", printable_lines(what));
        }
    }

    /// Prints these attributes of some records: in columns, or as a JSON array.
    pub(crate) fn list(self, columns: &[&str], items: &[Item]) {
        match self {
            Self::Text => print_columns(columns, items),
            Self::Json => println!("{}", array(columns, items)),
        }
    }

    /// Prints these attributes of one record, a line each, and then the lists that belong to it; or all of it as
    /// one JSON object.
    pub(crate) fn record(self, attributes: &[&str], item: &Item, parts: &[Part<'_>]) {
        if self == Self::Json {
            let mut record = object(attributes, item);
            record.extend(
                parts.iter().map(|(name, columns, items)| ((*name).to_owned(), array(columns, items))),
            );
            println!("{}", Value::Object(record));
            return;
        }
        let width = attributes.iter().map(|name| name.len()).max().unwrap_or(0);
        for name in attributes {
            let value = shown(item, name);
            if !value.is_empty() {
                println!("{}  {value}", bold(&format!("{name:<width$}")));
            }
        }
        for (name, columns, items) in parts {
            println!();
            if items.is_empty() {
                println!("no {name}");
            } else {
                println!("{name}:");
                print_columns(columns, items);
            }
        }
    }
}

fn print_columns(columns: &[&str], items: &[Item]) {
    let mut rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|column| shown(item, column)).collect()).collect();
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

fn array(columns: &[&str], items: &[Item]) -> Value {
    let mut items: Vec<_> = items.iter().collect();
    items.sort_by_cached_key(|item| columns.iter().map(|column| shown(item, column)).collect::<Vec<_>>());
    items.into_iter().map(|item| Value::Object(object(columns, item))).collect()
}

fn object(attributes: &[&str], item: &Item) -> Map<String, Value> {
    let present = attributes.iter().filter_map(|name| Some(((*name).to_owned(), value(item.get(*name)?)?)));
    present.collect()
}

fn value(attribute: &AttributeValue) -> Option<Value> {
    match attribute {
        AttributeValue::S(text) => Some(text.as_str().into()),
        AttributeValue::N(number) => serde_json::from_str(number).ok(),
        AttributeValue::Bool(flag) => Some((*flag).into()),
        AttributeValue::L(list) => list.iter().map(value).collect(),
        AttributeValue::Ss(set) => Some(sorted(set).into()),
        _ => None,
    }
}

/// A set, which DynamoDB keeps in no order.
fn sorted(set: &[String]) -> Vec<String> {
    let mut set = set.to_vec();
    set.sort_unstable();
    set
}

/// The text of an attribute; empty where it is none.
pub(crate) fn plain<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
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

fn shown(item: &Item, name: &str) -> String {
    printable(&as_text(item, name))
}

fn as_text(item: &Item, name: &str) -> String {
    match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text.clone(),
        Some(AttributeValue::Bool(flag)) => flag.to_string(),
        Some(AttributeValue::L(list)) => {
            let texts: Vec<_> = list.iter().filter_map(|item| item.as_s().ok()).map(String::as_str).collect();
            texts.join(", ")
        }
        Some(AttributeValue::Ss(set)) => sorted(set).join(", "),
        Some(_) | None => String::new(),
    }
}

/// Asks before what cannot be undone. Without a terminal to ask on, `--yes` must have been said.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Say so with --yes.")));
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
