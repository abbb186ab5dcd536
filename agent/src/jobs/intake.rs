//! ⇄ Takes job records from wrappers: at a unix socket that every user may use, and from the drop-box.
//!
//! Who speaks is what the kernel says (peer credentials, file owner), never what the record says: a record for
//! another uid is refused, and the user's name is looked up here. Promises: a wrapper hears "durable" only after the
//! sink said so; a drop-box file is removed only then, or when it can never be taken; one record handed in by both
//! ways is stored once; connections, sizes, waiting and records per user are bounded. Outcomes over a user's allowance
//! are told as one record that counts those alike, so that no count is lost. A run whose start was stored and that is
//! over without an outcome is told as interrupted. Not here: the disk (`Submission`'s receiver).

mod alike;
mod counters;
mod drop_box;
mod process;
mod quota;
mod recent;
mod running;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tocsin_shared::job::{
    BootId, JobEnded, JobRecord, JobStarted, Message, Outcome, OutputTail, RunId, UserName,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::alike::Alike;
use self::counters::count;
use self::drop_box::{Listing, RefusedFile};
use self::process::Process;
use self::quota::Quota;
use self::recent::{Key, Recent, Seen};
use self::running::{Lost, Running};
use super::envelope::{self, Answer, HEADER_BYTES, InvalidEnvelope};
use crate::tick::Reading;

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
/// Bytes of records read from the drop-box per scan; the rest waits for the next one.
const BYTES_PER_SCAN_MAX: u64 = 16 << 20;
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
    /// Where runs that go on are noted for the agent's next start; without it they are known to this one alone.
    pub running: Option<PathBuf>,
    /// The kernel's name of this boot.
    pub boot_id: String,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            socket: super::exec::SOCKET_DEFAULT.into(),
            drop_box: super::exec::DROP_BOX_DEFAULT.into(),
            scan_every: Duration::from_secs(5),
            records_per_minute_per_uid: 200,
            running: None,
            boot_id: String::new(),
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
        let running = Running::open(config.running.clone(), &config.boot_id)
            .map_err(fail(config.running.as_deref().unwrap_or(Path::new("the runs that go on"))))?;
        let admission = Mutex::new(Admission {
            quota: Quota::new(config.records_per_minute_per_uid),
            running,
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
            Ok(record) => match self.store(record, peer.pid(), &self.counters.stored_socket).await {
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
            _ if !self.admit(uid, &record) => Err(Declined::OverQuota),
            _ => Ok(record),
        }
    }

    /// Whether a record may be stored now. The end of a run whose start was admitted has its place already, and a copy
    /// of what is stored needs none.
    fn admit(&self, uid: u32, record: &JobRecord) -> bool {
        let mut admission = self.admission();
        let is_end = matches!(record, JobRecord::Ended(_));
        (is_end && admission.running.is_followed(record.run_id()))
            || admission.recent.is_stored(Key::of(record))
            || admission.quota.admit(uid, Instant::now())
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
    async fn store(&self, record: JobRecord, wrapper: Option<i32>, counter: &AtomicU64) -> Stored {
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
        let (run_id, is_end) = (record.run_id(), matches!(record, JobRecord::Ended(_)));
        if let JobRecord::Started(started) = &record {
            // Before the start is stored: whoever hears of the run can be told of its end, whatever happens.
            let wrapper = wrapper.and_then(|pid| u32::try_from(pid).ok());
            let mut admission = self.admission();
            if !admission.recent.has_ended(key) {
                admission.running.started(started, wrapper);
            }
        }
        let result = self.submit(record.with_user(name)).await;
        self.admission().recent.finish(key, result.is_ok());
        match result {
            Ok(()) => {
                count(counter);
                if is_end {
                    self.admission().running.ended(run_id);
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

    /// One look at the drop-box; whether every record in it that could be stored is stored.
    async fn scan(&self, directory: &Path, stop: &CancellationToken) -> io::Result<bool> {
        let place = directory.to_owned();
        let Listing { complete, stray, batches, has_more } =
            blocking(move || drop_box::list(&place, SystemTime::now())).await?;
        for path in stray {
            self.discard(path, RefusedFile::Name).await;
        }
        let (mut over, mut bytes, mut drained) = (Alike::default(), 0, !has_more);
        for (path, id) in batches {
            drained &= self.tell_batch(path, id).await;
        }
        for path in complete {
            // Between files: one that is being stored must also be removed, or it would be stored again.
            if bytes >= BYTES_PER_SCAN_MAX || stop.is_cancelled() {
                drained = false;
                break;
            }
            drained &= self.take(path, &mut over, &mut bytes).await;
        }
        for paths in over.batches() {
            if stop.is_cancelled() {
                return Ok(false);
            }
            let place = directory.to_owned();
            let path = blocking(move || alike::fix(&place, &paths)).await?;
            if let Some(id) = alike::batch_id(&path) {
                self.tell_batch(path, id).await;
            }
        }
        Ok(drained)
    }

    /// Takes one file, or adds it to those over their owner's allowance; false when it should have been stored and was
    /// not.
    async fn take(&self, path: PathBuf, over: &mut Alike, bytes: &mut u64) -> bool {
        let file = path.clone();
        let read =
            blocking(move || Ok((std::fs::symlink_metadata(&file)?.len(), drop_box::read(&file)))).await;
        match read {
            Ok((length, Ok(record))) => {
                *bytes += length;
                if !self.admit(record.uid(), &record) {
                    count(&self.counters.over_quota);
                    let is_new = !self.admission().recent.was_tried(Key::of(&record));
                    if is_new {
                        over.add(&record, path);
                    }
                    return is_new;
                }
                let stored = self.store(record, None, &self.counters.stored_drop_box).await;
                if stored != Stored::NotYet {
                    remove(path).await;
                }
                stored != Stored::NotYet
            }
            Ok((_, Err(RefusedFile::Io(error)))) => {
                warn!(%error, path = %path.display(), "cannot read a job record; the agent must run as root or with CAP_DAC_READ_SEARCH");
                false
            }
            Ok((_, Err(refused))) => {
                self.discard(path, refused).await;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                warn!(%error, "drop-box reader failed");
                false
            }
        }
    }

    /// Tells a fixed batch as one record; true when it is stored and gone.
    async fn tell_batch(&self, path: PathBuf, id: RunId) -> bool {
        let place = path.clone();
        let record = match blocking(move || alike::record(&place, id)).await {
            Ok(record) => record,
            Err(error) => {
                warn!(%error, path = %path.display(), "cannot read a batch of job records");
                return false;
            }
        };
        if let Some(record) = record {
            let alike = if let JobRecord::Ended(ended) = &record { ended.alike } else { 0 };
            match self.store(record, None, &self.counters.stored_drop_box).await {
                Stored::NotYet => return false,
                Stored::Now => drop(self.counters.alike.fetch_add(alike, Ordering::Relaxed)),
                Stored::Before => {}
            }
        }
        let removed = blocking(move || alike::remove(&path)).await;
        if let Err(error) = &removed {
            warn!(%error, "cannot remove a batch of job records");
        }
        removed.is_ok()
    }

    /// Tells the runs that are over without an outcome. To be called when no outcome waits in the drop-box.
    async fn tell_interrupted(&self, boot_id: &str) {
        let lost = self.admission().running.lost(Process::is_there);
        for (started, why) in lost {
            let (job, run_id) = (started.job.clone(), started.run_id);
            let record = interrupted(started, why, boot_id, Reading::now());
            if self.store(record, None, &self.counters.missed).await == Stored::Now {
                warn!(job = job.as_str(), %run_id, reason = why.reason(), "a job was interrupted");
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
        match shared.scan(&config.drop_box, &stop).await {
            Ok(true) => shared.tell_interrupted(&config.boot_id).await,
            Ok(false) => {}
            Err(error) => {
                warn!(%error, path = %config.drop_box.display(), "cannot look into the job drop-box");
            }
        }
    }
}

/// The end of a run that nobody saw: it was noticed now.
fn interrupted(started: JobStarted, why: Lost, boot_id: &str, now: Reading) -> JobRecord {
    let JobStarted { run_id, job, pid: _, user, uid, command: _, started_at, started_boot_ms, started_boot } =
        started;
    JobRecord::Ended(JobEnded {
        run_id,
        job,
        uid,
        user,
        started_at,
        ended_at: now.wall,
        started_boot_ms,
        ended_boot_ms: now.boot_ms,
        started_boot,
        ended_boot: BootId::keep_start(boot_id),
        duration: Duration::ZERO,
        outcome: Outcome::Interrupted { reason: Message::keep_start(why.reason()) },
        output_tail: OutputTail::default(),
        output_bytes: 0,
        truncated: false,
        background_children: false,
        alike: 0,
    })
}

async fn remove(path: PathBuf) {
    let shown = path.clone();
    if let Err(error) = blocking(move || drop_box::remove(&path)).await {
        warn!(%error, path = %shown.display(), "cannot remove from the job drop-box");
    }
}

/// File work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
