//! The spool on a disk that crashes, fills up and rots, and on the real one.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use proptest::prelude::*;
use tocsin_shared::disk::{Crash, Fault, MemoryDisk, Operation};

use super::*;

mod damage;
mod power_cuts;

const RESERVE: u64 = 8_000;
const SEGMENT: u64 = 1_000;

fn config() -> Config {
    Config {
        max_bytes: room::bytes_min(&Config {
            reserve_bytes: RESERVE,
            segment_bytes: SEGMENT,
            ..Config::default()
        }) + 4_000,
        reserve_bytes: RESERVE,
        free_floor_bytes: 0,
        free_floor_percent: 0,
        segment_bytes: SEGMENT,
    }
}

fn dir() -> PathBuf {
    PathBuf::from("/var/spool")
}

fn open(disk: &MemoryDisk) -> Spool {
    try_open(disk).unwrap()
}

fn try_open(disk: &MemoryDisk) -> Result<Spool, SpoolError> {
    Spool::open_on(Arc::new(disk.clone()), &dir(), Epoch(Uuid::from_u128(1)), config())
}

fn payload(seq: u64) -> Vec<u8> {
    format!("{seq:>100}").into_bytes()
}

/// Appends records without making them durable.
fn fill(spool: &mut Spool, lane: Lane, count: u64) {
    for _ in 0..count {
        let seq = spool.lane(lane).log.next_seq();
        assert_eq!(spool.append(lane, 1, &payload(seq), false).unwrap(), seq);
    }
}

/// The numbers that can be read from `from` on, each with its own payload.
fn read(spool: &mut Spool, lane: Lane, from: u64) -> Vec<u64> {
    let (mut seqs, mut next) = (Vec::new(), from);
    loop {
        let batch = spool.read(lane, next, 250).unwrap();
        if batch.next_seq == next {
            return seqs;
        }
        next = batch.next_seq;
        for entry in batch.entries.into_iter().filter(|entry| entry.numbered) {
            assert_eq!(entry.payload, payload(entry.seq));
            seqs.push(entry.seq);
        }
    }
}

fn acks(floor: u64, above: &[(u64, u64)]) -> Ranges {
    let mut ranges = Ranges::up_to(floor);
    for (first, last) in above {
        ranges.insert_range(*first, *last).unwrap();
    }
    ranges
}

fn seqs(gaps: &[Gap], lane: Lane, reason: Reason) -> BTreeSet<u64> {
    let ours = gaps.iter().filter(|gap| gap.lane == lane && gap.reason == reason);
    ours.flat_map(|gap| gap.first..=gap.last).collect()
}

// Cases: C-A1, C-A3
#[test]
fn outcomes_are_durable_at_once_and_samples_after_a_sync() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    spool.sync_due(Duration::ZERO).unwrap();
    fill(&mut spool, Lane::Outcomes, 2);
    fill(&mut spool, Lane::Samples, 3);
    spool.sync_due(Duration::from_millis(4_999)).unwrap();
    assert_eq!(spool.durable_seq(Lane::Samples), 0, "not yet due");
    assert_eq!(read(&mut spool, Lane::Samples, 1), []);
    spool.sync_due(Duration::from_secs(5)).unwrap();
    assert_eq!(read(&mut spool, Lane::Samples, 1), [1, 2, 3]);
    fill(&mut spool, Lane::Samples, 1);
    assert_eq!(spool.append(Lane::State, 1, &payload(1), true).unwrap(), 1);
    disk.crash(Crash::Dropped);
    let mut spool = open(&disk);
    assert_eq!(read(&mut spool, Lane::Outcomes, 1), [1, 2]);
    assert_eq!(read(&mut spool, Lane::State, 1), [1]);
    assert_eq!(read(&mut spool, Lane::Samples, 1), [1, 2, 3]);
    assert_eq!(spool.take_gaps(), [], "nobody was promised the fourth sample");
}

