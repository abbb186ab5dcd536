//! ⇄ The authorities on disk and in memory: which one signs, which are trusted, where their keys lie.
//!
//! The journal says which authorities there are and how they stand; here are their keys, found by the digest of their
//! certificate wherever they lie below the directory. So a crash between two files, or between a file and its event,
//! leaves nothing that a start or the repeated step does not put right. Promises: a key is durable before its authority
//! is in the journal, and is removed only when the journal says that nobody trusts it any more.
//! Not here: who may change what, and when (`state::authority`).
//!
//! The directory: `ca.key` and `ca.pem` of the first authority, the same in `incoming/` for the next one until a rotation
//! has begun with it, and then in a directory named by its digest.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tocsin_shared::access::{AuthorityState, CertificateAuthority};
use tocsin_shared::private_file;
use tocsin_shared::secret::{Sha256, hex, sha256};
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls;
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use super::ca::{Authority, AuthorityError};
use crate::state::command::NewAuthority;

/// Where the next authority is made or put.
const INCOMING: &str = "incoming";
/// Digits of the digest that name a directory: enough to tell a handful of authorities apart.
const NAME_DIGITS: usize = 16;

/// What has to be done when another authority signs or others are trusted, before anyone is told.
pub type Install = Box<dyn Fn(&Current) -> Result<(), String> + Send + Sync>;

/// The authorities as they are now.
pub struct Current {
    /// The number of the one that signs.
    pub number: u32,
    /// The one that signs.
    pub issuing: Arc<Authority>,
    /// The one that signed before, while it is still trusted and its key is there.
    pub outgoing: Option<Arc<Authority>>,
    /// All that are trusted, PEM.
    pub bundle_pem: String,
    /// `tls::bundle_sha256` of it.
    pub bundle_sha256: Sha256,
}

/// The authorities of a collector.
pub struct Authorities {
    dir: PathBuf,
    current: watch::Sender<Arc<Current>>,
    install: OnceLock<Install>,
    /// Held during a step of a rotation, from its look at the files to its effect.
    pub step: Mutex<()>,
}

impl Authorities {
    /// Loads the authorities of these records. Without any, the one in the directory is the first; it is made there if
    /// there is none.
    pub fn open(
        dir: &Path,
        records: &[CertificateAuthority],
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let current = match records {
            [] => Current::first(Authority::create_or_load(dir, now)?),
            records => Current::load(dir, records)?,
        };
        tidy(dir, records);
        let (current, _) = watch::channel(Arc::new(current));
        Ok(Self { dir: dir.to_owned(), current, install: OnceLock::new(), step: Mutex::default() })
    }

    /// As they are now.
    pub fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// A way to wait for the next change.
    pub fn changes(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    /// The cluster's id, which all its authorities name.
    pub fn cluster(&self) -> Uuid {
        self.current().issuing.cluster()
    }

    /// What is to be done at each change. Once: what is there already stays.
    pub fn install(&self, install: Install) {
        self.install.set(install).ok();
    }

    /// The authority that is to come: what lies in `incoming`, checked, or a new one that is made there.
    pub fn incoming(&self, now: Timestamp) -> Result<NewAuthority, AuthorityError> {
        let place = self.dir.join(INCOMING);
        let incoming = match Authority::find(&place)? {
            Some(authority) => authority,
            None => Authority::create(&place, self.cluster(), now)?,
        };
        if incoming.cluster() != self.cluster() {
            let (theirs, ours) = (incoming.cluster(), self.cluster());
            return Err(AuthorityError::OtherCluster { path: place, theirs, ours });
        }
        incoming.try_out(now)?;
        for path in [place.join("ca.key"), place.join("ca.pem"), place, self.dir.clone()] {
            private_file::settle(&path)?; // Somebody put it there, or an earlier try was killed before its sync.
        }
        Ok(describe(&incoming))
    }

    /// Whether the key of an authority is at hand.
    pub fn holds(&self, record: &CertificateAuthority) -> Result<(), AuthorityError> {
        find(&self.dir, record).map(drop)
    }

    /// Takes what the journal says now: others sign, others are trusted.
    pub fn follow(&self, records: &[CertificateAuthority]) -> Result<(), AuthorityError> {
        let current = Current::load(&self.dir, records)?;
        if let Some(install) = self.install.get() {
            install(&current).map_err(AuthorityError::Install)?;
        }
        self.current.send_replace(Arc::new(current));
        tidy(&self.dir, records);
        Ok(())
    }
}

impl Current {
    fn first(authority: Authority) -> Self {
        let (bundle_pem, pin) = (authority.pem().to_owned(), authority.pin());
        let bundle_sha256 = sha256(&pin);
        Self { number: 1, issuing: Arc::new(authority), outgoing: None, bundle_pem, bundle_sha256 }
    }

