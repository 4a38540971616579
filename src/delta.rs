//! The wall around the Delta kernel.
