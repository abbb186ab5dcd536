//! A log whose files someone or something has damaged: every bit, every length, every kind of file in its place.

use std::os::unix::fs::symlink;

use super::*;
use crate::disk::Disk;

/// Where the frame of each record of a segment ends.
fn frame_ends(segment: &SegmentInfo) -> Vec<(u64, usize)> {
    let mut end = segment::header_bytes(FORMAT) as usize;
    let frame = |seq| {
        end += HEADER_BYTES + payload(seq).len();
        (seq, end)
    };
    (segment.first_seq..=segment.last_seq).map(frame).collect()
}

// Cases: S4, S5
#[test]
fn any_flipped_bit_costs_exactly_its_record() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    fill(&mut log, 12);
    let segments = log.segments();
    assert!(segments.len() > 1);
    for segment in segments {
        let clean = disk.content(&segment.path).unwrap();
        let ends = frame_ends(&segment);
        for bit in 0..clean.len() * 8 {
            let mut content = clean.clone();
            content[bit / 8] ^= 1 << (bit % 8);
            disk.set_content(&segment.path, content);
            let in_header = bit / 8 < segment::header_bytes(FORMAT) as usize;
            let hit = ends.iter().find(|(_, end)| !in_header && bit / 8 < *end).map(|(seq, _)| *seq);
            let (log, recovery) = open(&disk).unwrap();
            let expected: Vec<u64> = (1..=12).filter(|seq| Some(*seq) != hit).collect();
            assert_eq!(read(&log), expected, "{} bit {bit}", segment.path.display());
            let reported: Vec<u64> = lost(&recovery).into_iter().filter(|seq| *seq <= 12).collect();
            assert_eq!(reported, hit.into_iter().collect::<Vec<_>>(), "bit {bit}");
            assert!(log.next_seq() > 12, "bit {bit}: a used number would be given again");
        }
        disk.set_content(&segment.path, clean);
    }
}

// Cases: S3, S6
#[test]
fn any_length_that_is_left_costs_exactly_what_is_cut_off() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    fill(&mut log, 12);
    let segments = log.segments();
    for (at, segment) in segments.iter().enumerate() {
        let newest = at + 1 == segments.len();
        for length in 0..segment.bytes as usize {
            let what = format!("{} cut to {length}", segment.path.display());
            let disk = copy(&disk);
            disk.set_content(&segment.path, disk.content(&segment.path).unwrap()[..length].to_vec());
            let (gone, kept): (Vec<u64>, Vec<u64>) = (1..=12)
                .partition(|seq| frame_ends(segment).iter().any(|(ours, end)| ours == seq && *end > length));
            let (mut log, recovery) = open(&disk).unwrap();
            assert_eq!(read(&log), kept, "{what}");
            let told = lost(&recovery);
            assert!(told.is_disjoint(&kept.iter().copied().collect()), "{what}: {recovery:?}");
            // Of the end of all nobody can say how much was there, only that what began is lost.
            let begun = gone.len().min(if newest { usize::from(recovery.torn_bytes > 0) } else { 99 });
            assert!(gone[..begun].iter().all(|seq| told.contains(seq)), "{what}: {recovery:?}");
            assert!(recovery.lost.iter().all(|lost| lost.torn == newest), "{what}: {recovery:?}");
            let next = log.next_seq();
            assert!(newest || (recovery.torn_bytes, next) == (0, 13), "{what}: {recovery:?}");
            fill(&mut log, next);
            assert_eq!(read(&open(&disk).unwrap().0), [kept, vec![next]].concat(), "{what}");
        }
    }
}

/// A disk of its own with the same files.
fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    copy.create_dir(&dir()).unwrap();
    for path in disk.paths() {
        copy.set_content(&path, disk.content(&path).unwrap());
    }
    copy
}

#[test]
fn as_many_numbers_are_skipped_as_a_damaged_tail_may_have_used() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    fill(&mut log, 5);
    let last = log.segments().pop().unwrap();
    let mut content = disk.content(&last.path).unwrap();
    let tail: usize = (4..=5).map(|seq| HEADER_BYTES + payload(seq).len()).sum();
    let start = content.len() - tail;
    content[start..].fill(0);
    disk.set_content(&last.path, content);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(read(&log), [1, 2, 3]);
    assert!(recovery.next_seq > 5, "4 and 5 were used: {recovery:?}");
}

// Cases: S6
#[test]
fn missing_and_foreign_files_are_told() {
    let disk = MemoryDisk::new();
    let (mut log, _) = open(&disk).unwrap();
    fill(&mut log, 30);
    let gone = log.segments().remove(2);
    drop(log);
    disk.remove(&gone.path).unwrap();
    disk.create_dir(&dir().join("00000000000000000099.seg")).unwrap();
    for name in ["note.txt", "1.seg", "99999999999999999999.seg", "+0000000000000000001.seg"] {
        disk.set_content(&dir().join(name), b"mine".to_vec());
    }
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(
        recovery.lost,
        [
            Lost { first: gone.first_seq, last: gone.last_seq, torn: false },
            Lost { first: 31, last: 99, torn: false },
        ],
        "up to what has a segment's name numbers may have been used"
    );
    assert_eq!(recovery.foreign.len(), 5, "{:?}", recovery.foreign);
    assert_eq!(
        read(&log),
        (1..=30).filter(|s| !(gone.first_seq..=gone.last_seq).contains(s)).collect::<Vec<_>>()
    );
    assert_eq!(disk.content(&dir().join("note.txt")).unwrap(), b"mine");
}

// Cases: S6
#[test]
fn whatever_stands_in_the_place_of_a_segment_stays_and_the_log_goes_on() {
    enum Intruder {
        Directory,
        Link,
        Empty,
    }
    for (at, intruder) in [0, 1, 2].into_iter().flat_map(|at| {
        [Intruder::Directory, Intruder::Link, Intruder::Empty].into_iter().map(move |what| (at, what))
    }) {
        let home = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let open = || Log::open(disk.clone(), &home.path().join("log"), FORMAT, SMALL).unwrap();
        let (mut log, _) = open();
        fill(&mut log, 12);
        let segments = log.segments();
        let victim = &segments[at * (segments.len() - 1) / 2];
        let elsewhere = home.path().join("elsewhere");
        std::fs::rename(&victim.path, &elsewhere).unwrap();
        let whole = std::fs::read(&elsewhere).unwrap();
        match intruder {
            Intruder::Directory => std::fs::create_dir(&victim.path).unwrap(),
            Intruder::Link => symlink(&elsewhere, &victim.path).unwrap(),
            Intruder::Empty => drop(std::fs::File::create(&victim.path).unwrap()),
        }
        let (mut log, recovery) = open();
        let foreign = Vec::from_iter((!matches!(intruder, Intruder::Empty)).then_some(victim.path.clone()));
        assert_eq!(recovery.foreign, foreign);
        if at == 1 {
            assert_eq!(lost(&recovery), (victim.first_seq..=victim.last_seq).collect());
        }
        let kept: Vec<u64> =
            (1..=12).filter(|seq| !(victim.first_seq..=victim.last_seq).contains(seq)).collect();
        assert_eq!(read(&log), kept);
        let next = log.next_seq();
        fill(&mut log, next + 5);
        let kept = [kept, (next..=next + 5).collect()].concat();
        assert_eq!(read(&open().0), kept, "it goes on");
        assert_eq!(std::fs::read(&elsewhere).unwrap(), whole, "a link is not followed");
        assert!(victim.path.symlink_metadata().is_ok(), "nothing is removed");
    }
}
