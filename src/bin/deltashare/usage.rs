//! `deltashare usage`: what recipients requested, by the events that the server writes.

mod event;
mod insights;
mod report;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use clap::{ArgGroup, Args, ValueEnum};
use deltashare::protocol::names::Name;
use flate2::read::MultiGzDecoder;
use futures::{FutureExt as _, StreamExt as _, stream};

use super::arguments::parse_time;
use super::aws::Aws;
use super::output::printable;
use super::{Failure, blocking};
use event::Line;
use report::{Format, Usage};

/// Show how many requests recipients made, and how many files and bytes they were granted, by day and table.
///
/// The figures come from the events of the server: from the log group of the function, which CloudWatch Logs Insights
/// searches at a charge for each GB, or from files with the log of deltashare serve or of the function. Files count as
/// granted when their URLs are sent, whether they are downloaded or not. Requests without a valid token are of no recipient,
/// and are left out.
///
/// Days are in UTC. If events cannot be read, the figures lack them, and the command says so and fails.
#[derive(Args)]
#[command(
    group = ArgGroup::new("source").required(true).args(["log_file", "log_group", "stack"]),
    after_help = "Examples:\n  deltashare usage --stack deltashare --since 30d\n  deltashare usage acme --log-group LOG_GROUP --from 2026-10-01 --to 2026-10-31 --format csv\n  deltashare usage --log-file serve.log --log-file serve.log.1.gz --by recipient"
)]
pub(crate) struct Options {
    /// Only this recipient. Default: every recipient.
    recipient: Option<String>,
    /// A file with the log, or - for standard input. It can be compressed with gzip. Repeat the option for several.
    #[arg(long, value_name = "FILE")]
    log_file: Vec<PathBuf>,
    /// The log group of the function: the stack output LogGroup.
    #[arg(long, value_name = "NAME")]
    log_group: Option<String>,
    /// The stack, whose log group is looked for by its name.
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// The days since a time ago, such as 30d, until today. Default: 30d for a log group, and every day of a file.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "from")]
    since: Option<TimeDelta>,
    /// The first day, such as 2026-10-01.
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    from: Option<NaiveDate>,
    /// The last day, which is included. Default: today.
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    to: Option<NaiveDate>,
    /// What the rows are of, such as day,table. Default: day,table with a recipient, and day,recipient,table without.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    by: Vec<By>,
    /// The format: columns for people, JSON, or CSV.
    #[arg(long, value_enum, default_value = "columns")]
    format: Format,
}

/// How many days of a log group are searched if none is named.
const DAYS: u64 = 30;

/// How many days are searched at a time. An account can run 30 queries at a time.
const AT_ONCE: usize = 4;

/// What rows are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Day,
    Recipient,
    Table,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Recipient => "recipient",
            Self::Table => "table",
        }
    }
}

fn parse_date(text: &str) -> Result<NaiveDate, String> {
    let is_date = text.len() == 10 && text.starts_with(|first: char| first.is_ascii_digit());
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| is_date);
    date.ok_or_else(|| "not a date such as 2026-10-01".to_owned())
}

/// Days from the first to the last one, both included. `None` for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
}

