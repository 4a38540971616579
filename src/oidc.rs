//! Tokens of OpenID providers: JWTs that stand for a recipient by one of its policies.
//!
//! A token is verified with the keys that its issuer publishes, and only an issuer that a policy names is ever contacted.
//! Keys are kept: a token whose key is known is verified without its issuer. So an issuer that does not answer affects its
//! own recipients only, and of them those whose key is not known.

mod issuer;
mod jwt;
mod keys;
#[cfg(all(test, feature = "cli"))]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use reqwest::Client;

use crate::catalog::{Caller, Catalog, TokenHash, unknown_token};
use crate::error::{Error, Result};
use crate::protocol::names::Name;

use issuer::Issuer;
use jwt::Jwt;
pub use jwt::{LONGEST_JWT, may_be_jwt};
use keys::Refusal;

/// How many issuers have their keys kept.
const ISSUERS_KEPT: usize = 1000;

/// What verifies tokens of OpenID providers. One for each process.
#[derive(Default)]
pub struct Oidc {
    /// Whether issuers on this machine may be contacted by HTTP.
    loopback: bool,
    client: OnceLock<Client>,
    issuers: Mutex<HashMap<String, Arc<Issuer>>>,
}

impl Oidc {
    /// Nothing is contacted before a token needs it. With `loopback`, `http://` issuers on this machine are, for tests.
    pub fn new(loopback: bool) -> Self {
        Self { loopback, ..Self::default() }
    }

    /// Who a token stands for, if it is a JWT of an issuer that a policy names; otherwise it is for others to look up.
    ///
    /// 401 if it is not signed by that issuer, is not valid now, or meets no policy; also if it meets those of several
    /// recipients. 503 if the key of the token is not known and its issuer does not answer.
    pub async fn caller(&self, catalog: &dyn Catalog, token: &str) -> Result<Option<Caller>> {
        let Some(jwt) = Jwt::read(token) else { return Ok(None) };
        let known = self.issuers().get(&jwt.issuer).cloned();
        if let Some(refusal) = known.and_then(|issuer| issuer.refusal(&jwt)) {
            // Whoever forges tokens of an issuer whose keys are known causes no reads of the catalog.
            return Err(refusal.into());
        }
        let hash = TokenHash::of(token);
        let policies = catalog.oidc_policies(&jwt.issuer, hash).await?;
        if policies.is_empty() {
            return Ok(None);
        }
        let claims = self.issuer(&jwt.issuer).verify(&jwt, self.client()?, self.loopback).await?;
        let of_subject: Vec<_> =
            policies.into_iter().filter(|found| claims.has_subject(&found.policy)).collect();
        if of_subject.is_empty() {
            return Err(Refusal::Invalid("no policy has its subject").into());
        }
        let mut met = of_subject.into_iter().filter(|found| claims.has_audience(&found.policy));
        let policy = met.next().ok_or(Refusal::Invalid("it is for another audience"))?;
        let who = Name::key_of(&policy.recipient);
        if let Some(other) = met.find(|other| Name::key_of(&other.recipient) != who) {
            tracing::error!(
                oidc.issuer = jwt.issuer,
                oidc.policies = ?[policy.token_id(), other.token_id()],
                recipients = ?[&policy.recipient, &other.recipient],
                "a token meets OIDC policies of several recipients, so it is refused"
            );
            return Err(Refusal::Invalid("it meets policies of several recipients").into());
        }
        Ok(Some(catalog.oidc_caller(policy, hash)))
    }

    fn issuers(&self) -> MutexGuard<'_, HashMap<String, Arc<Issuer>>> {
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The issuer with this name, which a policy has.
    fn issuer(&self, name: &str) -> Arc<Issuer> {
        let mut issuers = self.issuers();
        if issuers.len() >= ISSUERS_KEPT && !issuers.contains_key(name) {
            issuers.clear();
        }
        Arc::clone(issuers.entry(name.to_owned()).or_insert_with(|| Arc::new(Issuer::new(name))))
    }

    /// What issuers are asked with.
    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = issuer::client().map_err(|error| Error::internal(crate::error::causes(&error)))?;
        Ok(self.client.get_or_init(|| client))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Expired => Self::unauthenticated(
                "The bearer token has expired; request a new one from your identity provider.",
            ),
            // The log says why. Whoever tries tokens learns nothing about policies.
            Refusal::Invalid(reason) => unknown_token().with_source(format!("the JWT is refused: {reason}")),
        }
    }
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("loopback", &self.loopback).finish_non_exhaustive()
    }
}
