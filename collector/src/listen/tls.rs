//! The TLS configurations of the two listeners.
//!
//! Promise: ring is the one provider; nothing is resumed and no early data is taken, so every connection shows its
//! certificate anew; TLS 1.2 exists on the front alone and only when asked for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme,
};
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls::{ALPN_H2, TlsError, certificates, provider, roots};
use uuid::Uuid;

use super::certificate::ServerCertificate;
use crate::clock;
use crate::identity::peer::{PeerIdentity, parse_peer};

/// The longest chain a client may show: its certificate, two in between, the authority.
const CLIENT_CHAIN_MAX: usize = 4;

/// Why a TLS listener cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum ListenTlsError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot verify clients: {0}")]
    Verifier(String),
}

/// The oldest TLS that the front speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMin {
    /// An opt-in, for browsers and paging tools that are stuck.
    V1_2,
    V1_3,
}

/// Whether the registry knows a certificate and has not revoked it. Asked at each handshake, so it must be quick.
pub type Admit = Arc<dyn Fn(&PeerIdentity) -> bool + Send + Sync>;

/// The authorities whose certificates are taken, exchangeable while a listener listens.
#[derive(Debug)]
pub struct TrustedAuthorities(ArcSwap<Chain>);

/// What webpki asks of a chain.
#[derive(Debug)]
struct Chain(Arc<dyn ClientCertVerifier>);

impl TrustedAuthorities {
    /// These, PEM.
    pub fn new(authority_pem: &str) -> Result<Arc<Self>, ListenTlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(Chain::of(authority_pem)?))))
    }

    /// Others from the next handshake on; on an error nothing changes.
    pub fn replace(&self, authority_pem: &str) -> Result<(), ListenTlsError> {
        self.0.store(Arc::new(Chain::of(authority_pem)?));
        Ok(())
    }
}

impl Chain {
    fn of(authority_pem: &str) -> Result<Self, ListenTlsError> {
        let roots = roots(&certificates(authority_pem, "the authority's file")?)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self(verifier.map_err(|error| ListenTlsError::Verifier(error.to_string()))?))
    }
}

/// TLS for the agents' listener: an admitted certificate of this cluster, signed by one of these authorities, is
/// required; TLS 1.3 and HTTP/2 only.
pub fn agents_tls(
    certificate: Arc<ServerCertificate>,
    trusted: Arc<TrustedAuthorities>,
    cluster: Uuid,
    admit: Admit,
) -> Result<Arc<ServerConfig>, ListenTlsError> {
    let failed = |error: &dyn std::error::Error| ListenTlsError::Verifier(error.to_string());
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(Arc::new(AgentVerifier { trusted, cluster, admit }))
        .with_cert_resolver(certificate);
    Ok(finished(config, &[ALPN_H2]))
}

/// TLS for the front: no client certificate, HTTP/2 and HTTP/1.1.
pub fn front_tls(
    certificate: Arc<ServerCertificate>,
    min: TlsMin,
) -> Result<Arc<ServerConfig>, ListenTlsError> {
    let versions: &[_] = match min {
        TlsMin::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsMin::V1_3 => &[&rustls::version::TLS13],
    };
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| ListenTlsError::Verifier(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    Ok(finished(config, &[ALPN_H2, b"http/1.1"]))
}

fn finished(mut config: ServerConfig, protocols: &[&[u8]]) -> Arc<ServerConfig> {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// How far before its begin a certificate is taken: this collector issued it, so that it began is certain, and a clock
/// that was set back since is no reason to lock a fleet out.
const BEGIN_TOLERANCE: Duration = Duration::from_secs(400 * 86_400);

/// The moment to ask webpki about: the collector's time, moved into the certificate's life if it is off by no more than
/// is tolerated, or if it is not known.
fn moment(peer: &PeerIdentity, now: Timestamp, is_known: bool) -> UnixTime {
    let last = peer.not_after.minus(Duration::from_secs(1));
    let at = match () {
        () if !is_known => now.max(peer.not_before).min(last),
        () if now < peer.not_before && peer.not_before.since(now) <= BEGIN_TOLERANCE => peer.not_before,
        () if now > last && now < clock::tolerated_until(peer.not_before, peer.not_after) => last,
        () => now,
    };
    let seconds = at.as_millis().div_euclid(1000);
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Asks webpki for the chain, the dates and the purpose, and then who it is and whether the registry admits it:
/// inside the handshake, so that who is refused is told why.
struct AgentVerifier {
    trusted: Arc<TrustedAuthorities>,
    cluster: Uuid,
    admit: Admit,
}

impl AgentVerifier {
    fn chain(&self) -> Arc<Chain> {
        self.trusted.0.load_full()
    }
}

impl fmt::Debug for AgentVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentVerifier({})", self.cluster)
    }
}

impl ClientCertVerifier for AgentVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // An agent has one certificate, and shows it to whom it trusts.
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if intermediates.len() >= CLIENT_CHAIN_MAX {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let peer = parse_peer(end_entity, self.cluster);
        // A certificate that is not of our shape is judged by the clock alone, and refused below at the latest.
        let at = peer.as_ref().map_or(now, |peer| moment(peer, clock::now(), clock::is_known()));
        let verified = self.chain().0.verify_client_cert(end_entity, intermediates, at)?;
        let peer = peer.map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
        if (self.admit)(&peer) { Ok(verified) } else { Err(CertificateError::Revoked.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain().0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain().0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain().0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tocsin_shared::identity::AgentId;

    use super::*;

    // Cases: T1, T2, T3
    #[test]
    fn dates_are_judged_with_a_tolerance_and_not_by_a_clock_that_is_wrong() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let agent = AgentId(Uuid::nil());
        let (begin, end) = (1_800_000_000, 1_800_086_400);
        let peer = PeerIdentity { agent, serial: String::new(), not_before: at(begin), not_after: at(end) };
        for (now, is_known, want) in [
            (begin + 10, true, begin + 10),
            (begin - 3_600, true, begin),
            (begin - 401 * 86_400, true, begin - 401 * 86_400),
            (end + 299, true, end - 1),
            (end + 300, true, end + 300),
            (5, false, begin),
            (end + 86_400, false, end - 1),
            (-5, true, 0),
        ] {
            assert_eq!(moment(&peer, at(now), is_known).as_secs(), want.unsigned_abs(), "{now}");
        }
    }
}
