//! Whose records a spool holds, and whether it is in the same life as what the collector has of it.
//!
//! A spool that was set back (a snapshot was restored) or copied (a machine was cloned) uses its numbers a second time.
//! Then nothing of the collector's word may be taken and nothing be sent under those numbers: what is not settled gets
//! a new epoch's name and is sent again, and nothing is lost. Promises: a spool's records go out as its owner's only; a
//! life that ended elsewhere is seen by a lane that ends too early, or by another row under the highest number.

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_proto::pb::record::Kind;
use tocsin_shared::fingerprint;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use uuid::Uuid;

use crate::spool::{Spool, SpoolError};
use crate::stream::backlog;
use crate::stream::records::{self, RECORD};

/// The highest row or record that a collector has of a lane; `seq` 0 when it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tip {
    pub seq: u64,
    pub fingerprint: u32,
}

/// The tips of all lanes, by their place in `Lane::ALL`.
pub(crate) type Tips = [Tip; 3];

/// What one look reads of the outcomes for gaps that are under way.
const LOOK_BYTES: usize = 1 << 20;

/// Whose records these are from now on, if they are nobody's yet; an error if they are another agent's.
pub(crate) fn claim(spool: &mut Spool, agent: AgentId) -> Result<(), SpoolError> {
    match spool.owner()? {
        Some(owner) if owner == agent => Ok(()),
        Some(owner) => Err(SpoolError::OtherOwner { owner, agent }),
        None => spool.set_owner(Some(agent)),
    }
}

/// Why what a collector has is of another life of this spool, if it is.
pub(crate) fn compare(
    spool: &mut Spool,
    lanes: &[(Lane, Ranges)],
    tips: Tips,
) -> Result<Option<String>, SpoolError> {
    for (lane, taken) in lanes {
        let (end, highest) = (spool.durable_seq(*lane), taken.highest());
        if highest > end {
            return Ok(Some(format!("it has record {highest} of lane {lane}, which ends at {end} here")));
        }
    }
    for lane in [Lane::Outcomes, Lane::State] {
        let tip = tips[lane.index()];
        if other_record(spool, lane, tip)? {
            return Ok(Some(format!("it has another record under the number {} of lane {lane}", tip.seq)));
        }
    }
    let tip = tips[Lane::Samples.index()];
    if tip.seq == 0 {
        return Ok(None);
    }
    // A row that is here no more was acknowledged in this life.
    let row = backlog::row_at(spool, tip.seq)?;
    let own = row.map(|row| fingerprint::of_row(row.at(), row.boot_ms(), row.values()));
    let differs = own.is_some_and(|own| own != tip.fingerprint);
    Ok(differs.then(|| format!("it has another row under the number {}", tip.seq)))
}

/// Whether the spool has another record there. One that is settled is not compared: it was acknowledged in this life.
fn other_record(spool: &mut Spool, lane: Lane, tip: Tip) -> Result<bool, SpoolError> {
    if tip.seq == 0 || spool.acked(lane).contains(tip.seq) {
        return Ok(false);
    }
    let entries = spool.read(lane, tip.seq, 1)?.entries;
    let own = entries.iter().find(|entry| entry.numbered && entry.seq == tip.seq);
    Ok(own.is_some_and(|own| fingerprint::of_record(&own.payload) != tip.fingerprint))
}

