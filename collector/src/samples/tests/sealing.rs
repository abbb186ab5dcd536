//! Windows that become blocks: nothing that is read changes, damage is noticed, the oldest go first.

use super::*;

#[test]
fn sealing_and_reopening_change_nothing_that_is_read() {
    let (dir, store) = new();
    fill(&store);
    let spans = [ALL, (at(-1), at(300_000)), (at(7_000_000), at(7_400_000)), (at(7_190_000), at(7_200_000))];
    let before = spans.map(|span| read(&store, span));
    assert_eq!(before[0].len(), 3 * 6 + 1);
    let distinct = before[0].values().map(|cells| cells.len() as u64).sum::<u64>();
    assert_eq!(store.windows_in_memory(), [Window::of(at(0)), Window::of(at(WINDOW_MILLIS))]);

    let entry = store.seal(Window::of(at(0))).unwrap().unwrap();
    assert_eq!(entry.name, "0-7200000.block");
    assert_eq!(spans.map(|span| read(&store, span)), before, "one window sealed");
    assert_eq!(store.windows_in_memory(), [Window::of(at(WINDOW_MILLIS))]);
    assert_eq!(store.seal(Window::of(at(0))).unwrap(), None, "nothing left to seal");

    store.seal(Window::of(at(WINDOW_MILLIS))).unwrap().unwrap();
    assert_eq!(spans.map(|span| read(&store, span)), before, "both sealed");
    let blocks = store.blocks();
    let stats = store.stats();
    assert_eq!((stats.samples_in_memory, stats.samples_at_rest), (0, distinct), "each sample once");
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.blocks(), blocks);
    assert_eq!(spans.map(|span| read(&store, span)), before, "reopened");
    assert_eq!(read_host(&store, 2, "gauge", spans[2]).len(), 1);
    assert_eq!(store.last_rows().len(), 3);
    store.append(agent(2), &table(&["counter"]), at(9_000_000), &[5.0]).unwrap();
    let counter = &read(&store, ALL)["counter{instance=\"host-2\", job=\"node\"}"];
    assert_eq!(
        (counter.len(), counter[900]),
        (901, (9_000_000, 5f64.to_bits())),
        "old and new rows are one series"
    );
}

#[test]
fn rows_for_a_sealed_window_go_to_a_further_block() {
    let (dir, store) = new();
    let series = table(&["x"]);
    let append = |time: i64, value: f64| store.append(agent(1), &series, at(time), &[value]).unwrap();
    append(1000, 1.0);
    append(3000, 3.0);
    let first = store.seal(Window::of(at(0))).unwrap().unwrap();
    append(2000, 2.0);
    append(3000, -3.0);
    let second = store.seal(Window::of(at(0))).unwrap().unwrap();
    assert_eq!([first.name.as_str(), second.name.as_str()], ["0-7200000.block", "0-7200000.1.block"]);
    let expected = cells(&[(1000, 1.0), (2000, 2.0), (3000, 3.0)]);
    assert_eq!(read(&store, ALL)["x"], expected);
    drop(store);
    assert_eq!(read(&open(dir.path()), ALL)["x"], expected);
}

