//! Under construction.

pub mod identity;
pub mod listen;
