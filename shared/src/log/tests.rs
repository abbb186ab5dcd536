//! The log on a disk that crashes, fills up, fails and rots.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::disk::{Crash, Fault, MemoryDisk, Operation, RealDisk};

mod damage;
mod power_cuts;

const FORMAT: Format = Format { name: "test", version: 2 };
const SMALL: Config = Config { segment_bytes: 300, scan_all: true };

fn dir() -> PathBuf {
    PathBuf::from("/data/log")
}

fn open(disk: &MemoryDisk) -> Result<(Log, Recovery), LogError> {
    Log::open(Arc::new(disk.clone()), &dir(), FORMAT, SMALL)
}

fn payload(seq: u64) -> Vec<u8> {
    format!("record {seq} ").repeat(1 + seq as usize % 4).into_bytes()
}

/// Appends records up to `last`, with one sync at the end, and checks their numbers.
fn fill(log: &mut Log, last: u64) {
    for seq in log.next_seq()..=last {
        assert_eq!(log.append(1, &payload(seq)).unwrap(), seq);
    }
    log.sync().unwrap();
}

/// The numbers of the records that can be read, each of which must be what was written under it.
fn read(log: &Log) -> Vec<u64> {
    let (mut reader, mut seqs) = (log.reader(), Vec::new());
    while let Some(entry) = reader.next().unwrap() {
        if entry.numbered {
            assert_eq!(entry.payload, payload(entry.seq), "record {}", entry.seq);
            seqs.push(entry.seq);
        }
    }
    seqs
}

fn lost(recovery: &Recovery) -> BTreeSet<u64> {
    recovery.lost.iter().flat_map(|lost| lost.first..=lost.last).collect()
}

#[test]
fn skipped_numbers_stay_skipped() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    fill(&mut log, 2);
    log.skip_to(10).unwrap();
    log.skip_to(5).unwrap();
    assert_eq!((log.next_seq(), log.durable_seq()), (10, 9));
    fill(&mut log, 11);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(
        (read(&log), recovery.lost),
        (vec![1, 2, 10, 11], vec![Lost { first: 3, last: 9, torn: false }])
    );
}

// Cases: S21, C18
#[test]
fn a_newer_or_another_format_is_refused_and_untouched() {
    for (format, newer) in
        [(Format { name: "test", version: 3 }, true), (Format { name: "other", version: 1 }, false)]
    {
        let disk = MemoryDisk::new();
        let (mut log, _) = Log::open(Arc::new(disk.clone()), &dir(), format, SMALL).unwrap();
        log.append(1, b"record").unwrap();
        log.sync().unwrap();
        let path = log.segments()[0].path.clone();
        let mut content = disk.content(&path).unwrap();
        content.extend_from_slice(b"torn"); // Would be cut off, were it ours.
        disk.set_content(&path, content.clone());
        let calls = disk.calls();
        match open(&disk).err().unwrap() {
            LogError::Newer { found: 3, known: 2, .. } if newer => {}
            LogError::OtherFormat { .. } if !newer => {}
            error => panic!("{error}"),
        }
        assert_eq!((disk.content(&path).unwrap(), disk.calls()), (content, calls));
    }
    let disk = MemoryDisk::new();
    let older = Format { name: "test", version: 1 };
    let (mut log, _) = Log::open(Arc::new(disk.clone()), &dir(), older, SMALL).unwrap();
    fill(&mut log, 3);
    assert_eq!(read(&open(&disk).unwrap().0), [1, 2, 3], "an older version is read");
}

// Cases: S10
#[test]
fn a_full_disk_leaves_no_partial_frame_and_the_records_wait() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    fill(&mut log, 3);
    let used = disk.used();
    disk.set_capacity(used + 20);
    let seq = log.append(1, &payload(4)).unwrap();
    assert!(log.sync().unwrap_err().is_full());
    assert_eq!((disk.used(), log.durable_seq(), read(&log)), (used, 3, vec![1, 2, 3]));
    disk.set_capacity(u64::MAX);
    assert_eq!(log.sync().unwrap(), seq, "the same call succeeds once there is room");

    disk.set_capacity(disk.used() + 20);
    log.append(1, &payload(5)).unwrap();
    assert!(log.sync().is_err());
    assert_eq!(log.discard(), 1);
    disk.set_capacity(u64::MAX);
    fill(&mut log, 9);
    assert_eq!(
        read(&open(&disk).unwrap().0),
        (1..=9).collect::<Vec<_>>(),
        "discarded numbers are given again"
    );
}

