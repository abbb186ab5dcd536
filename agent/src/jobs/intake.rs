//! ⇄ Takes job records from wrappers: at a unix socket that every user may use, and from the drop-box.
//!
//! Who speaks is what the kernel says (peer credentials, file owner), never what the record says: a record for
//! another uid is refused, and the user's name is looked up here. Promises: a wrapper hears "durable" only after the
//! sink said so; a drop-box file is removed only then, or when it can never be taken; one record handed in by both
//! ways is stored once; connections, sizes, waiting and records per user are bounded.
//! Not here: the disk (`Submission`'s receiver), and what a run without an end means.

mod counters;
mod drop_box;
mod quota;
mod recent;
mod running;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tocsin_shared::job::{JobRecord, UserName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::counters::count;
use self::drop_box::{Listing, RefusedFile};
use self::quota::Quota;
use self::recent::{Key, Recent, Seen};
use self::running::Running;
use super::envelope::{self, Answer, HEADER_BYTES, InvalidEnvelope};

pub use self::counters::{IntakeCounters, IntakeCounts};
pub(crate) use self::drop_box::{COMPLETE_SUFFIX, PARTIAL_PREFIX};

/// Connections served at once; the next waits in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;
/// Of which one user may hold so many, or nobody else could report.
const CONNECTIONS_PER_UID_MAX: usize = 16;
/// A record comes in one write; who needs longer than this is not a wrapper.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// A pause after the kernel refused to accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Records taken from the drop-box per scan; the rest waits for the next one.
const RECORDS_PER_SCAN_MAX: usize = 256;
/// User names remembered. Far more than run jobs on one host.
const USER_NAMES_MAX: usize = 1024;

/// Where wrappers hand in, and how much.
#[derive(Clone, Debug)]
pub struct IntakeConfig {
    /// The unix socket, made with mode 0666.
    pub socket: PathBuf,
    /// The directory, made with mode 1733 if it is not there.
    pub drop_box: PathBuf,
    /// How often the drop-box is looked at, besides at start.
    pub scan_every: Duration,
    /// Records that one user may hand in per minute.
    pub records_per_minute_per_uid: u32,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            socket: super::exec::SOCKET_DEFAULT.into(),
            drop_box: super::exec::DROP_BOX_DEFAULT.into(),
            scan_every: Duration::from_secs(5),
            records_per_minute_per_uid: 200,
        }
    }
}

/// A record on its way to the disk. Answer `Ok` only when it is durable.
#[derive(Debug)]
pub struct Submission {
    pub record: JobRecord,
    pub reply: oneshot::Sender<Result<(), SinkError>>,
}

/// The record is not durable; it may be handed in again.
#[derive(Debug, thiserror::Error)]
#[error("job record not stored: {0}")]
pub struct SinkError(pub String);

/// Why the intake cannot start.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("{path} is in use by another agent; stop it or configure another job socket")]
    InUse { path: PathBuf },
    #[error("{path} exists and is not a socket; remove it or configure another job socket")]
    NotASocket { path: PathBuf },
    #[error("cannot prepare {path} for job records")]
    Io { path: PathBuf, source: io::Error },
}

/// The intake, bound to its socket and not yet running.
#[derive(Debug)]
pub struct Intake {
    listener: UnixListener,
    config: IntakeConfig,
    shared: Arc<Shared>,
}

/// What connections and scans have in common.
#[derive(Debug)]
struct Shared {
    out: mpsc::Sender<Submission>,
    counters: Arc<IntakeCounters>,
    admission: Mutex<Admission>,
}

#[derive(Debug)]
struct Admission {
    quota: Quota,
    recent: Recent,
    connections: HashMap<u32, usize>,
    user_names: HashMap<u32, UserName>,
    running: Running,
}

