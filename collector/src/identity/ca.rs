//! A built-in certificate authority: one P-256 key in a directory of its own, that signs agents and this server.
//!
//! Promise: the pair is made once, whole or not at all, and never overwritten. An agent's certificate takes nothing
//! from the request but its public key, whose possession the request proves; all else is set here. The authority
//! signs end entities only (path length 0), agents for client and servers for server authentication alone, so
//! neither can pass for the other.
//! Not here: whether someone deserves a certificate (`decide`), the record of it (the journal).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName, UnixTime};
use tocsin_shared::certificate::{AgentUri, BACKDATED, cluster_uri, parse_cluster_uri};
use tocsin_shared::identity::AgentId;
use tocsin_shared::private_file::{self, PrivateFileError};
use tocsin_shared::secret::{NoRandomness, Secret, Sha256, hex, random_bytes, sha256};
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls::{self, TlsError};
use uuid::Uuid;
use x509_parser::extensions::GeneralName;

const SECOND: Duration = Duration::from_secs(1);
const EPOCH: Timestamp = Timestamp::from_millis(0);
/// The end of the year 9999, the last that a certificate can name.
const LAST: Timestamp = Timestamp::from_millis(253_402_300_799_000);
const DAY: Duration = Duration::from_secs(86_400);
/// The authority outlives every server it runs on; rotation is a decision, not a date.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// Long enough that a collector which is down for a month comes back with a valid certificate.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// How far before its issue a server's certificate begins: a host whose clock is months late can still connect. The key
/// was made with it and never leaves the process, so there is nothing that an earlier beginning could let in.
pub const SERVER_BACKDATED: Duration = Duration::from_secs(90 * 86_400);
/// The default for agents: a stolen key is of use for a day.
pub const AGENT_LIFETIME: Duration = DAY;
/// The longest that configuration may ask for.
pub const AGENT_LIFETIME_MAX: Duration = Duration::from_secs(7 * 86_400);
/// A request with a P-256 key is some 300 bytes long.
const REQUEST_SIZE_MAX: usize = 8 << 10;
/// Names of one server: more is a mistake in the configuration.
const SERVER_NAMES_MAX: usize = 100;

/// Why the authority cannot be used or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error(
        "{present} is there but {missing} is not: restore {missing} from a backup, or, if no agent has ever enrolled, \
         remove the directory and start again"
    )]
    Half { present: PathBuf, missing: PathBuf },
    #[error("{dir} holds other files but no authority; give the authority a directory of its own")]
    NotEmpty { dir: PathBuf },
    #[error("{present} is there but {missing} is not: put both there, or remove {present}")]
    HalfIncoming { present: PathBuf, missing: PathBuf },
    #[error(
        "the authority in {path} names cluster {theirs}, this is cluster {ours}: its certificate needs the URI \
         tocsin://{ours} as its one subject alternative name"
    )]
    OtherCluster { path: PathBuf, theirs: Uuid, ours: Uuid },
    #[error("what the authority in question signs would not be taken: {0}")]
    Useless(String),
    #[error(
        "the key of certificate authority {number} (SHA-256 {name}…) is not below {dir}: restore it from a backup"
    )]
    Missing { number: u32, name: String, dir: PathBuf },
    #[error("the journal knows certificate authorities, and none of them issues: restore it from a backup")]
    NoneIssues,
    #[error("the change is recorded, but not all of it is in force: {0}; repeat the step")]
    Install(String),
    #[error("{path} is not usable: {reason}; restore it from a backup")]
    Damaged { path: PathBuf, reason: String },
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error("a server needs at least one and at most {SERVER_NAMES_MAX} names to be reached by, not {0}")]
    NameCount(usize),
    #[error("{0:?} is neither a DNS name nor an address")]
    Name(String),
    #[error("not a certificate request that proves possession of its key: {0}")]
    Request(String),
    #[error("the request's key is neither P-256 nor Ed25519")]
    KeyKind,
    #[error("an agent's certificate lasts between a second and {max} days", max = AGENT_LIFETIME_MAX.as_secs() / 86_400)]
    Lifetime,
    #[error("the certificate authority expires at {0}; no certificate can outlive it")]
    Expired(Timestamp),
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
}

/// The authority, its key in memory.
pub struct Authority {
    cluster: Uuid,
    certificate: CertificateDer<'static>,
    pem: String,
    not_before: Timestamp,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub pem: String,
    /// 32 hex digits.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub key_sha256: Sha256,
}

