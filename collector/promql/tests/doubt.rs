//! What is said of numbers that are none: by table, and against every number that could stand in their place.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use proptest::prelude::*;
use tocsin_promql::{Expr, Limits, MemorySource, Value, instant, judge, weigh};
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::time::Timestamp;

const AT: Timestamp = Timestamp::from_millis(1_000);

/// Samples of a metric `name` at `x="label"`.
type Samples<'a> = [(&'a str, &'a str, f64)];

fn source(samples: &Samples<'_>) -> MemorySource {
    let mut source = MemorySource::new();
    for (name, x, value) in samples {
        source.push(&Labels::series(name, &[("x", *x)]), AT, *value);
    }
    source
}

fn label(labels: &Labels) -> String {
    labels.without(|name| name == METRIC_NAME).get("x").unwrap_or("-").to_owned()
}

/// The labels `x` of the certain elements and of the doubtful ones, sorted.
fn said(text: &str, source: &MemorySource) -> (Vec<String>, Vec<String>) {
    let expr = Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let judged = judge(&expr, source, AT, &Limits::default()).unwrap();
    let Value::Vector(elements) = judged.value else { panic!("{text} is not a vector") };
    if !judged.in_doubt {
        return (sorted(elements.iter().map(|element| label(&element.labels))), Vec::new());
    }
    let weighed = weigh(&expr, source, AT, &Limits::default(), elements).unwrap();
    let certain = weighed.certain.iter().map(|element| label(&element.labels));
    (sorted(certain), sorted(weighed.doubtful.iter().map(label)))
}

fn sorted(labels: impl Iterator<Item = String>) -> Vec<String> {
    let mut labels: Vec<String> = labels.collect();
    labels.sort();
    labels.dedup();
    labels
}

// Cases: R4, C-S6
#[test]
fn nan_makes_doubtful_what_depends_on_it_and_nothing_else() {
    let nan = f64::NAN;
    let samples = [("a", "1", nan), ("a", "2", 9.0), ("a", "3", 0.0), ("b", "1", 9.0), ("b", "2", 9.0)];
    let source = source(&samples);
    for (text, certain, doubtful, why) in [
        ("a > 5", "2", "1", "a threshold is neither met nor missed"),
        ("5 < a", "2", "1", "on either side"),
        ("a <= 5", "3", "1", "by any comparison"),
        ("a != 5", "23", "1", "also by the one that NaN satisfies"),
        ("a == a", "23", "1", "between vectors"),
        ("b > scalar(a{x=\"1\"})", "", "12", "a threshold that is none"),
        ("b != scalar(a{x=\"1\"})", "", "12", "satisfies nothing"),
        ("a", "23", "1", "a value that is none opens nothing"),
        ("a * 2 > 5", "2", "1", "after arithmetic"),
        ("a / 0 > 5", "2", "13", "0 / 0, too"),
        ("a / (a > 0) > 0", "2", "1", "a filter below: 0 / 0 does not come up"),
        ("a > bool 5 == 1", "2", "", "`bool` makes a number of it"),
        ("(a != bool a) == 1", "1", "", "and so finds it"),
        ("a > 5 and b > 5", "2", "1", "what else must hold is met"),
        ("a > 5 and b > 10", "", "", "what else must hold is not met: clear"),
        ("b > 5 and a > 5", "2", "1", "on the other side"),
        ("a > 5 or b > 5", "12", "", "another reason is enough"),
        ("b > 5 or a > 5", "12", "", "on either side"),
        ("a > 5 or b > 10", "2", "1", "and one that is not met is none"),
        ("b unless a > 5", "", "1", "that nothing speaks against it is not known"),
        ("b > 10 unless a > 5", "", "", "clear whatever a is"),
        ("a > 5 unless a > 7", "", "1", "a range"),
        ("a unless a > 5", "3", "1", "the elements without it"),
        ("absent(a{x=\"1\"} > 5)", "", "-", "absence is not known"),
        ("absent(a > 5)", "", "", "there is another"),
        ("sum(a) > 5", "", "-", "a sum with NaN is none"),
        ("sum by (x) (a) > 5", "2", "1", "of each group"),
        ("count(a > 5) > 0", "-", "", "one is enough"),
        ("count(a > 5) > 1", "", "-", "the second may be"),
        ("count(a > 5) > 2", "", "", "there are no three"),
        ("count(a > 5) < 2", "", "-", "and there may be two"),
        ("max(a) > 5", "-", "", "the largest number"),
        ("max_over_time((a > 5)[10s:1s])", "2", "1", "in the past"),
        ("label_replace(a > 5, \"x\", \"n$1\", \"x\", \"(.*)\")", "n2", "n1", "under another name"),
        ("b > 5", "12", "", "without NaN there is no doubt"),
    ] {
        let labels = |all: &str| match all.strip_prefix('n') {
            Some(rest) => vec![format!("n{rest}")],
            None => all.chars().map(String::from).collect::<Vec<_>>(),
        };
        assert_eq!(said(text, &source), (labels(certain), labels(doubtful)), "{text}: {why}");
    }
}

