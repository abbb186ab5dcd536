//! What a start needs from the disk and the network, and how it fails: one clear message each.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use tocsin_shared::access::Role;
use tocsin_shared::disk::Disk;
use tocsin_shared::event::Actor;
use tocsin_shared::private_file;
use tocsin_shared::secret::Credential;
use uuid::Uuid;

use crate::clock;
use crate::config::Config;
use crate::identity::authorities::Authorities;
use crate::journal::ledger::Ledger;
use crate::journal::{JournalError, Stopping, rows};
use crate::listen::{ListenError, Listener};
use crate::room::Room;
use crate::samples::{self, BlockError};
use crate::state::{Command, Refusal, State};

/// Why a collector did not start. Nothing was lost.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use {dir}: {why}; run as a user that may write there, or set data_dir (--data for `tocsin up`)", dir = .dir.display())]
    Directory { dir: PathBuf, why: String },
    #[error("{dir} is in use by another collector; stop that one first", dir = .dir.display())]
    Locked { dir: PathBuf },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the rules have mistakes:\n{0}")]
    Rules(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot {what}: {why}")]
    Other { what: &'static str, why: String },
    #[error("it stopped while it was starting")]
    Stopping,
}

impl StartError {
    pub(super) fn other(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Other { what, why: why.to_string() }
    }

    pub(super) fn samples(error: BlockError) -> Self {
        Self::other("open the samples", error)
    }
}

impl From<Stopping> for StartError {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

/// Held while the collector runs: two on one directory would destroy it.
pub(super) struct DataLock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

/// Makes and locks the data directory.
pub(super) fn lock(dir: &Path) -> Result<DataLock, StartError> {
    let unusable =
        |why: &dyn std::fmt::Display| StartError::Directory { dir: dir.to_owned(), why: why.to_string() };
    private_file::create_dir(dir).map_err(|error| unusable(&error))?;
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| unusable(&error))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(DataLock(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StartError::Locked { dir: dir.to_owned() }),
        Err((_, errno)) => Err(unusable(&errno)),
    }
}

/// The collector's host, as the alerts about the collector itself name it.
pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "collector".to_owned())
}

/// The three bound ports.
pub(super) struct Ports {
    pub(super) front: Listener,
    pub(super) agents: Listener,
    pub(super) local: tokio::net::TcpListener,
    local_addr: SocketAddr,
}

impl Ports {
    pub(super) fn front(&self) -> SocketAddr {
        self.front.local_addr()
    }

    pub(super) fn agents(&self) -> SocketAddr {
        self.agents.local_addr()
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local_addr
    }
}

pub(super) async fn bind(config: &Config) -> Result<Ports, StartError> {
    let front = Listener::bind(config.front).await?;
    let agents = Listener::bind(config.agents).await?;
    let (local, local_addr) = Listener::bind(config.local).await?.into_plain();
    Ok(Ports { front, agents, local, local_addr })
}

/// The authorities that the journal knows, or else the one that is there or is made.
pub(super) fn authorities(config: &Config, state: &State) -> Result<Authorities, StartError> {
    let dir = config.data_dir.join("authority");
    let records: Vec<_> = state.authorities().cloned().collect();
    if !clock::is_known() && records.is_empty() && !dir.join("ca.key").exists() {
        let why = format!("this host's clock says {}, which cannot be: set it first", clock::wall());
        return Err(StartError::other("make a certificate authority", why));
    }
    Authorities::open(&dir, &records, clock::now())
        .map_err(|error| StartError::other("use the certificate authority", error))
}

/// In a data directory that an operator has put back from a backup.
const RESTORED: &str = "restored";

/// Marks a data directory as an older copy that was put back: the next start begins a new life of the store and says so.
pub fn mark_restored(data: &Path) -> Result<(), StartError> {
    let _lock = lock(data)?;
    private_file::replace(&data.join(RESTORED), "an older copy was put back\n")
        .map_err(|error| StartError::other("mark the data as put back", error))
}

