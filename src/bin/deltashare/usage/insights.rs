//! The events of the function in CloudWatch Logs, added up by CloudWatch Logs Insights.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatchlogs::types::{LogGroup, QueryStatus, ResultField};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use deltashare::error::innermost;

use super::event::{Event, NOT_COUNTED, Outcome};
use crate::Failure;

/// The most rows of a result.
const MOST_ROWS: usize = 10_000;

/// The first wait for a result, and the longest one.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// How long the command waits for other queries of the account, which can run only so many at a time.
const PATIENCE: Duration = Duration::from_secs(300);

/// CloudWatch Logs.
pub(super) struct Logs {
    client: Client,
}

/// The log group of a function.
pub(super) struct Group {
    name: String,
    /// The first day of which it may have events.
    pub(super) first_day: Option<NaiveDate>,
}

impl Group {
    fn of(group: &LogGroup, now: DateTime<Utc>) -> Self {
        let created = group.creation_time().and_then(DateTime::from_timestamp_millis);
        let kept = group.retention_in_days().map(|days| now - TimeDelta::days(days.into()));
        let first_day = created.max(kept).map(|time| time.date_naive());
        Self { name: group.log_group_name().unwrap_or_default().to_owned(), first_day }
    }
}

impl Logs {
    pub(super) fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config) }
    }

    /// A log group by its name.
    pub(super) async fn group(&self, name: &str, now: DateTime<Utc>) -> Result<Group, Failure> {
        let found = self.groups(name).await?;
        let group = found.iter().find(|group| group.log_group_name() == Some(name));
        group.map(|group| Group::of(group, now)).ok_or_else(|| {
            Failure::failed(format!(
                "there is no log group '{name}' in this account and region; the stack's output LogGroup names it"
            ))
        })
    }

    /// The log group of a stack, which CloudFormation gives a name of its own.
    pub(super) async fn group_of_stack(&self, stack: &str, now: DateTime<Utc>) -> Result<Group, Failure> {
        let found = self.groups(&format!("{stack}-FunctionLogs-")).await?;
        match found.as_slice() {
            [group] => Ok(Group::of(group, now)),
            [] => Err(Failure::failed(format!(
                "there is no log group of a stack '{stack}' in this account and region; name it with --log-group: the \
                 stack's output LogGroup"
            ))),
            // One of a stack that was deleted stays.
            several => {
                let names: Vec<_> = several.iter().filter_map(LogGroup::log_group_name).collect();
                Err(Failure::usage(format!(
                    "there are several log groups of a stack '{stack}'; name one with --log-group: {}",
                    names.join(", ")
                )))
            }
        }
    }

    async fn groups(&self, prefix: &str) -> Result<Vec<LogGroup>, Failure> {
        let pages = self.client.describe_log_groups().log_group_name_prefix(prefix).into_paginator().items();
        let found: Result<Vec<_>, _> = pages.send().try_collect().await;
        found.map_err(|error| failed("logs:DescribeLogGroups", &error))
    }

    /// The requests of a day: for each kind of them, how many there are.
    pub(super) async fn day(
        &self,
        group: &Group,
        day: NaiveDate,
        with_table: bool,
    ) -> Result<Vec<(Event, u64)>, Failure> {
        let start = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
        let end = day.checked_add_days(Days::new(1)).unwrap_or(day);
        let mut left = vec![(start(day), start(end))];
        let mut found = Vec::new();
        while let Some((from, to)) = left.pop() {
            let rows = self.rows(group, (from, to), with_table).await?;
            if rows.len() < MOST_ROWS {
                for row in &rows {
                    found.push(request(row, day)?);
                }
                continue;
            }
            // There may be more rows, so the time is cut in two.
            let middle = i64::midpoint(from, to);
            if middle == from {
                return Err(Failure::failed(
                    "one millisecond has more rows than CloudWatch Logs Insights returns",
                ));
            }
            left.extend([(from, middle), (middle, to)]);
        }
        Ok(found)
    }

    /// The rows of one query.
    async fn rows(
        &self,
        group: &Group,
        (from, to): (i64, i64),
        with_table: bool,
    ) -> Result<Vec<Vec<ResultField>>, Failure> {
        let id = self.start(group, (from, to), with_table).await?;
        let mut wait = WAITS.0;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
            let answer = self.client.get_query_results().query_id(&id).send().await;
            let answer = answer.map_err(|error| failed("logs:GetQueryResults", &error))?;
            match answer.status() {
                Some(QueryStatus::Complete) => return Ok(answer.results.unwrap_or_default()),
                Some(status @ (QueryStatus::Failed | QueryStatus::Cancelled | QueryStatus::Timeout)) => {
                    return Err(Failure::failed(format!(
                        "the query of CloudWatch Logs Insights ended with the status {status}; try again, or with fewer days"
                    )));
                }
                _ => {}
            }
        }
    }

    async fn start(
        &self,
        group: &Group,
        (from, to): (i64, i64),
        with_table: bool,
    ) -> Result<String, Failure> {
        let began = tokio::time::Instant::now();
        let limit = i32::try_from(MOST_ROWS).unwrap_or(i32::MAX);
        loop {
            // In seconds, and whether the last one belongs to it is not documented; the query is exact.
            let started = self
                .client
                .start_query()
                .log_group_name(&group.name)
                .start_time(from.div_euclid(1000))
                .end_time(to.div_euclid(1000) + 1)
                .query_string(query((from, to), with_table))
                .limit(limit)
                .send()
                .await;
            match started {
                Ok(started) => {
                    let id = started.query_id.filter(|id| !id.is_empty());
                    return id.ok_or_else(|| Failure::failed("CloudWatch Logs gave the query no ID"));
                }
                Err(error)
                    if error.code() == Some("LimitExceededException") && began.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(WAITS.1).await;
                }
                Err(error) => return Err(failed("logs:StartQuery", &error)),
            }
        }
    }
}

