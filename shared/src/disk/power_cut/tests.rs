//! The states of small histories, each written down by hand.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::disk::{Disk, Fault, Operation, RecordingDisk, replace};

/// Every state of a history: after which step, and what each file then holds; `.` is a zero.
fn states(disk: &RecordingDisk) -> BTreeSet<(usize, String)> {
    let shown = |cut: PowerCut| {
        let file = |path: &std::path::PathBuf| {
            let content = cut.disk.content(path).unwrap();
            let text = String::from_utf8(content).unwrap().replace('\0', ".");
            format!("{}={text}", path.file_name().unwrap().to_string_lossy())
        };
        (cut.after, cut.disk.paths().iter().map(file).collect::<Vec<_>>().join(" "))
    };
    let cuts: Vec<_> = disk.history().power_cuts().map(shown).collect();
    let states: BTreeSet<_> = cuts.iter().cloned().collect();
    assert_eq!(cuts.len(), states.len(), "a state is shown once");
    states
}

fn at(states: &BTreeSet<(usize, String)>, after: usize) -> Vec<&str> {
    states.iter().filter(|(at, _)| *at == after).map(|(_, shown)| shown.as_str()).collect()
}

/// A directory with a durable file `a=12`.
fn disk() -> RecordingDisk {
    let disk = RecordingDisk::default();
    disk.create_dir(Path::new("/d")).unwrap();
    let mut file = disk.create(Path::new("/d/a")).unwrap();
    file.write_at(0, b"12").unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    RecordingDisk::on(disk.memory().clone())
}

#[test]
fn a_write_is_kept_dropped_or_torn_until_it_is_synced() {
    let disk = disk();
    let mut file = disk.open(Path::new("/d/a")).unwrap();
    file.write_at(1, b"xyz").unwrap();
    file.sync_data().unwrap();
    let states = states(&disk);
    assert_eq!(at(&states, 0), ["a=12"]);
    assert_eq!(at(&states, 1), ["a=12", "a=12..", "a=1x", "a=1xy", "a=1xyz"]);
    assert_eq!(at(&states, 2), ["a=1xyz"]);
}

#[test]
fn changes_decide_for_themselves_in_any_combination() {
    let disk = disk();
    let mut file = disk.open(Path::new("/d/a")).unwrap();
    file.write_at(2, b"3").unwrap();
    file.write_at(3, b"4").unwrap();
    file.truncate(1).unwrap();
    let states = states(&disk);
    let of_writes = ["a=12", "a=12.", "a=12..", "a=12.4", "a=123", "a=123.", "a=1234"];
    assert_eq!(at(&states, 2), of_writes);
    assert_eq!(at(&states, 3), [&["a=1"], &of_writes[..]].concat(), "the file may be cut before or after");
}

#[test]
fn names_are_there_or_not_until_their_directory_is_synced() {
    let disk = disk();
    let mut file = disk.create(Path::new("/d/b")).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    disk.remove(Path::new("/d/a")).unwrap();
    let unsynced = states(&disk);
    assert_eq!(at(&unsynced, 1), ["a=12", "a=12 b="]);
    assert_eq!(at(&unsynced, 2), ["a=12", "a=12 b=", "a=12 b=.", "a=12 b=x"]);
    assert_eq!(at(&unsynced, 3), ["a=12", "a=12 b=x"], "content is durable, the name is not");
    assert_eq!(at(&unsynced, 4), ["", "a=12", "a=12 b=x", "b=x"]);
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(at(&states(&disk), 5), ["b=x"]);
    disk.sync_dir(Path::new("/elsewhere")).unwrap();
    disk.remove(Path::new("/d/b")).unwrap();
    disk.sync_dir(Path::new("/elsewhere")).unwrap();
    assert_eq!(at(&states(&disk), 8), ["", "b=x"], "another directory's sync says nothing");
}

#[test]
fn a_replaced_file_is_the_old_one_or_the_new_one() {
    let disk = disk();
    replace(&disk, Path::new("/d/a"), b"new").unwrap();
    let end = disk.position();
    let states = states(&disk);
    let of_a = |shown: &str| shown.split(' ').find_map(|file| file.strip_prefix("a=")).map(str::to_owned);
    let seen: BTreeSet<_> = states.iter().map(|(_, shown)| of_a(shown)).collect();
    assert_eq!(seen, BTreeSet::from([Some("12".into()), Some("new".into())]));
    assert_eq!(at(&states, end - 1), ["a=12", "a=12 a.new=new", "a=new"], "renamed, and not durable");
    assert_eq!(at(&states, end), ["a=new"]);
}