/// Whether an older copy was put back, and nobody has been told.
pub(super) fn is_restored(data: &Path) -> bool {
    data.join(RESTORED).exists()
}

/// Everybody was told, durably.
pub(super) fn note_restored(data: &Path) -> Result<(), StartError> {
    std::fs::remove_file(data.join(RESTORED))
        .map_err(|error| StartError::other("remove the file restored", error))
}

/// The id of this store's life: cursors of another one are refused. Data that was put back begins another one.
pub(super) fn store_epoch(data: &Path) -> Result<String, StartError> {
    let path = data.join("store-epoch");
    let failed = |error: &dyn std::fmt::Display| StartError::other("use the file store-epoch", error);
    if !is_restored(data)
        && let Some(text) = private_file::read(&path).map_err(|error| failed(&error))?
    {
        return Ok(text.trim().to_owned());
    }
    let epoch = Uuid::new_v4().simple().to_string();
    private_file::replace(&path, &epoch).map_err(|error| failed(&error))?;
    Ok(epoch)
}

/// The room on the disk that holds the journals, with its reserve taken if it fits.
pub(super) fn room(disk: &Arc<dyn Disk>, config: &Config) -> Result<Arc<Room>, StartError> {
    let dir = config.data_dir.join("journal");
    Room::open(disk.clone(), &dir, config.room, clock::now())
        .map_err(|error| StartError::Directory { dir, why: error.to_string() })
}

pub(super) fn open_rows(
    disk: &Arc<dyn Disk>,
    config: &Config,
    store: &Arc<samples::Store>,
    state: &State,
) -> Result<rows::Opened, StartError> {
    let dir = config.data_dir.join("journal");
    let lanes = state.lanes_of_samples();
    let found = rows::Found { sealed: state.sealed(), lanes, evaluated_through: state.evaluated_through() };
    Ok(rows::open(disk.clone(), &dir, store.clone(), found)?)
}

/// The local administrator's credential: made at the first start, its endpoint kept true at every one.
pub(super) async fn credential(
    config: &Config,
    ledger: &Ledger,
    bundle_pem: &str,
    front: SocketAddr,
) -> Result<PathBuf, StartError> {
    let failed =
        |error: &dyn std::fmt::Display| StartError::other("keep the local administrator's credential", error);
    let path = config.data_dir.join("credential.toml");
    let kept = private_file::read(&path).map_err(|error| failed(&error))?;
    let kept = kept.and_then(|text| credential_in(&text));
    let known =
        kept.filter(|credential| ledger.registry().principal(&credential.sha256(), clock::now()).is_some());
    let credential = match known {
        Some(credential) => credential,
        None => {
            let credential = Credential::generate().map_err(|error| failed(&error))?;
            administrator(ledger, &credential).await?.map_err(|error| failed(&error))?;
            credential
        }
    };
    let text = credential_text(&credential, bundle_pem, front);
    private_file::replace(&path, &text).map_err(|error| failed(&error))?;
    Ok(path)
}

fn credential_text(credential: &Credential, bundle_pem: &str, front: SocketAddr) -> String {
    let endpoint = reachable(front);
    format!(
        "# For `tocsin` on this host. Whoever can read this file is an administrator.\nendpoint = \"{endpoint}\"\ncredential = \"{}\"\nca = \"\"\"\n{bundle_pem}\"\"\"\n",
        credential.text().expose(),
    )
}

/// Lets the tools of this host trust other authorities. A file that people changed beyond reading stays theirs until
/// the next start.
pub(super) fn trust_in_credential(
    config: &Config,
    bundle_pem: &str,
    front: SocketAddr,
) -> Result<(), String> {
    let path = config.data_dir.join("credential.toml");
    let kept = private_file::read(&path).map_err(|error| error.to_string())?;
    let Some(credential) = kept.and_then(|text| credential_in(&text)) else { return Ok(()) };
    let text = credential_text(&credential, bundle_pem, front);
    private_file::replace(&path, &text).map_err(|error| error.to_string())
}

