//! The agent: host → collect → spool → stream, and the jobs of the host.

pub mod collect;
pub mod inventory;
pub mod jobs;
pub mod spool;
pub mod identity;
