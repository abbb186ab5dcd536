//! ⇄ Samples that other programs push: Prometheus remote write and OTLP, beside what agents send.
//!
//! A source is a principal of the role writer. A request is read and judged (`book`), made durable by the samples
//! journal, shown, and answered; what is not taken is counted by reason and told. Promises: each source has its own
//! allowance, series and requests at a time; what one does holds no other up. Not here: which bytes mean what
//! (`remote_write`, `otlp`), HTTP (`http`), who may call (`identity::authorise`).

pub mod book;
mod cardinality;
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod otlp;
pub mod refused;
pub mod remote_write;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tocsin_shared::host::HostState;
use tocsin_shared::metric::Kind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

use crate::clock;
use crate::journal::Stopping;
use crate::journal::ledger::{Ledger, Registry};
use crate::journal::rows::Rows;
use crate::journal::rows::received::{NoRoom, Received};
use crate::metadata::Metadata;
use crate::rate::{Allowance, Rate};
use crate::room::Room;
use crate::samples::Store;
use book::{Book, Intake, Judge};
use refused::{Reason, Refused};
use remote_write::Described;
use wire::Malformed;

pub(crate) use cardinality::watch as watch_cardinality;

/// Requests of one source at a time, its other ones wait: enough for a sender's shards to keep the disk busy.
const PARALLEL_MAX: usize = 8;
/// Requests of all sources whose bodies are in memory.
const REQUESTS_MAX: usize = 32;
/// Sources that are remembered; principals are made by an administrator.
const SOURCES_MAX: usize = 1_000;
/// A message may be so many times as long as its packed form may be: label texts repeat.
const UNPACKED_TIMES: usize = 8;

/// What sources may do; the same for each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// In the long run; ten seconds of it at once.
    pub samples_per_second: u32,
    /// Active series: those that came within the last hour.
    pub series_max: usize,
    /// A request's body as it comes.
    pub body_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { samples_per_second: 500_000, series_max: 200_000, body_bytes_max: 4 << 20 }
    }
}

impl Config {
    /// A request's message, unpacked.
    pub const fn message_bytes_max(&self) -> usize {
        self.body_bytes_max * UNPACKED_TIMES
    }
}

/// What became of a request that could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Samples that are durable and can be read.
    pub written: u64,
    pub refused: Refused,
}

/// A request of which nothing is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("more samples than this source may send: again in {} ms", .0.as_millis())]
    TooMany(Duration),
    #[error("there is no room for samples now: send them again")]
    NoRoom,
    #[error("too many sources are known: restart the collector after principals were revoked")]
    Sources,
    #[error("the request failed inside the collector; its log has the place")]
    Failed,
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

impl From<NoRoom> for Untaken {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// How a source stands.
#[derive(Clone, Debug)]
pub struct SourceStanding {
    pub source: Arc<str>,
    pub series: usize,
    pub series_max: usize,
    pub requests: u64,
    pub written: u64,
    pub refused: Refused,
    /// Requests that were over the source's allowance.
    pub held_back: u64,
    /// Why its last refused sample was refused.
    pub last_error: Option<String>,
}

/// One source.
struct Source {
    name: Arc<str>,
    book: Mutex<Book>,
    allowance: Mutex<Allowance>,
    permits: Arc<Semaphore>,
    counts: Mutex<Counts>,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    requests: u64,
    written: u64,
    refused: Refused,
    held_back: u64,
    last_error: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what sources send. Shared.
pub struct Receiver {
    config: Config,
    keep: Duration,
    rows: Rows,
    store: Arc<Store>,
    ledger: Ledger,
    room: Arc<Room>,
    metadata: Arc<Metadata>,
    sources: Mutex<BTreeMap<Arc<str>, Arc<Source>>>,
    requests: Semaphore,
    agents: tokio::sync::Mutex<Agents>,
}

/// What hosts with an agent are called, as of a registry.
struct Agents {
    changes: watch::Receiver<Arc<Registry>>,
    names: Arc<HashSet<Arc<str>>>,
}

/// A place for a request, held until it is answered.
pub struct Place<'r> {
    source: Arc<Source>,
    _own: OwnedSemaphorePermit,
    _request: SemaphorePermit<'r>,
}

impl Receiver {
    /// A receiver that makes samples durable by `rows`, which shows them in `store`, and keeps them for `keep`.
    pub fn new(
        (config, keep): (Config, Duration),
        (rows, store): (Rows, Arc<Store>),
        ledger: Ledger,
        room: Arc<Room>,
        metadata: Arc<Metadata>,
    ) -> Self {
        let mut changes = ledger.registry_changes();
        changes.mark_changed(); // Nothing is known yet.
        Self {
            config,
            keep,
            rows,
            store,
            ledger,
            room,
            metadata,
            sources: Mutex::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            agents: tokio::sync::Mutex::new(Agents { changes, names: Arc::default() }),
        }
    }

