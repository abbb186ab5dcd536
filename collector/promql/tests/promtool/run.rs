//! Runs the commands of a file and compares what comes out.

use tocsin_promql::{Element, Expr, Limits, MemorySource, SeriesPoints, Value, instant, range};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use crate::script::{self, Command};

pub enum Outcome {
    Passed,
    /// Needs something that is refused on purpose.
    Skipped,
    Failed(String),
}

/// Runs a file; one outcome per `eval`.
pub fn run(text: &str) -> Vec<(String, Outcome)> {
    let mut source = MemorySource::new();
    // Series with native histograms in them were not loaded, so what reads them cannot be judged.
    let mut left_out: Vec<String> = Vec::new();
    let mut outcomes = Vec::new();
    for command in script::commands(text) {
        match command.head.split_whitespace().next() {
            Some("clear") => {
                source = MemorySource::new();
                left_out.clear();
            }
            Some("load") => load(&command, &mut source, &mut left_out),
            _ => outcomes.push((command.head.clone(), eval(&command, &source, &left_out))),
        }
    }
    outcomes
}

fn load(command: &Command, source: &mut MemorySource, left_out: &mut Vec<String>) {
    let step = script::span(command.head.trim_start_matches("load").trim());
    for line in &command.body {
        let (labels, rest) = script::labels_and_rest(line);
        let labels = labels.expect("a loaded series has labels");
        if rest.contains("{{") {
            left_out.push(labels.metric().to_owned());
            continue;
        }
        for (at, value) in script::values(rest).into_iter().enumerate() {
            if let Some(value) = value {
                source.push(&labels, Timestamp::from_millis(step * at as i64), value);
            }
        }
    }
}

enum When {
    Instant(i64),
    Range { from: i64, to: i64, step: i64 },
}

/// `eval instant at 5m EXPR`, `eval range from 0 to 5m step 1m EXPR`.
fn when(head: &str) -> (When, &str) {
    let mut rest = head;
    let mut word = || {
        let (word, after) = rest.trim_start().split_once(char::is_whitespace).expect("an eval has all its words");
        rest = after;
        word
    };
    let _eval = word();
    let when = if word() == "instant" {
        let _at = word();
        When::Instant(script::span(word()))
    } else {
        let mut bound = || {
            let _name = word();
            script::span(word())
        };
        When::Range { from: bound(), to: bound(), step: bound() }
    };
    (when, rest.trim())
}

fn eval(command: &Command, source: &MemorySource, left_out: &[String]) -> Outcome {
    let (when, text) = when(&command.head);
    let expects = |what: &str| command.body.iter().any(|line| line.starts_with(&format!("expect {what}")));
    let fails = expects("fail") || command.head.starts_with("eval_fail");
    let rows: Vec<&String> = command.body.iter().filter(|line| !line.starts_with("expect ")).collect();
    if rows.iter().any(|row| row.contains("{{") || row.contains("buckets:") || row.contains("{count:")) {
        return Outcome::Skipped;
    }
    let expr = match Expr::parse(text) {
        Ok(expr) => expr,
        Err(_) if fails => return Outcome::Passed,
        Err(error) if error.to_string().contains("not supported") => return Outcome::Skipped,
        Err(error) => return Outcome::Failed(format!("does not parse: {error}")),
    };
    let touches = |name: &String| expr.selectors().iter().any(|s| s.metric().is_none_or(|m| m == name));
    if left_out.iter().any(touches) {
        return Outcome::Skipped;
    }
    let text_expected = command.body.iter().find_map(|line| line.strip_prefix("expect string "));
    let limits = Limits::default();
    let result = match when {
        When::Instant(at) => {
            let value = instant(&expr, source, Timestamp::from_millis(at), &limits);
            value.map_err(|e| e.to_string()).and_then(|value| {
                if !fails {
                    same_at_a_step(&expr, source, at, &value)?;
                }
                compare_instant(value, &rows, text_expected, expects("ordered"))
            })
        }
        When::Range { from, to, step } => {
            let (start, end) = (Timestamp::from_millis(from), Timestamp::from_millis(to));
            let series = range(&expr, source, start, end, script::duration(&format!("{step}ms")), &limits);
            series.map_err(|e| e.to_string()).and_then(|series| compare_range(&series, &rows, from, to, step))
        }
    };
    match (result, fails) {
        (Ok(()), false) | (Err(_), true) => Outcome::Passed,
        (Ok(()), true) => Outcome::Failed("it should fail, and does not".to_owned()),
        (Err(why), false) => Outcome::Failed(why),
    }
}

