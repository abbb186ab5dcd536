//! What gives way before records do: the parts of outcomes that a verdict does not need; and when state is old.
//!
//! What a record can do without its owner says, with a function; a job's outcome keeps everything but its output. The
//! oldest segment is written again with its records shortened, under their numbers, and takes the old one's place; that
//! needs room for the new one, for which the reserve is given up. The newest segment stays as it is.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tocsin_shared::disk::Disk;
use tocsin_shared::lane::Lane;

use super::{Spool, SpoolError};

/// A record's kind and payload to a shorter payload that says what is missing; none for one that stays as it is.
pub type Shorten = fn(u8, &[u8]) -> Option<Vec<u8>>;

/// Saving less than this share of a segment is not worth writing it again.
const WORTH: u64 = 4;
/// Records of the state lane that are older than this go before younger ones.
const STATE_OLD: Duration = Duration::from_secs(3_600);
/// How finely ages are known.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// How outcomes are shortened, and how far that has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shortened {
    by: Option<Shorten>,
    /// Records up to this one need not be looked at again.
    through: u64,
}

/// When the numbers of the state lane were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ages {
    /// Moments and the numbers that came next then, a minute apart; the first is at least as old as `STATE_OLD`.
    marks: VecDeque<(Duration, u64)>,
    /// Numbers before this one are old.
    old_before: u64,
}

impl Ages {
    /// Of a lane whose records before `next_seq` an earlier process wrote: when, nobody knows; they count as old.
    pub(super) fn after(next_seq: u64) -> Self {
        Self { marks: VecDeque::new(), old_before: next_seq }
    }

    /// Time goes by. At most `STATE_OLD` / `MARK_EVERY` marks are kept.
    pub(super) fn pass(&mut self, now: Duration, next_seq: u64) {
        if self.marks.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= MARK_EVERY) {
            self.marks.push_back((now, next_seq));
        }
        while let Some((at, seq)) = self.marks.front().copied()
            && now.saturating_sub(at) >= STATE_OLD
        {
            self.old_before = self.old_before.max(seq);
            self.marks.pop_front();
        }
    }

    pub(super) fn is_old(&self, seq: u64) -> bool {
        seq < self.old_before
    }
}

fn scratch(dir: &Path) -> PathBuf {
    dir.join("shorter")
}

/// Removes what a crash left of a segment that was being written again.
pub(super) fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), SpoolError> {
    let path = scratch(dir);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SpoolError::disk("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

impl Spool {
    /// Says how outcomes are shortened when there is no room; without it they stay whole until they go.
    pub fn shorten_with(&mut self, by: Shorten) {
        self.shortened.by = Some(by);
    }

    /// Shortens the oldest outcomes that are still whole; false when that gives no room.
    pub(super) fn shorten_outcomes(&mut self) -> Result<bool, SpoolError> {
        let Some(by) = self.shortened.by else { return Ok(false) };
        let lane = Lane::Outcomes;
        for segment in self.lane(lane).log.segments() {
            if segment.last_seq <= self.shortened.through {
                continue;
            }
            let Some(new) =
                self.lane(lane).log.shortened(segment.first_seq, by).map_err(SpoolError::log(lane))?
            else {
                return Ok(false);
            };
            let worth_it = new.saved >= segment.bytes / WORTH;
            if worth_it {
                if self.bytes() + new.bytes() > self.config.max_bytes {
                    self.release_reserve()?;
                }
                if self.bytes() + new.bytes() > self.config.max_bytes {
                    return Ok(false);
                }
                let path = scratch(&self.dir);
                let written = self.lane_mut(lane).log.rewrite(&new, &path).map_err(SpoolError::log(lane));
                if let Err(error) = written {
                    clear(&*self.disk, &self.dir)?;
                    return if error.is_full() { Ok(false) } else { Err(error) };
                }
            }
            self.shortened.through = segment.last_seq;
            if worth_it {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the state lane's oldest segment if all of it is old.
    pub(super) fn evict_old_state(&mut self) -> Result<bool, SpoolError> {
        let oldest = self.lane(Lane::State).log.segments().into_iter().next();
        let is_old = oldest.is_some_and(|oldest| self.ages.is_old(oldest.last_seq));
        if is_old { self.evict(Lane::State) } else { Ok(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_old_after_an_hour() {
        let minutes = |minutes| Duration::from_secs(60 * minutes);
        let mut ages = Ages::after(5);
        assert!(ages.is_old(4) && !ages.is_old(5));
        for minute in 0..60 {
            ages.pass(minutes(minute), 5 + minute);
            ages.pass(minutes(minute) + Duration::from_secs(5), 6 + minute);
        }
        assert!(!ages.is_old(5), "59 minutes");
        ages.pass(minutes(61), 70);
        assert!(ages.is_old(5) && !ages.is_old(6));
        assert!(ages.marks.len() <= 60);
        ages.pass(minutes(1_000), 70);
        assert!(ages.is_old(69) && !ages.is_old(70));
    }
}
