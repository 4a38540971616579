//! Everything that knows HTTP: the table of contents, one function for each endpoint, and the parts of requests and
//! responses. A handler parses, finds what is shared, asks the table, and answers.

pub mod changes;
pub mod credentials;
pub mod discovery;
mod front;
mod local_file;
pub mod query;
mod query_headers;
mod request;
mod response;
mod routes;
pub mod table;

pub use front::{is_health, router};
pub use request::SourceIp;
