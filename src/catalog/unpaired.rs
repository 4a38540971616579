//! Records that miss the others they belong to: what a script forgot, or what an operation left that was cut off.

use std::collections::HashMap;

use super::keys::{self, Key};
use super::records::{BadRecord, Item};

/// The records that need another one which is not there, each with what that means.
pub(super) fn unpaired(items: &[Item]) -> Vec<BadRecord> {
    let there: HashMap<(&str, &str), &Item> =
        items.iter().map(|item| ((text(item, keys::PARTITION), text(item, keys::SORT)), item)).collect();
    let is_there = |key: &Key| there.contains_key(&(key.partition.as_str(), key.sort.as_str()));
    let mut found = Vec::new();
    for item in items {
        let (partition, sort) = (text(item, keys::PARTITION), text(item, keys::SORT));
        let mut say = |kind, reason: &str| {
            // Of a token's hash, as much as names it.
            let shown = if partition.starts_with(keys::TOKENS) { keys::TOKENS.len() + 8 } else { usize::MAX };
            found.push(BadRecord {
                kind,
                partition: partition.chars().take(shown).collect(),
                sort: sort.to_owned(),
                reason: reason.to_owned(),
            });
        };
        let below = |name: &str| Key { partition: partition.to_owned(), sort: name.to_owned() };
        if partition.starts_with("SHARE#") && sort != "SHARE" {
            if !is_there(&below("SHARE")) {
                say("share's", "belongs to a share that has no record, so it is not served");
            } else if let Some(rest) = sort.strip_prefix(keys::TABLES) {
                let schema = rest.split('#').next().unwrap_or_default();
                if !is_there(&below(&format!("{}{schema}", keys::SCHEMAS))) {
                    say(
                        "table",
                        "is in a schema that has no record, so clients that list schemas do not find it",
                    );
                }
            } else if let Some(recipient) = sort.strip_prefix(keys::GRANTED_TO) {
                let of_recipient =
                    Key { partition: format!("RECIPIENT#{recipient}"), sort: partition.to_owned() };
                if !is_there(&of_recipient) {
                    say(
                        "grant",
                        "has no record below the recipient, so it grants nothing: grant it again, or delete it",
                    );
                }
            }
        }
        if let Some(recipient) = partition.strip_prefix("RECIPIENT#").filter(|_| sort != "RECIPIENT") {
            if !is_there(&below("RECIPIENT")) {
                say("recipient's", "belongs to a recipient that has no record, so it is good for nothing");
            } else if sort.starts_with(keys::GRANTS) {
                let share = |name: &str| Key { partition: sort.to_owned(), sort: name.to_owned() };
                if !is_there(&share("SHARE")) {
                    say(
                        "grant",
                        "grants a share that has no record: a share of that name would be granted as soon as it is made",
                    );
                } else if !is_there(&share(&format!("{}{recipient}", keys::GRANTED_TO))) {
                    say(
                        "grant",
                        "is in force, but has no record below the share, so share show does not list it",
                    );
                }
            } else if sort.starts_with(keys::TOKENS) {
                let listed =
                    Key { partition: format!("TOKEN#{}", text(item, "sha256")), sort: "TOKEN".to_owned() };
                if !is_there(&listed) {
                    say("token", "lists a token that has no record of its own, so it is good for nothing");
                }
            }
        }
        if partition.starts_with(keys::TOKENS) && sort == "TOKEN" {
            let (recipient, id) = (text(item, "recipient"), text(item, "id"));
            if !is_there(&Key::recipient(recipient)) {
                say("token", "belongs to a recipient that has no record, so it is good for nothing");
            } else if !is_there(&Key::token_of(recipient, id)) {
                say("token", "is good, but has no record below the recipient, so token list may not show it");
            }
        }
    }
    found.sort_by(|a, b| (&a.partition, &a.sort).cmp(&(&b.partition, &b.sort)));
    found
}

fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;

    /// Keys and other attributes.
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

    fn items(rows: &[Row]) -> Vec<Item> {
        let text = |value: &str| AttributeValue::S(value.to_owned());
        let item = |(pk, sk, more): &Row| {
            let keys = [("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))];
            keys.into_iter()
                .chain(more.iter().map(|(name, value)| ((*name).to_owned(), text(value))))
                .collect()
        };
        rows.iter().map(item).collect()
    }

    #[test]
    fn records_that_belong_together_are_not_named_and_each_alone_is() {
        let whole: &[Row] = &[
            ("SHARE#s", "SHARE", &[]),
            ("SHARE#s", "SCHEMA#d", &[]),
            ("SHARE#s", "TABLE#d#t", &[]),
            ("SHARE#s", "GRANT#a", &[]),
            ("RECIPIENT#a", "RECIPIENT", &[]),
            ("RECIPIENT#a", "SHARE#s", &[]),
            ("RECIPIENT#a", "TOKEN#1", &[("sha256", "ff")]),
            ("TOKEN#ff", "TOKEN", &[("recipient", "A"), ("id", "1")]),
            ("SERVER", "TOKEN_KEY", &[]),
        ];
        assert_eq!(unpaired(&items(whole)), []);
        for (without, named) in [
            (0, vec!["GRANT#a", "SCHEMA#d", "TABLE#d#t", "SHARE#s"]),
            (1, vec!["TABLE#d#t"]),
            (3, vec!["SHARE#s"]),
            (4, vec!["SHARE#s", "TOKEN#1", "TOKEN"]),
            (5, vec!["GRANT#a"]),
            (6, vec!["TOKEN"]),
            (7, vec!["TOKEN#1"]),
        ] {
            let rest: Vec<_> =
                whole.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, row)| *row).collect();
            let mut sorts: Vec<_> = unpaired(&items(&rest)).into_iter().map(|record| record.sort).collect();
            sorts.sort();
            let mut named = named;
            named.sort_unstable();
            assert_eq!(sorts, named, "without row {without}");
        }
    }
}
