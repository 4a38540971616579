//! How fast a table of any size is answered, and in how much memory.
//!
//! `cargo bench` takes every figure in a fresh process, on one core where `taskset` is there, over logs
//! that it makes under `target/bench-logs`. `cargo bench -- --quick` leaves out the large ones, and
//! `cargo bench --bench answer -- --files 10000000` takes the figures of whole answers for that many files. Limits stand
//! beside the figures; nothing fails by them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod generate;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::Utc;
use deltashare::answer::file_line::FileLineWriter;
use deltashare::answer::head::Head;
use deltashare::answer::page::Page;
use deltashare::answer::replay::ReplayKind;
use deltashare::answer::skipping::{ParsedHints, Skipping};
use deltashare::answer::version::VersionLines;
use deltashare::answer::writer::{AnswerEnd, AnswerWriter};
use deltashare::app::{Charge, MemoryAccount};
use deltashare::delta::DeltaTable;
use deltashare::gate::Gate;
use deltashare::limits::Limits;
use deltashare::location::Location;
use deltashare::ndjson::{self, Bounds, Encoding, FailureLine, Sending};
use deltashare::protocol::capabilities::{Capabilities, FileIdHash, ResponseFormat};
use deltashare::protocol::query::{Hints, QueryRequest, TableQuery};
use deltashare::storage::presign::{BucketUrl, Credentials, Presigner};
use deltashare::storage::{S3Options, Storage, StorageOptions};
use futures::StreamExt as _;
use generate::Layout;

/// As long as the token of a role that another role assumed.
const SESSION_TOKEN_BYTES: usize = 1024;

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "ASIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        session_token: Some("IQoJb3JpZ2luX2VjEJr".chars().cycle().take(SESSION_TOKEN_BYTES).collect()),
        expires_at: None,
    }
}

fn main() {
    deltashare::allocator::use_one_heap();
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("presign") => presign(),
        Some("answer") => answer(&arguments[1..]),
        Some("--quick") => report(&[1_000, 10_000]),
        None => report(&[1_000, 10_000, 100_000, 1_000_000]),
        Some("--files") => match arguments.get(1).map(|number| number.parse()) {
            Some(Ok(size @ 1_000..)) => report_answers(&begin_report(), &[size]),
            _ => refuse("--files needs a number of at least 1000"),
        },
        Some(other) => refuse(&format!("unknown argument {other}; there are --quick and --files NUMBER")),
    }
}

fn refuse(why: &str) {
    eprintln!("{why}");
    std::process::exit(2);
}

/// One URL, over keys of the generated tables.
fn presign() {
    let bucket = BucketUrl::aws("my-bucket", "us-east-1");
    let mut presigner =
        Presigner::new(&credentials(), "us-east-1", &bucket, Utc::now(), Duration::from_secs(3600));
    let keys: Vec<String> = (0..1000)
        .map(|n| format!("tables/orders/date=2024-01-01/part-{n:05}-8b0086f2-7b27-4935-ac5a-8ed6215a6640-c000.snappy.parquet"))
        .collect();
    let mut out = Vec::with_capacity(1 << 22);
    let mut best = f64::MAX;
    for _ in 0..200 {
        out.clear();
        let began = Instant::now();
        for key in &keys {
            presigner.presign_into(key.as_bytes(), &mut out);
        }
        best = best.min(began.elapsed().as_secs_f64() / keys.len() as f64);
    }
    println!("{:.3} {}", best * 1e6, out.len() / keys.len());
}

/// One answer: `TABLE FORMAT ENCODING`, and the hints of the query as its JSON body, if it has hints. Prints seconds to the
/// snapshot, to the first chunk and to the end, then bytes, then peak memory in bytes. With `warm` after the body, these are
/// the figures of the third answer in the same process.
fn answer(arguments: &[String]) {
    let ([table, format, encoding], rest) =
        arguments.split_first_chunk().expect("answer TABLE FORMAT ENCODING [BODY [warm]]");
    let answers = if rest.get(1).is_some_and(|more| more == "warm") { 3 } else { 1 };
    let hints = match QueryRequest::parse(rest.first().map_or("{}", String::as_str).as_bytes()).unwrap().query
    {
        TableQuery::Snapshot(query) => query.hints,
        TableQuery::Since(_) => panic!("changes have no hints"),
    };
    let format = if format == "delta" { ResponseFormat::Delta } else { ResponseFormat::Parquet };
    let encoding = if encoding == "gzip" { Encoding::Gzip } else { Encoding::Identity };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let [opened, first, all, bytes] =
        runtime.block_on(last_answer(Path::new(table), format, encoding, hints, answers));
    println!("{opened} {first} {all} {bytes} {}", peak_memory());
}

