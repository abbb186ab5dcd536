//! The agent's identity on disk: the key it made, the certificate it got, and the collector that issued it.
//!
//! Promise: key and certificate are one file, exchanged in one step, so no crash leaves a pair that does not fit. A
//! key is on disk before anyone hears of it: an enrolment or renewal whose answer was lost is asked for again with
//! the same key. Nothing here ever deletes an identity, whatever a collector answers.
//! Not here: the calls that enrol and renew, when to retry.
//!
//! The directory, `DATA/identity`, mode 0700: `agent.pem` (key and certificate, 0600), `ca.pem` (whom to trust),
//! `identity.toml` (who and where), and, while a certificate is asked for, `pending.key`.

mod place;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use tocsin_proto::connect::Endpoint;
use tocsin_shared::certificate::{AgentCertificate, BACKDATED, InvalidCertificate, authority_cluster};
use tocsin_shared::identity::AgentId;
use tocsin_shared::private_file::{self, PrivateFileError};
use tocsin_shared::secret::{Secret, Sha256, sha256};
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls::{self, ClientIdentity, TlsError};

pub use place::{Front, InvalidPlace, Place, read_pin};

/// How many authorities a collector may have at a time: three, and room for what comes.
const AUTHORITIES_MAX: usize = 8;

/// Why the identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error(
        "the identity in {dir} is incomplete: {missing} is missing; restore it from a backup or enrol this host again"
    )]
    Incomplete { dir: PathBuf, missing: &'static str },
    #[error("{path} is damaged: {reason}; restore it from a backup or enrol this host again")]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{dir} mixes two identities: agent.pem is of {certificate}, identity.toml of {place}; restore both from one backup"
    )]
    Mixed { dir: PathBuf, certificate: String, place: String },
    #[error(
        "this host already has an identity in {dir}; it has to be set aside before the host can enrol anew"
    )]
    Present { dir: PathBuf },
    #[error("the collector's answer is not usable: {0}")]
    Answer(#[from] InvalidAnswer),
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
}

/// Why what a collector issued is not taken; the identity that was there stays.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAnswer {
    #[error(transparent)]
    Pem(#[from] TlsError),
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    #[error("its certificate is for another key than the one that was asked for")]
    OtherKey,
    #[error("its certificate is for agent {got}, this is agent {expected}")]
    OtherAgent { got: AgentId, expected: AgentId },
    #[error("it has {0} certificate authorities, at most {AUTHORITIES_MAX} can be")]
    Authorities(usize),
    #[error("it has a certificate that is not of an authority of this agent's cluster")]
    OtherCluster,
}

/// An identity, whole and consistent.
#[derive(Clone, Debug)]
pub struct Identity {
    pub place: Place,
    /// 32 hex digits.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The authorities that the agent trusts, PEM.
    pub authority_pem: String,
    client: ClientIdentity,
}

impl Identity {
    /// TLS towards the collector, with this identity.
    pub fn tls(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        tls::trusting(&self.authority_pem, Some(&self.client))
    }

    /// The authorities that it trusts, as the collector is told; `None` if they cannot be read.
    pub fn bundle_sha256(&self) -> Option<Sha256> {
        tls::bundle_sha256(&self.authority_pem).ok()
    }

    /// When to ask for the next certificate; `jitter` from 0 to 1, drawn anew for each certificate.
    pub fn renew_at(&self, jitter: f64) -> Timestamp {
        renew_at(self.issued_at(), self.not_after, jitter)
    }

    /// The shortest time between two renewals, whatever the clocks say: a tenth of a certificate's life, and at least
    /// five seconds.
    pub fn renewals_apart(&self) -> Duration {
        (self.not_after.since(self.issued_at()) / 10).max(Duration::from_secs(5))
    }

    /// How much of the certificate's life is left, in percent.
    pub fn percent_left(&self, now: Timestamp) -> u64 {
        let life = self.not_after.since(self.issued_at()).as_secs().max(1);
        self.not_after.since(now).as_secs() * 100 / life
    }

    /// When it was issued, by the collector's clock.
    pub fn issued_at(&self) -> Timestamp {
        self.not_before.plus(BACKDATED).min(self.not_after)
    }
}

/// Half of a certificate's life, give or take a tenth, so that a fleet that enrolled at once does not renew at once.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, jitter: f64) -> Timestamp {
    // `clamp` keeps NaN, which `mul_f64` would panic on.
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
    not_before.plus(not_after.since(not_before).mul_f64(0.4 + 0.2 * jitter))
}

