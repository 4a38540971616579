//! The requests of a recipient.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use deltashare::protocol::capabilities::CAPABILITIES_HEADER;
use deltashare::protocol::profile::Profile;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::answer::QueryAnswer;
use super::finding::{Finding, Refusal, file_refused, unreachable};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);

/// How long nothing may come of an answer.
const SILENCE: Duration = Duration::from_secs(120);

/// How many bytes of an answer wait to be unpacked.
const WAITING: u32 = 64 * 1024 * 1024;

/// How many pages a list may have. With 500 entries on each, as servers send, that is more than two million.
const PAGES: usize = 5_000;

/// The largest page of a list.
const PAGE_BYTES: usize = 32 * 1024 * 1024;

/// The most bytes of all pages of a list.
const LIST_BYTES: usize = 512 * 1024 * 1024;

/// The largest answer for the metadata of a table.
const METADATA_BYTES: usize = 128 * 1024 * 1024;

/// As much is read of an answer that says what is wrong.
const ERROR_BYTES: usize = 64 * 1024;

/// What the newest clients declare, so that no table is refused which one of them can read.
const EVERYTHING: &str = "responseformat=delta,parquet;includeendstreamaction=true;readerfeatures=deletionvectors,\
     columnmapping,timestampntz,variantType,variantType-preview,variantShredding,variantShredding-preview,typeWidening,\
     typeWidening-preview,geospatial,geospatial-preview,v2Checkpoint,vacuumProtocolCheck";

/// A table by the names that the server gives.
#[derive(Clone)]
pub(super) struct Table {
    share: String,
    schema: String,
    name: String,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.share, self.schema, self.name)
    }
}

/// Where a file is read. It is a secret while it lives, so it has no `Debug`.
pub(super) struct FileUrl {
    pub(super) url: Url,
    pub(super) ends: Option<DateTime<Utc>>,
}

/// A piece of an answer that waits to be unpacked, and when it came.
struct Piece {
    bytes: bytes::Bytes,
    came: Instant,
    room: OwnedSemaphorePermit,
}

/// A page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct ListedTable {
    share: String,
    schema: String,
    name: String,
}

/// A client with the token of a profile.
pub(super) struct Recipient {
    client: Client,
    endpoint: String,
    host: String,
    token: String,
}

