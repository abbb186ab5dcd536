//! Host → collect → spool → stream.

pub mod collect;
