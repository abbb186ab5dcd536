//! What an agent signs to prove a key whose certificate has run out.
//!
//! The proof is a certificate request of the old key, whose common name is the digest below: a signature over the
//! collector's nonce, the agent and the request for the new key, in a form that both ends read and check anyway.

use crate::identity::AgentId;
use crate::secret::{hex, sha256};

/// The common name of a proof: nonce, agent and the request (PKCS #10, DER) that it is for.
pub fn common_name(nonce: &str, agent: AgentId, csr_der: &[u8]) -> String {
    let mut signed = b"tocsin recovery".to_vec();
    signed.extend_from_slice(nonce.as_bytes());
    signed.extend_from_slice(agent.0.as_bytes());
    signed.extend_from_slice(csr_der);
    hex(&sha256(&signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let agent = |n| AgentId(uuid::Uuid::from_u128(n));
        let names = [
            common_name("nonce", agent(1), b"request"),
            common_name("Nonce", agent(1), b"request"),
            common_name("nonce", agent(2), b"request"),
            common_name("nonce", agent(1), b"Request"),
        ];
        for (at, name) in names.iter().enumerate() {
            assert_eq!(name.len(), 64, "what X.509 allows a common name");
            assert!(!names[..at].contains(name));
        }
    }
}
