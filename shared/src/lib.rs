//! The vocabulary both programs speak, in reading order. No protobuf, no tokio.

pub mod time;
pub mod labels;
pub mod sample;
pub mod identity;
pub mod severity;
pub mod secret;
pub mod private_file;
pub mod certificate;
pub mod tls;
pub mod redact;
pub mod sanitize;
pub mod lane;
pub mod ranges;
pub mod frame;
pub mod disk;
pub mod log;
pub mod log_limit;
pub mod chain;
pub mod job;
pub mod host;
pub mod alert;
pub mod incident;
pub mod run;
pub mod access;
pub mod event;
