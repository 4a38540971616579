//! Requests, as text: `METHOD PATH`, headers, an empty line and a body. What the server signed stands in them as `<page>`,
//! `<refresh>`, `<query>` and `<file>`, a recipient's token as `<token>`, or as `<basic>` the way that `Basic` has it. After
//! `<jwt>`, the rest of a line is the parts of a JWT before encoding, separated by `<.>`.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use deltashare::app::App;
use deltashare::catalog::TokenHash;
use deltashare::catalog::share_file::{ShareFile, ShareFileCatalog};
use deltashare::http::router;
use deltashare::limits::Limits;
use deltashare::protocol::tokens::TokenKey;
use deltashare::storage::{Gateway, S3Options, Storage, StorageOptions};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;
use url::Url;

use super::RUNTIME;

const TOKEN: &str = "dss_0123456789abcdef0123456789abcdef0123456789a";
const TABLE: &str = "/delta-sharing/shares/s/schemas/d/tables/t";
/// The id of what no recipient is granted.
const HIDDEN: &str = "c0ffee00-0000-4000-8000-000000000000";

/// A server, and what stands for what in requests to it.
struct Server {
    router: Router,
    words: Vec<(&'static str, String)>,
}

struct Answer {
    status: u16,
    /// Whether it is a page for browsers, which needs no token. No other answer is HTML.
    is_page: bool,
    body: Vec<u8>,
}

/// The example tables, for everyone.
static OPEN: LazyLock<Server> = LazyLock::new(|| Server::new("authorization: none\n"));

/// An issuer that does not answer.
const ISSUER: &str = "https://127.0.0.1:1";

/// The example tables, for one recipient with a token and one with an OIDC policy, without what they are not granted.
static CLOSED: LazyLock<Server> = LazyLock::new(|| {
    Server::new(&format!(
        "recipients:\n- name: r\n  shares: [s]\n  tokens:\n  - {{sha256: {}, expires: never}}\n- name: f\n  shares: [s]\n  \
         oidc:\n  - {{issuer: '{ISSUER}', subjectClaim: sub, subject: x, audiences: [a]}}\n",
        TokenHash::of(TOKEN).to_hex()
    ))
});

/// The files of the example table, with all that a recipient may read of it.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut directories = vec![orders().to_owned()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => files.push(std::fs::read(path).unwrap()),
            }
        }
    }
    files
});

fn orders() -> &'static Path {
    static ORDERS: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
        let below = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        below
            .map(|directory| directory.join("examples/tables/orders"))
            .find(|orders| orders.is_dir())
            .unwrap()
    });
    &ORDERS
}

impl Server {
    fn new(access: &str) -> Self {
        let location = orders().display();
        let shares = format!(
            "version: 1\n{access}shares:\n- name: s\n  schemas:\n  - name: d\n    tables:\n    - name: t\n      location: {location}\n      \
             historyShared: true\n- name: hidden\n  id: {HIDDEN}\n  schemas:\n  - name: d\n    tables:\n    - name: t\n      \
             location: {location}\n      id: {HIDDEN}\n"
        );
        let file = ShareFile::parse(&shares, Some(Path::new("/"))).unwrap();
        let storage = Storage::new(StorageOptions {
            url_ttl: Duration::from_secs(3600),
            gateway: Some(Gateway::new(&Url::parse("http://127.0.0.1:1").unwrap())),
            s3: S3Options::default(),
            directory_role: None,
        });
        let catalog = Arc::new(ShareFileCatalog::new(file));
        let key = TokenKey::new(&[7; 32]);
        let app = App::new(catalog, storage, key, "/delta-sharing", Limits::default());
        let mut this = Self { router: router(Arc::new(app)), words: Vec::new() };
        this.words = this.signed();
        this
    }

    /// What it signs, found by asking for it.
    fn signed(&self) -> Vec<(&'static str, String)> {
        let answer = |headers: &str, body: &str| {
            let request = format!("POST {TABLE}/query\nauthorization: Bearer {TOKEN}\n{headers}\n\n{body}");
            let answer = self.ask(request.as_bytes()).unwrap();
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            let lines: Vec<Value> = serde_json::Deserializer::from_slice(&answer.body)
                .into_iter()
                .collect::<Result<_, _>>()
                .unwrap();
            lines
        };
        let text = |lines: &[Value], path: &str| {
            lines.iter().find_map(|line| line.pointer(path)?.as_str()).unwrap().to_owned()
        };
        let page = answer("", r#"{"maxFiles":1}"#);
        let end = "delta-sharing-capabilities: includeendstreamaction=true";
        let refresh = answer(end, r#"{"includeRefreshToken":true}"#);
        let query = answer("delta-sharing-capabilities: asyncquery=true", "{}");
        let file = text(&page, "/file/url").replace("http://127.0.0.1:1", "");
        vec![
            ("<page>", text(&page, "/endStreamAction/nextPageToken")),
            ("<refresh>", text(&refresh, "/endStreamAction/refreshToken")),
            ("<query>", text(&query, "/queryStatus/queryId")),
            ("<file>", file),
            ("<token>", TOKEN.to_owned()),
            ("<basic>", STANDARD.encode(format!("user:{TOKEN}"))),
        ]
    }

    fn word(&self, name: &str) -> &str {
        &self.words.iter().find(|(word, _)| *word == name).unwrap().1
    }

    /// The request with what its words stand for.
    fn filled(&self, input: &[u8]) -> Vec<u8> {
        let mut request = Vec::with_capacity(input.len());
        let mut rest = input;
        while let Some((&byte, after)) = rest.split_first() {
            match self.words.iter().find(|(word, _)| rest.starts_with(word.as_bytes())) {
                Some((word, text)) => {
                    request.extend_from_slice(text.as_bytes());
                    rest = &rest[word.len()..];
                }
                None => {
                    request.push(byte);
                    rest = after;
                }
            }
        }
        request
    }

    /// The answer to a request; `None` if this is no request.
    fn ask(&self, request: &[u8]) -> Option<Answer> {
        let (head, body) = head_and_body(request);
        let mut lines = head.split(|&byte| byte == b'\n');
        let mut first = lines.next()?.splitn(2, |&byte| byte == b' ');
        let mut request = Request::builder().method(first.next()?).uri(first.next()?);
        for line in lines.filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|&byte| byte == b':')?;
            request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
        }
        let request = request.body(Body::from(body.to_vec())).ok()?;
        RUNTIME.block_on(async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let status = answer.status().as_u16();
            let content_type = answer.headers().get(CONTENT_TYPE);
            let is_page =
                content_type.is_some_and(|content_type| content_type.as_bytes().starts_with(b"text/html"));
            let body = answer.into_body().collect().await;
            Some(Answer {
                status,
                is_page,
                body: body.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
            })
        })
    }
}