/// The last of several answers with the same table.
async fn last_answer(
    table: &Path,
    format: ResponseFormat,
    encoding: Encoding,
    hints: Hints,
    answers: usize,
) -> [f64; 4] {
    let began = Instant::now();
    let storage = Storage::new(StorageOptions {
        url_ttl: Duration::from_secs(3600),
        gateway: None,
        s3: S3Options {
            region: Some("us-east-1".to_owned()),
            credentials: Some(credentials()),
            ..S3Options::default()
        },
        directory_role: None,
    });
    let location = Location::parse(table.to_str().unwrap(), Some(Path::new("/"))).unwrap();
    let store = storage.open(&location).unwrap();
    let delta =
        DeltaTable::new(store.store, store.root, tokio::runtime::Handle::current(), Limits::default());
    let mut figures = one_answer(&storage, &delta, format, encoding, &hints, began).await;
    for _ in 1..answers {
        figures = one_answer(&storage, &delta, format, encoding, &hints, Instant::now()).await;
    }
    figures
}

async fn one_answer(
    storage: &Storage,
    delta: &DeltaTable,
    format: ResponseFormat,
    encoding: Encoding,
    hints: &Hints,
    began: Instant,
) -> [f64; 4] {
    let (table, delta) = (delta.clone(), delta.clone());
    let hints = ParsedHints::new(hints);
    let predicates = hints.predicates.clone();
    let open = move || delta.files_matching(&delta.latest()?, &predicates);
    let files = tokio::task::spawn_blocking(open).await.unwrap().unwrap();
    let opened = began.elapsed().as_secs_f64();
    let capabilities = Capabilities::parse(Some("responseformat=delta"));
    let bucket =
        Location::S3 { bucket: "my-bucket".to_owned(), prefix: "tables/orders/".to_owned(), role: None };
    let signer = storage.signer(&bucket, &[], Utc::now()).await.unwrap();
    let head = Head { format, history_shared: true, directory: None, replayed: ReplayKind::Files };
    let lines = FileLineWriter::new(format, FileIdHash::default_for(format), &capabilities, None, signer);
    let skipping = Skipping::new(hints, 0, &files);
    let writer = AnswerWriter {
        cursor: VersionLines::new(table, files, skipping, None, head, lines),
        page: Page::whole(),
        end: AnswerEnd::default(),
        is_flushed: false,
        memory: MemoryAccount::default(),
        charge: Charge::default(),
    };
    let lane = Gate::new(Limits::default()).lane("bucket".to_owned());
    let sending = Sending {
        encoding,
        failure: FailureLine::NotJson,
        bounds: Bounds::default(),
        lane,
        in_flight: Box::new(()),
    };
    let body = ndjson::stream(sending, writer.into_steps()).await.unwrap();
    let mut chunks = body.into_data_stream();
    let mut first = None;
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        bytes += chunk.unwrap().len();
        first.get_or_insert_with(|| began.elapsed().as_secs_f64());
    }
    [opened, first.unwrap(), began.elapsed().as_secs_f64(), bytes as f64]
}