#[test]
fn a_damaged_block_is_noticed_wherever_the_damage_is() {
    let (dir, store) = new();
    fill(&store);
    let entry = store.seal(Window::of(at(0))).unwrap().unwrap();
    let before = read(&store, ALL);
    drop(store);
    let path = dir.path().join("blocks").join(&entry.name);
    let good = fs::read(&path).unwrap();
    let select = |store: &Store| {
        let (mut read, all) = (Read::new(), |_: &Labels| true);
        let mut visit =
            |labels: &Labels, times: &[i64], values: &[f64]| add(&mut read, labels, times, values);
        let done = store.view().select_matching(&Wanted { equals: &[], matches: &all }, ALL, &mut visit);
        done.map(|()| read)
    };
    let mut places = (0..good.len()).step_by(good.len() / 150).collect::<Vec<_>>();
    places.extend(good.len() - 84..good.len());
    let (mut refused, mut unreadable) = (0, 0);
    for place in places {
        let mut bad = good.clone();
        bad[place] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let (store, aside) = Store::open(dir.path()).unwrap();
        match aside.as_slice() {
            [] => {
                assert!(select(&store).is_err(), "byte {place} of {} is damaged and nobody saw", good.len());
                unreadable += 1;
            }
            [one] if matches!(one.error, BlockError::Newer { .. }) => assert_eq!(one.path, path),
            [one] => {
                assert_eq!(one.path, path.with_extension("block.bad"));
                fs::rename(&one.path, &path).unwrap();
                refused += 1;
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(refused > 84 && unreadable > 20, "{refused} refused, {unreadable} unreadable");
    for len in [0, 11, 50, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..len]).unwrap();
        let (_, aside) = Store::open(dir.path()).unwrap();
        assert_eq!(aside.len(), 1, "cut to {len} bytes");
    }
    fs::write(&path, &good).unwrap();
    fs::write(dir.path().join("blocks/x.tmp"), "unfinished").unwrap();
    fs::remove_file(path.with_extension("block.bad")).unwrap();
    let store = open(dir.path());
    let sealed = |read: Read| {
        let inside =
            |cells: Vec<(i64, u64)>| cells.into_iter().filter(|cell| cell.0 < WINDOW_MILLIS).collect();
        read.into_iter().map(|(name, cells)| (name, inside(cells))).collect::<Read>()
    };
    assert_eq!(read(&store, ALL), sealed(before), "the good file is still good");
    assert!(!dir.path().join("blocks/x.tmp").exists());
}

// Cases: C18
#[test]
fn a_block_of_a_newer_format_is_refused_and_left_alone() {
    let (dir, store) = new();
    store.append(agent(1), &table(&["x"]), at(1), &[1.0]).unwrap();
    let entry = store.seal(Window::of(at(0))).unwrap().unwrap();
    drop(store);
    let path = dir.path().join("blocks").join(entry.name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 3;
    fs::write(&path, &bytes).unwrap();
    let (_, aside) = Store::open(dir.path()).unwrap();
    assert!(
        matches!(aside.as_slice(), [SetAside { error: BlockError::Newer { format: 3, .. }, .. }]),
        "{aside:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn blocks_are_deleted_by_age_and_by_size_oldest_first() {
    let hour = Duration::from_secs(3600);
    for (name, max_age, blocks_kept_by_size, kept, why) in [
        ("all young and small", 100 * hour, 9, 4, None),
        ("age", 4 * hour, 9, 2, Some(RemovedFor::Age)),
        ("size", 100 * hour, 1, 1, Some(RemovedFor::Size)),
        ("no room at all", 100 * hour, 0, 0, Some(RemovedFor::Size)),
    ] {
        let (dir, store) = new();
        for window in 0..4 {
            store.append(agent(1), &table(&["x"]), at(window * WINDOW_MILLIS), &[0.5]).unwrap();
            store.seal(Window::of(at(window * WINDOW_MILLIS))).unwrap().unwrap();
        }
        let blocks = store.blocks();
        let max_bytes = blocks.iter().rev().take(blocks_kept_by_size).map(|block| block.bytes).sum();
        let removed = store.retain(at(4 * WINDOW_MILLIS), max_age, max_bytes).unwrap();
        assert_eq!(store.blocks(), blocks[4 - kept..], "{name}");
        assert_eq!(
            removed.iter().map(|gone| &gone.entry).collect::<Vec<_>>(),
            blocks[..4 - kept].iter().collect::<Vec<_>>()
        );
        assert_eq!(removed.first().map(|gone| gone.why), why, "{name}");
        assert_eq!(store.stats().hosts, usize::from(kept > 0), "{name}: a host without samples is forgotten");
        drop(store);
        assert_eq!(open(dir.path()).blocks(), blocks[4 - kept..], "{name}: gone from the disk too");
    }
}

#[test]
fn no_block_is_kept_that_is_older_than_a_deleted_one() {
    let (_dir, store) = new();
    for (window, rows) in [(0, 1), (1, 500), (2, 1)] {
        for row in 0..rows {
            let time = at(window * WINDOW_MILLIS + row * 10_000);
            store.append(agent(1), &table(&["x"]), time, &[(row as f64).sin()]).unwrap();
        }
        store.seal(Window::of(at(window * WINDOW_MILLIS))).unwrap().unwrap();
    }
    let blocks = store.blocks();
    let removed = store.retain(at(0), Duration::MAX, blocks[0].bytes + blocks[2].bytes).unwrap();
    assert_eq!(removed.len(), 2, "the small oldest block would fit, but not without the large one after it");
    assert_eq!(store.blocks(), blocks[2..]);
}

// Cases: C19
#[test]
fn a_failed_seal_loses_nothing_and_can_be_tried_again() {
    let (dir, store) = new();
    fill(&store);
    let before = read(&store, ALL);
    let blocks = dir.path().join("blocks");
    fs::remove_dir(&blocks).unwrap();
    let error = store.seal(Window::of(at(0))).unwrap_err();
    assert!(error.to_string().starts_with("cannot list "), "{error}");
    assert_eq!(read(&store, ALL), before);
    fs::create_dir(&blocks).unwrap();
    assert!(store.seal(Window::of(at(0))).unwrap().is_some());
    assert_eq!(read(&store, ALL), before);
    assert_eq!(fs::read_dir(&blocks).unwrap().count(), 1, "one block and nothing unfinished");
}
