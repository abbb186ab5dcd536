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
use tocsin_shared::disk::{Fault, MemoryDisk, RecordingDisk};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::STALE_NAN;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::*;
use reading::same_latest;

mod heads;
mod joining;
mod reading;
mod sealing;

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