/// Tells the collector what it had acknowledged and has no more, because an older copy of its data was put back: those
/// records will not come. What is not acknowledged is sent as always; of what is, the spool keeps nothing for long.
pub(crate) fn tell_lost(spool: &mut Spool, lanes: &[(Lane, Ranges)]) -> Result<(), SpoolError> {
    let mut lost: Vec<(Lane, u64, u64)> = Vec::new();
    for (lane, taken) in lanes {
        lost.extend(without(spool.acked(*lane), taken).into_iter().map(|(first, last)| (*lane, first, last)));
    }
    if lost.is_empty() {
        return Ok(());
    }
    // Also what was lost here is settled; the collector learns it from the gaps that are under way.
    let mut from = spool.first_unacked(Lane::Outcomes);
    loop {
        let batch = spool.read(Lane::Outcomes, from, LOOK_BYTES)?;
        for entry in batch.entries.iter().filter(|entry| entry.numbered) {
            let Some(Kind::Gap(gap)) = records::decode(entry.seq, &entry.payload).and_then(|r| r.kind) else {
                continue;
            };
            lost.retain(|(lane, first, last)| {
                lane.number() != gap.lane || *first < gap.first || gap.last < *last
            });
        }
        if batch.next_seq <= from {
            break;
        }
        from = batch.next_seq;
    }
    for (lane, first, last) in lost {
        tracing::warn!(%lane, first, last, "the collector has lost what it had acknowledged: it is told that these will not come");
        let reason = pb::GapReason::CollectorLost.into();
        let gap = Kind::Gap(pb::Gap { lane: lane.number(), first, last, reason, epoch: String::new() });
        spool.append(Lane::Outcomes, RECORD, &records::encode(gap), true)?;
    }
    Ok(())
}

/// What is in the first set and not in the second, as closed ranges.
fn without(some: &Ranges, other: &Ranges) -> Vec<(u64, u64)> {
    let whole = |ranges: &Ranges| {
        let floor = (ranges.floor() > 0).then_some((1, ranges.floor()));
        floor.into_iter().chain(ranges.above().iter().copied()).collect::<Vec<_>>()
    };
    let mut left = whole(some);
    for (first, last) in whole(other) {
        let parts = left.into_iter().flat_map(|(from, to)| {
            let before = (from, to.min(first - 1));
            let after = (from.max(last.saturating_add(1)), to);
            let parts = if last < from || to < first { vec![(from, to)] } else { vec![before, after] };
            parts.into_iter().filter(|(from, to)| from <= to)
        });
        left = parts.collect();
    }
    left
}