    fn load(dir: &Path, records: &[CertificateAuthority]) -> Result<Self, AuthorityError> {
        let at = |state| records.iter().find(|record| record.state == state);
        let issuing = at(AuthorityState::Issuing).ok_or(AuthorityError::NoneIssues)?;
        let outgoing = at(AuthorityState::Outgoing).and_then(|record| match find(dir, record) {
            Ok(authority) => Some(Arc::new(authority)),
            Err(error) => {
                tracing::error!(%error, "hosts that missed the change cannot come back by themselves");
                None
            }
        });
        let trusted: Vec<&CertificateAuthority> =
            records.iter().filter(|record| record.state.is_trusted()).collect();
        let bundle_pem: String =
            trusted.iter().map(|record| format!("{}\n", record.certificate_pem.trim())).collect();
        let bundle_sha256 = tls::bundle_sha256(&bundle_pem)?;
        let number = issuing.number;
        Ok(Self { number, issuing: Arc::new(find(dir, issuing)?), outgoing, bundle_pem, bundle_sha256 })
    }

    /// What the front shows itself with: the old authority until the rotation is finished, so that a host that missed
    /// the change can still come back.
    pub fn front(&self) -> &Authority {
        self.outgoing.as_ref().unwrap_or(&self.issuing)
    }

    /// For the record of a collector that has none.
    pub fn describe(&self) -> NewAuthority {
        describe(&self.issuing)
    }
}

fn describe(authority: &Authority) -> NewAuthority {
    NewAuthority {
        certificate_pem: authority.pem().to_owned(),
        sha256: authority.pin(),
        not_before: authority.not_before(),
        not_after: authority.not_after(),
    }
}

/// The directory that an authority has for itself.
fn own(dir: &Path, sha256: &Sha256) -> PathBuf {
    dir.join(&hex(sha256)[..NAME_DIGITS])
}

/// Where an authority may lie.
fn places(dir: &Path, sha256: &Sha256) -> [PathBuf; 3] {
    [own(dir, sha256), dir.to_owned(), dir.join(INCOMING)]
}

fn find(dir: &Path, record: &CertificateAuthority) -> Result<Authority, AuthorityError> {
    for place in places(dir, &record.sha256) {
        if Authority::certificate_in(&place)? == Some(record.sha256) {
            return match Authority::find(&place) {
                Ok(Some(authority)) => Ok(authority),
                Ok(None) | Err(AuthorityError::HalfIncoming { .. }) => Err(missing(dir, record)),
                Err(error) => Err(error),
            };
        }
    }
    Err(missing(dir, record))
}

fn missing(dir: &Path, record: &CertificateAuthority) -> AuthorityError {
    let name = hex(&record.sha256)[..NAME_DIGITS].to_owned();
    AuthorityError::Missing { number: record.number, name, dir: dir.to_owned() }
}

/// Puts files where the journal says: an authority that was taken up leaves `incoming`, keys of retired ones go. What
/// fails is tried again at the next change or start.
fn tidy(dir: &Path, records: &[CertificateAuthority]) {
    for record in records {
        if let Err(error) = tidy_one(dir, record) {
            tracing::warn!(%error, authority = record.number, "the authority's files could not be put in order");
        }
    }
}

fn tidy_one(dir: &Path, record: &CertificateAuthority) -> Result<(), AuthorityError> {
    let incoming = dir.join(INCOMING);
    if Authority::certificate_in(&incoming)? == Some(record.sha256) {
        private_file::move_dir(&incoming, &own(dir, &record.sha256))?;
    }
    if record.state == AuthorityState::Retired {
        for place in places(dir, &record.sha256) {
            if Authority::certificate_in(&place)? == Some(record.sha256) {
                private_file::remove(&place.join("ca.key"))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
