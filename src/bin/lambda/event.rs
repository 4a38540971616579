//! What the function is invoked with: a request that came by HTTP, or the command line's question whether every table can
//! be read with the function's own role.

use std::sync::Arc;
use std::time::Instant;

use deltashare::app::App;
use deltashare::catalog::dynamodb::Writer;
use deltashare::check::{self, CheckRequest, CheckResponse, TableChecker};
use deltashare::role::RoleArn;
use lambda_http::request::LambdaRequest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::in_time;

/// An event.
pub(crate) enum Event {
    /// Of API Gateway, or of a function URL.
    Request(Box<LambdaRequest>),
    /// Of `deltashare check --function`, by a direct invocation.
    Check(CheckRequest),
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = <Box<RawValue>>::deserialize(deserializer)?;
        if let Some(asked) = check::CheckEvent::read(event.get()) {
            return Ok(Self::Check(asked));
        }
        // The error goes to the log, and that of serde_json may repeat what is in the event.
        let unknown = |error: serde_json::Error| {
            D::Error::custom(format_args!(
                "the event is neither a request by way of API Gateway or a function URL, nor a check (column {})",
                error.column()
            ))
        };
        serde_json::from_str(event.get()).map(|event| Self::Request(Box::new(event))).map_err(unknown)
    }
}

/// What the function needs to look at its own tables.
pub(crate) struct OwnCheck {
    pub(crate) app: Arc<App>,
    /// Of DynamoDB. A client is created only if a check is asked for, so that no other start waits for it.
    pub(crate) sdk: aws_sdk_dynamodb::config::Builder,
    pub(crate) catalog: String,
    pub(crate) signer_role: Option<RoleArn>,
}

impl OwnCheck {
    /// Opens as many tables as half of the time suffices for: a single one may take the other half.
    pub(crate) async fn answer(&self, asked: &CheckRequest, deadline: u64) -> CheckResponse {
        let now = Instant::now();
        let until = now + in_time(deadline).saturating_duration_since(now) / 2;
        let App { storage, limits, .. } = &*self.app;
        let checker = TableChecker { storage, signer_role: self.signer_role.as_ref(), limits: *limits };
        check::check_tables(checker, &Writer::new(self.sdk.clone(), &self.catalog), asked, until).await
    }
}
