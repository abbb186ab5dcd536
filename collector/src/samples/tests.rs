//! The store as its callers see it: what was appended is what is read, wherever it lies by then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tocsin_promql::{Expr, Limits, Selector, Source, Value, instant};
use tocsin_shared::disk::{Fault, MemoryDisk};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::STALE_NAN;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::*;

/// A series as text, with its times and the bits of its values.
type Read = BTreeMap<String, Vec<(i64, u64)>>;

const ALL: (Timestamp, Timestamp) = (Timestamp::MIN, Timestamp::MAX);
const WINDOW_MILLIS: i64 = 7_200_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn agent(number: u128) -> AgentId {
    AgentId(Uuid::from_u128(number))
}

fn table(series: &[&str]) -> Arc<[Labels]> {
    series.iter().map(|name| Labels::series(name, &[])).collect()
}

fn open(dir: &Path) -> Store {
    let (store, aside) = Store::open(dir).unwrap();
    assert!(aside.is_empty(), "{aside:?}");
    store
}

fn new() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (dir, store)
}

fn add(read: &mut Read, labels: &Labels, times: &[i64], values: &[f64]) {
    assert!(times.is_sorted_by(|a, b| a < b), "times of {labels} do not ascend: {times:?}");
    assert_eq!(times.len(), values.len());
    let cells = times.iter().copied().zip(values.iter().map(|value| value.to_bits())).collect();
    assert!(read.insert(labels.to_string(), cells).is_none(), "{labels} was visited twice");
}

fn read(store: &Store, span: (Timestamp, Timestamp)) -> Read {
    let (mut read, all) = (Read::new(), |_: &Labels| true);
    let wanted = Wanted { equals: &[], matches: &all };
    let mut visit = |labels: &Labels, times: &[i64], values: &[f64]| add(&mut read, labels, times, values);
    store.view().select_matching(&wanted, span, &mut visit).unwrap();
    read
}

fn read_host(store: &Store, number: u128, metric: &str, span: (Timestamp, Timestamp)) -> Read {
    let mut read = Read::new();
    let matches = |labels: &Labels| labels.metric() == metric;
    let wanted = Wanted { equals: &[("__name__", metric)], matches: &matches };
    let mut visit = |labels: &Labels, times: &[i64], values: &[f64]| add(&mut read, labels, times, values);
    store.host_view(agent(number)).select_matching(0, &wanted, span, &mut visit).unwrap();
    read
}

fn cells(values: &[(i64, f64)]) -> Vec<(i64, u64)> {
    values.iter().map(|(time, value)| (*time, value.to_bits())).collect()
}

#[test]
fn a_row_is_read_under_the_host_s_labels_as_they_are_now() {
    let (_dir, store) = new();
    store.set_target(agent(1), Labels::new([("instance", "a"), ("job", "node")]));
    store.append(agent(1), &table(&["up", "load"]), at(10), &[1.0, 0.5]).unwrap();
    store.append_derived(Some(agent(1)), Labels::series("sum", &[("instance", "a")]), at(10), 7.0).unwrap();
    store.append_derived(None, Labels::series("all", &[]), at(10), 9.0).unwrap();
    store.set_target(agent(1), Labels::new([("instance", "b")]));
    let names = read(&store, ALL).into_keys().collect::<Vec<_>>();
    assert_eq!(names, ["all", "load{instance=\"b\"}", "sum{instance=\"a\"}", "up{instance=\"b\"}"]);
    assert_eq!(store.last_rows(), [(agent(1), at(10))]);
}

#[test]
fn a_span_is_open_on_the_left_and_closed_on_the_right() {
    let (_dir, store) = new();
    let series = table(&["constant", "counter"]);
    (1..=400).for_each(|row| store.append(agent(1), &series, at(row * 10_000), &[1.0, row as f64]).unwrap());
    for (name, from, to) in [
        ("open rows", 3_700_000, 4_000_000),
        ("packed rows", 10_000, 90_000),
        ("both", 1_000_000, 3_990_000),
        ("before all", -10, 0),
        ("one row", 3_990_000, 4_000_000),
    ] {
        let rows = (1..=400).filter(|row| from < row * 10_000 && row * 10_000 <= to);
        let expected = rows.map(|row| (row * 10_000, (row as f64).to_bits())).collect::<Vec<_>>();
        let read = read_host(&store, 1, "counter", (at(from), at(to)));
        assert_eq!(read.get("counter").cloned().unwrap_or_default(), expected, "{name}");
        let constant = read_host(&store, 1, "constant", (at(from), at(to)));
        assert_eq!(constant.get("constant").map_or(0, Vec::len), expected.len(), "{name}");
    }
}

