//! Under construction.

pub mod rules;