impl Period {
    fn includes(self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

impl Options {
    fn period(&self, now: DateTime<Utc>) -> Result<Period, Failure> {
        let since = self.since.map(|since| (now - since).date_naive());
        let period = Period { from: self.from.or(since), to: self.to };
        if let Period { from: Some(from), to: Some(to) } = period
            && from > to
        {
            return Err(Failure::usage(format!("the first day, {from}, is after the last day, {to}")));
        }
        Ok(period)
    }

    fn by(&self) -> Vec<By> {
        let mut by = self.by.clone();
        if by.is_empty() {
            by = vec![By::Day, By::Recipient, By::Table];
            by.retain(|by| self.recipient.is_none() || *by != By::Recipient);
        }
        let mut once = Vec::new();
        by.into_iter().for_each(|by| {
            if !once.contains(&by) {
                once.push(by)
            }
        });
        once
    }
}

/// Shows the usage on a runtime of its own.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let now = Utc::now();
    let period = options.period(now)?;
    let recipient = options.recipient.as_deref().map(Name::key_of);
    let mut usage = Usage::new(options.by(), recipient, period);
    if options.log_file.is_empty() {
        blocking(of_group(options, &mut usage, now))?;
    } else {
        for path in &options.log_file {
            of_file(path, &mut usage)?;
        }
    }
    print!("{}", usage.shown(options.format));
    usage.notes(options.format).iter().for_each(|note| eprintln!("{note}"));
    match usage.unreadable() {
        None => Ok(()),
        Some(reason) => Err(Failure::failed(reason)),
    }
}

/// The days to search are the last ones if none is named.
async fn of_group(options: &Options, usage: &mut Usage, now: DateTime<Utc>) -> Result<(), Failure> {
    let aws = Aws::signed_in().await?;
    let logs = insights::Logs::new(&aws.sdk);
    let group = match (&options.log_group, &options.stack) {
        (Some(group), _) => logs.group(group, now).await?,
        (None, Some(stack)) => logs.group_of_stack(stack, now).await?,
        (None, None) => return Err(Failure::usage("name a log group with --log-group")),
    };
    let today = now.date_naive();
    let to = usage.period.to.unwrap_or(today).min(today);
    let wanted = usage.period.from.unwrap_or_else(|| to.checked_sub_days(Days::new(DAYS - 1)).unwrap_or(to));
    // CloudWatch refuses to search what is older than the log group, or no longer kept.
    let from = group.first_day.map_or(wanted, |first| wanted.max(first));
    if from > wanted && usage.period.from.is_some() {
        eprintln!("note: the log group has no events before {from}");
    }
    usage.period = Period { from: Some(wanted), to: Some(to) };
    let days: Vec<NaiveDate> = from.iter_days().take_while(|day| *day <= to).collect();
    let with_table = usage.by.contains(&By::Table);
    let searches = days.iter().map(|day| logs.day(&group, *day, with_table).boxed());
    let mut searches = stream::iter(searches.collect::<Vec<_>>()).buffered(AT_ONCE);
    let (mut done, shown) = (0, io::stderr().is_terminal());
    while let Some(found) = searches.next().await {
        done += 1;
        if shown {
            let end = if done == days.len() || found.is_err() { "\n" } else { "" };
            eprint!("\r{done} of {} days searched{end}", days.len());
        }
        found?.iter().for_each(|(event, requests)| usage.add(event, *requests));
    }
    Ok(())
}

/// The longest line that is read. CloudWatch takes events of up to 1 MB.
const LONGEST_LINE: u64 = 8 << 20;

/// The events of a file. Fails if it cannot be read to its end.
fn of_file(path: &Path, usage: &mut Usage) -> Result<(), Failure> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |error: &io::Error| Failure::failed(format!("{}: {error}", printable(&name)));
    let file: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(|error| failed(&error))?),
    };
    let mut reader = BufReader::new(file);
    let is_gzip = reader.fill_buf().map_err(|error| failed(&error))?.starts_with(&[0x1f, 0x8b]);
    let mut lines: Box<dyn BufRead> = match is_gzip {
        true => Box::new(BufReader::new(MultiGzDecoder::new(reader))),
        false => Box::new(reader),
    };
    let (mut number, mut line) = (0_u64, Vec::new());
    loop {
        line.clear();
        let read = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|error| failed(&error))?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        if read as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
            return Err(Failure::failed(format!(
                "{}, line {number}: the line has more than {} MiB, so this is no log",
                printable(&name),
                LONGEST_LINE >> 20
            )));
        }
        match event::read(&String::from_utf8_lossy(&line)) {
            Line::Event(event) => usage.add(&event, 1),
            Line::Other => usage.other_lines += 1,
            Line::Unreadable(reason) => {
                usage.skip(format!("{}, line {number}: {reason}", printable(&name)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_in_one_way() {
        assert_eq!(parse_date("2026-10-01"), Ok(NaiveDate::from_ymd_opt(2026, 10, 1).unwrap()));
        for text in ["2026-10-1", "2026-13-01", "2026-02-30", "20261001", "", "+026-10-01", "2026-10-01T"] {
            assert!(parse_date(text).is_err(), "{text}");
        }
    }
}
