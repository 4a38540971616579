//! What comes from outside, changed at random: logs, checkpoints, schemas, share files and requests. Whatever it is, there
//! is an answer or an error, in time, and the process lives.
//!
//! Seeds are whole inputs from the tests; changes are random, not guided by coverage. `FUZZ_SECONDS` says how long each test
//! takes (2 by default), `FUZZ_SEED` repeats a run. What fails is named with its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)] // as in `delta_log`

#[allow(dead_code)]
#[path = "delta_log/log.rs"]
mod log;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use deltashare::app::App;
use deltashare::catalog::share_file::{ShareFile, ShareFileCatalog};
use deltashare::delta::{ChangeKind, Schema, read_schema};
use deltashare::limits::Limits;
use deltashare::protocol::tokens::TokenKey;
use deltashare::router::router;
use deltashare::storage::{Gateway, S3Options, Storage, StorageOptions};
use http_body_util::BodyExt as _;
use log::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use url::Url;

/// Far more than any of these inputs takes, on a busy machine too.
const LONGEST: Duration = Duration::from_secs(30);

/// A source of changes: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Changes an input in a few places. `words` are what its readers look for.
    fn change(&mut self, input: &mut Vec<u8>, words: &[&[u8]]) {
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + self.below(64)).min(input.len());
            match self.below(8) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => {
                    input[at] = *self.of(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'\\', b'-', b'9'])
                }
                2 => drop(input.drain(at..end)),
                3 => {
                    let copy = input[at..end].to_vec();
                    let to = self.below(input.len() + 1);
                    input.splice(to..to, copy);
                }
                4 => {
                    let copy = input[at..end].repeat(1 + self.below(200));
                    input.splice(at..end, copy);
                }
                5 => {
                    let many = vec![*self.of(b"[{(\"\\ 0\xff"); 1 + self.below(5_000)];
                    input.splice(at..at, many);
                }
                6 => input.truncate(at),
                _ => {
                    let word = self.of(words).to_vec();
                    input.splice(at..if self.below(2) == 0 { at } else { end }, word);
                }
            }
        }
    }
}