// Cases: C-A7
#[test]
fn acknowledged_records_are_removed_and_stay_acknowledged() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Samples, 40);
    spool.sync().unwrap();
    let before = spool.stats().lanes[Lane::Samples.index()].bytes;
    spool.acknowledge(Lane::Samples, &acks(20, &[(30, 35)])).unwrap();
    assert!(spool.stats().lanes[Lane::Samples.index()].bytes < before);
    assert_eq!(spool.holes(Lane::Samples), [(21, 29), (36, 40)]);
    assert_eq!(spool.first_unacked(Lane::Samples), 21);
    for crash in [Crash::Kept, Crash::Dropped] {
        spool.sync().unwrap();
        disk.crash(crash);
        spool = open(&disk);
        assert_eq!(read(&mut spool, Lane::Samples, 1), (21..=29).chain(36..=40).collect::<Vec<_>>());
        assert_eq!(spool.take_gaps(), []);
    }
    spool.acknowledge(Lane::Samples, &Ranges::up_to(40)).unwrap();
    assert_eq!(spool.first_unacked(Lane::Samples), 41);
    spool.sync().unwrap();
    assert_eq!(open(&disk).append(Lane::Samples, 1, b"next", true).unwrap(), 41, "numbers go on");
}

// Cases: S24
#[test]
fn acknowledgements_beyond_the_end_remove_nothing() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::State, 30);
    spool.sync().unwrap();
    fill(&mut spool, Lane::State, 1); // Appended, but never shown to anyone.
    for beyond in [acks(31, &[]), acks(5, &[(20, 31)]), acks(u64::MAX, &[])] {
        let error = spool.acknowledge(Lane::State, &beyond).unwrap_err();
        assert!(matches!(error, SpoolError::AckBeyondEnd { end: 30, .. }), "{error}");
    }
    assert_eq!(read(&mut spool, Lane::State, 1), (1..=30).collect::<Vec<_>>());
}

// Cases: S7
#[test]
fn numbers_acknowledged_before_records_were_rewound_are_not_used_again() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Outcomes, 5);
    let old: Vec<_> =
        disk.paths().into_iter().map(|path| (path.clone(), disk.content(&path).unwrap())).collect();
    fill(&mut spool, Lane::Outcomes, 5);
    spool.acknowledge(Lane::Outcomes, &acks(3, &[(6, 10)])).unwrap();
    spool.sync().unwrap();
    for (path, content) in old.into_iter().filter(|(path, _)| path.starts_with(dir().join("outcomes"))) {
        disk.set_content(&path, content);
    }
    for segment in &spool.lane(Lane::Outcomes).log.segments()[1..] {
        disk.remove(&segment.path).unwrap();
    }
    let mut spool = open(&disk);
    assert_eq!(read(&mut spool, Lane::Outcomes, 1), [4, 5]);
    assert_eq!(spool.append(Lane::Outcomes, 1, &payload(11), true).unwrap(), 11);
    let mut spool = open(&disk);
    assert_eq!(read(&mut spool, Lane::Outcomes, 1), [4, 5, 11]);
    assert_eq!(spool.take_gaps(), []);
}

// Cases: S15, C-A6
#[test]
fn the_oldest_samples_go_first_and_every_eviction_is_told() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Outcomes, 10);
    fill(&mut spool, Lane::State, 10);
    fill(&mut spool, Lane::Samples, 300);
    spool.sync().unwrap();
    let gaps = spool.take_gaps();
    let evicted = seqs(&gaps, Lane::Samples, Reason::Evicted);
    assert_eq!(gaps.len(), 1, "one growing gap: {gaps:?}");
    assert_eq!(gaps[0].count, spool.stats().lanes[Lane::Samples.index()].evicted);
    let kept: BTreeSet<u64> = read(&mut spool, Lane::Samples, 1).into_iter().collect();
    assert_eq!(evicted.union(&kept).copied().collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
    assert!(evicted.is_disjoint(&kept) && evicted.last() < kept.first());
    assert_eq!(read(&mut spool, Lane::Outcomes, 1).len(), 10);
    assert_eq!(read(&mut spool, Lane::State, 1).len(), 10);

    let mut again = open(&disk);
    assert_eq!(again.take_gaps(), gaps, "told again until recorded");
    again.gap_recorded(&gaps[0]).unwrap();
    again.sync().unwrap();
    let mut recorded = open(&disk);
    assert_eq!(recorded.take_gaps(), []);
    assert_eq!(recorded.acked(Lane::Samples).floor(), gaps[0].last);
}