// Cases: R5
#[test]
fn late_and_repeated_rows_find_their_place_and_the_first_written_stays() {
    let (_dir, store) = new();
    let series = table(&["x"]);
    let step = 10_000;
    let append = |row: i64, value: f64| store.append(agent(1), &series, at(row * step), &[value]).unwrap();
    (100..300).filter(|row| row % 7 != 0).for_each(|row| append(row, row as f64));
    (0..300).filter(|row| row % 7 == 0).for_each(|row| append(row, row as f64)); // Into packed and open rows.
    (0..300).for_each(|row| append(row, -1.0)); // Rows 1 to 99 are new where 7 does not divide; the others were there.
    let expected = (0..300i64)
        .map(|row| (row * step, if row >= 100 || row % 7 == 0 { row as f64 } else { -1.0 }))
        .collect::<Vec<_>>();
    assert_eq!(read(&store, ALL)["x"], cells(&expected));
    let sealed = store.seal(Window::of(at(0))).unwrap().unwrap();
    assert_eq!((sealed.series, sealed.samples), (1, 300), "what was written twice is stored once");
    assert_eq!(read(&store, ALL)["x"], cells(&expected));
}

#[test]
fn a_series_that_leaves_the_table_ends_once() {
    let (_dir, store) = new();
    let (both, one) = (table(&["a", "b"]), table(&["a"]));
    store.append(agent(1), &both, at(10), &[1.0, 2.0]).unwrap();
    store.append(agent(1), &one, at(20), &[1.0]).unwrap();
    store.append(agent(1), &one, at(30), &[1.0]).unwrap();
    store.append(agent(1), &both, at(15), &[1.0, 2.5]).unwrap(); // Late: ends nothing, and is not ended.
    store.append(agent(1), &one, at(40), &[1.0]).unwrap();
    store.append(agent(1), &both, at(50), &[1.0, 3.0]).unwrap();
    let read = read(&store, ALL);
    assert_eq!(read["b"], cells(&[(10, 2.0), (15, 2.5), (20, STALE_NAN), (50, 3.0)]));
    assert_eq!(read["a"], cells(&[(10, 1.0), (15, 1.0), (20, 1.0), (30, 1.0), (40, 1.0), (50, 1.0)]));
}

#[test]
fn rows_that_do_not_fit_are_refused_whole() {
    let (_dir, store) = new();
    let many = (0..=SERIES_MAX).map(|n| Labels::series("m", &[("n", &n.to_string())])).collect::<Arc<[_]>>();
    for (name, table, values, error) in [
        ("too short", table(&["a", "b"]), 1, SampleError::RowLength { expected: 2, got: 1 }),
        ("twice", table(&["a", "a"]), 2, SampleError::DuplicateSeries(Labels::series("a", &[]))),
        (
            "too many",
            many.clone(),
            many.len(),
            SampleError::TooManySeries { got: SERIES_MAX + 1, max: SERIES_MAX },
        ),
    ] {
        assert_eq!(store.append(agent(1), &table, at(1), &vec![1.0; values]), Err(error), "{name}");
    }
    assert_eq!(read(&store, ALL), Read::new());
    let mut refused = 0;
    for table_number in 0..8 {
        let label = table_number.to_string();
        let series = (0..SERIES_MAX).map(|n| Labels::series("m", &[("t", &label), ("n", &n.to_string())]));
        let series = series.collect::<Arc<[_]>>();
        refused +=
            usize::from(store.append(agent(1), &series, at(table_number), &vec![1.0; SERIES_MAX]).is_err());
    }
    assert!(
        refused > 0 && store.stats().series <= 4 * SERIES_MAX,
        "an agent that renames all its series is bounded"
    );
}

