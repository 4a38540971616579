//! Stands in for the S3 gateway of local directories in a build without the command line: nothing can create one.

use std::net::IpAddr;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, Response};

use super::presign::{BucketUrl, Credentials};
use crate::network::AllowedIps;

/// Has no value.
#[derive(Debug)]
pub enum Gateway {}

#[allow(missing_docs)]
impl Gateway {
    pub fn register(&self, _: &Path, _: Option<&AllowedIps>) -> String {
        match *self {}
    }

    pub fn owns(&self, _: &str) -> bool {
        match *self {}
    }

    pub fn file_of(&self, _: &str) -> Option<String> {
        match *self {}
    }

    pub(super) fn credentials(&self) -> &Credentials {
        match *self {}
    }

    pub(super) fn bucket_url(&self) -> BucketUrl {
        match *self {}
    }

    pub async fn serve(&self, _: Request<Body>, _: Option<IpAddr>) -> Response<Body> {
        match *self {}
    }
}
