//! Under construction.

pub mod samples;
