//! That a case which is not so fails, whatever of it is not so.

use super::{Outcome, run};

const LOADED: &str = "load 1m\n  up{job=\"a\"} 1 2 3 stale\n  up{job=\"b\"} 0x3\n  wait_bucket{le=\"1\"} 2x3\n  \
                      wait_bucket{le=\"2\"} 1x3\n  wait_bucket{le=\"+Inf\"} 3x3\n  wait_bucket{le=\"x\"} 3x3\n\n";

/// What comes of the one case of a text: `pass`, `skip` and its kind, or `fail` and why.
fn outcome(case: &str) -> String {
    let report = run(&format!("{LOADED}{case}"));
    assert_eq!(report.cases.len(), 1, "{case}: {report:?}");
    match &report.cases[0].outcome {
        Outcome::Passed => "pass".to_owned(),
        Outcome::Skipped(skip) => format!("skip {skip}"),
        Outcome::Failed(why) => format!("fail {why}"),
    }
}

#[test]
fn a_changed_expectation_fails() {
    for (case, expected) in [
        ("eval instant at 1m up\n  up{job=\"a\"} 2\n  up{job=\"b\"} 0", "pass"),
        ("eval instant at 1m up\n  up{job=\"a\"} 2.00001\n  up{job=\"b\"} 0", "fail expected 2.00001 for"),
        ("eval instant at 1m up\n  up{job=\"a\"} 2.000001\n  up{job=\"b\"} 0", "pass"),
        (
            "eval instant at 1m up\n  up{job=\"a\"} 2\n  up{job=\"b\"} 1e-12",
            "fail expected 0.000000000001 for",
        ),
        ("eval instant at 1m up\n  up{job=\"a\"} 2", "fail expected no series up{job=\"b\"}"),
        (
            "eval instant at 1m up > 1\n  up{job=\"a\"} 2\n  up{job=\"b\"} 0",
            "fail expected up{job=\"b\"} with 0",
        ),
        ("eval instant at 1m up\n", "fail expected no series"),
        ("eval instant at 9m up", "pass"),
        ("eval instant at 1m sort(up)\n  expect ordered\n  up{job=\"b\"} 0\n  up{job=\"a\"} 2", "pass"),
        (
            "eval instant at 1m sort(up)\n  expect ordered\n  up{job=\"a\"} 2\n  up{job=\"b\"} 0",
            "fail expected up{job=\"b\"} as number 2",
        ),
        (
            "eval_ordered instant at 1m sort_desc(up)\n  up{job=\"b\"} 0\n  up{job=\"a\"} 2",
            "fail expected up{job=\"a\"} as number 2",
        ),
        ("eval instant at 1m scalar(up{job=\"a\"})\n  2", "pass"),
        ("eval instant at 1m scalar(up{job=\"a\"})\n  3", "fail expected 3, got 2"),
        ("eval instant at 1m 0x1F\n  31", "pass"),
        ("eval instant at 1m 2\n  {} 2", "fail expected series"),
        ("eval instant at 1m up\n  2", "fail expected a number"),
        ("eval instant at 1m \"x\"\n  expect string \"x\"", "pass"),
        ("eval instant at 1m \"x\"\n  expect string `y`", "fail expected the string \"y\""),
        ("eval instant at 1m \"x\"", "fail expected the string \"\""),
    ] {
        let got = outcome(case);
        assert!(got.starts_with(expected), "{case}\n  {got}");
    }
}

