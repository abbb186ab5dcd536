//! The agent: host → collect → spool → stream, and the jobs of the host.

pub mod collect;
pub mod inventory;
pub mod tick;
pub mod rows;
pub mod jobs;
pub mod spool;
pub mod keep;
pub mod explain;
pub mod stream;
pub mod identity;
mod trust;
pub mod enroll;
pub mod recover;
pub mod renew;
pub mod config;
pub mod run;
pub mod cli;
