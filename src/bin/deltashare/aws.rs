//! AWS with the credentials of a person or a machine: whatever the AWS CLI takes, for DynamoDB, S3 and STS alike.

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::default_provider::token::DefaultTokenChain;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use deltashare::catalog::dynamodb::Writer;
use deltashare::storage::{CredentialsCache, S3Options};

use super::Failure;
use super::arguments::Common;
use super::shell::option;

/// How AWS is reached, and with what.
pub(crate) struct Aws {
    /// For DynamoDB and other clients of the SDK.
    pub(crate) sdk: SdkConfig,
    /// For tables in S3, and the roles that are assumed for them.
    pub(crate) s3: S3Options,
    provider: Option<CredentialsCache>,
}

impl Aws {
    /// Reads the environment and the files of the AWS CLI. The network is asked for nothing before it is needed.
    pub(crate) async fn load() -> Result<Self, Failure> {
        // The instance is not asked for its region, which takes seconds if there is none. Each chain would ask by itself.
        let region = || {
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
        };
        let credentials = DefaultCredentialsChain::builder().region(region()).build().await;
        let tokens = DefaultTokenChain::builder().region(region()).build().await;
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(region());
        Self::new(loader.credentials_provider(credentials).token_provider(tokens)).await
    }

    async fn new(loader: ConfigLoader) -> Result<Self, Failure> {
        let mut s3 = S3Options::from_env(|name| std::env::var(name).ok()).map_err(Failure::usage)?;
        let sdk = loader.load().await;
        let provider = sdk.credentials_provider().map(CredentialsCache::new);
        let mut sdk = sdk.into_builder();
        if let Some(provider) = &provider {
            sdk.set_credentials_provider(Some(provider.to_sdk()));
        }
        let sdk = sdk.build();
        s3.provider.clone_from(&provider);
        // A profile may name both, which the environment would.
        if let Some(region) = sdk.region() {
            region.as_ref().clone_into(&mut s3.home_region);
            s3.region = s3.endpoint.is_some().then(|| s3.home_region.clone());
        }
        Ok(Self { sdk, s3, provider })
    }

    /// The catalog in DynamoDB.
    pub(crate) fn writer(&self, common: &Common) -> Writer {
        Writer::new(aws_sdk_dynamodb::config::Builder::from(&self.sdk), &common.dynamodb_table)
    }

    /// The same if AWS is asked in any case, so that an expired session is noticed first.
    pub(crate) async fn signed_in() -> Result<Self, Failure> {
        let aws = Self::new(aws_config::defaults(BehaviorVersion::v2026_01_12())).await?;
        if aws.sdk.region().is_none() {
            return Err(Failure::usage(
                "no AWS region is set: set AWS_REGION, or region in the profile of the AWS CLI",
            ));
        }
        if let Some(provider) = &aws.provider {
            provider.credentials().await.map_err(|reason| Failure::failed(no_credentials(&reason)))?;
        }
        Ok(aws)
    }
}

/// Why there are no credentials, and what to do. `reason` is what the SDK says, with all its causes.
fn no_credentials(reason: &str) -> String {
    let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    let option = option("--profile", "--profile", &profile);
    let text = reason.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["login/cache", "login token", "signin", "please reauthenticate", "login session"]) {
        return format!(
            "the AWS session of profile '{profile}' has expired: sign in with aws login {option}"
        );
    }
    if says(&["sso"])
        && says(&["expired", "unauthorized", "cached", "no such file", "not found", "failed to load"])
    {
        return format!(
            "the AWS SSO session of profile '{profile}' has expired: sign in with aws sso login {option}"
        );
    }
    if says(&["expiredtoken", "token included in the request is expired"]) {
        return format!("{SESSION_ENDED}: sign in again, or set new keys");
    }
    if says(&["assumerole"]) && says(&["accessdenied", "not authorized"]) {
        return format!("the role of profile '{profile}' cannot be assumed with its credentials: {reason}");
    }
    if says(&["no providers in chain", "no credentials in"]) {
        return "no AWS credentials are set: run aws configure, aws sso login or aws login, name a profile with \
                AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            .to_owned();
    }
    format!("the AWS credentials of profile '{profile}' cannot be loaded: {reason}")
}

const SESSION_ENDED: &str = "the AWS session has expired";

/// What AWS says of expired credentials, as a sentence; anything else as it is.
pub(crate) fn explain(message: String) -> String {
    let ended = ["ExpiredToken", "security token included in the request is expired", "RequestExpired"];
    if ended.iter().any(|text| message.contains(text)) && !message.contains(SESSION_ENDED) {
        return format!(
            "{SESSION_ENDED}: sign in again with aws sso login or aws login, or set new keys ({message})"
        );
    }
    message
}
