//! From what a request asks of a shared table to the lines of its answer. Knows nothing of HTTP.
//!
//! A query goes through [`version`] or [`range`]: the table is opened, the version or the range is found within what the
//! provider shares, the form is negotiated, and the cursor becomes a [`writer::LineCursor`]. [`writer`] writes it, one
//! line for each file by [`file_line`], cut into pages by [`page`].

mod access;
pub mod file_line;
pub mod head;
pub mod page;
mod partition_values;
pub mod range;
pub mod replay;
pub mod skipping;
pub mod tokens;
pub mod version;
pub mod writer;