/// A certificate for a server, with its key.
#[derive(Clone, Debug)]
pub struct IssuedServer {
    /// The certificate and the authority's, PEM, in the order TLS sends them.
    pub chain_pem: String,
    /// PKCS #8, PEM.
    pub key_pem: Secret,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// The directory's two files.
fn files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.key"), dir.join("ca.pem"))
}

impl Authority {
    /// Loads the authority from its directory; makes it there first if directory or content are missing.
    pub fn create_or_load(dir: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        let (key_path, pem_path) = files(dir);
        match (private_file::read(&key_path)?, read_certificate(&pem_path)?) {
            (Some(key), Some(pem)) => Self::load(dir, Secret::new(key), pem),
            (None, None) => {
                Self::create(dir, uuid::Builder::from_random_bytes(random_bytes()?).into_uuid(), now)
            }
            (Some(_), None) => Err(AuthorityError::Half { present: key_path, missing: pem_path }),
            (None, Some(_)) => Err(AuthorityError::Half { present: pem_path, missing: key_path }),
        }
    }

    /// The authority in a directory, if one is there.
    pub fn find(dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let (key_path, pem_path) = files(dir);
        match (private_file::read(&key_path)?, read_certificate(&pem_path)?) {
            (Some(key), Some(pem)) => Self::load(dir, Secret::new(key), pem).map(Some),
            (None, None) => Ok(None),
            (Some(_), None) => Err(AuthorityError::HalfIncoming { present: key_path, missing: pem_path }),
            (None, Some(_)) => Err(AuthorityError::HalfIncoming { present: pem_path, missing: key_path }),
        }
    }

    /// SHA-256 of the certificate (DER) of the authority in a directory, with or without its key.
    pub fn certificate_in(dir: &Path) -> Result<Option<Sha256>, AuthorityError> {
        let Some(pem) = read_certificate(&files(dir).1)? else { return Ok(None) };
        let first = tls::certificates(&pem, "ca.pem").ok().and_then(|all| all.into_iter().next());
        Ok(first.map(|certificate| sha256(&certificate)))
    }

