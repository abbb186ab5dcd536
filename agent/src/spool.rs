//! What the agent keeps until the collector has it: three lanes of numbered records on disk.
//!
//! Promises: an outcome is durable when `append` returns its number; a record is removed only when it was
//! acknowledged, or when the spool's bounds force it out, and then a gap names it; a number is used once in an epoch;
//! the spool never takes more than `max_bytes`, and writes nothing but outcomes when the disk is nearly full. Only
//! durable records can be read, so nothing is sent that a power cut could take back. Time comes from the caller.
//! Not here: what payloads mean, and when what is sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tocsin_shared::disk::{Disk, RealDisk};
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::log::{self, Format, Log};
use tocsin_shared::ranges::Ranges;
use uuid::Uuid;

mod error;
mod ledger;
mod lock;
mod memory;
mod read;
mod reread;
mod room;
mod shorten;
mod slots;
mod volatile;
#[cfg(test)]
mod tests;

pub use error::SpoolError;
pub use ledger::{Gap, Reason};
pub use read::Batch;
pub use shorten::Shorten;

use ledger::Ledger;
use lock::Lock;
use memory::{Memory, Tiers};
use read::LaneLog;
use room::Reserve;
use shorten::{Ages, Shortened};
use slots::Slots;

/// The most time that samples and state stay without being made durable: what a power cut may cost.
pub const SYNC_PERIOD: Duration = Duration::from_secs(5);

/// What the lanes' segments hold.
const FORMAT: Format = Format { name: "tocsin spool lane", version: 1 };

/// The bounds of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most bytes the spool takes on disk, everything included.
    pub max_bytes: u64,
    /// The part of it that only outcomes may use, allocated in advance.
    pub reserve_bytes: u64,
    /// Below this many free bytes on the disk only outcomes are written.
    pub free_floor_bytes: u64,
    /// The same as a share of the disk; the larger of the two counts.
    pub free_floor_percent: u8,
    /// The length of a segment: what is evicted at a time.
    pub segment_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_bytes: 512 << 20,
            reserve_bytes: 64 << 20,
            free_floor_bytes: 1 << 30,
            free_floor_percent: 5,
            segment_bytes: 4 << 20,
        }
    }
}

/// What a lane holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    pub bytes: u64,
    /// The oldest record that still has to be sent; `next_seq` when there is none.
    pub oldest_seq: u64,
    pub next_seq: u64,
    pub durable_seq: u64,
    /// Records given up for room since the start.
    pub evicted: u64,
    /// Records that were never durable and could not be written since the start. They have no gap: their numbers
    /// were given again.
    pub discarded: u64,
}

/// What a spool holds, and in which state it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In the order of `Lane::ALL`.
    pub lanes: [LaneStats; 3],
    /// Everything on disk, the reserve included.
    pub bytes: u64,
    pub reserve_held: bool,
    /// Whether new rows or host events are in memory only, for want of room on the disk.
    pub volatile: bool,
    /// Whether the last attempt to make something durable failed.
    pub degraded: bool,
    /// Bytes that crashes had left half-written when the spool was opened.
    pub torn_bytes: u64,
    /// Files found in the lanes' directories that are not the spool's; left alone.
    pub foreign: Vec<PathBuf>,
}

/// An open spool. One task owns it.
pub struct Spool {
    disk: Arc<Tiers>,
    dir: PathBuf,
    config: Config,
    lanes: [LaneLog; 3],
    ledger: Ledger,
    slots: Slots,
    /// Whether the ledger has news that are not durable.
    unsaved: bool,
    reserve: Reserve,
    synced_at: Option<Duration>,
    /// Until when a lane's writes are not tried on the disk, which had no room for them.
    refused_until: [Option<Duration>; 3],
    /// How records are made smaller before any goes, and how far that has come.
    shortened: Shortened,
    /// Which records of the state lane are old.
    ages: Ages,
    degraded: bool,
    torn_bytes: u64,
    foreign: Vec<PathBuf>,
    _lock: Option<Lock>,
}

impl Spool {
    /// Opens or creates the spool in `dir` and takes it for this process.
    pub fn open(dir: &Path, config: Config) -> Result<Self, SpoolError> {
        RealDisk.create_dir(dir).map_err(SpoolError::disk("create", dir))?;
        let lock = Lock::take(dir)?;
        let mut spool = Self::open_on(Arc::new(RealDisk), dir, Epoch(Uuid::new_v4()), config)?;
        spool._lock = Some(lock);
        Ok(spool)
    }

