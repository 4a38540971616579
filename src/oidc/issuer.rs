//! An issuer: where its keys are found ("OpenID Connect Discovery"), and how long they are kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::ACCEPT;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use url::Url;

use super::jwt::{Claims, Jwt};
use super::keys::{Key, Refusal, Verified};
use crate::catalog::oidc::is_loopback_http;
use crate::error::{Error, Result, causes};

/// How old keys may be before they are fetched again: so long an issuer that withdraws a key waits for it.
const FRESH: TimeDelta = TimeDelta::hours(1);

/// How old keys may be if their issuer does not answer.
const OLDEST: TimeDelta = TimeDelta::hours(24);

/// How long an issuer is left alone after its keys were fetched, or could not be.
const PAUSE: TimeDelta = TimeDelta::seconds(10);

/// How long fetching the keys may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(3);

/// The largest configuration and the largest key set that are read. Those of large providers have a few kilobytes.
const LARGEST: usize = 256 << 10;

const NO_SUCH_KEY: Refusal = Refusal::Invalid("its issuer has no such key");

/// Where an issuer says what it is.
const CONFIGURATION: &str = ".well-known/openid-configuration";

/// What issuers are asked with. Redirects are not followed: a policy says who is asked.
pub(super) fn client() -> reqwest::Result<Client> {
    let agent = concat!("deltashare/", env!("CARGO_PKG_VERSION"));
    Client::builder().redirect(Policy::none()).connect_timeout(CONNECT).user_agent(agent).build()
}

/// An issuer that a policy names.
pub(super) struct Issuer {
    name: String,
    known: Mutex<Known>,
    /// Held while the keys are fetched.
    turn: tokio::sync::Mutex<()>,
}

/// What is known of an issuer.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) keys: Option<Arc<Vec<Key>>>,
    /// When they were fetched.
    pub(super) fetched: DateTime<Utc>,
    /// When fetching them was tried last.
    pub(super) tried: DateTime<Utc>,
    /// Whether that failed.
    pub(super) failed: bool,
}

impl Known {
    pub(super) fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        now - self.fetched < FRESH
    }

    pub(super) fn may_ask(&self, now: DateTime<Utc>) -> bool {
        // A clock that was set back must not keep the issuer from being asked.
        now - self.tried >= PAUSE || self.tried > now
    }

    pub(super) fn verify(&self, jwt: &Jwt<'_>, now: DateTime<Utc>) -> Verified {
        match &self.keys {
            Some(keys) if now - self.fetched < OLDEST => jwt.verify(keys, now),
            _ => Verified::UnknownKey,
        }
    }
}

impl Issuer {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), known: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a token is refused, as far as the keys that are known say it.
    pub(super) fn refusal(&self, jwt: &Jwt<'_>) -> Option<Refusal> {
        let (known, now) = (self.known().clone(), Utc::now());
        match known.verify(jwt, now) {
            Verified::Refused(refusal) => Some(refusal),
            // The issuer was asked for it just now.
            Verified::UnknownKey if !known.failed && !known.may_ask(now) => Some(NO_SUCH_KEY),
            Verified::Good(_) | Verified::UnknownKey => None,
        }
    }

    /// The claims of a token of this issuer. The keys are fetched if that of the token is not known, or if they are old,
    /// but not more often than every few seconds.
    pub(super) async fn verify(&self, jwt: &Jwt<'_>, client: &Client, loopback: bool) -> Result<Claims> {
        let known = self.known().clone();
        let verified = known.verify(jwt, Utc::now());
        let is_settled = !matches!(verified, Verified::UnknownKey);
        if is_settled && known.is_fresh(Utc::now()) {
            return self.claims(verified, &known);
        }
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            // Somebody else is fetching them, and the key is known.
            Err(_) if is_settled => return self.claims(verified, &known),
            Err(_) => self.turn.lock().await,
        };
        if self.known().may_ask(Utc::now()) {
            self.fetch(client, loopback).await;
        }
        drop(turn);
        let known = self.known().clone();
        self.claims(known.verify(jwt, Utc::now()), &known)
    }

    fn claims(&self, verified: Verified, known: &Known) -> Result<Claims> {
        match verified {
            Verified::Good(claims) => Ok(claims),
            Verified::Refused(refusal) => Err(refusal.into()),
            Verified::UnknownKey if known.failed => Err(Error::unavailable(
                "The issuer of the bearer token does not answer, so the token cannot be verified; try again later.",
            )
            .with_source(format!("the keys of {} could not be fetched", self.name))),
            Verified::UnknownKey => Err(NO_SUCH_KEY.into()),
        }
    }

    async fn fetch(&self, client: &Client, loopback: bool) {
        {
            let mut known = self.known();
            // As long as nothing else is known, also if whoever waits for it gives up.
            (known.tried, known.failed) = (Utc::now(), true);
        }
        let keys = tokio::time::timeout(DEADLINE, fetch_keys(&self.name, client, loopback)).await;
        let keys = keys.unwrap_or_else(|_| Err(format!("no answer within {} seconds", DEADLINE.as_secs())));
        match keys {
            Ok(keys) => {
                tracing::info!(
                    oidc.issuer = self.name,
                    keys = keys.len(),
                    "the keys of an OIDC issuer were fetched"
                );
                let mut known = self.known();
                (known.keys, known.fetched, known.failed) = (Some(Arc::new(keys)), Utc::now(), false);
            }
            Err(reason) => {
                tracing::warn!(
                    oidc.issuer = self.name,
                    reason,
                    "the keys of an OIDC issuer cannot be fetched"
                );
            }
        }
    }
}

/// What of the configuration of an issuer is read.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

async fn fetch_keys(issuer: &str, client: &Client, loopback: bool) -> Result<Vec<Key>, String> {
    let configuration = format!("{}/{CONFIGURATION}", issuer.trim_end_matches('/'));
    let configuration = get(&allowed(&configuration, loopback)?, client).await?;
    let configuration: Configuration = serde_json::from_slice(&configuration)
        .map_err(|error| format!("its configuration cannot be read: {error}"))?;
    if configuration.issuer != issuer {
        let other: String = configuration.issuer.chars().take(100).collect();
        return Err(format!("its configuration names the issuer {other:?}"));
    }
    // The configuration of an issuer elsewhere must not lead to this machine.
    let loopback = loopback && issuer.starts_with("http:");
    Key::read_all(&get(&allowed(&configuration.jwks_uri, loopback)?, client).await?)
}

/// A URL that may be asked: HTTPS, or HTTP at this machine if that is allowed.
fn allowed(url: &str, loopback: bool) -> Result<Url, String> {
    let shown: String = url.chars().take(200).collect();
    match Url::parse(url) {
        Ok(url) if url.scheme() == "https" || (loopback && is_loopback_http(&url)) => Ok(url),
        Ok(_) => Err(format!("{shown:?} is not https://")),
        Err(error) => Err(format!("{shown:?} is not a URL: {error}")),
    }
}

async fn get(url: &Url, client: &Client) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| format!("{url}: {}", causes(&error.without_url()));
    let mut response =
        client.get(url.clone()).header(ACCEPT, "application/json").send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(format!("{url} answered {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST {
            return Err(format!("{url} has more than {LARGEST} bytes"));
        }
    }
    Ok(body)
}
