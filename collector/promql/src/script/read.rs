//! From the text of a file to its commands: `load`, `eval` and `clear`, each with the lines below it.
//!
//! A block ends at an empty line, at a comment, or where another command begins.

use regex::Regex;
use tocsin_shared::time::{Timestamp, parse_duration};

use super::series::{self, Line};

/// A command of the file, or why it is none.
pub(super) struct Step {
    /// From 1.
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) command: Result<Command, String>,
}

pub(super) enum Command {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

/// Series to load, a sample each `step` milliseconds from the epoch on.
pub(super) struct Load {
    pub(super) step: i64,
    /// Classic histograms also become native ones: `load_with_nhcb`.
    pub(super) converts: bool,
    pub(super) series: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Instant(Timestamp),
    /// Milliseconds.
    Range {
        from: i64,
        to: i64,
        step: i64,
    },
}

/// What an annotation or an error must be.
pub(super) enum Expected {
    Anything,
    Text(String),
    Pattern(Regex),
}

impl Expected {
    pub(super) fn is_met_by(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Text(expected) => expected == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anything => write!(f, "any"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Pattern(pattern) => write!(f, "one like {:?}", pattern.as_str()),
        }
    }
}

/// An expression and everything expected of it.
pub(super) struct Eval {
    pub(super) text: String,
    pub(super) when: When,
    pub(super) ordered: bool,
    pub(super) fail: Option<Expected>,
    pub(super) warn: Vec<Expected>,
    pub(super) info: Vec<Expected>,
    pub(super) no_warn: bool,
    pub(super) no_info: bool,
    /// `expect string`; a query that gives a string and expects none is expected to give an empty one.
    pub(super) string: String,
    /// `expect range vector`: the instants that the values of a row belong to.
    pub(super) vector_range: Option<(i64, i64, i64)>,
    pub(super) scalar: Option<f64>,
    pub(super) rows: Vec<Line>,
}

/// The commands of a text in order.
pub(super) fn steps(text: &str) -> Vec<Step> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|line| line.trim_start_matches('\u{feff}')).collect();
    let mut steps = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (head, start) = (lines[at], at);
        at += 1;
        if is_gap(head) {
            continue;
        }
        let command = if is_command(head) {
            let body = lines[at..].iter().take_while(|line| !is_gap(line) && !is_command(line)).count();
            let rows = &lines[at..at + body];
            let command = command(head, rows);
            let taken = command.as_ref().map_or(body, |(_, taken)| *taken);
            at += taken;
            command.map(|(command, _)| command)
        } else {
            Err("this is no command: expected load, load_with_nhcb, clear or eval".to_owned())
        };
        let command = command.map_err(|why| located(why, start));
        steps.push(Step { line: start + 1, text: head.to_owned(), command });
    }
    steps
}

/// Mistakes below the first line of a command name their own line.
fn located(why: String, start: usize) -> String {
    match why.split_once('\u{0}') {
        Some((below, why)) => {
            format!("line {}: {why}", start + 2 + below.parse::<usize>().unwrap_or(0))
        }
        None => why,
    }
}

fn below<T>(row: usize, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|why| format!("{row}\u{0}{why}"))
}

fn is_gap(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
}

fn first_word(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (word, rest.trim())
}

/// Whether a line begins a command: also one below another command, where a series could stand as well.
fn is_command(line: &str) -> bool {
    let (word, rest) = first_word(line);
    let has_one = |rest: &str| !rest.is_empty() && !rest.contains([' ', '\t']);
    match word.to_ascii_lowercase().as_str() {
        "clear" => rest.is_empty(),
        "load" | "load_with_nhcb" => has_one(rest),
        "eval" | "eval_fail" | "eval_warn" | "eval_info" | "eval_ordered" => {
            matches!(first_word(rest).0, "instant" | "range")
        }
        _ => false,
    }
}

/// A command, and how many of the lines below belong to it.
fn command(head: &str, rows: &[&str]) -> Result<(Command, usize), String> {
    let (word, rest) = first_word(head);
    match word.to_ascii_lowercase().as_str() {
        "clear" => Ok((Command::Clear, 0)),
        kind @ ("load" | "load_with_nhcb") => {
            let load = load(rest, kind != "load", rows)?;
            Ok((Command::Load(load), rows.len()))
        }
        kind => {
            let (eval, taken) = eval(kind, rest, rows)?;
            Ok((Command::Eval(Box::new(eval)), taken))
        }
    }
}

fn load(step: &str, converts: bool, rows: &[&str]) -> Result<Load, String> {
    let step = span(step)?;
    let mut series = Vec::new();
    let mut all_start = false;
    let mut starts: Vec<tocsin_shared::labels::Labels> = Vec::new();
    for (row, line) in rows.iter().enumerate() {
        let (name, _) = first_word(line);
        match name.strip_suffix("@st") {
            Some("") => all_start = true,
            Some(name) => starts.push(below(row, series::labels(name))?),
            None => {
                let mut line = below(row, series::line(line))?;
                line.start_timestamps = all_start || starts.contains(&line.labels);
                series.push(line);
            }
        }
    }
    Ok(Load { step, converts, series })
}

fn span(text: &str) -> Result<i64, String> {
    let span = parse_duration(text).map_err(|error| error.to_string())?;
    i64::try_from(span.as_millis()).map_err(|_| format!("the time span {text} is too long"))
}