// Cases: S13, C8
#[test]
fn a_failed_fsync_is_final_until_revived() {
    for (operation, records_before) in
        [(Operation::SyncData, 0), (Operation::SyncData, 2), (Operation::SyncDir, 0)]
    {
        let disk = MemoryDisk::new();
        let (mut log, _) = open(&disk).unwrap();
        fill(&mut log, records_before);
        let mut reader = log.reader();
        for seq in 1..=records_before {
            assert_eq!(reader.next().unwrap().unwrap().seq, seq);
        }
        log.append_unnumbered(9, b"table").unwrap();
        let seq = log.append(1, &payload(records_before + 1)).unwrap();
        disk.fail(Fault { operation: Some(operation), after: 0, kind: ErrorKind::Other, stays: false });
        assert!(matches!(log.sync(), Err(LogError::Io { .. })));
        for _ in 0..2 {
            assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })), "fsync must not be tried again");
            assert!(matches!(log.append(1, b"x"), Err(LogError::Poisoned { .. })));
        }
        assert_eq!(reader.next().unwrap(), None, "nothing suspect is read");
        disk.fail(Fault {
            operation: Some(Operation::Create),
            after: 0,
            kind: ErrorKind::Other,
            stays: false,
        });
        assert!(log.revive().is_err());
        assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })), "a failed revival changes nothing");
        assert_eq!(log.revive().unwrap(), seq);
        fill(&mut log, seq + 3);
        let table = reader.next().unwrap().unwrap();
        assert_eq!((table.seq, table.numbered, table.payload), (seq, false, b"table".to_vec()));
        assert_eq!(reader.next().unwrap().unwrap().seq, seq, "the reader goes on");
        disk.crash(Crash::Dropped);
        let (log, recovery) = open(&disk).unwrap();
        assert_eq!((read(&log), recovery.lost), ((1..=seq + 3).collect::<Vec<_>>(), vec![]), "{operation:?}");
    }
}

#[test]
fn segments_begin_with_the_frames_their_owner_gives_them() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    for seq in 1..=20 {
        if log.will_roll(payload(seq).len()) {
            log.roll().unwrap();
        }
        if log.starts_segment() {
            log.append_unnumbered(9, b"table").unwrap();
            assert!(!log.starts_segment());
        }
        log.append(1, &payload(seq)).unwrap();
    }
    log.roll().unwrap();
    assert!(log.starts_segment());
    log.roll().unwrap();
    for segment in log.segments() {
        let mut reader = log.reader();
        reader.seek(segment.last_seq).unwrap();
        let table = reader.next().unwrap().unwrap();
        assert_eq!((table.seq, table.numbered, table.kind), (segment.first_seq, false, 9));
        let record = reader.next().unwrap().unwrap();
        assert_eq!((record.seq, record.numbered, record.kind), (segment.last_seq, true, 1));
    }
    let (log, _) = open(&disk).unwrap();
    assert_eq!(read(&log).len(), 20);
}

#[test]
fn readers_follow_rolls_and_are_told_of_drops() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    let (mut early, mut late) = (log.reader(), log.reader());
    assert_eq!(early.next().unwrap(), None, "an empty log");
    for seq in 1..=30 {
        log.append(1, &payload(seq)).unwrap();
        assert_eq!(late.next().unwrap(), None, "not durable yet: {seq}");
        log.sync().unwrap();
        assert_eq!(late.next().unwrap().unwrap().seq, seq);
    }
    assert_eq!(early.next().unwrap().unwrap().seq, 1);
    let bytes = log.bytes();
    let freed = log.drop_segments_before(u64::MAX).unwrap();
    let kept = log.segments();
    assert_eq!((kept.len(), log.bytes()), (1, bytes - freed), "the newest segment stays");
    let first = kept[0].first_seq;
    assert!(matches!(early.next(), Err(LogError::Gone { first_seq }) if first_seq == first));
    assert!(matches!(early.seek(1), Err(LogError::Gone { first_seq }) if first_seq == first));
    early.seek(first).unwrap();
    assert_eq!(early.next().unwrap().unwrap().seq, first);
    fill(&mut log, 31);
    assert_eq!(late.next().unwrap().unwrap().seq, 31, "who had read everything misses nothing");
    assert_eq!(open(&disk).unwrap().0.next_seq(), 32);
}

