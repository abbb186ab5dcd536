//! What is known of one source: its series, its jobs and instances, and how new their samples are. Pure.
//!
//! A series is found by the hash of its labels' bytes as they lie in the request; labels are checked and made only
//! for a series that is new. Promises: no more than `series_max` series, and what has not come for an hour makes room
//! for new ones; a sample that is taken is within bounds of time and of no agent's host. Late samples are taken up to
//! an hour behind the newest of their job and instance. What comes twice is harmless: the store keeps the first.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::time::Timestamp;

use super::refused::{Reason, Refused};
use crate::journal::rows::received::{Sample, Series};
use crate::samples::received::Origin;
use crate::samples::{Store, is_absent};

/// How far samples may come behind the newest of their job and instance.
pub const LATE_MAX: Duration = Duration::from_secs(3600);
/// How far ahead of the collector's time a sample may be: clocks differ, and more than this is a mistake.
pub const AHEAD_MAX: Duration = Duration::from_secs(600);
/// A series that has not come for so long is not active.
const IDLE: Duration = Duration::from_secs(3600);
/// Between two looks for series that are not active: a look walks all of them.
const LOOK: Duration = Duration::from_secs(60);
/// Bounds of labels: far above what exporters send.
const LABELS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 2048;
/// What agents' hosts have as their job.
const AGENTS_JOB: &str = "node";

/// A label as it lies in a request.
pub type RawLabel<'a> = (&'a [u8], &'a [u8]);

/// What a source's samples are judged by.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    pub now: Timestamp,
    /// Samples before this are not kept any more.
    pub keep_from: Timestamp,
    /// What hosts with an agent are called.
    pub agents: &'a HashSet<Arc<str>>,
    pub store: &'a Store,
}

/// One source's series.
pub struct Book {
    source: Arc<str>,
    series_max: usize,
    known: HashMap<u128, Known, Taken>,
    origins: HashMap<AgentId, Arc<Standing>>,
    hashes: RandomState,
    looked_at: Timestamp,
}

struct Known {
    series: Arc<Series>,
    standing: Arc<Standing>,
    /// When it came last, by the collector's time.
    came_at: Timestamp,
}

/// A job and instance of the source.
struct Standing {
    origin: Arc<Origin>,
    /// `i64::MIN` before the first sample.
    newest: AtomicI64,
    /// If its job is that of hosts with agents: what it is called.
    node: Option<Arc<str>>,
}

/// Keys are hashes already: half of one is as good as another hash of it.
#[derive(Clone, Copy, Default)]
struct Taken(u64);

impl BuildHasher for Taken {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl std::hash::Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

impl Book {
    /// A source of which nothing is known yet.
    pub fn new(source: Arc<str>, series_max: usize) -> Self {
        Self {
            source,
            series_max,
            known: HashMap::default(),
            origins: HashMap::new(),
            hashes: RandomState::new(),
            looked_at: Timestamp::MIN,
        }
    }

    /// Active series.
    pub fn series(&self) -> usize {
        self.known.len()
    }

    /// Jobs and instances.
    pub fn origins(&self) -> usize {
        self.origins.len()
    }

    /// Begins a request.
    pub fn intake<'b>(&'b mut self, judge: Judge<'b>) -> Intake<'b> {
        Intake { book: self, judge, samples: Vec::new(), refused: Refused::default(), key: Vec::new() }
    }

    /// The label with the most values among the active series, and how many it has: the culprit when they are too many.
    pub fn widest_label(&self) -> Option<(String, usize)> {
        let mut values: HashMap<&str, HashSet<&str>> = HashMap::new();
        for known in self.known.values() {
            for (name, value) in known.series.labels.iter() {
                values.entry(name).or_default().insert(value);
            }
        }
        let widest = values.into_iter().max_by_key(|(name, values)| (values.len(), std::cmp::Reverse(*name)));
        widest.map(|(name, values)| (name.to_owned(), values.len()))
    }

    fn key(&self, bytes: &[u8]) -> u128 {
        // A hash under a key of this process, and a checksum: that two series share both does not happen.
        let (keyed, sum) = (self.hashes.hash_one(bytes), crc32fast::hash(bytes));
        u128::from(sum) << 64 | u128::from(keyed)
    }

    /// Makes room for a new series; whether there is any.
    fn has_room(&mut self, now: Timestamp) -> bool {
        if self.known.len() >= self.series_max && now.since(self.looked_at) >= LOOK {
            self.looked_at = now;
            self.known.retain(|_, known| now.since(known.came_at) < IDLE);
            self.origins.retain(|_, standing| Arc::strong_count(standing) > 1);
        }
        self.known.len() < self.series_max
    }

    fn standing(&mut self, labels: &Labels, store: &Store) -> Arc<Standing> {
        let origin = Origin::of(&self.source, labels);
        let make = || {
            let newest = store.newest_received(&origin).map_or(i64::MIN, Timestamp::as_millis);
            let label = |name| labels.get(name).unwrap_or_default();
            let node = (label("job") == AGENTS_JOB).then(|| Arc::from(label("instance")));
            Arc::new(Standing { newest: AtomicI64::new(newest), node, origin: Arc::new(origin.clone()) })
        };
        Arc::clone(self.origins.entry(origin.key).or_insert_with(make))
    }
}

/// One request of a source, while it is judged.
pub struct Intake<'b> {
    book: &'b mut Book,
    judge: Judge<'b>,
    samples: Vec<Sample>,
    refused: Refused,
    /// The labels' bytes, each ended by a byte that no text has.
    key: Vec<u8>,
}

