//! ⇄ The spool while its disk fails: records go to one in memory, which is sent from like any other.
//!
//! Numbers are never used twice, and nothing on a failing disk could remember which were: so memory has an epoch of
//! its own, and the session begins anew with each change. The spool on disk is tried again and again, read from
//! scratch; what is in it is sent when it is back. Nothing is ever written anywhere else, and the agent goes on.
//! Promise: of what was in memory and not acknowledged when the disk takes over, records of jobs and of the host move
//! to the disk, and rows are told as a gap of memory's epoch. An agent that ends before its disk is back can tell nobody.

use std::time::{Duration, Instant};

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_proto::pb::record::Kind;
use tocsin_shared::lane::Lane;

use super::{Keep, RECORD, RowWriter, records};
use crate::explain::one_line;
use crate::spool::{Spool, SpoolError};
use crate::stream::backlog::Backlog;

/// Between two looks at a disk that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// How long memory is sent from after the disk is back. Beyond it, the collector is away, and the disk is the better
/// place for what comes.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of records that are read from memory at once.
const RECORDS_BYTES: usize = 1 << 20;

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
        self.tell_gaps(); // Of memory, in memory: they move on with its records.
        let rows_lost = hand_over(&mut self.spool, &mut spool);
        tracing::info!(rows_lost, "the spool's disk is back");
        self.use_spool(spool);
        self.tell_gaps();
    }

    /// Another spool from now on; the one before lets go of its directory.
    fn use_spool(&mut self, mut spool: Spool) {
        spool.shorten_with(records::without_output);
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

/// Hands what is not acknowledged of memory over to the disk; returns how many rows are lost, and told. A record that
/// comes twice counts once: an outcome carries the id of its run.
fn hand_over(memory: &mut Spool, disk: &mut Spool) -> u64 {
    let no_place = |error: &SpoolError| {
        tracing::error!(error = one_line(error), "a record in memory finds no place on disk");
    };
    for lane in [Lane::Outcomes, Lane::State] {
        let mut next = memory.first_unacked(lane);
        while let Ok(batch) = memory.read(lane, next, RECORDS_BYTES) {
            if batch.next_seq == next {
                break;
            }
            next = batch.next_seq;
            for entry in batch.entries.iter().filter(|entry| entry.numbered) {
                let Some(kind) = records::decode(entry.seq, &entry.payload).and_then(|it| it.kind) else {
                    continue;
                };
                let record = records::encode(of_epoch(memory, kind));
                let place = if lane == Lane::State { disk.choose_tier(lane) } else { Ok(()) };
                place
                    .and_then(|()| disk.append(lane, entry.kind, &record, true))
                    .map_or_else(|error| no_place(&error), drop);
            }
        }
    }
    let mut lost = 0;
    for (first, last) in memory.holes(Lane::Samples) {
        let (lane, reason) = (Lane::Samples.number(), pb::GapReason::Evicted.into());
        let gap = Kind::Gap(pb::Gap { lane, first, last, reason, epoch: memory.epoch().to_string() });
        disk.append(Lane::Outcomes, RECORD, &records::encode(gap), true)
            .map_or_else(|error| no_place(&error), drop);
        lost += last - first + 1;
    }
    lost
}

/// What a record says when it is another epoch's: numbers that will not come are of the epoch that gave them.
fn of_epoch(memory: &Spool, kind: Kind) -> Kind {
    match kind {
        Kind::Gap(gap) if gap.epoch.is_empty() => {
            Kind::Gap(pb::Gap { epoch: memory.epoch().to_string(), ..gap })
        }
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tocsin_shared::disk::MemoryDisk;
    use tocsin_shared::identity::Epoch;
    use tocsin_shared::labels::Labels;
    use tocsin_shared::ranges::Ranges;
    use tocsin_shared::time::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::spool::{Config, Gap, Reason};
    use crate::tick::Reading;

    fn rows(spool: &mut Spool, count: u64) {
        let series: Arc<[Labels]> = Arc::new([Labels::new([("__name__", "x")])]);
        let mut rows = RowWriter::new("boot");
        for at in 1..=count {
            let reading = Reading { wall: Timestamp::from_millis(at as i64 * 1000), boot_ms: at };
            rows.write(spool, reading, &series, &[at as f64]).unwrap();
        }
    }

    /// The records that a lane has to send.
    fn kinds(spool: &mut Spool, lane: Lane) -> Vec<Kind> {
        let entries = spool.read(lane, 1, 1 << 20).unwrap().entries;
        entries.iter().filter_map(|entry| records::decode(entry.seq, &entry.payload)?.kind).collect()
    }

    // Cases: C-A6, S14
    #[test]
    fn what_memory_could_not_deliver_moves_or_is_told_and_names_its_epoch() {
        let config =
            Config { max_bytes: 4 << 20, reserve_bytes: 0, free_floor_bytes: 0, ..Config::default() };
        let config = Config { free_floor_percent: 0, segment_bytes: 64 << 10, ..config };
        let mut memory = Spool::in_memory(config).unwrap();
        let epoch = Epoch(Uuid::from_u128(1));
        let mut disk =
            Spool::open_on(Arc::new(MemoryDisk::new()), Path::new("/spool"), epoch, config).unwrap();
        rows(&mut disk, 5);
        rows(&mut memory, 9);
        let mut taken = Ranges::up_to(2);
        taken.insert_range(5, 6).unwrap();
        memory.acknowledge(Lane::Samples, &taken).unwrap();
        let event = records::host_event("boot", "clock_step", Reading::default(), 1);
        memory.append(Lane::State, RECORD, &records::encode(event.clone()), true).unwrap();
        let evicted = Gap { lane: Lane::State, first: 7, last: 8, count: 2, reason: Reason::Evicted };
        let evicted = records::gap(&evicted);
        memory.append(Lane::Outcomes, RECORD, &records::encode(evicted), true).unwrap();

        assert_eq!(hand_over(&mut memory, &mut disk), 5);
        let gap = |lane: Lane, first, last| {
            let (lane, reason) = (lane.number(), pb::GapReason::Evicted.into());
            Kind::Gap(pb::Gap { lane, first, last, reason, epoch: memory.epoch().to_string() })
        };
        let told = [gap(Lane::State, 7, 8), gap(Lane::Samples, 3, 4), gap(Lane::Samples, 7, 9)];
        assert_eq!(kinds(&mut disk, Lane::Outcomes), told);
        assert_eq!(kinds(&mut disk, Lane::State), [event]);
        assert_eq!(disk.holes(Lane::Samples), [(1, 5)], "the disk's own rows are still to be sent");
    }
}
