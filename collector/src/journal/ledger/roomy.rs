//! ⇄ The events journal on a full disk: it writes from the reserve, and waits when that is used up.
//!
//! A write that found no room left no partial frame and is made again; that is not a failed fsync, which nobody
//! repeats. Nobody is answered meanwhile. A checkpoint that does not fit is put off: it only makes a start shorter.

use std::time::Duration;

use tocsin_shared::log::{Log, LogError};

use super::Writer;
use crate::clock::now;
use crate::journal::{JournalError, checkpoint};

/// Between two attempts when nothing is left of the reserve.
const AGAIN: Duration = Duration::from_millis(500);
/// Events until a checkpoint that found no room is tried again.
const CHECKPOINT_AGAIN: u64 = 10_000;

impl Writer {
    /// A step of the log, made again until it fits. Ends with the error when the collector is to stop.
    pub(super) fn roomy<T>(
        &mut self,
        mut step: impl FnMut(&mut Log) -> Result<T, LogError>,
    ) -> Result<T, JournalError> {
        let mut told = false;
        loop {
            match step(&mut self.log) {
                Err(error) if error.is_full() => {
                    if self.room.relieve(now()) {
                        continue;
                    }
                    if self.stop.is_cancelled() {
                        return Err(error.into());
                    }
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "neither disk nor reserve has room: nothing is taken until there is");
                    }
                    std::thread::sleep(AGAIN);
                }
                done => return Ok(done?),
            }
        }
    }

    /// Writes a checkpoint if there is anything new; without room, later. None holds an unknown state: a start has to
    /// find the loss again, or the events if they were put back.
    pub(super) fn checkpoint(&mut self) -> Result<(), JournalError> {
        if self.state.is_degraded() {
            return Ok(());
        }
        let last = self.state.last_seq();
        while last > self.checkpoint_seq {
            match checkpoint::write(&*self.disk, &self.checkpoints, &self.state) {
                Ok(_) => self.checkpoint_seq = last,
                Err(JournalError::CheckpointFull { .. }) if self.room.relieve(now()) => {}
                Err(error @ JournalError::CheckpointFull { .. }) => {
                    tracing::error!(%error, "no checkpoint for want of room; it is tried again later");
                    self.checkpoint_after = last + CHECKPOINT_AGAIN;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