/// Three hosts over two windows: counters, gauges, constants, odd values, a series that ends, late rows, recorded series.
fn fill(store: &Store) {
    let series = table(&["counter", "gauge", "constant", "odd", "ends"]);
    let shorter = series[..4].to_vec().into();
    let odd = [
        f64::NAN,
        -0.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        STALE_NAN,
        0.0,
        1e-300,
        f64::from_bits(0x7ff8_0000_0000_0abc),
    ];
    for host in 1..=3 {
        let name = format!("host-{host}");
        store.set_target(agent(host), Labels::new([("instance", name.as_str()), ("job", "node")]));
        for row in (0..900i64).filter(|row| row % 50 != 13).chain((0..900).filter(|row| row % 50 == 13)) {
            let time = at(row * 10_000);
            let wave = (row as f64 / 30.0).sin();
            let values = [(row * 37) as f64, wave, 0.25, odd[row as usize % 8], host as f64];
            let table: &Arc<[Labels]> = if row < 500 { &series } else { &shorter };
            store.append(agent(host), table, time, &values[..table.len()]).unwrap();
            if row % 6 == 0 {
                let recorded = Labels::series("rate", &[("instance", &name)]);
                store.append_derived(Some(agent(host)), recorded, time, wave).unwrap();
                store.append_derived(None, Labels::series("total", &[]), time, row as f64).unwrap();
            }
        }
    }
}

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
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    let (_, aside) = Store::open(dir.path()).unwrap();
    assert!(
        matches!(aside.as_slice(), [SetAside { error: BlockError::Newer { format: 2, .. }, .. }]),
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

#[test]
fn a_series_that_never_changes_costs_next_to_nothing() {
    const SERIES: usize = 1000;
    let (_dir, store) = new();
    let names = (0..SERIES).map(|n| format!("m{n}")).collect::<Vec<_>>();
    let series = table(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let values = (0..SERIES).map(|n| n as f64).collect::<Vec<_>>();
    (0..240).for_each(|row| store.append(agent(1), &series, at(row * 10_000), &values).unwrap());
    let stats = store.stats();
    assert_eq!(stats.samples_in_memory, 240 * SERIES as u64);
    let per_series = stats.sample_bytes_in_memory as f64 / SERIES as f64;
    assert!(
        per_series < 40.0,
        "{per_series} bytes for 240 samples of a constant: 24 open, 8 packed are enough"
    );
    let lists = stats.series_bytes_in_memory as f64 / SERIES as f64;
    assert!(lists < 256.0, "{lists} bytes for a series' place in lists");
    let entry = store.seal(Window::of(at(0))).unwrap().unwrap();
    assert!(entry.bytes < 20 * SERIES as u64, "{} bytes at rest", entry.bytes);
}

#[test]
fn a_selection_is_bounded_and_says_so() {
    let (_dir, store) = new();
    let series = table(&["a", "b"]);
    (0..300).for_each(|row| store.append(agent(1), &series, at(row * 10_000), &[1.0, row as f64]).unwrap());
    let all = |_: &Labels| true;
    let wanted = Wanted { equals: &[], matches: &all };
    for sealed in [false, true] {
        let mut count = 0;
        let mut visit = |_: &Labels, times: &[i64], _: &[f64]| count += times.len();
        let view = store.view().with_samples_max(599);
        let error = view.select_matching(&wanted, ALL, &mut visit).unwrap_err();
        assert!(matches!(error, SelectError::TooManySamples { max: 599 }));
        store.view().with_samples_max(600).select_matching(&wanted, ALL, &mut |_, _, _| ()).unwrap();
        assert_eq!(count, 300, "whole series only");
        if !sealed {
            store.seal(Window::of(at(0))).unwrap();
        }
    }
}

#[test]
fn a_cache_follows_the_series_of_its_host() {
    let (_dir, store) = new();
    let cache = RefCell::new(SelectorCache::default());
    let asked = std::cell::Cell::new(0);
    let count = |expr: usize, time: i64| {
        let matches = |labels: &Labels| {
            asked.set(asked.get() + 1);
            labels.metric() == "a"
        };
        let (mut series, wanted) = (0, Wanted { equals: &[("__name__", "a")], matches: &matches });
        let view = store.host_view(agent(1)).with_cache(expr, &cache);
        view.select_matching(0, &wanted, (at(time - 1), at(time)), &mut |_, _, _| series += 1).unwrap();
        series
    };
    store.append(agent(1), &table(&["a", "b"]), at(1), &[1.0, 2.0]).unwrap();
    assert_eq!((count(1, 1), count(1, 1), asked.get()), (1, 1, 1), "resolved once");
    assert_eq!((count(2, 1), asked.get()), (1, 2), "another expression");
    let more = [Labels::series("a", &[]), Labels::series("a", &[("x", "y")])].into();
    store.append(agent(1), &more, at(2), &[1.0, 2.0]).unwrap();
    assert_eq!((count(1, 2), asked.get()), (2, 4), "resolved again when series came");
}

#[test]
fn series_that_ended_are_forgotten_once_sealed() {
    let (_dir, store) = new();
    for generation in 0..20i64 {
        let labels = (0..50).map(|n| Labels::series("m", &[("pod", &format!("{generation}-{n}"))]));
        let series = labels.collect::<Arc<[_]>>();
        let window = generation * WINDOW_MILLIS;
        (0..3).for_each(|row| {
            store.append(agent(1), &series, at(window + row), &[generation as f64; 50]).unwrap()
        });
        store.seal(Window::of(at(window))).unwrap().unwrap();
    }
    assert!(store.stats().series <= 100, "{} series", store.stats().series);
    assert_eq!(read(&store, ALL).len(), 20 * 50);
    let last = &read(&store, ALL)[r#"m{pod="18-7"}"#];
    assert_eq!(last.len(), 4, "three values and the end");
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

#[test]
fn readers_see_every_row_once_while_rows_come_and_windows_are_sealed() {
    const ROWS: i64 = 2_000;
    let (_dir, store) = new();
    let (series, written) = (table(&["x", "y"]), AtomicI64::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for row in 1..=ROWS {
                store.append(agent(1), &series, at(row * 10_000), &[row as f64, 1.0]).unwrap();
                written.store(row, Ordering::Release);
            }
        });
        threads.spawn(|| {
            while written.load(Ordering::Acquire) < ROWS {
                store.windows_in_memory().into_iter().for_each(|window| drop(store.seal(window).unwrap()));
            }
        });
        let mut seen = 0;
        while seen < ROWS {
            seen = written.load(Ordering::Acquire);
            let rows = read(&store, (Timestamp::MIN, at(seen * 10_000)));
            let x = rows.get("x").map_or(&[][..], Vec::as_slice);
            let expected = (1..=seen).map(|row| (row * 10_000, (row as f64).to_bits()));
            assert!(x.iter().copied().eq(expected), "{} of {seen} rows", x.len());
        }
    });
}

#[test]
fn series_are_listed_where_they_have_samples() {
    let (_dir, store) = new();
    let list = |store: &Store, from: i64, to: i64| {
        let wanted = Wanted { equals: &[], matches: &|labels| labels.metric() != "hidden" };
        store.view().series(&wanted, (at(from), at(to))).iter().map(Labels::to_string).collect::<Vec<_>>()
    };
    store.append(agent(1), &table(&["old", "hidden"]), at(1000), &[1.0, 1.0]).unwrap();
    store.append(agent(1), &table(&["new", "hidden"]), at(WINDOW_MILLIS + 1000), &[1.0, 1.0]).unwrap();
    for sealed in [false, true] {
        assert_eq!(list(&store, 0, 1000), ["old"], "sealed: {sealed}");
        assert_eq!(list(&store, 1000, WINDOW_MILLIS), [""; 0], "sealed: {sealed}");
        assert_eq!(
            list(&store, 1000, WINDOW_MILLIS + 1000),
            ["new", "old"],
            "its end is a sample; sealed: {sealed}"
        );
        store.seal(Window::of(at(0))).unwrap();
    }
}

#[test]
fn expressions_are_evaluated_over_all_hosts_and_over_one() {
    let (_dir, store) = new();
    fill(&store);
    let at = at(8_000_000);
    let limits = Limits::default();
    let cache = RefCell::new(SelectorCache::default());
    let vector = |text: &str, source: &dyn Source| {
        let expr = Expr::parse(text).unwrap();
        match instant(&expr, source, at, &limits).unwrap() {
            Value::Vector(elements) => {
                elements.into_iter().map(|e| (e.labels.to_string(), e.value)).collect::<Vec<_>>()
            }
            other => panic!("{text} gives {other:?}"),
        }
    };
    for (number, (text, everywhere, on_host_2)) in [
        ("sum(rate(counter[5m]))", vec![("{}", 11.1)], vec![("{}", 3.7)]),
        ("count({job=\"node\"})", vec![("{}", 12.0)], vec![("{}", 4.0)]), // `ends` has ended; `odd` is a NaN, and a NaN is a value.
        ("constant{instance=~\".*-3\"} * 4", vec![("{instance=\"host-3\", job=\"node\"}", 1.0)], vec![]),
        ("total", vec![("total", 798.0)], vec![]),
        (
            "count by (instance) (rate{instance=\"host-2\"})",
            vec![("{instance=\"host-2\"}", 1.0)],
            vec![("{instance=\"host-2\"}", 1.0)],
        ),
        ("none", vec![], vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        let named = |elements: Vec<(&str, f64)>| {
            elements.into_iter().map(|(l, v)| (l.to_owned(), v)).collect::<Vec<_>>()
        };
        let close = |got: Vec<(String, f64)>, expected: Vec<(String, f64)>| {
            let same = got.iter().zip(&expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6);
            assert!(same && got.len() == expected.len(), "{text}: {got:?}, expected {expected:?}");
        };
        let view = store.view();
        close(vector(text, &view), named(everywhere));
        assert!(view.take_error().is_none());
        for _ in 0..2 {
            let host = store.host_view(agent(2)).with_cache(number, &cache);
            close(vector(text, &host), named(on_host_2.clone()));
        }
    }
    let view = store.view().with_samples_max(10);
    vector("rate(counter[1h])", &view);
    assert!(matches!(view.take_error(), Some(SelectError::TooManySamples { max: 10 })));
}

/// A source that leaves `latest` to what the trait makes of `select`.
struct SelectAlone<'a>(&'a dyn Source);

impl Source for SelectAlone<'_> {
    fn select(&self, selector: &Selector, from: Timestamp, to: Timestamp, visit: &mut Visit<'_>) {
        self.0.select(selector, from, to, visit);
    }
}

