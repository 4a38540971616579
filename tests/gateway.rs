//! The gateway answers what `Storage` signed, over TCP and as S3 does, and nothing else.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use deltashare::error::ErrorCode;
use deltashare::location::Location;
use deltashare::storage::{Gateway, S3Options, Storage, StorageOptions};
use url::Url;

/// A gateway on a TCP port, with the storage that signs for it.
struct Server {
    address: String,
    gateway: Arc<Gateway>,
    storage: Storage,
    tables: tempfile::TempDir,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Server {
    async fn start() -> Self {
        Self::start_at("", true).await
    }

    /// `path` is the base URL's; `strip` is whether a proxy before the gateway removes it.
    async fn start_at(path: &str, strip: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let gateway = Gateway::new(&Url::parse(&format!("http://{address}{path}")).unwrap());
        let serving = Arc::clone(&gateway);
        let prefix = if strip { path.trim_end_matches('/').to_owned() } else { String::new() };
        let router = Router::new().fallback(move |mut request: Request| {
            let serving = Arc::clone(&serving);
            let rest = request.uri().to_string();
            let stripped = rest.strip_prefix(&prefix).filter(|rest| rest.starts_with('/'));
            *request.uri_mut() = stripped.unwrap_or(&rest).parse().unwrap();
            async move { serving.serve(request, None).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let storage = Storage::new(StorageOptions {
            url_ttl: Duration::from_secs(60),
            gateway: Some(Arc::clone(&gateway)),
            s3: S3Options::default(),
            directory_role: None,
        });
        Self { address, gateway, storage, tables: tempfile::tempdir().unwrap() }
    }

    fn table(&self, name: &str) -> PathBuf {
        let directory = self.tables.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory.canonicalize().unwrap()
    }

    /// The URL of a file as the log names it.
    async fn sign(&self, table: &Path, log_path: &str) -> String {
        self.sign_at(table, log_path, Utc::now()).await
    }

    async fn sign_at(&self, table: &Path, log_path: &str, now: DateTime<Utc>) -> String {
        let mut url = Vec::new();
        let mut signer = self.storage.signer(&Location::Local(table.to_owned()), &[], now).await.unwrap();
        signer.presign(log_path, &mut url).unwrap();
        let url = String::from_utf8(url).unwrap();
        let parent = self.tables.path().file_name().unwrap().to_str().unwrap();
        assert!(!url.contains(parent) && !url.contains("sales-table"), "{url} shows the directory");
        url
    }

    async fn send(&self, method: &str, url: &str, headers: &str) -> Answer {
        let target = url.split_once("://").map_or(url, |(_, rest)| &rest[rest.find('/').unwrap()..]);
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n",
            self.address
        );
        let address = self.address.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            let head = String::from_utf8(answer[..end].to_vec()).unwrap();
            Answer { status: head[9..12].parse().unwrap(), head, body: answer[end + 4..].to_vec() }
        })
        .await
        .unwrap()
    }

    async fn get(&self, url: &str) -> Answer {
        self.send("GET", url, "").await
    }
}

fn write(table: &Path, path: &str, content: &[u8]) {
    let file = table.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

/// The path as a log writes it: everything but letters and digits encoded.
fn log_path(path: &str) -> String {
    path.split('/')
        .map(|segment| {
            percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string()
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn odd_names_are_served() {
    let server = Server::start().await;
    let table = server.table("sales-table");
    let long = format!("{}/{}.parquet", "d".repeat(240), "f".repeat(240));
    for path in [
        "part-0.parquet",
        "date=2024-01-01/part-0.parquet",
        "with space/a+b/c%20d/e%2Ff",
        "ts=2020-01-01 12%3A30%3A00/p:q",
        "naïve/日本語/🦀",
        "~*'\"\\!$&()[]{}|^`<>#?;,@",
        long.as_str(),
    ] {
        write(&table, path, path.as_bytes());
        let url = server.sign(&table, &log_path(path)).await;
        let answer = server.get(&url).await;
        assert_eq!((answer.status, answer.text()), (200, path.to_owned()), "{url}");
        assert_eq!(answer.header("content-length"), Some(path.len().to_string().as_str()));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert!(answer.header("etag").unwrap().starts_with('"'));
        assert!(answer.header("last-modified").unwrap().ends_with("GMT"));
    }
}

/// Some clients write the path with fewer escapes than the signature was made over.
#[tokio::test]
async fn a_path_encoded_otherwise_is_the_same_key() {
    let server = Server::start().await;
    let table = server.table("t");
    write(&table, "date=2024-01-01/a:b.parquet", b"x");
    let url = server.sign(&table, "date=2024-01-01/a%3Ab.parquet").await;
    assert!(url.contains("date%3D2024-01-01/a%3Ab.parquet"), "{url}");
    assert_eq!(server.get(&url.replacen("%3D", "=", 1).replacen("%3A", ":", 1)).await.status, 200);
    assert_eq!(server.get(&url.replacen("parquet", "%70arquet", 1)).await.status, 200);
}

#[tokio::test]
async fn ranges_are_answered_as_s3_does() {
    let server = Server::start().await;
    let table = server.table("t");
    // More than one chunk of the answer's stream.
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    write(&table, "x", &content);
    write(&table, "empty", b"");
    let url = server.sign(&table, "x").await;
    let size = content.len();

    let whole = server.get(&url).await;
    assert!(whole.status == 200 && whole.body == content);
    for (range, expected) in [
        ("0-0".to_owned(), 0..1),
        ("10-299999".to_owned(), 10..300_000),
        (format!("{}-", size - 8), size - 8..size),
        ("-8".to_owned(), size - 8..size),
        (format!("-{}", size + 5), 0..size),
        (format!("5-{}", size * 2), 5..size),
    ] {
        let answer = server.send("GET", &url, &format!("Range: bytes={range}\r\n")).await;
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == content[expected.clone()], "{range}");
        let content_range = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), Some(content_range.as_str()));
        assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
    }
    for range in [format!("{size}-"), format!("{}-{}", size + 1, size + 2), "-0".to_owned()] {
        let answer = server.send("GET", &url, &format!("Range: bytes={range}\r\n")).await;
        assert_eq!(answer.status, 416, "{range}");
        assert!(answer.text().contains("<Code>InvalidRange</Code>"), "{}", answer.text());
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{size}").as_str()));
    }
    let empty = server.sign(&table, "empty").await;
    assert_eq!(server.get(&empty).await.status, 200);
    assert_eq!(server.send("GET", &empty, "Range: bytes=0-\r\n").await.status, 416);
    assert_eq!(server.send("GET", &empty, "Range: bytes=-5\r\n").await.status, 416);
}

#[tokio::test]
async fn only_what_was_signed_is_answered() {
    let server = Server::start().await;
    let table = server.table("t");
    write(&table, "x", b"x");
    write(&table, "y", b"y");
    let url = server.sign(&table, "x").await;
    assert_eq!(server.get(&url).await.status, 200);

    let (path, query) = url.split_once('?').unwrap();
    let (unsigned, signature) = query.split_once("&X-Amz-Signature=").unwrap();
    let flipped = if signature.starts_with('0') { "1" } else { "0" };
    let other = server.sign(&table, "y").await;
    for tampered in [
        path.to_owned(),
        format!("{path}?{unsigned}"),
        format!("{path}?{unsigned}&X-Amz-Signature={flipped}{}", &signature[1..]),
        format!("{path}?{unsigned}&X-Amz-Signature="),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=604801"),
        url.replace("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        url.replace("/x?", "/y?"),
        url.replace("/x?", "/?"),
        format!("{url}&response-content-type=text/html"),
        format!("{url}&X-Amz-Expires=600"),
        format!("{path}?{}", other.split_once('?').unwrap().1),
    ] {
        let answer = server.get(&tampered).await;
        assert!(matches!(answer.status, 400 | 403), "{} for {tampered}", answer.status);
        assert!(answer.text().contains("<Error><Code>"), "{}", answer.text());
        assert!(!answer.text().contains(table.to_str().unwrap()), "{}", answer.text());
    }
    let authorization = "Authorization: Bearer abc\r\n";
    assert_eq!(server.send("GET", &url, authorization).await.status, 403);
}

#[tokio::test]
async fn a_get_url_is_good_for_nothing_but_get() {
    let server = Server::start().await;
    let table = server.table("t");
    write(&table, "x", b"x");
    let url = server.sign(&table, "x").await;
    let head = server.send("HEAD", &url, "").await;
    assert_eq!((head.status, head.body.len()), (403, 0));
    for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
        let answer = server.send(method, &url, "Content-Length: 0\r\n").await;
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(std::fs::read(table.join("x")).unwrap(), b"x");
    let bucket = url.split_once("local/").unwrap().0;
    let query = url.split_once('?').unwrap().1;
    assert_eq!(server.get(&format!("{bucket}local?list-type=2&{query}")).await.status, 403);
    assert_eq!(server.get(&format!("{bucket}local/?{query}")).await.status, 403);
}

#[tokio::test]
async fn urls_end_when_they_say() {
    let server = Server::start().await;
    let table = server.table("t");
    write(&table, "x", b"x");
    let now = Utc::now();
    let location = Location::Local(table.clone());
    let signer = server.storage.signer(&location, &[], now).await.unwrap();
    assert_eq!(signer.expiration_millis(), (now.timestamp() + 60) * 1000);
    let past = server.sign_at(&table, "x", now - TimeDelta::seconds(63)).await;
    let answer = server.get(&past).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("expired"), "{}", answer.text());
    let living = server.sign_at(&table, "x", now - TimeDelta::seconds(50)).await;
    assert_eq!(server.get(&living).await.status, 200);
}

#[tokio::test]
async fn links_lead_nowhere_outside() {
    let server = Server::start().await;
    let table = server.table("t");
    let sibling = server.table("t-evil");
    write(&table, "data/x", b"inside");
    write(&sibling, "secret", b"secret");
    for (link, target) in [
        ("inside", table.join("data/x")),
        ("file", sibling.join("secret")),
        ("directory", sibling.clone()),
        ("root", PathBuf::from("/")),
        ("relative", PathBuf::from("../t-evil/secret")),
        ("dangling", PathBuf::from("nowhere")),
        ("loop", PathBuf::from("loop")),
    ] {
        std::os::unix::fs::symlink(target, table.join(link)).unwrap();
    }
    let inside = server.get(&server.sign(&table, "inside").await).await;
    assert_eq!((inside.status, inside.text().as_str()), (200, "inside"));
    for path in [
        "file",
        "directory",
        "directory/secret",
        "root/etc/passwd",
        "relative",
        "dangling",
        "missing",
        "data/x/y",
    ] {
        let answer = server.get(&server.sign(&table, path).await).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("<Code>NoSuchKey</Code>"), "{}", answer.text());
    }
}

#[tokio::test]
async fn what_is_no_file_is_refused_without_waiting() {
    let server = Server::start().await;
    let table = server.table("t");
    write(&table, "data/x", b"x");
    assert!(std::process::Command::new("mkfifo").arg(table.join("pipe")).status().unwrap().success());
    std::os::unix::fs::symlink(table.join("pipe"), table.join("link")).unwrap();
    std::os::unix::fs::symlink("loop", table.join("loop")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(table.join("socket")).unwrap();
    for path in ["data", "pipe", "link", "loop", "socket"] {
        let answer = server.get(&server.sign(&table, path).await).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.text().contains("<Code>InvalidRequest</Code>"), "{}", answer.text());
        assert!(!answer.text().contains(table.to_str().unwrap()), "{}", answer.text());
    }
}

/// A directory that a link has taken the place of is another one.
#[tokio::test]
async fn a_directory_that_became_a_link_is_not_followed() {
    let server = Server::start().await;
    let (table, other) = (server.table("t"), server.table("other"));
    write(&table, "x", b"inside");
    write(&other, "x", b"secret");
    let url = server.sign(&table, "x").await;
    assert_eq!(server.get(&url).await.text(), "inside");
    std::fs::rename(&table, table.with_file_name("moved")).unwrap();
    std::os::unix::fs::symlink(&other, &table).unwrap();
    assert_eq!(server.get(&url).await.status, 404);
    std::fs::remove_file(&table).unwrap();
    write(&table, "x", b"made again");
    assert_eq!(server.get(&url).await.text(), "made again");
}

#[tokio::test]
async fn a_log_cannot_have_anything_else_signed() {
    let server = Server::start().await;
    let table = server.table("t");
    let source = server.table("source");
    let locations = [Location::Local(table.clone()), Location::Local(source.clone())];
    write(&source, "x", b"cloned");
    let mut signer = server.storage.signer(&locations[0], &locations[1..], Utc::now()).await.unwrap();
    let mut out = b"kept".to_vec();
    for path in [
        "../source/x".to_owned(),
        "%2e%2e/source/x".to_owned(),
        "/etc/passwd".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("file://{}-evil/x", source.display()),
        "s3://bucket/x".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "x%00".to_owned(),
        "x\r\ny".to_owned(),
        "x?y".to_owned(),
    ] {
        let error = signer.presign(&path, &mut out).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedOperation, "{path}");
        assert!(
            !error.message().contains("etc") && !error.message().contains("source"),
            "{}",
            error.message()
        );
        assert_eq!(out, b"kept");
    }
    for path in [format!("file:{}/x", source.display()), format!("{}/x", source.display())] {
        out.clear();
        signer.presign(&path, &mut out).unwrap();
        let answer = server.get(std::str::from_utf8(&out).unwrap()).await;
        assert_eq!(answer.text(), "cloned");
    }
}

