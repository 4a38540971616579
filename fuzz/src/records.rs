//! Records of a catalog in DynamoDB.
//!
//! An input is items, with an empty line after each. A line is an attribute: its name, its type as DynamoDB writes it and
//! its value. Of lists and sets, the values are separated by `|`.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use deltashare::catalog::dynamodb::CatalogContents;
use deltashare::catalog::dynamodb::keys::{PARTITION, SORT};
use deltashare::catalog::dynamodb::records::{BadRecord, Item};
use deltashare::catalog::expiry;
use deltashare::catalog::state::CatalogState;

use super::on_a_thread;
use super::share_files::exported;

/// Records: the same is read in every order, what cannot be read says nothing, and an export says what was read or refuses.
pub fn records(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    on_a_thread(|| {
        let mut items = items(&text);
        for item in &items {
            ends(item);
        }
        let contents = CatalogContents::new(&items);
        items.reverse();
        let reversed = CatalogContents::new(&items);
        items.reverse();
        assert_eq!(reversed.state, contents.state, "what is read depends on the order");
        assert_eq!(reversed.bad.len(), contents.bad.len());
        for record in contents.bad.iter().chain(&contents.unwritable).chain(&contents.unpaired) {
            shows_no_hash(record);
        }
        for change in CatalogState::default().changes_to(&contents.state) {
            let _ = change.to_string();
        }
        assert!(contents.state.changes_to(&contents.state).is_empty());
        let all = items.len();
        items.retain(|item| !contents.bad.iter().any(|bad| is(bad, item)));
        // Two hashes may begin alike.
        if items.len() + contents.bad.len() == all {
            assert_eq!(
                CatalogContents::new(&items).state,
                contents.state,
                "what cannot be read says something"
            );
        }
        if contents.bad.is_empty()
            && contents.unwritable.is_empty()
            && let Some(read) = exported(&contents.state)
        {
            assert_eq!(read, contents.state, "the export says something else");
        }
    });
}

/// Items with different keys, as a table holds them.
fn items(text: &str) -> Vec<Item> {
    let mut items = BTreeMap::new();
    for item in text.split("\n\n") {
        let item: Item = item.lines().filter_map(attribute).collect();
        let key = |name: &str| item.get(name)?.as_s().ok().filter(|key| !key.is_empty()).cloned();
        if let (Some(partition), Some(sort)) = (key(PARTITION), key(SORT)) {
            items.insert((partition, sort), item);
        }
    }
    items.into_values().collect()
}

fn attribute(line: &str) -> Option<(String, AttributeValue)> {
    let mut parts = line.splitn(3, ' ');
    let (name, kind, value) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
    let text = value.to_owned();
    let texts = || value.split('|').map(str::to_owned).collect::<Vec<_>>();
    let blob = |text: &str| Blob::new(text.as_bytes());
    Some((
        name.to_owned(),
        match kind {
            "S" => AttributeValue::S(text),
            "N" => AttributeValue::N(text),
            "B" => AttributeValue::B(blob(value)),
            "BOOL" => AttributeValue::Bool(value == "true"),
            "NULL" => AttributeValue::Null(true),
            "SS" => AttributeValue::Ss(texts()),
            "NS" => AttributeValue::Ns(texts()),
            "BS" => AttributeValue::Bs(value.split('|').map(blob).collect()),
            "L" => AttributeValue::L(texts().into_iter().map(element).collect()),
            "M" => AttributeValue::M(texts().into_iter().map(|name| (name.clone(), element(name))).collect()),
            _ => return None,
        },
    ))
}

/// An element of a list: a number where it begins with `=`.
fn element(text: String) -> AttributeValue {
    match text.strip_prefix('=') {
        Some(number) => AttributeValue::N(number.to_owned()),
        None => AttributeValue::S(text),
    }
}

/// An end reads back as what was written, and is never after DynamoDB may delete the record.
fn ends(item: &Item) {
    let text = item.get("expires").and_then(|value| value.as_s().ok());
    if let Some(end) = text.and_then(|text| expiry::parse(text)) {
        assert_eq!(expiry::parse(&expiry::format(end)), Some(end));
        let deleted = expiry::delete_after(end);
        assert!(end.is_none_or(|end| deleted.is_some_and(|deleted| deleted > end.timestamp())));
    }
}

const TOKENS: &str = "TOKEN#";

/// Logs and lists have these.
fn shows_no_hash(record: &BadRecord) {
    let partition = &record.partition;
    assert!(!partition.starts_with(TOKENS) || partition.chars().count() <= TOKENS.len() + 8, "{record}");
}

/// Whether a bad record is this item; of a token only the first digits are said.
fn is(bad: &BadRecord, item: &Item) -> bool {
    let key = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
    let same = match bad.partition.starts_with(TOKENS) {
        true => key(PARTITION).starts_with(&bad.partition),
        false => key(PARTITION) == bad.partition,
    };
    same && key(SORT) == bad.sort
}
