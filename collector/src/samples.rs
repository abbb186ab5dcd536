//! The sample store: rows of hosts in, series for PromQL out.
//!
//! A host's rows share one time column; its series are columns that cost next to nothing while they do not change.
//! What is recent is in memory (`host`), closed windows are sealed into immutable files (`blocks`), and reading joins
//! the two (`select`, `view`). Late rows are taken at any age; the first value written for a series and time stays.
//! Promises: a reader sees a sample from its append until its block is deleted, never twice; a row that was refused
//! left no sample behind; a host's series and unpacked rows are bounded. Packed chunks wait in memory to be sealed.
//! Not here: durability before sealing (the journal's), the clock, and when to seal or delete (the caller's).

mod block;
mod blocks;
mod bytes;
mod chunk;
mod codec;
mod column;
mod days;
mod heads;
#[doc(hidden)]
pub mod fuzz;
mod host;
mod join;
mod latest;
mod merge;
mod narrow;
mod open;
pub mod received;
mod rewrite;
mod select;
mod series;
mod stored;
mod texts;
mod together;
mod view;
mod window;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tocsin_shared::disk::{Disk, RealDisk};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use block::{ChunkAt, Sealing};
use blocks::Blocks;
use heads::{Heads, LoadedHost};
use host::Host;
use series::SeriesKey;
use texts::Texts;

pub use blocks::{BlockEntry, BlockError, Removed, RemovedFor, SetAside};
pub use bytes::Malformed;
pub use codec::{ABSENT, is_absent};
pub use heads::{NewHead, SealedTo};
pub use host::{SERIES_MAX, SampleError};
pub use latest::VisitLatest;
pub use select::SelectError;
pub use series::{Visit, Wanted};
pub(crate) use view::equalities;
pub use view::{HostView, SELECT_SAMPLES_MAX, SelectorCache, View};
pub use window::{DAY, WINDOW, Window};

/// Hosts by agent; the one without an agent holds what rules recorded across hosts.
type Hosts = HashMap<Option<AgentId>, Arc<RwLock<Host>>>;

/// How much there is, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub hosts: usize,
    /// Series with samples in memory or being sent.
    pub series: usize,
    pub samples_in_memory: u64,
    /// Samples in memory, packed and open.
    pub sample_bytes_in_memory: usize,
    /// Lists and indexes of series; label texts, which the agents' tables share, are not counted.
    pub series_bytes_in_memory: usize,
    pub blocks: usize,
    pub samples_at_rest: u64,
    pub bytes_at_rest: u64,
}

/// All samples of all hosts. Shared as it is; each host has its own lock.
pub struct Store {
    hosts: RwLock<Hosts>,
    blocks: Blocks,
    heads: Heads,
    texts: Texts,
    origins: received::Origins,
    /// Held while blocks are written or deleted.
    sealing: Mutex<()>,
    /// Rows and recorded values since the start.
    arrivals: AtomicU64,
}

impl Store {
    /// Opens the store over `<dir>/blocks`, made if it is not there. Says which files were set aside.
    pub fn open(dir: impl Into<PathBuf>) -> Result<(Self, Vec<SetAside>), BlockError> {
        Self::open_on(Arc::new(RealDisk), dir)
    }

