//! The files of local directories, as the gateway hands them out: each request leaves an event like any other.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::{StreamExt as _, stream};

use super::request::SourceIp;
use crate::app::App;
use crate::audit::Audit;
use crate::error::Error;

/// Whether the gateway answers requests for this path.
pub(super) fn owns(app: &App, path: &str) -> bool {
    app.storage.gateway().is_some_and(|gateway| gateway.owns(path))
}

/// Answers a request for a file. The event has the file, never the signature.
pub(super) async fn serve(app: &App, request: Request, audit: &Arc<Audit>) -> Response {
    let Some(gateway) = app.storage.gateway() else { return Response::default() };
    let file = gateway.file_of(request.uri().path());
    audit.note(|facts| facts.object = file);
    let source = request.extensions().get::<SourceIp>().and_then(SourceIp::address);
    let response = gateway.serve(request, source).await;
    if let Some(error) = failure(response.status()) {
        audit.note(|facts| facts.fail(&error));
        return response;
    }
    let left = length(response.headers());
    let download = Download { audit: Arc::clone(audit), left };
    response.map(|body| counted(body, download))
}

/// What the event says of an answer that is not a file. The body has the code of S3.
fn failure(status: StatusCode) -> Option<Error> {
    Some(match status {
        status if status.is_success() => return None,
        StatusCode::FORBIDDEN => Error::forbidden(
            "The URL was not signed by this server, has expired, or was issued to a recipient that cannot use this address.",
        ),
        StatusCode::NOT_FOUND => {
            Error::not_found("There is no such file in the directory of a shared table.")
        }
        StatusCode::METHOD_NOT_ALLOWED => Error::method_not_allowed(),
        StatusCode::RANGE_NOT_SATISFIABLE => Error::invalid("The file does not have the requested range."),
        StatusCode::NOT_IMPLEMENTED => Error::unsupported("Conditional requests are not supported."),
        status if status.is_client_error() => {
            Error::malformed("The request cannot be read, or its key does not name a regular file.")
        }
        _ => Error::internal("the file cannot be opened"),
    })
}

fn length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// A file on its way to a client. The event is written when it ends.
struct Download {
    audit: Arc<Audit>,
    /// How many bytes the client does not have yet.
    left: u64,
}

impl Download {
    fn take(&mut self, chunk: &Result<Bytes, axum::Error>) {
        match chunk {
            Ok(bytes) => {
                let bytes = bytes.len() as u64;
                self.left = self.left.saturating_sub(bytes);
                self.audit.note(|facts| facts.bytes += bytes);
            }
            Err(error) => {
                self.left = 0;
                let error = Error::internal(error.to_string());
                self.audit.note(|facts| facts.fail(&error));
            }
        }
    }
}

impl Drop for Download {
    /// The HTTP library drops a body as soon as it has all the bytes that were announced.
    fn drop(&mut self) {
        if self.left > 0 {
            self.audit.note(|facts| facts.gone = true);
        }
    }
}

fn counted(body: Body, download: Download) -> Body {
    Body::from_stream(stream::unfold((body.into_data_stream(), download), |(mut body, mut download)| async {
        let chunk = body.next().await?;
        download.take(&chunk);
        Some((chunk, (body, download)))
    }))
}
