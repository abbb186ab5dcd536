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

/// The highest row that a collector has of a spool; `seq` 0 when it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tip {
    pub seq: u64,
    pub fingerprint: u32,
}

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
    tip: Tip,
) -> Result<Option<String>, SpoolError> {
    for (lane, taken) in lanes {
        let (end, highest) = (spool.durable_seq(*lane), taken.highest());
        if highest > end {
            return Ok(Some(format!("it has record {highest} of lane {lane}, which ends at {end} here")));
        }
    }
    if tip.seq == 0 {
        return Ok(None);
    }
    // A row that is here no more was acknowledged in this life.
    let row = backlog::row_at(spool, tip.seq)?;
    let own = row.map(|row| fingerprint::of_row(row.at(), row.boot_ms(), row.values()));
    let differs = own.is_some_and(|own| own != tip.fingerprint);
    Ok(differs.then(|| format!("it has another row under the number {}", tip.seq)))
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
            let found = compare(&mut second, &samples(taken), tip).unwrap();
            assert_eq!(found.is_some(), suspect, "{why}: {found:?}");
        }
        first.acknowledge(Lane::Samples, &Ranges::up_to(4)).unwrap();
        let last = tip(&first, 4);
        assert_eq!(compare(&mut first, &samples(4), last).unwrap(), None, "a lost acknowledgement");
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
