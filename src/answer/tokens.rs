//! What a recipient is handed and hands back: page tokens, refresh tokens and the ids of queries. Each is sealed for
//! one recipient and one table, and nothing is kept that it does not say.

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::catalog::TableRecord;
use crate::error::{Error, Result};
use crate::protocol::query::{Fingerprint, TableQuery};
use crate::protocol::tokens::{Claims, InvalidToken, TokenKey};

/// How long a page token is valid. The URLs of the first page expire long before.
const PAGE_TOKEN_LIFE: TimeDelta = TimeDelta::days(3);

/// How long a refresh token is valid; each answer to one comes with a new one.
const REFRESH_TOKEN_LIFE: TimeDelta = TimeDelta::days(1);

/// Seals and unseals the tokens of one recipient for one table.
#[derive(Clone)]
pub struct TableTokens {
    key: TokenKey,
    bound_to: Vec<String>,
    /// How long after its first token a query has its last one.
    query_life: TimeDelta,
}

impl TableTokens {
    /// `query_life` is how long after its first token a query has its last one.
    pub fn new(key: TokenKey, recipient: &str, table: &TableRecord, query_life: TimeDelta) -> Self {
        let bound_to = [
            recipient,
            table.share.key(),
            table.schema.key(),
            table.name.key(),
            &table.id,
            table.settings.location.text(),
        ];
        let bound_to = bound_to.into_iter().map(str::to_owned);
        // A token counts only files that were shared, so it must not be used after the filter changes.
        Self { key, bound_to: bound_to.chain(table.access.identity()).collect(), query_life }
    }

    fn bound_to(&self) -> Vec<&str> {
        self.bound_to.iter().map(String::as_str).collect()
    }

    /// A token of a query that began at `began`.
    fn seal(&self, claims: &impl Claims, began: DateTime<Utc>, life: TimeDelta) -> Result<String> {
        let expires = (Utc::now() + life).min(began + self.query_life);
        self.key.seal(&self.bound_to(), claims, began, expires)
    }

    /// What a token says, and when its query began.
    fn unseal<C: Claims>(&self, token: &str) -> Result<(C, DateTime<Utc>), InvalidToken> {
        let now = Utc::now();
        let (claims, began) = self.key.unseal(token, &self.bound_to(), now)?;
        // The expiry may come from a time when queries were allowed to take longer.
        if began + self.query_life <= now { Err(InvalidToken::Expired) } else { Ok((claims, began)) }
    }

    /// The token of a page, in a query that began at `began`.
    pub(super) fn seal_page(&self, claims: &impl Claims, began: DateTime<Utc>) -> Result<String> {
        self.seal(claims, began, PAGE_TOKEN_LIFE)
    }

    /// What a page token says, and when its query began. 400 if the token is not one for this recipient and table, or
    /// has expired.
    pub(super) fn unseal_page<C: Claims>(&self, token: &str) -> Result<(C, DateTime<Utc>)> {
        self.unseal(token).map_err(|refused| {
            Error::invalid(match refused {
                InvalidToken::NotOurs => {
                    "Error decoding the page token: it was not made by this server for this recipient and table."
                }
                InvalidToken::Expired => "The page token has expired. Please restart the query.",
            })
        })
    }

    /// A token that asks for this version again, in a query that began at `began`.
    pub fn seal_refresh(&self, refresh: &RefreshClaims, began: DateTime<Utc>) -> Result<String> {
        self.seal(refresh, began, REFRESH_TOKEN_LIFE)
    }

    /// What a refresh token says, and when its query began. 400 if the token is not one for this recipient and
    /// table, or has expired.
    pub fn unseal_refresh(&self, token: &str) -> Result<(RefreshClaims, DateTime<Utc>)> {
        self.unseal(token).map_err(|refused| {
            Error::invalid(match refused {
                InvalidToken::NotOurs => {
                    "Error decoding refresh token: it was not made by this server for this recipient and table."
                }
                InvalidToken::Expired => "The refresh token has expired. Please restart the query.",
            })
        })
    }

    /// The id of an asynchronous query: the same one for the same query and idempotency key until the end of
    /// the next day.
    pub fn seal_query(&self, query: &QueryId) -> Result<String> {
        let today = Utc::now().with_time(NaiveTime::MIN).single().unwrap_or_else(Utc::now);
        self.key.seal(&self.bound_to(), query, today, today + TimeDelta::days(2))
    }

    /// 404 if the id is not one for this recipient and table, or has expired.
    pub fn unseal_query(&self, id: &str) -> Result<QueryId> {
        let opened = self.unseal(id).map(|(query, _)| query);
        opened.map_err(|_| Error::not_found("The query does not exist, or its id has expired."))
    }
}

/// What a refresh token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct RefreshClaims {
    /// The version that was read.
    #[serde(rename = "v")]
    pub version: u64,
    /// The id in the table's metadata: a table that was created again has another one.
    #[serde(rename = "t")]
    pub table: String,
}

impl Claims for RefreshClaims {
    const KIND: &'static str = "refresh";
}

/// What the id of an asynchronous query says: the whole query, so that nothing has to be remembered.
#[derive(Debug, Serialize, Deserialize)]
pub struct QueryId {
    /// What was asked.
    #[serde(rename = "q")]
    pub query: TableQuery,
    /// Tells it apart from others.
    #[serde(rename = "f")]
    pub fingerprint: Fingerprint,
    /// How the ids of its files are computed: the `fileidhash` header, if there was one.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub id_hash: Option<String>,
    /// A digest of the idempotency key.
    #[serde(rename = "k")]
    pub idempotency: u64,
}

impl Claims for QueryId {
    const KIND: &'static str = "query";
}