/// A record that can do with its last forty characters.
fn without_padding(_: u8, payload: &[u8]) -> Option<Vec<u8>> {
    (payload.len() > 40).then(|| payload[payload.len() - 40..].to_vec())
}

// Cases: S15, C-A5
#[test]
fn room_is_made_in_a_fixed_order() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    spool.shorten_with(without_padding);
    spool.sync_due(Duration::ZERO).unwrap();
    fill(&mut spool, Lane::State, 15);
    for minute in [1, 59, 61] {
        spool.sync_due(Duration::from_secs(60 * minute)).unwrap();
    }
    spool.sync_due(Duration::from_secs(60 * 122)).unwrap();
    fill(&mut spool, Lane::State, 15);
    fill(&mut spool, Lane::Samples, 60);
    let mut order = Vec::new();
    for _ in 0..700 {
        let seq = spool.lane(Lane::Outcomes).log.next_seq();
        assert_eq!(spool.append(Lane::Outcomes, 1, &payload(seq), false).unwrap(), seq);
        assert!(disk.used() <= config().max_bytes && spool.bytes() <= config().max_bytes);
        let stats = spool.stats();
        let victims = [
            ("samples", stats.lanes[2].evicted > 0),
            ("output", spool.read(Lane::Outcomes, 1, 1).unwrap().entries[0].payload.len() == 40),
            ("old state", stats.lanes[1].evicted > 0),
            ("young state", stats.lanes[1].evicted > 15),
            ("outcomes", stats.lanes[0].evicted > 0),
        ];
        for (victim, _) in victims.into_iter().filter(|(_, gone)| *gone) {
            if !order.contains(&victim) {
                order.push(victim);
            }
        }
    }
    assert_eq!(order, ["samples", "output", "old state", "young state", "outcomes"]);
    let gaps = spool.take_gaps();
    let told = seqs(&gaps, Lane::Outcomes, Reason::Evicted);
    let (mut kept, mut next) = (BTreeSet::new(), 1);
    while next <= spool.durable_seq(Lane::Outcomes) {
        let batch = spool.read(Lane::Outcomes, next, 4_000).unwrap();
        for entry in &batch.entries {
            assert!(payload(entry.seq).ends_with(&entry.payload), "{}", entry.seq);
            kept.insert(entry.seq);
        }
        next = batch.next_seq;
    }
    assert!(told.is_disjoint(&kept));
    assert_eq!(told.union(&kept).count(), 700);
    drop(spool);
    let mut spool = open(&disk);
    assert_eq!(read_any(&mut spool, Lane::Outcomes), kept, "and after a restart");
}

/// The numbers that can be read.
fn read_any(spool: &mut Spool, lane: Lane) -> BTreeSet<u64> {
    let (mut found, mut next) = (BTreeSet::new(), 1);
    while next <= spool.durable_seq(lane) {
        let batch = spool.read(lane, next, 4_000).unwrap();
        found.extend(batch.entries.iter().map(|entry| entry.seq));
        next = batch.next_seq;
    }
    found
}

