//! What is asked of the store: lists of series, expressions, the newest samples.

use super::*;

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
fn however_many_hosts_are_read_at_once_all_of_each_is_handed_out() {
    let (_dir, store) = new();
    fill(&store);
    let expected = read(&store, ALL);
    store.seal(Window::of(at(0))).unwrap();
    let span = (ALL.0.as_millis(), ALL.1.as_millis());
    let wanted = Wanted { equals: &[], matches: &|_: &Labels| true };
    for (name, cells_max) in [("one by one", 0), ("some", 12 * 1024), ("all", usize::MAX)] {
        let mut got = Read::new();
        let mut visit = |labels: &Labels, times: &[i64], values: &[f64]| add(&mut got, labels, times, values);
        let mut selection = select::Selection::new(span, u64::MAX, &mut visit);
        let mut together = together::Together::default();
        together.cells_max = cells_max;
        for (agent, host) in store.hosts() {
            let host = host.read().unwrap();
            let (slots, blocks) = (host.series.find(&wanted), store.blocks.overlapping(span));
            together.add(&mut selection, (agent, &host), &slots, &wanted, blocks).unwrap();
        }
        together.read(&mut selection).unwrap();
        assert_eq!(got, expected, "{name}");
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
pub(super) fn same_latest(store: &Store, (from, to): (Timestamp, Timestamp)) -> usize {
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
