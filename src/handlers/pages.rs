//! How an answer is cut into pages, and what it takes to go on with the next one.
//!
//! A page token names the files of the log that the list was made from and a place in it, so any process can
//! go on; it holds a digest of the first two lines, which must be the same on every page.

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::auth::Recipient;
use crate::catalog::TableRecord;
use crate::delta::{ChangeBounds, ChangePosition, FileStats, Origin};
use crate::error::{Error, Result};
use crate::protocol::capabilities::{Capabilities, ResponseFormat};
use crate::protocol::digest::short_digest;
use crate::protocol::query::{Fingerprint, Paging, TableQuery};
use crate::protocol::tokens::{Claims, Refused, TokenKey};

/// How long a page token is good. URLs of the first page end long before.
const PAGE_TOKEN_LIFE: TimeDelta = TimeDelta::days(3);

/// How long a refresh token is good; each answer to one comes with a new one.
const REFRESH_TOKEN_LIFE: TimeDelta = TimeDelta::days(1);

/// The most bytes of a page of an asynchronous query, unless one line is longer: it fits into the 6 MB that
/// Lambda buffers, with room for the last line.
const BUFFERED_BYTES: u64 = 4 * 1024 * 1024;

/// What is handed to one recipient about one table, and taken back from no other.
#[derive(Clone)]
pub(super) struct Tokens {
    key: TokenKey,
    bound_to: [String; 6],
    /// How long after its first token a query has its last one.
    query_life: TimeDelta,
}

impl Tokens {
    pub(super) fn new(app: &App, recipient: &Recipient, table: &TableRecord) -> Self {
        let bound_to = [
            recipient.name(),
            table.share.key(),
            table.schema.key(),
            table.name.key(),
            &table.id,
            &table.location,
        ];
        let query_life = TimeDelta::seconds(app.limits.query_life_seconds.into());
        Self { key: app.token_key.clone(), bound_to: bound_to.map(str::to_owned), query_life }
    }

    fn bound_to(&self) -> [&str; 6] {
        self.bound_to.each_ref().map(String::as_str)
    }

    /// A token of a query that began at `began`.
    fn seal(&self, claims: &impl Claims, began: DateTime<Utc>, life: TimeDelta) -> Result<String> {
        let expires = (Utc::now() + life).min(began + self.query_life);
        self.key.seal(&self.bound_to(), claims, began, expires)
    }

    /// What a token says, and when its query began.
    fn open<C: Claims>(&self, token: &str) -> Result<(C, DateTime<Utc>), Refused> {
        let now = Utc::now();
        let (claims, began) = self.key.open(token, &self.bound_to(), now)?;
        // The expiry may come from a time when queries were allowed to go on for longer.
        if began + self.query_life <= now { Err(Refused::Expired) } else { Ok((claims, began)) }
    }

    /// A token that asks for this version again, in a query that began at `began`.
    pub(super) fn seal_refresh(&self, refresh: &Refresh, began: DateTime<Utc>) -> Result<String> {
        self.seal(refresh, began, REFRESH_TOKEN_LIFE)
    }

    /// What a refresh token says, and when its query began. 400 where the token is not one for this recipient and
    /// table, or has expired.
    pub(super) fn open_refresh(&self, token: &str) -> Result<(Refresh, DateTime<Utc>)> {
        self.open(token).map_err(|refused| {
            Error::invalid(match refused {
                Refused::NotOurs => {
                    "Error decoding refresh token: it was not made by this server for this recipient and table."
                }
                Refused::Expired => "The refresh token has expired. Please restart the query.",
            })
        })
    }

    /// The id of an asynchronous query: the same one for the same query and idempotency key until the end of
    /// the next day.
    pub(super) fn seal_query(&self, query: &QueryId) -> Result<String> {
        let today = Utc::now().with_time(NaiveTime::MIN).single().unwrap_or_else(Utc::now);
        self.key.seal(&self.bound_to(), query, today, today + TimeDelta::days(2))
    }

    /// 404 where the id is not one for this recipient and table, or has expired.
    pub(super) fn open_query(&self, id: &str) -> Result<QueryId> {
        let opened = self.open(id).map(|(query, _)| query);
        opened.map_err(|_| Error::not_found("The query does not exist, or its id has expired."))
    }
}

/// What a refresh token says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refresh {
    /// The version that was read.
    #[serde(rename = "v")]
    pub(super) version: u64,
    /// The id in the table's metadata: a table that was made anew is another one.
    #[serde(rename = "t")]
    pub(super) table: String,
}

impl Claims for Refresh {
    const KIND: &'static str = "refresh";
}

/// What the id of an asynchronous query says: the whole query, so that nothing has to be remembered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct QueryId {
    /// What was asked.
    #[serde(rename = "q")]
    pub(super) query: TableQuery,
    /// Tells it apart from others.
    #[serde(rename = "f")]
    pub(super) fingerprint: Fingerprint,
    /// How its files get their ids: the `fileidhash` header, where there was one.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub(super) id_hash: Option<String>,
    /// A digest of the idempotency key.
    #[serde(rename = "k")]
    pub(super) idempotency: u64,
}

impl Claims for QueryId {
    const KIND: &'static str = "query";
}

/// A place where a page may begin.
pub trait Place: Serialize + DeserializeOwned {
    /// The name of its kind in tokens.
    const KIND: &'static str;
}

/// A place in the files of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct FilesPlace {
    /// What the list was made from.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// How many files come before the page.
    #[serde(rename = "p")]
    pub position: u64,
    /// The number of files and their bytes, as the first page told them.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<FileStats>,
}

impl Place for FilesPlace {
    const KIND: &'static str = "files";
}