// Cases: S15, S16, C-A5
#[test]
fn outcomes_take_the_room_of_everything_else_and_then_of_the_oldest_outcomes() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::State, 30);
    fill(&mut spool, Lane::Samples, 60);
    let mut order = Vec::new();
    for _ in 0..300 {
        fill(&mut spool, Lane::Outcomes, 1);
        assert!(disk.used() <= config().max_bytes && spool.bytes() <= config().max_bytes);
        let stats = spool.stats();
        let victims = [
            ("samples", stats.lanes[2].evicted > 0),
            ("state", stats.lanes[1].evicted > 0),
            ("reserve", !stats.reserve_held),
            ("outcomes", stats.lanes[0].evicted > 0),
        ];
        for (victim, _) in victims.into_iter().filter(|(_, gone)| *gone) {
            if !order.contains(&victim) {
                order.push(victim);
            }
        }
    }
    assert_eq!(order, ["samples", "reserve", "state", "outcomes"], "of state that is young");
    let gaps = spool.take_gaps();
    let kept: BTreeSet<u64> = read(&mut spool, Lane::Outcomes, 1).into_iter().collect();
    let told = seqs(&gaps, Lane::Outcomes, Reason::Evicted);
    assert_eq!(told.union(&kept).count(), 300);
    assert!(
        spool.append(Lane::Samples, 1, &payload(61), false).unwrap_err().is_full(),
        "the reserve is not theirs"
    );
}

// Cases: C-A4
#[test]
fn tighter_bounds_are_met_at_the_next_start() {
    let disk = MemoryDisk::new();
    let roomy = Config { max_bytes: 2 * config().max_bytes, ..config() };
    let mut spool = Spool::open_on(Arc::new(disk.clone()), &dir(), Epoch(Uuid::nil()), roomy).unwrap();
    fill(&mut spool, Lane::Outcomes, 20);
    fill(&mut spool, Lane::Samples, 250);
    spool.sync().unwrap();
    assert!(spool.bytes() > config().max_bytes);
    let mut spool = open(&disk);
    assert!(spool.bytes() <= config().max_bytes && disk.used() <= config().max_bytes);
    assert_eq!(read(&mut spool, Lane::Outcomes, 1).len(), 20);
    let kept = read(&mut spool, Lane::Samples, 1).len();
    assert_eq!(seqs(&spool.take_gaps(), Lane::Samples, Reason::Evicted).len() + kept, 250);
}

