//! How fast a long change data feed is answered from a slow store, and what pages cost.
//!
//! `cargo bench --bench changes` runs the whole router over a stand-in for S3 on loopback, where each request
//! takes 25 ms, and over logs that it makes under `target/bench-logs`. Limits stand beside the figures; nothing
//! fails by them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../answer/generate.rs"]
#[expect(dead_code, reason = "the other benchmark has more kinds of logs")]
mod generate;
mod store;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use buoyant_kernel::Snapshot;
use buoyant_kernel::object_store::local::LocalFileSystem;
use buoyant_kernel_engine::DefaultEngineBuilder;
use buoyant_kernel_engine::executor::tokio::TokioMultiThreadExecutor;
use deltashare::app::App;
use deltashare::catalog::share_file::{ShareFile, ShareFileCatalog};
use deltashare::http::router;
use deltashare::limits::Limits;
use deltashare::protocol::tokens::TokenKey;
use deltashare::storage::presign::Credentials;
use deltashare::storage::{S3Options, Storage, StorageOptions};
use futures::StreamExt as _;
use store::{BUCKET, Store};
use tower::ServiceExt as _;
use url::Url;

const DELAY: Duration = Duration::from_millis(25);
const COMMITS: usize = 1_000;
const FILES: usize = 10_000;
const PAGE: usize = 7;
const RUNS: usize = 5;
const TABLE: &str = "/delta-sharing/shares/s/schemas/d/tables/t";

fn main() {
    deltashare::allocator::use_one_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-logs");
    runtime.block_on(async {
        feed(&root).await;
        poll(&root).await;
        pages(&root).await;
    });
}

/// A log of one file a commit, with its change data feed on and a checkpoint ten commits before its end. Written by hand:
/// without DataFusion, `deltalake` does not write to a table that has a change data feed.
fn long_log(root: &Path) -> PathBuf {
    let table = root.join(format!("changes-{COMMITS}"));
    if table.join("done").exists() {
        return table;
    }
    let log = table.join("_delta_log");
    fs::create_dir_all(&log).unwrap();
    let checkpoint = COMMITS - 10;
    for version in 0..COMMITS {
        let mut text = String::new();
        if version == 0 {
            text += r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":4}}
{"metaData":{"id":"5fba94ed-9794-4965-ba6e-6ee3c0d22af9","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{"delta.enableChangeDataFeed":"true"},"createdTime":0}}
"#;
        }
        writeln!(
            text,
            r#"{{"add":{{"path":"part-{version:05}-8b0086f2-7b27-4935-ac5a-8ed6215a6640-c000.snappy.parquet","partitionValues":{{}},"size":1000,"modificationTime":0,"dataChange":true,"stats":"{{\"numRecords\":10}}"}}}}"#
        )
        .unwrap();
        fs::write(log.join(format!("{version:020}.json")), text).unwrap();
        if version == checkpoint {
            let executor = Arc::new(TokioMultiThreadExecutor::new(tokio::runtime::Handle::current()));
            let engine = DefaultEngineBuilder::new(Arc::new(LocalFileSystem::new()))
                .with_task_executor(executor)
                .build();
            let url = Url::from_directory_path(&table).unwrap();
            tokio::task::block_in_place(|| {
                Snapshot::builder_for(&url).build(&engine).unwrap().checkpoint(&engine, None).unwrap();
            });
        }
    }
    fs::write(table.join("done"), "").unwrap();
    table
}

/// A server that has seen nothing yet, over a table in the stand-in.
fn cold(endpoint: &Url) -> Router {
    let shares = format!(
        "version: 1\nauthorization: none\nshares:\n- name: s\n  schemas:\n  - name: d\n    tables:\n    - {{name: t, location: 's3://{BUCKET}/', historyShared: true}}\n"
    );
    let catalog = ShareFile::parse(&shares, None).unwrap();
    let s3 = S3Options {
        endpoint: Some(endpoint.clone()),
        path_style: true,
        credentials: Some(Credentials {
            access_key_id: "id".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: None,
            expires_at: None,
        }),
        ..S3Options::default()
    };
    let url_ttl = Duration::from_secs(3600);
    let storage = Storage::new(StorageOptions { url_ttl, gateway: None, s3, directory_role: None });
    let catalog = Arc::new(ShareFileCatalog::new(catalog));
    router(Arc::new(App::new(
        catalog,
        storage,
        TokenKey::random().unwrap(),
        "/delta-sharing",
        Limits::default(),
    )))
}

struct Answered {
    first: f64,
    all: f64,
    body: Vec<u8>,
}

async fn ask(router: &Router, request: Request<Body>) -> Answered {
    let began = Instant::now();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut chunks = response.into_body().into_data_stream();
    let (mut first, mut body) = (None, Vec::new());
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.unwrap());
        first.get_or_insert_with(|| began.elapsed().as_secs_f64());
    }
    Answered { first: first.unwrap_or_default(), all: began.elapsed().as_secs_f64(), body }
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("{TABLE}/{path}")).body(Body::empty()).unwrap()
}