/// The request with its JWTs encoded.
fn with_jwts(request: &[u8]) -> Vec<u8> {
    let lines = request.split(|&byte| byte == b'\n').map(|line| {
        let Some(start) = line.windows(5).position(|part| part == b"<jwt>") else { return line.to_vec() };
        let parts = String::from_utf8_lossy(&line[start + 5..]).into_owned();
        let parts: Vec<String> = parts.split("<.>").map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        [&line[..start], parts.join(".").as_bytes()].concat()
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

fn head_and_body(request: &[u8]) -> (&[u8], &[u8]) {
    match request.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&request[..end], &request[end + 2..]),
        None => (request, &[]),
    }
}

/// What a word is the Base64 of, with its padding or without, as text; empty if it is none.
fn from_base64(word: &str) -> String {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let decoded = LENIENT.decode(word).unwrap_or_default();
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Whether a word is a JWT that names the issuer of the policy, or has one as `Basic` has a token.
fn names_issuer(head: &str) -> bool {
    let is_named = |word: &str| {
        let payload = word.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
        let payload = payload.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
        payload.is_some_and(|payload| payload["iss"] == ISSUER)
    };
    head.split(char::is_whitespace).any(|word| {
        let basic = from_base64(word);
        is_named(word) || basic.split_once(':').is_some_and(|(_, password)| is_named(password))
    })
}

/// Requests to a server that asks for no token. No request is the server's fault; what it signed is taken as it is or not at
/// all; and a URL for a file leads to the files of the table only.
pub fn requests(input: &[u8]) {
    let server = &*OPEN;
    let request = server.filled(input);
    let Some(answer) = server.ask(&request) else { return };
    let Answer { status, body: answered, .. } = answer;
    assert!(status < 500, "{status}: {}", String::from_utf8_lossy(&answered));
    let (head, body) = head_and_body(&request);
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if line.starts_with(b"GET /deltashare-local") && matches!(status, 200 | 206) && !answered.is_empty() {
        let known = |file: &Vec<u8>| file.windows(answered.len()).any(|part| part == answered);
        assert!(FILES.iter().any(known), "this is of no file of the table");
    }
    if line.starts_with(b"POST ") && line.ends_with(b"/query") && status == 200 {
        let sent = serde_json::from_slice::<Value>(body).unwrap_or_default();
        for (field, word) in [("pageToken", "<page>"), ("refreshToken", "<refresh>")] {
            if let Some(sent) = sent.get(field).and_then(Value::as_str) {
                let token = sent.trim_end_matches('=');
                assert!(token.is_empty() || token == server.word(word), "{field} {sent} is taken");
            }
        }
    }
}

/// Requests to a server that asks for tokens: except for the pages for browsers, nothing is answered without a token of a
/// recipient, and what is not granted does not occur in any answer. The only 5xx is 503, for a JWT whose issuer does not answer.
pub fn tokens(input: &[u8]) {
    let server = &*CLOSED;
    let request = with_jwts(&server.filled(input));
    let Some(Answer { status, is_page, body }) = server.ask(&request) else { return };
    let body = String::from_utf8_lossy(&body);
    let (head, _) = head_and_body(&request);
    let head = String::from_utf8_lossy(head);
    assert!(status < 500 || (status == 503 && names_issuer(&head)), "{status}: {body}");
    assert!(!body.contains(HIDDEN) || head.contains(HIDDEN), "{body}");
    if is_page {
        return;
    }
    let path = head.lines().next().unwrap_or_default();
    if status < 300 && !path.contains("health") && !path.contains("/deltashare-local") {
        let has_token = |word: &str| word.contains(TOKEN) || from_base64(word).contains(TOKEN);
        assert!(head.split_whitespace().any(has_token), "{status}: {body}");
    }
}
