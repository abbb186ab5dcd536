//! The vocabulary both programs speak, in reading order. No protobuf, no tokio.

pub mod identity;
pub mod labels;
pub mod sample;
pub mod severity;
pub mod time;
