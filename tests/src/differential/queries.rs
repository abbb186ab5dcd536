//! Questions drawn by a seed: expressions as people write them, and some that nobody would, over the drawn data.
//!
//! Every kind of node of the language comes up: selectors with every matcher, offsets and `@`, functions of values and of
//! windows, subqueries, aggregations, operators with every way of matching, labels and histograms.

use super::data::{START, STEP, STEPS};
use super::{Question, When};
use crate::dice::Dice;

/// So many questions; the same for the same seed.
pub fn draw(seed: u64, count: usize) -> Vec<Question> {
    let mut dice = Dice::new(seed);
    (0..count).map(|_| question(&mut dice)).collect()
}

fn question(dice: &mut Dice) -> Question {
    let query = match dice.below(14) {
        0 => scalar(dice, 2),
        1 => window(dice, 0),
        _ => vector(dice, 3),
    };
    let at = |dice: &mut Dice| START + i64::try_from(dice.below(STEPS as u64 + 60)).expect("it fits") * STEP;
    let is_window = query.ends_with(']');
    let when = if is_window || dice.once_in(2) {
        When::Instant(at(dice))
    } else {
        let start = at(dice);
        let steps = i64::try_from(1 + dice.below(40)).expect("it fits");
        let step = *dice.one_of(&[STEP, STEP, 2 * STEP, 4 * STEP, 20 * STEP]);
        When::Range { start, end: start + steps * step, step }
    };
    Question { query, when }
}

fn pick(dice: &mut Dice, of: &[&str]) -> String {
    (*dice.one_of(of)).to_owned()
}

const COUNTERS: [&str; 4] =
    ["requests_total", "latency_seconds_count", "latency_seconds_sum", "latency_seconds_bucket"];
const GAUGES: [&str; 4] = ["memory_bytes", "limit_bytes", "temperature", "up"];

fn matchers(dice: &mut Dice) -> String {
    let all = [
        "job=\"api\"",
        "job!=\"api\"",
        "job=~\"a.+|db\"",
        "job!~\"d.*\"",
        "instance=\"a:1\"",
        "instance=~\"[ab]:1\"",
        "code=~\"2..|5..\"",
        "code!=\"404\"",
        "code=\"\"",
        "sensor=\"in\"",
        "le!=\"+Inf\"",
        "nothing=\"\"",
    ];
    match dice.below(5) {
        0 | 1 => String::new(),
        2 | 3 => format!("{{{}}}", dice.one_of(&all)),
        _ => format!("{{{}, {}}}", dice.one_of(&all), dice.one_of(&all)),
    }
}

fn shifts(dice: &mut Dice) -> String {
    match dice.below(12) {
        0 => pick(dice, &[" offset 1m", " offset 5m", " offset -2m", " offset 1h"]),
        1 => format!(" @ {}", (START + 1000 * STEP / 10) / 1000),
        2 => pick(dice, &[" @ start()", " @ end()", " @ end() offset 3m", " offset 30s @ start()"]),
        _ => String::new(),
    }
}

fn selector(dice: &mut Dice, metrics: &[&str]) -> String {
    match dice.below(20) {
        0 => format!("{{__name__=~\"{}|up\", job=\"db\"}}{}", dice.one_of(metrics), shifts(dice)),
        1 => "no_such_metric".to_owned(),
        _ => format!("{}{}{}", dice.one_of(metrics), matchers(dice), shifts(dice)),
    }
}

fn any_selector(dice: &mut Dice) -> String {
    if dice.once_in(2) { selector(dice, &GAUGES) } else { selector(dice, &COUNTERS) }
}

fn span(dice: &mut Dice) -> String {
    pick(dice, &["30s", "1m", "2m30s", "5m", "10m", "30m", "1h"])
}

/// A range vector: of a selector, or of a subquery whose range no step divides.
fn window(dice: &mut Dice, depth: usize) -> String {
    window_of(dice, depth, &[GAUGES, COUNTERS].concat())
}