#[test]
fn ranges_are_compared_at_every_instant() {
    for (case, expected) in [
        ("eval range from 0 to 2m step 1m up{job=\"a\"}\n  up{job=\"a\"} 1 2 3", "pass"),
        (
            "eval range from 0 to 2m step 1m up{job=\"a\"}\n  up{job=\"a\"} 1 2 4",
            "fail expected 1 at 0 s, 2 at 60 s, 4",
        ),
        (
            "eval range from 0 to 2m step 1m up{job=\"a\"}\n  up{job=\"a\"} 1 2",
            "fail expected 1 at 0 s, 2 at 60 s for",
        ),
        (
            "eval range from 0 to 2m step 1m up{job=\"a\"}\n  up{job=\"a\"} 1 _ 3",
            "fail expected 1 at 0 s, 3 at 120 s",
        ),
        ("eval range from 0 to 3m step 1m up{job=\"a\"}\n  up{job=\"a\"} 1 2 3 _", "pass"),
        (
            "eval range from 0 to 2m step 1m up{job=\"a\"}\n  up{job=\"a\"} 1 2 3 4",
            "fail 4 values are expected",
        ),
        ("eval range from 0 to 2m step 1m 7\n  {} 7 7 7", "pass"),
        ("eval range from 2m to 0 step 1m up", "fail the range ends before it starts"),
        ("eval range from 0 to 1m step 0 up", "fail the step of a range"),
        (
            "eval instant at 2m up{job=\"a\"}[2m]\n  expect range vector from 1m to 2m step 1m\n  up{job=\"a\"} 2 3",
            "pass",
        ),
        (
            "eval instant at 2m up{job=\"a\"}[2m]\n  expect range vector from 0 to 2m step 1m\n  up{job=\"a\"} 1 2 3",
            "fail expected 1 at 0 s",
        ),
        (
            "eval instant at 2m up{job=\"a\"}[2m]\n  up{job=\"a\"} 2 3",
            "fail line 10: an instant has one value",
        ),
    ] {
        let got = outcome(case);
        assert!(got.starts_with(expected), "{case}\n  {got}");
    }
}

#[test]
fn errors_and_annotations_are_compared_too() {
    let quantile = "eval instant at 1m histogram_quantile(0.5, wait_bucket)\n";
    let same = "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"x\" for metric name \
                \"wait_bucket\" (1:25)";
    let (pass, fail) = ("pass", "fail expected");
    for (case, expected) in [
        (format!("{quantile}  {{}} 0.75"), pass),
        (format!("{quantile}  expect warn\n  expect info\n  {{}} 0.75"), pass),
        (format!("{quantile}  expect warn msg: {same}\n  {{}} 0.75"), pass),
        (format!("{quantile}  expect warn msg: {same}.\n  {{}} 0.75"), fail),
        (format!("{quantile}  expect warn regex: bucket.*\\(1:25\\)\n  {{}} 0.75"), pass),
        (format!("{quantile}  expect warn regex: bucket.*\\(1:26\\)\n  {{}} 0.75"), fail),
        (format!("{quantile}  expect no_warn\n  {{}} 0.75"), "fail expected no warning"),
        (format!("{quantile}  expect no_info\n  {{}} 0.75"), "fail expected no info"),
        (format!("{quantile}  expect warn\n  expect no_warn\n  {{}} 0.75"), "fail line 11: an annotation cannot"),
        (format!("{}  {{}} 0.75", quantile.replace("eval", "eval_warn")), pass),
        (format!("{}  {{}} 0.75", quantile.replace("eval", "eval_info")), pass),
        ("eval_warn instant at 1m vector(1)\n  {} 1".to_owned(), "fail expected any warning"),
        ("eval_info instant at 1m vector(1)\n  {} 1".to_owned(), "fail expected any info"),
        ("eval instant at 1m rate(up[5m])\n  expect info regex: name does not end in _total.*\"up\" \\(1:6\\)\n  {job=\"a\"} 0.01\n  {job=\"b\"} 0".to_owned(), fail),
        ("eval instant at 1m count_values('a\\xc5z', up)\n  expect fail msg: invalid label name \"a\\xc5z\"".to_owned(), pass),
        ("eval instant at 1m up + on () up\n  expect fail".to_owned(), pass),
        ("eval_fail instant at 1m up + on () up".to_owned(), pass),
        ("eval_fail instant at 1m up".to_owned(), "fail expected it to fail"),
        ("eval instant at 1m up + on () up".to_owned(), "fail expected a result"),
        ("eval instant at 1m up + on () up\n  expect fail msg: no such words".to_owned(), "fail expected the error"),
        ("eval instant at 1m up + on () up\n  expect fail regex: ^found duplicate series.* \\{\\} on the right".to_owned(), pass),
        ("eval_fail instant at 1m {__name__=~\"wait.*|up\"} * 0 + on () up\n  expected_fail_regexp many-to-many".to_owned(), pass),
        ("eval_fail instant at 1m up + on () up\n  expected_fail_message other".to_owned(), fail),
    ] {
        let got = outcome(&case);
        assert!(got.starts_with(expected), "{case}\n  {got}");
    }
}

