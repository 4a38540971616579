//! The one way to fail: a code of the protocol, a sentence for the recipient, and a cause for the log.
//!
//! The message is sent to the recipient, so it never holds a bucket, a key, an ARN, a path of this
//! machine or a library's own text; those go into the source, which only the log sees.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The innermost cause of an error. Those around it only say that there is one, and some repeat it for developers.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    inner.to_string()
}

/// What an error and its causes say, from the outermost in, each thing once.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).fold(String::new(), |mut all, cause| {
        if !all.contains(&cause) {
            if !all.is_empty() {
                all.push_str(": ");
            }
            all.push_str(&cause);
        }
        all
    })
}

/// What went wrong, in the protocol's words. Each code has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request could not be read (400).
    MalformedRequest,
    /// A value in the request contradicts another one, or the table (400).
    InvalidParameterValue,
    /// The table needs something the client did not declare, or the server does not do (400).
    UnsupportedOperation,
    /// The answer would be larger than what can be carried (400).
    ResourceLimitExceeded,
    /// The request did not arrive in time (408).
    RequestTimeout,
    /// The body of the request is too large (413).
    RequestTooLarge,
    /// No token, an unknown token, an expired token (401).
    Unauthenticated,
    /// The recipient may not do this (403).
    PermissionDenied,
    /// The share, schema or table does not exist, or is not granted (404).
    ResourceDoesNotExist,
    /// The path exists, the method does not (405).
    MethodNotAllowed,
    /// Too many requests; try again later (429).
    RequestLimitExceeded,
    /// A fault of this server that only its log explains (500).
    InternalError,
    /// Something behind this server does not answer; try again later (503).
    TemporarilyUnavailable,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedRequest
            | Self::InvalidParameterValue
            | Self::UnsupportedOperation
            | Self::ResourceLimitExceeded => 400,
            Self::RequestTimeout => 408,
            Self::RequestTooLarge => 413,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::ResourceDoesNotExist => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestLimitExceeded => 429,
            Self::InternalError => 500,
            Self::TemporarilyUnavailable => 503,
        }
    }

    /// The code as it is written in an error body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedRequest => "MALFORMED_REQUEST",
            Self::InvalidParameterValue => "INVALID_PARAMETER_VALUE",
            Self::UnsupportedOperation => "UNSUPPORTED_OPERATION",
            Self::ResourceLimitExceeded => "RESOURCE_LIMIT_EXCEEDED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceDoesNotExist => "RESOURCE_DOES_NOT_EXIST",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::RequestLimitExceeded => "REQUEST_LIMIT_EXCEEDED",
            Self::InternalError => "INTERNAL_ERROR",
            Self::TemporarilyUnavailable => "TEMPORARILY_UNAVAILABLE",
        }
    }
}

/// What the provider must mend before such a request succeeds. The log names it, and the metrics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The storage denies access to a table.
    AccessDenied,
    /// An IAM role cannot be assumed.
    Role,
    /// AWS does not accept the credentials of this server, they have expired, or its clock is wrong.
    Credentials,
    /// The Delta log of a table is damaged, incomplete, or beyond a limit.
    Log,
    /// The location of a table cannot be read by this server, or nothing is there.
    Location,
    /// A record of the catalog cannot be read.
    Record,
}

