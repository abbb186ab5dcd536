//! The query engine gives what Prometheus gives: the same questions to both, over the same samples.
//!
//! Left out is what Prometheus 3 changed; `tocsin_tests::differential` lists it. More questions, or others:
//! `TOCSIN_QUESTIONS=20000 TOCSIN_SEED=7 cargo test -p tocsin-tests --test scenarios differential`.

use anyhow::ensure;
use tocsin_tests::differential::data::Data;
use tocsin_tests::differential::prometheus::{Prometheus, get};
use tocsin_tests::differential::{Answer, Respondent, ask, difference, is_known, queries};

/// A few seconds' worth.
const QUESTIONS: usize = 1_500;
const SEED: u64 = 20_231_115;
/// Differences shown at the most.
const SHOWN: usize = 10;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

// Cases: R4 (partly), R6 (partly)
#[tokio::test]
async fn every_answer_is_prometheus_answer() -> anyhow::Result<()> {
    let Some(prometheus) = Prometheus::start().await? else { return Ok(()) };
    let (seed, count) = (setting("TOCSIN_SEED", SEED), setting("TOCSIN_QUESTIONS", QUESTIONS));
    let data = Data::draw(seed);
    prometheus.fill(&data)?;
    let source = data.source();
    let (ours, theirs) = (Respondent::Engine(&source), Respondent::Http(prometheus.address()));
    let (mut different, mut full, mut refused) = (Vec::new(), 0, 0);
    for question in queries::draw(seed, count) {
        let (our, their) = (ask(&ours, &question)?, ask(&theirs, &question)?);
        match &their {
            Answer::Refused(_) => refused += 1,
            Answer::Result { series, .. } => full += usize::from(!series.is_empty()),
        }
        if let Some(why) = difference(&our, &their)
            && !is_known(&question, &their)
        {
            different.push(format!("{} {:?}\n    {why}", question.query, question.when));
        }
    }
    println!("seed {seed}: {count} questions, {full} with a result, {refused} refused");
    ensure!(
        different.is_empty(),
        "seed {seed}: {} of {count} answers differ:\n{}",
        different.len(),
        different.into_iter().take(SHOWN).collect::<Vec<_>>().join("\n")
    );
    ensure!(count / 2 < full, "most questions have no result, only {full}: they ask nothing");
    Ok(())
}

#[tokio::test]
async fn a_query_is_laid_out_as_prometheus_does() -> anyhow::Result<()> {
    let Some(prometheus) = Prometheus::start().await? else { return Ok(()) };
    let questions = queries::draw(SEED, 300).into_iter().map(|question| question.query);
    let texts = LAYOUTS.iter().map(|text| (*text).to_owned()).chain(questions);
    let mut different = Vec::new();
    for text in texts {
        let (_, body) = get(prometheus.address(), "/api/v1/format_query", &[("query", &text)])?;
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let theirs = answer["data"].as_str().map(str::to_owned);
        let ours = tocsin_promql::format(&text).ok();
        // Before a subquery that is no line of its own 2.42 forgets the indentation.
        let lines = |text: &Option<String>| {
            text.as_ref().map(|text| text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n"))
        };
        if lines(&ours) != lines(&theirs) {
            different.push(format!("{text}\n  we:   {ours:?}\n  they: {theirs:?}"));
        }
    }
    ensure!(different.is_empty(), "{} layouts differ:\n{}", different.len(), different.join("\n"));
    Ok(())
}

/// What people paste: everything that a layout may break, escape or abbreviate.
const LAYOUTS: &[&str] = &[
    "foo/bar",
    "sum(rate(http_requests_total{job='api',code=~\"5..\"}[5m]))by(job)/sum(rate(http_requests_total[5m]))by(job)",
    "a{b=\"c\\\"d\\\\e\\nf\"}",
    "a{b=`c\\d`}",
    "x offset 1h30m",
    "x[90s] offset -1d",
    "x @ 1609746000.5",
    "x[5m] @ end() offset 1w",
    "avg_over_time((a + b)[1h:])",
    "max_over_time(rate(a[5m])[1d:1h] @ start())",
    "1e3 + 0x10 + .5 + 1.50 + Inf - NaN",
    // Large and small numbers are left out: 2.42 gives them an exponent, 3 does not.
    "1000 * 12345.125 / 1e2 + 1e-3",
    "-a",
    "-(a + b)",
    "a > bool 1",
    "a == on (x, y) group_left (z) b",
    "a * ignoring (x) group_right b",
    "a and on () b or c unless ignoring (d) e",
    "sum by (a, b) (x)",
    "sum without (a) (x)",
    "topk by (a) (5, x)",
    "quantile(0.9, x)",
    "count_values(\"v\", x)",
    "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)\")",
    "{__name__=~\"a.+\", b!~\"c\", d!=\"e\"}",
    "\"text\"",
    "time() - 5",
    "((a))",
    "a # with a comment\n + b",
    "histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket{job=~\"a|b|c\", env=\"production\"}[5m])))",
    "absent(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{bbbbbbbbbbbbbbbbbbbbb=\"ccccccccccccccccccccccc\", ddddddddddddd=\"eeeeeeeeeee\"})",
    "first_metric_with_a_long_name_that_goes_on{label=\"value\"} / ignoring (one, two) group_left (three) second_metric_with_a_long_name",
    "(first_metric_with_a_long_name_that_goes_on{label=\"value\"} and second_metric_with_a_long_name_that_goes_on{label=\"value\"})[1h:1m]",
    "clamp(first_metric_with_a_long_name_that_goes_on{label=\"value\"} + second_metric_with_a_long_name_that_goes_on, 0, 100)",
];
