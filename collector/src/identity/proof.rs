//! The challenge of a recovery, and whether an answer to it proves a key.
//!
//! Pure but for the one secret, drawn at the start. Promise: a nonce is one of this process, younger than a minute; a
//! proof is a signature by the key it gives over that nonce, the agent and the request. Nothing is kept of a challenge,
//! so that strangers cannot fill anything. Not here: whether the key is the agent's (`state::recovery`).

use std::time::Duration;

use rcgen::{CertificateSigningRequestParams, DnType, DnValue, PublicKeyData as _};
use rustls::pki_types::CertificateSigningRequestDer;
use tocsin_shared::identity::AgentId;
use tocsin_shared::recovery::common_name;
use tocsin_shared::secret::{NoRandomness, Sha256, hex, random_bytes, same_digest, sha256};
use tocsin_shared::time::Timestamp;

/// How long a nonce is good for: two round trips over the worst of links.
const NONCE_LASTS: Duration = Duration::from_secs(60);
/// A proof is some 300 bytes long.
const PROOF_BYTES_MAX: usize = 8 << 10;

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    #[error("the challenge is not one of this collector, or is older than a minute: ask for another one")]
    Nonce,
    #[error("the proof is not a certificate request signed by the key in it")]
    Signature,
    #[error("the proof is for something else than this challenge, agent and request")]
    OtherMatter,
}

/// Gives challenges and checks answers.
pub struct Challenges {
    secret: [u8; 32],
}

impl Challenges {
    /// With a secret of its own: what an earlier process gave is no good any more.
    pub fn new() -> Result<Self, NoRandomness> {
        Ok(Self { secret: random_bytes()? })
    }

    /// A nonce, 64 hex digits: when, something random, and that it is ours.
    pub fn nonce(&self, now: Timestamp) -> Result<String, NoRandomness> {
        let (mut nonce, random) = (now.as_millis().to_be_bytes().to_vec(), random_bytes::<8>()?);
        nonce.extend_from_slice(&random);
        let seal = self.seal(&nonce);
        nonce.extend_from_slice(&seal);
        Ok(hex(&nonce))
    }

    fn seal(&self, content: &[u8]) -> [u8; 16] {
        // Both parts have one length each, so that no other pair gives the same bytes.
        let digest = sha256(&[&self.secret, content].concat());
        *digest.first_chunk().expect("a digest has 32 bytes")
    }

    fn is_ours(&self, nonce: &str, now: Timestamp) -> bool {
        let digit = |at: usize| nonce.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = (0..nonce.len()).step_by(2).map(digit).collect();
        let Some(bytes) = bytes.filter(|bytes| bytes.len() == 32 && hex(bytes) == nonce) else {
            return false;
        };
        let (content, seal) = bytes.split_at(16);
        let Some(at) = content.first_chunk().map(|at| Timestamp::from_millis(i64::from_be_bytes(*at))) else {
            return false;
        };
        let same = same_digest(&sha256(seal), &sha256(&self.seal(content)));
        same && at <= now.plus(NONCE_LASTS) && now.since(at) <= NONCE_LASTS
    }

    /// The SHA-256 of the public key that a proof proves, for this nonce, agent and request.
    pub fn check(
        &self,
        nonce: &str,
        agent: AgentId,
        csr: &[u8],
        proof: &[u8],
        now: Timestamp,
    ) -> Result<Sha256, InvalidProof> {
        if !self.is_ours(nonce, now) {
            return Err(InvalidProof::Nonce);
        }
        if proof.len() > PROOF_BYTES_MAX {
            return Err(InvalidProof::Signature);
        }
        let proof = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(proof))
            .map_err(|_| InvalidProof::Signature)?;
        let expected = common_name(nonce, agent, csr);
        match proof.params.distinguished_name.get(&DnType::CommonName) {
            Some(DnValue::Utf8String(name)) if *name == expected => {
                Ok(sha256(&proof.public_key.subject_public_key_info()))
            }
            _ => Err(InvalidProof::OtherMatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_428_770_123);
    const AGENT: AgentId = AgentId(Uuid::from_u128(7));

    fn proof(key: &KeyPair, name: &str) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serialize_request(key).unwrap().der().to_vec()
    }

    // Cases: I4
    #[test]
    fn only_a_fresh_signature_over_all_of_it_proves_a_key() {
        let (ours, theirs) = (Challenges::new().unwrap(), Challenges::new().unwrap());
        let key = KeyPair::generate().unwrap();
        let nonce = ours.nonce(NOW).unwrap();
        let good = proof(&key, &common_name(&nonce, AGENT, b"csr"));
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let minute = |n: u64| NOW.plus(Duration::from_secs(60 * n));
        let other = AgentId(Uuid::from_u128(8));
        let foreign = theirs.nonce(NOW).unwrap();
        let of_foreign = proof(&key, &common_name(&foreign, AGENT, b"csr"));
        let altered = format!("{}{}", &nonce[..63], if nonce.ends_with('0') { '1' } else { '0' });
        for (nonce, agent, csr, proof, now, expected, why) in [
            (&nonce, AGENT, &b"csr"[..], &good, NOW, None, "good"),
            (&nonce, AGENT, b"csr", &good, minute(1), None, "for a minute"),
            (&nonce, AGENT, b"csr", &good, minute(2), Some(InvalidProof::Nonce), "too late"),
            (
                &nonce,
                AGENT,
                b"csr",
                &good,
                NOW.minus(Duration::from_secs(120)),
                Some(InvalidProof::Nonce),
                "a clock set back",
            ),
            (&foreign, AGENT, b"csr", &of_foreign, NOW, Some(InvalidProof::Nonce), "another collector's"),
            (&altered, AGENT, b"csr", &good, NOW, Some(InvalidProof::Nonce), "altered"),
            (&String::new(), AGENT, b"csr", &good, NOW, Some(InvalidProof::Nonce), "none"),
            (&"é".repeat(32), AGENT, b"csr", &good, NOW, Some(InvalidProof::Nonce), "not hex"),
            (&nonce, other, b"csr", &good, NOW, Some(InvalidProof::OtherMatter), "another agent"),
            (&nonce, AGENT, b"xyz", &good, NOW, Some(InvalidProof::OtherMatter), "another request"),
            (&nonce, AGENT, b"csr", &forged, NOW, Some(InvalidProof::Signature), "a broken signature"),
            (&nonce, AGENT, b"csr", &vec![0x30; 9_000], NOW, Some(InvalidProof::Signature), "noise"),
        ] {
            let got = ours.check(nonce, agent, csr, proof, now);
            assert_eq!(got.as_ref().err(), expected.as_ref(), "{why}");
            assert!(got.is_err() || got == Ok(sha256(&key.subject_public_key_info())), "{why}");
        }
    }
}
