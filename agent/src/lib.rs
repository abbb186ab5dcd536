//! Host → collect → spool → stream.

pub mod collect;
pub mod inventory;
