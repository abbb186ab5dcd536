//! What is known of an expression without samples, what is refused, and the limits of an evaluation.

use std::time::Duration;

use proptest::prelude::*;
use tocsin_promql::{
    EvalError, Expr, Limits, MemorySource, Options, ParseError, Value, instant, instant_with, range,
    range_with,
};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::{Timestamp, format_duration};

fn parse(text: &str) -> Expr {
    Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn an_expression_is_host_local_when_its_elements_keep_and_match_the_instance() {
    for (text, expected) in [
        ("node_load1", true),
        ("node_load1 > 5", true),
        ("5 < node_load1 * 60", true),
        ("rate(x[5m]) > time() / 2", true),
        ("a / b < 0.1", true),
        ("a / on(instance) b", true),
        ("a / on(device) b", false),
        ("a and on() b", false),
        ("a and ON (instance, device) b == 0", true),
        ("a / ignoring(mode) b", true),
        ("a / ignoring(instance) b", false),
        ("a * on(instance) group_left(nodename) b", true),
        ("sum(a)", false),
        ("sum by (instance, mode) (a)", true),
        ("sum by (mode) (a)", false),
        ("sum without (cpu) (a)", true),
        ("sum without (instance) (a)", false),
        ("a / count(b) without (cpu)", true),
        ("a / sum(b)", false),
        ("topk by (instance) (1, a)", true),
        ("topk(1, a)", false),
        ("max by (instance) (sum(a))", false),
        ("count_values by (instance) (\"v\", a)", true),
        ("count_values without (cpu) (\"instance\", a)", false),
        ("1 + 1", false),
        ("time()", false),
        ("vector(1)", false),
        ("a or vector(0)", false),
        ("absent(a)", false),
        ("absent(a{instance=\"x\"})", false),
        ("absent_over_time(a[5m])", false),
        ("a > scalar(b)", false),
        ("clamp_max(a, scalar(b))", false),
        ("clamp_max(a, 1 + 2 * pi())", true),
        ("max_over_time(rate(a[1m])[1h:1m])", true),
        ("max_over_time(sum(a)[1h:1m])", false),
        ("label_replace(a, \"instance\", \"x\", \"\", \"\")", false),
        ("label_replace(a, \"host\", \"$1\", \"instance\", \"(.*)\")", true),
        ("label_join(a, \"instance\", \",\", \"b\")", false),
        ("hour()", false),
        ("hour(a)", true),
        ("-a", true),
        ("timestamp(a) < time() - 60", true),
        ("histogram_quantile(0.9, rate(a[5m]))", true),
        ("histogram_quantile(0.9, sum by (le) (rate(a[5m])))", false),
        ("\"text\"", false),
        ("a[5m]", true),
    ] {
        assert_eq!(parse(text).is_host_local(), expected, "{text}");
    }
}

#[test]
fn the_longest_range_counts_windows_offsets_and_look_back() {
    for (text, expected) in [
        ("1", "0s"),
        ("a", "5m"),
        ("a offset 1h", "1h5m"),
        ("a offset -1h", "0s"),
        ("rate(a[1m])", "1m"),
        ("rate(a[1m]) / b", "5m"),
        ("rate(a[1d] offset 1h)", "1d1h"),
        ("max_over_time(rate(a[5m])[1h:1m])", "1h5m"),
        ("max_over_time(a[1h:1m] offset 1d)", "1d1h5m"),
        ("a > scalar(avg_over_time(b[1w]))", "1w"),
        ("absent_over_time(a[2h])", "2h"),
    ] {
        assert_eq!(format_duration(parse(text).longest_range()), expected, "{text}");
    }
}

#[test]
fn selectors_have_dense_ids_in_order_and_match_labels() {
    let expr = parse("rate(a{x=\"1\"}[5m]) / on() sum({__name__=~\"b|c\"}) > c offset 5m");
    let ids: Vec<usize> = expr.selectors().iter().map(|selector| selector.id).collect();
    assert_eq!(ids, [0, 1, 2]);
    let metrics: Vec<_> = expr.selectors().iter().map(|selector| selector.metric()).collect();
    assert_eq!(metrics, [Some("a"), None, Some("c")]);
    assert!(expr.selectors()[0].matches(&Labels::series("a", &[("x", "1"), ("y", "2")])));
    assert!(!expr.selectors()[0].matches(&Labels::series("a", &[("x", "2")])));
}

#[test]
fn an_evaluation_ends_when_it_is_told_to_and_looks_back_as_far_as_it_is_told() {
    let mut source = MemorySource::new();
    for host in 0..3_000 {
        let labels = Labels::series("a", &[("host", &host.to_string())]);
        (0..20).for_each(|at| source.push(&labels, Timestamp::from_millis(at * 10_000), 1.0));
    }
    let at = Timestamp::from_millis(200_000);
    for text in ["a", "sum(rate(a[5m]))", "quantile(0.5, a) + a", "topk(5, a)"] {
        let expr = Expr::parse(text).unwrap();
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() == 1
        };
        let options = Options { stop: &stop, ..Options::default() };
        let (start, step) = (Timestamp::from_millis(0), std::time::Duration::from_secs(1));
        let stopped = range_with(&expr, &source, (start, at), step, &options);
        assert_eq!((stopped, asked.get()), (Err(EvalError::Stopped), 1), "{text}");
        let goes_on = instant_with(&expr, &source, at, &Options::default());
        assert!(goes_on.is_ok(), "{text}");
    }
    let expr = Expr::parse("count(a)").unwrap();
    for (look_back, found) in [(5, 0), (10, 0), (11, 1), (300, 1)] {
        let look_back = std::time::Duration::from_secs(look_back);
        let options = Options { look_back, ..Options::default() };
        let answer = instant_with(&expr, &source, at, &options).unwrap();
        assert!(matches!(answer.value, Value::Vector(elements) if elements.len() == found), "{look_back:?}");
    }
}

