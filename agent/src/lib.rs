//! Under construction.

pub mod jobs;
