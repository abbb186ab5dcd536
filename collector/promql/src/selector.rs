//! Which series a selector names: label matchers, their patterns compiled once and fully anchored.
//!
//! An absent label matches as the empty string, as everywhere in PromQL. Not here: how a source finds series.

use regex::Regex;
use tocsin_shared::labels::{Labels, METRIC_NAME};

/// A vector selector of an expression.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Dense within the expression, from 0: a source can keep what it resolved in a `Vec`.
    pub id: usize,
    /// All must match.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// Whether the series with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// The one metric name this selector can select, if it names one.
    pub fn metric(&self) -> Option<&str> {
        let named = |m: &&Matcher| m.op == MatchOp::Equal && &*m.name == METRIC_NAME;
        self.matchers.iter().find(named).map(|m| &*m.value)
    }
}

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

/// One condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: Box<str>,
    pub op: MatchOp,
    /// The text compared with, or the pattern as written.
    pub value: Box<str>,
    pattern: Pattern,
}

/// Why a pattern does not compile.
#[derive(Debug, thiserror::Error)]
#[error("the pattern {pattern:?} is not a regular expression: {reason}")]
pub struct InvalidPattern {
    pub pattern: String,
    pub reason: String,
}

impl Matcher {
    /// A matcher; for the two regex operators the value is compiled.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, InvalidPattern> {
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => Pattern::Unused,
            MatchOp::Regex | MatchOp::NotRegex => Pattern::compile(value)?,
        };
        Ok(Self { name: name.into(), op, value: value.into(), pattern })
    }

    /// Whether a label set meets this condition; an absent label counts as empty.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).unwrap_or(""))
    }

    /// Whether a value of the label meets this condition.
    pub fn matches_value(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => *self.value == *value,
            MatchOp::NotEqual => *self.value != *value,
            MatchOp::Regex => self.pattern.is_match(value),
            MatchOp::NotRegex => !self.pattern.is_match(value),
        }
    }
}

#[derive(Clone, Debug)]
enum Pattern {
    Unused,
    /// `idle|iowait`: most patterns of real rules are plain alternatives, and comparing them is several times faster.
    Words(Box<[Box<str>]>),
    Regex(Regex),
}

impl Pattern {
    fn compile(pattern: &str) -> Result<Self, InvalidPattern> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '|' | ' ' | '/' | ':');
        if pattern.chars().all(plain) {
            return Ok(Self::Words(pattern.split('|').map(Box::from).collect()));
        }
        anchored(pattern).map(Self::Regex)
    }

    fn is_match(&self, value: &str) -> bool {
        match self {
            Self::Unused => false,
            Self::Words(words) => words.iter().any(|word| **word == *value),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Compiles a pattern that must match the whole text; a dot matches line ends too, as in Prometheus 3.
pub(crate) fn anchored(pattern: &str) -> Result<Regex, InvalidPattern> {
    let compile = |text: &str| Regex::new(&format!("^(?s:{text})$"));
    compile(pattern).or_else(|error| compile(&escape_braces(pattern)).map_err(|_| error)).map_err(|error| {
        InvalidPattern { pattern: pattern.to_owned(), reason: error.to_string().replace('\n', " ") }
    })
}

/// RE2 takes a brace that opens no repetition literally; the regex crate wants it escaped.
fn escape_braces(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len() + 2);
    let mut escaped = false;
    for (at, c) in pattern.char_indices() {
        let inside = pattern[at + c.len_utf8()..].split('}').next().unwrap_or("");
        let repetition = inside.starts_with(|d: char| d.is_ascii_digit())
            && inside.chars().all(|d| d.is_ascii_digit() || d == ',');
        if c == '{' && !escaped && !repetition {
            text.push('\\');
        }
        escaped = c == '\\' && !escaped;
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_anchored_and_an_absent_label_is_empty() {
        let labels = Labels::series("cpu", &[("mode", "idle"), ("path", "a\nb"), ("glob", "x{y}")]);
        for (name, op, value, expected) in [
            ("mode", MatchOp::Equal, "idle", true),
            ("mode", MatchOp::NotEqual, "idle", false),
            ("mode", MatchOp::Regex, "id", false),
            ("mode", MatchOp::Regex, "id.+", true),
            ("mode", MatchOp::Regex, "iowait|idle", true),
            ("mode", MatchOp::NotRegex, "idle|iowait", false),
            ("none", MatchOp::Equal, "", true),
            ("none", MatchOp::NotEqual, "", false),
            ("none", MatchOp::Regex, "x|", true),
            ("none", MatchOp::Regex, ".+", false),
            ("none", MatchOp::NotRegex, "lo|veth.+", true),
            ("path", MatchOp::Regex, "a.b", true),
            ("glob", MatchOp::Regex, "x{y}", true),
            ("mode", MatchOp::Regex, "(?i:IDLE)", true),
        ] {
            let matcher = Matcher::new(name, op, value).unwrap();
            assert_eq!(matcher.matches(&labels), expected, "{name} {op:?} {value}");
        }
        assert!(Matcher::new("a", MatchOp::Regex, "(").is_err());
    }
}