#[tokio::test]
async fn a_directory_no_longer_shared_is_gone() {
    let server = Server::start().await;
    let (kept, dropped) = (server.table("kept"), server.table("dropped"));
    write(&kept, "x", b"x");
    write(&dropped, "x", b"x");
    let urls = [server.sign(&kept, "x").await, server.sign(&dropped, "x").await];
    server.gateway.retain(std::slice::from_ref(&kept));
    assert_eq!(server.get(&urls[0]).await.status, 200);
    assert_eq!(server.get(&urls[1]).await.status, 404);
    assert_eq!(server.sign(&kept, "x").await.split('?').next(), urls[0].split('?').next());
}

#[tokio::test]
async fn another_gateways_urls_are_refused() {
    let server = Server::start().await;
    let table = server.table("t");
    write(&table, "x", b"x");
    server.sign(&table, "x").await;
    let other = Storage::new(StorageOptions {
        url_ttl: Duration::from_secs(60),
        gateway: Some(Gateway::new(&Url::parse(&format!("http://{}", server.address)).unwrap())),
        s3: S3Options::default(),
        directory_role: None,
    });
    let mut url = Vec::new();
    let mut signer = other.signer(&Location::Local(table), &[], Utc::now()).await.unwrap();
    signer.presign("x", &mut url).unwrap();
    let answer = server.get(std::str::from_utf8(&url).unwrap()).await;
    assert_eq!(answer.status, 403);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn signatures_are_not_logged() {
    let server = Server::start().await;
    let table = server.table("t");
    write(&table, "x", b"x");
    let url = server.sign(&table, "x").await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    tracing::info!("a line");
    for (url, status) in [(url.clone(), StatusCode::OK), (url.replace("/x?", "/y?"), StatusCode::FORBIDDEN)] {
        let host = server.address.as_str();
        let request = Request::builder().uri(&url).header("host", host).body(Body::empty()).unwrap();
        assert_eq!(server.gateway.serve(request, None).await.status(), status);
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let signature = url.split_once("X-Amz-Signature=").unwrap().1;
    assert!(text.contains("a line") && !text.contains(signature) && !text.contains("signature"), "{text}");
}

#[tokio::test]
async fn a_base_path_may_be_removed_by_a_proxy_or_not() {
    for strip in [true, false] {
        let server = Server::start_at("/public/", strip).await;
        let table = server.table("t");
        write(&table, "a=b/x", b"x");
        let url = server.sign(&table, "a=b/x").await;
        assert!(url.contains("/public/deltashare-local/"), "{url}");
        assert_eq!(server.get(&url).await.status, 200, "strip: {strip}");
        let path = Url::parse(&url).unwrap().path().to_owned();
        assert!(server.gateway.owns(&path) && server.gateway.owns(path.strip_prefix("/public").unwrap()));
        for path in
            ["/", "/shares", "/deltashare-locals/x", "/public", "/public/shares", "/publicdeltashare-local/x"]
        {
            assert!(!server.gateway.owns(path), "{path}");
            assert_eq!(server.get(path).await.status, 404, "{path}");
        }
    }
}