impl Fault {
    /// The fault of an error of this server that is the cause of `error`, or of its cause, and so on.
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        Error::behind(error).and_then(Error::fault)
    }

    /// The name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::Role => "role",
            Self::Credentials => "credentials",
            Self::Log => "log",
            Self::Location => "location",
            Self::Record => "record",
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A failed request: the message for the recipient, and the cause for the log. A clone is for another request that fails
/// for the same cause.
#[derive(Debug, Clone)]
pub struct Error {
    code: ErrorCode,
    message: Cow<'static, str>,
    fault: Option<Fault>,
    explanation: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Error {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            fault: None,
            explanation: None,
            retry_after: None,
            source: None,
        }
    }

    /// 400: the request could not be read.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::MalformedRequest, message)
    }

    /// 400: a value contradicts another one, or the table.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidParameterValue, message)
    }

    /// 400: the table or the request needs what the client or this server lacks.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UnsupportedOperation, message)
    }

    /// 400: the answer would be larger than what can be carried.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::ResourceLimitExceeded, message)
    }

    /// 408: the client did not send its request in time.
    pub fn request_timeout(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::RequestTimeout, message)
    }

    /// 413: the body of the request is too large.
    pub fn request_too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::RequestTooLarge, message)
    }

    /// 401: no token, an unknown one, an expired one.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    /// 403: what is asked for exists, and is not given to this recipient.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::PermissionDenied, message)
    }

    /// 404: the thing named does not exist, or is not granted.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::ResourceDoesNotExist, message)
    }

    /// 400: the table is shared, but cannot be read until its provider mends something: its log, unless
    /// [`with_fault`](Self::with_fault) says something else.
    /// Not a 5xx, because clients retry those for minutes and the table will not mend itself.
    pub fn unreadable_table(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UnsupportedOperation, message).with_fault(Fault::Log)
    }

    /// 405: the path exists, the method does not.
    pub fn method_not_allowed() -> Self {
        Self::new(ErrorCode::MethodNotAllowed, "This path does not take that method.")
    }

    /// 429: the recipient asks for too much at the same time.
    pub fn too_many_requests(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::RequestLimitExceeded, message)
    }

    /// 503: something behind this server does not answer.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::TemporarilyUnavailable, message)
    }

    /// 500: a fault of this server; the cause goes to the log only.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(ErrorCode::InternalError, "The server failed. Its log has the cause under the request ID.")
            .with_source(source)
    }

    /// Says what the provider must mend.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Says in a sentence what is wrong and what to do, for the log and for administrators. Recipients do not get it.
    #[must_use]
    pub fn with_explanation(mut self, explanation: impl Into<Cow<'static, str>>) -> Self {
        self.explanation = Some(explanation.into());
        self
    }

    /// Takes the fault and the explanation of an error of this server that is the cause of `cause`, if there is one.
    #[must_use]
    pub fn explained_by(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        if let Some(behind) = Self::behind(cause) {
            self.fault = behind.fault.or(self.fault);
            self.explanation = behind.explanation.clone().or(self.explanation);
        }
        self
    }

    /// The first error of this server that says more than that something failed, among `error`, its cause, and so on.
    fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let mut own = causes.filter_map(|cause| cause.downcast_ref::<Self>());
        own.find(|error| error.fault.is_some() || error.explanation.is_some())
    }

    /// Says how long a client should wait before it tries again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The protocol's code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The sentence that is sent to the recipient.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the provider must fix, if that is known.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The text of the cause, for the log. S3 repeats a session token that it refuses, which is left out.
    pub fn source_text(&self) -> Option<String> {
        let source = self.source.as_ref()?.to_string();
        Some(without_session_tokens(&source))
    }

    /// What is wrong and what to do, for administrators, if that is known.
    pub fn explanation(&self) -> Option<&str> {
        self.explanation.as_deref()
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::RequestLimitExceeded | ErrorCode::TemporarilyUnavailable | ErrorCode::InternalError
        )
    }

    /// How long a client should wait before it tries again, for 429 and 503.
    pub fn retry_after(&self) -> Option<Duration> {
        matches!(self.code, ErrorCode::RequestLimitExceeded | ErrorCode::TemporarilyUnavailable)
            .then(|| self.retry_after.unwrap_or(Duration::from_secs(2)))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The ids under which logs have a request. A front door puts them into the extensions of the request; without them it
/// gets a UUID.
#[derive(Debug, Clone, Default)]
pub struct RequestIds {
    /// That of this server, or of the invocation of the function.
    pub request: String,
    /// The id that API Gateway gave it, if the request came through it.
    pub api: Option<String>,
}

/// The body of every error: `{"errorCode","message"}`, `error_code`, which two clients read, and the ids of the request.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    error_code: &'static str,
    #[serde(rename = "error_code")]
    snake_case_error_code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_request_id: Option<&'a str>,
}

impl Error {
    /// The body of the answer, with the ids of the request if they are known.
    pub fn body(&self, ids: Option<&RequestIds>) -> Vec<u8> {
        let body = ErrorBody {
            error_code: self.code.as_str(),
            snake_case_error_code: self.code.as_str(),
            message: &self.message,
            request_id: ids.map(|ids| ids.request.as_str()),
            api_request_id: ids.and_then(|ids| ids.api.as_deref()),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl axum::response::IntoResponse for Error {
    /// The one place that writes an error. The error itself goes along as an extension of the
    /// response, for the log.
    fn into_response(self) -> axum::response::Response {
        use axum::http::{HeaderValue, StatusCode, header};
        let code = self.code;
        let mut response = axum::response::Response::new(self.body(None).into());
        *response.status_mut() =
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if code == ErrorCode::Unauthenticated {
            headers
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"delta-sharing\""));
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// The same text without what S3's XML has in elements such as `<Token-0>`.
fn without_session_tokens(text: &str) -> String {
    const BEGIN: &str = "<Token-";
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, token)) = rest.split_once(BEGIN) {
        kept.push_str(before);
        kept.push_str("<Token-…>");
        // A body that was cut off has no end of the element.
        let end = token.split_once("</Token-").and_then(|(_, end)| end.split_once('>'));
        rest = end.map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_token_is_left_out_of_the_cause() {
        let answer = "400: <Error><Code>InvalidToken</Code><Token-0>IQoJsecret</Token-0><Token-1>secret2</Token-1><HostId>h";
        let text = Error::unavailable("x").with_source(answer).source_text().unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(
            text.starts_with("400: <Error><Code>InvalidToken</Code>") && text.ends_with("><HostId>h"),
            "{text}"
        );
        let cut = Error::unavailable("x").with_source("a <Token-0>IQoJsecr").source_text().unwrap();
        assert_eq!(cut, "a <Token-…>");
        assert_eq!(Error::unavailable("x").with_source("plain").source_text().unwrap(), "plain");
    }
}
