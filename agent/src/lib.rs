//! The agent: host → collect → spool → stream, and the jobs of the host.

pub mod identity;
//! Host → collect → spool → stream.

pub mod collect;
pub mod inventory;
//! Under construction.

pub mod jobs;
//! The agent: what a host tells the collector.

pub mod spool;
