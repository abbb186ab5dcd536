//! Checkpoints over a disk in memory.

use tocsin_shared::disk::MemoryDisk;
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
