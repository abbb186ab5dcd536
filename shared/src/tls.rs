//! How a client makes sure that it talks to its collector.
//!
//! Promise: TLS 1.3 and HTTP/2 only, one crypto provider (ring), no resumption (so a revoked certificate is looked
//! at each time), no early data, no key log; there is no way to switch verification off and no trust on first use.
//! Either the last certificate of the server's chain is the pinned one, or the chain ends in a given authority; in
//! both cases the server's name is checked. Who shows an identity of its own is a host whose clock may be wrong: it
//! reads the dates of the server's certificate with a tolerance (`dates`).
//! Not here: sockets (`tocsin-proto`'s `connect`) and the server's side (the collector's `listen`).

mod dates;

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

use crate::secret::{Secret, Sha256, same_digest, sha256};

/// The application protocol of gRPC.
pub const ALPN_H2: &[u8] = b"h2";

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate { what: &'static str },
    #[error("{what} is damaged: {reason}")]
    Pem { what: &'static str, reason: String },
    #[error("the private key cannot be read: {0}")]
    Key(String),
    #[error("the certificate and the private key do not go together or cannot be used: {0}")]
    Rejected(String),
}

/// The server's chain does not end in the certificate that the join token pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's certificate authority is not the one that the token pins")]
pub struct PinMismatch;

/// The one crypto provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM text, in its order; `what` names the text in errors. White space around is fine.
pub fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { what, reason: error.to_string() })?;
    if certificates.is_empty() { Err(TlsError::NoCertificate { what }) } else { Ok(certificates) }
}

/// The first private key of a PEM text.
pub fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|error| TlsError::Key(error.to_string()))
}

/// A set of authorities as one digest, whatever their order: SHA-256 of the sorted SHA-256 of each (DER).
pub fn bundle_sha256(authority_pem: &str) -> Result<Sha256, TlsError> {
    Ok(sha256(&pins(authority_pem)?.concat()))
}

/// SHA-256 of each authority (DER), sorted.
pub fn pins(authority_pem: &str) -> Result<Vec<Sha256>, TlsError> {
    let authorities = certificates(authority_pem, "the authorities")?;
    let mut digests: Vec<Sha256> = authorities.iter().map(|authority| sha256(authority)).collect();
    digests.sort_unstable();
    digests.dedup();
    Ok(digests)
}

/// For a host that only has a token: trusts a chain whose last certificate has this SHA-256 (DER).
pub fn pinned(pin: Sha256) -> Result<Arc<ClientConfig>, TlsError> {
    pinned_to(vec![pin])
}

/// The same where any of these digests will do.
pub fn pinned_to(pins: Vec<Sha256>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = PinnedVerifier { pins, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(rejected)?
        .dangerous() // The door to any verifier of one's own; ours adds a check to webpki's.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(finished(config))
}

/// What a client shows for itself.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The certificate and what lies between it and the authority, PEM.
    pub chain_pem: String,
    /// PKCS #8, PEM.
    pub key_pem: Secret,
}

/// For a client that knows the authority: trusts the certificates in `authority_pem`, shows `identity` if given.
pub fn trusting(
    authority_pem: &str,
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots(&certificates(authority_pem, "the authority's file")?)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(rejected)?;
    let Some(ClientIdentity { chain_pem, key_pem }) = identity else {
        return Ok(finished(builder.with_root_certificates(roots).with_no_client_auth()));
    };
    let own = certificates(chain_pem, "the client's certificate")?;
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Rejected(error.to_string()))?;
    let not_earlier = own.first().and_then(|own| dates::life(own)).map_or(0, |(begin, _)| begin);
    let config = builder
        .dangerous() // The door to any verifier of one's own; ours asks webpki for everything.
        .with_custom_certificate_verifier(Arc::new(dates::Tolerant { chain, not_earlier }))
        .with_client_auth_cert(own, private_key(key_pem)?)
        .map_err(rejected)?;
    Ok(finished(config))
}

fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn rejected(error: rustls::Error) -> TlsError {
    TlsError::Rejected(error.to_string())
}

/// A set of trusted authorities.
pub fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(rejected)?;
    }
    Ok(roots)
}

/// Asks for the pinned certificate at the end of the chain, then for all that webpki asks for with it as the root.
#[derive(Debug)]
struct PinnedVerifier {
    pins: Vec<Sha256>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.last().unwrap_or(end_entity);
        let shown = sha256(authority);
        if !self.pins.iter().any(|pin| same_digest(&shown, pin)) {
            return Err(CertificateError::Other(OtherError(Arc::new(PinMismatch))).into());
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_say_what_is_wrong_with_their_files() {
        let damaged = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, says) in [
            ("", "no certificate"),
            ("hello", "no certificate"),
            (damaged, "damaged"),
            (cut, "damaged"),
            (nonsense, "cannot be used"),
        ] {
            let error = trusting(pem, None).unwrap_err().to_string();
            assert!(error.contains(says), "{pem:?}: {error}");
        }
        assert!(private_key(&Secret::new("")).is_err());
    }

    #[test]
    fn clients_speak_h2_over_tls_1_3_and_resume_nothing() {
        let config = pinned([0; 32]).unwrap();
        assert_eq!(config.alpn_protocols, [ALPN_H2.to_vec()]);
        assert!(!config.enable_early_data);
        assert!(!config.key_log.will_log("CLIENT_RANDOM"));
    }
}
