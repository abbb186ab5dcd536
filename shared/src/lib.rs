//! The vocabulary both programs speak, in reading order. No protobuf, no tokio.

pub mod access;
pub mod alert;
pub mod certificate;
pub mod event;
pub mod host;
pub mod identity;
pub mod incident;
pub mod labels;
pub mod lane;
pub mod private_file;
pub mod ranges;
pub mod run;
pub mod sample;
pub mod secret;
pub mod severity;
pub mod time;
pub mod tls;