/// Begins a new epoch, durably, and tells its collector which numbers will not come under it.
pub(crate) fn begin_epoch(spool: &mut Spool) -> Result<(), SpoolError> {
    let settled = spool.begin_epoch(Epoch(Uuid::new_v4()))?;
    for (lane, first, last) in settled {
        let reason = pb::GapReason::EarlierEpoch.into();
        let gap = Kind::Gap(pb::Gap { lane: lane.number(), first, last, reason, epoch: String::new() });
        spool.append(Lane::Outcomes, RECORD, &records::encode(gap), true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tocsin_shared::disk::{Disk as _, MemoryDisk};
    use tocsin_shared::labels::Labels;
    use tocsin_shared::time::Timestamp;

    use super::*;
    use crate::rows::RowWriter;
    use crate::spool::Config;
    use crate::tick::Reading;

    /// Another disk with the same content, as a copy of a machine has it.
    fn copy(disk: &MemoryDisk) -> MemoryDisk {
        let copy = MemoryDisk::new();
        for path in disk.paths() {
            copy.create_dir(path.parent().unwrap()).unwrap();
            copy.set_content(&path, disk.content(&path).unwrap());
        }
        copy
    }

    fn open(disk: &MemoryDisk) -> Spool {
        let config = Config {
            max_bytes: 1 << 20,
            reserve_bytes: 8 << 10,
            free_floor_bytes: 0,
            free_floor_percent: 0,
            segment_bytes: 16 << 10,
        };
        Spool::open_on(Arc::new(disk.clone()), Path::new("/spool"), Epoch(Uuid::new_v4()), config).unwrap()
    }

    /// Writes rows of these values, one a second from `from` on.
    fn write(spool: &mut Spool, from: i64, values: &[f64]) {
        let series: Arc<[Labels]> = Arc::new([Labels::new([("__name__", "x")])]);
        let mut rows = RowWriter::new("boot");
        for (value, at) in values.iter().zip(from..) {
            let at = Reading { wall: Timestamp::from_millis(at * 1000), boot_ms: at as u64 };
            rows.write(spool, at, &series, &[*value]).unwrap();
        }
    }

    fn tip(spool: &Spool, seq: u64) -> Tip {
        let row = backlog::row_at(spool, seq).unwrap().unwrap();
        Tip { seq, fingerprint: fingerprint::of_row(row.at(), row.boot_ms(), row.values()) }
    }

    fn of_samples(tip: Tip) -> Tips {
        [Tip::default(), Tip::default(), tip]
    }

    fn gap(first: u64, last: u64) -> Vec<u8> {
        let reason = pb::GapReason::Evicted.into();
        records::encode(Kind::Gap(pb::Gap {
            lane: Lane::Samples.number(),
            first,
            last,
            reason,
            epoch: String::new(),
        }))
    }

    /// The gaps about rows that wait in the outcomes lane, and why they are there.
    fn gaps(spool: &mut Spool) -> Vec<(u64, u64, pb::GapReason)> {
        let from = spool.first_unacked(Lane::Outcomes);
        let entries = spool.read(Lane::Outcomes, from, 1 << 20).unwrap().entries;
        let kinds = entries.iter().filter_map(|entry| records::decode(entry.seq, &entry.payload)?.kind);
        let gaps = kinds.filter_map(|kind| match kind {
            Kind::Gap(gap) => Some((gap.first, gap.last, gap.reason())),
            _ => None,
        });
        gaps.collect()
    }

    // Cases: S20, C-D4
    #[test]
    fn another_record_under_the_highest_number_is_another_life() {
        let disk = MemoryDisk::new();
        let mut spool = open(&disk);
        let own = gap(1, 2);
        spool.append(Lane::Outcomes, RECORD, &own, true).unwrap();
        let lanes = vec![(Lane::Outcomes, Ranges::up_to(1))];
        let tips = |record: &[u8]| {
            let tip = Tip { seq: 1, fingerprint: fingerprint::of_record(record) };
            [tip, Tip::default(), Tip::default()]
        };
        assert_eq!(compare(&mut spool, &lanes, tips(&own)).unwrap(), None, "an acknowledgement was lost");
        let found = compare(&mut spool, &lanes, tips(&gap(1, 3))).unwrap();
        assert!(found.is_some_and(|why| why.contains("another record under the number 1")));
        spool.acknowledge(Lane::Outcomes, &Ranges::up_to(1)).unwrap();
        assert_eq!(compare(&mut spool, &lanes, tips(&gap(1, 3))).unwrap(), None, "settled in this life");
    }

    // Cases: C16
    #[test]
    fn what_a_collector_acknowledged_and_lost_is_told_once() {
        let disk = MemoryDisk::new();
        let mut spool = open(&disk);
        write(&mut spool, 0, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let samples = |taken: &Ranges| vec![(Lane::Samples, taken.clone())];
        spool.acknowledge(Lane::Samples, &Ranges::up_to(5)).unwrap();
        tell_lost(&mut spool, &samples(&Ranges::up_to(5))).unwrap();
        assert_eq!(gaps(&mut spool), [], "nothing is lost");
        let mut taken = Ranges::up_to(1);
        taken.insert(3).unwrap();
        for _ in 0..2 {
            tell_lost(&mut spool, &samples(&taken)).unwrap();
            let why = pb::GapReason::CollectorLost;
            assert_eq!(
                gaps(&mut spool),
                [(2, 2, why), (4, 5, why)],
                "told once, and not the sixth, which is sent"
            );
        }
    }

    #[test]
    fn sets_are_subtracted() {
        let set = |floor, above: &[(u64, u64)]| {
            let mut set = Ranges::up_to(floor);
            above.iter().for_each(|(first, last)| set.insert_range(*first, *last).unwrap());
            set
        };
        for (some, other, left) in [
            (set(0, &[]), set(9, &[]), &[][..]),
            (set(9, &[]), set(0, &[]), &[(1, 9)]),
            (set(9, &[]), set(4, &[]), &[(5, 9)]),
            (set(9, &[(20, 30)]), set(4, &[(6, 7), (25, 40)]), &[(5, 5), (8, 9), (20, 24)]),
            (set(9, &[]), set(20, &[]), &[]),
        ] {
            assert_eq!(without(&some, &other), left, "{some:?} without {other:?}");
        }
    }

    // Cases: S20
    #[test]
    fn another_life_is_seen_and_this_one_is_not_suspected() {
        let disk = MemoryDisk::new();
        let mut spool = open(&disk);
        write(&mut spool, 0, &[1.0, 2.0]);
        drop(spool);
        let before = copy(&disk);
        let mut first = open(&disk);
        write(&mut first, 2, &[3.0, 4.0]);
        let samples = |up_to| vec![(Lane::Samples, Ranges::up_to(up_to))];
        let no_tip = Tip::default();
        for (values, taken, tip, suspect, why) in [
            (&[][..], 2, tip(&first, 2), false, "nothing but what both have"),
            (&[], 4, no_tip, true, "set back: it ends too early"),
            (&[9.0], 4, tip(&first, 4), true, "set back, and a little further"),
            (&[9.0, 9.0], 4, tip(&first, 4), true, "the same number, another value"),
            (&[9.0, 9.0, 9.0], 4, tip(&first, 4), true, "it has overtaken the other one"),
            (&[3.0, 4.0], 4, tip(&first, 4), false, "the same rows"),
            (&[3.0, 4.0, 5.0], 4, no_tip, false, "a collector that does not say"),
        ] {
            let mut second = open(&copy(&before));
            write(&mut second, 2, values);
            let found = compare(&mut second, &samples(taken), of_samples(tip)).unwrap();
            assert_eq!(found.is_some(), suspect, "{why}: {found:?}");
        }
        first.acknowledge(Lane::Samples, &Ranges::up_to(4)).unwrap();
        let last = tip(&first, 4);
        assert_eq!(
            compare(&mut first, &samples(4), of_samples(last)).unwrap(),
            None,
            "a lost acknowledgement"
        );
    }

    // Cases: S20
    #[test]
    fn a_new_epoch_keeps_what_is_not_settled_and_names_what_is() {
        let disk = MemoryDisk::new();
        let mut spool = open(&disk);
        write(&mut spool, 0, &[1.0, 2.0, 3.0]);
        let mut taken = Ranges::up_to(1);
        taken.insert(3).unwrap();
        spool.acknowledge(Lane::Samples, &taken).unwrap();
        let before = spool.epoch();
        begin_epoch(&mut spool).unwrap();
        let after = spool.epoch();
        assert_ne!(after, before);
        assert_eq!(spool.holes(Lane::Samples), [(2, 2)]);
        drop(spool);
        let spool = open(&disk);
        assert_eq!(
            (spool.epoch(), spool.holes(Lane::Samples)),
            (after, vec![(2, 2)]),
            "after a restart, too"
        );
        drop(spool);
        disk.set_content(Path::new("/spool/epoch"), format!("{before}\n").into_bytes());
        let mut spool = open(&disk);
        assert_eq!(
            (spool.epoch(), spool.holes(Lane::Samples)),
            (after, vec![(2, 2)]),
            "a crash between the two files"
        );
        let told = spool.read(Lane::Outcomes, 1, 1 << 20).unwrap().entries;
        let told: Vec<_> =
            told.iter().filter_map(|entry| records::decode(entry.seq, &entry.payload)).collect();
        let gap = |first, last| {
            let reason = pb::GapReason::EarlierEpoch.into();
            let lane = Lane::Samples.number();
            Kind::Gap(pb::Gap { lane, first, last, reason, epoch: String::new() })
        };
        assert_eq!(
            told.into_iter().filter_map(|record| record.kind).collect::<Vec<_>>(),
            [gap(1, 1), gap(3, 3)]
        );
    }

    // Cases: S19
    #[test]
    fn a_spool_speaks_for_one_agent() {
        let disk = MemoryDisk::new();
        let (one, other) = (AgentId(Uuid::from_u128(1)), AgentId(Uuid::from_u128(2)));
        let mut spool = open(&disk);
        claim(&mut spool, one).unwrap();
        claim(&mut spool, one).unwrap();
        drop(spool);
        let mut spool = open(&disk);
        assert!(
            matches!(claim(&mut spool, other), Err(SpoolError::OtherOwner { owner, .. }) if owner == one)
        );
        spool.set_owner(None).unwrap();
        claim(&mut spool, other).unwrap();
        assert_eq!(spool.owner().unwrap(), Some(other));
    }
}
