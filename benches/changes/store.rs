//! A stand-in for S3 on loopback: one bucket over a directory, read-only, slow on purpose, that counts requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use url::Url;

/// The bucket's name.
pub(crate) const BUCKET: &str = "bench";

pub(crate) struct Store {
    root: PathBuf,
    delay: Duration,
    requests: AtomicUsize,
}

impl Store {
    /// Serves `root`, each request `delay` after it came: the store and its endpoint.
    pub(crate) async fn serve(root: &Path, delay: Duration) -> (Arc<Self>, Url) {
        let store = Arc::new(Self { root: root.to_owned(), delay, requests: AtomicUsize::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&store));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (store, endpoint)
    }

    /// How many requests there were since the last call.
    pub(crate) fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    /// `ListObjectsV2`, a thousand keys at a time.
    fn list(&self, query: &[(String, String)]) -> String {
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let prefix = get("prefix").unwrap_or_default();
        let after = get("continuation-token").or_else(|| get("start-after")).unwrap_or_default();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.root.join(prefix)).unwrap() {
            let entry = entry.unwrap();
            let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_file() && key.as_str() > after {
                files.push((key, entry.metadata().unwrap().len()));
            }
        }
        files.sort();
        let more = files.len() > 1000;
        files.truncate(1000);
        let mut xml = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
        if let Some((last, _)) = files.last().filter(|_| more) {
            xml += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
        }
        for (key, size) in files {
            xml += &format!(
                "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>e</ETag>\
                 <LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            );
        }
        xml + "</ListBucketResult>"
    }
}

async fn answer(State(store): State<Arc<Store>>, request: Request) -> Response {
    store.requests.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(store.delay).await;
    let query: Vec<_> = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    let dated = Response::builder().header(header::LAST_MODIFIED, "Mon, 01 Jan 2024 00:00:00 GMT");
    if query.iter().any(|(key, _)| key == "list-type") {
        return dated.body(Body::from(store.list(&query))).unwrap();
    }
    let key = request.uri().path().trim_start_matches('/').strip_prefix(BUCKET).unwrap_or_default();
    let Ok(bytes) = std::fs::read(store.root.join(key.trim_start_matches('/'))) else {
        return dated
            .status(StatusCode::NOT_FOUND)
            .body(Body::from("<Error><Code>NoSuchKey</Code></Error>"))
            .unwrap();
    };
    let range =
        request.headers().get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let dated = dated.header(header::ETAG, "e");
    let Some((start, end)) = range.and_then(|range| range.split_once('-')) else {
        return dated.body(Body::from(bytes)).unwrap();
    };
    let size = bytes.len();
    let (start, end) = match (start.parse::<usize>(), end.parse::<usize>()) {
        (Ok(start), Ok(end)) => (start, (end + 1).min(size)),
        (Ok(start), Err(_)) => (start, size),
        (Err(_), Ok(last)) => (size.saturating_sub(last), size),
        (Err(_), Err(_)) => (0, size),
    };
    dated
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1))
        .body(Body::from(bytes[start..end].to_vec()))
        .unwrap()
}