impl Intake {
    /// Takes the socket (a stale one is replaced) and prepares the drop-box. Call within a tokio runtime.
    pub fn bind(config: IntakeConfig, out: mpsc::Sender<Submission>) -> Result<Self, IntakeError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| IntakeError::Io { path, source }
        };
        drop_box::prepare(&config.drop_box).map_err(fail(&config.drop_box))?;
        clear_stale(&config.socket)?;
        if let Some(parent) = config.socket.parent() {
            std::fs::create_dir_all(parent).map_err(fail(parent))?;
        }
        let listener = UnixListener::bind(&config.socket).map_err(fail(&config.socket))?;
        std::fs::set_permissions(&config.socket, std::fs::Permissions::from_mode(0o666))
            .map_err(fail(&config.socket))?;
        let admission = Mutex::new(Admission {
            quota: Quota::new(config.records_per_minute_per_uid),
            running: Running::default(),
            recent: Recent::default(),
            connections: HashMap::new(),
            user_names: HashMap::new(),
        });
        let shared = Arc::new(Shared { out, counters: Arc::default(), admission });
        Ok(Self { listener, config, shared })
    }

    /// The counters, for the agent's own metrics.
    pub fn counters(&self) -> Arc<IntakeCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Serves until told to stop; then finishes the records that are being stored.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, config, shared } = self;
        let parts = TaskTracker::new();
        parts.spawn(scan_regularly(config.clone(), Arc::clone(&shared), stop.clone()));
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(accepted) = stop.run_until_cancelled(accept(&listener, &permits)).await {
            match accepted {
                Ok((stream, permit)) => {
                    let shared = Arc::clone(&shared);
                    parts.spawn(async move {
                        shared.serve(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept on the job socket; wrappers use the drop-box");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        parts.close();
        parts.wait().await;
        if let Err(error) = std::fs::remove_file(&config.socket) {
            debug!(%error, "the job socket was already gone");
        }
    }
}

async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

/// Removes a socket that nobody serves; anything else at its place is an error.
fn clear_stale(socket: &Path) -> Result<(), IntakeError> {
    let path = socket.to_owned();
    match std::fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(IntakeError::Io { path, source }),
        Ok(facts) if !facts.file_type().is_socket() => Err(IntakeError::NotASocket { path }),
        Ok(_) => match std::os::unix::net::UnixStream::connect(socket) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(socket).map_err(|source| IntakeError::Io { path, source })
            }
            Err(source) => Err(IntakeError::Io { path, source }),
            Ok(_) => Err(IntakeError::InUse { path }),
        },
    }
}

/// One uid's place among the connections; given back when dropped.
struct Place<'a>(&'a Shared, u32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut admission = self.0.admission();
        if let Some(held) = admission.connections.get_mut(&self.1) {
            *held -= 1;
            if *held == 0 {
                admission.connections.remove(&self.1);
            }
        }
    }
}

