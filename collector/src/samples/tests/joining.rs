//! Blocks that become one: nothing that is read changes, whatever happens meanwhile.

use std::cell::Cell;
use std::collections::HashSet;

use tocsin_shared::disk::Disk;

use super::*;

const DAY_MILLIS: i64 = 12 * WINDOW_MILLIS;

fn join(store: &Store) -> Option<BlockEntry> {
    store.join(at(DAY_MILLIS), u64::MAX, &|| true).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    store.blocks().into_iter().map(|block| block.name).collect()
}

/// Two windows of three hosts in three blocks: late rows, some of them known, are in the third.
fn sealed() -> (TempDir, Store) {
    let (dir, store) = new();
    fill(&store);
    store.seal(Window::of(at(0))).unwrap().unwrap();
    let table = table(&["counter", "late"]);
    for row in 0..40 {
        store.append(agent(2), &table, at(row * 7_000), &[-1.0, row as f64]).unwrap();
    }
    store.append(agent(7), &table, at(500), &[7.0, 8.0]).unwrap();
    store.seal(Window::of(at(0))).unwrap().unwrap();
    store.seal(Window::of(at(WINDOW_MILLIS))).unwrap().unwrap();
    (dir, store)
}

#[test]
fn a_joined_day_reads_as_its_blocks_did() {
    let (dir, store) = sealed();
    let spans = [ALL, (at(-1), at(300_000)), (at(7_000_000), at(7_400_000)), (at(7_190_000), at(7_200_000))];
    let before = spans.map(|span| read(&store, span));
    let series =
        |store: &Store| store.view().series(&Wanted { equals: &[], matches: &|_: &Labels| true }, ALL).len();
    let listed = series(&store);
    assert_eq!(store.join(at(DAY_MILLIS - 1), u64::MAX, &|| true).unwrap(), None, "the day is not over");
    assert_eq!(store.join(at(DAY_MILLIS), 10, &|| true).unwrap(), None, "there is no room for it");
    let entry = join(&store).unwrap();
    let distinct = before[0].values().map(|cells| cells.len() as u64).sum::<u64>();
    assert_eq!((entry.name.as_str(), entry.samples), ("0-86400000.block", distinct), "each sample once");
    assert_eq!(fs::read_dir(dir.path().join("blocks")).unwrap().count(), 1, "the others are gone");
    assert_eq!(spans.map(|span| read(&store, span)), before);
    assert_eq!((join(&store), series(&store)), (None, listed), "once is enough");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.blocks(), [entry]);
    assert_eq!(spans.map(|span| read(&store, span)), before, "reopened");
    let newest = spans.map(|span| same_latest(&store, span));
    assert!(newest.iter().all(|found| *found > 0), "{newest:?}");
}

// Cases: R5
#[test]
fn what_comes_late_for_a_joined_day_changes_nothing_that_was_there() {
    let (dir, store) = sealed();
    join(&store).unwrap();
    let before = read(&store, ALL);
    let append = |host: u128, time: i64, value: f64| {
        store.append(agent(host), &table(&["counter"]), at(time), &[value]).unwrap();
    };
    append(7, 500, -7.0);
    append(7, 1_500, 9.0);
    assert_eq!(store.seal(Window::of(at(0))).unwrap().unwrap().name, "0-7200000.2.block", "no name twice");
    let mut expected = before.clone();
    expected.get_mut("counter").unwrap().push((1_500, 9f64.to_bits()));
    assert_eq!(read(&store, ALL), expected);
    same_latest(&store, ALL);
    assert_eq!(join(&store), None, "too little came for the whole day to be written again");
    for time in 0..3 {
        append(7, 500, -8.0);
        append(7, 2_500 + time, 10.0);
        expected.get_mut("counter").unwrap().push((2_500 + time, 10f64.to_bits()));
        store.seal(Window::of(at(0))).unwrap().unwrap();
    }
    assert_eq!(names(&store).len(), 5);
    assert_eq!(join(&store).unwrap().name, "0-7200000.6.block", "the late ones become one");
    assert_eq!(names(&store), ["0-86400000.block", "0-7200000.6.block"]);
    assert_eq!(read(&store, ALL), expected);
    for host in 20..25 {
        store.set_target(agent(host), Labels::new([("instance", host.to_string())]));
        (0..700).for_each(|row| append(host, row * 10_000, (row as f64).sqrt()));
    }
    store.seal(Window::of(at(0))).unwrap().unwrap();
    let all = read(&store, ALL);
    let mut joined = None;
    while let Some(entry) = join(&store) {
        joined = Some(entry);
    }
    assert_eq!(joined.unwrap().name, "0-86400000.1.block", "much came, so the day is written again");
    assert_eq!(names(&store).len(), 1);
    assert_eq!(read(&store, ALL), all);
    drop(store);
    assert_eq!(read(&open(dir.path()), ALL), all);
}

