//! The functions templates may call: their names, how many arguments they take, and what they give.
//!
//! Decides which names exist and which exist elsewhere but not here. `and` and `or` stop early and are therefore
//! worked out in `expand`; everything else gets its arguments as values.

use regex::{Regex, RegexBuilder};

use super::number;
use super::printf;
use super::value::Value;
use super::{ExpandError, OUTPUT_BYTES_MAX};

/// A compiled regular expression may take this much memory: a thousand times what a label pattern needs.
const REGEX_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Compare(Comparison),
    Len,
    Index,
    Print,
    Println,
    Printf,
    Humanize,
    Humanize1024,
    HumanizeDuration,
    HumanizePercentage,
    HumanizeTimestamp,
    Title,
    ToUpper,
    ToLower,
    Match,
    ReReplaceAll,
    StripPort,
    StripDomain,
    ParseDuration,
    SafeHtml,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Name, function, fewest and most arguments.
const FUNCTIONS: [(&str, Function, usize, usize); 28] = [
    ("and", Function::And, 1, usize::MAX),
    ("or", Function::Or, 1, usize::MAX),
    ("not", Function::Not, 1, 1),
    ("eq", Function::Compare(Comparison::Eq), 2, usize::MAX),
    ("ne", Function::Compare(Comparison::Ne), 2, 2),
    ("lt", Function::Compare(Comparison::Lt), 2, 2),
    ("le", Function::Compare(Comparison::Le), 2, 2),
    ("gt", Function::Compare(Comparison::Gt), 2, 2),
    ("ge", Function::Compare(Comparison::Ge), 2, 2),
    ("len", Function::Len, 1, 1),
    ("index", Function::Index, 2, 2),
    ("print", Function::Print, 0, usize::MAX),
    ("println", Function::Println, 0, usize::MAX),
    ("printf", Function::Printf, 1, usize::MAX),
    ("humanize", Function::Humanize, 1, 1),
    ("humanize1024", Function::Humanize1024, 1, 1),
    ("humanizeDuration", Function::HumanizeDuration, 1, 1),
    ("humanizePercentage", Function::HumanizePercentage, 1, 1),
    ("humanizeTimestamp", Function::HumanizeTimestamp, 1, 1),
    ("title", Function::Title, 1, 1),
    ("toUpper", Function::ToUpper, 1, 1),
    ("toLower", Function::ToLower, 1, 1),
    ("match", Function::Match, 2, 2),
    ("reReplaceAll", Function::ReReplaceAll, 3, 3),
    ("stripPort", Function::StripPort, 1, 1),
    ("stripDomain", Function::StripDomain, 1, 1),
    ("parseDuration", Function::ParseDuration, 1, 1),
    ("safeHtml", Function::SafeHtml, 1, 1),
];

/// Names that Prometheus or Go know and Tocsin refuses, each with the reason.
const REFUSED: [(&str, &str); 25] = [
    ("query", "templates cannot query; put what you need into the rule's labels or value"),
    ("first", "templates cannot query, so there is no result to take from"),
    ("value", "templates cannot query; the rule's own value is $value"),
    ("label", "templates cannot query; the rule's own labels are $labels"),
    ("strvalue", "templates cannot query; the rule's own value is $value"),
    ("sortByLabel", "templates cannot query, so there is no result to sort"),
    ("args", "there are no named templates"),
    ("tmpl", "there are no named templates"),
    ("define", "there are no named templates"),
    ("template", "there are no named templates"),
    ("block", "there are no named templates"),
    ("break", "leave the loop by a condition inside it"),
    ("continue", "skip by a condition inside the loop"),
    ("graphLink", "rules know no console address; use a runbook"),
    ("tableLink", "rules know no console address; use a runbook"),
    ("externalURL", "rules know no console address; use a runbook"),
    ("pathPrefix", "rules know no console address; use a runbook"),
    ("toTime", "use humanizeTimestamp"),
    ("now", "a template's text does not depend on the time"),
    ("html", "the text is plain, the console escapes it"),
    ("js", "the text is plain, the console escapes it"),
    ("urlquery", "the text is plain"),
    ("call", "there is nothing to call"),
    ("slice", "use reReplaceAll"),
    ("urlQueryEscape", "the text is plain"),
];