/// Why a record from a connection was not stored.
#[derive(Debug, thiserror::Error)]
enum Declined {
    #[error("the record speaks for uid {claimed}")]
    ForeignUid { claimed: u32 },
    #[error("too many records or connections of this user")]
    OverQuota,
    #[error("no record within {READ_DEADLINE:?}")]
    Slow,
    #[error(transparent)]
    Envelope(#[from] InvalidEnvelope),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What became of an acceptable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Now,
    Before,
    NotYet,
}

impl Shared {
    fn admission(&self) -> std::sync::MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner) // Every change to it is complete in itself.
    }

    /// One connection: one record in, one byte back.
    async fn serve(&self, mut stream: UnixStream) {
        let Ok(peer) = stream.peer_cred() else { return };
        let answer = match self.receive(&mut stream, peer.uid()).await {
            Ok(record) => match self.store(record, &self.counters.stored_socket).await {
                Stored::Now | Stored::Before => Answer::Durable,
                Stored::NotYet => Answer::Later,
            },
            Err(Declined::OverQuota) => {
                count(&self.counters.over_quota);
                Answer::Later
            }
            Err(error) => {
                count(&self.counters.refused);
                debug!(uid = peer.uid(), %error, "job record refused");
                Answer::Refused
            }
        };
        // A wrapper that reported a start has left already; that is as it should be.
        if let Ok(Err(error)) = timeout(READ_DEADLINE, stream.write_all(&[answer.byte()])).await {
            debug!(%error, "wrapper did not wait for the answer");
        }
    }

    async fn receive(&self, stream: &mut UnixStream, uid: u32) -> Result<JobRecord, Declined> {
        let _place = self.place(uid).ok_or(Declined::OverQuota)?;
        let record = timeout(READ_DEADLINE, read_record(stream)).await.map_err(|_| Declined::Slow)??;
        match record.uid() {
            claimed if claimed != uid => Err(Declined::ForeignUid { claimed }),
            _ if !self.admission().quota.admit(uid, Instant::now()) => Err(Declined::OverQuota),
            _ => Ok(record),
        }
    }

    fn place(&self, uid: u32) -> Option<Place<'_>> {
        let mut admission = self.admission();
        let held = admission.connections.entry(uid).or_insert(0);
        if *held >= CONNECTIONS_PER_UID_MAX {
            return None;
        }
        *held += 1;
        Some(Place(self, uid))
    }

    /// Hands a verified record to the sink, once.
    async fn store(&self, record: JobRecord, counter: &AtomicU64) -> Stored {
        let key = Key::of(&record);
        let seen = self.admission().recent.begin(key); // The lock ends here, before anything is awaited.
        match seen {
            Seen::Stored => {
                count(&self.counters.duplicates);
                return Stored::Before;
            }
            Seen::Storing => return Stored::NotYet,
            Seen::New => {}
        }
        let name = self.user_name(record.uid()).await;
        let (run_id, job) = (record.run_id(), record.job().clone());
        let pid = match &record {
            JobRecord::Started(started) => Some(started.pid),
            JobRecord::Ended(_) => None,
        };
        let result = self.submit(record.with_user(name)).await;
        self.admission().recent.finish(key, result.is_ok());
        match result {
            Ok(()) => {
                count(counter);
                match pid {
                    Some(pid) => self.admission().running.started(run_id, job, pid, is_there),
                    None => self.admission().running.ended(run_id),
                }
                Stored::Now
            }
            Err(error) => {
                count(&self.counters.sink_failures);
                warn!(%error, "job record stays with its wrapper");
                Stored::NotYet
            }
        }
    }

    async fn submit(&self, record: JobRecord) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || SinkError("the agent is stopping".into());
        self.out.send(Submission { record, reply }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// The host's name for a uid, or the number when it has none. Looked up once: directories may be slow.
    async fn user_name(&self, uid: u32) -> UserName {
        if let Some(name) = self.admission().user_names.get(&uid) {
            return name.clone();
        }
        let found = tokio::task::spawn_blocking(move || nix::unistd::User::from_uid(uid.into())).await;
        let Ok(Ok(Some(user))) = found else { return UserName::keep_start(&uid.to_string()) };
        let name = UserName::keep_start(&user.name);
        let names = &mut self.admission().user_names;
        if names.len() >= USER_NAMES_MAX {
            names.clear();
        }
        names.insert(uid, name.clone());
        name
    }

    /// One look at the drop-box.
    async fn scan(&self, directory: &Path, stop: &CancellationToken) -> io::Result<()> {
        let directory = directory.to_owned();
        let Listing { complete, stray } =
            blocking(move || drop_box::list(&directory, SystemTime::now())).await?;
        for path in stray {
            self.discard(path, RefusedFile::Name).await;
        }
        let (mut exhausted, mut taken) = (HashSet::new(), 0);
        for path in complete {
            // Between files: one that is being stored must also be removed, or it would be stored again.
            if taken >= RECORDS_PER_SCAN_MAX || stop.is_cancelled() {
                break;
            }
            taken += usize::from(self.take(path, &mut exhausted).await);
        }
        Ok(())
    }

    /// Takes one file, unless its owner is over quota; true when a record was read.
    async fn take(&self, path: PathBuf, exhausted: &mut HashSet<u32>) -> bool {
        let Ok(owner) = drop_box::owner(&path) else { return false };
        if exhausted.contains(&owner) {
            return false;
        }
        if !self.admission().quota.admit(owner, Instant::now()) {
            exhausted.insert(owner);
            count(&self.counters.over_quota);
            return false;
        }
        let file = path.clone();
        match blocking(move || Ok(drop_box::read(&file))).await {
            Ok(Ok(record)) => {
                if self.store(record, &self.counters.stored_drop_box).await != Stored::NotYet {
                    remove(path).await;
                }
                true
            }
            Ok(Err(RefusedFile::Io(error))) => {
                warn!(%error, path = %path.display(), "cannot read a job record; the agent must run as root or with CAP_DAC_READ_SEARCH");
                false
            }
            Ok(Err(refused)) => {
                self.discard(path, refused).await;
                false
            }
            Err(error) => {
                warn!(%error, "drop-box reader failed");
                false
            }
        }
    }

    async fn discard(&self, path: PathBuf, why: RefusedFile) {
        count(&self.counters.refused);
        info!(path = ?path, reason = %why, "removed from the job drop-box");
        remove(path).await;
    }
}

async fn read_record(stream: &mut UnixStream) -> Result<JobRecord, Declined> {
    let mut bytes = vec![0; HEADER_BYTES];
    stream.read_exact(&mut bytes).await?;
    let header = bytes.first_chunk().ok_or(InvalidEnvelope::Torn)?;
    let length = envelope::payload_length(header)?;
    bytes.resize(HEADER_BYTES + length, 0);
    stream.read_exact(&mut bytes[HEADER_BYTES..]).await?;
    Ok(envelope::decode(&bytes)?)
}

async fn scan_regularly(config: IntakeConfig, shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = interval(config.scan_every.max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = shared.scan(&config.drop_box, &stop).await {
            warn!(%error, path = %config.drop_box.display(), "cannot look into the job drop-box");
            continue;
        }
        for (run_id, job) in shared.admission().running.missed(is_there) {
            count(&shared.counters.missed);
            warn!(job = job.as_str(), %run_id, "the job's process is gone and its outcome was not reported");
        }
    }
}

async fn remove(path: PathBuf) {
    let shown = path.clone();
    if let Err(error) = blocking(move || drop_box::remove(&path)).await {
        warn!(%error, path = %shown.display(), "cannot remove from the job drop-box");
    }
}

/// Whether a process with this id is there, in this namespace.
fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// File work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
