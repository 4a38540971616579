//! What was seen, for people in columns and for scripts as JSON.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::super::output::{Output, duration, printable};
use super::answer::QueryAnswer;
use super::finding::Finding;
use super::recipient::Table;

/// An answer of more bytes is worth compressing.
const WORTH_GZIP: u64 = 10_000;

/// What was seen of one table.
pub(super) struct TableReport {
    name: String,
    pub(super) version: Option<u64>,
    files: Option<u64>,
    bytes: u64,
    first_line: Duration,
    last_line: Duration,
    /// Whether a client that declares nothing can read it.
    pub(super) every_client: bool,
    pub(super) url_life: Option<TimeDelta>,
    /// What became of the first file.
    pub(super) file: String,
    pub(super) failed: bool,
}

impl TableReport {
    pub(super) fn new(table: &Table) -> Self {
        Self {
            name: table.to_string(),
            version: None,
            files: None,
            bytes: 0,
            first_line: Duration::ZERO,
            last_line: Duration::ZERO,
            every_client: false,
            url_life: None,
            file: "not read".to_owned(),
            failed: false,
        }
    }

    pub(super) fn take(&mut self, answer: &QueryAnswer) {
        (self.files, self.bytes) = (Some(answer.files), answer.bytes);
        (self.first_line, self.last_line) = (answer.first_line, answer.whole);
    }

    fn cells(&self) -> Vec<String> {
        let seconds = |time: Duration| {
            if time.is_zero() { String::new() } else { format!("{:.2} s", time.as_secs_f64()) }
        };
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let clients = match (self.version.is_some(), self.every_client) {
            (false, _) => "",
            (true, true) => "all",
            (true, false) => "newer",
        };
        vec![
            printable(&self.name),
            number(self.version),
            number(self.files),
            self.files.map(|_| size(self.bytes)).unwrap_or_default(),
            seconds(self.first_line),
            seconds(self.last_line),
            clients.to_owned(),
            self.url_life.map(|life| format!("{} min", life.num_minutes())).unwrap_or_default(),
            printable(&self.file),
            if self.failed { "FAILED" } else { "ok" }.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "table": self.name, "version": self.version, "files": self.files, "bytes": self.bytes,
            "firstLineMillis": u64::try_from(self.first_line.as_millis()).ok(),
            "lastLineMillis": u64::try_from(self.last_line.as_millis()).ok(),
            "everyClient": self.every_client, "urlLifeSeconds": self.url_life.map(|life| life.num_seconds()),
            "file": self.file, "failed": self.failed,
        })
    }
}

/// Everything that was seen.
#[derive(Default)]
pub(super) struct Report {
    pub(super) endpoint: String,
    /// Never shown.
    pub(super) token: Option<String>,
    pub(super) token_ends: Option<DateTime<Utc>>,
    pub(super) skew: Option<TimeDelta>,
    pub(super) shares: usize,
    pub(super) schemas: usize,
    pub(super) tables: Vec<TableReport>,
    /// Whether every answer that is large enough was compressed; `None` if none was large enough.
    gzip: Option<bool>,
    /// Of the answer that took longest of those that tell.
    streaming: Option<Streaming>,
    failures: Vec<Finding>,
    warnings: Vec<Finding>,
}

struct Streaming {
    table: String,
    streamed: bool,
    first_line: Duration,
    whole: Duration,
}

impl Report {
    pub(super) fn fail(&mut self, finding: Finding) {
        self.failures.push(finding);
    }

    pub(super) fn warn(&mut self, finding: Finding) {
        // The same for many tables is said once.
        if !self.warnings.iter().any(|before| before.help == finding.help) {
            self.warnings.push(finding);
        }
    }

    pub(super) fn failures(&self) -> usize {
        self.failures.len()
    }

    /// Takes what an answer says of all answers.
    pub(super) fn take(&mut self, table: &Table, answer: &QueryAnswer) {
        if answer.says_gzip {
            self.gzip = Some(self.gzip.unwrap_or(true));
        } else if answer.size > WORTH_GZIP {
            self.gzip = Some(false);
        }
        let longest = self.streaming.as_ref().is_none_or(|before| before.whole < answer.whole);
        if longest && let Some(streamed) = answer.streamed() {
            let (first_line, whole) = (answer.first_line, answer.whole);
            self.streaming = Some(Streaming { table: table.to_string(), streamed, first_line, whole });
        }
    }

    /// Says what the answers together show.
    pub(super) fn judge_answers(&mut self) {
        if self.gzip == Some(false) {
            let help = "They are ten times as large as they need to be, and Lambda allows 200 MB. This is expected \
                        for a function URL, and if DELTASHARE_GZIP=off is set.";
            self.warn(Finding::new("gzip", "answers are not compressed").help(help));
        }
        if let Some(Streaming { table, streamed: false, first_line, whole }) = &self.streaming {
            let what = format!(
                "the answer for {table} is held back: the first line came after {:.1} s, the last after {:.1} s",
                first_line.as_secs_f64(),
                whole.as_secs_f64()
            );
            let help = "Something between the client and the server buffers answers. For API Gateway, template.yaml \
                        must say responseTransferMode STREAM; for a proxy, turn off buffering. Large tables will \
                        fail.";
            self.fail(Finding::new("streaming", what).help(help));
        }
    }