impl Intake<'_> {
    /// Takes samples of one series, as times in milliseconds and values. `labels` may be put in order.
    pub fn take(
        &mut self,
        labels: &mut Vec<RawLabel<'_>>,
        samples: impl Iterator<Item = (i64, f64)> + Clone,
    ) {
        let count = |samples: &dyn Fn() -> usize| samples() as u64;
        let key = match self.key_of(labels) {
            Ok(key) => key,
            Err(why) => {
                let samples = count(&|| samples.clone().count());
                return self.refused.add(Reason::InvalidLabels, samples, || why);
            }
        };
        if !self.book.known.contains_key(&key)
            && let Err((reason, why)) = self.learn(key, labels)
        {
            return self.refused.add(reason, count(&|| samples.clone().count()), || why);
        }
        let Some(known) = self.book.known.get_mut(&key) else { return };
        known.came_at = self.judge.now;
        let Known { series, standing, .. } = &*known;
        if standing.node.as_ref().is_some_and(|instance| self.judge.agents.contains(instance)) {
            let why = || format!("{}: that host speaks for itself, by its agent", series.labels);
            return self.refused.add(Reason::AgentsHost, count(&|| samples.clone().count()), why);
        }
        let ahead = self.judge.now.as_millis().saturating_add(AHEAD_MAX.as_millis() as i64);
        for (at, value) in samples {
            let newest = standing.newest.load(Ordering::Relaxed);
            let behind = newest.saturating_sub(LATE_MAX.as_millis() as i64);
            let time = |at| Timestamp::from_millis(at);
            if at > ahead {
                let why = || format!("{} at {}: it is {} here", series.labels, time(at), self.judge.now);
                self.refused.add(Reason::TooFarInFuture, 1, why);
            } else if at < behind || at < self.judge.keep_from.as_millis() {
                let newest = time(newest.max(self.judge.keep_from.as_millis()));
                let why = || format!("{} at {}: more than an hour behind {newest}", series.labels, time(at));
                self.refused.add(Reason::TooOld, 1, why);
            } else {
                standing.newest.fetch_max(at, Ordering::Relaxed);
                let value = if is_absent(value) { f64::NAN } else { value };
                let series = Arc::clone(series);
                self.samples.push(Sample { series, at: Timestamp::from_millis(at), value });
            }
        }
    }

    /// Counts what is refused for another reason.
    pub fn refuse(&mut self, reason: Reason, samples: u64, why: impl FnOnce() -> String) {
        self.refused.add(reason, samples, why);
    }

    /// Counts points of which something was refused, where a request speaks of points.
    pub fn refuse_points(&mut self, points: u64) {
        self.refused.points += points;
    }

    /// How many samples were refused so far that the sender is told of.
    pub fn errors(&self) -> u64 {
        self.refused.errors()
    }

    /// What is taken, samples of one job, instance and time together; and what is not.
    pub fn finish(mut self) -> (Vec<Sample>, Refused) {
        let place = |sample: &Sample| (sample.series.origin.key, sample.at);
        if !self.samples.is_sorted_by_key(place) {
            self.samples.sort_by_key(place); // Stable: of one time the first stays the first.
        }
        (self.samples, self.refused)
    }

    /// The key of labels, without empty ones and in order.
    fn key_of(&mut self, labels: &mut Vec<RawLabel<'_>>) -> Result<u128, String> {
        labels.retain(|(_, value)| !value.is_empty());
        if !labels.is_sorted_by(|a, b| a.0 < b.0) {
            labels.sort_by_key(|(name, _)| *name);
            if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(format!("the label {} is twice in a series", shown(pair[0].0)));
            }
        }
        self.key.clear();
        for (name, value) in labels {
            self.key.extend_from_slice(name);
            self.key.push(0xff);
            self.key.extend_from_slice(value);
            self.key.push(0xff);
        }
        Ok(self.book.key(&self.key))
    }

    /// Takes a series that was not known, if it is within bounds.
    fn learn(&mut self, key: u128, labels: &[RawLabel<'_>]) -> Result<(), (Reason, String)> {
        let labels = checked(labels).map_err(|why| (Reason::InvalidLabels, why))?;
        let Judge { now, store, .. } = self.judge;
        if !self.book.has_room(now) {
            let max = self.book.series_max;
            return Err((
                Reason::SeriesLimit,
                format!("{labels} is new, and {max} series are active already"),
            ));
        }
        let labels = store.share_texts(&[labels])[0].clone();
        let standing = self.book.standing(&labels, store);
        let series = Arc::new(Series::new(labels, Arc::clone(&standing.origin)));
        self.book.known.insert(key, Known { series, standing, came_at: now });
        Ok(())
    }
}

/// Labels within bounds, as a set. They are in order, and none is empty or twice.
fn checked(labels: &[RawLabel<'_>]) -> Result<Labels, String> {
    if labels.len() > LABELS_MAX {
        return Err(format!("{} labels on a series, at most {LABELS_MAX}", labels.len()));
    }
    let mut pairs = Vec::with_capacity(labels.len());
    for (name, value) in labels {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
        let read = text(name).ok().filter(|text| !text.is_empty() && !text.contains(char::is_control));
        if name.len() > NAME_BYTES_MAX || read.is_none() {
            return Err(format!("{} is no label name: empty, too long, or no text", shown(name)));
        }
        let value = text(value).ok().filter(|text| text.len() <= VALUE_BYTES_MAX).ok_or_else(|| {
            format!("the value of {} is longer than {VALUE_BYTES_MAX} bytes or no UTF-8", shown(name))
        })?;
        pairs.push((read.unwrap_or_default(), value));
    }
    let labels = Labels::new(pairs);
    match labels.get(METRIC_NAME) {
        Some(_) => Ok(labels),
        None => Err(format!("{labels} has no metric name")),
    }
}

/// Bytes that may be no text, as much of them as a person reads.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(64)];
    format!("{:?}", String::from_utf8_lossy(cut))
}
