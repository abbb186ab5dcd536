//! A host whose clock is wrong must be heard all the same: how an agent judges the dates of its collector's certificate.
//!
//! Promise: signature, authority, name and purpose are asked for as ever; only the dates are read with a tolerance, and
//! never earlier than the agent's own certificate was issued, because since then it can only have become later. What
//! that gives away is little: the collector's key is made anew at each start and is nowhere on disk, and the authority
//! is the one that the host enrolled with.
//! Not here: the collector's own judgement of agents, which goes by its registry.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// A year, and what people need to notice.
const TOLERANCE: Duration = Duration::from_secs(400 * 86_400);

/// Asks `chain`, and again for a moment within the certificate's life when only the date is against it.
#[derive(Debug)]
pub(super) struct Tolerant {
    pub(super) chain: Arc<dyn ServerCertVerifier>,
    /// It is later than this, in seconds since the epoch.
    pub(super) not_earlier: u64,
}

/// The begin and end of a certificate, in seconds since the epoch.
pub(super) fn life(certificate: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = |at: x509_parser::time::ASN1Time| u64::try_from(at.timestamp()).ok();
    Some((seconds(certificate.validity().not_before)?, seconds(certificate.validity().not_after)?))
}

fn is_about_dates(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let Error::InvalidCertificate(error) = error else { return false };
    matches!(error, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

impl ServerCertVerifier for Tolerant {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ask = |seconds| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
        };
        let now = now.as_secs().max(self.not_earlier);
        let refused = match ask(now) {
            Err(error) if is_about_dates(&error) => error,
            verified => return verified,
        };
        let Some((begin, end)) = life(end_entity).filter(|(begin, end)| begin < end) else {
            return Err(refused);
        };
        let within = now.clamp(begin, end - 1);
        if now.abs_diff(within) > TOLERANCE.as_secs() {
            return Err(refused);
        }
        ask(within)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{provider, roots};
    use rustls::client::WebPkiServerVerifier;

    const DAY: u64 = 86_400;
    /// 2026-12-01.
    const BEGIN: u64 = 1_796_083_200;

    /// An authority, and a server's certificate for `localhost` that lasts ten days from `BEGIN`.
    fn chain(name: &str) -> (CertificateDer<'static>, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_der(authority.der(), key).unwrap();
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 12, 1);
        params.not_after = rcgen::date_time_ymd(2026, 12, 11);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let server = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
        (authority.der().clone(), server.der().clone())
    }

    // Cases: T4, T3, H14
    #[test]
    fn only_dates_are_read_with_a_tolerance() {
        let ((authority, server), (_, stranger)) = (chain("localhost"), chain("localhost"));
        let (_, misnamed) = chain("elsewhere");
        let chain =
            WebPkiServerVerifier::builder_with_provider(roots(&[authority]).unwrap().into(), provider());
        let verifier = Tolerant { chain: chain.build().unwrap(), not_earlier: BEGIN - DAY };
        for (now, certificate, taken, why) in [
            (BEGIN + DAY, &server, true, "a right clock"),
            (BEGIN + 375 * DAY, &server, true, "a year ahead"),
            (BEGIN + 420 * DAY, &server, false, "too far ahead"),
            (BEGIN - 365 * DAY, &server, true, "a year behind"),
            (0, &server, true, "1970: it is later than the own certificate's begin"),
            (BEGIN + DAY, &stranger, false, "of another authority"),
            (0, &stranger, false, "of another authority, with a wrong clock"),
            (BEGIN + 20 * DAY, &misnamed, false, "of another name"),
        ] {
            let name = ServerName::try_from("localhost").unwrap();
            let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
            assert_eq!(verifier.verify_server_cert(certificate, &[], &name, &[], at).is_ok(), taken, "{why}");
        }
    }
}