/// The most memory this process ever held, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Runs one measurement in a fresh process and reads the numbers it prints.
fn child(arguments: &[&str]) -> Vec<f64> {
    let this = env::current_exe().unwrap();
    let mut command = if pinned() {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(this);
        command
    } else {
        Command::new(this)
    };
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn pinned() -> bool {
    Command::new("taskset").arg("--version").output().is_ok()
}

struct Measured {
    opened: f64,
    first: f64,
    all: f64,
    bytes: f64,
    peak: f64,
}

/// The best of several runs, because whatever else the machine does only makes a run slower.
fn measure(table: &Path, format: &str, encoding: &str, body: &[&str], runs: usize) -> Measured {
    let mut best: Option<Measured> = None;
    for _ in 0..runs {
        let numbers = child(&[&["answer", table.to_str().unwrap(), format, encoding], body].concat());
        let [opened, first, all, bytes, peak] = numbers[..] else { panic!("{numbers:?}") };
        let peak = best.as_ref().map_or(peak, |best| best.peak.max(peak));
        let now = Measured { opened, first, all, bytes, peak };
        best = Some(match best {
            Some(best) if best.all <= now.all => {
                Measured { peak, first: best.first.min(first), opened: best.opened.min(opened), ..best }
            }
            Some(best) => Measured { first: best.first.min(first), opened: best.opened.min(opened), ..now },
            None => now,
        });
    }
    best.unwrap()
}

/// What a query takes that needs few of the files.
fn report_hints(root: &Path, sizes: &[usize]) {
    println!("\nqueries with hints, parquet, gzip, from a cold start\n");
    println!("{:>9} {:44} {:>9} {:>9} {:>9}", "files", "hints", "all ms", "kB sent", "peak MB");
    for &size in sizes {
        let table = generate::table(root, size, Layout::Mixed, false).unwrap();
        for hints in [
            r#"{"predicateHints":["date = '2024-03-15'"]}"#,
            r#"{"predicateHints":["id = 7000500"]}"#,
            r#"{"limitHint":1}"#,
        ] {
            let measured = measure(&table, "parquet", "gzip", &[hints], 3);
            println!(
                "{size:>9} {hints:44} {:>9.0} {:>9.1} {:>9.0}",
                measured.all * 1e3,
                measured.bytes / 1e3,
                measured.peak / 1e6
            );
        }
    }
}

/// What a query of one partition of a thousand takes.
fn report_partitions(root: &Path, sizes: &[usize]) {
    println!("\none partition of a thousand, parquet, gzip; limits: 150 ms from a cold start, 50 ms warm\n");
    println!("{:>9} {:10} {:5} {:>9} {:>9} {:>9}", "files", "partitions", "", "all ms", "kB sent", "peak MB");
    let hints = r#"{"predicateHints":["date = '2023-03-15'"]}"#;
    for &size in sizes {
        for layout in [Layout::ByDay, Layout::Scattered] {
            let table = generate::table(root, size, layout, false).unwrap();
            for body in [&[hints][..], &[hints, "warm"]] {
                let measured = measure(&table, "parquet", "gzip", body, 5);
                println!(
                    "{size:>9} {:10} {:5} {:>9.1} {:>9.1} {:>9.0}",
                    if layout == Layout::ByDay { "in order" } else { "scattered" },
                    if body.len() > 1 { "warm" } else { "cold" },
                    measured.all * 1e3,
                    measured.bytes / 1e3,
                    measured.peak / 1e6
                );
            }
        }
    }
}

fn report(sizes: &[usize]) {
    let root = begin_report();
    report_answers(&root, sizes);
    report_hints(&root, sizes);
    report_partitions(&root, sizes);
}

/// Prints on what the figures are taken, and how long one URL takes. Returns the directory of the logs.
fn begin_report() -> PathBuf {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        model.lines().find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(": ")));
    println!(
        "on {}, {}; every figure is the best of several fresh processes\n",
        model.map_or("an unknown processor", |(_, name)| name),
        if pinned() { "pinned to one core" } else { "not pinned, because taskset is missing" }
    );
    let presigned = child(&["presign"]);
    println!(
        "presign a URL of {:.0} bytes, {SESSION_TOKEN_BYTES} B session token: {:.2} µs (limit 1.5)\n",
        presigned[1], presigned[0]
    );
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-logs")
}

/// What whole answers take.
fn report_answers(root: &Path, sizes: &[usize]) {
    println!(
        "log -> snapshot -> files -> signed lines -> body, drained in the process; files/s count everything from a cold start"
    );
    println!(
        "`no .crc` is the delta format of a table without version checksums: its files are counted before the first line"
    );
    println!("limits: 400,000 files/s plain, 150,000 with gzip; 128 MB; first line of 1M files 60 ms\n");
    println!(
        "{:>9} {:8} {:9} {:>10} {:>10} {:>9} {:>9} {:>10} {:>9}",
        "files", "format", "encoding", "open ms", "first ms", "all ms", "files/s", "MB sent", "peak MB"
    );
    let mut per_file = Vec::new();
    let mut peaks = Vec::new();
    for &size in sizes {
        for (what, format, crc) in
            [("parquet", "parquet", false), ("delta", "delta", true), ("no .crc", "delta", false)]
        {
            let table = generate::table(root, size, Layout::Mixed, crc).unwrap();
            for encoding in ["identity", "gzip"] {
                let runs = match size {
                    10_000_000.. => 1,
                    1_000_000..10_000_000 => 3,
                    _ => 5,
                };
                let measured = measure(&table, format, encoding, &[], runs);
                println!(
                    "{size:>9} {what:8} {encoding:9} {:>10.1} {:>10.1} {:>9.0} {:>9.0} {:>10.1} {:>9.0}",
                    measured.opened * 1e3,
                    measured.first * 1e3,
                    measured.all * 1e3,
                    size as f64 / measured.all,
                    measured.bytes / 1e6,
                    measured.peak / 1e6
                );
                if (format, encoding) == ("parquet", "identity") {
                    per_file.push((size, measured.all / size as f64));
                    peaks.push((size, measured.peak));
                }
            }
        }
    }
    let of =
        |list: &[(usize, f64)], size: usize| list.iter().find(|(of, _)| *of == size).map(|(_, value)| *value);
    if let (Some(small), Some(large)) = (of(&per_file, 10_000), of(&per_file, 1_000_000)) {
        println!("\ntime per file at 1M / at 10k: {:.2} (limit 1.2)", large / small);
    }
    if let (Some(small), Some(large)) = (of(&peaks, 100_000), of(&peaks, 1_000_000)) {
        println!("peak memory at 1M / at 100k: {:.2} (limit 1.5)", large / small);
    }
}
