//! Under construction.

pub mod alert;
pub mod incident;
pub mod jobs;
pub mod state;