#[test]
fn a_row_sealed_while_blocks_are_joined_is_younger_than_they_are() {
    let (_dir, store) = new();
    let append = |time: i64, value: f64| store.append(agent(1), &table(&["x"]), at(time), &[value]).unwrap();
    for number in 0..4 {
        append(1_000 + number, number as f64);
        store.seal(Window::of(at(0))).unwrap().unwrap();
    }
    let meanwhile = || {
        append(1_000, -1.0);
        append(2_000, 5.0);
        store.seal(Window::of(at(0))).unwrap().unwrap();
        true
    };
    let joined = store.join(at(WINDOW_MILLIS), u64::MAX, &meanwhile).unwrap().unwrap();
    assert_eq!(names(&store), [joined.name.as_str(), "0-7200000.5.block"]);
    let expected = [(1_000, 0.0), (1_001, 1.0), (1_002, 2.0), (1_003, 3.0), (2_000, 5.0)];
    assert_eq!(read(&store, ALL)["x"], cells(&expected));
}

#[test]
fn a_joining_that_is_ended_or_overtaken_by_retention_leaves_nothing() {
    let (dir, store) = sealed();
    let (before, blocks) = (read(&store, ALL), store.blocks());
    let asked = Cell::new(0);
    let some = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    assert_eq!(store.join(at(DAY_MILLIS), u64::MAX, &some).unwrap(), None);
    assert_eq!((asked.get(), store.blocks()), (3, blocks.clone()));
    assert_eq!(read(&store, ALL), before);
    let oldest_go = || {
        let rest = blocks.last().unwrap().bytes;
        store.retain(at(0), Duration::MAX, rest).unwrap();
        true
    };
    assert_eq!(store.join(at(DAY_MILLIS), u64::MAX, &oldest_go).unwrap(), None, "what is deleted stays so");
    assert_eq!(store.blocks(), blocks[2..]);
    assert_eq!(fs::read_dir(dir.path().join("blocks")).unwrap().count(), 1, "nothing unfinished");
    assert!(join(&store).is_none(), "one is left");
}

// Cases: C19
#[test]
fn a_damaged_source_is_told_once_and_keeps_the_others_readable() {
    let (dir, store) = sealed();
    let path = dir.path().join("blocks").join(&store.blocks()[2].name);
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.len() / 3;
    bytes[place] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = store.join(at(DAY_MILLIS), u64::MAX, &|| true).unwrap_err();
    assert!(matches!(error, BlockError::Damaged { .. }), "{error}");
    assert_eq!(join(&store), None, "not again and again");
    assert_eq!(fs::read_dir(dir.path().join("blocks")).unwrap().count(), 3, "nothing is lost or left over");
    assert!(!read_host(&store, 2, "late", (at(0), at(100_000))).is_empty());
}

/// What of a history of sealing, joining and retention had been sealed, and was not yet to be deleted, after so many
/// steps of the disk.
#[derive(Default)]
struct Told {
    /// Times, the step after which each is there, and that of its deletion.
    sealed: Vec<(i64, usize)>,
    deleted: Option<usize>,
}