impl Function {
    /// The function of this name, or why there is none.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        if let Some((_, function, ..)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) {
            return Ok(*function);
        }
        Err(match REFUSED.iter().find(|(known, _)| *known == name) {
            Some((_, reason)) => format!("{name} is not supported: {reason}"),
            None => {
                let known = FUNCTIONS.iter().map(|(known, ..)| *known);
                let hint = super::super::mistake::nearest(name, known);
                format!("no function is called {name}{}", hint.map_or(String::new(), |n| format!("; {n} is")))
            }
        })
    }

    fn row(self) -> &'static (&'static str, Self, usize, usize) {
        FUNCTIONS.iter().find(|(_, function, ..)| *function == self).expect("every function has its row")
    }

    /// The name it is called by.
    pub(super) fn name(self) -> &'static str {
        self.row().0
    }

    /// Refuses a wrong number of arguments, as far as the text shows it.
    pub(super) fn check_count(self, given: usize) -> Result<(), String> {
        let (name, _, least, most) = *self.row();
        if (least..=most).contains(&given) {
            return Ok(());
        }
        let wanted = match (least, most) {
            (least, usize::MAX) => format!("at least {least}"),
            (least, _) => least.to_string(),
        };
        Err(format!("{name} takes {wanted} arguments, not {given}"))
    }

    /// Whether calling it costs a regular expression.
    pub(super) fn is_regex(self) -> bool {
        matches!(self, Self::Match | Self::ReReplaceAll)
    }

    /// What the function gives; the number of arguments was checked when the template was read.
    pub(super) fn call<'a>(
        self,
        args: &[Value<'a>],
        regexes: &mut Regexes,
    ) -> Result<Value<'a>, ExpandError> {
        let number = |human: fn(f64) -> String| args[0].number(self.name()).map(|n| Value::owned(human(n)));
        let text = |change: fn(&str) -> String| args[0].text(self.name()).map(|t| Value::owned(change(t)));
        match self {
            Self::And | Self::Or => Ok(args[args.len() - 1].clone()),
            Self::Not => Ok(Value::Bool(!args[0].is_true())),
            Self::Compare(comparison) => comparison.judge(args),
            Self::Len => args[0].len(),
            Self::Index => args[0].index(&args[1]),
            Self::Print => printf::print(args).map(Value::owned),
            Self::Println => printf::println(args).map(Value::owned),
            Self::Printf => printf::printf(args[0].text("printf")?, &args[1..]).map(Value::owned),
            Self::Humanize => number(number::humanize),
            Self::Humanize1024 => number(number::humanize1024),
            Self::HumanizeDuration => number(number::humanize_duration),
            Self::HumanizePercentage => number(number::humanize_percentage),
            Self::HumanizeTimestamp => {
                let seconds = args[0].number(self.name())?;
                let text = number::humanize_timestamp(seconds);
                let far =
                    || ExpandError::Value(format!("{} is no time of any calendar", number::plain(seconds)));
                text.map(Value::owned).ok_or_else(far)
            }
            Self::Title => text(title),
            Self::ToUpper => text(str::to_uppercase),
            Self::ToLower => text(str::to_lowercase),
            Self::Match => {
                let pattern = regexes.compiled(args[0].text("match")?)?;
                Ok(Value::Bool(pattern.is_match(args[1].text("match")?)))
            }
            Self::ReReplaceAll => {
                let pattern = regexes.compiled(args[0].text("reReplaceAll")?)?;
                replace_all(pattern, args[1].text("reReplaceAll")?, args[2].text("reReplaceAll")?)
                    .map(Value::owned)
            }
            Self::StripPort => text(strip_port),
            Self::StripDomain => text(strip_domain),
            Self::ParseDuration => {
                let text = args[0].text(self.name())?;
                let span = tocsin_shared::time::parse_duration(text);
                span.map(|span| Value::Fraction(span.as_secs_f64()))
                    .map_err(|e| ExpandError::Value(e.to_string()))
            }
            Self::SafeHtml => args[0].text(self.name()).map(|t| Value::owned(t.to_owned())),
        }
    }
}

impl Comparison {
    /// `eq` is true when the first equals any other; the rest compare two.
    fn judge<'a>(self, args: &[Value<'a>]) -> Result<Value<'a>, ExpandError> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let mut any = false;
        for other in &args[1..] {
            let order = args[0].compare(other)?;
            any |= match self {
                Self::Eq => order == Some(Equal),
                Self::Ne => order != Some(Equal),
                Self::Lt => order == Some(Less),
                Self::Le => matches!(order, Some(Less | Equal)),
                Self::Gt => order == Some(Greater),
                Self::Ge => matches!(order, Some(Greater | Equal)),
            };
        }
        Ok(Value::Bool(any))
    }
}

/// The regular expressions of one expansion, each compiled once.
#[derive(Default)]
pub(super) struct Regexes(Vec<(String, Regex)>);

impl Regexes {
    /// Whether this pattern still has to be compiled.
    pub(super) fn is_new(&self, pattern: &str) -> bool {
        !self.0.iter().any(|(known, _)| known == pattern)
    }

    fn compiled(&mut self, pattern: &str) -> Result<&Regex, ExpandError> {
        let at = match self.0.iter().position(|(known, _)| known == pattern) {
            Some(at) => at,
            None => {
                let regex = compile(pattern).map_err(ExpandError::Value)?;
                self.0.push((pattern.to_owned(), regex));
                self.0.len() - 1
            }
        };
        Ok(&self.0[at].1)
    }
}

/// A regular expression, or in one line why it is none.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let built =
        RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
        format!("not a regular expression: {pattern:?}: {reason}")
    })
}

/// Like `Regex::replace_all`, but stops before the text outgrows what may be put out.
fn replace_all(pattern: &Regex, replacement: &str, text: &str) -> Result<String, ExpandError> {
    let (mut out, mut copied) = (String::new(), 0);
    for found in pattern.captures_iter(text) {
        let whole = found.get_match();
        out.push_str(&text[copied..whole.start()]);
        found.expand(replacement, &mut out);
        copied = whole.end();
        if out.len() > OUTPUT_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
    }
    out.push_str(&text[copied..]);
    Ok(out)
}

/// Every word with a capital.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if inside {
            out.push(c)
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric() || c == '_' || (!c.is_ascii() && !c.is_whitespace());
    }
    out
}

/// The host of `host:port` or `[v6]:port`; anything else stays.
fn strip_port(text: &str) -> String {
    let host = match text.rsplit_once(':') {
        Some((host, _)) => match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
            Some(Some(inner)) => Some(inner),
            Some(None) => None,
            None => Some(host).filter(|host| !host.contains(':')),
        },
        None => None,
    };
    host.unwrap_or(text).to_owned()
}

/// The first name of a dotted host, with its port; addresses stay.
fn strip_domain(text: &str) -> String {
    let host = strip_port(text);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return text.to_owned();
    }
    let port = text.strip_prefix(host.as_str()).unwrap_or("");
    format!("{}{port}", host.split('.').next().unwrap_or(""))
}
