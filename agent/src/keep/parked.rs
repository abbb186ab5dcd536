//! ⇄ The spool while its disk fails: records go to one in memory, which is sent from like any other.
//!
//! Numbers are never used twice, and nothing on a failing disk could remember which were: so memory has an epoch of
//! its own, and the session begins anew with each change. The spool on disk is tried again and again, read from
//! scratch; what is in it is sent when it is back. Nothing is ever written anywhere else, and the agent goes on.

use std::time::{Duration, Instant};

use tocsin_shared::lane::Lane;

use super::{Keep, RowWriter};
use crate::explain::one_line;
use crate::spool::{Spool, SpoolError};
use crate::stream::backlog::Backlog;

/// Between two looks at a disk that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// How long memory is sent from after the disk is back. Beyond it, the collector is away, and the disk is the better
/// place for what comes.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of outcomes that are read from memory at once.
const OUTCOMES_BYTES: usize = 1 << 20;

/// A spool that is not used, because its disk fails.
pub(super) struct Parked {
    try_at: Instant,
    /// It is back, and takes over when memory is empty.
    back: Option<(Spool, Instant)>,
}

impl Parked {
    pub(super) fn new(now: Instant) -> Self {
        Self { try_at: now + AGAIN, back: None }
    }
}

impl Keep {
    /// Goes on in memory if a result says that the disk fails; whether it did, so that it is worth another attempt.
    /// The spool has tried another file already.
    pub(super) fn park_if_failed<T>(&mut self, result: &Result<T, SpoolError>) -> bool {
        let Err(error) = result else { return false };
        let fails = matches!(error, SpoolError::Disk { .. } | SpoolError::Log { .. });
        if !fails || error.is_full() || self.parked.is_some() {
            return false;
        }
        match Spool::in_memory(self.place.1) {
            Ok(memory) => {
                tracing::error!(
                    error = one_line(error),
                    "the spool's disk fails: records are kept in memory only"
                );
                self.use_spool(memory);
                self.parked = Some(Parked::new(Instant::now()));
                true
            }
            Err(error) => {
                tracing::error!(error = one_line(&error), "nor can records be kept in memory");
                false
            }
        }
    }

    /// Tries the disk again when it is time, and returns to it when it is back and memory is sent.
    pub(super) fn look_at_disk(&mut self, now: Instant) {
        let Some(parked) = &mut self.parked else { return };
        if parked.back.is_none() && now >= parked.try_at {
            let (dir, config) = &self.place;
            let opened = Spool::open(dir, *config).and_then(|mut spool| spool.prove().map(|()| spool));
            match opened {
                Ok(spool) => parked.back = Some((spool, now)),
                Err(error) => {
                    tracing::debug!(error = one_line(&error), "the spool's disk still fails");
                    parked.try_at = now + AGAIN;
                }
            }
        }
        let Some((_, since)) = &parked.back else { return };
        let late = now.saturating_duration_since(*since) >= DRAINED_WITHIN;
        if late || Lane::ALL.into_iter().all(|lane| self.spool.holes(lane).is_empty()) {
            self.unpark();
        }
    }

    fn unpark(&mut self) {
        let Some((mut spool, _)) = self.parked.take().and_then(|parked| parked.back) else { return };
        // An outcome that comes twice counts once: it carries the id of its run.
        self.move_outcomes(&mut spool);
        let waiting: u64 = self.spool.holes(Lane::Samples).iter().map(|(first, last)| last - first + 1).sum();
        tracing::info!(rows_lost = waiting, "the spool's disk is back");
        self.use_spool(spool);
        self.tell_gaps();
    }

    fn move_outcomes(&mut self, to: &mut Spool) {
        let mut next = self.spool.first_unacked(Lane::Outcomes);
        while let Ok(batch) = self.spool.read(Lane::Outcomes, next, OUTCOMES_BYTES) {
            if batch.next_seq == next {
                return;
            }
            next = batch.next_seq;
            for entry in batch.entries.iter().filter(|entry| entry.numbered) {
                if let Err(error) = to.append(Lane::Outcomes, entry.kind, &entry.payload, true) {
                    tracing::error!(error = one_line(&error), "an outcome in memory finds no place on disk");
                }
            }
        }
    }

    /// Another spool from now on; the one before lets go of its directory.
    fn use_spool(&mut self, spool: Spool) {
        self.spool = spool;
        self.moves = self.moves.wrapping_add(1);
        self.rows = RowWriter::new(&self.boot_id);
        (self.backlog, self.live) = (Backlog::default(), None);
        self.gaps.clear(); // The spool that has them hands them out again.
    }

    /// Makes durable what can be, at the end.
    pub(super) fn close(&mut self) -> Result<(), SpoolError> {
        if self.parked.as_ref().is_some_and(|parked| parked.back.is_some()) {
            self.unpark();
        }
        match (&self.parked, self.spool.close()) {
            // It was said when it began; the agent ends well all the same.
            (Some(_), _) => Ok(()),
            (None, closed) => closed,
        }
    }
}
