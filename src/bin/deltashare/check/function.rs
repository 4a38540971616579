//! Asks the deployed function to check its tables, with its own role.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::ProvideErrorMetadata as _;
use aws_sdk_lambda::primitives::Blob;
use deltashare::check::CheckRequest;
use deltashare::error::innermost;

use super::super::Failure;
use super::super::aws::Aws;
use super::Shown;

/// Asks the function until it has opened every table; each answer has as many as it had time for.
pub(super) async fn check(aws: &Aws, name: &str, shown: &mut Shown) -> Result<(), Failure> {
    let client = Client::new(&aws.sdk);
    let mut after: Option<String> = None;
    loop {
        let event = serde_json::to_vec(&CheckRequest::event(after.clone()))
            .map_err(|error| Failure::failed(error.to_string()))?;
        let answer = client.invoke().function_name(name).payload(Blob::new(event)).send().await;
        let answer = answer.map_err(|error| {
            let what = match error.code() {
                Some("ResourceNotFoundException") => format!(
                    "there is no function '{name}' in this account and region; the stack's output FunctionName names it"
                ),
                Some("AccessDeniedException") => {
                    format!("your credentials lack lambda:InvokeFunction for '{name}'")
                }
                Some(code) => format!(
                    "function '{name}' cannot be invoked: Lambda answers {code}: {}",
                    error.message().unwrap_or_default()
                ),
                None => format!("function '{name}' cannot be invoked: {}", innermost(&error)),
            };
            Failure::failed(what)
        })?;
        let payload = answer.payload.map(Blob::into_inner).unwrap_or_default();
        if answer.function_error.is_some() {
            let text = String::from_utf8_lossy(&payload).into_owned();
            let old = "is it deltashare, and of a version that knows this check?";
            return Err(Failure::failed(format!("function '{name}' failed; {old} ({text})")));
        }
        let found: deltashare::check::CheckResponse = serde_json::from_slice(&payload).map_err(|_| {
            Failure::failed(format!(
                "function '{name}' did not return the result of a check: is it deltashare?"
            ))
        })?;
        if let Some(failure) = found.failure {
            let help = "the function's role needs dynamodb:Scan for this, which the template of this version gives it";
            return Err(Failure::failed(format!(
                "function '{name}' cannot read its catalog; {help} ({failure})"
            )));
        }
        found.bad_records.iter().for_each(|record| shown.bad_text(record));
        found.tables.iter().for_each(|table| shown.table(table));
        match found.next {
            Some(next) if Some(&next) != after.as_ref() => after = Some(next),
            Some(_) => {
                return Err(Failure::failed(format!(
                    "function '{name}' does not have the time to open a table: raise its timeout"
                )));
            }
            None => return Ok(()),
        }
    }
}