/// `instant at 5m EXPR`, `range from 0 to 5m step 1m EXPR`.
fn when(rest: &str) -> Result<(When, &str), String> {
    let (kind, rest) = first_word(rest);
    if kind == "instant" {
        let (at, rest) = first_word(rest);
        let (time, text) = first_word(rest);
        if at != "at" {
            return Err("expected `eval instant at TIME EXPRESSION`".to_owned());
        }
        return Ok((When::Instant(Timestamp::from_millis(span(time)?)), text));
    }
    let mut rest = rest;
    let mut bound = |name: &str| {
        let (word, after) = first_word(rest);
        let (time, after) = first_word(after);
        rest = after;
        if word == name {
            span(time)
        } else {
            Err("expected `eval range from TIME to TIME step SPAN EXPRESSION`".to_owned())
        }
    };
    let (from, to, step) = (bound("from")?, bound("to")?, bound("step")?);
    check_range(from, to, step)?;
    Ok((When::Range { from, to, step }, rest))
}

fn check_range(from: i64, to: i64, step: i64) -> Result<(), String> {
    match () {
        () if to < from => Err("the range ends before it starts".to_owned()),
        () if step < 1 => Err("the step of a range must be at least a millisecond".to_owned()),
        () => Ok(()),
    }
}

fn eval(kind: &str, rest: &str, rows: &[&str]) -> Result<(Eval, usize), String> {
    let (when, text) = when(rest)?;
    if text.is_empty() {
        return Err("an expression is missing".to_owned());
    }
    let anything = |is: bool| if is { vec![Expected::Anything] } else { Vec::new() };
    let mut eval = Eval {
        text: text.to_owned(),
        when,
        ordered: kind == "eval_ordered",
        fail: (kind == "eval_fail").then_some(Expected::Anything),
        warn: anything(kind == "eval_warn"),
        info: anything(kind == "eval_info"),
        no_warn: false,
        no_info: false,
        string: String::new(),
        vector_range: None,
        scalar: None,
        rows: Vec::new(),
    };
    for (row, line) in rows.iter().enumerate() {
        if let Some(value) = series::number(line) {
            eval.scalar = Some(value);
            return Ok((eval, row + 1));
        }
        if below(row, expectation(&mut eval, kind, line))? {
            return Ok((eval, row + 1));
        }
    }
    if 1 < eval.rows.iter().filter(|_| eval.ordered && matches!(eval.when, When::Range { .. })).count() {
        return Err("the series of a range have one order only, so none can be expected".to_owned());
    }
    Ok((eval, rows.len()))
}

/// Takes one line below an `eval`; true when it is the last one.
fn expectation(eval: &mut Eval, kind: &str, line: &str) -> Result<bool, String> {
    if kind == "eval_fail" {
        if let Some(message) = line.strip_prefix("expected_fail_message") {
            eval.fail = Some(Expected::Text(message.trim().to_owned()));
            return Ok(true);
        }
        if let Some(regex) = line.strip_prefix("expected_fail_regexp") {
            eval.fail = Some(pattern(regex.trim())?);
            return Ok(true);
        }
    }
    let (word, rest) = first_word(line);
    if word == "expect" {
        return expect(eval, rest).map(|()| false);
    }
    let row = series::line(line)?;
    let several = matches!(&row.values, series::Values::Floats(values) if 1 < values.len());
    if several && matches!(eval.when, When::Instant(_)) && eval.vector_range.is_none() {
        return Err("an instant has one value per series; for a range vector say `expect range vector from … to … step …`"
            .to_owned());
    }
    eval.rows.push(row);
    Ok(false)
}

fn expect(eval: &mut Eval, rest: &str) -> Result<(), String> {
    let (what, rest) = first_word(rest);
    match what {
        "string" => {
            let (string, after) = series::string(rest).ok_or("expected a string in quotes")?;
            if !after.trim().is_empty() {
                return Err(format!("expected nothing after the string, got {after:?}"));
            }
            eval.string = string;
            return Ok(());
        }
        "range" => {
            let rest =
                rest.strip_prefix("vector").ok_or("expected `expect range vector from … to … step …`")?;
            let bounds: Vec<&str> = rest.split_whitespace().collect();
            let ["from", from, "to", to, "step", step] = bounds[..] else {
                return Err("expected `expect range vector from TIME to TIME step SPAN`".to_owned());
            };
            let (from, to, step) = (span(from)?, span(to)?, span(step)?);
            check_range(from, to, step)?;
            eval.vector_range = Some((from, to, step));
            return Ok(());
        }
        _ => {}
    }
    let expected = expected(rest)?;
    match what {
        "ordered" => eval.ordered = true,
        "fail" if eval.fail.is_some() => return Err("an eval can fail in one way only".to_owned()),
        "fail" => eval.fail = Some(expected),
        "warn" => eval.warn.push(expected),
        "info" => eval.info.push(expected),
        "no_warn" => eval.no_warn = true,
        "no_info" => eval.no_info = true,
        other => {
            let kinds = "ordered, fail, warn, no_warn, info, no_info, string or range vector";
            return Err(format!("expected {kinds} after `expect`, got {other:?}"));
        }
    }
    if eval.no_warn && !eval.warn.is_empty() || eval.no_info && !eval.info.is_empty() {
        return Err("an annotation cannot be expected and not expected".to_owned());
    }
    Ok(())
}

/// Nothing, `msg: TEXT` or `regex: PATTERN`.
fn expected(rest: &str) -> Result<Expected, String> {
    if rest.is_empty() {
        return Ok(Expected::Anything);
    }
    match rest.split_once(':') {
        Some(("msg", text)) => Ok(Expected::Text(text.trim().to_owned())),
        Some(("regex", text)) => pattern(text.trim()),
        _ => Err(format!("expected `msg: TEXT` or `regex: PATTERN`, got {rest:?}")),
    }
}

fn pattern(text: &str) -> Result<Expected, String> {
    let regex = Regex::new(text).map_err(|_| format!("{text:?} is no regular expression"))?;
    Ok(Expected::Pattern(regex))
}