fn window_of(dice: &mut Dice, depth: usize, metrics: &[&str]) -> String {
    if 0 < depth && dice.once_in(3) {
        let is_any = metrics.len() == GAUGES.len() + COUNTERS.len();
        let inner = if is_any { vector(dice, depth - 1) } else { selector(dice, metrics) };
        let range = pick(dice, &["1m1s", "5m1s", "10m1s"]);
        let step = pick(dice, &["", "15s", "30s", "1m"]);
        return format!("({inner})[{range}:{step}]");
    }
    let metric = dice.one_of(metrics);
    format!("{metric}{}[{}]{}", matchers(dice), span(dice), shifts(dice))
}

fn scalar(dice: &mut Dice, depth: usize) -> String {
    match dice.below(if depth == 0 { 4 } else { 8 }) {
        0 => pick(dice, &["0", "1", "2.5", "-3", "1e3", "0x10", "Inf", "NaN", "0.5"]),
        1 => "time()".to_owned(),
        2 => "pi()".to_owned(),
        3 => format!("{}", dice.below(100)),
        4 => format!("scalar({})", vector(dice, depth - 1)),
        5 => format!("-({})", scalar(dice, depth - 1)),
        6 => {
            let op = pick(dice, &["+", "-", "*", "/", "%", "^", "atan2"]);
            format!("({} {op} {})", scalar(dice, depth - 1), scalar(dice, depth - 1))
        }
        _ => {
            let op = pick(dice, &["==", "!=", "<", ">=", ">", "<="]);
            format!("({} {op} bool {})", scalar(dice, depth - 1), scalar(dice, depth - 1))
        }
    }
}

fn vector(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 {
        return any_selector(dice);
    }
    match dice.below(16) {
        0 => any_selector(dice),
        1 | 2 => rate(dice, depth - 1),
        3 | 4 => over_time(dice, depth - 1),
        5 => each(dice, depth - 1),
        6..=8 => aggregate(dice, depth - 1),
        9 => with_scalar(dice, depth - 1),
        10 => matched(dice, depth - 1),
        11 => grouped(dice),
        12 => set(dice, depth - 1),
        13 => labelled(dice, depth - 1),
        14 => histogram(dice),
        _ => odd(dice, depth - 1),
    }
}

fn rate(dice: &mut Dice, depth: usize) -> String {
    let function = pick(dice, &["rate", "increase", "irate", "delta", "idelta", "resets", "changes"]);
    format!("{function}({})", window_of(dice, depth, &COUNTERS))
}

fn over_time(dice: &mut Dice, depth: usize) -> String {
    let window = window(dice, depth);
    match dice.below(8) {
        0 => format!("quantile_over_time({}, {window})", pick(dice, &["0.5", "0.9", "0", "1", "-1", "2"])),
        1 => {
            let window = format!("{}{}[{}]", dice.one_of(&GAUGES), matchers(dice), span(dice));
            format!("predict_linear({window}, {})", pick(dice, &["60", "3600", "-60"]))
        }
        2 => format!("deriv({window})"),
        3 => format!("absent_over_time({window})"),
        4 => format!(
            "{}_over_time({}[{}])",
            pick(dice, &["stddev", "stdvar"]),
            dice.one_of(&GAUGES),
            span(dice)
        ),
        _ => {
            let kinds = ["avg", "sum", "min", "max", "count", "last", "present"];
            format!("{}_over_time({window})", dice.one_of(&kinds))
        }
    }
}

fn each(dice: &mut Dice, depth: usize) -> String {
    let inner = vector(dice, depth);
    match dice.below(8) {
        0 => format!("clamp({inner}, {}, {})", scalar(dice, 0), scalar(dice, 0)),
        1 => format!("clamp_{}({inner}, {})", pick(dice, &["min", "max"]), scalar(dice, 0)),
        2 => format!("round({inner}, {})", pick(dice, &["5", "0.1", "100"])),
        3 => format!("-{inner}"),
        4 => {
            let parts = [
                "hour",
                "minute",
                "day_of_week",
                "day_of_month",
                "day_of_year",
                "days_in_month",
                "month",
                "year",
            ];
            format!("{}({})", dice.one_of(&parts), any_selector(dice))
        }
        // A large number turns around so often that its last digit decides.
        5 => format!("{}({})", pick(dice, &["sin", "cos", "tan"]), selector(dice, &["up", "temperature"])),
        _ => {
            let functions = [
                "abs",
                "ceil",
                "floor",
                "exp",
                "ln",
                "log2",
                "log10",
                "sqrt",
                "sgn",
                "atan",
                "sinh",
                "tanh",
                "deg",
                "rad",
                "round",
                "sort",
                "sort_desc",
            ];
            format!("{}({inner})", dice.one_of(&functions))
        }
    }
}

