//! A Delta Sharing server: Delta tables, shared with any client of the protocol, read from presigned
//! URLs. One router for a laptop and for AWS Lambda.
//!
//! # The house
//!
//! ```text
//! bin/deltashare   the command line: serve, and what changes the catalog
//! bin/lambda       the same server as a Lambda function
//!      |
//!     http         one line for each endpoint; requests and responses; request ids and the log
//!      |
//!    answer        from a version or a range to the lines of its answer, cut into pages
//!      |
//!     app          what a request needs, put together once; tables that were opened
//!      |
//!     auth         token -> recipient -> shared table: holding one is the permission
//!      |
//!     oidc         tokens of OpenID providers, verified with the keys of their issuers
//!      |
//!      +-- catalog   who may read what: in a share file, or in DynamoDB
//!      +-- storage   where tables are: object stores, presigned URLs, the local gateway
//!      +-- delta     the wall around the Delta kernel: snapshots and their files
//!      +-- ndjson    lines -> gzip -> streamed body, with back-pressure
//!      +-- predicate which files a filter shares, and which ones the hints of a query leave out
//!      |
//!   protocol       the messages as types, no I/O
//!      |
//!    error         one way to fail
//! ```
//!
//! `check` opens a table as `answer` does, for administrators. Beside them are `allocator`, which keeps the
//! heap small; `limits`, what one table, recipient or sender may cost; `gate`, the threads for work that
//! blocks; `flight`, work that is done once for many; `location`, where a table is stored; `network`, ranges of
//! addresses; `role`, the name of a role at AWS; `s3_error`, what error responses of S3 mean; `logging`, what may be
//! written to the log; and `audit`, which collects what is known of a request for its event.
//!
//! Imports go downwards only. `catalog`, `storage` and `delta` know neither each other nor the requests of recipients;
//! `answer` joins them. A filter is the one thing that `catalog` reads and `delta` applies, so both know `predicate`. No
//! type of the Delta kernel or of Arrow leaves `delta`. The test `tests/house.rs` holds these lines. The kernel is a
//! dependency of its own because `deltalake`, which writes checkpoints for the command line, does not export it, and
//! because the function needs the kernel alone.
//!
//! # One query
//!
//! `POST …/tables/{table}/query` goes through [`http::router`] to [`http::query::query_table`]. The body becomes a
//! [`protocol::query::QueryRequest`], [`auth::SharedTable`] is found in a share that is granted. Its
//! [`catalog::TableRecord::access`] says which files the recipient may read. [`app::App::open`] passes it to
//! [`delta::DeltaTable::with_access`], and every cursor of that table leaves out other files, so nothing above `delta` sees
//! them. The table is opened, [`answer::version::OpenVersion`] is the snapshot, the format is negotiated, and [`app::App::signer`] gives a
//! signer. Then [`answer::writer::AnswerWriter`] walks the log file by file and writes each one's line with its presigned
//! URL into [`ndjson`]. Everything that can fail cheaply fails before the status is sent; what fails later is visible
//! to every client, never a short list.
//!
//! A range of changes takes two passes. [`delta::DeltaTable::survey`] reads every commit before the status is sent: what
//! the versions take to read, and whether anything stands in the way. The answer is then written from what was kept.
//!
//! # Pages
//!
//! A list of files is read through a [`delta::FileCursor`], a range of changes through a
//! [`delta::ChangeCursor`]. When a page ends, the cursor is kept with its table, and the page token says
//! which files of the log the list was made from and how many files came before. The next page continues
//! with the cursor, or, in another process, reads the same list again up to that place. If it cannot be
//! the same list, the answer is an error that asks the client to restart the query. Tokens are authenticated by [`protocol::tokens`] and
//! bound to recipient, table and query; nothing is kept that they do not say.
//!
//! # Endpoints
//!
//! A browser that opens `GET /` gets the page of `http::pages`, which uses the endpoints below. `http::cors` answers preflight
//! requests.
//!
//! | endpoint | handler |
//! |---|---|
//! | `GET /shares` | [`http::discovery::list_shares`] |
//! | `GET /shares/{share}` | [`http::discovery::get_share`] |
//! | `GET /shares/{share}/schemas` | [`http::discovery::list_schemas`] |
//! | `GET /shares/{share}/schemas/{schema}/tables` | [`http::discovery::list_tables`] |
//! | `GET /shares/{share}/all-tables` | [`http::discovery::list_all_tables`] |
//! | `GET …/tables/{table}/version`, `HEAD …/tables/{table}` | [`http::table::query_version`] |
//! | `GET …/tables/{table}/metadata` | [`http::table::query_metadata`] |
//! | `POST …/tables/{table}/query` | [`http::query::query_table`] |
//! | `GET …/tables/{table}/changes` | [`http::changes::query_changes`] |
//! | `POST …/tables/{table}/queries/{queryId}` | [`http::query::query_result`] |
//! | `POST …/tables/{table}/temporary-table-credentials` | [`http::credentials::temporary_table_credentials`] |
//! | `GET /activate` | [`http::activation::activation_page`] |
//! | `POST /activate/invitation` | [`http::activation::show_invitation`] |
//! | `POST /activate` | [`http::activation::activate`] |

pub mod allocator;
pub mod answer;
pub mod app;
pub mod audit;
pub mod auth;
pub mod catalog;
pub mod check;
pub mod delta;
pub mod error;
pub mod flight;
pub mod gate;
pub mod http;
pub mod limits;
pub mod location;
pub mod logging;
pub mod ndjson;
pub mod network;
pub mod oidc;
pub mod predicate;
pub mod protocol;
pub mod role;
pub mod s3_error;
pub mod storage;
