//! Whose handshake begins when: as many as this machine finishes, the rest wait for a moment or are turned away.
//!
//! A fleet that comes back at once brings more handshakes than there is CPU for in the time that each may take; were
//! all begun together, all would be late together and the work of all would be lost. So the first words of a peer are
//! only read; the work on them begins when there is a place, and a few at a time on each core, so that what was begun
//! is finished first. Promises: who says nothing, or half of its first words, holds no place; who finds none in time is
//! turned away before any work, and comes again as its back-off says. Not here: what one address may have (`limits`).

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;

/// Handshakes whose first, costly step runs or is about to: one that runs and one that is next on each core.
const STARTS_PER_CORE: usize = 2;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Turns {
    arrivals: Arc<Semaphore>,
    places: Arc<Semaphore>,
    starts: Semaphore,
    patience: Duration,
}

/// A connection that has not begun its handshake.
#[derive(Debug)]
pub(super) struct Arrival(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A handshake that was begun, or an agent that has no Welcome yet.
#[derive(Debug)]
pub(super) struct Place(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Turns {
    pub(super) fn new(limits: &Limits) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            arrivals: Arc::new(Semaphore::new(limits.arrivals)),
            places: Arc::new(Semaphore::new(limits.handshakes)),
            starts: Semaphore::new(cores * STARTS_PER_CORE),
            patience: limits.turn,
        }
    }

    /// Room for one more that waits; none when enough do.
    pub(super) fn arrive(&self) -> Option<Arrival> {
        Arc::clone(&self.arrivals).try_acquire_owned().ok().map(Arrival)
    }

    /// Waits for a place, in the order of asking; none when that takes too long.
    pub(super) async fn place(&self, arrival: Arrival) -> Option<Place> {
        let place = tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await;
        drop(arrival);
        place.ok()?.ok().map(Place)
    }

    /// Does the first step of a handshake when it is its turn.
    pub(super) async fn begin<T>(&self, step: impl FnOnce() -> T) -> T {
        let _turn = self.starts.acquire().await; // Never closed; without it the step is done all the same.
        step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: N19
    #[tokio::test]
    async fn who_finds_no_place_in_time_is_turned_away() {
        let turn = Duration::from_millis(20);
        let limits = Limits { arrivals: 2, handshakes: 1, turn, ..Limits::default() };
        let turns = Turns::new(&limits);
        let first = turns.place(turns.arrive().unwrap()).await.expect("there is one place");
        let waiting = (turns.arrive().unwrap(), turns.arrive().unwrap());
        assert!(turns.arrive().is_none(), "only so many wait");
        assert!(turns.place(waiting.0).await.is_none(), "the place is taken for longer than it waits");
        assert!(turns.arrive().is_some(), "who was turned away waits no more");
        drop(first);
        assert!(turns.place(waiting.1).await.is_some());
        assert_eq!(turns.begin(|| 7).await, 7);
    }
}
