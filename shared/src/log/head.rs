//! What the writer tells its readers: which segments there are, and how far each is durable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A segment file as readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first_seq: u64,
    /// Another one for each file, also for files that had the same name.
    pub(super) id: u64,
    /// Its durable length.
    pub(super) bytes: u64,
}

/// Shared by one writer and any number of readers. A reader that is at the end asks `generation` alone, which costs
/// no lock.
pub(super) struct Head {
    generation: AtomicU64,
    durable_seq: AtomicU64,
    segments: Mutex<Vec<Segment>>,
}

impl Head {
    pub(super) fn new(segments: Vec<Segment>, durable_seq: u64) -> Self {
        Self {
            generation: AtomicU64::new(1),
            durable_seq: AtomicU64::new(durable_seq),
            segments: Mutex::new(segments),
        }
    }

    /// Changes whenever anything else here does.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn durable_seq(&self) -> u64 {
        self.durable_seq.load(Ordering::Acquire)
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        self.lock().clone()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().iter().map(|segment| segment.bytes).sum()
    }

    /// The last segment that starts at or before `seq`, and where the one after it starts. `Err` is the first
    /// segment's start when all start later; `None` is a log without segments.
    pub(super) fn segment_for(&self, seq: u64) -> Option<Result<(Segment, Option<u64>), u64>> {
        let segments = self.lock();
        let first = segments.first()?.first_seq;
        let after = segments.partition_point(|segment| segment.first_seq <= seq);
        if after == 0 {
            return Some(Err(first));
        }
        Some(Ok((segments[after - 1], segments.get(after).map(|next| next.first_seq))))
    }

    /// The writer created a segment.
    pub(super) fn push(&self, first_seq: u64) {
        let id = self.generation() + (1 << 32); // Recovery counts from 0, and generations go up.
        self.change(|segments| segments.push(Segment { first_seq, id, bytes: 0 }));
    }

    /// The writer gave a segment another file under its name.
    pub(super) fn replace(&self, first_seq: u64, bytes: u64) {
        let id = self.generation() + (1 << 32); // As in `push`.
        self.change(|segments| {
            if let Some(old) = segments.iter_mut().find(|segment| segment.first_seq == first_seq) {
                (old.id, old.bytes) = (id, bytes);
            }
        });
    }

    /// The writer gives no number before `seq` any more.
    pub(super) fn skip_to(&self, seq: u64) {
        self.durable_seq.store(seq - 1, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The writer changes the list of segments.
    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<Segment>)) {
        change(&mut self.lock());
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The writer made the last segment durable up to `bytes`, and with it all records up to `seq`.
    pub(super) fn publish(&self, seq: u64, bytes: u64) {
        self.durable_seq.store(seq, Ordering::Release);
        self.change(|segments| {
            if let Some(last) = segments.last_mut() {
                last.bytes = bytes;
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
