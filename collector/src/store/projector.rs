//! The projector: the thread that opens the store, follows the journal into it, and replaces it when it is no good.
//!
//! Nothing waits for it: the collector starts, takes and tells everything without a store. Whoever asks the store
//! meanwhile is told how far it is. When there is no room, it waits until there is; any other failure of the tables
//! sets them aside, and others are built from the journal, with what the ledger still knows of events that are gone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tocsin_shared::event::{Actor, Event, Subject};
use tocsin_shared::log::{LogError, Reader};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::aside::{Open, beside, drop_apart, forget_aside, open_within, remove, set_aside, swap};
use super::prune::Retention;
use super::query::Applied;
use super::{SledTables, Store, StoreError, Tables};
use crate::clock::now;
use crate::journal::ledger::{self, Ledger};
use crate::state::Command;
use crate::state::command::Matter;

/// Events in one transaction: short ones, because sled holds a lock of the whole process meanwhile.
const BATCH: usize = 256;
/// How long tables may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// The wait after a failure doubles with each one in a row, up to this: a broken disk is not made worse.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// How often the store is pruned and its size looked at.
const CARE: Duration = Duration::from_secs(3600);
/// Below this a store is not copied anew, however little it holds.
const SMALL_BYTES: u64 = 64 << 20;
/// How many times what it holds a store may take.
const GROWTH_MAX: u64 = 4;
/// Problems that are kept for `tocsin status`: the last ones.
const PROBLEMS_MAX: usize = 10;

/// How the store stands.
#[derive(Clone)]
pub struct Projection {
    pub store: Store,
    /// The last event in the store.
    pub applied: watch::Receiver<u64>,
    /// What was set aside and why, and a failure that stays.
    pub problems: Arc<Mutex<Vec<String>>>,
}

impl Projection {
    /// Waits until the store has an event, for at most two seconds: reading what one has just written.
    pub async fn reached(&self, seq: u64) {
        let mut applied = self.applied.clone();
        let wait = applied.wait_for(|applied| *applied >= seq);
        tokio::time::timeout(Duration::from_secs(2), wait).await.ok().and_then(Result::ok); // Late is no error: the store catches up.
    }

    /// Waits until the store can be asked, for at most two seconds: after a start it is soon; else it says how far it is.
    pub async fn whole(&self) {
        let (mut applied, store) = (self.applied.clone(), self.store.clone());
        let wait = applied.wait_for(|_| store.is_whole());
        tokio::time::timeout(Duration::from_secs(2), wait).await.ok().and_then(Result::ok); // The store says it.
    }
}

/// How the store is kept.
pub struct Config {
    pub path: PathBuf,
    /// For how long incidents and alerts that ended, and runs, are kept.
    pub keep: Duration,
    /// The collector's host, for the alert about a store that is built again.
    pub(super) instance: String,
    pub(super) open: Open,
    pub(super) open_within: Duration,
    pub(super) care: Duration,
    /// Below this size it is not copied anew.
    pub(super) small_bytes: u64,
    /// The first wait after a failure.
    pub(super) wait: Duration,
}

impl Config {
    /// A store in sled.
    pub fn sled(path: PathBuf, keep: Duration) -> Self {
        let open: Open = Arc::new(|path| Ok(Arc::new(SledTables::open(path)?) as Arc<dyn Tables>));
        let (open_within, care, wait) = (OPEN_WITHIN, CARE, Duration::from_secs(1));
        let instance = "collector".to_owned();
        Self { path, keep, instance, open, open_within, care, small_bytes: SMALL_BYTES, wait }
    }

    /// On this host.
    pub fn on(self, instance: String) -> Self {
        Self { instance, ..self }
    }
}

/// Starts to follow the journal into the store.
pub async fn start(
    config: Config,
    ledger: &Ledger,
    stop: CancellationToken,
) -> Result<Projection, crate::journal::Stopping> {
    let store = Store::default();
    let (applied_out, applied) = watch::channel(0);
    let problems = Arc::new(Mutex::new(Vec::new()));
    let projector = Projector {
        store: store.clone(),
        reader: ledger.reader().await?,
        head: ledger.head(),
        ledger: ledger.clone(),
        failures: store.failures(),
        cared: Instant::now(),
        applied: applied_out,
        problems: problems.clone(),
        told_whole: false,
        handle: Handle::current(),
        config,
        stop,
    };
    thread::Builder::new()
        .name("projector".into())
        .spawn(move || projector.run())
        .expect("a thread can be started at the start of the process");
    Ok(Projection { store, applied, problems })
}