/// A place in the changes of a range.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChangesPlace {
    /// The range, as the first page found it.
    #[serde(rename = "b")]
    pub bounds: ChangeBounds,
    /// Where the page begins.
    #[serde(rename = "p")]
    pub position: ChangePosition,
    /// Whether removals are completed from what other actions say.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub completed: bool,
    /// The version whose metadata is in force there.
    #[serde(rename = "s")]
    pub metadata: u64,
    /// Whether the answer has the metadata of every version, asked for or not.
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    pub historical_metadata: bool,
}

impl Place for ChangesPlace {
    const KIND: &'static str = "changes";
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct PageToken<P: Place> {
    #[serde(flatten)]
    place: P,
    /// A digest of the first two lines.
    #[serde(rename = "h")]
    head: u64,
    /// The form of the first page, which need not be worked out again.
    #[serde(rename = "r")]
    format: ResponseFormat,
    #[serde(rename = "f")]
    fingerprint: Fingerprint,
}

impl<P: Place> Claims for PageToken<P> {
    const KIND: &'static str = P::KIND;
}

/// One page of an answer, or the whole of it.
pub struct Page {
    most_files: u64,
    most_bytes: u64,
    /// What the next page's token is made with; `None` where the answer is whole.
    tokens: Option<(Tokens, Fingerprint)>,
    /// The digest of the first page's head.
    head: Option<u64>,
    /// The form of the first page.
    format: Option<ResponseFormat>,
    files: u64,
    /// When the query began: with its first page, or with the answer that is refreshed.
    began: DateTime<Utc>,
}

impl Page {
    /// An answer without pages.
    pub fn whole() -> Self {
        Self {
            most_files: u64::MAX,
            most_bytes: u64::MAX,
            tokens: None,
            head: None,
            format: None,
            files: 0,
            began: Utc::now(),
        }
    }

    /// A page as it is asked for. The answer is whole where no page is.
    pub(super) fn new(paging: &Paging, tokens: &Tokens, fingerprint: Fingerprint) -> Self {
        if !paging.is_asked_for() {
            return Self::whole();
        }
        let tokens = Some((tokens.clone(), fingerprint));
        Self { most_files: paging.max_files.unwrap_or(u64::MAX), tokens, ..Self::whole() }
    }

    /// A page that may go through something that buffers answers.
    pub(super) fn buffered(paging: &Paging, tokens: &Tokens, fingerprint: Fingerprint) -> Self {
        let tokens = Some((tokens.clone(), fingerprint));
        let most_files = paging.max_files.unwrap_or(u64::MAX);
        Self { most_files, most_bytes: BUFFERED_BYTES, tokens, ..Self::whole() }
    }

    /// Whether the answer may be one page of several, and so ends with an `endStreamAction`.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.tokens.is_some()
    }

    /// Where the page begins; `None` for the first one. 400 where the token is not one for this recipient,
    /// table and query, or has expired.
    pub(super) fn begin<P: Place>(&mut self, paging: &Paging) -> Result<Option<P>> {
        let (Some(token), Some((tokens, fingerprint))) = (&paging.page_token, &self.tokens) else {
            return Ok(None);
        };
        let (token, began): (PageToken<P>, _) = tokens.open(token).map_err(|refused| {
            Error::invalid(match refused {
                Refused::NotOurs => {
                    "Error decoding the page token: it was not made by this server for this recipient and table."
                }
                Refused::Expired => "The page token has expired. Please restart the query.",
            })
        })?;
        if token.fingerprint != *fingerprint {
            return Err(mismatch());
        }
        self.head = Some(token.head);
        self.format = Some(token.format);
        self.began = began;
        Ok(Some(token.place))
    }

    /// Takes the page for the first one of an answer that is refreshed, in a query that began at `began`.
    pub(super) fn refreshes(&mut self, began: DateTime<Utc>) {
        self.began = began;
    }

    /// When the query began.
    pub(super) fn began(&self) -> DateTime<Utc> {
        self.began
    }

    /// The form of the pages before; `None` for the first one. 400 if the client does not take it any more.
    pub(super) fn format(&self, capabilities: &Capabilities) -> Result<Option<ResponseFormat>> {
        match self.format {
            Some(format) if !capabilities.accepts(format) => Err(mismatch()),
            format => Ok(format),
        }
    }

    /// Takes note of the first two lines. 400 where those of the first page were others.
    pub(super) fn check_head(&mut self, head: &[Vec<u8>; 2]) -> Result<()> {
        let digest = short_digest(&head.join(&b'\n'));
        match self.head.replace(digest) {
            Some(first) if first != digest => Err(Error::invalid(
                "The table or its share was changed since the first page. Please restart the query.",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a file.
    pub(super) fn count(&mut self) {
        self.files += 1;
    }

    /// How many files the page has.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Whether the page has what it may have; `bytes` is the size of its lines.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        self.files >= self.most_files || (self.files > 0 && bytes >= self.most_bytes)
    }

    /// The token of the page that begins at `place`, after one in this form.
    pub(super) fn next_token<P: Place>(&self, format: ResponseFormat, place: P) -> Result<String> {
        let (Some((tokens, fingerprint)), Some(head)) = (&self.tokens, self.head) else {
            return Err(Error::internal("a whole answer has no next page"));
        };
        let token = PageToken { place, head, format, fingerprint: *fingerprint };
        tokens.seal(&token, self.began, PAGE_TOKEN_LIFE)
    }
}

fn mismatch() -> Error {
    Error::invalid(
        "Query parameter mismatch detected for the next page query. The query parameter cannot change when querying the \
         next page results.",
    )
}
