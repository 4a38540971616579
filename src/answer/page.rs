//! How an answer is cut into pages, and what the next one needs to continue.
//!
//! A page token names the files of the log that the list was read from and a place in it, so any process can continue.
//! It also has a digest of the first two lines, which must be the same on every page.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::tokens::TableTokens;
use crate::delta::{ChangeBounds, ChangePosition, FileStats, Origin, SELECTION_RULES};
use crate::error::{Error, Result};
use crate::protocol::capabilities::{Capabilities, ResponseFormat};
use crate::protocol::digest::short_digest;
use crate::protocol::query::{Fingerprint, Paging};
use crate::protocol::tokens::Claims;

/// The most bytes of a page of an asynchronous query, unless one line is longer: it fits into the 6 MB that
/// Lambda buffers, with room for the last line.
const BUFFERED_BYTES: u64 = 4 * 1024 * 1024;

/// A place at which a page can begin.
pub trait Place: Serialize + DeserializeOwned {
    /// The name of its kind in tokens.
    const KIND: &'static str;
}

/// A place in the files of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct FilesPlace {
    /// The files of the log that the list was read from.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// How many files come before the page.
    #[serde(rename = "p")]
    pub position: u64,
    /// The number of files and their bytes, as the first page said.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<FileStats>,
    /// How many rows surely match the query's predicates in the files before the page.
    #[serde(rename = "l", default, skip_serializing_if = "is_zero")]
    pub rows: u64,
    /// Whether the pages before are of an answer that was refreshed, to which hints do not apply.
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub refreshed: bool,
    /// The [`SELECTION_RULES`] that positions were counted by.
    #[serde(rename = "s", default)]
    pub rules: u32,
}

impl FilesPlace {
    /// 400 if another version of this server counted the position by other rules.
    pub fn check_rules(&self) -> Result<()> {
        if self.rules == SELECTION_RULES {
            return Ok(());
        }
        Err(Error::invalid("The page token is from another version of the server. Please restart the query."))
    }
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
    /// What seals the token of the next page; `None` if the answer is whole.
    tokens: Option<(TableTokens, Fingerprint)>,
    /// The digest of the first page's head.
    head: Option<u64>,
    /// The form of the first page.
    format: Option<ResponseFormat>,
    /// The token that the client sent.
    token: Option<String>,
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
            token: None,
            files: 0,
            began: Utc::now(),
        }
    }

    /// A page as it is asked for. The answer is whole if no page is asked for.
    pub fn new(paging: &Paging, tokens: &TableTokens, fingerprint: Fingerprint) -> Self {
        if !paging.is_asked_for() {
            return Self::whole();
        }
        Self { most_bytes: u64::MAX, ..Self::buffered(paging, tokens, fingerprint) }
    }

    /// A page that may go through something that buffers answers.
    pub fn buffered(paging: &Paging, tokens: &TableTokens, fingerprint: Fingerprint) -> Self {
        let tokens = Some((tokens.clone(), fingerprint));
        let (most_files, token) = (paging.max_files.unwrap_or(u64::MAX), paging.page_token.clone());
        Self { most_files, most_bytes: BUFFERED_BYTES, tokens, token, ..Self::whole() }
    }

    /// Whether the answer may be one page of several, and so ends with an `endStreamAction`.
    pub fn is_one_of_several(&self) -> bool {
        self.tokens.is_some()
    }

    /// Where the page begins; `None` for the first one. 400 if the token is not one for this recipient,
    /// table and query, or has expired.
    pub fn begin<P: Place>(&mut self) -> Result<Option<P>> {
        let (Some(token), Some((tokens, fingerprint))) = (&self.token, &self.tokens) else {
            return Ok(None);
        };
        let (token, began): (PageToken<P>, _) = tokens.unseal_page(token)?;
        if token.fingerprint != *fingerprint {
            return Err(mismatch());
        }
        self.head = Some(token.head);
        self.format = Some(token.format);
        self.began = began;
        Ok(Some(token.place))
    }

    /// Takes the page for the first one of an answer that is refreshed, in a query that began at `began`.
    pub fn refreshes(&mut self, began: DateTime<Utc>) {
        self.began = began;
    }

    /// When the query began.
    pub fn began(&self) -> DateTime<Utc> {
        self.began
    }

    /// The form of the pages before; `None` for the first one. 400 if the client does not take it any more.
    pub fn format(&self, capabilities: &Capabilities) -> Result<Option<ResponseFormat>> {
        match self.format {
            Some(format) if !capabilities.accepts(format) => Err(mismatch()),
            format => Ok(format),
        }
    }

    /// Checks the first two lines. 400 if those of the first page were different.
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
        tokens.seal_page(&token, self.began)
    }
}

fn mismatch() -> Error {
    Error::invalid(
        "Query parameter mismatch detected for the next page query. The query parameter cannot change when querying the \
         next page results.",
    )
}