struct Projector {
    config: Config,
    store: Store,
    ledger: Ledger,
    reader: Reader,
    head: watch::Receiver<u64>,
    failures: watch::Receiver<Option<String>>,
    cared: Instant,
    stop: CancellationToken,
    handle: Handle,
    applied: watch::Sender<u64>,
    problems: Arc<Mutex<Vec<String>>>,
    /// The ledger knows that the store is whole. Not at a start: an alert of an earlier process ends like one of this.
    told_whole: bool,
}

impl Projector {
    fn run(mut self) {
        let mut in_a_row = 0;
        loop {
            let begun = Instant::now();
            let Err(error) = self.serve() else { break };
            drop_apart(self.store.close());
            self.applied.send_replace(0);
            in_a_row = if begun.elapsed() > WAIT_MAX { 1 } else { in_a_row + 1 };
            self.recover(&error);
            let doubled = self.config.wait.saturating_mul(1 << (in_a_row - 1).min(16));
            // The first failure is mended at once: other tables are what it takes.
            let at_once = in_a_row == 1 && !error.is_full();
            let wait = if at_once { Duration::ZERO } else { doubled.min(WAIT_MAX) };
            let stop = self.stop.clone();
            let waited = async move { stop.run_until_cancelled(tokio::time::sleep(wait)).await };
            if self.handle.block_on(waited).is_none() {
                break;
            }
        }
        drop(self.store.close());
    }

    fn say(&self, problem: String) {
        tracing::error!("{problem}");
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.retain(|known| *known != problem);
        problems.push(problem);
        let old = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.drain(..old);
    }

    /// The collector's own alert, while the store is built again because it failed. Stopping is no matter here.
    fn tell(&self, trouble: Option<String>) {
        let command = Command::CollectorStands {
            matter: Matter::Store,
            instance: self.config.instance.clone(),
            trouble,
        };
        self.ledger.post_blocking(command, Actor::System).ok();
    }

    /// Makes way for other tables, unless the failure is none of theirs.
    fn recover(&mut self, error: &StoreError) {
        if error.is_full() {
            self.say(format!(
                "the store has no room ({error}): questions about the past wait until there is"
            ));
            if let Err(error) = forget_aside(&self.config.path, 0) {
                tracing::warn!(%error, "stores that were set aside could not be removed");
            }
            return;
        }
        if let StoreError::Journal(_) = error {
            return self.say(format!("the store can't follow ({error}): it is tried again"));
        }
        let problem = match set_aside(&self.config.path) {
            Ok(Some(aside)) => {
                let aside = aside.display();
                format!("the store failed ({error}); it is set aside as {aside} and built again")
            }
            Ok(None) => format!("the store is gone ({error}); it is built again"),
            Err(again) => format!("the store failed ({error}) and can't be set aside ({again})"),
        };
        self.told_whole = false;
        self.tell(Some(problem.clone()));
        self.say(problem);
    }

    /// Opens the store and follows until the collector stops.
    fn serve(&mut self) -> Result<(), StoreError> {
        self.failures.mark_unchanged();
        for left_over in [".new", ".old"] {
            remove(&beside(&self.config.path, left_over))?;
        }
        let tables = open_within(&self.config.open, &self.config.path, self.config.open_within)?;
        self.store.install(tables, self.reader.durable_seq());
        let applied = self.store.applied()?;
        self.check(applied)?;
        if applied.seq == 0 {
            self.seed()?;
        }
        self.applied.send_replace(applied.seq);
        self.seek(applied.seq + 1)?;
        self.follow()
    }

    /// Whether the store and the journal are of one history.
    fn check(&mut self, applied: Applied) -> Result<(), StoreError> {
        if applied.seq > self.reader.durable_seq() {
            let why = format!("it holds event {}, the journal ends before it", applied.seq);
            return Err(StoreError::Record(why));
        }
        if applied.seq == 0 || self.reader.seek(applied.seq).is_err() {
            return Ok(()); // Nothing to compare, or dropped since.
        }
        let found = self.event()?.filter(|event| event.seq == applied.seq);
        match found.is_none_or(|event| Applied::of(&event) == applied) {
            true => Ok(()),
            false => Err(StoreError::Record("it is of another journal".into())),
        }
    }

