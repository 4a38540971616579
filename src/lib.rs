//! A Delta Sharing server.

pub mod delta;
pub mod error;
pub mod storage;