/// Checks that the newest samples of a span are the last ones selected; gives how many there are.
fn same_latest(store: &Store, (from, to): (Timestamp, Timestamp)) -> usize {
    let mut found = 0;
    for text in ["{__name__=~\".+\"}", "a", "gauge", "{h=\"1\"}"] {
        let expr = Expr::parse(text).unwrap();
        let newest = |source: &dyn Source| {
            let mut newest = Vec::new();
            source.latest(&expr.selectors()[0], from, to, &mut |labels, time, value| {
                newest.push((labels.to_string(), time, value.to_bits()));
            });
            newest.sort();
            newest
        };
        let (view, hosts) = (store.view(), [0, 1, 2, 3].map(|number| store.host_view(agent(number))));
        let sources = [&view as &dyn Source].into_iter().chain(hosts.iter().map(|host| host as &dyn Source));
        for (number, source) in sources.enumerate() {
            let newest_of_all = newest(source);
            assert_eq!(
                newest_of_all,
                newest(&SelectAlone(source)),
                "{text} in ({from:?}, {to:?}] of {number}"
            );
            found += newest_of_all.len();
        }
        assert!(view.take_error().is_none() && hosts.iter().all(|host| host.take_error().is_none()));
    }
    found
}

#[test]
fn the_newest_sample_is_the_last_one_selected_wherever_it_lies() {
    let (_dir, store) = new();
    fill(&store);
    for (sealed, windows) in [("nothing", 0), ("one window", 1), ("all", 2)] {
        if windows > 0 {
            store.seal(Window::of(at((windows - 1) * WINDOW_MILLIS))).unwrap();
        }
        for (name, from, to) in [
            ("open rows", 8_690_000, 8_990_000),
            ("before the newest row", 8_600_000, 8_900_001),
            ("packed rows", 1_000_000, 1_300_000),
            ("a row that came late", 129_000, 130_000),
            ("over the window's end", 7_000_000, 7_205_000),
            ("where a series ended", 4_990_000, 5_290_000),
            ("all", i64::MIN, i64::MAX),
        ] {
            assert!(same_latest(&store, (at(from), at(to))) > 0, "{name}, sealed: {sealed}");
        }
        assert_eq!(same_latest(&store, (at(9_000_000), at(9_300_000))), 0, "after all, sealed: {sealed}");
    }
    let (view, expr) = (store.view().with_samples_max(3), Expr::parse("{job=\"node\"}").unwrap());
    view.latest(&expr.selectors()[0], at(8_690_000), at(8_990_000), &mut |_, _, _| {});
    assert!(matches!(view.take_error(), Some(SelectError::TooManySamples { max: 3 })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Against the plainest model: a map from series and time to the value first written.
    #[test]
    fn what_is_read_is_what_was_written_first(
        rows in proptest::collection::vec((0u128..2, 0i64..700, 0usize..3, 0u8..4), 1..400),
        seals in proptest::collection::vec((0usize..400, 0i64..2), 0..5),
        span in (0i64..700, 0i64..700),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let tables = [table(&["a", "b", "c"]), table(&["b", "a", "d"]), table(&["a"])];
        let (mut model, step) = (BTreeMap::<(String, i64), u64>::new(), 20_000);

        for (number, (host, row, which, value)) in rows.into_iter().enumerate() {
            let time = row * step;
            let values = [f64::from(value / 2), f64::from(value), number as f64 / 3.0];
            let table = &tables[which];
            store.set_target(agent(host), Labels::new([("h", host.to_string())]));
            store.append(agent(host), table, at(time), &values[..table.len()]).unwrap();
            let name = |labels: &Labels| labels.with([("h", host.to_string().as_str())]).to_string();
            for (labels, value) in table.iter().zip(values) {
                model.entry((name(labels), time)).or_insert(value.to_bits());
            }
            for (_, window) in seals.iter().filter(|(when, _)| *when == number) {
                store.seal(Window::of(at(window * WINDOW_MILLIS))).unwrap();
                drop(store);
                store = open(dir.path()); // What is not sealed is gone: the model forgets it too.
                let sealed = read(&store, ALL);
                let kept = |(name, time): &(String, i64)| {
                    sealed.get(name).is_some_and(|cells| cells.iter().any(|cell| cell.0 == *time))
                };
                model.retain(|key, _| kept(key));
            }
        }
        same_latest(&store, (at(span.0 * step), at(span.1 * step)));
        same_latest(&store, (at(span.1 * step - 300_000), at(span.1 * step)));
        let mut expected = Read::new();
        for ((name, time), bits) in model.iter().filter(|((_, time), _)| span.0 * step < *time && *time <= span.1 * step) {
            expected.entry(name.clone()).or_default().push((*time, *bits));
        }
        // Where a series ended there may be a staleness marker besides, and only there.
        let mut got = read(&store, (at(span.0 * step), at(span.1 * step)));
        for (name, cells) in &mut got {
            cells.retain(|(time, bits)| {
                *bits != STALE_NAN.to_bits() || model.contains_key(&(name.clone(), *time))
            });
        }
        got.retain(|_, cells| !cells.is_empty());
        // A marker may have been written first at a time that a late row repeats with the series.
        let marked = |cells: &[(i64, u64)]| cells.iter().map(|cell| cell.0).collect::<Vec<_>>();
        prop_assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, cells) in &expected {
            prop_assert_eq!(marked(&got[name]), marked(cells), "{}", name);
            for (got, expected) in got[name].iter().zip(cells) {
                prop_assert!(got.1 == expected.1 || got.1 == STALE_NAN.to_bits(), "{} {:?} {:?}", name, got, expected);
            }
        }
    }
}

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