#[test]
fn a_query_is_laid_out_in_one_form_and_stays_the_same_query() {
    for (text, expected) in [
        (" sum( a )by( b ) ", "sum by (b) (a)"),
        ("Inf + -Inf + a{b=\"Inf\"} > +Inf", "+Inf + -Inf + a{b=\"Inf\"} > +Inf"),
        ("{\"a.b\", c=\"d\"}", "{__name__=\"a.b\",c=\"d\"}"),
        ("sum by (\"a.b\") (c)", "sum by (\"a.b\") (c)"),
        ("a @ -5", "a @ -5"),
        ("1_000", "1000"),
        ("a # why", "a"),
    ] {
        let laid_out = tocsin_promql::format(text).unwrap();
        assert_eq!(laid_out, expected, "{text}");
        assert_eq!(tocsin_promql::format(&laid_out).unwrap(), laid_out, "{text}");
    }
    assert!(tocsin_promql::format("sum(").is_err());
}

#[test]
fn what_is_not_supported_or_makes_no_sense_is_refused_at_parse_time() {
    for (text, part) in [
        ("", "empty"),
        ("sum(", "does not parse"),
        ("histogram_count(a)", "native histograms are not supported"),
        ("histogram_avg(a)", "native histograms are not supported"),
        ("info(a)", "not supported"),
        ("limitk(1, a)", "not supported"),
        ("sort_by_label(a, \"b\")", "not supported"),
        ("a + fill(0) b", "not supported"),
        ("{a=\"1\" or b=\"2\"}", "not supported"),
        ("nonsense(a)", "nonsense"),
        ("rate(a[5m] smoothed)", "does not parse"),
        ("rate(a[5m] anchored)", "does not parse"),
        ("rate(a[2 * 5m])", "does not parse"),
        ("a offset (5m)", "does not parse"),
        ("start_timestamp(a)", "not supported"),
        ("integral(a[5m], 1)", "not supported"),
        ("histogram_avg(a)", "native histograms are not supported"),
        ("limit_ratio(0.5, a)", "not supported"),
        ("a @ 1 @ 2", "multiple"),
        ("a * on (x) group_left (x) b", "must not occur"),
        ("a and on (x) group_left () b", "no grouping"),
        ("a + bool b", "bool"),
        ("sum(a, b)", "number of arguments"),
        ("rate(a[0s])", "greater than 0"),
        ("a{b=\"1\"}{c=\"2\"}", "does not parse"),
        ("topk(a, b)", "scalar"),
        ("vector(a)", "scalar"),
        ("scalar(1)", "vector"),
        ("label_join(a, b, c)", "string"),
        ("time()[5m:1m]", "vector"),
        ("rate(a)", "matrix"),
        ("sum(a[5m])", "type"),
        ("1 and a", "scalar"),
        ("1 > 2", "bool"),
        ("a{b=~\"(\"}", "regex"),
        ("{b=~\".*\"}", "matcher"),
        ("label_replace(a, \"\", \"\", \"\", \"\")", "invalid label name"),
        ("exp(NaN)", "instant vector"),
        ("a[5m] + 1", "vector"),
    ] {
        let error = match Expr::parse(text) {
            Ok(_) => panic!("{text} parses"),
            Err(error) => error.to_string(),
        };
        assert!(error.to_lowercase().contains(part), "{text}: {error}");
    }
}