    /// A spool in memory with a life of its own, for as long as the disk fails. It is as small as a spool may be.
    pub fn in_memory(config: Config) -> Result<Self, SpoolError> {
        let config = Config { reserve_bytes: 0, free_floor_bytes: 0, free_floor_percent: 0, ..config };
        let config = Config { max_bytes: room::bytes_min(&config), ..config };
        Self::open_on(Arc::new(Memory::default()), Path::new("/memory"), Epoch(Uuid::new_v4()), config)
    }

    /// The same on any disk, without a lock. `new_epoch` is used when the directory has none yet.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        new_epoch: Epoch,
        config: Config,
    ) -> Result<Self, SpoolError> {
        let needed = room::bytes_min(&config);
        if config.max_bytes < needed {
            return Err(SpoolError::TooSmall { max_bytes: config.max_bytes, needed });
        }
        disk.create_dir(dir).map_err(SpoolError::disk("create", dir))?;
        let tiers = Arc::new(Tiers::over(disk));
        let disk: Arc<dyn Disk> = tiers.clone();
        let epoch = lock::epoch(&*disk, dir, new_epoch)?;
        let (slots, ledger) = Slots::open(disk.clone(), dir)?;
        shorten::clear(&*disk, dir)?;
        // A kill may have left names that a power cut still takes; records are about to be sent on their word.
        disk.sync_dir(dir).map_err(SpoolError::disk("make durable", dir))?;
        let (mut torn_bytes, mut foreign, mut lost) = (0, Vec::new(), Vec::new());
        let mut open_lane = |lane: Lane| -> Result<LaneLog, SpoolError> {
            let segments = log::Config { segment_bytes: config.segment_bytes, scan_all: false };
            let (log, recovery) = Log::open(disk.clone(), &dir.join(lane.as_str()), FORMAT, segments)
                .map_err(SpoolError::log(lane))?;
            torn_bytes += recovery.torn_bytes;
            foreign.extend(recovery.foreign);
            lost.extend(recovery.lost.into_iter().map(|lost| (lane, lost)));
            Ok(LaneLog::new(lane, log))
        };
        let lanes = [open_lane(Lane::Outcomes)?, open_lane(Lane::State)?, open_lane(Lane::Samples)?];
        let reserve = Reserve::find(&*disk, dir)?;
        let (epoch, ledger) = match ledger {
            Some(ledger) if ledger.epoch() == epoch => (epoch, ledger),
            // A new epoch was begun and its file not yet written: the ledger is what counts.
            Some(ledger) if epoch != new_epoch => {
                lock::write_epoch(&*disk, dir, ledger.epoch())?;
                (ledger.epoch(), ledger)
            }
            _ => (epoch, Ledger::new(epoch)),
        };
        debug_assert_eq!(epoch, ledger.epoch());
        let mut spool = Self {
            disk: tiers,
            dir: dir.to_owned(),
            config,
            lanes,
            ledger,
            slots,
            unsaved: false,
            reserve,
            synced_at: None,
            refused_until: [None; 3],
            shortened: Shortened::default(),
            ages: Ages::default(),
            degraded: false,
            torn_bytes,
            foreign,
            _lock: None,
        };
        spool.reconcile(lost)?;
        spool.ages = Ages::after(spool.lane(Lane::State).log.next_seq());
        Ok(spool)
    }

    /// Brings ledger and lanes into agreement after whatever ended the last process.
    fn reconcile(&mut self, lost: Vec<(Lane, log::Lost)>) -> Result<(), SpoolError> {
        for (lane, lost) in lost {
            let reason = if lost.torn { Reason::Torn } else { Reason::Corrupt };
            self.lose(lane, (lost.first, lost.last), reason);
        }
        for lane in Lane::ALL {
            // Settled numbers were used, also when the records are not here any more.
            let settled = self.ledger.highest(lane);
            let log = &mut self.lane_mut(lane).log;
            log.skip_to(settled.saturating_add(1)).map_err(SpoolError::log(lane))?;
            self.skip_reserved(lane)?;
            let log = &mut self.lane_mut(lane).log;
            let first = log.segments().first().map_or(log.next_seq(), |first| first.first_seq);
            self.lose(lane, (1, first - 1), Reason::Corrupt);
        }
        if self.unsaved {
            self.degraded = self.save_ledger().is_err(); // It is tried again at the next sync.
        }
        for lane in Lane::ALL {
            self.drop_settled(lane)?;
        }
        self.shrink()?;
        self.degraded |= self.refill_reserve().is_err();
        Ok(())
    }

    /// The life of this spool directory that its numbers belong to.
    pub fn epoch(&self) -> Epoch {
        self.ledger.epoch()
    }

    /// Begins a new epoch: what is not settled keeps its number and goes out under the new name, because under the old
    /// one another life of this spool has used those numbers. Durable on return. Gives what was settled, by lane.
    pub fn begin_epoch(&mut self, epoch: Epoch) -> Result<Vec<(Lane, u64, u64)>, SpoolError> {
        let before = self.ledger.set_epoch(epoch);
        if let Err(error) = self.save_ledger() {
            self.ledger.set_epoch(before);
            return Err(error);
        }
        lock::write_epoch(&*self.disk, &self.dir, epoch)?;
        let settled = |lane| {
            let end = self.durable_seq(lane).max(self.ledger.highest(lane));
            self.ledger.settled(lane, end).into_iter().map(move |(first, last)| (lane, first, last))
        };
        Ok(Lane::ALL.into_iter().flat_map(settled).collect())
    }

    /// The agent whose records these are; none before its first connection.
    pub fn owner(&self) -> Result<Option<AgentId>, SpoolError> {
        lock::owner(&*self.disk, &self.dir)
    }

    /// Notes whose records these are, durably; `None`: the next identity's.
    pub fn set_owner(&mut self, owner: Option<AgentId>) -> Result<(), SpoolError> {
        lock::set_owner(&*self.disk, &self.dir, owner)
    }

    /// Adds a record and returns its number. An outcome, and any record with `durable`, is durable on return; others
    /// are when `durable_seq` has reached them, and until then a failing disk may make the spool give their numbers
    /// again. An error means that an outcome was not taken.
    pub fn append(&mut self, lane: Lane, kind: u8, payload: &[u8], durable: bool) -> Result<u64, SpoolError> {
        self.fit(lane, payload.len())?;
        if lane == Lane::Outcomes {
            return self.append_outcome(kind, payload);
        }
        let seq = match self.lane_mut(lane).log.append(kind, payload) {
            Ok(seq) => seq,
            Err(_) => {
                // A new segment or a full buffer made it sync; that has its own ways out.
                self.sync_lane(lane)?;
                let again = self.lane_mut(lane).log.append(kind, payload);
                again.map_err(SpoolError::log(lane)).inspect_err(|error| {
                    if error.is_full() {
                        self.refused(lane);
                    }
                })?
            }
        };
        if durable {
            self.sync_lane(lane)?;
        }
        Ok(seq)
    }

    /// Adds a frame without a number, such as the table that rows after it refer to. It becomes durable with them.
    pub fn append_header(&mut self, lane: Lane, kind: u8, payload: &[u8]) -> Result<(), SpoolError> {
        self.fit(lane, payload.len())?;
        self.lane_mut(lane).log.append_unnumbered(kind, payload).map_err(SpoolError::log(lane))
    }

    /// Whether a header frame is due: the next frame is the first of its segment.
    pub fn starts_segment(&self, lane: Lane) -> bool {
        self.lane(lane).log.starts_segment()
    }

    /// Whether a record of this length starts a new segment; then `roll` first, and write the headers.
    pub fn will_roll(&self, lane: Lane, payload_bytes: usize) -> bool {
        self.lane(lane).log.will_roll(payload_bytes)
    }

    /// Ends a lane's segment, making it durable.
    pub fn roll(&mut self, lane: Lane) -> Result<(), SpoolError> {
        self.sync_lane(lane)?;
        self.lane_mut(lane).log.roll().map_err(SpoolError::log(lane))
    }

    /// The highest number of a lane that is safe, and can be read.
    pub fn durable_seq(&self, lane: Lane) -> u64 {
        self.lane(lane).log.durable_seq()
    }

    /// Syncs if `SYNC_PERIOD` has gone by since it last did. `now` is time since any fixed moment. To be called every
    /// second or so, and again after an error.
    pub fn sync_due(&mut self, now: Duration) -> Result<(), SpoolError> {
        if self.synced_at.is_some_and(|at| now.saturating_sub(at) < SYNC_PERIOD) {
            return Ok(());
        }
        self.synced_at = Some(now);
        self.ages.pass(now, self.lane(Lane::State).log.next_seq());
        self.sync()
    }

    /// Makes everything durable: all lanes, and what is known of acknowledgements and gaps.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        let mut result = Ok(());
        for lane in Lane::ALL {
            result = result.and(self.sync_lane(lane));
        }
        if self.unsaved {
            result = result.and(self.save_ledger());
        }
        result = result.and(self.refill_reserve());
        self.degraded = result.is_err();
        result
    }

    /// Takes the collector's word for what it has, and removes what nobody needs any more. An acknowledgement of what
    /// was never sent is a broken collector: refused, and nothing is removed.
    pub fn acknowledge(&mut self, lane: Lane, acks: &Ranges) -> Result<(), SpoolError> {
        let end = self.durable_seq(lane);
        if acks.highest() > end {
            return Err(SpoolError::AckBeyondEnd { lane, acked: acks.highest(), end });
        }
        self.unsaved |= self.ledger.acknowledge(lane, acks);
        self.drop_settled(lane)
    }

    /// Removes the segments at the front that hold nothing unsettled. The ledger goes first: without it they would
    /// look like losses.
    fn drop_settled(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let first = self.first_unacked(lane);
        let oldest_end = self.lane(lane).log.segments().get(1).map(|second| second.first_seq);
        if oldest_end.is_none_or(|end| end > first) {
            return Ok(());
        }
        if self.unsaved {
            self.save_ledger()?;
        }
        self.lane_mut(lane).log.drop_segments_before(first).map(drop).map_err(SpoolError::log(lane))
    }

    /// The oldest durable record that is neither acknowledged nor lost; the number after the last when there is none.
    pub fn first_unacked(&self, lane: Lane) -> u64 {
        let end = self.durable_seq(lane);
        self.ledger.unsettled(lane, 1, end).first().map_or(end + 1, |hole| hole.0)
    }

    /// The closed ranges of durable records that are neither acknowledged nor lost, oldest first.
    pub fn holes(&self, lane: Lane) -> Vec<(u64, u64)> {
        self.ledger.unsettled(lane, 1, self.durable_seq(lane))
    }

    /// What is known to be acknowledged in a lane, recorded gaps included.
    pub fn acked(&self, lane: Lane) -> &Ranges {
        self.ledger.acked(lane)
    }

    /// Losses that nobody was told of since the start. Each is handed out again after a restart, until `gap_recorded`.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.ledger.take_gaps()
    }

    /// A gap is an outcome of its own now, durably.
    pub fn gap_recorded(&mut self, gap: &Gap) -> Result<(), SpoolError> {
        self.unsaved |= self.ledger.recorded(gap);
        self.drop_settled(gap.lane)
    }

    /// Where it is and how it is bounded.
    pub fn place(&self) -> (PathBuf, Config) {
        (self.dir.clone(), self.config)
    }

    /// Shows that the disk takes what it is given: everything is made durable, and a file is made, written and removed.
    /// A full disk passes: there are other ways out of that.
    pub fn prove(&mut self) -> Result<(), SpoolError> {
        let path = self.dir.join("probe");
        self.disk.remove(&path).ok(); // An earlier attempt may have left it; if it stays, it cannot be created.
        let probed = self.disk.create(&path).and_then(|mut file| {
            file.write_at(0, b"probe")?;
            file.sync_data()?;
            self.disk.remove(&path)
        });
        let probed = probed.map_err(SpoolError::disk("write", &path));
        let proved = probed.and_then(|()| self.sync()).and_then(|()| self.save_ledger());
        proved.or_else(|error| if error.is_full() { Ok(()) } else { Err(error) })
    }

    /// What the spool holds now.
    pub fn stats(&self) -> Stats {
        let lane = |lane: &LaneLog| LaneStats {
            bytes: lane.log.bytes(),
            oldest_seq: self.first_unacked(lane.lane),
            next_seq: lane.log.next_seq(),
            durable_seq: lane.log.durable_seq(),
            evicted: lane.evicted,
            discarded: lane.discarded,
        };
        Stats {
            lanes: self.lanes.each_ref().map(lane),
            bytes: self.bytes(),
            reserve_held: self.reserve.held() > 0,
            volatile: Lane::ALL.into_iter().any(|lane| self.is_volatile(lane)),
            degraded: self.degraded,
            torn_bytes: self.torn_bytes,
            foreign: self.foreign.clone(),
        }
    }

    fn lose(&mut self, lane: Lane, range: (u64, u64), reason: Reason) {
        if range.0 <= range.1 {
            self.unsaved |= self.ledger.lose(lane, range, reason);
        }
    }

    fn save_ledger(&mut self) -> Result<(), SpoolError> {
        let mut saved = self.slots.save(&self.ledger);
        // Only file systems that never overwrite in place get here.
        if saved.as_ref().is_err_and(SpoolError::is_full) && self.release_reserve()? {
            saved = self.slots.save(&self.ledger);
        }
        self.unsaved = saved.is_err();
        saved
    }

    fn lane(&self, lane: Lane) -> &LaneLog {
        &self.lanes[lane.index()]
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneLog {
        &mut self.lanes[lane.index()]
    }
}