    /// A new store begins with what the ledger knows of events that the journal no longer has.
    fn seed(&mut self) -> Result<(), StoreError> {
        if self.reader.seek(1).is_ok() {
            return Ok(());
        }
        let records = self.ledger.read_blocking(|state| state.records());
        let mut records = records.map_err(|error| StoreError::Journal(error.to_string()))?;
        records.retain(|record| matches!(record, Subject::Incident(_) | Subject::Alert(_) | Subject::Run(_)));
        self.store.seed(&records)
    }

    fn follow(&mut self) -> Result<(), StoreError> {
        let mut ended = false;
        loop {
            let batch = self.batch()?;
            if let Some(last) = batch.last() {
                self.store.apply(&batch)?;
                self.applied.send_replace(last.seq);
                continue;
            }
            if !self.told_whole && self.store.is_whole() {
                self.told_whole = true;
                self.tell(None);
            }
            if self.cared.elapsed() >= self.config.care {
                self.cared = Instant::now();
                self.care()?;
            }
            if ended {
                return Ok(());
            }
            ended = self.wait()?;
        }
    }

    /// Waits for events, for a failed question or for the time to take care; gives whether the collector stops.
    fn wait(&mut self) -> Result<bool, StoreError> {
        let (head, failures, stop) = (&mut self.head, &mut self.failures, self.stop.clone());
        let next = self.config.care.saturating_sub(self.cared.elapsed());
        let (ended, failed) = self.handle.block_on(async {
            tokio::select! {
                changed = head.changed() => (changed.is_err(), false),
                failed = failures.changed() => (false, failed.is_ok()),
                () = tokio::time::sleep(next) => (false, false),
                () = stop.cancelled() => (true, false),
            }
        });
        if failed {
            let why = self.failures.borrow_and_update().clone().unwrap_or_default();
            return Err(StoreError::Record(format!("a question failed: {why}")));
        }
        Ok(ended)
    }

    fn seek(&mut self, seq: u64) -> Result<(), StoreError> {
        match self.reader.seek(seq) {
            Err(LogError::Gone { first_seq }) => self.reader.seek(first_seq),
            sought => sought,
        }
        .map_err(|error| StoreError::Journal(error.to_string()))
    }

    fn event(&mut self) -> Result<Option<Event>, StoreError> {
        let entry = self.reader.next().map_err(|error| StoreError::Journal(error.to_string()))?;
        let Some(entry) = entry else { return Ok(None) };
        let event = ledger::decode(&entry.payload, entry.seq);
        event.map(Some).map_err(|error| StoreError::Journal(error.to_string()))
    }

    fn batch(&mut self) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        while events.len() < BATCH {
            let Some(event) = self.event()? else { break };
            events.push(event);
        }
        Ok(events)
    }

    /// Forgets what is beyond retention, and copies the store anew when it takes far more than it holds.
    fn care(&mut self) -> Result<(), StoreError> {
        let pruned = self.store.prune(&Retention { ended_before: now().minus(self.config.keep) })?;
        if pruned > 0 {
            tracing::info!(keys = pruned, "the store forgot what is beyond retention");
        }
        let bytes = self.store.bytes();
        if bytes > self.config.small_bytes {
            let held = self.store.held()?;
            if bytes > GROWTH_MAX * held {
                tracing::info!(bytes, held, "the store takes far more than it holds: it is copied anew");
                return self.copy();
            }
        }
        Ok(())
    }

    /// Copies the store beside itself while it is asked, and puts the copy in its place.
    fn copy(&mut self) -> Result<(), StoreError> {
        let (new, path) = (beside(&self.config.path, ".new"), self.config.path.clone());
        let copied = open_within(&self.config.open, &new, self.config.open_within)
            .and_then(|tables| self.store.copy_to(&*tables));
        if let Err(error) = copied {
            remove(&new)?;
            return Err(error);
        }
        drop(self.store.close());
        swap(&new, &path)?;
        let tables = open_within(&self.config.open, &path, self.config.open_within)?;
        self.store.install(tables, 0);
        self.store.applied().map(|_| ())
    }
}

#[cfg(test)]
impl Config {
    /// A store that is gone with the process.
    pub(crate) fn memory(path: PathBuf) -> Self {
        let open: Open = Arc::new(|_| Ok(Arc::new(super::MemoryTables::default()) as Arc<dyn Tables>));
        Self { open, ..Self::sled(path, Duration::from_secs(3600)) }
    }
}