    /// Makes an authority of a cluster in a directory of its own.
    pub fn create(dir: &Path, cluster: Uuid, now: Timestamp) -> Result<Self, AuthorityError> {
        if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(AuthorityError::NotEmpty { dir: dir.to_owned() });
        }
        let (key, pem) = new_pair(cluster, now)?;
        // Both files appear under their names in one step, however often this is interrupted.
        let mut staging = dir.as_os_str().to_owned();
        staging.push(".new");
        let staging = PathBuf::from(staging);
        private_file::create_dir(&staging)?;
        let (key_path, pem_path) = files(&staging);
        private_file::replace(&key_path, key.expose())?;
        private_file::replace(&pem_path, &pem)?;
        private_file::move_dir(&staging, dir)?;
        Self::load(dir, key, pem)
    }

    fn load(dir: &Path, key: Secret, pem: String) -> Result<Self, AuthorityError> {
        let (key_path, pem_path) = files(dir);
        let damaged = |path: &PathBuf, reason: String| AuthorityError::Damaged { path: path.clone(), reason };
        let pair = KeyPair::from_pem(key.expose()).map_err(|error| damaged(&key_path, error.to_string()))?;
        let certificate = tls::certificates(&pem, "ca.pem")
            .map_err(|error| damaged(&pem_path, error.to_string()))?
            .into_iter()
            .next()
            .ok_or_else(|| damaged(&pem_path, "it is empty".into()))?;
        let (cluster, (not_before, not_after)) =
            read_authority(&certificate, &pair).map_err(|reason| damaged(&pem_path, reason))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair)?;
        Ok(Self { cluster, certificate, pem, not_before, not_after, issuer })
    }

    /// The cluster's id, for life.
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// The authority's certificate, PEM: what clients trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate (DER): what join tokens pin.
    pub fn pin(&self) -> Sha256 {
        sha256(&self.certificate)
    }

    /// When the authority itself begins.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Whether a client that trusts this authority takes what it signs: authorities that were made elsewhere may have
    /// keys, names or limits that nobody here can do anything with.
    pub fn try_out(&self, now: Timestamp) -> Result<(), AuthorityError> {
        let useless = |error: &dyn std::fmt::Display| AuthorityError::Useless(error.to_string());
        let issued = self.issue_server(&["localhost".to_owned()], now)?;
        let chain = tls::certificates(&issued.chain_pem, "the certificate")?;
        let roots = tls::roots(&tls::certificates(&self.pem, "ca.pem")?)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
            .build()
            .map_err(|error| useless(&error))?;
        let name = ServerName::try_from("localhost").map_err(|error| useless(&error))?;
        let seconds = u64::try_from(now.as_millis() / 1_000).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (own, rest) = chain.split_first().ok_or_else(|| useless(&"it gave no certificate"))?;
        verifier.verify_server_cert(own, rest, &name, &[], at).map_err(|error| useless(&error))?;
        Ok(())
    }

    /// When the authority itself ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// A new key and certificate for a server that is reached by these DNS names and addresses.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<IssuedServer, AuthorityError> {
        if names.is_empty() || names.len() > SERVER_NAMES_MAX {
            return Err(AuthorityError::NameCount(names.len()));
        }
        let (mut params, (not_before, not_after)) = self.params(now, SERVER_LIFETIME, SERVER_BACKDATED)?;
        params.distinguished_name = distinguished(&format!("tocsin collector {}", self.cluster));
        params.subject_alt_names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedServer {
            chain_pem: certificate.pem() + &self.pem,
            key_pem: Secret::new(key.serialize_pem()),
            not_before,
            not_after,
        })
    }

    /// A certificate for the key of a request (PKCS #10, DER). `generation` is for people who read the certificate;
    /// the record of the serial is what counts.
    pub fn issue_agent(
        &self,
        csr_der: &[u8],
        agent: AgentId,
        generation: u32,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, AuthorityError> {
        if lifetime < Duration::from_secs(1) || lifetime > AGENT_LIFETIME_MAX {
            return Err(AuthorityError::Lifetime);
        }
        let key = requested_key(csr_der)?;
        let serial: [u8; 16] = random_bytes()?;
        let name = AgentUri { cluster: self.cluster, agent };
        let (mut params, (not_before, not_after)) = self.params(now, lifetime, BACKDATED)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = distinguished(&format!("tocsin agent {agent}"));
        params.distinguished_name.push(DnType::OrganizationalUnitName, format!("generation {generation}"));
        params.subject_alt_names = vec![SanType::URI(name.to_string().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            pem: certificate.pem(),
            serial: hex(&serial),
            not_before,
            not_after,
            key_sha256: sha256(&key.subject_public_key_info()),
        })
    }

    /// What every end entity has in common. Nothing outlives the authority.
    fn params(
        &self,
        now: Timestamp,
        lifetime: Duration,
        backdated: Duration,
    ) -> Result<(CertificateParams, (Timestamp, Timestamp)), AuthorityError> {
        if now >= self.not_after {
            return Err(AuthorityError::Expired(self.not_after));
        }
        let mut params = CertificateParams::default();
        let end = now.plus(lifetime).min(self.not_after);
        let validity = set_validity(&mut params, now.minus(backdated), end);
        params.serial_number = Some(SerialNumber::from_slice(&random_bytes::<16>()?));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok((params, validity))
    }
}

/// The one key of a request, once the request's signature shows that its sender holds it.
fn requested_key(csr_der: &[u8]) -> Result<rcgen::PublicKey, AuthorityError> {
    if csr_der.len() > REQUEST_SIZE_MAX {
        return Err(AuthorityError::Request(format!("it is longer than {REQUEST_SIZE_MAX} bytes")));
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
        .map_err(|error| AuthorityError::Request(error.to_string()))?;
    let key = request.public_key;
    // The kind is read from the signature; the length says whether the key is of that kind.
    let kind = key.algorithm();
    let p256 = *kind == rcgen::PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65;
    let ed25519 = *kind == rcgen::PKCS_ED25519 && key.der_bytes().len() == 32;
    if p256 || ed25519 { Ok(key) } else { Err(AuthorityError::KeyKind) }
}

fn new_pair(cluster: Uuid, now: Timestamp) -> Result<(Secret, String), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    set_validity(&mut params, now.minus(DAY), now.plus(AUTHORITY_LIFETIME));
    params.serial_number = Some(SerialNumber::from_slice(&random_bytes::<16>()?));
    params.distinguished_name = distinguished(&format!("tocsin authority {cluster}"));
    // Two authorities of a cluster need two names, or a client cannot say that it does not know one of them.
    params.distinguished_name.push(DnType::OrganizationalUnitName, hex(&random_bytes::<8>()?));
    params.subject_alt_names = vec![SanType::URI(cluster_uri(cluster).try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = params.self_signed(&key)?.pem();
    Ok((Secret::new(key.serialize_pem()), pem))
}

/// The cluster and the validity of an authority that goes with the key, or what is wrong with it.
fn read_authority(certificate: &[u8], key: &KeyPair) -> Result<(Uuid, (Timestamp, Timestamp)), String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err("it does not belong to ca.key".into());
    }
    if !certificate.is_ca() {
        return Err("it is not the certificate of an authority".into());
    }
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let cluster = match names.map(|names| names.value.general_names.as_slice()).unwrap_or_default() {
        [GeneralName::URI(uri)] => parse_cluster_uri(uri),
        _ => None,
    };
    let at = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let validity = certificate.validity();
    let validity = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
    cluster.map(|cluster| (cluster, validity)).ok_or_else(|| "it does not name a cluster".into())
}

