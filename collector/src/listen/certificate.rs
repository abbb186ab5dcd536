//! The certificate that a listener shows, exchangeable while it listens.
//!
//! Promise: a new certificate takes over only if its chain and key go together and it is valid now; otherwise the
//! old one stays. Connections that are open keep what they have.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tocsin_shared::secret::{Secret, Sha256, sha256};
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls::{TlsError, certificates, private_key, provider};

use crate::identity::ca::IssuedServer;

/// Why a certificate is not taken for a listener.
#[derive(Debug, thiserror::Error)]
pub enum ServerCertificateError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the certificate and the private key do not go together: {0}")]
    Pair(String),
    #[error("the certificate cannot be read: {0}")]
    Encoding(String),
    #[error("the certificate names no server (it has no subject alternative name)")]
    Nameless,
    #[error("the certificate is valid from {not_before} to {not_after}, and now it is {now}")]
    Date { not_before: Timestamp, not_after: Timestamp, now: Timestamp },
}

/// A chain with its key, as the handshake uses it.
#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// What a listener shows. Clients need not say which name they want.
#[derive(Debug)]
pub struct ServerCertificate(ArcSwap<Shown>);

impl ServerCertificate {
    /// From a chain (the server's own first, the authority last) and its key (PKCS #8), both PEM.
    pub fn new(
        chain_pem: &str,
        key_pem: &Secret,
        now: Timestamp,
    ) -> Result<Arc<Self>, ServerCertificateError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(checked(chain_pem, key_pem, now)?))))
    }

    /// From what the built-in authority issued.
    pub fn issued(issued: &IssuedServer, now: Timestamp) -> Result<Arc<Self>, ServerCertificateError> {
        Self::new(&issued.chain_pem, &issued.key_pem, now)
    }

    /// Shows another one from the next handshake on; on an error nothing changes.
    pub fn replace(
        &self,
        chain_pem: &str,
        key_pem: &Secret,
        now: Timestamp,
    ) -> Result<(), ServerCertificateError> {
        self.0.store(Arc::new(checked(chain_pem, key_pem, now)?));
        Ok(())
    }

    /// When the present certificate begins and ends.
    pub fn validity(&self) -> (Timestamp, Timestamp) {
        let shown = self.0.load();
        (shown.not_before, shown.not_after)
    }

    /// SHA-256 of the last certificate of the chain: what join tokens for this listener pin.
    pub fn pin(&self) -> Sha256 {
        // `checked` took no empty chain; the digest of nothing would match nobody.
        self.0.load().key.cert.last().map_or([0; 32], |authority| sha256(authority))
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

fn checked(chain_pem: &str, key_pem: &Secret, now: Timestamp) -> Result<Shown, ServerCertificateError> {
    let chain = certificates(chain_pem, "the server's certificate")?;
    let key = private_key(key_pem)?;
    let key = CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| ServerCertificateError::Pair(error.to_string()))?;
    let (not_before, not_after) = read(key.cert.first().map_or(&[], |own| own.as_ref()))?;
    if now < not_before || now >= not_after {
        return Err(ServerCertificateError::Date { not_before, not_after, now });
    }
    Ok(Shown { key: Arc::new(key), not_before, not_after })
}

/// The validity of a certificate that names a server.
fn read(certificate: &[u8]) -> Result<(Timestamp, Timestamp), ServerCertificateError> {
    let unreadable = |error: String| ServerCertificateError::Encoding(error);
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| unreadable(error.to_string()))?;
    let names = certificate.subject_alternative_name().map_err(|error| unreadable(error.to_string()))?;
    if names.is_none_or(|names| names.value.general_names.is_empty()) {
        return Err(ServerCertificateError::Nameless);
    }
    let at = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let validity = certificate.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}
