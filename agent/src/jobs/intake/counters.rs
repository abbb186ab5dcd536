//! What the intake did, for the agent's own metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the intake did since it started.
#[derive(Debug, Default)]
pub struct IntakeCounters {
    pub(super) stored_socket: AtomicU64,
    pub(super) stored_drop_box: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) over_quota: AtomicU64,
    pub(super) sink_failures: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) alike: AtomicU64,
}

/// A reading of the counters, for the agent's own metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeCounts {
    /// Records made durable that came by the socket.
    pub stored_socket: u64,
    /// Records made durable that came by the drop-box.
    pub stored_drop_box: u64,
    /// Second copies of records already stored.
    pub duplicates: u64,
    /// Connections and files that were not acceptable records.
    pub refused: u64,
    /// Times a user was told to come later, or their files were left for later.
    pub over_quota: u64,
    /// Times the sink could not store.
    pub sink_failures: u64,
    /// Runs that ended without anybody reporting how, and are told as interrupted.
    pub missed: u64,
    /// Runs that are counted by another one's record, because their user was over the allowance.
    pub alike: u64,
}

impl IntakeCounters {
    /// The counts as they are now.
    pub fn read(&self) -> IntakeCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IntakeCounts {
            stored_socket: get(&self.stored_socket),
            stored_drop_box: get(&self.stored_drop_box),
            duplicates: get(&self.duplicates),
            refused: get(&self.refused),
            over_quota: get(&self.over_quota),
            sink_failures: get(&self.sink_failures),
            missed: get(&self.missed),
            alike: get(&self.alike),
        }
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
