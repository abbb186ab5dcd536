//! What an agent's certificate says: which agent, of which cluster, with which key, for how long.
//!
//! Promise: exactly the shape our authority issues is read — one URI name `tocsin://CLUSTER/agent/AGENT`, client
//! authentication and nothing else, not an authority, a serial of at most 128 bits — anything else is refused.
//! Not here: signatures and validity in time (TLS checks them), whether the certificate is revoked (the registry).

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::identity::AgentId;
use crate::secret::{Sha256, hex, sha256};
use crate::time::Timestamp;

/// How far before its issue an agent's certificate begins: a host whose clock is a little late can use it at once.
pub const BACKDATED: std::time::Duration = std::time::Duration::from_secs(300);

/// An agent's name in certificates, `tocsin://CLUSTER/agent/AGENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentUri {
    /// The cluster whose authority signs.
    pub cluster: Uuid,
    pub agent: AgentId,
}

impl fmt::Display for AgentUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/agent/{}", cluster_uri(self.cluster), self.agent)
    }
}

/// An authority's name in its own certificate, `tocsin://CLUSTER`.
pub fn cluster_uri(cluster: Uuid) -> String {
    format!("tocsin://{}", cluster.hyphenated())
}

/// Reads what `cluster_uri` writes, and nothing else.
pub fn parse_cluster_uri(text: &str) -> Option<Uuid> {
    let cluster = Uuid::try_parse(text.strip_prefix("tocsin://")?).ok()?;
    (cluster_uri(cluster) == text).then_some(cluster)
}

/// The cluster that an authority's certificate (DER) names; `None` for a certificate of anything else.
pub fn authority_cluster(der: &[u8]) -> Option<Uuid> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    match names.map(|names| names.value.general_names.as_slice()).unwrap_or_default() {
        [GeneralName::URI(uri)] if certificate.is_ca() => parse_cluster_uri(uri),
        _ => None,
    }
}

impl FromStr for AgentUri {
    type Err = InvalidCertificate;

    /// Only the one spelling that `Display` writes: identities are compared as text elsewhere.
    fn from_str(text: &str) -> Result<Self, InvalidCertificate> {
        let invalid = || InvalidCertificate::Name(shortened(text));
        let (cluster, agent) = text.split_once("/agent/").ok_or_else(invalid)?;
        let cluster = parse_cluster_uri(cluster).ok_or_else(invalid)?;
        let read = Self { cluster, agent: AgentId(Uuid::try_parse(agent).map_err(|_| invalid())?) };
        if read.to_string() == text { Ok(read) } else { Err(invalid()) }
    }
}

/// A certificate of an agent, as far as Tocsin reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCertificate {
    pub name: AgentUri,
    /// 32 hex digits.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub key_sha256: Sha256,
}

/// Why a certificate is not one of an agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    #[error("not an X.509 certificate in DER")]
    Encoding,
    #[error("the certificate has {0} subject alternative names, an agent's has exactly one")]
    Names(usize),
    #[error("the certificate names {0:?}, an agent's names tocsin://CLUSTER/agent/AGENT")]
    Name(String),
    #[error("the certificate is not for client authentication alone")]
    Purpose,
    #[error("the certificate is that of an authority")]
    Authority,
    #[error("the certificate's serial number is longer than 128 bits")]
    Serial,
}

impl AgentCertificate {
    /// Reads a certificate in DER.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|_| InvalidCertificate::Encoding)?;
        if !rest.is_empty() {
            return Err(InvalidCertificate::Encoding);
        }
        check_purpose(&certificate)?;
        let validity = certificate.validity();
        let at = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        Ok(Self {
            name: name_of(&certificate)?,
            serial: serial_text(certificate.raw_serial())?,
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
            key_sha256: sha256(certificate.public_key().raw),
        })
    }
}

fn check_purpose(certificate: &X509Certificate<'_>) -> Result<(), InvalidCertificate> {
    if certificate.basic_constraints().map_err(|_| InvalidCertificate::Encoding)?.is_some_and(|c| c.value.ca)
    {
        return Err(InvalidCertificate::Authority);
    }
    let usage = certificate.extended_key_usage().map_err(|_| InvalidCertificate::Encoding)?;
    let usage = usage.ok_or(InvalidCertificate::Purpose)?.value;
    let others = usage.any
        || usage.server_auth
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    if usage.client_auth && !others { Ok(()) } else { Err(InvalidCertificate::Purpose) }
}

fn name_of(certificate: &X509Certificate<'_>) -> Result<AgentUri, InvalidCertificate> {
    let names = certificate.subject_alternative_name().map_err(|_| InvalidCertificate::Encoding)?;
    match names.map(|names| names.value.general_names.as_slice()).unwrap_or_default() {
        [GeneralName::URI(uri)] => uri.parse(),
        [other] => Err(InvalidCertificate::Name(shortened(&format!("{other:?}")))),
        names => Err(InvalidCertificate::Names(names.len())),
    }
}

/// A serial number as 32 hex digits: DER drops leading zeros and adds one to keep it positive.
fn serial_text(raw: &[u8]) -> Result<String, InvalidCertificate> {
    let digits = raw.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &raw[first..]);
    let mut serial = [0u8; 16];
    let start = serial.len().checked_sub(digits.len()).ok_or(InvalidCertificate::Serial)?;
    serial[start..].copy_from_slice(digits);
    Ok(hex(&serial))
}

/// The beginning of a text from outside, for an error message.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_name_has_one_spelling() {
        let cluster = "6f1c2d3e-0000-4000-8000-000000000001";
        let agent = "6f1c2d3e-0000-4000-8000-000000000002";
        let good = format!("tocsin://{cluster}/agent/{agent}");
        assert_eq!(good.parse::<AgentUri>().unwrap().to_string(), good);
        for bad in [
            String::new(),
            format!("tocsin://{cluster}"),
            format!("https://{cluster}/agent/{agent}"),
            format!("tocsin://{cluster}/agent/{agent}/"),
            format!("tocsin://{cluster}/agent/{}", agent.to_uppercase()),
            format!("tocsin://{cluster}/agent/{}", agent.replace('-', "")),
            format!("tocsin://{cluster}/agent/{{{agent}}}"),
            format!("tocsin://{cluster}/agent/{agent}/agent/{agent}"),
        ] {
            assert!(bad.parse::<AgentUri>().is_err(), "{bad}");
        }
    }

    #[test]
    fn serials_are_padded_and_bounded() {
        assert_eq!(serial_text(&[0, 0xff]).unwrap(), format!("{}ff", "00".repeat(15)));
        assert_eq!(serial_text(&[0]).unwrap(), "00".repeat(16));
        let mut long = vec![0];
        long.extend([0xab; 16]);
        assert_eq!(serial_text(&long).unwrap(), "ab".repeat(16));
        assert_eq!(serial_text(&[1; 17]), Err(InvalidCertificate::Serial));
    }

    #[test]
    fn garbage_is_not_a_certificate() {
        for der in [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0; 64]] {
            assert_eq!(AgentCertificate::parse(der), Err(InvalidCertificate::Encoding), "{der:?}");
        }
    }
}