fn grouping(dice: &mut Dice) -> String {
    let labels = pick(dice, &["job", "instance", "job, instance", "code", "le", "nothing", "job, le", ""]);
    match dice.below(5) {
        0 => String::new(),
        1 => format!(" without ({labels})"),
        _ => format!(" by ({labels})"),
    }
}

fn aggregate(dice: &mut Dice, depth: usize) -> String {
    let inner = vector(dice, depth);
    let grouping = grouping(dice);
    match dice.below(8) {
        // Few values are equal here, so that which of them is taken does not matter.
        0 => {
            let kind = pick(dice, &["topk", "bottomk"]);
            let k = pick(dice, &["1", "2", "5", "0", "-1", "100"]);
            format!(
                "{kind}{grouping} ({k}, {{__name__=~\"memory_bytes|temperature\", instance=~\"a.*|b.*\"}})"
            )
        }
        1 => format!("quantile{grouping} ({}, {inner})", pick(dice, &["0.5", "0.25", "1", "-0.5", "1.5"])),
        3 => format!("{}{grouping} ({})", pick(dice, &["stddev", "stdvar"]), any_selector(dice)),
        2 => format!("count_values{grouping} (\"value\", up{})", matchers(dice)),
        _ => {
            let kinds = ["sum", "avg", "min", "max", "count", "group"];
            format!("{}{grouping} ({inner})", dice.one_of(&kinds))
        }
    }
}

const ARITHMETIC: [&str; 6] = ["+", "-", "*", "/", "%", "^"];
const COMPARISONS: [&str; 6] = ["==", "!=", "<", ">", "<=", ">="];

fn operator(dice: &mut Dice) -> String {
    match dice.below(3) {
        0 => pick(dice, &COMPARISONS),
        1 => format!("{} bool", dice.one_of(&COMPARISONS)),
        _ => pick(dice, &ARITHMETIC),
    }
}

fn with_scalar(dice: &mut Dice, depth: usize) -> String {
    let (vector, scalar, operator) = (vector(dice, depth), scalar(dice, 1), operator(dice));
    if dice.once_in(2) {
        format!("({vector} {operator} {scalar})")
    } else {
        format!("({scalar} {operator} {vector})")
    }
}

fn matching(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => {
            format!(" on ({})", pick(dice, &["job", "instance", "job, instance", "instance, job, code", ""]))
        }
        1 => format!(" ignoring ({})", pick(dice, &["code", "le", "sensor", "nothing", "code, le, sensor"])),
        _ => String::new(),
    }
}

/// Two sides that often fit together, and sometimes do not: then both must refuse.
fn matched(dice: &mut Dice, depth: usize) -> String {
    let operator = operator(dice);
    match dice.below(3) {
        0 => format!("(memory_bytes{} {operator} limit_bytes{})", matchers(dice), matchers(dice)),
        1 => {
            let by = pick(dice, &["job", "job, instance", "instance"]);
            let (left, right) = (vector(dice, depth), vector(dice, depth));
            format!("(sum by ({by}) ({left}) {operator} avg by ({by}) ({right}))")
        }
        _ => {
            // One that filters would refuse less of 2.42 than of 3.
            let operator = if COMPARISONS.contains(&operator.as_str()) { "+".to_owned() } else { operator };
            format!("({} {operator}{} {})", vector(dice, depth), matching(dice), vector(dice, depth))
        }
    }
}