// Cases: S10
#[test]
fn a_full_disk_stops_samples_and_not_outcomes() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Samples, 25);
    spool.sync().unwrap();
    assert!(spool.stats().reserve_held);
    disk.set_capacity(disk.used());
    fill(&mut spool, Lane::Outcomes, 20);
    assert!(!spool.stats().reserve_held, "its reserve is what it was written to");
    assert_eq!(read(&mut spool, Lane::Samples, 1).len(), 25, "no sample had to go");
    fill(&mut spool, Lane::Outcomes, 60);
    assert_eq!(read(&mut spool, Lane::Outcomes, 1).len(), 80);
    disk.set_capacity(disk.used());
    let error = loop {
        let seq = spool.lane(Lane::Outcomes).log.next_seq();
        if let Err(error) = spool.append(Lane::Outcomes, 1, &payload(seq), true) {
            break error;
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(spool.stats().degraded);
    spool.acknowledge(Lane::Outcomes, &Ranges::up_to(60)).unwrap();
    let outcomes = read(&mut spool, Lane::Outcomes, 1);
    disk.set_capacity(u64::MAX);
    fill(&mut spool, Lane::Outcomes, 1);
    spool.sync().unwrap();
    let stats = spool.stats();
    assert!(!stats.degraded && stats.reserve_held, "it recovers by itself");
    disk.crash(Crash::Dropped);
    let mut spool = open(&disk);
    assert_eq!(read(&mut spool, Lane::Outcomes, 1).len(), outcomes.len() + 1);
    let gaps = spool.take_gaps();
    assert_eq!(seqs(&gaps, Lane::Outcomes, Reason::Evicted), BTreeSet::new());
    let told = seqs(&gaps, Lane::Samples, Reason::Evicted);
    assert_eq!(told.len() + read(&mut spool, Lane::Samples, 1).len(), 25);
}

// Cases: S11, C-A4
#[test]
fn below_the_free_floor_only_outcomes_are_written() {
    let disk = MemoryDisk::new();
    let config = Config { free_floor_bytes: 2_000, ..config() };
    disk.set_capacity(1 << 20);
    let mut spool = Spool::open_on(Arc::new(disk.clone()), &dir(), Epoch(Uuid::nil()), config).unwrap();
    fill(&mut spool, Lane::Samples, 30);
    spool.sync().unwrap();
    disk.set_capacity(disk.used() + 900);
    let samples = spool.append(Lane::Samples, 1, &payload(31), false);
    assert!(matches!(samples, Err(SpoolError::NoRoom { .. })) || spool.stats().lanes[2].evicted > 0);
    disk.set_capacity(disk.used() + 100);
    let mut refused = 0;
    for _ in 0..10 {
        refused +=
            u64::from(spool.append(Lane::State, 1, b"heartbeat", false).is_err_and(|error| error.is_full()));
    }
    assert!(refused > 0);
    fill(&mut spool, Lane::Outcomes, 1);
    disk.set_capacity(1 << 20);
    spool.append(Lane::State, 1, b"heartbeat", true).unwrap();
}

// Cases: S13
#[test]
fn a_failed_fsync_costs_nothing_that_was_confirmed() {
    for lane in Lane::ALL {
        for stays in [false, true] {
            let disk = MemoryDisk::new();
            let mut spool = open(&disk);
            fill(&mut spool, lane, 3);
            spool.sync().unwrap();
            let operation = Some(Operation::SyncData);
            disk.fail(Fault { operation, after: 0, kind: ErrorKind::Other, stays });
            let appended = spool.append(lane, 1, &payload(4), true);
            assert_eq!(appended.is_err(), stays, "{lane}: one failure goes to a new segment");
            assert_eq!(spool.stats().degraded, stays);
            disk.heal();
            spool.sync().unwrap();
            let next = spool.lane(lane).log.next_seq();
            assert_eq!(next, if stays && lane == Lane::Outcomes { 4 } else { 5 });
            fill(&mut spool, lane, 7 - next);
            spool.sync().unwrap();
            disk.crash(Crash::Dropped);
            let mut spool = open(&disk);
            assert_eq!(read(&mut spool, lane, 1), (1..=6).collect::<Vec<_>>(), "{lane}");
        }
    }
}

// Cases: S4, S6
#[test]
fn damage_is_one_gap_of_exactly_what_is_damaged() {
    for lane in Lane::ALL {
        let disk = MemoryDisk::new();
        let mut spool = open(&disk);
        fill(&mut spool, lane, 30);
        spool.sync().unwrap();
        let segments = spool.lane(lane).log.segments();
        let mut content = disk.content(&segments[0].path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 4;
        disk.set_content(&segments[0].path, content);
        disk.remove(&segments[2].path).unwrap();
        let mut spool = open(&disk);
        let whole: BTreeSet<u64> = read(&mut spool, lane, 1).into_iter().collect();
        let gaps = spool.take_gaps();
        let lost = seqs(&gaps, lane, Reason::Corrupt);
        assert!(lost.is_superset(&(segments[2].first_seq..=segments[2].last_seq).collect()));
        assert_eq!(lost.len() as u64, 1 + segments[2].last_seq - segments[2].first_seq + 1);
        assert_eq!(whole.union(&lost).copied().collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
        assert!(whole.is_disjoint(&lost));
        assert_eq!(read(&mut spool, lane, 1).len(), whole.len());
        assert_eq!(spool.take_gaps(), [], "read twice, told once");
    }
}

// Cases: S4
#[test]
fn damage_at_the_durable_end_is_told_without_a_restart() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::State, 5);
    spool.sync().unwrap();
    let path = spool.lane(Lane::State).log.segments()[0].path.clone();
    let mut content = disk.content(&path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    disk.set_content(&path, content);
    assert_eq!(read(&mut spool, Lane::State, 1), [1, 2, 3, 4]);
    assert_eq!(seqs(&spool.take_gaps(), Lane::State, Reason::Corrupt), BTreeSet::from([5]));
    assert_eq!(spool.holes(Lane::State), [(1, 4)], "5 is settled");
}

// Cases: S7
#[test]
fn what_a_lost_ledger_knew_is_told_as_lost() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Samples, 30);
    spool.sync().unwrap();
    spool.acknowledge(Lane::Samples, &Ranges::up_to(20)).unwrap();
    spool.sync().unwrap();
    let first = spool.lane(Lane::Samples).log.segments()[0].first_seq;
    assert!(first > 1);
    disk.set_content(&dir().join("ledger"), b"rubbish".to_vec());
    let mut spool = open(&disk);
    assert_eq!(
        read(&mut spool, Lane::Samples, 1),
        (first..=30).collect::<Vec<_>>(),
        "sent again, dropped there"
    );
    assert_eq!(seqs(&spool.take_gaps(), Lane::Samples, Reason::Corrupt), (1..first).collect());
}