fn best(figures: impl IntoIterator<Item = f64>) -> f64 {
    figures.into_iter().fold(f64::MAX, f64::min)
}

async fn feed(root: &Path) {
    let (store, endpoint) = Store::serve(&long_log(root), DELAY).await;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let answered = ask(&cold(&endpoint), get("changes?startingVersion=0")).await;
        let lines = answered.body.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(lines, COMMITS + 2);
        runs.push((answered, store.requests()));
    }
    println!(
        "change data feed of {COMMITS} commits, cold, {} ms a request, {} requests: first line {:.0} ms (limit 300), \
         all {:.2} s (limit 3)",
        DELAY.as_millis(),
        runs[0].1,
        best(runs.iter().map(|(run, _)| run.first)) * 1e3,
        best(runs.iter().map(|(run, _)| run.all))
    );
}

async fn poll(root: &Path) {
    let (store, endpoint) = Store::serve(&long_log(root), DELAY).await;
    let router = cold(&endpoint);
    let first = ask(&router, get("version")).await;
    let opened = store.requests();
    let mut polls = Vec::new();
    for _ in 0..RUNS {
        polls.push(ask(&router, get("version")).await.all);
    }
    println!(
        "a poll of the version: {} request (limit 1), {:.0} ms; the first one {opened} requests, {:.0} ms",
        store.requests() / RUNS,
        best(polls) * 1e3,
        first.all * 1e3
    );
}

async fn pages(root: &Path) {
    let table = generate::table(root, FILES, generate::Layout::Mixed, false).unwrap();
    let (store, endpoint) = Store::serve(&table, Duration::ZERO).await;
    let query = |paging: String| {
        let body = format!("{{{paging}}}");
        Request::post(format!("{TABLE}/query")).body(Body::from(body)).unwrap()
    };
    let (mut whole, mut paged, mut requests) = (Vec::new(), Vec::new(), (0, 0));
    for _ in 0..RUNS {
        let answered = ask(&cold(&endpoint), query(String::new())).await;
        whole.push(answered.all);
        requests.0 = store.requests();
        let router = cold(&endpoint);
        let (mut token, mut files, began) = (None::<String>, 0, Instant::now());
        loop {
            let next = token.as_ref().map(|token| format!(r#","pageToken":"{token}""#)).unwrap_or_default();
            let answered = ask(&router, query(format!(r#""maxFiles":{PAGE}{next}"#))).await;
            let text = String::from_utf8(answered.body).unwrap();
            files += text.matches("{\"file\":").count();
            token = text
                .split_once("\"nextPageToken\":\"")
                .and_then(|(_, rest)| rest.split_once('"'))
                .map(|(token, _)| token.to_owned());
            if token.is_none() {
                break;
            }
        }
        assert_eq!(files, FILES);
        paged.push(began.elapsed().as_secs_f64());
        requests.1 = store.requests();
    }
    let (whole, paged) = (best(whole), best(paged));
    println!(
        "{FILES} files: whole {:.0} ms and {} requests to the store; in {} pages of {PAGE} {:.0} ms and {} requests, \
         {:.2} ms a page, {:.1} times the work",
        whole * 1e3,
        requests.0,
        FILES.div_ceil(PAGE),
        paged * 1e3,
        requests.1,
        paged * 1e3 / FILES.div_ceil(PAGE) as f64,
        paged / whole
    );
}