// Cases: R17
#[test]
fn deep_and_long_texts_are_refused_without_recursing() {
    let nested = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let chained = vec!["1"; 10_000].join("+");
    let minus = format!("{}a", "-".repeat(10_000));
    let words = vec!["a"; 5_000].join(" or ");
    for text in [&nested, &chained, &minus, &words] {
        assert!(matches!(Expr::parse(text), Err(ParseError::TooDeep)), "{}…", &text[..20]);
    }
    assert!(matches!(Expr::parse(&"a ".repeat(40_000)), Err(ParseError::TooLong(_))));
    for (text, why) in [
        (vec!["a"; 95].join(" or "), "a chain"),
        (format!("{}a{}", "sum(".repeat(95), ")".repeat(95)), "aggregations"),
        (format!("{}a{}", "abs(1 + ".repeat(48), ")".repeat(48)), "functions and operators"),
        (format!("{}a{}", "max_over_time(".repeat(95), "[1m:1m])".repeat(95)), "subqueries"),
    ] {
        let expr = Expr::parse(&text).unwrap_or_else(|error| panic!("{why}: {error}"));
        instant(&expr, &MemorySource::new(), Timestamp::from_millis(0), &Limits::default()).unwrap();
    }
}

// Cases: R17
#[test]
fn an_evaluation_keeps_its_limits() {
    let mut source = MemorySource::new();
    for host in ["a", "b", "c"] {
        for at in 0..100 {
            source.push(&Labels::series("x", &[("instance", host)]), Timestamp::from_millis(at * 1000), 1.0);
        }
    }
    let at = Timestamp::from_millis(99_000);
    let limits = |samples, series| Limits { samples, series, ..Limits::default() };
    let run = |limits: Limits| instant(&parse("sum_over_time(x[1m])"), &source, at, &limits);
    assert!(run(limits(1000, 3)).is_ok());
    assert_eq!(run(limits(100, 3)), Err(EvalError::TooManySamples { limit: 100 }));
    assert_eq!(run(limits(1000, 2)), Err(EvalError::TooManySeries { limit: 2 }));

    let start = Timestamp::from_millis(0);
    let over =
        |end, step| range(&parse("x"), &source, start, Timestamp::from_millis(end), step, &Limits::default());
    let second = Duration::from_secs(1);
    assert!(over(10_999_000, second).is_ok());
    assert_eq!(over(11_000_000, second), Err(EvalError::TooManySteps { steps: 11_001, limit: 11_000 }));
    assert_eq!(over(-1, second), Err(EvalError::InvalidRange));
    assert_eq!(over(1, Duration::ZERO), Err(EvalError::InvalidStep));
    for at in 0..1000 {
        source.push(&Labels::series("dense", &[]), Timestamp::from_millis(at), 1.0);
    }
    let overlapping = parse("sum_over_time(dense[1d])");
    let few = Limits { samples: 20_000, ..Limits::default() };
    let work = range(&overlapping, &source, start, Timestamp::from_millis(10_000_000), second, &few);
    assert_eq!(work, Err(EvalError::TooMuchWork));
    let endless = parse("max_over_time(x[10000y:1ms])");
    assert!(matches!(
        instant(&endless, &source, at, &Limits::default()),
        Err(EvalError::TooManySamples { .. })
    ));
}

#[test]
fn the_syntax_of_prometheus_3_is_understood() {
    let mut source = MemorySource::new();
    let pairs = [("path", r"a\.b"), ("on", "1"), ("le", "x\"y"), ("utf.8", "ü")];
    let labels = Labels::series("disk:io:rate5m", &pairs);
    source.push(&labels, Timestamp::from_millis(0), 7.0);
    source.push(&Labels::series("dotted.name", &[]), Timestamp::from_millis(0), 7.0);
    for text in [
        "disk:io:rate5m",
        "disk:io:rate5m{}",
        r#"disk:io:rate5m{path="a\\.b",}"#,
        r"disk:io:rate5m{path='a\\.b'}",
        r"disk:io:rate5m{path=`a\.b`}",
        r#"disk:io:rate5m{path=~"a\\\\\\.b"}"#,
        r#"disk:io:rate5m{on="1"}"#,
        r#"disk:io:rate5m{le="x\"y"}"#,
        r#"disk:io:rate5m{"utf.8"="ü"}"#,
        r#"{"dotted.name"}"#,
        r#"{__name__="dotted.name"}"#,
        r#"{__name__=~"disk:.+", on="1"}"#,
        "SUM(disk:io:rate5m)",
        "sum by (on,) (disk:io:rate5m)",
        "sum without (path, le,) (disk:io:rate5m)",
        "max(disk:io:rate5m) BY (on)",
        r#"sum by ("utf.8") (disk:io:rate5m)"#,
        "disk:io:rate5m\n  # a comment\n  > 1e0\n",
        "disk:io:rate5m == 0x7",
        "disk:io:rate5m > .5",
        "disk:io:rate5m [5m] ",
        "last_over_time(disk:io:rate5m [1h30m])",
        "sum_over_time(disk:io:rate5m[1m:])",
        "disk:io:rate5m @ 0.001 offset 1ms",
        "disk:io:rate5m * on(on) group_left disk:io:rate5m",
        "disk:io:rate5m and IGNORING () disk:io:rate5m",
        "-disk:io:rate5m + 2 ^ 3 ^ 2 * 0 + 14",
    ] {
        let seven = match instant(&parse(text), &source, Timestamp::from_millis(0), &Limits::default()) {
            Ok(Value::Vector(elements)) => elements.len() == 1 && [7.0, 49.0].contains(&elements[0].value),
            Ok(Value::Matrix(series)) => series.len() == 1 && series[0].points[0].value == 7.0,
            _ => false,
        };
        assert!(seven, "{text}");
    }
}

