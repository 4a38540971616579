//! Everything that knows HTTP: the table of contents, one function for each endpoint, and the parts of requests and
//! responses. A handler parses, finds what is shared, asks the table, and answers. Browsers also get a page, and pages of
//! other sites the answers that they are allowed to read.

pub mod activation;
pub mod changes;
mod cors;
pub mod credentials;
pub mod discovery;
mod document;
mod front;
mod local_file;
mod pages;
pub mod query;
mod query_headers;
mod request;
mod response;
mod routes;
pub mod table;

pub use cors::{CorsOrigin, CorsOrigins};
pub use front::{Browsers, is_health, router, router_for};
pub use request::SourceIp;