    /// What requests may be like.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Waits for a place for a request, before its body is read.
    pub async fn place(&self, source: &str) -> Result<Place<'_>, Untaken> {
        if !self.room.takes_rows() {
            return Err(Untaken::NoRoom);
        }
        let source = self.source(source)?;
        let own = Arc::clone(&source.permits).acquire_owned().await.map_err(|_| Stopping)?;
        let request = self.requests.acquire().await.map_err(|_| Stopping)?;
        Ok(Place { source, _own: own, _request: request })
    }

    fn source(&self, name: &str) -> Result<Arc<Source>, Untaken> {
        let mut sources = lock(&self.sources);
        if let Some(source) = sources.get(name) {
            return Ok(Arc::clone(source));
        }
        if sources.len() >= SOURCES_MAX {
            return Err(Untaken::Sources);
        }
        let per_second = f64::from(self.config.samples_per_second);
        let rate = Rate { burst: 10.0 * per_second, per_second };
        let name: Arc<str> = name.into();
        let source = Arc::new(Source {
            book: Mutex::new(Book::new(Arc::clone(&name), self.config.series_max)),
            allowance: Mutex::new(Allowance::new(rate, Instant::now())),
            permits: Arc::new(Semaphore::new(PARALLEL_MAX)),
            counts: Mutex::default(),
            name: Arc::clone(&name),
        });
        sources.insert(name, Arc::clone(&source));
        Ok(source)
    }

    /// Takes what `read` finds in a request: durable and readable when this returns.
    pub async fn take(
        &self,
        place: &Place<'_>,
        read: impl FnOnce(&mut Intake<'_>) -> Result<Vec<Described>, Malformed> + Send + 'static,
    ) -> Result<Outcome, Untaken> {
        let source = Arc::clone(&place.source);
        lock(&source.counts).requests += 1;
        let (agents, store, now) = (self.agents().await?, Arc::clone(&self.store), clock::now());
        let keep_from = now.minus(self.keep);
        let judged = Arc::clone(&source);
        // A large request takes milliseconds: not on a thread that others' connections need.
        let judging = tokio::task::spawn_blocking(move || {
            let mut book = lock(&judged.book);
            let mut intake = book.intake(Judge { now, keep_from, agents: &agents, store: &store });
            let described = read(&mut intake)?;
            Ok::<_, Malformed>((intake.finish(), described))
        });
        let ((samples, mut refused), described) = judging.await.map_err(|_| Untaken::Failed)??;
        let written = samples.len() as u64;
        let allowed = lock(&source.allowance).take(written as f64, Instant::now());
        if let Err(wait) = allowed {
            lock(&source.counts).held_back += 1;
            return Err(Untaken::TooMany(wait));
        }
        let received = Received { source: Arc::clone(&source.name), samples };
        let differing = self.rows.receive(received).await??;
        self.describe(described);
        refused.add(Reason::Disagrees, differing, String::new);
        let mut counts = lock(&source.counts);
        counts.written += written;
        counts.refused.merge(&refused);
        if let Some(why) = refused.told() {
            counts.last_error = Some(why);
        }
        Ok(Outcome { written, refused })
    }

    fn describe(&self, described: Vec<Described>) {
        for Described { metric, kind, help, unit } in described {
            let says_something = kind != Kind::Unknown || !help.is_empty() || !unit.is_empty();
            if says_something {
                self.metadata.note(&metric, kind, &help, &unit);
            }
        }
    }

    /// What hosts with an agent are called now.
    async fn agents(&self) -> Result<Arc<HashSet<Arc<str>>>, Stopping> {
        let mut agents = self.agents.lock().await;
        if agents.changes.has_changed().unwrap_or(false) {
            agents.changes.mark_unchanged();
            let names = self.ledger.read(|state| {
                let hosts = state.hosts().filter(|host| host.state != HostState::Retired);
                hosts.map(|host| Arc::from(host.instance.as_str())).collect::<HashSet<Arc<str>>>()
            });
            agents.names = Arc::new(names.await?);
        }
        Ok(Arc::clone(&agents.names))
    }

    /// How all sources stand, by name.
    pub fn sources(&self) -> Vec<SourceStanding> {
        let sources = lock(&self.sources).values().cloned().collect::<Vec<_>>();
        let standing = |source: Arc<Source>| {
            let Counts { requests, written, refused, held_back, last_error } = lock(&source.counts).clone();
            SourceStanding {
                source: Arc::clone(&source.name),
                series: lock(&source.book).series(),
                series_max: self.config.series_max,
                requests,
                written,
                refused,
                held_back,
                last_error,
            }
        };
        sources.into_iter().map(standing).collect()
    }

    /// The label with the most values among a source's series. Walks all of them.
    pub fn widest_label(&self, source: &str) -> Option<(String, usize)> {
        let source = lock(&self.sources).get(source).cloned()?;
        let book = lock(&source.book);
        book.widest_label()
    }
}
