//! Head files: a start has what was in memory.

use super::*;

const NOTHING_SEALED: SealedTo = SealedTo { seq: 0, to: Timestamp::MIN };

fn save(store: &Store, through: u64) {
    let head = store.write_head(through).unwrap().unwrap();
    store.list_head(head, through, through.to_string().into_bytes(), NOTHING_SEALED).unwrap();
}

fn head_files(dir: &TempDir) -> usize {
    let names = fs::read_dir(dir.path().join("heads")).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".head")).count()
}

#[test]
fn head_files_bring_back_what_was_in_memory_and_in_no_block() {
    let (dir, store) = new();
    fill(&store);
    save(&store, 1);
    let series = table(&["counter", "new"]);
    for time in [9_010_000, 9_000_000, 5_000, 7_300_005] {
        store.append(agent(2), &series, at(time), &[7.5, 1.0]).unwrap(); // Young ones, and late ones of both windows.
    }
    save(&store, 2);
    assert_eq!(store.write_head(3).unwrap(), None, "nothing is new");
    let before = read(&store, ALL);

    let again = open(dir.path());
    assert_eq!(again.restore_heads(NOTHING_SEALED).unwrap(), Some(b"2".to_vec()));
    assert_eq!(read(&again, ALL), before);
    assert_eq!(again.write_head(3).unwrap(), None, "what was read back is saved");
    let extra = again.write_head(4).unwrap();
    assert_eq!((extra, head_files(&dir)), (None, 2));
    again.append(agent(2), &series, at(9_020_000), &[7.5, 1.0]).unwrap();
    again.write_head(5).unwrap().unwrap();
    assert_eq!(head_files(&dir), 3, "written, and not listed yet");

    let third = open(dir.path());
    third.restore_heads(NOTHING_SEALED).unwrap().unwrap();
    assert_eq!(
        (read(&third, ALL), head_files(&dir)),
        (before.clone(), 2),
        "what is not listed does not count"
    );
    let first = Window::of(at(0));
    third.seal(first).unwrap().unwrap();
    assert_eq!(read(&third, ALL), before);
    let sealed = SealedTo { seq: 2, to: first.to };
    third.drop_heads(sealed).unwrap();
    assert_eq!(head_files(&dir), 2, "both have samples of the second window");

    let fourth = open(dir.path());
    fourth.restore_heads(sealed).unwrap().unwrap();
    assert_eq!(read(&fourth, ALL), before, "blocks and head files together");
    assert_eq!(fourth.windows_in_memory(), [Window::of(at(WINDOW_MILLIS))], "blocks have the first window");
    fourth.seal(Window::of(at(WINDOW_MILLIS))).unwrap().unwrap();
    let stats = fourth.stats();
    let distinct = before.values().map(|cells| cells.len() as u64).sum::<u64>();
    assert_eq!((stats.samples_in_memory, stats.samples_at_rest), (0, distinct), "each sample once");
    fourth.drop_heads(SealedTo { seq: 2, to: Window::of(at(WINDOW_MILLIS)).to }).unwrap();
    assert_eq!(head_files(&dir), 0);
}

#[test]
fn a_series_that_leaves_the_table_over_a_start_ends_once() {
    let (dir, store) = new();
    let (all, two) = (table(&["a", "b", "c"]), table(&["a", "b"]));
    store.append(agent(1), &all, at(10), &[1.0, 2.0, 3.0]).unwrap();
    store.append(agent(1), &two, at(20), &[1.0, 2.0]).unwrap(); // Before the start: its end is in the head file.
    store.append_derived(Some(agent(1)), Labels::series("recorded", &[]), at(20), 5.0).unwrap();
    save(&store, 1);
    let again = open(dir.path());
    again.restore_heads(NOTHING_SEALED).unwrap().unwrap();
    let one = table(&["a"]);
    again.append(agent(1), &one, at(30), &[1.0]).unwrap();
    again.append(agent(1), &one, at(40), &[1.0]).unwrap();
    let read = read(&again, ALL);
    assert_eq!(read["b"], cells(&[(10, 2.0), (20, 2.0), (30, STALE_NAN)]));
    assert_eq!(read["c"], cells(&[(10, 3.0), (20, STALE_NAN)]));
    assert_eq!(read["recorded"], cells(&[(20, 5.0)]), "the rule ends what it recorded");
}

#[test]
fn a_head_file_that_failed_loses_nothing_of_the_next_one() {
    let disk = MemoryDisk::new();
    let open = || Store::open_on(Arc::new(disk.clone()), "/s").unwrap().0;
    let store = open();
    let series = table(&["x"]);
    let append = |row: i64| store.append(agent(1), &series, at(row * 10_000), &[row as f64]).unwrap();
    (0..200).for_each(append);
    for after in 0..6 {
        let kind = std::io::ErrorKind::StorageFull;
        disk.fail(Fault { operation: None, after, kind, stays: true });
        let head = store.write_head(after);
        if let Ok(Some(head)) = head {
            assert!(store.list_head(head, after, Vec::new(), NOTHING_SEALED).is_err(), "{after}");
        }
        disk.heal();
        append(200 + after as i64);
    }
    let head = store.write_head(9).unwrap().unwrap();
    store.list_head(head, 9, Vec::new(), NOTHING_SEALED).unwrap();
    let again = open();
    again.restore_heads(NOTHING_SEALED).unwrap().unwrap();
    assert_eq!(read(&again, ALL), read(&store, ALL));
}
