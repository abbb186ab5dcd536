//! The gRPC services, and the guard before them.

pub mod enrollment;
pub mod guard;
