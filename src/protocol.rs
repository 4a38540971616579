//! The protocol's messages as types: what a request may say, what an answer looks like. No I/O.
//!
//! Sections named in this module are those of `PROTOCOL.md` in delta-io/delta-sharing.

pub mod actions;
pub mod activation;
pub mod capabilities;
pub mod digest;
pub mod json;
pub mod listing;
pub mod names;
pub mod parameters;
pub mod profile;
pub mod query;
pub mod timestamp;
pub mod tokens;
