//! The vocabulary both programs speak, in reading order. No protobuf, no tokio.

pub mod identity;
pub mod job;
pub mod labels;
pub mod redact;
pub mod sample;
pub mod sanitize;
pub mod severity;
pub mod time;