// Cases: S3
#[test]
fn a_torn_tail_is_told_and_its_number_stays_unused() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Outcomes, 3);
    let path = spool.lane(Lane::Outcomes).log.segments()[0].path.clone();
    let mut content = disk.content(&path).unwrap();
    content.truncate(content.len() - 1);
    disk.set_content(&path, content);
    for _ in 0..2 {
        let mut spool = open(&disk);
        let gaps = spool.take_gaps();
        assert_eq!(seqs(&gaps, Lane::Outcomes, Reason::Torn), BTreeSet::from([3]));
        assert!(spool.stats().torn_bytes > 0);
        assert_eq!(read(&mut spool, Lane::Outcomes, 1), [1, 2]);
    }
    let mut spool = open(&disk);
    assert_eq!(spool.append(Lane::Outcomes, 1, &payload(4), true).unwrap(), 4);
    let gap = spool.take_gaps()[0];
    spool.gap_recorded(&gap).unwrap();
    spool.sync().unwrap();
    let mut spool = open(&disk);
    assert_eq!((spool.take_gaps(), spool.stats().torn_bytes), (vec![], 0));
    assert_eq!(read(&mut spool, Lane::Outcomes, 1), [1, 2, 4]);
}

#[test]
fn headers_come_with_the_records_after_them() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    for seq in 1..=20 {
        if spool.will_roll(Lane::Samples, 100) {
            spool.roll(Lane::Samples).unwrap();
        }
        if spool.starts_segment(Lane::Samples) {
            spool.append_header(Lane::Samples, 9, b"table").unwrap();
        }
        spool.append(Lane::Samples, 1, &payload(seq), false).unwrap();
    }
    spool.sync().unwrap();
    let last = spool.lane(Lane::Samples).log.segments().pop().unwrap();
    let batch = spool.read(Lane::Samples, last.first_seq, 1).unwrap();
    let kinds: Vec<u8> = batch.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!((kinds, batch.next_seq), (vec![9, 1], last.first_seq + 1));
    spool.acknowledge(Lane::Samples, &Ranges::up_to(20)).unwrap();
    assert_eq!(
        spool.read(Lane::Samples, last.first_seq, 1).unwrap(),
        Batch { entries: vec![], next_seq: 21 }
    );
    fill(&mut spool, Lane::Samples, 1);
    spool.sync().unwrap();
    let kinds: Vec<u8> =
        spool.read(Lane::Samples, 21, 1000).unwrap().entries.iter().map(|entry| entry.kind).collect();
    assert!(
        kinds == [9, 1] || kinds == [1],
        "the table again, unless the record opened a segment: {kinds:?}"
    );
}

