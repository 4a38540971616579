//! "Generate Temporary Table Credential": read a table's directory instead of presigned URLs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::Response;

use super::request::{Names, read_body};
use super::response::{JSON, with_content_type};
use crate::app::App;
use crate::auth::{Recipient, SharedTable};
use crate::catalog::TableRecord;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::protocol::actions::{AwsCredentials, TableCredentials, TemporaryCredentials};
use crate::protocol::query::parse_location;

/// `POST …/tables/{table}/temporary-table-credentials`
///
/// The credentials are for the table's whole directory, even if the request names a part of it.
pub async fn temporary_table_credentials(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names(names): Names<3>,
    body: Body,
) -> Result<Response> {
    let asked = parse_location(&read_body(body, &app.limits).await?)?;
    let shared = SharedTable::find(&*app.catalog, &recipient, &names).await?;
    let directory = allowed_directory(shared.record())?;
    let location = app.open(&shared)?.location;
    if asked.is_some_and(|asked| !lies_in(&asked, &location)) {
        return Err(Error::invalid(
            "The requested location must be the same as or under this table's configured storage location.",
        ));
    }
    let allowed_ips = shared.record().allowed_ips.as_ref();
    let credentials = app.storage.directory_credentials(&location, recipient.name(), allowed_ips).await?;
    let answer = TemporaryCredentials {
        credentials: TableCredentials {
            location: directory,
            aws_temp_credentials: AwsCredentials {
                access_key_id: &credentials.access_key_id,
                secret_access_key: &credentials.secret_access_key,
                session_token: &credentials.session_token,
            },
            expiration_time: credentials.expires_at.timestamp_millis(),
        },
    };
    let body = serde_json::to_vec(&answer).map_err(Error::internal)?;
    let mut response = with_content_type(body.into(), JSON);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn allowed_directory(record: &TableRecord) -> Result<&str> {
    let name = format!("{}.{}.{}", record.share, record.schema, record.name);
    if !record.settings.history_shared {
        return Err(Error::invalid(format!(
            "Temporary table credentials are not supported because history sharing is not enabled on table: {name}"
        )));
    }
    record.directory().filter(|_| record.settings.refuses_directory_access().is_none()).ok_or_else(|| {
        Error::forbidden(format!("Temporary table credentials are not enabled on table: {name}"))
    })
}

/// Whether a location that a client wrote is in the table. Only S3's are looked at.
fn lies_in(asked: &str, table: &Location) -> bool {
    let is_s3 = asked.split_once("://").is_some_and(|(scheme, _)| scheme.to_lowercase().starts_with("s3"));
    let asked = if is_s3 { Location::parse(asked, None).ok() } else { None };
    match (asked, table) {
        (Some(Location::S3 { bucket: asked, prefix: below, .. }), Location::S3 { bucket, prefix, .. }) => {
            asked == *bucket && below.starts_with(prefix.as_str())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_within_a_table() {
        let table = Location::S3 { bucket: "lake".to_owned(), prefix: "tables/t/".to_owned(), role: None };
        for asked in ["s3://lake/tables/t", "s3a://lake/tables/t/", "S3://lake/tables/t/part"] {
            assert!(lies_in(asked, &table), "{asked}");
        }
        for asked in [
            "",
            "s3://lake/tables/t-evil",
            "s3://lake/tables",
            "s3://other/tables/t",
            "s3://lake/tables/t/../u",
            "/tables/t",
            "file:///tables/t",
            "s3://lake/tables/t/*",
        ] {
            assert!(!lies_in(asked, &table), "{asked}");
        }
    }
}
