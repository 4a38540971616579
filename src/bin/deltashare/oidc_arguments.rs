//! Arguments about OIDC policies, and about profiles for recipients that have them.

use std::path::PathBuf;

use clap::Args;
use deltashare::catalog::oidc::{DEFAULT_CLAIM, OidcPolicy};

use super::Failure;

/// The heading of these arguments.
const HEADING: &str = "OIDC options";

/// A policy: which tokens of which OpenID provider stand for a recipient.
#[derive(Args)]
pub(crate) struct OidcPolicyOptions {
    /// The issuer of the recipient's tokens, exactly as their claim iss has it, such as https://idp.example.com. The recipient
    /// then needs no token of this server.
    #[arg(long, value_name = "URL", help_heading = HEADING, requires_all = ["oidc_subject", "oidc_audience"])]
    oidc_issuer: Option<String>,
    /// The claim that identifies the recipient, such as azp for the client ID of an application, or groups.
    #[arg(long, value_name = "CLAIM", help_heading = HEADING, requires = "oidc_issuer", default_value = DEFAULT_CLAIM)]
    oidc_subject_claim: String,
    /// The value of this claim. If the claim is a list, one of its values.
    #[arg(long, value_name = "VALUE", help_heading = HEADING, requires = "oidc_issuer")]
    oidc_subject: Option<String>,
    /// An audience (claim aud) that the tokens are issued for. Repeat the option for several, of which a token needs one.
    #[arg(long, value_name = "AUDIENCE", help_heading = HEADING, requires = "oidc_issuer")]
    oidc_audience: Vec<String>,
}

impl OidcPolicyOptions {
    /// The policy, if there is one.
    pub(crate) fn policy(self) -> Result<Option<OidcPolicy>, Failure> {
        let Self { oidc_issuer, oidc_subject_claim, oidc_subject, oidc_audience } = self;
        let (Some(issuer), Some(subject)) = (oidc_issuer, oidc_subject) else { return Ok(None) };
        let audiences = oidc_audience.into_iter().collect();
        let policy = OidcPolicy { issuer, subject_claim: oidc_subject_claim, subject, audiences };
        policy.check().map_err(|reason| Failure::usage(format!("the OIDC policy is invalid: {reason}")))?;
        Ok(Some(policy))
    }
}

/// What a profile for the tokens of an OpenID provider has.
#[derive(Args)]
pub(crate) struct OidcProfileOptions {
    /// The token endpoint of the OpenID provider. The profile then has no token: clients get tokens there, with the client ID
    /// and the client secret of the recipient ("client credentials").
    #[arg(
        long,
        value_name = "URL",
        help_heading = HEADING,
        requires = "oidc_client_id",
        conflicts_with = "token_file"
    )]
    pub(crate) oidc_token_endpoint: Option<url::Url>,
    /// The client ID of the recipient at the OpenID provider.
    #[arg(long, value_name = "ID", help_heading = HEADING, requires = "oidc_token_endpoint")]
    pub(crate) oidc_client_id: Option<String>,
    /// The scope to request tokens for, if the OpenID provider needs one.
    #[arg(long, value_name = "SCOPE", help_heading = HEADING, requires = "oidc_token_endpoint")]
    pub(crate) oidc_scope: Option<String>,
    /// The file with the client secret, or - for standard input. Only the recipient has it. Default: a placeholder that the
    /// recipient replaces.
    #[arg(long, value_name = "FILE", help_heading = HEADING, requires = "oidc_token_endpoint")]
    pub(crate) oidc_client_secret_file: Option<PathBuf>,
}
