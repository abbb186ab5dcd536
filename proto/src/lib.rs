//! The wire: `tocsin/v1`, its generated code, and the conversions to and from the shared vocabulary.

pub mod codec;
pub mod connect;
pub mod convert;
pub mod wire;

/// Generated from `tocsin/v1/*.proto`.
#[allow(clippy::all, missing_docs, unreachable_pub)]
pub mod pb {
    tonic::include_proto!("tocsin.v1");

    /// The descriptors of every message and service, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tocsin.descriptors"));
}