#[test]
fn news_and_backlog_are_read_in_turns() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::State, 30);
    spool.sync().unwrap();
    let (mut live, mut backlog, mut seen) = (21, 1, BTreeSet::new());
    while live <= 30 || backlog <= 20 {
        for next in [&mut live, &mut backlog] {
            let batch = spool.read(Lane::State, *next, 1).unwrap();
            seen.extend(batch.entries.iter().map(|entry| entry.seq));
            *next = batch.next_seq;
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
}

// Cases: S18
#[test]
fn one_directory_serves_one_agent_and_keeps_its_epoch() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("spool");
    let mut spool = Spool::open(&dir, config()).unwrap();
    let epoch = spool.epoch();
    spool.append(Lane::Outcomes, 1, &payload(1), true).unwrap();
    let error = Spool::open(&dir, config()).err().unwrap();
    let expected = std::process::id().to_string();
    assert!(matches!(&error, SpoolError::Locked { holder, .. } if *holder == expected), "{error}");
    drop(spool);
    let mut spool = Spool::open(&dir, config()).unwrap();
    assert_eq!(spool.epoch(), epoch);
    assert_eq!(read(&mut spool, Lane::Outcomes, 1), [1]);
    assert!(spool.stats().reserve_held);
    drop(spool);
    std::fs::write(dir.join("epoch"), "rubbish").unwrap();
    assert!(matches!(Spool::open(&dir, config()), Err(SpoolError::InvalidEpoch { .. })));
    let small = Config { max_bytes: 10_000, ..config() };
    assert!(matches!(Spool::open(&dir, small), Err(SpoolError::TooSmall { .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, u16),
    Sync,
    Acknowledge(u8, u8),
    RecordGaps,
    Restart(Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..3, 1u16..1500).prop_map(|(lane, bytes)| Step::Append(lane, bytes)),
        3 => Just(Step::Sync),
        3 => (0u8..3, any::<u8>()).prop_map(|(lane, share)| Step::Acknowledge(lane, share)),
        1 => Just(Step::RecordGaps),
        1 => prop::option::of(any::<u64>()).prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    // Cases: C-A4, C-A5, C-A6, C-A7
    #[test]
    fn bounds_hold_and_every_record_is_sent_acknowledged_or_told(steps in prop::collection::vec(step(), 1..150)) {
        let disk = MemoryDisk::new();
        let mut spool = open(&disk);
        spool.shorten_with(without_padding);
        let mut told: [BTreeSet<u64>; 3] = Default::default();
        let mut acked: [u64; 3] = [0; 3];
        for step in steps {
            match step {
                Step::Append(lane, bytes) => {
                    let lane = Lane::ALL[usize::from(lane)];
                    let appended = spool.append(lane, 1, &vec![7; usize::from(bytes)], false);
                    prop_assert!(appended.is_ok() || lane != Lane::Outcomes);
                }
                Step::Sync => spool.sync().unwrap(),
                Step::Acknowledge(lane, share) => {
                    let lane = Lane::ALL[usize::from(lane)];
                    let to = spool.durable_seq(lane) * u64::from(share) / 255;
                    spool.acknowledge(lane, &Ranges::up_to(to)).unwrap();
                    acked[lane.index()] = acked[lane.index()].max(to);
                }
                Step::RecordGaps => for gap in spool.take_gaps() {
                    told[gap.lane.index()].extend(gap.first..=gap.last);
                    spool.gap_recorded(&gap).unwrap();
                    spool.sync().unwrap();
                },
                Step::Restart(cut) => {
                    disk.crash(cut.map_or(Crash::Kept, Crash::Torn));
                    prop_assert!(disk.used() <= config().max_bytes, "a power cut brought something back");
                    spool = open(&disk);
                    spool.shorten_with(without_padding);
                }
            }
            prop_assert!(spool.bytes() <= config().max_bytes);
            prop_assert!(disk.used() <= config().max_bytes);
        }
        spool.sync().unwrap();
        let mut sent: [BTreeSet<u64>; 3] = Default::default();
        for lane in Lane::ALL {
            let mut next = 1;
            while next <= spool.durable_seq(lane) {
                let batch = spool.read(lane, next, 4000).unwrap();
                sent[lane.index()].extend(batch.entries.iter().map(|entry| entry.seq));
                next = batch.next_seq;
            }
        }
        for gap in spool.take_gaps() {
            told[gap.lane.index()].extend(gap.first..=gap.last);
        }
        for lane in Lane::ALL {
            let at = lane.index();
            for seq in 1..=spool.durable_seq(lane) {
                let accounted = seq <= acked[at] || told[at].contains(&seq) || sent[at].contains(&seq);
                prop_assert!(accounted, "{lane} {seq} vanished");
            }
            prop_assert!(told[at].is_disjoint(&sent[at]), "{lane}: told as lost and sent");
        }
    }
}
