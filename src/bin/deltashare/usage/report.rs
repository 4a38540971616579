//! The figures, added up, and how they are shown.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::event::{Event, Outcome};
use super::{By, Period};
use crate::output::printable;
use deltashare::protocol::names::Name;

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Columns,
    Json,
    Csv,
}

/// What is counted.
const FIGURES: [&str; 5] = ["requests", "refused", "failed", "files", "bytes"];

/// The figures of some requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    requests: u64,
    refused: u64,
    failed: u64,
    files: u64,
    bytes: u64,
}

impl Counts {
    fn add(&mut self, event: &Event, requests: u64) {
        let of = |outcome| if event.outcome == outcome { requests } else { 0 };
        let each = [requests, of(Outcome::Refused), of(Outcome::Failed), event.files, event.bytes];
        let own = [&mut self.requests, &mut self.refused, &mut self.failed, &mut self.files, &mut self.bytes];
        own.into_iter().zip(each).for_each(|(own, more)| *own = own.saturating_add(more));
    }

    /// In the order of [`FIGURES`].
    fn values(&self) -> [u64; 5] {
        [self.requests, self.refused, self.failed, self.files, self.bytes]
    }
}

/// The usage of recipients.
pub(super) struct Usage {
    pub(super) by: Vec<By>,
    /// The key of the recipient's name, if only one is wanted.
    recipient: Option<String>,
    pub(super) period: Period,
    rows: BTreeMap<Vec<String>, Counts>,
    total: Counts,
    /// Requests without a valid token.
    without_recipient: u64,
    /// Lines that are no events of requests.
    pub(super) other_lines: u64,
    /// Events that cannot be read, and why the first of them cannot.
    skipped: u64,
    first_skipped: Option<String>,
}

impl Usage {
    pub(super) fn new(by: Vec<By>, recipient: Option<String>, period: Period) -> Self {
        Self {
            by,
            recipient,
            period,
            rows: BTreeMap::new(),
            total: Counts::default(),
            without_recipient: 0,
            other_lines: 0,
            skipped: 0,
            first_skipped: None,
        }
    }

    /// Adds so many requests of the same kind, with the files and bytes of all of them.
    pub(super) fn add(&mut self, event: &Event, requests: u64) {
        if !self.period.includes(event.day) {
            return;
        }
        let Some(recipient) = &event.recipient else {
            self.without_recipient += requests;
            return;
        };
        if self.recipient.as_ref().is_some_and(|wanted| *wanted != Name::key_of(recipient)) {
            return;
        }
        let of = |by: &By| match by {
            By::Day => event.day.to_string(),
            By::Recipient => recipient.clone(),
            By::Table => event.object.clone(),
        };
        let key = self.by.iter().map(of).collect();
        self.rows.entry(key).or_default().add(event, requests);
        self.total.add(event, requests);
    }

    /// Counts an event that cannot be read.
    pub(super) fn skip(&mut self, reason: String) {
        self.skipped += 1;
        self.first_skipped.get_or_insert(reason);
    }

    /// Why the figures lack something.
    pub(super) fn unreadable(&self) -> Option<String> {
        let first = self.first_skipped.as_ref()?;
        Some(match self.skipped {
            1 => format!("the figures lack an event that cannot be read: {first}"),
            skipped => format!(
                "the figures lack {skipped} events that cannot be read, of which the first is: {first}"
            ),
        })
    }

    /// What there is to know beside the figures.
    pub(super) fn notes(&self, format: Format) -> Vec<String> {
        let mut notes = Vec::new();
        if self.rows.is_empty() {
            notes.push("There are no requests of recipients.".to_owned());
        } else if format == Format::Csv {
            let figures =
                FIGURES.iter().zip(self.total.values()).map(|(name, value)| format!("{value} {name}"));
            notes.push(format!("Total: {}.", figures.collect::<Vec<_>>().join(", ")));
        }
        match self.without_recipient {
            0 => {}
            1 => notes.push("1 request had no valid token.".to_owned()),
            requests => notes.push(format!("{requests} requests had no valid token.")),
        }
        match self.other_lines {
            0 => {}
            1 => notes.push("1 line was not an event of a request.".to_owned()),
            lines => notes.push(format!("{lines} lines were not events of requests.")),
        }
        notes
    }

    pub(super) fn shown(&self, format: Format) -> String {
        match format {
            Format::Columns => self.columns(),
            Format::Json => format!("{}\n", self.json()),
            Format::Csv => self.csv(),
        }
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by.iter().map(|by| by.name())
    }

