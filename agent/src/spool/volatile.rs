//! Rows and host events while the disk has no room for them: new segments are in memory, and are sent from there.
//!
//! A host whose disk is full is exactly the one that people want to see. Records keep their lane and their numbers;
//! numbers that memory may use are reserved durably before, so that a crash gives none of them twice: what was not
//! acknowledged by then becomes a gap. Outcomes are never kept like this: the reserve is theirs.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tocsin_shared::disk::Space;
use tocsin_shared::lane::Lane;

use super::{Spool, SpoolError};

/// Numbers that are reserved at a time: one write of the ledger for ten minutes of rows.
const RESERVED_AHEAD: u64 = 64;
/// Segments in memory. More of them hold a longer absence of the collector; the agent has to stay small.
const SEGMENTS_MAX: u64 = 4;
/// How long after a write that found no room the disk is tried again, where its free space does not tell.
const AGAIN: Duration = Duration::from_secs(30);

impl Spool {
    /// Decides where the next records of a lane go: to the disk, or to memory while it has no room. Call it before
    /// headers are written; it may begin a segment.
    pub fn choose_tier(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let volatile = self.is_volatile(lane);
        let short = self.is_short(lane, volatile)? || self.was_refused(lane);
        match (volatile, short) {
            (false, true) => self.leave_disk(lane),
            (true, false) => self.return_to_disk(lane),
            (true, true) => self.reserve_numbers(lane),
            (false, false) => Ok(()),
        }
    }

    /// Lets lanes that are in memory return to the disk; to be called every second or so, as some lanes are quiet.
    pub fn review_tiers(&mut self) -> Result<(), SpoolError> {
        if self.is_volatile(Lane::State) { self.choose_tier(Lane::State) } else { Ok(()) }
    }

    /// Whether a lane's new records are in memory only.
    pub(super) fn is_volatile(&self, lane: Lane) -> bool {
        self.disk.is_volatile(&self.dir.join(lane.as_str()))
    }

    /// Most bytes of records in memory.
    pub(super) fn volatile_bytes_max(&self) -> u64 {
        self.config.segment_bytes.saturating_mul(SEGMENTS_MAX)
    }

    /// Notes that a write of a lane found no room.
    pub(super) fn refused(&mut self, lane: Lane) {
        self.refused_until[lane.index()] = Some(self.synced_at.unwrap_or_default() + AGAIN);
    }

    fn was_refused(&self, lane: Lane) -> bool {
        self.refused_until[lane.index()].is_some_and(|until| self.synced_at.unwrap_or_default() < until)
    }

    /// Whether the disk is nearly full; then the oldest samples on it are given back. It is not any more when an
    /// eighth of the floor is free above it.
    fn is_short(&mut self, lane: Lane, was_short: bool) -> Result<bool, SpoolError> {
        let short = |spool: &Self, Space { free, total }: Space| {
            let floor = spool.free_floor(Space { free, total });
            free < if was_short { floor.saturating_add(floor / 8) } else { floor }
        };
        let space = self.space()?;
        if !short(self, space) {
            return Ok(false);
        }
        let oldest = self.lane(Lane::Samples).log.segments().into_iter().next();
        let on_disk = oldest.is_some_and(|oldest| !self.disk.holds(&oldest.path));
        if lane != Lane::Samples || !on_disk || !self.evict(Lane::Samples)? {
            return Ok(true);
        }
        let space = self.space()?;
        Ok(short(self, space))
    }

    fn leave_disk(&mut self, lane: Lane) -> Result<(), SpoolError> {
        self.reserve_numbers(lane)?;
        self.switch(lane, true)?;
        tracing::warn!(%lane, "the disk has no room: new records are kept in memory, and sent from there");
        Ok(())
    }

    fn return_to_disk(&mut self, lane: Lane) -> Result<(), SpoolError> {
        match self.switch(lane, false) {
            Ok(()) => {
                self.ledger.reserve(lane, 0);
                (self.unsaved, self.refused_until[lane.index()]) = (true, None);
                tracing::info!(%lane, "the disk has room again: new records are kept there");
                Ok(())
            }
            Err(error) if error.is_full() => {
                self.refused(lane);
                self.switch(lane, true)?;
                self.reserve_numbers(lane)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a segment in the other place; what waits goes along.
    fn switch(&mut self, lane: Lane, volatile: bool) -> Result<(), SpoolError> {
        self.disk.set_volatile(&self.dir.join(lane.as_str()), volatile);
        self.lane_mut(lane).log.move_on().map(drop).map_err(SpoolError::log(lane))
    }

    /// Sees to it that the next number may be used without being on disk.
    fn reserve_numbers(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let next = self.lane(lane).log.next_seq();
        if next <= self.ledger.reserved(lane) {
            return Ok(());
        }
        self.ledger.reserve(lane, next + RESERVED_AHEAD);
        self.save_ledger()
    }

    /// Numbers that an earlier process may have used in memory are not given again; what is lost of them is told.
    pub(super) fn skip_reserved(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let (next, reserved) = (self.lane(lane).log.next_seq(), self.ledger.reserved(lane));
        if reserved >= next {
            self.lane_mut(lane).log.skip_to(reserved + 1).map_err(SpoolError::log(lane))?;
            self.lose(lane, (next, reserved), super::Reason::Evicted);
        }
        Ok(())
    }

    /// Makes everything durable that can be; to be called last. Records in memory that nobody acknowledged are
    /// lost by it, and will be told.
    pub fn close(&mut self) -> Result<(), SpoolError> {
        for lane in [Lane::State, Lane::Samples] {
            if self.ledger.reserved(lane) > 0 {
                let used = self.lane(lane).log.next_seq() - 1;
                self.ledger.reserve(lane, used);
                self.unsaved = true;
            }
        }
        self.sync()
    }
}
