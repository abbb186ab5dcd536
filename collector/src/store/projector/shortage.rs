//! ⇄ The store while its disk has no room: what it does not get is laid over it in memory, and written when it can be.
//!
//! What the store wrote to a full disk, it would take from the journal's reserve. Queries go on and are current; a
//! shortage that outlasts the memory for it leaves them stale, which is said.

use std::sync::Arc;
use std::time::Duration;

use super::{Projector, open};
use crate::store::overlay::Overlay;
use crate::store::{MemoryTables, StoreError, Tables};

/// How often a store without room looks for it.
pub(super) const ROOM_CHECK: Duration = Duration::from_secs(1);
/// How each line about a shortage begins.
const SAID: &str = "the store has no room on the disk";

/// What lies under the overlay.
pub(super) struct Laid {
    below: Arc<dyn Tables>,
    over: Arc<Overlay>,
    /// It failed: its files are to be opened anew.
    suspect: bool,
}

impl Projector {
    /// Whether the store may not write: it stays so until rows are taken and the reserve is whole.
    pub(super) fn is_short(&self) -> bool {
        match self.laid {
            None => self.room.lives_on_reserve() && !self.room.takes_rows(),
            Some(_) => self.room.lives_on_reserve() || !self.room.takes_rows(),
        }
    }

    /// Lays memory over the store, or takes it off when there is room; true when reading has to begin anew.
    pub(super) fn mind_room(&mut self) -> Result<bool, StoreError> {
        match (&self.laid, self.is_short()) {
            (None, true) => self.lay_over(None),
            (Some(_), false) => return self.take_off().map(|()| true),
            (Some(laid), true) if laid.over.is_full() => {
                self.say(format!("{SAID}, and memory has none either: queries of history are stale"));
                return Ok(self.wait_for_room());
            }
            _ => {}
        }
        Ok(false)
    }

    pub(super) fn lay_over(&mut self, failure: Option<&StoreError>) {
        let why = failure.map(|error| format!(" ({error})")).unwrap_or_default();
        self.say(format!("{SAID}{why}: what is new is kept in memory and written later"));
        let below = self.store.tables();
        let over = Arc::new(Overlay::over(below.clone()));
        self.store.replace(over.clone());
        self.laid = Some(Laid { below, over, suspect: failure.is_some() });
    }

    /// There is room: the store goes on from what it has itself.
    pub(super) fn take_off(&mut self) -> Result<(), StoreError> {
        let Some(Laid { below, over: _, suspect }) = self.laid.take() else { return Ok(()) };
        if suspect {
            drop(below);
            self.store.replace(Arc::new(MemoryTables::default())); // Let go of the files.
            let (tables, problem) = open(&self.path)?;
            problem.into_iter().for_each(|problem| self.say(problem));
            self.store.replace(tables);
        } else {
            self.store.replace(below);
        }
        self.unsay(SAID);
        tracing::info!("the store has room again");
        Ok(())
    }

    /// Waits until others may write beside the events journal; false when the collector stops.
    pub(super) fn wait_for_room(&self) -> bool {
        let stop = self.stop.clone();
        self.handle.block_on(async {
            while self.is_short() {
                tokio::select! {
                    () = tokio::time::sleep(ROOM_CHECK) => {}
                    () = stop.cancelled() => return false,
                }
            }
            true
        })
    }
}