    fn json(&self) -> Value {
        let figures = |counts: &Counts| {
            let each = FIGURES.iter().zip(counts.values());
            each.map(|(name, value)| ((*name).to_owned(), value.into())).collect::<Map<_, Value>>()
        };
        let rows = self.rows.iter().map(|(key, counts)| {
            let names = self.names().zip(key).map(|(name, value)| (name.to_owned(), value.as_str().into()));
            Value::Object(names.chain(figures(counts)).collect())
        });
        json!({
            "from": self.period.from.map(|day| day.to_string()),
            "to": self.period.to.map(|day| day.to_string()),
            "rows": rows.collect::<Vec<_>>(),
            "total": figures(&self.total),
            "requestsWithoutToken": self.without_recipient,
            "otherLines": self.other_lines,
            "unreadableEvents": self.skipped,
        })
    }

    fn csv(&self) -> String {
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let mut text = line(self.names().chain(FIGURES).map(str::to_owned).collect());
        for (key, counts) in &self.rows {
            let figures = counts.values().into_iter().map(|value| value.to_string());
            text.push_str(&line(key.iter().map(|cell| csv_cell(cell)).chain(figures).collect()));
        }
        text
    }

    fn columns(&self) -> String {
        let mut lines: Vec<Vec<String>> = vec![self.names().chain(FIGURES).map(str::to_owned).collect()];
        let figures = |counts: &Counts| counts.values().map(|value| value.to_string());
        for (key, counts) in &self.rows {
            lines.push(key.iter().map(|cell| printable(cell)).chain(figures(counts)).collect());
        }
        let label = |at: usize| if at == 0 { "total".to_owned() } else { String::new() };
        lines.push((0..self.by.len()).map(label).chain(figures(&self.total)).collect());
        let width = |at: usize| {
            lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.by.len() + FIGURES.len()).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                if at < self.by.len() { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A name as a cell: in quotes if it needs them, and with an apostrophe before what a spreadsheet would take for a formula.
fn csv_cell(name: &str) -> String {
    let formula = name.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let name = if formula { format!("'{name}") } else { name.to_owned() };
    let is_plain = !name.contains([',', '"', '\n', '\r', ';']) && name.trim() == name;
    if is_plain { name } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn usage(by: &[By], recipient: Option<&str>, period: Period) -> Usage {
        let mut usage = Usage::new(by.to_vec(), recipient.map(str::to_owned), period);
        for (day, recipient, object, outcome, files, bytes) in [
            (1, Some("acme"), "r.s.a", Outcome::Answered, 2, 20),
            (1, Some("ACME"), "r.s.a", Outcome::Answered, 1, 10),
            (2, Some("acme"), "r.s.b", Outcome::Failed, 1, 5),
            (2, Some("=1+1"), "a,\"b\".s.t", Outcome::Refused, 0, 0),
            (3, None, "", Outcome::Refused, 0, 0),
        ] {
            let day = NaiveDate::from_ymd_opt(2026, 10, day).unwrap();
            let recipient = recipient.map(str::to_owned);
            usage.add(&Event { day, recipient, object: object.to_owned(), outcome, files, bytes }, 1);
        }
        usage
    }

    const ANY: Period = Period { from: None, to: None };

    #[test]
    fn figures_are_added_up_by_what_is_asked_for() {
        assert_eq!(
            usage(&[By::Day, By::Table], None, ANY).shown(Format::Columns),
            "\
day         table      requests  refused  failed  files  bytes
2026-10-01  r.s.a             2        0       0      3     30
2026-10-02  a,\"b\".s.t         1        1       0      0      0
2026-10-02  r.s.b             1        0       1      1      5
total                         4        1       1      4     35
"
        );
        let found = usage(&[By::Recipient], Some("acme"), ANY);
        assert_eq!(found.total, Counts { requests: 3, refused: 0, failed: 1, files: 4, bytes: 35 });
        let day = NaiveDate::from_ymd_opt(2026, 10, 2);
        let found = usage(&[By::Day], None, Period { from: day, to: day });
        assert_eq!(found.total, Counts { requests: 2, refused: 1, failed: 1, files: 1, bytes: 5 });
        let json = found.json();
        assert_eq!(
            json["rows"],
            json!([{"day": "2026-10-02", "requests": 2, "refused": 1, "failed": 1, "files": 1, "bytes": 5}])
        );
        assert_eq!((&json["from"], &json["requestsWithoutToken"]), (&json!("2026-10-02"), &json!(0)));
        assert_eq!(usage(&[By::Day], None, ANY).json()["requestsWithoutToken"], json!(1));
    }

    #[test]
    fn a_spreadsheet_takes_no_name_for_a_formula_or_for_two_cells() {
        assert_eq!(
            usage(&[By::Recipient, By::Table], None, ANY).shown(Format::Csv),
            "\
recipient,table,requests,refused,failed,files,bytes
'=1+1,\"a,\"\"b\"\".s.t\",1,1,0,0,0
ACME,r.s.a,1,0,0,1,10
acme,r.s.a,1,0,0,2,20
acme,r.s.b,1,0,1,1,5
"
        );
        for (name, cell) in [
            ("a b", "a b"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("a=1", "a=1"),
            ("a;b", "\"a;b\""),
            ("", ""),
        ] {
            assert_eq!(csv_cell(name), cell);
        }
    }
}
