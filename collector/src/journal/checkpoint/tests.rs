//! Checkpoints over a disk in memory.

use tocsin_shared::disk::{MemoryDisk, RecordingDisk};
use uuid::Uuid;

use super::*;
use crate::state::testing::{alert, run};

fn state(last_seq: u64) -> State {
    let runs = (0..200u128).map(|n| {
        let mut run = run(Uuid::from_u128(n), n as i64);
        (run.job_name, run.output_tail) = (format!("job-{n}"), "x".repeat(64 * 1024));
        Subject::Run(run)
    });
    State::restore(last_seq, 7, runs.chain([Subject::Alert(alert("k"))]))
}

#[test]
fn the_newest_whole_checkpoint_counts_and_two_are_kept() {
    let (disk, dir) = (MemoryDisk::new(), Path::new("/c"));
    for last_seq in [10, 20, 30] {
        write(&disk, dir, &state(last_seq)).unwrap();
    }
    assert_eq!(disk.paths().len(), 2);
    let (found, problems) = read(&disk, dir).unwrap();
    assert_eq!((found, problems), (state(30), vec![]), "also one of many frames");
    let newest = dir.join(format!("checkpoint-{:020}", 30));
    let whole = disk.content(&newest).unwrap();
    for damage in
        [whole[..whole.len() - 1].to_vec(), Vec::new(), [&whole[..99], b"!", &whole[100..]].concat()]
    {
        disk.set_content(&newest, damage);
        let (found, problems) = read(&disk, dir).unwrap();
        assert_eq!((found.last_seq(), problems.len()), (20, 1));
    }
}

/// A state that differs from those of other numbers in more than its number.
fn small(last_seq: u64) -> State {
    State::restore(last_seq, 7, [Subject::Alert(alert(&format!("key-{last_seq}")))])
}

// Cases: C1, C2, C18, C19
#[test]
fn after_any_power_cut_the_newest_confirmed_checkpoint_or_a_newer_one_counts() {
    let (disk, dir) = (RecordingDisk::default(), Path::new("/c"));
    let mut confirmed = vec![(0, 0)];
    for last_seq in 1..=4 {
        write(&disk, dir, &small(last_seq)).unwrap();
        confirmed.push((disk.position(), last_seq));
    }
    let mut cuts = 0;
    for cut in disk.history().power_cuts() {
        let (found, problems) = read(&cut.disk, dir).unwrap();
        let (_, expected) = *confirmed.iter().rev().find(|(at, _)| *at <= cut.after).unwrap();
        let last_seq = found.last_seq();
        assert!(last_seq == expected || last_seq == expected + 1, "{cut}: {last_seq}, not {expected}");
        assert!(found == if last_seq == 0 { State::default() } else { small(last_seq) }, "{cut}");
        assert_eq!(problems, [""; 0], "{cut}");
        // The same event's checkpoint can be written again, whatever the cut left of it.
        write(&cut.disk, dir, &small(last_seq + 1)).unwrap();
        assert_eq!(read(&cut.disk, dir).unwrap().0, small(last_seq + 1), "{cut}");
        cuts += 1;
    }
    assert!(cuts > 60, "the history is too poor to prove anything: {cuts}");
}

// Cases: C8
#[test]
fn after_any_failing_call_an_older_checkpoint_counts() {
    use tocsin_shared::disk::Fault;
    for after in 0.. {
        let (disk, dir) = (RecordingDisk::default(), Path::new("/c"));
        disk.memory().fail(Fault { operation: None, after, kind: std::io::ErrorKind::Other, stays: false });
        let mut confirmed = 0;
        for last_seq in 1..=4 {
            if write(&disk, dir, &small(last_seq)).is_ok() {
                confirmed = last_seq;
            }
        }
        if disk.memory().calls() <= after {
            assert!(after > 15, "{after} calls are too few");
            break; // Nothing had failed.
        }
        for cut in disk.history().power_cuts_at(disk.position()) {
            let found = read(&cut.disk, dir).unwrap().0.last_seq();
            assert!(found >= confirmed, "call {after} fails; {cut}: {found}, not {confirmed}");
        }
    }
}

// Cases: C5, S3, S4
#[test]
fn any_damage_sets_a_checkpoint_aside_or_changes_nothing() {
    let (disk, dir) = (MemoryDisk::new(), Path::new("/c"));
    for last_seq in [1, 2] {
        write(&disk, dir, &small(last_seq)).unwrap();
    }
    let newest = dir.join(format!("checkpoint-{:020}", 2));
    let whole = disk.content(&newest).unwrap();
    let flipped = (0..whole.len() * 8).map(|bit| {
        let mut content = whole.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        content
    });
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    for damaged in flipped.chain(cut) {
        disk.set_content(&newest, damaged);
        let (found, problems) = read(&disk, dir).unwrap();
        assert_eq!((found, problems.len()), (small(1), 1));
    }
}