/// Adds up the requests of recipients between two times in milliseconds, of which the second is excluded.
fn query((from, to): (i64, i64), with_table: bool) -> String {
    let object = if with_table { ", object" } else { "" };
    let not_counted = NOT_COUNTED.map(|action| format!("\"{action}\"")).join(", ");
    format!(
        "filter ispresent(Action) and ispresent(recipient) and Action not in [{not_counted}] and \
         toMillis(@timestamp) >= {from} and toMillis(@timestamp) < {to} | stats count(*) as requests, sum(FilesSigned) as files, sum(BytesGranted) as bytes by \
         recipient, message{object}"
    )
}

/// A row as requests of a kind.
fn request(row: &[ResultField], day: NaiveDate) -> Result<(Event, u64), Failure> {
    let text = |name: &str| {
        let field = row.iter().find(|field| field.field() == Some(name));
        field.and_then(ResultField::value).unwrap_or_default()
    };
    let number = |name: &str| {
        number(text(name)).ok_or_else(|| {
            Failure::failed(format!("CloudWatch Logs Insights gave no number of {name}: '{}'", text(name)))
        })
    };
    let outcome = Outcome::of(text("message")).ok_or_else(|| {
        Failure::failed(format!("the log has an event with the unknown message '{}'", text("message")))
    })?;
    let event = Event {
        day,
        recipient: Some(text("recipient").to_owned()),
        object: text("object").to_owned(),
        outcome,
        files: number("files")?,
        bytes: number("bytes")?,
    };
    Ok((event, number("requests")?))
}

/// A sum: a whole number, which may be written like 1.2E10. Nothing is the sum of no values.
fn number(text: &str) -> Option<u64> {
    /// Up to it, every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if text.is_empty() {
        return Some(0);
    }
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        let is_whole = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number in the range"
        )]
        is_whole.then_some(number as u64)
    })
}

fn failed<E, R>(permission: &str, error: &SdkError<E, R>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    Failure::failed(match error.code() {
        Some("AccessDeniedException") => format!("your credentials lack {permission} for the log group"),
        Some(code) => {
            format!("CloudWatch Logs answers {code}: {}", error.message().unwrap_or_default())
        }
        None => format!("CloudWatch Logs cannot be reached: {}", innermost(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn sums_in_every_form() {
        for (text, expected) in [
            ("", Some(0)),
            ("0", Some(0)),
            ("12", Some(12)),
            ("18446744073709551615", Some(u64::MAX)),
            ("12.0", Some(12)),
            ("1.2345E10", Some(12_345_000_000)),
            ("12.5", None),
            ("-1", None),
            ("1e300", None),
            ("NaN", None),
            ("x", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
