//! The API: gRPC services over the ledger, the store people query, samples and rules.
//!
//! Here and in `ingest` alone the wire's types are named. A layer before these services has found out who calls and
//! whether they may (`identity::authorise`); what a caller may do with one record is decided where the record is.
//! What a call changes is durable before its answer, and the next call sees it. Answers and waiting are bounded.

mod admin;
mod alerts;
pub mod enrollment;
pub(crate) mod feed;
pub mod guard;
mod hosts;
mod incidents;
mod jobs;
pub(crate) mod places;
mod query;
mod refusal;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tocsin_shared::access::Role;
use tocsin_shared::event::{Actor, Event};
use tocsin_shared::time::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::clock::now;
use crate::evaluate::plan::Plan;
use crate::evaluate::statistics::Statistics;
use crate::feed::Subscribers;
use crate::identity::authorise::Caller;
use crate::identity::authorities::Authorities;
use crate::ingest::presence::Presence;
use crate::ingest::quota::Quotas;
use crate::journal::ledger::Ledger;
use crate::journal::rows::Rows;
use crate::listen::certificate::ServerCertificate;
use crate::metadata::Metadata;
use crate::receive::Receiver;
use crate::room::Room;
use crate::samples;
use crate::state::{Command, State};
use crate::store::projector::Projection;
use crate::store::{Store, StoreError};

/// Reads the rule files again and puts them in force; gives how many rules there are, or every mistake.
pub type ReloadRules = Arc<dyn Fn() -> Result<usize, String> + Send + Sync>;

/// Series of all subscribed results: their labels and values are kept, some 100 MB at worst.
const SUBSCRIBED_SERIES_MAX: usize = 500_000;
/// Feeds read at a time: every paging tool and screen of a large company, each with some megabytes at worst.
const FEEDS_MAX: usize = 256;
/// How often an idle feed says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What this collector is.
#[derive(Debug)]
pub struct About {
    pub version: String,
    pub cluster_id: String,
    pub started_at: Timestamp,
    pub data_dir: PathBuf,
    /// What was found wrong at the start and since, a line each.
    pub problems: Mutex<Vec<String>>,
}

/// What calls share among each other.
#[derive(Debug)]
pub struct Calls {
    pub(crate) queries: Arc<places::Places>,
    subscriptions: Arc<places::Places>,
    subscribed_series: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
    subscribers: Arc<Subscribers>,
    /// Held while a host's labels are read, changed and written.
    labelling: tokio::sync::Mutex<()>,
    heartbeat: Duration,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            queries: Arc::default(),
            subscriptions: Arc::new(places::Places::for_subscriptions()),
            subscribed_series: Arc::new(Semaphore::new(SUBSCRIBED_SERIES_MAX)),
            feeds: Arc::new(Semaphore::new(FEEDS_MAX)),
            subscribers: Arc::default(),
            labelling: tokio::sync::Mutex::default(),
            heartbeat: HEARTBEAT,
        }
    }
}

/// All services. Cloning is cheap: one clone for each service.
#[derive(Clone)]
pub struct Api {
    pub ledger: Ledger,
    pub projection: Projection,
    pub samples: Arc<samples::Store>,
    pub rows: Rows,
    pub presence: Arc<Presence>,
    pub room: Arc<Room>,
    /// What takes what other programs push.
    pub receiver: Arc<Receiver>,
    pub quotas: Arc<Quotas>,
    pub plan: Arc<ArcSwap<Plan>>,
    pub statistics: Arc<Statistics>,
    /// What received metrics are.
    pub metadata: Arc<Metadata>,
    pub about: Arc<About>,
    pub authorities: Arc<Authorities>,
    /// What the front shows: join tokens pin what its chain ends in.
    pub front: Arc<ServerCertificate>,
    /// How long two authorities are trusted before the new one signs.
    pub overlap: Duration,
    pub reload: ReloadRules,
    /// What cursors are of: drawn when the data directory is made.
    pub store_epoch: String,
    /// The same for all clones.
    pub calls: Arc<Calls>,
    /// Ends every stream.
    pub stop: CancellationToken,
}

/// The named credential that calls.
#[derive(Clone, Debug)]
struct Who {
    name: String,
    role: Role,
}

impl Who {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        match request.extensions().get::<Caller>() {
            Some(Caller::Principal { name, role }) => Ok(Self { name: name.clone(), role: *role }),
            _ => Err(Status::unauthenticated("this call needs a credential")),
        }
    }

    fn actor(&self) -> Actor {
        Actor::Principal(self.name.clone())
    }
}

impl Api {
    /// Lets the ledger decide; what it gives is durable.
    async fn submit(&self, who: &Who, command: Command) -> Result<Vec<Event>, Status> {
        let decided = self.ledger.submit(command, who.actor()).await.map_err(refusal::stopping)?;
        decided.map_err(refusal::refused)
    }

    /// Reads the durable state; `read` must be short.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.ledger.read(read).await.map_err(refusal::stopping)
    }

    /// Asks the store, which may wait for its disk.
    async fn stored<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        self.projection.whole().await;
        let store = self.projection.store.clone();
        blocking(move || ask(&store)).await?.map_err(refusal::stored)
    }

    /// Waits until the store has these events, so that the caller's next call sees them.
    async fn stored_through(&self, events: &[Event]) {
        if let Some(last) = events.last() {
            self.projection.reached(last.seq).await;
        }
    }

    /// Whether who opened a stream may still have it: revocation ends streams too.
    fn still_admitted(&self, who: &Who) -> Result<(), Status> {
        let (registry, now) = (self.ledger.registry(), now());
        let stands = registry.principals.values().any(|(name, role, until)| {
            *name == who.name && *role == who.role && until.is_none_or(|until| now < until)
        });
        if stands { Ok(()) } else { Err(Status::unauthenticated("the credential is revoked or has run out")) }
    }
}

/// Runs what may take a while on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(run).await;
    done.map_err(|_| Status::internal("the call failed inside the collector; its log has the place"))
}

/// How many records a list gives: `asked`, or what is usual when nothing was asked, and never more than `most`.
fn limit(asked: u32, usual: usize, most: usize) -> usize {
    if asked == 0 { usual } else { usize::try_from(asked).unwrap_or(most).min(most) }
}

/// Lines of `extra` that are not there yet.
fn extend_unique(lines: &mut Vec<String>, extra: impl IntoIterator<Item = String>) {
    let mut known: HashSet<String> = lines.iter().cloned().collect();
    lines.extend(extra.into_iter().filter(|line| known.insert(line.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_a_default_and_an_end() {
        for (asked, expected) in [(0, 100), (1, 1), (1_000, 1_000), (1_001, 1_000), (u32::MAX, 1_000)] {
            assert_eq!(limit(asked, 100, 1_000), expected, "{asked}");
        }
    }
}
