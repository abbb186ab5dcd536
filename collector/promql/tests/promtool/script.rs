//! Reads the case format: commands with indented lines below them.

use std::time::Duration;

use tocsin_promql::{Expr, MatchOp};
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::STALE_NAN;
use tocsin_shared::time::parse_duration;

/// One command with the lines below it.
pub struct Command {
    pub head: String,
    pub body: Vec<String>,
}

/// Splits a file: a command starts at the margin (or says `load`, `eval`, `clear`), what is below belongs to it.
pub fn commands(text: &str) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let starts = ["load ", "eval ", "eval_fail ", "eval_ordered ", "eval_warn ", "eval_info ", "clear"];
        if starts.iter().any(|word| trimmed.starts_with(word)) {
            commands.push(Command { head: trimmed.to_owned(), body: Vec::new() });
        } else if let Some(command) = commands.last_mut() {
            command.body.push(trimmed.to_owned());
        }
    }
    commands
}

/// A duration, or bare seconds.
pub fn span(text: &str) -> i64 {
    match text.parse::<f64>() {
        Ok(seconds) => (seconds * 1000.0).round() as i64,
        Err(_) => parse_duration(text).unwrap_or_else(|e| panic!("{e}")).as_millis() as i64,
    }
}

pub fn duration(text: &str) -> Duration {
    Duration::from_millis(span(text).unsigned_abs())
}

/// Splits `metric{a="b"} 1 2 3` into labels and the rest. A line that starts with a number has no labels.
pub fn labels_and_rest(line: &str) -> (Option<Labels>, &str) {
    let end = match line.find('{') {
        Some(open) if !line[..open].contains(char::is_whitespace) => closing_brace(line, open) + 1,
        _ => line.find(char::is_whitespace).unwrap_or(line.len()),
    };
    let (series, rest) = line.split_at(end);
    if value(series).is_some() {
        return (None, line);
    }
    (Some(labels(series)), rest.trim())
}

fn closing_brace(line: &str, open: usize) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in line.char_indices().skip_while(|(at, _)| *at <= open) {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return at,
            _ => {}
        }
    }
    panic!("no closing brace in {line}")
}

/// A series is written as a selector with only equalities, so the engine's own parser reads it.
fn labels(series: &str) -> Labels {
    let inner = series.trim();
    if inner == "{}" {
        return Labels::empty();
    }
    let expr = Expr::parse(inner).unwrap_or_else(|e| panic!("series {series}: {e}"));
    let matchers = &expr.selectors()[0].matchers;
    assert!(matchers.iter().all(|m| m.op == MatchOp::Equal), "{series}");
    Labels::new(matchers.iter().map(|m| (&*m.name, &*m.value)))
}

/// `1 2+3x4 _ _x3 stale`: values, one per step of the load; `None` is a gap.
pub fn values(text: &str) -> Vec<Option<f64>> {
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        match word.rsplit_once('x') {
            Some((pattern, count)) if count.parse::<usize>().is_ok() => {
                let count: usize = count.parse().expect("checked by the guard");
                if pattern == "_" {
                    all.extend(std::iter::repeat_n(None, count));
                    continue;
                }
                let (start, step) = progression(pattern);
                all.extend((0..=count).map(|at| Some(start + step * at as f64)));
            }
            _ if word == "_" => all.push(None),
            _ if word == "stale" => all.push(Some(STALE_NAN)),
            _ => all.push(Some(value(word).unwrap_or_else(|| panic!("not a value: {word}")))),
        }
    }
    all
}

/// `1+2`, `1-2`, `1`: the start and what is added each time.
fn progression(pattern: &str) -> (f64, f64) {
    let signs = pattern.char_indices().skip(1).filter(|(_, c)| matches!(c, '+' | '-'));
    for (at, _) in signs {
        if let (Some(start), Some(step)) = (value(&pattern[..at]), value(&pattern[at..])) {
            return (start, step);
        }
    }
    (value(pattern).unwrap_or_else(|| panic!("not a value: {pattern}")), 0.0)
}

fn value(word: &str) -> Option<f64> {
    let plain = word.trim_start_matches(['+', '-']);
    let named = ["Inf", "NaN", "inf", "nan"].contains(&plain);
    if !named && !plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    word.parse().ok()
}
