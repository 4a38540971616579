//! Credentials as the AWS CLI finds them: those of a profile, a session or a role that is assumed expire, and are fetched
//! again before that. DynamoDB, S3 and STS are asked with the same ones.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_credential_types::Credentials as SdkCredentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use chrono::{DateTime, TimeDelta, Utc};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use tokio::sync::Mutex;

use super::no_credentials_error::no_credentials;
use super::presign::Credentials;
use crate::error::causes;

/// Credentials that have less left are fetched again, so that URLs live.
const LEFT: TimeDelta = TimeDelta::minutes(31);

/// The shortest time between two attempts while new credentials expire no later than the old ones.
const PAUSE: Duration = Duration::from_secs(60);

/// How long credentials are still good for a request.
const ENDING: TimeDelta = TimeDelta::seconds(20);

/// Where credentials come from, and the ones that came last.
#[derive(Clone)]
pub struct CredentialsCache(Arc<Shared>);

struct Shared {
    sdk: SharedCredentialsProvider,
    /// With when they were fetched. Held meanwhile, so that many requests fetch them once.
    current: Mutex<Option<(Instant, Credentials)>>,
}

impl fmt::Debug for CredentialsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsCache").finish_non_exhaustive()
    }
}

impl CredentialsCache {
    /// Nothing is fetched before it is needed.
    pub fn new(sdk: SharedCredentialsProvider) -> Self {
        Self(Arc::new(Shared { sdk, current: Mutex::new(None) }))
    }

    /// Credentials that are good now. The error says why there are none, with all its causes.
    pub async fn credentials(&self) -> Result<Credentials, String> {
        let mut current = self.0.current.lock().await;
        if let Some((fetched, credentials)) = &*current {
            let left = credentials.expires_at.map_or(TimeDelta::MAX, |ends| ends - Utc::now());
            if left > LEFT || (left > ENDING && fetched.elapsed() < PAUSE) {
                return Ok(credentials.clone());
            }
        }
        let now = Instant::now();
        match self.0.sdk.provide_credentials().await {
            Ok(fetched) => {
                let credentials = Credentials {
                    access_key_id: fetched.access_key_id().to_owned(),
                    secret_access_key: fetched.secret_access_key().to_owned(),
                    session_token: fetched.session_token().map(str::to_owned),
                    expires_at: fetched.expiry().map(DateTime::from),
                };
                Ok(current.insert((now, credentials)).1.clone())
            }
            Err(error) => {
                let reason = causes(&error);
                // The ones before may still do.
                if let Some((fetched, credentials)) = &mut *current
                    && credentials.expires_at.is_none_or(|ends| ends - Utc::now() > ENDING)
                {
                    tracing::warn!("the credentials of AWS cannot be renewed: {reason}");
                    *fetched = now;
                    return Ok(credentials.clone());
                }
                Err(reason)
            }
        }
    }

    /// The same credentials for object stores.
    pub(super) fn to_store(&self) -> AwsCredentialProvider {
        Arc::new(self.clone())
    }

    /// The same credentials for the AWS SDK.
    pub fn to_sdk(&self) -> SharedCredentialsProvider {
        let this = self.clone();
        SharedCredentialsProvider::new(provide_credentials_fn(move || {
            let this = this.clone();
            async move {
                let got = this.credentials().await.map_err(CredentialsError::provider_error)?;
                let Credentials { access_key_id, secret_access_key, session_token, expires_at } = got;
                let ends = expires_at.map(Into::into);
                Ok(SdkCredentials::new(access_key_id, secret_access_key, session_token, ends, "deltashare"))
            }
        }))
    }
}

#[async_trait]
impl CredentialProvider for CredentialsCache {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credentials = self.credentials().await.map_err(|reason| no_credentials(&reason))?;
        Ok(Arc::new(AwsCredential {
            key_id: credentials.access_key_id,
            secret_key: credentials.secret_access_key,
            token: credentials.session_token,
        }))
    }
}
