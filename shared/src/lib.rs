//! The vocabulary both programs speak, in reading order. No protobuf, no tokio.

pub mod disk;
pub mod frame;
pub mod identity;
pub mod labels;
pub mod lane;
pub mod log;
pub mod ranges;
pub mod sample;
pub mod severity;
pub mod time;