// Cases: R4
#[test]
fn numbers_that_are_extreme_compare_like_any_other() {
    for (value, above, below) in [
        (f64::INFINITY, true, false),
        (f64::NEG_INFINITY, false, true),
        (-0.0, false, false),
        (f64::from_bits(1), true, false),
        (9_007_199_254_740_993_u64 as f64, true, false),
        (f64::MAX, true, false),
        (f64::MIN, false, true),
    ] {
        let source = source(&[("a", "1", value)]);
        for (text, expected) in [("a > 0", above), ("a < 0", below)] {
            let certain = if expected { vec!["1".to_owned()] } else { Vec::new() };
            assert_eq!(said(text, &source), (certain, Vec::new()), "{value} {text}");
        }
    }
}

/// Comparisons of what is computed, joined in any way.
fn conditions() -> impl Strategy<Value = String> {
    let word = |words: &'static [&'static str]| prop::sample::select(words);
    let leaf = word(&["a", "b", "c", "a{x=\"1\"}", "b{x!=\"1\"}"]).prop_map(str::to_owned);
    let number = leaf.prop_recursive(2, 6, 2, move |inner| {
        prop_oneof![
            (inner.clone(), word(&["+", "-", "*"]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.prop_map(|a| format!("sum by (x) ({a})")),
        ]
    });
    let compares = word(&[">", "<", ">=", "<=", "==", "!="]);
    let test = prop_oneof![
        (number.clone(), compares.clone(), 0..9i32).prop_map(|(a, op, n)| format!("({a} {op} {n})")),
        (0..9i32, compares.clone(), number.clone()).prop_map(|(n, op, a)| format!("({n} {op} {a})")),
        (number.clone(), compares, number).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
    ];
    test.prop_recursive(3, 12, 2, move |inner| {
        prop_oneof![
            4 => (inner.clone(), word(&["and", "or", "unless", "and on ()", "unless on ()"]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            1 => inner.prop_map(|a| format!("absent({a})")),
        ]
    })
}

/// Whether it is a number, and which one stands in its place if not.
type Sample = (bool, Vec<i8>);

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let sample = (prop::bool::weighted(0.6), prop::collection::vec(0i8..9, 6));
    prop::collection::vec(sample, 9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    // Cases: R4, C-S6
    #[test]
    fn whatever_the_numbers_are_what_is_certain_holds_and_what_is_clear_does_not(
        text in conditions(),
        samples in samples(),
    ) {
        let series = ["a", "b", "c"].into_iter().flat_map(|name| ["1", "2", "3"].map(|x| (name, x)));
        let series: Vec<(&str, &str)> = series.collect();
        let with = |value: &dyn Fn(&Sample) -> f64| {
            let all = series.iter().zip(&samples).map(|((name, x), sample)| (*name, *x, value(sample)));
            source(&all.collect::<Vec<_>>())
        };
        let unknown = |sample: &Sample| if sample.0 { f64::from(sample.1[0]) } else { f64::NAN };
        let (certain, doubtful) = said(&text, &with(&unknown));
        let expr = Expr::parse(&text).unwrap();
        for at in 0..6 {
            let known = |sample: &Sample| f64::from(sample.1[if sample.0 { 0 } else { at }]);
            let value = instant(&expr, &with(&known), AT, &Limits::default()).unwrap();
            let Value::Vector(elements) = value else { panic!("{text} is not a vector") };
            let holds = sorted(elements.iter().map(|element| label(&element.labels)));
            let missing = certain.iter().find(|label| !holds.contains(label));
            prop_assert_eq!(missing, None, "{}: certain {:?}, holds {:?}", &text, &certain, &holds);
            let more = holds.iter().find(|label| !certain.contains(label) && !doubtful.contains(label));
            prop_assert_eq!(more, None, "{}: certain {:?}, doubtful {:?}, holds {:?}", &text, &certain, &doubtful, &holds);
        }
    }
}
