//! A spool whose disk has no room: what it still takes, what a crash leaves of it, and that it comes back.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tocsin_shared::disk::{Crash, Fault, MemoryDisk, Operation};
use tocsin_shared::identity::Epoch;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use uuid::Uuid;

use crate::spool::{Config, Reason, Spool, room};

const SAMPLES: usize = 2;

type Cause<'a> = (&'a str, &'a dyn Fn(&MemoryDisk));

fn config() -> Config {
    let config = Config {
        max_bytes: 0,
        reserve_bytes: 8_000,
        free_floor_bytes: 3_000,
        free_floor_percent: 0,
        segment_bytes: 1_000,
    };
    Config { max_bytes: room::bytes_min(&config) + 20_000, ..config }
}

fn open(disk: &MemoryDisk) -> Spool {
    Spool::open_on(Arc::new(disk.clone()), Path::new("/spool"), Epoch(Uuid::from_u128(1)), config()).unwrap()
}

/// Adds a row as the row writer does; gives its number.
fn row(spool: &mut Spool) -> u64 {
    spool.choose_tier(Lane::Samples).unwrap();
    let seq = spool.stats().lanes[SAMPLES].next_seq;
    let payload = format!("{seq:>100}");
    assert_eq!(spool.append(Lane::Samples, 1, payload.as_bytes(), true).unwrap(), seq);
    seq
}

fn read(spool: &mut Spool, from: u64) -> Vec<u64> {
    let (mut seqs, mut next) = (Vec::new(), from);
    loop {
        let batch = spool.read(Lane::Samples, next, 300).unwrap();
        if batch.next_seq == next {
            return seqs;
        }
        next = batch.next_seq;
        for entry in batch.entries.into_iter().filter(|entry| entry.numbered) {
            assert_eq!(entry.payload, format!("{:>100}", entry.seq).into_bytes());
            seqs.push(entry.seq);
        }
    }
}

/// Somebody else leaves so many bytes.
fn leave(disk: &MemoryDisk, bytes: u64) {
    disk.set_capacity(disk.used() + bytes);
}

// Cases: S10, S11
#[test]
fn rows_go_on_in_memory_below_the_floor_and_return_to_the_disk() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    let before: Vec<u64> = (0..5).map(|_| row(&mut spool)).collect();
    spool.acknowledge(Lane::Samples, &Ranges::up_to(3)).unwrap();
    leave(&disk, 2_000);
    let used = disk.used();
    let within: Vec<u64> = (0..10).map(|_| row(&mut spool)).collect();
    assert!(spool.stats().volatile && disk.used() <= used, "nothing is written below the floor");
    assert_eq!(read(&mut spool, 1), within, "and everything can be sent");
    let evicted: Vec<_> = spool.take_gaps().iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(evicted, [(4, before[4])], "the oldest rows gave their room back, and that is told");
    spool.append(Lane::Outcomes, 1, b"job", true).unwrap();

    disk.set_capacity(u64::MAX);
    let after: Vec<u64> = (0..5).map(|_| row(&mut spool)).collect();
    assert!(!spool.stats().volatile && disk.used() > used);
    assert_eq!(read(&mut spool, 1), [&within[..], &after].concat());
    spool.acknowledge(Lane::Samples, &Ranges::up_to(within[9])).unwrap();
    spool.sync().unwrap();
    disk.crash(Crash::Dropped);
    let mut again = open(&disk);
    assert_eq!(read(&mut again, 1), after);
    let told: Vec<_> = again.take_gaps().iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(told, evicted, "all that memory had was acknowledged; the rest is told until it is recorded");
    assert_eq!(row(&mut again), after[4] + 1);
}

// Cases: S10
#[test]
fn a_crash_gives_no_number_twice_and_tells_what_memory_had() {
    for clean in [false, true] {
        let disk = MemoryDisk::new();
        let mut spool = open(&disk);
        for _ in 0..5 {
            row(&mut spool);
        }
        leave(&disk, 2_000);
        let mut last = 0;
        spool.acknowledge(Lane::Samples, &Ranges::up_to(5)).unwrap();
        for _ in 0..20 {
            last = row(&mut spool);
        }
        spool.acknowledge(Lane::Samples, &Ranges::up_to(15)).unwrap();
        spool.sync().unwrap();
        if clean {
            spool.close().unwrap();
        }
        drop(spool);
        disk.crash(Crash::Dropped);
        disk.set_capacity(u64::MAX);
        let mut again = open(&disk);
        let gaps = again.take_gaps();
        let next = row(&mut again);
        assert!(next > last && (!clean || next == last + 1), "{next} after {last}");
        let evicted = gaps.iter().filter(|gap| gap.reason == Reason::Evicted);
        let told: Vec<u64> = evicted.flat_map(|gap| gap.first..=gap.last).collect();
        assert_eq!(told, (16..next).collect::<Vec<_>>(), "each once, the acknowledged ones not");
    }
}