/// What a range gives at a step, in the middle of others, is what an instant gives there.
fn same_at_a_step(expr: &Expr, source: &MemorySource, at: i64, value: &Value) -> Result<(), String> {
    let text = expr.text();
    // The query's own bounds differ, and so may what happens at other steps.
    let bound = ["start()", "end()", "step()", "range()"].iter().any(|name| text.contains(name));
    let Value::Vector(elements) = value else { return Ok(()) };
    let (from, to) = (Timestamp::from_millis(at - 7_000), Timestamp::from_millis(at + 7_000));
    let Ok(series) = range(expr, source, from, to, std::time::Duration::from_secs(7), &Limits::default()) else {
        return Ok(());
    };
    let mut there: Vec<Element> = Vec::new();
    for SeriesPoints { labels, points } in series {
        let here = points.into_iter().find(|point| point.at.as_millis() == at);
        there.extend(here.map(|point| Element { labels, value: point.value }));
    }
    let alike = there.len() == elements.len()
        && elements.iter().all(|e| there.iter().any(|t| t.labels == e.labels && close(e.value, t.value)));
    if alike || bound { Ok(()) } else { Err(format!("a range gives {there:?}, the instant {elements:?}")) }
}

fn compare_instant(value: Value, rows: &[&String], text: Option<&str>, ordered: bool) -> Result<(), String> {
    match value {
        Value::Text(got) => {
            let quoted = text.map(|text| text.trim().trim_matches(['"', '`']));
            if quoted == Some(&got) { Ok(()) } else { Err(format!("got the string {got:?}")) }
        }
        Value::Scalar(got) => match rows {
            [row] if close(script::values(row)[0].unwrap_or(f64::NAN), got) => Ok(()),
            _ => Err(format!("got {got}, expected {rows:?}")),
        },
        Value::Vector(elements) => {
            let got: Vec<_> = elements.into_iter().map(|e| (e.labels, vec![Some(e.value)])).collect();
            compare_rows(&got, rows, 1, ordered)
        }
        Value::Matrix(_) => Err("a range vector".to_owned()),
    }
}

fn compare_range(series: &[SeriesPoints], rows: &[&String], from: i64, to: i64, step: i64) -> Result<(), String> {
    let steps = ((to - from) / step + 1) as usize;
    let spread = |series: &SeriesPoints| {
        let mut row = vec![None; steps];
        for point in &series.points {
            row[((point.at.as_millis() - from) / step) as usize] = Some(point.value);
        }
        (series.labels.clone(), row)
    };
    let got: Vec<_> = series.iter().map(spread).collect();
    compare_rows(&got, rows, steps, false)
}

type Row = (Labels, Vec<Option<f64>>);

fn compare_rows(got: &[Row], rows: &[&String], steps: usize, ordered: bool) -> Result<(), String> {
    let expected: Vec<Row> = rows
        .iter()
        .map(|row| {
            let (labels, rest) = script::labels_and_rest(row);
            let mut values = script::values(rest);
            values.resize(steps, None);
            (labels.unwrap_or_default(), values)
        })
        .filter(|(_, values)| values.iter().any(Option::is_some))
        .collect();
    let alike = |a: &Row, b: &Row| {
        a.0 == b.0
            && a.1.len() == b.1.len()
            && a.1.iter().zip(&b.1).all(|pair| match pair {
                (Some(a), Some(b)) => close(*a, *b),
                (None, None) => true,
                _ => false,
            })
    };
    let all = got.len() == expected.len()
        && if ordered {
            got.iter().zip(&expected).all(|(a, b)| alike(a, b))
        } else {
            expected.iter().all(|row| got.iter().any(|other| alike(row, other)))
        };
    let show = |rows: &[Row]| rows.iter().map(|(l, v)| format!("\n      {l} {v:?}")).collect::<String>();
    if all { Ok(()) } else { Err(format!("got:{}\n    expected:{}", show(got), show(&expected))) }
}

/// Equal to about 6 digits, or both NaN.
fn close(a: f64, b: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    (a - b).abs() <= 1e-6 * (a.abs() + b.abs()) || (a - b).abs() < 1e-12
}
