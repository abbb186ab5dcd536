//! Who is at the other end of a connection to the agents' listener.
//!
//! Pure. Promise: only a certificate of the shape our authority issues, for our cluster, becomes an identity.
//! Not here: the chain and the dates (TLS has checked them), revocation (the registry, by `serial`).

use tocsin_shared::certificate::{AgentCertificate, InvalidCertificate};
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

/// An agent, as its verified certificate names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    pub agent: AgentId,
    /// Hex of the 128-bit serial: the key of the certificate's record, which knows generation and revocation.
    pub serial: String,
    pub not_before: Timestamp,
    /// From here on the certificate is no longer valid, also on a connection that is still open.
    pub not_after: Timestamp,
}

/// Why a certificate is not one of our agents'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeer {
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    #[error("the certificate is of cluster {theirs}, this is cluster {ours}")]
    Cluster { theirs: Uuid, ours: Uuid },
}

/// Reads the certificate (DER) that TLS has verified, for the cluster that this collector is.
pub fn parse_peer(certificate: &[u8], cluster: Uuid) -> Result<PeerIdentity, InvalidPeer> {
    let AgentCertificate { name, serial, not_before, not_after, key_sha256: _ } =
        AgentCertificate::parse(certificate)?;
    if name.cluster != cluster {
        return Err(InvalidPeer::Cluster { theirs: name.cluster, ours: cluster });
    }
    Ok(PeerIdentity { agent: name.agent, serial, not_before, not_after })
}
