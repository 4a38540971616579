//! A Delta Sharing server: Delta tables, shared with any client of the protocol, read from presigned
//! URLs. One router for a laptop and for AWS Lambda.
//!
//! # The house
//!
//! ```text
//! bin/deltashare   the command line: serve, and what changes the catalog
//! bin/lambda       the same server as a Lambda function
//!      |
//!   router         one line for each endpoint; request ids, the log; the local gateway beside it
//!      |
//!  handlers        parse, find what is shared, ask the table, answer
//!      |
//!     auth         token -> recipient -> shared table: holding one is the permission
//!      |
//!     app          what a request needs, put together once
//!      |
//!      +-- catalog   who may read what: in a share file, or in DynamoDB
//!      +-- storage   where tables lie: object stores, presigned URLs, the local gateway
//!      +-- delta     the wall around the Delta kernel: snapshots and their files
//!      +-- ndjson    lines -> gzip -> streamed body, with back-pressure
//!      |
//!   protocol       the messages as types, no I/O
//!      |
//!    error         one way to fail
//! ```
//!
//! `check` opens a table as the handlers do, for administrators. Beside them stand `memory`, which sets up the allocator and knows nothing of the rest, `limits`, what one table,
//! recipient or sender may cost, `gate`, the threads for what
//! blocks, `flight`, work that is done once for many, `role`, the name of a role at AWS, and `audit`, which each of them tells what it knows of the request that is answered.
//!
//! Imports go downwards only. `catalog`, `storage` and `delta` know neither each other nor HTTP;
//! handlers join them. No type of the Delta kernel or of Arrow leaves `delta`. The test
//! `tests/house.rs` holds these lines.
//!
//! # One query
//!
//! `POST …/tables/{table}/query` goes through [`router`] to `handlers::query`: the token's hash is
//! looked up, the body becomes a [`protocol::query::QueryRequest`], the table is found in a share that is
//! granted, the snapshot is opened, the format is negotiated, a signer is made. Then a blocking task
//! walks the log file by file and writes each one's line with its presigned URL into [`ndjson`].
//! Everything that can fail cheaply fails before the status is sent; what fails later is visible to
//! every client, never a short list.
//!
//! A range of changes takes two passes. [`delta::DeltaTable::survey`] reads every commit before the status is sent: what
//! the versions take to read, and whether anything stands in the way. The answer is then written from what was kept.
//!
//! # Pages
//!
//! A list of files is read through a [`delta::FileCursor`], a range of changes through a
//! [`delta::ChangeCursor`]. Where a page ends, the cursor is kept with its table, and the page token says
//! which files of the log the list was made from and how many files came before. The next page goes on
//! with the cursor, or, in another process, makes the same list again up to that place; where it cannot be
//! the same list, the client is told to begin again. Tokens are authenticated by [`protocol::tokens`] and
//! bound to recipient, table and query; nothing is kept that they do not say.
//!
//! # Endpoints
//!
//! | endpoint | handler |
//! |---|---|
//! | `GET /shares` | [`handlers::discovery::list_shares`] |
//! | `GET /shares/{share}` | [`handlers::discovery::get_share`] |
//! | `GET /shares/{share}/schemas` | [`handlers::discovery::list_schemas`] |
//! | `GET /shares/{share}/schemas/{schema}/tables` | [`handlers::discovery::list_tables`] |
//! | `GET /shares/{share}/all-tables` | [`handlers::discovery::list_all_tables`] |
//! | `GET …/tables/{table}/version`, `HEAD …/tables/{table}` | [`handlers::table::query_version`] |
//! | `GET …/tables/{table}/metadata` | [`handlers::table::query_metadata`] |
//! | `POST …/tables/{table}/query` | [`handlers::query::query_table`] |
//! | `GET …/tables/{table}/changes` | [`handlers::changes::query_changes`] |
//! | `POST …/tables/{table}/queries/{queryId}` | [`handlers::query::query_result`] |
//! | `POST …/tables/{table}/temporary-table-credentials` | [`handlers::credentials::temporary_table_credentials`] |

pub mod app;
pub mod audit;
pub mod auth;
pub mod catalog;
pub mod check;
pub mod delta;
pub mod error;
pub mod flight;
pub mod gate;
pub mod handlers;
pub mod limits;
pub mod memory;
pub mod ndjson;
pub mod protocol;
pub mod role;
pub mod router;
pub mod storage;
