//! How the spool stays within its bounds, and what goes first when it does not fit.
//!
//! Room is made in this order: the oldest samples, the output of the oldest outcomes (`shorten`), state older than an
//! hour, the reserve, younger state, and the oldest outcomes last. Whole segments go, and a lane's newest never does. On
//! a full disk the reserve goes first: it costs no record. What is removed unsettled is in the durable ledger as a gap
//! before its file is gone. The bound wins over every wish: outcomes go only when nothing else is left, but then at any
//! age, because the newest ones are what people look at, and a wrapper that is sent away fills a drop-box without bound.

use std::io;
use std::path::{Path, PathBuf};

use tocsin_shared::disk::{Disk, Space};
use tocsin_shared::lane::Lane;
use tocsin_shared::log::LogError;

use super::ledger::Reason;
use super::{Config, Spool, SpoolError, slots};

/// The small files beside the lanes: lock, epoch and its replacement, each at most a few bytes in a block of its own.
const SMALL_FILES_BYTES: u64 = 4 * 4096;

/// The smallest spool that can work: its reserve, its small files, and two segments of each lane.
pub(super) fn bytes_min(config: &Config) -> u64 {
    let segments = config.segment_bytes.saturating_mul(6);
    config.reserve_bytes.saturating_add(segments).saturating_add(slots::FILE_BYTES + SMALL_FILES_BYTES)
}

/// Room on the disk that is kept for outcomes by a file that has it.
pub(super) struct Reserve {
    path: PathBuf,
    held: u64,
}

impl Reserve {
    /// The reserve that an earlier process left in `dir`, if any.
    pub(super) fn find(disk: &dyn Disk, dir: &Path) -> Result<Self, SpoolError> {
        let path = dir.join("reserve");
        let held = match disk.open(&path).and_then(|file| file.bytes()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(SpoolError::disk("open", &path)(error)),
        };
        Ok(Self { path, held })
    }

    /// How many bytes it takes now.
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

impl Spool {
    /// Everything the spool has on disk, and what waits to be written.
    pub(super) fn bytes(&self) -> u64 {
        let lanes: u64 = self.lanes.iter().map(|lane| lane.log.bytes()).sum();
        lanes + self.reserve.held + slots::FILE_BYTES + SMALL_FILES_BYTES
    }

    /// Makes the spool small enough for a payload of this length, or says why it cannot be.
    pub(super) fn fit(&mut self, lane: Lane, payload_bytes: usize) -> Result<(), SpoolError> {
        let cost = self.lane(lane).log.cost(payload_bytes);
        if self.is_volatile(lane) {
            while self.disk.volatile_bytes() + cost > self.volatile_bytes_max() && self.evict_for(lane)? {}
        } else if lane != Lane::Outcomes {
            self.respect_floor(lane)?;
        }
        // The reserve is outcomes' own, also while there is no file that holds it.
        let owed = if lane == Lane::Outcomes { 0 } else { self.config.reserve_bytes };
        while self.bytes() - self.reserve.held.min(owed) + owed + cost > self.config.max_bytes {
            if !self.evict_for(lane)? {
                return Err(SpoolError::NoRoom { lane, why: "the spool is full of what goes before it" });
            }
        }
        Ok(())
    }

    /// Makes a spool small enough that was opened with tighter bounds than it was left with.
    pub(super) fn shrink(&mut self) -> Result<(), SpoolError> {
        while self.bytes() > self.config.max_bytes && self.evict_for(Lane::Outcomes)? {}
        Ok(())
    }

    /// One step towards room for a lane; false when there is none left.
    fn evict_for(&mut self, lane: Lane) -> Result<bool, SpoolError> {
        if self.evict(Lane::Samples)? {
            return Ok(true);
        }
        if lane == Lane::Samples {
            return Ok(false);
        }
        if self.shorten_outcomes()? || self.evict_old_state()? {
            return Ok(true);
        }
        let is_outcome = lane == Lane::Outcomes;
        Ok((is_outcome && self.release_reserve()?)
            || self.evict(Lane::State)?
            || (is_outcome && self.evict(Lane::Outcomes)?))
    }

    /// Removes a lane's oldest segment; false when it has only the newest.
    pub(super) fn evict(&mut self, lane: Lane) -> Result<bool, SpoolError> {
        let segments = self.lane(lane).log.segments();
        let [oldest, second, ..] = &segments[..] else { return Ok(false) };
        let lost: u64 = self
            .ledger
            .unsettled(lane, oldest.first_seq, oldest.last_seq)
            .iter()
            .map(|(a, b)| b - a + 1)
            .sum();
        self.lose(lane, (oldest.first_seq, oldest.last_seq), Reason::Evicted);
        if self.unsaved {
            self.save_ledger()?;
        }
        let lane_log = self.lane_mut(lane);
        lane_log.log.drop_segments_before(second.first_seq).map_err(SpoolError::log(lane))?;
        lane_log.evicted += lost;
        Ok(true)
    }