/// The certificate is no secret, so its mode does not matter.
fn read_certificate(path: &Path) -> Result<Option<String>, AuthorityError> {
    match std::fs::read_to_string(path) {
        Ok(pem) => Ok(Some(pem)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AuthorityError::Damaged { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn server_name(name: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let invalid = || AuthorityError::Name(name.to_owned());
    // What a client would not accept as a server's name is no use in a certificate.
    rustls::pki_types::DnsName::try_from(name).map_err(|_| invalid())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| invalid())?))
}

fn distinguished(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Tocsin");
    name.push(DnType::CommonName, common_name);
    name
}

/// Writes a span into the parameters, to the second as certificates have it, and says what was written.
fn set_validity(params: &mut CertificateParams, from: Timestamp, to: Timestamp) -> (Timestamp, Timestamp) {
    let (from, to) = (from.align_down(SECOND).clamp(EPOCH, LAST), to.align_down(SECOND).clamp(EPOCH, LAST));
    params.not_before = date_time_ymd(1970, 1, 1) + from.since(EPOCH);
    params.not_after = date_time_ymd(1970, 1, 1) + to.since(EPOCH);
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use tocsin_shared::certificate::AgentCertificate;

    const NOW: Timestamp = Timestamp::from_millis(1_795_428_770_123);

    fn csr(key: &KeyPair, params: &CertificateParams) -> Vec<u8> {
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn authority() -> (tempfile::TempDir, PathBuf, Authority) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("ca");
        let authority = Authority::create_or_load(&dir, NOW).unwrap();
        (temporary, dir, authority)
    }

    #[test]
    fn the_authority_is_made_once_and_loaded_after() {
        let (_temporary, dir, made) = authority();
        let loaded = Authority::create_or_load(&dir, NOW.plus(DAY)).unwrap();
        assert_eq!((loaded.cluster(), loaded.pin()), (made.cluster(), made.pin()));
        assert_eq!(fs::metadata(dir.join("ca.key")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert!(made.not_after() > NOW.plus(Duration::from_secs(3649 * 86_400)));
    }

    #[test]
    fn an_interrupted_creation_starts_over() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("ca");
        fs::create_dir(temporary.path().join("ca.new")).unwrap();
        fs::write(temporary.path().join("ca.new/ca.key"), "half").unwrap();
        fs::create_dir(&dir).unwrap(); // An empty directory, as a package makes it.
        let made = Authority::create_or_load(&dir, NOW).unwrap();
        assert_eq!(Authority::create_or_load(&dir, NOW).unwrap().cluster(), made.cluster());
    }

    #[test]
    fn a_broken_directory_is_named_and_left_alone() {
        type Break = fn(&Path);
        let table: [(&str, Break); 7] = [
            ("ca.pem is not", |dir| fs::remove_file(dir.join("ca.pem")).unwrap()),
            ("ca.key is not", |dir| fs::remove_file(dir.join("ca.key")).unwrap()),
            ("ca.pem is not usable", |dir| fs::write(dir.join("ca.pem"), "").unwrap()),
            ("ca.key is not usable", |dir| fs::write(dir.join("ca.key"), "half").unwrap()),
            ("does not belong to ca.key", |dir| {
                let other = KeyPair::generate().unwrap().serialize_pem();
                fs::write(dir.join("ca.key"), other).unwrap();
            }),
            ("chmod 600", |dir| {
                fs::set_permissions(dir.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
            }),
            ("holds other files", |dir| {
                fs::remove_file(dir.join("ca.key")).unwrap();
                fs::rename(dir.join("ca.pem"), dir.join("other.pem")).unwrap();
            }),
        ];
        for (says, damage) in table {
            let (_temporary, dir, _) = authority();
            damage(&dir);
            let listing = |dir: &Path| {
                let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
                names.sort();
                names
            };
            let before = listing(&dir);
            let error = Authority::create_or_load(&dir, NOW).err().expect(says).to_string();
            assert!(error.contains(says), "{says}: {error}");
            assert_eq!(listing(&dir), before, "{says}");
        }
    }

    #[test]
    fn an_agents_certificate_takes_only_the_key_from_the_request() {
        let (_temporary, _, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let mut wish = CertificateParams::new(vec!["evil.example.com".to_owned()]).unwrap();
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let agent = AgentId(Uuid::from_u128(7));
        let issued = authority.issue_agent(&csr(&key, &wish), agent, 3, NOW, AGENT_LIFETIME).unwrap();

        let der = tls::certificates(&issued.pem, "issued").unwrap();
        let read = AgentCertificate::parse(&der[0]).unwrap();
        assert_eq!(read.name, AgentUri { cluster: authority.cluster(), agent });
        assert_eq!(read.serial, issued.serial);
        assert_eq!((read.not_before, read.not_after), (issued.not_before, issued.not_after));
        assert_eq!(read.key_sha256, issued.key_sha256);
        assert_eq!(read.key_sha256, sha256(&key.subject_public_key_info()));
        assert_eq!(issued.not_before, NOW.minus(BACKDATED).align_down(SECOND));
        assert_eq!(issued.not_after, NOW.plus(DAY).align_down(SECOND));
    }

    #[test]
    fn serials_differ_and_their_text_is_what_the_certificate_says() {
        let (_temporary, _, authority) = authority();
        let request = csr(&KeyPair::generate().unwrap(), &CertificateParams::default());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let issued =
                authority.issue_agent(&request, AgentId(Uuid::nil()), 1, NOW, AGENT_LIFETIME).unwrap();
            let der = tls::certificates(&issued.pem, "issued").unwrap();
            assert_eq!(AgentCertificate::parse(&der[0]).unwrap().serial, issued.serial);
            assert!(seen.insert(issued.serial));
        }
    }

    #[test]
    fn requests_that_prove_nothing_are_refused() {
        let (_temporary, _, authority) = authority();
        let plain = CertificateParams::default();
        let good = csr(&KeyPair::generate().unwrap(), &plain);
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let p384 = csr(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(), &plain);
        let ed25519 = csr(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), &plain);
        let agent = AgentId(Uuid::nil());
        for (request, lifetime, says) in [
            (&good, AGENT_LIFETIME, ""),
            (&ed25519, AGENT_LIFETIME_MAX, ""),
            (&forged, AGENT_LIFETIME, "possession"),
            (&p384, AGENT_LIFETIME, "neither P-256 nor"),
            (&vec![], AGENT_LIFETIME, "possession"),
            (&vec![0x30; 9000], AGENT_LIFETIME, "longer than"),
            (&good, Duration::ZERO, "lasts between"),
            (&good, AGENT_LIFETIME_MAX + DAY, "lasts between"),
        ] {
            let error = authority
                .issue_agent(request, agent, 1, NOW, lifetime)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(error.contains(says) && says.is_empty() == error.is_empty(), "{says}: {error}");
        }
    }

    #[test]
    fn nothing_outlives_the_authority() {
        let (_temporary, _, authority) = authority();
        let names = ["localhost".to_owned()];
        let late = authority.not_after().minus(DAY);
        assert_eq!(authority.issue_server(&names, late).unwrap().not_after, authority.not_after());
        let error = authority.issue_server(&names, authority.not_after()).unwrap_err();
        assert!(error.to_string().contains("expires at"), "{error}");
    }

    #[test]
    fn a_servers_names_are_checked() {
        let (_temporary, _, authority) = authority();
        for (names, says) in [
            (vec!["collector.example.com", "10.0.0.1", "::1"], ""),
            (vec![], "at least one"),
            (vec!["a name"], "neither a DNS name"),
            (vec![""], "neither a DNS name"),
            (vec!["https://collector"], "neither a DNS name"),
            (vec!["x"; 101], "not 101"),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let error =
                authority.issue_server(&names, NOW).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(says) && says.is_empty() == error.is_empty(), "{names:?}: {error}");
        }
    }
}