#[test]
fn what_a_failed_sync_was_to_keep_is_never_safe_again() {
    let disk = disk();
    let mut file = disk.open(Path::new("/d/a")).unwrap();
    file.write_at(2, b"3").unwrap();
    let operation = Some(Operation::SyncData);
    disk.memory().fail(Fault { operation, after: 0, kind: ErrorKind::Other, stays: false });
    file.sync_data().unwrap_err();
    file.write_at(3, b"4").unwrap();
    file.sync_data().unwrap();
    assert_eq!(at(&states(&disk), disk.position()), ["a=12.4", "a=1234"]);
}

#[test]
fn half_of_a_failed_write_may_be_there() {
    let disk = disk();
    let mut file = disk.open(Path::new("/d/a")).unwrap();
    disk.memory().fail(Fault { operation: None, after: 0, kind: ErrorKind::Other, stays: false });
    file.write_at(2, b"3456").unwrap_err();
    assert_eq!(at(&states(&disk), 1), ["a=12", "a=12..", "a=123", "a=1234"]);
}

#[test]
fn large_writes_are_torn_at_sectors_and_between_frames() {
    let mut frames = Vec::new();
    for seq in 1..=2 {
        crate::frame::encode(0, (seq, 0, crate::frame::Role::Numbered), &[7; 700], &mut frames);
    }
    let second = frames.len() / 2;
    let disk = disk();
    let mut file = disk.open(Path::new("/d/a")).unwrap();
    file.write_at(100, &frames).unwrap();
    let lengths: BTreeSet<usize> = disk
        .history()
        .power_cuts()
        .filter(|cut| cut.after == 1)
        .map(|cut| cut.disk.content(Path::new("/d/a")).unwrap().len())
        .collect();
    assert!([101, 100 + second, 512, 1024, 99 + frames.len()].iter().all(|length| lengths.contains(length)));
    let without_front = disk.history().power_cuts().any(|cut| {
        let content = cut.disk.content(Path::new("/d/a")).unwrap();
        content.len() > 1000 && content[100..512].iter().all(|byte| *byte == 0) && content[600] != 0
    });
    assert!(without_front, "a later sector may be there without an earlier one");
}

#[test]
fn moments_with_too_many_states_show_a_selection() {
    let disk = disk();
    let mut file = disk.open(Path::new("/d/a")).unwrap();
    for at in 0..20 {
        file.write_at(2 + at * 5, b"hello").unwrap();
    }
    let history = disk.history();
    let last: Vec<PowerCut> = history.power_cuts_within(500).filter(|cut| cut.after == 20).collect();
    assert!((300..=500).contains(&last.len()), "{}", last.len());
    let length = |cut: &PowerCut| cut.disk.content(Path::new("/d/a")).unwrap().len();
    assert_eq!((length(&last[0]), length(&last[1])), (102, 2), "all, then nothing");
    assert!(last[1].to_string().starts_with("power cut after 20 steps; /d/a 5 bytes at 2: dropped"));
}

#[test]
fn after_a_kill_everything_is_there_and_the_next_power_cut_takes_what_was_not_synced() {
    let disk = disk();
    let mut file = disk.open(Path::new("/d/a")).unwrap();
    file.write_at(2, b"3").unwrap();
    disk.create(Path::new("/d/b")).unwrap();
    disk.remove(Path::new("/d/a")).unwrap();
    for after in 0..=disk.position() {
        let killed = disk.history().killed(after);
        assert_eq!(killed.position(), after);
        let whole = disk.history().power_cuts().find(|cut| cut.after == after).unwrap();
        assert_eq!(killed.memory().image(), whole.disk.image(), "all is kept");
        killed.sync_dir(Path::new("/elsewhere")).unwrap();
        let left = |disk: &RecordingDisk, after| at(&states(disk), after).join(",");
        assert_eq!(left(&killed, after + 1), left(&disk, after));
    }
}