    /// `open` on another disk.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
    ) -> Result<(Self, Vec<SetAside>), BlockError> {
        let dir = dir.into();
        let heads = Heads::new(Arc::clone(&disk), dir.join("heads"));
        let (blocks, aside) = Blocks::open(disk, dir.join("blocks"))?;
        let (mut hosts, mut received) = (Hosts::new(), Vec::new());
        for block in blocks.list().iter() {
            let complete = |id: &u32| block.index.series.get(*id as usize).is_some_and(|series| series.1);
            let lists = block.index.lists.iter().map(|list| list.iter().any(complete)).collect::<Vec<_>>();
            for index in &block.index.hosts {
                let host = hosts
                    .entry(index.agent)
                    .or_insert_with(|| Arc::new(RwLock::new(Host::new(Labels::empty()))));
                let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
                host.series.set_target(index.target.clone()); // The newest block is last.
                let complete = |chunk: &ChunkAt| lists.get(chunk.list as usize).is_some_and(|list| *list);
                host.series.some_complete |= index.chunks.iter().any(complete);
                let last = index.chunks.iter().map(|chunk| Timestamp::from_millis(chunk.last)).max();
                host.last_row = host.last_row.max(last);
                let key = index.agent.filter(|agent| received::is_received(*agent));
                received.extend(key.map(|key| (index.target.clone(), key)));
            }
        }
        let (texts, origins, sealing, arrivals) = Default::default();
        let store = Self { hosts: RwLock::new(hosts), blocks, heads, texts, origins, sealing, arrivals };
        received.into_iter().for_each(|(target, key)| store.note_origin(&target, key));
        Ok((store, aside))
    }

    /// Sets the labels that go over each series of a host, for everything read from now on.
    pub fn set_target(&self, agent: AgentId, target: Labels) {
        let host = self.host_or_new(Some(agent));
        host.write().unwrap_or_else(PoisonError::into_inner).series.set_target(target);
    }

    /// A table of series as an agent sent it, with label texts that all hosts share: for whoever keeps the table and
    /// appends its rows. A third less memory, and rules compare label sets faster.
    pub fn share_texts(&self, table: &[Labels]) -> Arc<[Labels]> {
        self.texts.share(table)
    }

    /// Adds a row of a host: the value of each series of `table` at one instant; `ABSENT` where there is none.
    ///
    /// Keep sending the same `Arc` while the table is the same: it is known by its address. A row that is there
    /// already changes nothing. Returns once it can be read; durability is the journal's.
    pub fn append(
        &self,
        agent: AgentId,
        table: &Arc<[Labels]>,
        at: Timestamp,
        values: &[f64],
    ) -> Result<(), SampleError> {
        let host = self.host_or_new(Some(agent));
        let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
        host.append(table, at, values)?;
        self.arrivals.fetch_add(1, Ordering::Relaxed); // The host's lock orders it after what came.
        Ok(())
    }

    /// Adds a sample that a rule recorded, under a host or (`None`) across hosts. `labels` are all labels of the series:
    /// target labels do not go over them. Ending such a series, with `STALE_NAN`, is the caller's.
    pub fn append_derived(
        &self,
        agent: Option<AgentId>,
        labels: Labels,
        at: Timestamp,
        value: f64,
    ) -> Result<(), SampleError> {
        let host = self.host_or_new(agent);
        let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
        host.append_derived(labels, at, value)?;
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A number that grows when there is something new to read: whoever saw it unchanged need not look again.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Everything, for queries.
    pub fn view(&self) -> View<'_> {
        View { store: self, of_received: false, samples_max: SELECT_SAMPLES_MAX, error: RefCell::default() }
    }

    /// One host, for its rules. A host never heard of has no series.
    pub fn host_view(&self, agent: AgentId) -> HostView<'_> {
        let agent = Some(agent);
        let host = self.host(agent);
        HostView {
            store: self,
            agent,
            host,
            cache: None,
            samples_max: SELECT_SAMPLES_MAX,
            scratch: RefCell::default(),
            error: RefCell::default(),
        }
    }

    /// The windows that have samples in memory, oldest first: what there is to seal.
    pub fn windows_in_memory(&self) -> Vec<Window> {
        let mut windows = BTreeSet::new();
        for (_, host) in self.hosts() {
            windows.extend(host.read().unwrap_or_else(PoisonError::into_inner).windows());
        }
        windows.into_iter().collect()
    }

    /// Writes everything in memory of a window into one block and drops it from memory; nothing when there is nothing.
    ///
    /// Durable when it returns. On an error memory keeps everything, and sealing can be tried again. Rows that come
    /// later go into a further block of the same window. Seal some time after a window's end (an hour, say): rules
    /// then find their ranges in memory.
    pub fn seal(&self, window: Window) -> Result<Option<BlockEntry>, BlockError> {
        let _one = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sealing = Vec::new();
        for (agent, host) in self.hosts() {
            let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
            let held = host.close(window);
            if !held.is_empty() {
                let slots = held.iter().flat_map(|held| held.slots.iter().copied());
                let keys = slots.map(|slot| (slot, host.key(slot).clone())).collect();
                let target = host.series.target().clone();
                sealing.push(Sealing { agent, target, keys, held });
            }
        }
        if sealing.is_empty() {
            return Ok(None);
        }
        let entry = self.blocks.write(window, &mut sealing)?;
        for Sealing { agent, held, .. } in &sealing {
            if let Some(host) = self.host(*agent) {
                host.write().unwrap_or_else(PoisonError::into_inner).forget(held);
            }
        }
        Ok(Some(entry))
    }

    /// Loads what head files have and blocks do not. Gives the journal's note, if there are head files: with them all
    /// rows up to those that the note tells are in memory or in blocks. After an error there is nothing of them.
    pub fn restore_heads(&self, sealed: SealedTo) -> Result<Option<Vec<u8>>, BlockError> {
        let texts = RefCell::new(HashMap::new());
        let shared = |key: SeriesKey| -> SeriesKey {
            let share = |(labels, complete): &SeriesKey| {
                (self.texts.share(std::slice::from_ref(labels))[0].clone(), *complete)
            };
            texts.borrow_mut().entry(key).or_insert_with_key(share).clone()
        };
        let Some((hosts, note)) = self.heads.load(sealed, shared)? else { return Ok(None) };
        in_parallel(hosts, |loaded| self.restore_host(loaded));
        Ok(Some(note))
    }

    fn restore_host(&self, loaded: LoadedHost) {
        let host = self.host_or_new(loaded.agent);
        let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
        if host.series.target().is_empty() {
            host.series.set_target(loaded.target.clone());
        }
        if let Some(key) = loaded.agent.filter(|agent| received::is_received(*agent)) {
            self.note_origin(&loaded.target, key);
            let last = loaded.chunks.iter().map(|loaded| Timestamp::from_millis(loaded.chunk.last)).max();
            host.last_row = host.last_row.max(last);
        }
        host.restore(loaded.chunks);
    }

    /// The newest row of a host that is in head files.
    pub fn note_last_row(&self, agent: AgentId, at: Timestamp) {
        let host = self.host_or_new(Some(agent));
        let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
        host.last_row = host.last_row.max(Some(at));
    }

    /// Writes down what is in memory and in no head file yet; nothing when there is nothing. `through` is the last row
    /// of the journal that is certainly in memory. It counts once it is listed, by `list_head`.
    pub fn write_head(&self, through: u64) -> Result<Option<NewHead>, BlockError> {
        let _one = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unsaved = Vec::new();
        for (agent, host) in self.hosts() {
            let mut host = host.write().unwrap_or_else(PoisonError::into_inner);
            let taken = host.take_unsaved();
            if !taken.is_empty() {
                let keys = (0..host.series.len() as u32).map(|slot| (slot, host.key(slot).clone())).collect();
                unsaved.push((agent, host.series.target().clone(), keys, taken));
            }
        }
        if unsaved.is_empty() {
            return Ok(None);
        }
        let packed = unsaved.into_iter().map(|(agent, target, keys, taken)| Sealing {
            agent,
            target,
            keys,
            held: taken.held(),
        });
        let written = self.heads.write(through, &mut packed.collect::<Vec<_>>());
        if written.is_err() {
            self.forget_saved();
        }
        written.map(Some)
    }

    /// Lists a head file that has no row of the journal beyond `upto`, with the journal's note; files that blocks have
    /// now are removed.
    pub fn list_head(
        &self,
        head: NewHead,
        upto: u64,
        note: Vec<u8>,
        sealed: SealedTo,
    ) -> Result<(), BlockError> {
        let listed = self.heads.commit(Some(head), upto, Some(note), sealed);
        if listed.is_err() {
            self.forget_saved();
        }
        listed
    }

    /// Removes the head files that blocks have.
    pub fn drop_heads(&self, sealed: SealedTo) -> Result<(), BlockError> {
        self.heads.commit(None, 0, None, sealed)
    }

    /// After a failure the next head file has everything: which of them count is not certain.
    fn forget_saved(&self) {
        for (_, host) in self.hosts() {
            host.write().unwrap_or_else(PoisonError::into_inner).forget_saved();
        }
    }

    /// Makes one block of several, if there are some that should be one: a day's, or many of one window. `sealed_to` is
    /// where sealing has come to; only sets of at most `bytes_max` bytes are taken, and that much room is used until
    /// it is done. Long: `go_on` is asked again and again, may wait to leave the cores to others, and ends it by `false`.
    ///
    /// What is read does not change. Gives the block that was made; nothing when nothing is due or it was ended.
    pub fn join(
        &self,
        sealed_to: Timestamp,
        bytes_max: u64,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<BlockEntry>, BlockError> {
        let lock = || self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = {
            let _one = lock();
            self.blocks.begin_joining(sealed_to, bytes_max)?
        };
        let Some(joining) = begun else { return Ok(None) };
        let written = joining.write(go_on);
        let _one = lock();
        self.blocks.settle_joining(written)
    }

    /// Deletes the blocks older than `max_age`, then the oldest until the rest takes at most `max_bytes`; and forgets
    /// hosts that have no samples left. Returns what was deleted.
    pub fn retain(
        &self,
        now: Timestamp,
        max_age: Duration,
        max_bytes: u64,
    ) -> Result<Vec<Removed>, BlockError> {
        let _one = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.blocks.retain(now, max_age, max_bytes)?;
        if !removed.is_empty() {
            self.forget_hosts();
        }
        Ok(removed)
    }

    fn forget_hosts(&self) {
        let list = self.blocks.list();
        let stored =
            list.iter().flat_map(|block| &block.index.hosts).map(|host| host.agent).collect::<HashSet<_>>();
        // A host that somebody holds is in use: with the map locked, nobody else can get hold of it.
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).retain(|agent, host| {
            let idle = Arc::strong_count(host) == 1
                && host.read().unwrap_or_else(PoisonError::into_inner).is_empty();
            !idle || stored.contains(agent)
        });
    }

    /// The blocks there are, oldest first.
    pub fn blocks(&self) -> Vec<BlockEntry> {
        self.blocks.list().iter().map(|block| block.entry.clone()).collect()
    }

    /// How much there is. Walks all columns: for a metrics page, not for each row.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for (agent, host) in self.hosts() {
            let host = host.read().unwrap_or_else(PoisonError::into_inner);
            let (series, samples) = host.memory();
            stats.hosts += usize::from(agent.is_some_and(|agent| !received::is_received(agent)));
            stats.series += host.series.len();
            stats.samples_in_memory += host.samples();
            stats.series_bytes_in_memory += series;
            stats.sample_bytes_in_memory += samples;
        }
        for block in self.blocks.list().iter() {
            stats.blocks += 1;
            stats.samples_at_rest += block.entry.samples;
            stats.bytes_at_rest += block.entry.bytes;
        }
        stats
    }

    /// The event times of a host's rows after `from`, up to `to`, ascending.
    pub fn row_times(
        &self,
        agent: AgentId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Timestamp>, SelectError> {
        let Some(host) = self.host(Some(agent)) else { return Ok(Vec::new()) };
        let host = host.read().unwrap_or_else(PoisonError::into_inner);
        let span = (from.as_millis(), to.as_millis());
        let times = select::row_times((Some(agent), &host), &self.blocks.overlapping(span), span)?;
        Ok(times.into_iter().map(Timestamp::from_millis).collect())
    }

    /// The newest row of each agent's host.
    pub fn last_rows(&self) -> Vec<(AgentId, Timestamp)> {
        let last = |(agent, host): (Option<AgentId>, Arc<RwLock<Host>>)| {
            Some((agent?, host.read().unwrap_or_else(PoisonError::into_inner).last_row?))
        };
        let agents =
            |(agent, _): &(Option<AgentId>, _)| agent.is_some_and(|agent| !received::is_received(agent));
        self.hosts().into_iter().filter(agents).filter_map(last).collect()
    }

    fn host(&self, agent: Option<AgentId>) -> Option<Arc<RwLock<Host>>> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(&agent).cloned()
    }

    fn host_or_new(&self, agent: Option<AgentId>) -> Arc<RwLock<Host>> {
        if let Some(host) = self.host(agent) {
            return host;
        }
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(agent).or_insert_with(|| Arc::new(RwLock::new(Host::new(Labels::empty())))))
    }

    fn hosts(&self) -> Vec<(Option<AgentId>, Arc<RwLock<Host>>)> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().map(|(agent, host)| (*agent, Arc::clone(host))).collect()
    }
}

/// Threads that load and replay at a start, when nothing else is to be done: more would wait for the disk.
pub(crate) const THREADS_MAX: usize = 4;

/// What `work` gives for each item, in order, from a few threads.
fn in_parallel<T: Send, R: Send>(mut items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let size = items.len().div_ceil(threads).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let mut parts = Vec::with_capacity(threads);
        while !items.is_empty() {
            let rest = items.split_off(size.min(items.len()));
            let part = std::mem::replace(&mut items, rest);
            parts.push(scope.spawn(move || part.into_iter().map(work).collect::<Vec<_>>()));
        }
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|why| std::panic::resume_unwind(why)))
            .collect()
    })
}

#[cfg(test)]
mod tests;