    /// Prints everything, without the token and the signatures of URLs: a server may repeat them
    /// in what it says, as API Gateway does with the token if it does not know a path.
    pub(super) fn print(&self, output: Output) {
        let text = match output {
            Output::Json => self.json().to_string(),
            Output::Text => self.text(),
        };
        let text = match &self.token {
            Some(token) if !token.is_empty() => text.replace(token, "(the token)"),
            _ => text,
        };
        println!("{}", without_signatures(&text));
    }

    fn json(&self) -> Value {
        let findings = |findings: &[Finding]| -> Value {
            let finding = |finding: &Finding| json!({"about": finding.about, "found": finding.what, "help": finding.help});
            findings.iter().map(finding).collect()
        };
        json!({
            "endpoint": self.endpoint,
            "tokenEnds": self.token_ends.map(|end| end.to_rfc3339_opts(SecondsFormat::Secs, true)),
            "clockSkewSeconds": self.skew.map(|skew| skew.num_seconds()),
            "gzip": self.gzip,
            "streaming": self.streaming.as_ref().map(|streaming| streaming.streamed),
            "shares": self.shares, "schemas": self.schemas,
            "tables": self.tables.iter().map(TableReport::json).collect::<Vec<_>>(),
            "failures": findings(&self.failures), "warnings": findings(&self.warnings),
        })
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for (name, value) in self.facts() {
            lines.push(format!("{name:<10} {}", printable(&value)));
        }
        if !self.tables.is_empty() {
            lines.push(String::new());
            let head = [
                "table",
                "version",
                "files",
                "size",
                "first line",
                "last line",
                "clients",
                "URL life",
                "file",
                "",
            ];
            let rows: Vec<Vec<String>> = std::iter::once(head.map(str::to_owned).to_vec())
                .chain(self.tables.iter().map(TableReport::cells))
                .collect();
            let width =
                |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
            for row in &rows {
                let cells =
                    row.iter().enumerate().map(|(at, cell)| format!("{cell:<0$}", width(at).unwrap_or(0)));
                lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
            }
        }
        for (kind, findings) in [("warning", &self.warnings), ("FAILED", &self.failures)] {
            for finding in findings {
                lines.push(format!("\n{kind}: {}: {}", printable(&finding.about), printable(&finding.what)));
                if !finding.help.is_empty() {
                    lines.push(format!("  {}", printable(&finding.help)));
                }
            }
        }
        if self.failures.is_empty() {
            lines.push(format!(
                "\nThe recipient can read {} tables; the profile can be sent.",
                self.tables.len()
            ));
        }
        lines.join("\n")
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if !self.endpoint.is_empty() {
            facts.push(("endpoint", self.endpoint.clone()));
            let token = match self.token_ends {
                Some(end) => token_end(end, Utc::now()),
                None => "the profile has no expiration time".to_owned(),
            };
            facts.push(("token", token));
        }
        if self.shares > 0 {
            facts.push((
                "lists",
                format!("{} shares, {} schemas, {} tables", self.shares, self.schemas, self.tables.len()),
            ));
        }
        if let Some(skew) = self.skew {
            facts.push(("clock", format!("the server's differs by {} s", skew.num_seconds().abs())));
        }
        if !self.tables.is_empty() {
            let gzip = match self.gzip {
                None => "no answer was large enough to tell",
                Some(true) => "yes",
                Some(false) => "no",
            };
            facts.push(("gzip", gzip.to_owned()));
            let streaming = match &self.streaming {
                None => "no answer was large enough to tell".to_owned(),
                Some(Streaming { table, streamed, first_line, whole }) => format!(
                    "{}: the first line of {table} after {:.2} s, the last after {:.2} s",
                    if *streamed { "yes" } else { "no" },
                    first_line.as_secs_f64(),
                    whole.as_secs_f64()
                ),
            };
            facts.push(("streaming", streaming));
        }
        facts
    }
}

/// When a token expires, and how far away that is.
fn token_end(end: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let left = end - now;
    let distance = duration(left.abs());
    let end = end.to_rfc3339_opts(SecondsFormat::Secs, true);
    if left > TimeDelta::zero() {
        format!("valid until {end}, {distance} from now")
    } else {
        format!("expired at {end}, {distance} ago")
    }
}

/// A text without what signs the URLs in it.
fn without_signatures(text: &str) -> String {
    let mut parts = text.split("X-Amz-");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str("(signed)");
        let of_url = |character: char| character.is_ascii_alphanumeric() || "%=&-._~+/".contains(character);
        kept.push_str(part.trim_start_matches(of_url));
    }
    kept
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_told_by_how_far_it_is() {
        let now = DateTime::parse_from_rfc3339("2027-01-01T00:00:00Z").unwrap().with_timezone(&Utc);
        for (left, told) in [
            (TimeDelta::days(90), "valid until 2027-04-01T00:00:00Z, 90 days from now"),
            (TimeDelta::hours(5), "valid until 2027-01-01T05:00:00Z, 5 hours from now"),
            (-TimeDelta::days(2521), "expired at 2020-02-06T00:00:00Z, 2521 days ago"),
            (-TimeDelta::minutes(3), "expired at 2026-12-31T23:57:00Z, 3 minutes ago"),
        ] {
            assert_eq!(token_end(now + left, now), told);
        }
    }
}