#[test]
fn expressions_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync + Clone>(_: &T) {}
    shareable(&parse("rate(a{x=~\".+\"}[5m])"));
}

#[test]
fn the_four_kinds_of_results() {
    let mut source = MemorySource::new();
    let labels = Labels::series("x", &[("instance", "a")]);
    source.push(&labels, Timestamp::from_millis(1000), 7.0);
    let run = |text: &str| {
        instant(&parse(text), &source, Timestamp::from_millis(2000), &Limits::default()).unwrap()
    };
    assert_eq!(run("1 + 1"), Value::Scalar(2.0));
    assert_eq!(run("\"a\""), Value::Text("a".to_owned()));
    assert!(matches!(run("x"), Value::Vector(elements) if elements.len() == 1 && elements[0].value == 7.0));
    let Value::Matrix(series) = run("x[5s]") else { panic!("x[5s] is a matrix") };
    assert_eq!((series.len(), &series[0].labels, series[0].points.len()), (1, &labels, 1));
    let matrix = range(
        &parse("x[5s]"),
        &source,
        Timestamp::from_millis(0),
        Timestamp::from_millis(1),
        Duration::from_secs(1),
        &Limits::default(),
    );
    assert_eq!(matrix, Err(EvalError::NotSteppable("a range vector")));
}

// Cases: T8
#[test]
fn extreme_instants_and_offsets_do_not_panic() {
    let mut source = MemorySource::new();
    source.push(&Labels::series("x", &[]), Timestamp::MAX, 1.0);
    source.push(&Labels::series("x", &[]), Timestamp::MIN, 1.0);
    for text in ["x", "rate(x[5m])", "x offset 290y", "x offset -290y", "sum_over_time(x[1h:1m])", "x @ 1e12"]
    {
        for at in [Timestamp::MIN, Timestamp::MAX, Timestamp::from_millis(0)] {
            instant(&parse(text), &source, at, &Limits::default()).ok();
            range(&parse(text), &source, at, at, Duration::MAX, &Limits::default()).ok();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ a-c0-9(){}\\[\\]\"',:@=~!<>+*/^-]{0,40}|\\PC{0,30}") {
        let _parsed = Expr::parse(&text).is_ok();
    }

    /// Words of the language in any order: what parses must also evaluate without panic.
    // Cases: R4 (partly), R17
    #[test]
    fn no_mix_of_words_makes_the_engine_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "(", ")", "[5m]", "[5m:1m]", "sum", "by", "(x)", "rate", "offset 1m", "@ end()", "@ 1e9", "1",
            "-", "+", "/", "and", "or", "unless", "on", "(instance)", "group_left", ">", "bool", "==", "\"t\"",
            "topk", "(1, a)", "quantile", "(NaN, a)", "scalar", "vector", "absent", "time()", ",", "{x=~\"1|2\"}",
            "count_values", "(\"v\", a)", "histogram_quantile", "max_over_time", "avg_over_time", "label_replace",
            "1e999", "0x1F", "Inf", "5m",
        ]), 1..8),
    ) {
        let mut source = MemorySource::new();
        for (at, value) in [1.0, f64::NAN, -3.0, f64::INFINITY].into_iter().enumerate() {
            for name in ["a", "b"] {
                let labels = Labels::series(name, &[("x", "1"), ("instance", "h")]);
                source.push(&labels, Timestamp::from_millis(at as i64 * 10_000), value);
            }
        }
        if let Ok(expr) = Expr::parse(&words.join(" ")) {
            let at = Timestamp::from_millis(30_000);
            instant(&expr, &source, at, &Limits::default()).ok();
            let start = Timestamp::from_millis(0);
            range(&expr, &source, start, at, Duration::from_secs(5), &Limits::default()).ok();
        }
    }
}
