//! Joins blocks in the background: a day's when it is over, and many small ones of one window.
//!
//! One at a time, with half of a core at most, and only while there is room for the old and the new together. A stop
//! or a disk that runs short ends it between two hosts; what was written is thrown away then. `housekeeping` tells the
//! journal of the blocks there are.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::Parts;
use super::maintenance::{HOUSEKEEPING, sealed_to};

/// The longest pause between two hosts: a stop waits for one of them.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What stays free beside old and new blocks: so often the room below which rows are refused.
const FLOORS: u64 = 2;

/// Runs until the collector stops.
pub(super) async fn run(parts: Parts) {
    let mut interval = tokio::time::interval(HOUSEKEEPING);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while parts.stop.run_until_cancelled(interval.tick()).await.is_some() {
        let parts = parts.clone();
        tokio::task::spawn_blocking(move || join_all(&parts)).await.ok(); // A panic was reported where it happened.
    }
}

fn join_all(parts: &Parts) {
    let room = &parts.room;
    let may = || !parts.stop.is_cancelled() && room.takes_rows() && !room.lives_on_reserve();
    while may() {
        let floor = parts.config.room.free_floor_bytes.saturating_mul(FLOORS);
        let bytes_max = room.standing().free.saturating_sub(floor);
        let (begun, pace) = (Instant::now(), Pace::default());
        let go_on = || {
            std::thread::sleep(pace.pause(Instant::now()));
            pace.begin(Instant::now());
            may()
        };
        match parts.samples.join(sealed_to(), bytes_max, &go_on) {
            Ok(Some(entry)) => {
                tracing::info!(block = entry.name, bytes = entry.bytes, took = ?begun.elapsed(), "blocks joined")
            }
            Ok(None) => return,
            Err(error) => {
                return tracing::error!(%error, "blocks were not joined; all of them are still there");
            }
        }
    }
}

/// Waits as long as was worked.
#[derive(Default)]
struct Pace(Cell<Option<Instant>>);

impl Pace {
    fn pause(&self, now: Instant) -> Duration {
        self.0.get().map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun)).min(PAUSE_MAX)
    }

    fn begin(&self, now: Instant) {
        self.0.set(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_as_long_as_the_work_and_bounded() {
        let (pace, begun) = (Pace::default(), Instant::now());
        assert_eq!(pace.pause(begun), Duration::ZERO);
        pace.begin(begun);
        for (worked, pause) in [(0, 0), (20, 20), (999, 999), (5_000, 1_000)] {
            assert_eq!(pace.pause(begun + Duration::from_millis(worked)), Duration::from_millis(pause));
        }
    }
}