fn grouped(dice: &mut Dice) -> String {
    let operator = operator(dice);
    let many =
        pick(dice, &["requests_total", "temperature", "rate(requests_total[5m])", "latency_seconds_bucket"]);
    let one = pick(
        dice,
        &["memory_bytes", "sum by (job, instance) (up)", "up{job=\"api\"}", "limit_bytes offset 1m"],
    );
    let on = pick(dice, &["on (job, instance)", "on (instance)", "ignoring (code, sensor, le)"]);
    let include = pick(dice, &["", " ()", " (job)", " (nothing)"]);
    match dice.once_in(2) {
        true => format!("({many} {operator} {on} group_left{include} {one})"),
        false => format!("({one} {operator} {on} group_right{include} {many})"),
    }
}

fn set(dice: &mut Dice, depth: usize) -> String {
    let operator = pick(dice, &["and", "or", "unless"]);
    format!("({} {operator}{} {})", vector(dice, depth), matching(dice), vector(dice, depth))
}

fn labelled(dice: &mut Dice, depth: usize) -> String {
    let inner = vector(dice, depth);
    match dice.below(4) {
        0 => format!("label_join({inner}, \"all\", \"-\", \"job\", \"instance\", \"code\")"),
        1 => format!("label_replace({inner}, \"host\", \"$1\", \"instance\", \"(.+):.*\")"),
        2 => format!("label_replace({inner}, \"job\", \"${{1}}x\", \"job\", \"(a).*\")"),
        _ => format!("label_replace({inner}, \"code\", \"\", \"nothing\", \"\")"),
    }
}

fn histogram(dice: &mut Dice) -> String {
    let quantile = pick(dice, &["0.5", "0.9", "0.99", "0", "1", "-1", "1.5"]);
    let buckets =
        format!("latency_seconds_bucket{}", pick(dice, &["", "{job=\"api\"}", "{instance!=\"a:1\"}"]));
    match dice.below(4) {
        0 => format!("histogram_quantile({quantile}, {buckets})"),
        1 => format!("histogram_quantile({quantile}, rate({buckets}[{}]))", span(dice)),
        2 => format!("histogram_quantile({quantile}, sum by (le) (rate({buckets}[5m])))"),
        _ => {
            format!("histogram_quantile({quantile}, sum by (job, le) (increase({buckets}[{}])))", span(dice))
        }
    }
}

fn odd(dice: &mut Dice, depth: usize) -> String {
    match dice.below(6) {
        0 => format!("absent({})", any_selector(dice)),
        1 => "absent(no_such_metric{job=\"x\", a=~\"b\", c=\"\"})".to_owned(),
        2 => format!("vector({})", scalar(dice, depth)),
        3 => "hour()".to_owned(),
        4 => format!("(({}))", vector(dice, depth)),
        _ => format!("timestamp({}{})", dice.one_of(&GAUGES), matchers(dice)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_repeat_parse_and_are_of_every_kind() {
        let questions = draw(1, 2_000);
        assert!(draw(1, 2_000).iter().zip(&questions).all(|(a, b)| a.query == b.query && a.when == b.when));
        // A few make no sense on purpose: both must refuse them.
        let refused =
            questions.iter().filter(|question| tocsin_promql::Expr::parse(&question.query).is_err());
        assert!(refused.count() < questions.len() / 20);
        let kinds = [
            "rate(",
            "[5m1s:",
            "@ start()",
            "offset -",
            "group_left",
            "group_right",
            " bool ",
            "unless",
            "without",
            "on ()",
            "histogram_quantile(",
            "label_replace(",
            "count_values",
            "topk",
            "absent_over_time",
            "scalar(",
            "predict_linear",
            "quantile_over_time",
            "stddev",
            "atan2",
            "code!=",
        ];
        for kind in kinds {
            assert!(questions.iter().any(|question| question.query.contains(kind)), "no question has {kind}");
        }
        let ranges = questions.iter().filter(|question| matches!(question.when, When::Range { .. })).count();
        assert!((500..1500).contains(&ranges));
    }
}
