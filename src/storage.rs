//! Where tables lie, and how their files are handed out.
