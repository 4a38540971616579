//! Reading the first bytes of a table's file: in S3 as a recipient does, by its presigned URL; in a directory as the
//! gateway does.

use std::path::Path;
use std::time::Duration;

use axum::http::header::RANGE;
use axum::http::{HeaderValue, Request};
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::client::{HttpConnector as _, HttpRequestBody, ReqwestConnector};

use super::file_fault::FileFault;
use super::local::LocalDirectory;
use super::resolve::{self, Root};
use super::s3::client_options;
use super::{SIGNER_READY, Storage, refused, unavailable};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::s3_error::S3Error;

/// As much of an answer is read: a message of S3 with its XML.
const ENOUGH: usize = 4096;

/// How long S3 has to recover before it is asked once more.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Whether a file that begins with these bytes is a Parquet file. `PARE` is encrypted, its footer as well.
pub fn is_parquet(begin: &[u8]) -> bool {
    begin.starts_with(b"PAR1") || begin.starts_with(b"PARE")
}

impl Storage {
    /// Reads the first bytes of the file that the log of the table at `location` names `log_path`, and says why
    /// recipients cannot read it. `allowed` are the other locations that the log may point into.
    pub async fn first_bytes(
        &self,
        location: &Location,
        allowed: &[Location],
        log_path: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<FileFault>> {
        let locations: Vec<_> = std::iter::once(location).chain(allowed).collect();
        let roots: Vec<_> = locations.iter().map(|location| Root::new(location, 0)).collect();
        let mut key = Vec::new();
        let root =
            resolve::resolve(log_path, &roots, &mut key).map_err(|reason| refused(log_path, Some(reason)))?;
        match locations.get(root) {
            Some(Location::Local(directory)) => {
                let directory = directory.clone();
                let key = String::from_utf8(key).map_err(Error::internal)?;
                let read = tokio::task::spawn_blocking(move || {
                    let directory = LocalDirectory::open(&directory)
                        .map_err(|error| FileFault::Unreadable(error.to_string()))?;
                    directory.first_bytes(Path::new(&key))
                });
                Ok(judge(read.await.map_err(Error::internal)?))
            }
            Some(Location::S3 { .. }) => {
                // The locations in S3 alone: those in a directory are signed for by the gateway of a server.
                let mut in_s3 = locations.iter().filter(|location| matches!(location, Location::S3 { .. }));
                let first = match location {
                    Location::S3 { .. } => in_s3.next(),
                    Location::Local(_) => locations.get(root),
                };
                let others: Vec<_> = in_s3.map(|location| (*location).clone()).collect();
                let first = first.ok_or_else(|| Error::internal("a file of no location"))?;
                let mut url = Vec::new();
                self.signer(first, &others, now).await?.presign(log_path, &mut url)?;
                Ok(judge(s3_bytes(String::from_utf8(url).map_err(Error::internal)?).await?))
            }
            None => Err(refused(log_path, None)),
        }
    }
}

/// What is wrong with a file that begins so.
fn judge(read: Result<Vec<u8>, FileFault>) -> Option<FileFault> {
    match read {
        Ok(bytes) if is_parquet(&bytes) => None,
        Ok(bytes) if bytes.is_empty() => Some(FileFault::Empty),
        Ok(_) => Some(FileFault::NotParquet),
        Err(fault) => Some(fault),
    }
}

/// The first bytes behind a presigned URL. An answer that S3 gives when it is busy is asked for once more.
async fn s3_bytes(url: String) -> Result<Result<Vec<u8>, FileFault>> {
    match s3_error(&url).await? {
        Err(FileFault::Refused(answer)) if answer.status >= 500 => {
            tokio::time::sleep(RETRY_AFTER).await;
            s3_error(&url).await
        }
        answer => Ok(answer),
    }
}

async fn s3_error(url: &str) -> Result<Result<Vec<u8>, FileFault>> {
    let client = ReqwestConnector::default()
        .connect(&client_options().with_allow_http(url.starts_with("http://")))
        .map_err(unavailable)?;
    let mut request = Request::get(url).body(HttpRequestBody::empty()).map_err(Error::internal)?;
    request.headers_mut().insert(RANGE, HeaderValue::from_static("bytes=0-3"));
    let answer = tokio::time::timeout(SIGNER_READY, client.execute(request)).await;
    let answer = answer.map_err(unavailable)?.map_err(unavailable)?;
    let status = answer.status().as_u16();
    // An empty file has no byte 0.
    if status == 416 {
        return Ok(Ok(Vec::new()));
    }
    let is_file = answer.status().is_success();
    let wanted = if is_file { 4 } else { ENOUGH };
    let (mut body, mut pieces) = (Vec::new(), answer.into_body().bytes_stream());
    while body.len() < wanted
        && let Some(piece) = tokio::time::timeout(SIGNER_READY, pieces.try_next())
            .await
            .map_err(unavailable)?
            .map_err(unavailable)?
    {
        body.extend_from_slice(&piece);
    }
    if is_file {
        return Ok(Ok(body));
    }
    Ok(Err(FileFault::Refused(S3Error::read(status, &String::from_utf8_lossy(&body)))))
}