impl Identity {
    /// Proves the identity's key where its certificate is good for nothing: a request of the key, which says this name.
    pub fn proof_der(&self, common_name: &str) -> Result<Vec<u8>, IdentityError> {
        let key = KeyPair::from_pem(self.client.key_pem.expose())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        Ok(params.serialize_request(&key)?.der().to_vec())
    }
}

/// A key that waits for its certificate. It is on disk.
pub struct PendingKey(KeyPair);

impl PendingKey {
    /// The request to send: PKCS #10, DER. It says nothing but the key, and that its sender holds it.
    pub fn csr_der(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub fn sha256(&self) -> Sha256 {
        sha256(&self.0.subject_public_key_info())
    }
}

/// The directory of an identity.
#[derive(Clone, Debug)]
pub struct IdentityDir(PathBuf);

impl IdentityDir {
    /// `DATA/identity`, made if it is not there.
    pub fn open(data: &Path) -> Result<Self, IdentityError> {
        let dir = data.join("identity");
        private_file::create_dir(&dir)?;
        Ok(Self(dir))
    }

    fn pair(&self) -> PathBuf {
        self.0.join("agent.pem")
    }

    fn authority(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    fn place(&self) -> PathBuf {
        self.0.join("identity.toml")
    }

    fn pending(&self) -> PathBuf {
        self.0.join("pending.key")
    }

    /// When the present certificate was written here, by this host's own clock, right or wrong.
    pub fn received_at(&self) -> Option<Timestamp> {
        let written = std::fs::metadata(self.pair()).and_then(|metadata| metadata.modified());
        written.ok().map(Timestamp::from_system)
    }

    /// Makes durable what a kill between a file and its sync has left only readable.
    pub fn settle(&self) -> Result<(), IdentityError> {
        Ok(private_file::settle(&self.0)?)
    }

    /// The identity, or `None` on a host that has not enrolled. An enrolment that was cut short is none.
    pub fn load(&self) -> Result<Option<Identity>, IdentityError> {
        let Some(pair) = private_file::read(&self.pair())? else { return Ok(None) };
        let incomplete = |missing| IdentityError::Incomplete { dir: self.0.clone(), missing };
        let authority = private_file::read(&self.authority())?.ok_or_else(|| incomplete("ca.pem"))?;
        let place = private_file::read(&self.place())?.ok_or_else(|| incomplete("identity.toml"))?;
        let place = Place::parse(&place).map_err(|error| damaged(&self.place(), &error))?;
        let identity = identity(pair, authority, place).map_err(|error| damaged(&self.pair(), &error))?;
        let (certificate, place) = (identity.certificate, identity.identity.place.name());
        if certificate.name != place {
            let (certificate, place) = (certificate.name.to_string(), place.to_string());
            return Err(IdentityError::Mixed { dir: self.0.clone(), certificate, place });
        }
        // Says now, not at the first connection, that key and certificate or the authority are of no use.
        identity.identity.tls().map_err(|error| damaged(&self.pair(), &error))?;
        Ok(Some(identity.identity))
    }

    /// The key to ask for a certificate with: the one that an earlier attempt left, or a new one.
    pub fn pending_key(&self) -> Result<PendingKey, IdentityError> {
        let left = private_file::read(&self.pending())?.and_then(|pem| KeyPair::from_pem(&pem).ok());
        match left {
            // Else a crash came between taking a certificate and dropping the key from here.
            Some(key) if !self.in_use(&key)? => return Ok(PendingKey(key)),
            _ => {}
        }
        let key = KeyPair::generate()?;
        private_file::replace(&self.pending(), &key.serialize_pem())?;
        Ok(PendingKey(key))
    }

    fn in_use(&self, key: &KeyPair) -> Result<bool, IdentityError> {
        let pair = private_file::read(&self.pair())?;
        Ok(pair
            .and_then(|pem| KeyPair::from_pem(&pem).ok())
            .is_some_and(|used| used.subject_public_key_info() == key.subject_public_key_info()))
    }

    /// Takes what a first enrolment brought: the certificate for `key`, the authorities to trust, both PEM. The
    /// place says who the collector says we are.
    pub fn enrolled(
        &self,
        key: PendingKey,
        certificate_pem: &str,
        authority_pem: &str,
        place: Place,
    ) -> Result<Identity, IdentityError> {
        if self.pair().exists() {
            return Err(IdentityError::Present { dir: self.0.clone() });
        }
        let identity = answered(&key, certificate_pem, authority_pem, place)?;
        // The pair is last: with it, and not before, this host has an identity.
        private_file::replace(&self.authority(), authority_pem)?;
        private_file::replace(&self.place(), &identity.place.print())?;
        self.take_over(&key, certificate_pem)?;
        Ok(identity)
    }

    /// Takes what a renewal brought: a certificate for `key`, of the same agent, and the authorities to trust from
    /// now on.
    pub fn renewed(
        &self,
        key: PendingKey,
        certificate_pem: &str,
        authority_pem: &str,
        present: &Identity,
    ) -> Result<Identity, IdentityError> {
        let identity = answered(&key, certificate_pem, authority_pem, present.place.clone())?;
        // Either set of authorities goes with either pair: both pairs are of the cluster, and a collector that
        // changes its authority announces the new one beside the old.
        private_file::replace(&self.authority(), authority_pem)?;
        self.take_over(&key, certificate_pem)?;
        Ok(identity)
    }

    /// Trusts these authorities from now on, PEM: all of them of the identity's cluster.
    pub fn trusts(&self, present: &Identity, authority_pem: &str) -> Result<Identity, IdentityError> {
        let authorities = tls::certificates(authority_pem, "the authorities").map_err(InvalidAnswer::from)?;
        if authorities.len() > AUTHORITIES_MAX {
            return Err(InvalidAnswer::Authorities(authorities.len()).into());
        }
        let ours = |der: &_| authority_cluster(der) == Some(present.place.cluster);
        if !authorities.iter().all(|authority| ours(authority.as_ref())) {
            return Err(InvalidAnswer::OtherCluster.into());
        }
        let identity = Identity { authority_pem: authority_pem.to_owned(), ..present.clone() };
        identity.tls().map_err(InvalidAnswer::from)?;
        private_file::replace(&self.authority(), authority_pem)?;
        Ok(identity)
    }

    fn take_over(&self, key: &PendingKey, certificate_pem: &str) -> Result<(), IdentityError> {
        private_file::replace(&self.pair(), &pair_pem(key, certificate_pem))?;
        Ok(private_file::remove(&self.pending())?)
    }

    /// Moves the identity out of the way, for a host that is to be another agent from now on; says where to.
    pub fn set_aside(&self, now: Timestamp) -> Result<PathBuf, IdentityError> {
        let aside = self.0.with_file_name(format!("identity.replaced-{}", now.as_millis()));
        private_file::move_dir(&self.0, &aside)?;
        private_file::create_dir(&self.0)?;
        Ok(aside)
    }

    /// Writes down where the collector's front listens, and what its chain ends in.
    pub fn fronted(&self, present: &Identity, front: Front) -> Result<Identity, IdentityError> {
        let mut identity = present.clone();
        identity.place.front = Some(front);
        private_file::replace(&self.place(), &identity.place.print())?;
        Ok(identity)
    }

    /// Writes down that the collector has moved.
    pub fn moved(&self, present: &Identity, collector: Endpoint) -> Result<Identity, IdentityError> {
        let mut identity = present.clone();
        identity.place.collector = collector;
        private_file::replace(&self.place(), &identity.place.print())?;
        Ok(identity)
    }
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), reason: error.to_string() }
}