/// The credential in a file written here; a file that people changed beyond reading is replaced.
fn credential_in(text: &str) -> Option<Credential> {
    let line = text.lines().find_map(|line| line.strip_prefix("credential = \""))?;
    line.trim_end_matches('"').parse().ok()
}

async fn administrator(ledger: &Ledger, credential: &Credential) -> Result<Result<(), Refusal>, Stopping> {
    let name = format!("local-admin-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let command = Command::CreatePrincipal {
        name,
        role: Role::Admin,
        secret_sha256: credential.sha256(),
        expires_at: None,
    };
    Ok(ledger.submit(command, Actor::System).await?.map(|_| ()))
}

/// The address that a program on this host uses: every address includes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    (ip, address.port()).into()
}

/// Tells other programs, and people who configured port 0, where the collector listens.
pub(super) fn write_addresses(
    data: &Path,
    front: SocketAddr,
    agents: SocketAddr,
    local: SocketAddr,
) -> Result<(), StartError> {
    let text = format!("front = \"{front}\"\nagents = \"{agents}\"\nlocal = \"{local}\"\n");
    private_file::replace(&data.join("addresses.toml"), &text)
        .map_err(|error| StartError::other("write addresses.toml", error))
}

#[cfg(test)]
mod tests {
    use tocsin_shared::disk::MemoryDisk;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::journal::ledger::{self, Fatal};
    use crate::state::Defaults;

    // Cases: C16
    #[test]
    fn data_that_was_put_back_begins_a_new_life_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = store_epoch(dir.path()).unwrap();
        assert_eq!(store_epoch(dir.path()).unwrap(), first);
        mark_restored(dir.path()).unwrap();
        assert!(is_restored(dir.path()));
        let second = store_epoch(dir.path()).unwrap();
        assert_ne!(second, first);
        note_restored(dir.path()).unwrap();
        assert_eq!(store_epoch(dir.path()).unwrap(), second);
    }

    // Cases: C17
    #[test]
    fn a_second_collector_on_a_directory_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let refused = lock(dir.path()).err().unwrap().to_string();
        let want = format!("{} is in use by another collector; stop that one first", dir.path().display());
        assert_eq!(refused, want);
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn the_credential_is_kept_and_its_endpoint_is_true() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let authorities = authorities(&config, &State::default()).unwrap();
        let (current, path) = (authorities.current(), config.data_dir.join("credential.toml"));
        let opened = ledger::open(Arc::new(MemoryDisk::new()), Path::new("/j")).unwrap();
        let ledger = opened.start(Defaults::default(), Fatal::new(CancellationToken::new()));
        let mut kept = Vec::new();
        for (front, endpoint) in [("0.0.0.0:7640", "127.0.0.1:7640"), ("[::]:7641", "[::1]:7641")] {
            let front = front.parse().unwrap();
            credential(&config, &ledger, &current.bundle_pem, front).await.unwrap();
            trust_in_credential(&config, "others", front).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("ca = \"\"\"\nothers\"\"\""), "{text}");
            let path = credential(&config, &ledger, &current.bundle_pem, front).await.unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains(&format!("endpoint = \"{endpoint}\"")), "{text}");
            kept.push(credential_in(&text).unwrap().sha256());
        }
        assert_eq!(kept[0], kept[1]);
        assert_eq!(ledger.registry().principals.len(), 1, "no second administrator");
        std::fs::write(config.data_dir.join("credential.toml"), "spoiled").unwrap();
        trust_in_credential(&config, "others", "127.0.0.1:1".parse().unwrap()).unwrap();
        credential(&config, &ledger, &current.bundle_pem, "127.0.0.1:1".parse().unwrap()).await.unwrap();
        assert_eq!(ledger.registry().principals.len(), 2, "a lost one is replaced");
    }
}
