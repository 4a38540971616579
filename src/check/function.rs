//! How the deployed function checks its own tables, with its own role: asked by a direct invocation, which
//! takes `lambda:InvokeFunction` and nothing else.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TableCheck, TableChecker};
use crate::catalog::dynamodb::keys::Key;
use crate::catalog::dynamodb::{CatalogContents, Writer};
use crate::catalog::state::{CatalogState, TableState};

/// How many tables are opened at the same time: each of them may be a large one.
const AT_ONCE: usize = 4;

/// The event that asks the function to check its tables. No event of API Gateway or of a function URL has this form:
/// what a client sends is in their fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckEvent {
    deltashare: Request,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    check: CheckRequest,
}

impl CheckEvent {
    /// What is asked by an event with this text; `None` if it is another one.
    pub fn read(text: &str) -> Option<CheckRequest> {
        // The first key of another event ends this.
        let event: Self = serde_json::from_str(text).ok()?;
        // An array of the values is an object to serde.
        let object: Value = serde_json::from_str(text).ok()?;
        object.pointer("/deltashare/check")?.is_object().then_some(event.deltashare.check)
    }
}

/// What is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The table after which to continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl CheckRequest {
    /// The event that asks for the tables after `after`.
    pub fn event(after: Option<String>) -> CheckEvent {
        CheckEvent { deltashare: Request { check: Self { after } } }
    }
}

/// What the function answers.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResponse {
    /// Records that cannot be read, each as a sentence; in the first answer.
    #[serde(default)]
    pub bad_records: Vec<String>,
    /// What was found of the tables.
    pub tables: Vec<TableCheck>,
    /// The table that came last, if the time did not suffice for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why the catalog cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Opens tables in the order of their names until `until`. Each answer has at least some.
pub async fn check_tables(
    checker: TableChecker<'_>,
    catalog: &Writer,
    asked: &CheckRequest,
    until: Instant,
) -> CheckResponse {
    let CatalogContents { state, bad, .. } = match catalog.read().await {
        Ok(contents) => contents,
        Err(error) => return CheckResponse { failure: Some(error.to_string()), ..CheckResponse::default() },
    };
    let mut answer = CheckResponse::default();
    if asked.after.is_none() {
        answer.bad_records = bad.iter().map(ToString::to_string).collect();
    }
    let mut tables: Vec<_> = named_tables(&state).map(|(_, name, table)| (name, table)).collect();
    tables.sort_by(|(a, _), (b, _)| a.cmp(b));
    tables.retain(|(name, _)| asked.after.as_ref().is_none_or(|after| name > after));
    for some in tables.chunks(AT_ONCE) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() && !answer.tables.is_empty() {
            answer.next = answer.tables.last().map(|table| table.table.clone());
            return answer;
        }
        let state = &state;
        let opened = some.iter().map(|(name, table)| async move {
            let filters = state.filters_of(name, table);
            let opened = checker.open(name, &table.settings, &filters);
            tokio::time::timeout(left.max(Duration::from_secs(1)), opened).await.unwrap_or_else(|_| {
                TableCheck {
                    table: name.clone(),
                    reason: Some("the function did not have the time to open it".to_owned()),
                    ..TableCheck::default()
                }
            })
        });
        answer.tables.extend(join_all(opened).await);
    }
    answer
}

/// Every table of a catalog with its key and its whole name.
pub fn named_tables(state: &CatalogState) -> impl Iterator<Item = (Key, String, &TableState)> {
    state.shares.values().flat_map(|share| {
        share.schemas.values().flat_map(move |schema| {
            schema.tables.values().map(move |table| {
                let key = Key::table(&share.name, &schema.name, &table.name);
                (key, format!("{}.{}.{}", share.name, schema.name, table.name), table)
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_of_the_command_line_asks_for_a_check() {
        for asked in [CheckRequest::default(), CheckRequest { after: Some("a.b.c".to_owned()) }] {
            let event = serde_json::to_string(&CheckRequest::event(asked.after.clone())).unwrap();
            assert_eq!(CheckEvent::read(&event).unwrap().after, asked.after);
        }
        // What a client of the API can write is inside the event's own fields.
        for event in [
            r#"{"resource":"/{proxy+}","path":"/shares","httpMethod":"GET","body":"{\"deltashare\":{\"check\":{}}}"}"#,
            r#"{"version":"2.0","rawPath":"/","body":"{}","deltashare":{"check":{}}}"#,
            r#"{"deltashare":{"check":{}},"requestContext":{}}"#,
            r#"{"deltashare":{"check":{"table":"x"}}}"#,
            r#"{"deltashare":{}}"#,
            "{}",
            "[]",
            "[[[]]]",
            "[[{}]]",
            r#"[{"check":{}}]"#,
            r#"{"deltashare":[[]]}"#,
            r#"{"deltashare":[{}]}"#,
            r#"{"deltashare":{"check":[]}}"#,
            r#"{"deltashare":{"check":["a.b.c"]}}"#,
            r#"{"deltashare":{"check":null}}"#,
        ] {
            assert!(CheckEvent::read(event).is_none(), "{event}");
        }
    }
}
