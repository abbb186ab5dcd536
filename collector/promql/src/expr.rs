//! An expression: text that was parsed, checked and planned once, to be evaluated many times.
//!
//! Promise: what parses here can be evaluated; what the engine does not support is refused here, by name.

use std::sync::Arc;
use std::time::Duration;

use crate::places;
use crate::plan::{self, Node};
use crate::selector::{InvalidPattern, Selector};
use crate::text::{self, TEXT_BYTES_MAX};

/// A parsed, checked and planned expression. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Expr(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: Box<str>,
    root: Node,
    selectors: Vec<Selector>,
    host_local: bool,
    experimental: Option<&'static str>,
    longest_range: Duration,
}

/// Why a text is not an expression this engine can evaluate.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("the expression is empty")]
    Empty,
    #[error("the expression is {0} bytes long, expected at most {TEXT_BYTES_MAX}")]
    TooLong(usize),
    #[error("the expression nests too deep; split it with recording rules")]
    TooDeep,
    #[error("the expression does not parse: {0}")]
    Syntax(String),
    #[error("{0}")]
    Unsupported(String),
    /// What Prometheus has behind a feature flag and this engine has not.
    #[error("{0} is experimental and not supported")]
    Experimental(String),
    #[error("native histograms are not supported, and {0}() is for them")]
    NativeHistograms(String),
    #[error("{place} wants {expected}, got {found}")]
    Type { place: String, expected: &'static str, found: &'static str },
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    #[error("{0}")]
    Argument(String),
}

impl Expr {
    /// Parses, checks and plans an expression.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let parsed = promql_parser::parser::parse(&text::prepare(text)?).map_err(ParseError::Syntax)?;
        let (root, selectors) = plan::build(text, &parsed)?;
        let host_local = plan::is_host_local(&root);
        let longest_range = plan::longest_range(&root);
        let experimental = plan::experimental(&parsed);
        let text = text.into();
        Ok(Self(Arc::new(Inner { text, root, selectors, host_local, experimental, longest_range })))
    }

    /// The experimental function or aggregation it uses, if any: Prometheus has them behind a flag.
    pub fn experimental(&self) -> Option<&'static str> {
        self.0.experimental
    }

    /// The text as it was given.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The vector selectors, each at the place its `id` says.
    pub fn selectors(&self) -> &[Selector] {
        &self.0.selectors
    }

    /// Whether every element of the result comes from the samples of one host, the one its label `instance` names,
    /// so that the expression can be evaluated for one host at a time. Static, and in doubt `false`.
    pub fn is_host_local(&self) -> bool {
        self.0.host_local
    }

    /// How far before the instant of evaluation samples are read: windows, offsets and look-back together.
    /// What `@` with a fixed time reads is not counted.
    pub fn longest_range(&self) -> Duration {
        self.0.longest_range
    }

    pub(crate) fn root(&self) -> &Node {
        &self.0.root
    }
}

/// A query as Prometheus lays it out: one form for each, lines broken where they would be longer than 100 characters.
/// Comments are lost, as there.
pub fn format(text: &str) -> Result<String, ParseError> {
    // What cannot be planned is no query either.
    Expr::parse(text)?;
    let parsed = promql_parser::parser::parse(&text::prepare(text)?).map_err(ParseError::Syntax)?;
    let laid_out = with_signs(&parsed.prettify());
    // The parser's printer does not quote every name that needs it. Better as it was than another query.
    // It does not know instants before 1970 either.
    let again = text::prepare(&laid_out).ok().and_then(|again| promql_parser::parser::parse(&again).ok());
    let is_stable = again.is_some_and(|again| with_signs(&again.prettify()) == laid_out);
    let keeps = is_stable && !places::looks_before_the_epoch(text);
    Ok(if keeps { laid_out } else { text.trim().to_owned() })
}

/// `Inf` always has its sign.
fn with_signs(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        quoted ^= c == '"' && !text[..at].ends_with('\\');
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '+');
        let alone = !text[..at].ends_with(is_word);
        if !quoted && alone && text[at..].starts_with("Inf") {
            let after = text[at + 3..].chars().next();
            if !after.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '{')) {
                result.push('+');
            }
        }
        result.push(c);
    }
    result
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}