// Cases: S10, S12
#[test]
fn a_write_that_finds_no_room_goes_to_memory_and_is_tried_again_later() {
    // A quota, which the free space does not show, and inodes.
    let no_room = |disk: &MemoryDisk| disk.set_capacity(disk.used());
    let no_inode = |disk: &MemoryDisk| {
        let kind = ErrorKind::StorageFull;
        disk.fail(Fault { operation: Some(Operation::Create), after: 0, kind, stays: true });
    };
    let causes: [Cause<'_>; 2] = [("room", &no_room), ("inode", &no_inode)];
    for (operation, begin) in causes {
        let disk = MemoryDisk::new();
        let config = Config { free_floor_bytes: 0, ..config() };
        let epoch = Epoch(Uuid::from_u128(1));
        let mut spool = Spool::open_on(Arc::new(disk.clone()), Path::new("/spool"), epoch, config).unwrap();
        row(&mut spool);
        begin(&disk);
        let mut stored = 1;
        for _ in 0..15 {
            spool.choose_tier(Lane::Samples).unwrap();
            // As the row writer does: a second attempt, after it chose again.
            let seq = spool.stats().lanes[SAMPLES].next_seq;
            let payload = format!("{seq:>100}");
            let tried = spool.append(Lane::Samples, 1, payload.as_bytes(), true).or_else(|error| {
                assert!(error.is_full(), "{error}");
                spool.choose_tier(Lane::Samples).unwrap();
                spool.append(Lane::Samples, 1, payload.as_bytes(), true)
            });
            assert_eq!(tried.unwrap(), seq, "{operation}");
            stored += 1;
        }
        assert!(spool.stats().volatile);
        assert_eq!(read(&mut spool, 1).len(), stored);
        spool.sync_due(Duration::from_secs(10)).ok();
        row(&mut spool);
        assert!(spool.stats().volatile, "not with every row");
        spool.sync_due(Duration::from_secs(100)).ok();
        row(&mut spool);
        assert!(spool.stats().volatile, "still no room");
        disk.heal();
        disk.set_capacity(u64::MAX);
        spool.sync_due(Duration::from_secs(200)).unwrap();
        row(&mut spool);
        assert!(!spool.stats().volatile);
        assert_eq!(read(&mut spool, 1).len(), stored + 3);
    }
}

// Cases: S11, S15
#[test]
fn memory_is_bounded_and_the_oldest_rows_go_first() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    leave(&disk, 2_000);
    for _ in 0..200 {
        row(&mut spool);
        assert!(spool.disk.volatile_bytes() <= spool.volatile_bytes_max() + 200);
    }
    let left = read(&mut spool, 1);
    assert_eq!(*left.last().unwrap(), 200);
    let told: Vec<u64> = spool.take_gaps().iter().flat_map(|gap| gap.first..=gap.last).collect();
    assert_eq!([told, left].concat(), (1..=200).collect::<Vec<_>>(), "what is not here was told");
}

// Cases: S13
#[test]
fn a_spool_in_memory_has_an_epoch_of_its_own_and_a_bound() {
    let (mut one, two) = (Spool::in_memory(config()).unwrap(), Spool::in_memory(config()).unwrap());
    assert_ne!(one.epoch(), two.epoch());
    for _ in 0..500 {
        row(&mut one);
    }
    one.append(Lane::Outcomes, 1, b"job", true).unwrap();
    let stats = one.stats();
    assert!(stats.bytes <= config().max_bytes && stats.lanes[SAMPLES].evicted > 0, "{stats:?}");
    one.prove().unwrap();
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    spool.prove().unwrap();
    for (kind, proves) in [(ErrorKind::StorageFull, true), (ErrorKind::Other, false)] {
        disk.fail(Fault { operation: Some(Operation::SyncData), after: 0, kind, stays: true });
        assert_eq!(spool.prove().is_ok(), proves, "{kind}");
        disk.heal();
    }
}