/// Calls `run` with changed inputs until the time is over.
fn fuzz(name: &str, words: &[&[u8]], seeds: &[Vec<u8>], mut run: impl FnMut(&[u8])) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("FUZZ_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(2));
    let mut inputs = 0_u64;
    loop {
        let mut random = Random(seed.wrapping_add(inputs));
        let mut input = random.of(seeds).clone();
        // The seeds themselves come first.
        match seeds.get(inputs as usize) {
            Some(seed) => input.clone_from(seed),
            None => random.change(&mut input, words),
        }
        let began = Instant::now();
        let alive = catch_unwind(AssertUnwindSafe(|| run(&input)));
        let took = began.elapsed();
        if alive.is_err() || took > LONGEST {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}-{inputs}"));
            std::fs::write(&kept, &input).unwrap();
            panic!("{name}: FUZZ_SEED={seed}, input {inputs} after {took:?}, kept in {}", kept.display());
        }
        inputs += 1;
        if Instant::now() > end && inputs > seeds.len() as u64 {
            break;
        }
    }
    println!("{name}: {inputs} inputs, FUZZ_SEED={seed}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

const ACTIONS: [&[u8]; 14] = [
    b"{\"add\":{\"path\":\"f0\"}}\n",
    b"\"remove\":",
    b"\"metaData\":",
    b"\"protocol\":",
    b"\"commitInfo\":{\"inCommitTimestamp\":1}",
    b"\"schemaString\":\"{}\"",
    b"\"deletionVector\":{\"storageType\":\"u\",\"pathOrInlineDv\":\"ab^-aqEH.-t@S}K{vb[*k^\",\"offset\":4,\"sizeInBytes\":40,\"cardinality\":6}",
    b"\"partitionValues\":null",
    b"\"size\":-1",
    b"9223372036854775807",
    b"null",
    b"\\ud800",
    b"\n",
    b"1e999",
];

/// Reads everything that a table's log says: the newest version, its files and counts, and what changed.
async fn read_all(log: &Log) {
    let table = log.table();
    blocking(move || {
        let Ok(newest) = table.latest() else { return };
        let _ = (newest.timestamp(), newest.file_stats(), newest.exact_features(), newest.version_as_of(0));
        if let Ok(mut files) = table.files(&newest) {
            while let Ok(Some(_)) = files.advance() {}
        }
        if let Ok(range) = table.change_range(&newest, 0, newest.version()) {
            let _ = table.survey(&Arc::new(range), ChangeKind::Data, None, &mut |_| Ok(()));
        }
    })
    .await;
}

#[test]
fn commits() {
    let seeds = [
        lines(&[add("f1"), remove("f0"), json!({"commitInfo": {"timestamp": 1, "operation": "WRITE"}})]),
        lines(&[features(&["deletionVectors"], &["deletionVectors"]), metadata(), add("f2")]),
        lines(&[add_with(
            "f3",
            json!({"stats": "{\"numRecords\":1,\"minValues\":{\"id\":1}}", "tags": {"a": "b"}}),
        )]),
    ];
    let runtime = runtime();
    fuzz("commits", &ACTIONS, &seeds.map(String::into_bytes), |input| {
        runtime.block_on(async {
            let log = Log::new();
            log.commits(2).await;
            log.put(&commit_name(2), input).await;
            read_all(&log).await;
        });
    });
}

#[test]
fn checkpoints() {
    let runtime = runtime();
    let name = checkpoint_name(2);
    let seed = runtime.block_on(async {
        let log = Log::new();
        log.commits(3).await;
        log.checkpoint(None).await;
        log.get(&name).await
    });
    fuzz(
        "checkpoints",
        &[b"PAR1", &[0x19, 0xfc, 0xff], &[0x15, 0x04], &[0xff; 9], &[0; 8]],
        &[seed],
        |input| {
            runtime.block_on(async {
                let log = Log::new();
                log.commits(4).await;
                log.put(&name, input).await;
                // Without the commits that it stands for, nothing can be read around it.
                if input.len() % 2 == 0 {
                    log.delete(&commit_name(0)).await;
                }
                read_all(&log).await;
            });
        },
    );
}

#[test]
fn hints_and_checksums() {
    let seeds = [
        br#"{"version":2,"size":3,"parts":1,"checkpointSchema":{"type":"struct","fields":[]}}"#.to_vec(),
        br#"{"txnId":"a","tableSizeBytes":300,"numFiles":3,"numMetadata":1,"numProtocol":1,"numDeletionVectorsOpt":0}"#.to_vec(),
    ];
    let runtime = runtime();
    fuzz("hints_and_checksums", &ACTIONS, &seeds, |input| {
        runtime.block_on(async {
            let log = Log::new();
            log.commits(3).await;
            log.put("_last_checkpoint", input).await;
            log.put("00000000000000000002.crc", input).await;
            // Neither can hide a file.
            assert_eq!(
                read(&log).await.unwrap(),
                (2, vec!["f0".to_owned(), "f1".to_owned(), "f2".to_owned()])
            );
            read_all(&log).await;
        });
    });
}

#[test]
fn schemas() {
    let seeds = [
        SCHEMA.as_bytes().to_vec(),
        br#"{"type":"struct","fields":[{"name":"a","type":{"type":"map","keyType":"string","valueType":{"type":"array","elementType":"decimal(38,18)","containsNull":true},"valueContainsNull":true},"nullable":false,"metadata":{"comment":"x"}}]}"#.to_vec(),
    ];
    let words: [&[u8]; 6] = [
        b"\"type\":\"struct\",\"fields\":[]",
        b"decimal(39,0)",
        b"\"name\":\"\"",
        b"\"nullable\":",
        b"variant",
        b"null",
    ];
    fuzz("schemas", &words, &seeds, |input| {
        if let Ok(text) = std::str::from_utf8(input)
            && Schema::parse(text).is_ok()
        {
            assert!(read_schema(text).unwrap().is_object());
        }
    });
}

const SHARES: &str = "version: 1\nshares:\n- name: s\n  schemas:\n  - name: d\n    tables:\n    - name: t\n      location: /t\n      id: 6f1c0f0e-0b1e-4d2f-9d3c-2f1d0f5c8a11\n      historyShared: true\n      startVersion: 3\n      allowedLocations: [/u]\nrecipients:\n- name: r\n  shares: [s]\n  tokens:\n  - sha256: 4cdef23f59327224052a2bad4b1769619b44f70d788ab614b67fe7a58757596a\n    expires: 2027-06-01T00:00:00Z\n";

#[test]
fn share_files() {
    let words: [&[u8]; 8] = [
        b"\n",
        b"\n- ",
        b"null",
        b"&a ",
        b"*a",
        b"recipients:\n",
        b"authorization:\n  bearerToken: ",
        b"!!binary ",
    ];
    fuzz("share_files", &words, &[SHARES.into()], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(file) = ShareFile::parse(text, &|location| Ok(location.to_owned())) {
            // No damage of a file opens what it closed; a file that lost its recipients says nothing any more.
            let closed = text.lines().any(|line| line.starts_with("recipients:"));
            assert!(!(closed && file.is_open()), "{text}");
        }
    });
}