impl Recipient {
    pub(super) fn new(profile: Profile) -> Result<Self, Finding> {
        let bad = |what: &str| {
            let help =
                "The endpoint is the URL of the server with its prefix, such as https://HOST/delta-sharing/.";
            Finding::new("profile", what).help(help)
        };
        let url = Url::parse(&profile.endpoint).map_err(|_| bad("the endpoint is not a URL"))?;
        let host = match url.host_str() {
            Some(host) if matches!(url.scheme(), "http" | "https") => host.to_owned(),
            _ => return Err(bad("the endpoint is not an http:// or https:// URL")),
        };
        let token = profile.bearer_token;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let help = "deltashare token rotate RECIPIENT --profile FILE creates another token and writes its \
                        profile.";
            return Err(Finding::new(
                "profile",
                "the token is empty or has characters that no header can carry",
            )
            .help(help));
        }
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(Policy::none())
            .user_agent(concat!("deltashare-verify/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| {
                bad("no HTTP client can be created: the certificates of this machine cannot be read")
            })?;
        Ok(Self { client, endpoint: profile.endpoint.trim_end_matches('/').to_owned(), host, token })
    }

    /// The names of all shares, and the server's time.
    pub(super) async fn shares(&self) -> Result<(Vec<String>, Option<DateTime<Utc>>), Finding> {
        let answer = self.get("shares", "/shares", None, true).await?;
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        drop(answer);
        let shares: Vec<Named> = self.list("/shares").await?;
        Ok((shares.into_iter().map(|share| share.name).collect(), date.map(|date| date.with_timezone(&Utc))))
    }

    pub(super) async fn schemas(&self, share: &str) -> Result<Vec<String>, Finding> {
        let schemas: Vec<Named> = self.list(&format!("/shares/{}/schemas", segment(share))).await?;
        Ok(schemas.into_iter().map(|schema| schema.name).collect())
    }

    pub(super) async fn tables(&self, share: &str, schema: &str) -> Result<Vec<Table>, Finding> {
        self.tables_at(&format!("/shares/{}/schemas/{}/tables", segment(share), segment(schema))).await
    }

    pub(super) async fn all_tables(&self, share: &str) -> Result<Vec<Table>, Finding> {
        self.tables_at(&format!("/shares/{}/all-tables", segment(share))).await
    }

    async fn tables_at(&self, path: &str) -> Result<Vec<Table>, Finding> {
        let tables: Vec<ListedTable> = self.list(path).await?;
        let table = |ListedTable { share, schema, name }| Table { share, schema, name };
        Ok(tables.into_iter().map(table).collect())
    }

    /// The newest version of a table.
    pub(super) async fn version(&self, table: &Table) -> Result<u64, Finding> {
        let answer = self.get(&table.to_string(), &path(table, "version"), None, false).await?;
        let version = answer.headers().get("delta-table-version").and_then(|value| value.to_str().ok());
        version.and_then(|version| version.parse().ok()).ok_or_else(|| {
            Finding::new(table, "the answer has no header delta-table-version")
                .help("A proxy in between removes it; clients need it.")
        })
    }

    /// Reads the metadata: two lines with the protocol and the schema.
    pub(super) async fn metadata(&self, table: &Table) -> Result<(), Finding> {
        let about = table.to_string();
        let answer = self.get(&about, &path(table, "metadata"), Some(EVERYTHING), false).await?;
        let text = self.text(&about, answer, METADATA_BYTES).await?;
        let mut lines = text.lines().map(serde_json::from_str::<Value>);
        match (lines.next(), lines.next()) {
            (Some(Ok(protocol)), Some(Ok(metadata)))
                if protocol.get("protocol").is_some() && metadata.get("metaData").is_some() =>
            {
                Ok(())
            }
            _ => Err(Finding::new(table, "the answer for the metadata is not what clients read")
                .help("Something in between changes answers; ask the server directly.")),
        }
    }

    /// Whether a client that declares nothing can read the table.
    pub(super) async fn serves_every_client(&self, table: &Table) -> Result<bool, Finding> {
        let answer = self.send(&table.to_string(), Method::GET, &path(table, "metadata"), None, None).await?;
        Ok(answer.status() == StatusCode::OK)
    }

    /// Asks for every file of the table, and reads the answer as it comes.
    pub(super) async fn query(&self, table: &Table) -> Result<QueryAnswer, Finding> {
        let about = table.to_string();
        let began = Instant::now();
        let answer =
            self.send(&about, Method::POST, &path(table, "query"), Some(EVERYTHING), Some("{}")).await?;
        let mut answer = self.accepted(&about, answer, false).await?;
        let encoding = header(answer.headers(), CONTENT_ENCODING.as_str());
        // Unpacking is beside the way, so that the time of a piece is when it came.
        let (pieces, mut unpacked) = tokio::sync::mpsc::unbounded_channel::<Piece>();
        let reader = tokio::task::spawn_blocking(move || {
            let mut read = QueryAnswer::begin(encoding.as_deref(), began);
            while let Some(Piece { bytes, came, room }) = unpacked.blocking_recv() {
                read.take(&bytes, came);
                drop(room);
                // The other side stops sending.
                if read.is_too_large() {
                    break;
                }
            }
            read
        });
        let room = Arc::new(Semaphore::new(WAITING as usize));
        while let Some(bytes) =
            answer.chunk().await.map_err(|error| unreachable(&about, &self.host, &error))?
        {
            let came = Instant::now();
            let size = u32::try_from(bytes.len()).unwrap_or(WAITING).min(WAITING);
            let Ok(room) = Arc::clone(&room).acquire_many_owned(size).await else { break };
            if pieces.send(Piece { bytes, came, room }).is_err() {
                break;
            }
        }
        let ended = Instant::now();
        drop(pieces);
        let mut read = reader.await.map_err(|_| Finding::new(table, "the answer cannot be unpacked"))?;
        read.end(ended);
        Ok(read)
    }

    /// The first bytes of a file, without the token.
    pub(super) async fn first_bytes(&self, table: &Table, file: &FileUrl) -> Result<Vec<u8>, Finding> {
        let (about, host) = (table.to_string(), file.url.host_str().unwrap_or_default());
        let failed = |error: reqwest::Error| {
            let mut finding = unreachable(&about, host, &error);
            finding.help = "The recipient's network must reach S3 at this name, by HTTPS.".to_owned();
            finding
        };
        let request = self.client.get(file.url.clone()).header(RANGE, "bytes=0-3");
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        // What does not take the range answers with the whole file, of which the first chunk is enough.
        let wanted = if status < 300 { 4 } else { 4096 };
        let mut bytes = Vec::new();
        while bytes.len() < wanted
            && let Some(chunk) = answer.chunk().await.map_err(failed)?
        {
            bytes.extend_from_slice(&chunk);
        }
        match status {
            200 | 206 => Ok(bytes),
            _ => Err(file_refused(&about, status, host, &String::from_utf8_lossy(&bytes))),
        }
    }

    /// All pages of a list.
    async fn list<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<Vec<T>, Finding> {
        let (mut items, mut query, mut tokens) = (Vec::new(), String::new(), HashSet::new());
        let mut bytes = 0;
        for _ in 0..PAGES {
            let answer = self.get("shares", &format!("{path}{query}"), None, true).await?;
            let text = self.text("shares", answer, PAGE_BYTES).await?;
            bytes += text.len();
            if bytes > LIST_BYTES {
                let most = LIST_BYTES / (1024 * 1024);
                return Err(Finding::new("shares", format!("the list {path} has more than {most} MiB"))
                    .help(
                        "Share fewer tables in one share, or look at the server: its list may never end.",
                    ));
            }
            // An array of the values is an object to serde.
            let page = Some(text.as_str()).filter(|text| text.trim_start().starts_with('{'));
            let page: Page<T> = page.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| {
                Finding::new("shares", "what answers is not a Delta Sharing server: it sends no list").help(
                    "The endpoint of the profile must end with the server's prefix, such as \
                     https://HOST/delta-sharing/.",
                )
            })?;
            items.extend(page.items);
            let Some(token) = page.next_page_token.filter(|token| !token.is_empty()) else {
                return Ok(items);
            };
            query = format!("?pageToken={}", segment(&token));
            if !tokens.insert(token) {
                return Err(Finding::new("shares", format!("the list {path} never ends: a page token comes again"))
                    .help("Clients would request the same page forever. Something between the client and the server \
                           changes answers, or the server has an error."));
            }
        }
        Err(Finding::new("shares", format!("the list {path} has more than {PAGES} pages"))
            .help("Share fewer tables in one share, or look at the server: its list may never end."))
    }

    /// The text of an answer of at most so many bytes.
    async fn text(&self, about: &str, mut answer: Response, most: usize) -> Result<String, Finding> {
        let mut text = Vec::new();
        while let Some(piece) =
            answer.chunk().await.map_err(|error| unreachable(about, &self.host, &error))?
        {
            if text.len() + piece.len() > most {
                let what = format!("an answer of {} has more than {} MiB", self.host, most / (1024 * 1024));
                return Err(Finding::new(about, what)
                    .help("No server sends so much here: something else answers at the endpoint."));
            }
            text.extend_from_slice(&piece);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn get(
        &self,
        about: &str,
        path: &str,
        capabilities: Option<&str>,
        is_list: bool,
    ) -> Result<Response, Finding> {
        let answer = self.send(about, Method::GET, path, capabilities, None).await?;
        self.accepted(about, answer, is_list).await
    }

    async fn send(
        &self,
        about: &str,
        method: Method,
        path: &str,
        capabilities: Option<&str>,
        body: Option<&'static str>,
    ) -> Result<Response, Finding> {
        let mut request =
            self.client.request(method, format!("{}{path}", self.endpoint)).bearer_auth(&self.token);
        if let Some(capabilities) = capabilities {
            request = request.header(CAPABILITIES_HEADER, capabilities);
        }
        if let Some(body) = body {
            // Only the list of files is worth compressing.
            request =
                request.header(CONTENT_TYPE, "application/json").header(ACCEPT_ENCODING, "gzip").body(body);
        }
        request.send().await.map_err(|error| unreachable(about, &self.host, &error))
    }

    /// An answer that is good, or what it says is wrong.
    async fn accepted(&self, about: &str, mut answer: Response, is_list: bool) -> Result<Response, Finding> {
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let (status, request_id) = (answer.status().as_u16(), header(answer.headers(), "x-request-id"));
        let mut body = Vec::new();
        while body.len() < ERROR_BYTES
            && let Ok(Some(piece)) = answer.chunk().await
        {
            body.extend_from_slice(&piece);
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let code = text("errorCode").or_else(|| text("error_code"));
        let message = text("message").unwrap_or_default();
        Err(Refusal { status, code, message, request_id }.finding(about, is_list))
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn path(table: &Table, what: &str) -> String {
    let Table { share, schema, name } = table;
    format!("/shares/{}/schemas/{}/tables/{}/{what}", segment(share), segment(schema), segment(name))
}

fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}