#[test]
fn a_reader_at_the_end_of_a_dropped_segment_goes_on() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    fill(&mut log, 3);
    let mut reader = log.reader();
    while reader.next().unwrap().is_some() {}
    log.roll().unwrap();
    fill(&mut log, 5);
    log.drop_segments_before(4).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().seq, 4);
}

#[test]
fn too_large_records_are_refused_and_the_largest_fits() {
    let home = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Arc::new(RealDisk), home.path(), FORMAT, SMALL).unwrap();
    assert!(matches!(log.append(1, &vec![0; FRAME_MAX + 1]), Err(LogError::TooLarge { .. })));
    for _ in 0..3 {
        log.append(1, &vec![7; FRAME_MAX]).unwrap();
    }
    log.sync().unwrap();
    let mut reader = log.reader();
    for seq in 1..=3 {
        let entry = reader.next().unwrap().unwrap();
        assert_eq!((entry.seq, entry.payload.len()), (seq, FRAME_MAX));
    }
}

#[test]
fn readers_work_in_other_threads() {
    let home = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Arc::new(RealDisk), home.path(), FORMAT, SMALL).unwrap();
    let mut reader = log.reader();
    let reading = std::thread::spawn(move || {
        let mut next = 1;
        while next <= 200 {
            match reader.next().unwrap() {
                Some(entry) => {
                    assert_eq!((entry.seq, entry.payload), (next, payload(next)));
                    next += 1;
                }
                None => std::thread::yield_now(),
            }
        }
    });
    for seq in 1..=200 {
        log.append(1, &payload(seq)).unwrap();
        if seq % 7 == 0 || seq == 200 {
            log.sync().unwrap();
        }
    }
    reading.join().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Append,
    Sync,
    Roll,
    Drop(u64),
    Restart,
    Cut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => Just(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::Roll),
        1 => (1u64..60).prop_map(Step::Drop),
        1 => Just(Step::Restart),
        1 => any::<u64>().prop_map(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_durable_stays_and_no_number_is_used_twice(steps in prop::collection::vec(step(), 1..120)) {
        let disk = MemoryDisk::new();
        let (mut log, _) = open(&disk).unwrap();
        let (mut durable, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Append => {
                    let seq = log.next_seq();
                    prop_assert!(!durable.contains(&seq));
                    waiting.insert(log.append(1, &payload(seq)).unwrap());
                    durable.extend(waiting.extract_if(.., |seq| *seq <= log.durable_seq()));
                }
                Step::Sync => {
                    log.sync().unwrap();
                    durable.append(&mut waiting);
                }
                Step::Roll => {
                    log.roll().unwrap();
                    durable.append(&mut waiting);
                }
                Step::Drop(before) => {
                    log.drop_segments_before(before).unwrap();
                    let first = log.segments().first().map_or(1, |first| first.first_seq);
                    prop_assert!(durable.iter().all(|seq| *seq >= first || *seq < before));
                    durable.retain(|seq| *seq >= first);
                }
                Step::Restart | Step::Cut(_) => {
                    if let Step::Cut(seed) = step {
                        disk.crash(Crash::Torn(seed));
                    }
                    waiting.clear();
                    log = open(&disk).unwrap().0;
                }
            }
        }
        let seqs: BTreeSet<u64> = read(&log).into_iter().collect();
        prop_assert!(seqs.is_superset(&durable), "{:?} lost", durable.difference(&seqs).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_at_all_can_be_opened(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
        let disk = MemoryDisk::new();
        disk.create_dir(&dir()).unwrap();
        disk.set_content(&segment::path(&dir(), 1), noise);
        let (mut log, _) = open(&disk).unwrap();
        let last = log.next_seq() + 3;
        fill(&mut log, last);
        prop_assert_eq!(read(&log), (last - 3..=last).collect::<Vec<_>>());
    }
}

#[test]
fn names_are_strict() {
    for (name, seq) in [
        ("00000000000000000001.seg", Some(1)),
        ("00000000000000000000.seg", None),
        ("00000000000000000001.seg.new", None),
        ("0000000000000000001.seg", None),
        ("+0000000000000000001.seg", None),
        ("18446744073709551615.seg", None),
    ] {
        assert_eq!(segment::first_seq(name), seq, "{name}");
    }
    assert_eq!(segment::path(Path::new("d"), 7), Path::new("d/00000000000000000007.seg"));
}