/// The example tables, for everyone.
fn app() -> Arc<App> {
    let tables = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tables");
    let shares = format!(
        "version: 1\nauthorization: none\nshares:\n- name: s\n  schemas:\n  - name: d\n    tables:\n    - {{name: t, location: {}, \
         historyShared: true}}\n",
        tables.join("orders").display()
    );
    let file = ShareFile::parse(&shares, &|location| Ok(location.to_owned())).unwrap();
    let storage = Storage::new(StorageOptions {
        url_ttl: Duration::from_secs(60),
        gateway: Some(Gateway::new(&Url::parse("http://127.0.0.1:1").unwrap())),
        s3: S3Options::default(),
        directory_role: None,
    });
    let catalog = Arc::new(ShareFileCatalog::new(file));
    Arc::new(App::new(catalog, storage, TokenKey::random().unwrap(), "/delta-sharing", Limits::default()))
}

/// A request as text: method, path and capabilities on a line each, then the body.
async fn ask(app: &Arc<App>, input: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut parts = input.splitn(4, |&byte| byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (method, path, capabilities) = (part(), part(), part());
    let request = Request::builder().method(method).uri(path);
    let request =
        request.header("delta-sharing-capabilities", capabilities).header("authorization", capabilities);
    let answer =
        router(Arc::clone(app)).oneshot(request.body(Body::from(part().to_vec())).ok()?).await.unwrap();
    let status = answer.status().as_u16();
    Some((
        status,
        answer.into_body().collect().await.map_or_else(|_| Vec::new(), |body| body.to_bytes().to_vec()),
    ))
}

#[test]
fn requests() {
    let runtime = runtime();
    let app = app();
    let table = "/delta-sharing/shares/s/schemas/d/tables/t";
    let mut seeds: Vec<Vec<u8>> = [
        "GET\n/delta-sharing/shares?maxResults=1\n\n".to_owned(),
        "GET\n/delta-sharing/shares/s/all-tables\n\n".to_owned(),
        format!("GET\n{table}/version?startingTimestamp=2024-01-01T00:00:00Z\n\n"),
        format!("GET\n{table}/metadata\nresponseformat=delta,parquet;readerfeatures=deletionvectors,columnmapping\n"),
        format!("GET\n{table}/changes?startingVersion=0&endingVersion=1&maxFiles=1\nincludeendstreamaction=true\n"),
        format!("POST\n{table}/query\nresponseformat=delta\n{{\"version\":0,\"limitHint\":5,\"predicateHints\":[\"a = 1\"]}}"),
        format!("POST\n{table}/query\nasyncquery=true\n{{\"jsonPredicateHints\":\"{{\\\"op\\\":\\\"equal\\\"}}\"}}"),
    ]
    .map(String::into_bytes)
    .into();
    // Tokens too, as the server makes them.
    let page = format!("POST\n{table}/query\n\n{{\"maxFiles\":1}}");
    let (_, body) = runtime.block_on(ask(&app, page.as_bytes())).unwrap();
    let last: Value =
        serde_json::from_slice(body.split(|&byte| byte == b'\n').rfind(|line| !line.is_empty()).unwrap())
            .unwrap();
    let token = last["endStreamAction"]["nextPageToken"].as_str().unwrap().to_owned();
    seeds.push(format!("POST\n{table}/query\n\n{{\"maxFiles\":1,\"pageToken\":\"{token}\"}}").into());
    let words: [&[u8]; 10] = [
        b"%2e%2e/",
        b"%ff",
        b"?a=b&a=c",
        b"9223372036854775808",
        b"-1",
        b"\"version\":",
        b"\"pageToken\":\"\"",
        b"/queries/x",
        b"Bearer ",
        b"+",
    ];
    fuzz("requests", &words, &seeds, |input| {
        let Some((status, body)) = runtime.block_on(ask(&app, input)) else { return };
        assert!(status < 500, "{status}: {}", String::from_utf8_lossy(&body));
        // A token that was changed is none.
        let mut parts = input.splitn(4, |&byte| byte == b'\n');
        let mut part = || parts.next().unwrap_or_default();
        let asks = part() == b"POST" && part().ends_with(b"/query") && status == 200;
        let body = (part(), part()).1;
        let sent = serde_json::from_slice::<Value>(body).ok();
        if let Some(sent) = sent.as_ref().and_then(|body| body.get("pageToken")?.as_str()).filter(|_| asks) {
            assert!(sent.is_empty() || sent.trim_end_matches('=') == token, "{sent}");
        }
    });
}