    /// On a nearly full disk nothing but outcomes is written, and the oldest samples are given back.
    fn respect_floor(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let space = self.space()?;
        if space.free >= self.free_floor(space) {
            return Ok(());
        }
        let given_back = self.evict(Lane::Samples)?;
        if given_back && self.space()?.free >= self.free_floor(space) {
            return Ok(());
        }
        Err(SpoolError::NoRoom { lane, why: "the disk is nearly full" })
    }

    pub(super) fn space(&self) -> Result<Space, SpoolError> {
        self.disk.space(&self.dir).map_err(SpoolError::disk("ask for the free space of", &self.dir))
    }

    pub(super) fn free_floor(&self, space: Space) -> u64 {
        let share = space.total / 100 * u64::from(self.config.free_floor_percent);
        share.max(self.config.free_floor_bytes)
    }

    /// Appends an outcome and makes it durable, whatever can be given up for it. After an error it was not taken.
    pub(super) fn append_outcome(&mut self, kind: u8, payload: &[u8]) -> Result<u64, SpoolError> {
        let lane = Lane::Outcomes;
        let (mut appended, mut revived) = (None, false);
        loop {
            let log = &mut self.lane_mut(lane).log;
            let tried = match appended {
                None => log.append(kind, payload).inspect(|seq| appended = Some(*seq)),
                Some(seq) => Ok(seq),
            };
            match tried.and_then(|seq| log.sync().map(|_| seq)) {
                Ok(seq) => {
                    self.degraded = false;
                    return Ok(seq);
                }
                Err(error) if error.is_full() && self.relieve()? => {}
                // A failed fsync is never repeated: what waits goes to a new file, once.
                Err(error) if !error.is_full() && !revived && self.revive(lane).is_ok() => revived = true,
                Err(error) => {
                    self.lane_mut(lane).log.discard();
                    self.degraded = true;
                    return Err(SpoolError::log(lane)(error));
                }
            }
        }
    }

    /// Leaves a lane's suspect segment for a new one, in a directory that someone may have removed.
    fn revive(&mut self, lane: Lane) -> Result<(), LogError> {
        let dir = self.dir.join(lane.as_str());
        let failed = |source| LogError::Io { doing: "create", path: dir.clone(), source };
        self.disk.create_dir(&dir).map_err(failed)?;
        self.lane_mut(lane).log.revive().map(drop)
    }

    /// One step towards room on a full disk; false when there is none left.
    fn relieve(&mut self) -> Result<bool, SpoolError> {
        Ok(self.release_reserve()?
            || self.evict(Lane::Samples)?
            || self.shorten_outcomes()?
            || self.evict(Lane::State)?)
    }

    /// Makes one lane durable. On a full disk the oldest samples go; if that does not help, what waited goes.
    pub(super) fn sync_lane(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let mut synced = self.lane_mut(lane).log.sync().map(drop);
        if synced.as_ref().is_err_and(|error| !error.is_full()) {
            synced = self.revive(lane);
        }
        if synced.as_ref().is_err_and(LogError::is_full) && self.evict(Lane::Samples)? {
            synced = self.lane_mut(lane).log.sync().map(drop);
        }
        match synced {
            Ok(()) => Ok(()),
            Err(error) => {
                self.degraded = true;
                let lane_log = self.lane_mut(lane);
                if error.is_full() {
                    lane_log.discarded += lane_log.log.discard();
                    self.refused(lane);
                }
                Err(SpoolError::log(lane)(error))
            }
        }
    }

    /// Gives the reserve's room back; false when it holds none.
    pub(super) fn release_reserve(&mut self) -> Result<bool, SpoolError> {
        if self.reserve.held == 0 {
            return Ok(false);
        }
        match self.disk.remove(&self.reserve.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SpoolError::disk("remove", &self.reserve.path)(error));
            }
            _ => self.reserve.held = 0,
        }
        // Before others use its room: a power cut must not bring it back beside them.
        self.disk.sync_dir(&self.dir).map_err(SpoolError::disk("make durable", &self.dir))?;
        Ok(true)
    }

    /// Takes the reserve's room again, once disk and spool have it to spare.
    pub(super) fn refill_reserve(&mut self) -> Result<(), SpoolError> {
        let wanted = self.config.reserve_bytes;
        if self.reserve.held == wanted {
            return Ok(());
        }
        self.release_reserve()?;
        let space = self.space()?;
        let fits = space.free.saturating_sub(wanted) >= self.free_floor(space);
        if wanted == 0 || !fits || self.bytes() + wanted > self.config.max_bytes {
            return Ok(());
        }
        let allocated = self.disk.create(&self.reserve.path).and_then(|mut file| {
            file.allocate(wanted)?;
            file.sync_data()?;
            self.disk.sync_dir(&self.dir)
        });
        self.reserve.held = wanted; // Also of a half-made one, so that it is removed before the next attempt.
        match allocated {
            Ok(()) => Ok(()),
            Err(error) => {
                self.release_reserve()?;
                Err(SpoolError::disk("allocate", &self.reserve.path)(error))
            }
        }
    }
}
