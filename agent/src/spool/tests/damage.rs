//! A spool whose files someone or something has damaged: what is whole is sent, what is not is told, no file is lost.

use std::os::unix::fs::symlink;

use super::*;

/// A disk of its own with the same files.
fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    for lane in Lane::ALL {
        copy.create_dir(&dir().join(lane.as_str())).unwrap();
    }
    for path in disk.paths() {
        copy.set_content(&path, disk.content(&path).unwrap());
    }
    copy
}

/// Nine samples in two segments.
fn two_segments() -> (MemoryDisk, Vec<log::SegmentInfo>) {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Samples, 9);
    spool.sync().unwrap();
    let segments = spool.lane(Lane::Samples).log.segments();
    assert_eq!(segments.len(), 2);
    (disk, segments)
}

// Cases: S3, S4, S5
#[test]
fn any_flipped_bit_and_any_length_costs_what_is_damaged_and_tells_it() {
    let (disk, segments) = two_segments();
    for segment in &segments {
        let whole = disk.content(&segment.path).unwrap();
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte % 8);
            for (content, lost_max) in [(flipped, 1), (whole[..byte].to_vec(), 9)] {
                let what = format!("{} byte {byte}, {} bytes", segment.path.display(), content.len());
                let disk = copy(&disk);
                disk.set_content(&segment.path, content);
                let mut spool = open(&disk);
                let present: BTreeSet<u64> = read(&mut spool, Lane::Samples, 1).into_iter().collect();
                let gaps = spool.take_gaps();
                let told: BTreeSet<u64> = gaps.iter().flat_map(|gap| gap.first..=gap.last).collect();
                assert!(present.is_disjoint(&told), "{what}: {gaps:?}");
                let lost = 9 - present.len();
                assert!(lost <= lost_max, "{what}: {lost} are lost");
                let next = spool.lane(Lane::Samples).log.next_seq();
                let known: BTreeSet<u64> = present.union(&told).copied().collect();
                assert_eq!(known, (1..next).collect(), "{what}: {gaps:?}");
                let reasons = [Reason::Corrupt, Reason::Torn];
                assert!(gaps.iter().all(|gap| gap.lane == Lane::Samples && reasons.contains(&gap.reason)));
                fill(&mut spool, Lane::Samples, 1);
                spool.sync().unwrap();
                assert_eq!(read(&mut open(&disk), Lane::Samples, 1).len(), present.len() + 1, "{what}");
            }
        }
    }
}

// Cases: S7
#[test]
fn a_ledger_that_is_lost_stale_damaged_or_ahead_loses_no_record() {
    let disk = MemoryDisk::new();
    let mut spool = open(&disk);
    fill(&mut spool, Lane::Outcomes, 9);
    let path = dir().join("ledger");
    let mut versions = Vec::new();
    for to in [2, 4, 6] {
        spool.acknowledge(Lane::Outcomes, &Ranges::up_to(to)).unwrap();
        spool.sync().unwrap();
        versions.push(disk.content(&path).unwrap());
    }
    drop(spool);
    let newest = versions[2].clone();
    // Each used byte of both slots in turn, and each way to lose the whole file.
    let used = (0..newest.len()).filter(|at| newest[*at] != 0);
    let flipped = used.map(|at| {
        let mut content = newest.clone();
        content[at] ^= 1 << (at % 8);
        content
    });
    let others =
        [Vec::new(), b"rubbish".to_vec(), vec![0; newest.len()], versions[0].clone(), versions[1].clone()];
    for content in flipped.chain(others) {
        let disk = copy(&disk);
        disk.set_content(&path, content);
        let mut spool = open(&disk);
        let present = read(&mut spool, Lane::Outcomes, 1);
        // Six are acknowledged; a segment that was dropped for that is not there to be sent again.
        let first = spool.lane(Lane::Outcomes).log.segments()[0].first_seq;
        assert!(present.ends_with(&[7, 8, 9]) && present[0] >= first, "{present:?}");
        assert!(spool.acked(Lane::Outcomes).floor() <= 6);
        let told = seqs(&spool.take_gaps(), Lane::Outcomes, Reason::Corrupt);
        assert!(told.iter().all(|seq| *seq < first), "{told:?}");
        assert_eq!(spool.append(Lane::Outcomes, 1, &payload(10), true).unwrap(), 10);
    }
    // Records that are older than what is acknowledged: the numbers up to there are not used again.
    let ahead = copy(&disk);
    for path in ahead.paths().iter().filter(|path| path.starts_with(dir().join("outcomes"))) {
        ahead.remove(path).unwrap();
    }
    let mut spool = open(&ahead);
    assert_eq!((read(&mut spool, Lane::Outcomes, 1), spool.take_gaps()), (vec![], vec![]));
    assert_eq!(spool.append(Lane::Outcomes, 1, &payload(7), true).unwrap(), 7);
}

// Cases: S6
#[test]
fn foreign_files_stay_and_are_reported_and_links_are_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("spool");
    let open = || Spool::open_on(Arc::new(RealDisk), &dir, Epoch(Uuid::nil()), config()).unwrap();
    let mut spool = open();
    fill(&mut spool, Lane::Samples, 30);
    spool.sync().unwrap();
    let segments = spool.lane(Lane::Samples).log.segments();
    drop(spool);
    let elsewhere = home.path().join("elsewhere");
    std::fs::rename(&segments[1].path, &elsewhere).unwrap();
    symlink(&elsewhere, &segments[1].path).unwrap();
    std::fs::remove_file(&segments[2].path).unwrap();
    std::fs::create_dir(&segments[2].path).unwrap();
    let whole = std::fs::read(&elsewhere).unwrap();
    std::fs::write(dir.join("samples/note.txt"), "mine").unwrap();
    let mut spool = open();
    let lost: BTreeSet<u64> = (segments[1].first_seq..=segments[2].last_seq).collect();
    let present: BTreeSet<u64> = read(&mut spool, Lane::Samples, 1).into_iter().collect();
    assert_eq!(present, (1..=30).filter(|seq| !lost.contains(seq)).collect());
    assert_eq!(seqs(&spool.take_gaps(), Lane::Samples, Reason::Corrupt), lost);
    assert_eq!(spool.stats().foreign.len(), 3, "{:?}", spool.stats().foreign);
    spool.acknowledge(Lane::Samples, &Ranges::up_to(30)).unwrap();
    spool.sync().unwrap();
    assert_eq!(std::fs::read(&elsewhere).unwrap(), whole);
    assert!(segments[1].path.is_symlink() && segments[2].path.is_dir());
    assert_eq!(std::fs::read_to_string(dir.join("samples/note.txt")).unwrap(), "mine");
}