fn pair_pem(key: &PendingKey, certificate_pem: &str) -> String {
    format!("{}{}\n", key.0.serialize_pem(), certificate_pem.trim())
}

/// The certificates of `agent.pem`, which may be printed, unlike the key before them.
fn without_key(pair: &str) -> String {
    pair.find("-----BEGIN CERTIFICATE-----").map_or_else(String::new, |start| pair[start..].to_owned())
}

/// An identity with what its certificate says.
struct Read {
    identity: Identity,
    certificate: AgentCertificate,
}

fn identity(pair: String, authority_pem: String, place: Place) -> Result<Read, InvalidAnswer> {
    let chain = tls::certificates(&pair, "agent.pem")?;
    let certificate = AgentCertificate::parse(chain.first().map_or(&[], |own| own.as_ref()))?;
    let identity = Identity {
        place,
        serial: certificate.serial.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        authority_pem,
        client: ClientIdentity { chain_pem: without_key(&pair), key_pem: Secret::new(pair) },
    };
    Ok(Read { identity, certificate })
}

/// The identity that an answer makes, once it is sure that it is an answer to this key and for this agent.
fn answered(
    key: &PendingKey,
    certificate_pem: &str,
    authority_pem: &str,
    place: Place,
) -> Result<Identity, InvalidAnswer> {
    let read = identity(pair_pem(key, certificate_pem), authority_pem.to_owned(), place)?;
    if read.certificate.key_sha256 != key.sha256() {
        return Err(InvalidAnswer::OtherKey);
    }
    let (got, expected) = (read.certificate.name, read.identity.place.name());
    if got != expected {
        return Err(InvalidAnswer::OtherAgent { got: got.agent, expected: expected.agent });
    }
    read.identity.tls()?;
    Ok(read.identity)
}

#[cfg(test)]
mod tests;