#[test]
fn what_is_not_judged_is_skipped_by_kind() {
    for (case, expected) in [
        ("eval instant at 1m histogram_count(up)", "skip native histograms"),
        ("eval instant at 1m up\n  {} {{schema:0 sum:1 count:1}}", "skip native histograms"),
        ("eval instant at 1m mad_over_time(up[5m])", "skip experimental: the function mad_over_time()"),
        ("eval instant at 1m limitk(1, up)", "skip experimental: the aggregation limitk"),
        ("eval instant at 1m info(up)", "skip experimental: the function info()"),
        ("eval instant at 1m up + fill(0) up", "skip experimental: the fill modifier"),
        (
            "eval instant at 1m rate(up[5m] anchored)",
            "skip experimental: the modifiers anchored and smoothed",
        ),
        ("eval instant at 1m rate(up[5m+1m])", "skip experimental: arithmetic with durations"),
    ] {
        assert_eq!(outcome(case), expected, "{case}");
    }
    let report = run(
        "load_with_nhcb 1m\n  h_bucket{le=\"1\",a=\"1\"} 1\n  g{a=\"2\"} {{schema:0}}x3\n  @st 1m\n  c 1\n\n\
         eval instant at 0 h_bucket\n  h_bucket{le=\"1\",a=\"1\"} 1\n\neval instant at 0 h\n\neval instant at 0 h{le=\"1\"}\n\n\
         eval instant at 0 g{a=\"1\"}\n\neval instant at 0 g\n\neval instant at 0 c\n  c 2",
    );
    let outcomes: Vec<String> = report.cases.iter().map(|case| format!("{:?}", case.outcome)).collect();
    let (pass, skip) = ("Passed", "Skipped(NativeHistograms)");
    assert_eq!(outcomes, [pass, skip, pass, pass, skip, "Skipped(StartTimestamps)"]);
    assert_eq!(report.counts(), (3, 0, 3));
}

#[test]
fn what_cannot_be_read_is_a_failure_at_its_line() {
    let text = "nonsense\n\nload\n\nload 1x\n  up 1\n\nload 1m\n  up 1\n  up{ 2\n  a 3\n\neval instant at\n\neval instant at 1m\n\n\
                eval somehow\n\neval instant at 1m sum(\n\neval instant at 0 a\n  expect nothing\n\neval instant at 0 a\n  a b\n# after\n  a 3\n";
    let report = run(text);
    let lines: Vec<usize> = report.cases.iter().map(|case| case.line).collect();
    assert_eq!(lines, [1, 3, 5, 8, 13, 15, 17, 19, 21, 24, 27], "{report:#?}");
    assert_eq!(report.counts(), (0, 11, 0));
    let why = |at: usize| format!("{:?}", report.cases[at].outcome);
    assert!(why(3).contains("line 10: "), "{}", why(3));
    assert!(why(9).contains("line 25: "), "{}", why(9));
}

#[test]
fn a_command_needs_no_empty_line_before_it() {
    let report =
        run("load 1m\n  load_avg 1\n  clear_total 2\neval instant at 0 load_avg\n  load_avg 1\nclear\n\
                      eval instant at 0 load_avg\neval instant at 0 1\n  1\n");
    assert_eq!(report.counts(), (3, 0, 0), "{report:#?}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(words in proptest::collection::vec(word(), 0..40)) {
        run(&words.concat());
    }
}

fn word() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::strategy::{Just, Strategy as _};
    let known = [
        "load 1m\n",
        "load_with_nhcb 5m\n",
        "eval instant at 1m ",
        "eval range from 0 to 5m step 1m ",
        "clear\n",
        "\n",
        " ",
        "  up",
        "{",
        "}",
        "a=\"1\"",
        ",",
        "1x3",
        "1+2x3",
        "_",
        "stale",
        "{{schema:0}}",
        "expect ",
        "warn",
        "msg: ",
        "fail",
        "range vector from 0 to 1m step 1m\n",
        "string \"x",
        "\"",
        "eval_fail ",
        "@st 1m",
        "\\",
        "sum(up)",
        "[5m]",
        "#",
        "é",
    ];
    proptest::prop_oneof![
        10 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => proptest::string::string_regex("[ -~\n]{0,6}").expect("it is a pattern"),
        1 => Just("\n  ".to_owned()),
    ]
}