fn history(disk: &RecordingDisk) -> Told {
    let (store, _) = Store::open_on(Arc::new(disk.clone()), "/s").unwrap();
    let mut told = Told::default();
    let (table, written) = (table(&["x", "y"]), RefCell::new(HashSet::new()));
    let mut seal = |windows: &[i64], times: &[i64]| {
        for time in times {
            let first = written.borrow_mut().insert(*time);
            let value = if first { *time as f64 } else { -1.0 };
            store.append(agent(1), &table, at(*time), &[value, 0.5]).unwrap();
        }
        for window in windows {
            store.seal(Window::of(at(window * WINDOW_MILLIS))).unwrap().unwrap();
        }
        told.sealed.extend(times.iter().map(|time| (*time, disk.position())));
    };
    seal(&[0, 1], &[10, 20, WINDOW_MILLIS + 10]);
    seal(&[0], &[20, 15]);
    join(&store).unwrap();
    (30..33).for_each(|time| seal(&[0], &[10, time]));
    while join(&store).is_some() {}
    seal(&[0], &[15, 40]);
    while join(&store).is_some() {}
    told.deleted = Some(disk.position());
    store.retain(at(2 * DAY_MILLIS), Duration::from_secs(3600), u64::MAX).unwrap();
    told
}

/// Opens what a crash has left; everything that must be there is, once, and whatever is there is right.
fn check(disk: MemoryDisk, after: usize, told: &Told, text: &str) -> usize {
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let (store, aside) = Store::open_on(disk.clone(), "/s").unwrap();
    assert!(aside.is_empty(), "{text}: {aside:?}");
    let found = read(&store, ALL).remove("x").unwrap_or_default(); // Times ascend: `add` has looked.
    for (time, bits) in &found {
        assert_eq!(*bits, (*time as f64).to_bits(), "{text}: another value than was written first");
    }
    let deleting = told.deleted.is_some_and(|deleted| after > deleted);
    let due = told.sealed.iter().filter(|(_, sealed)| *sealed <= after && !deleting);
    let lost = due.map(|(time, _)| *time).filter(|time| found.iter().all(|(known, _)| known != time));
    assert_eq!(lost.collect::<Vec<_>>(), [0; 0], "{text}: sealed and lost");
    let stored = store.stats().blocks;
    store.append(agent(1), &table(&["x", "y"]), at(50), &[50.0, 0.5]).unwrap();
    store.seal(Window::of(at(0))).unwrap().unwrap();
    while join(&store).is_some() {}
    drop(store);
    let (store, _) = Store::open_on(disk, "/s").unwrap();
    let again = read(&store, ALL).remove("x").unwrap_or_default();
    let expected = found.iter().filter(|cell| cell.0 != 50).copied().chain([(50, 50f64.to_bits())]);
    assert_eq!(again, expected.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), "{text}");
    stored
}

// Cases: C2, C19
#[test]
fn no_crash_while_blocks_are_joined_loses_a_sample_or_shows_it_twice() {
    let disk = RecordingDisk::default();
    let told = history(&disk);
    let history = disk.history();
    let (mut states, mut most) = (0, 0);
    for cut in history.power_cuts_within(64) {
        let (after, text) = (cut.after, cut.to_string());
        most = most.max(check(cut.disk, after, &told, &text));
        states += 1;
    }
    // A start after a kill acts on names that may not be durable; the power fails then.
    for killed in 0..=disk.position() {
        let again = history.killed(killed);
        drop(Store::open_on(Arc::new(again.clone()), "/s").unwrap());
        for cut in again.history().power_cuts_within(16).filter(|cut| cut.after >= killed) {
            let text = cut.to_string();
            check(cut.disk, killed, &told, &format!("killed after {killed} steps, then {text}"));
            states += 1;
        }
    }
    println!("{} steps, {states} states, up to {most} blocks", disk.position());
    assert!(states > 3 * disk.position(), "every moment was looked at: {states}");
}
