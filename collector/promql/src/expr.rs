//! An expression: text that was parsed, checked and planned once, to be evaluated many times.
//!
//! Promise: what parses here can be evaluated; what the engine does not support is refused here, by name.

use std::sync::Arc;
use std::time::Duration;

use crate::plan::{self, Node};
use crate::selector::{InvalidPattern, Selector};

/// The longest text taken. The longest rule in public collections has 1,100 characters.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// How deep brackets may nest, and how many operators may follow each other: both become depth of recursion.
pub(crate) const DEPTH_MAX: usize = 200;
const OPERATORS_MAX: usize = 400;

/// A parsed, checked and planned expression. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Expr(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: Box<str>,
    root: Node,
    selectors: Vec<Selector>,
    host_local: bool,
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
        check_size(text)?;
        let parsed = promql_parser::parser::parse(text).map_err(ParseError::Syntax)?;
        let (root, selectors) = plan::build(&parsed)?;
        let host_local = plan::is_host_local(&root);
        let longest_range = plan::longest_range(&root);
        Ok(Self(Arc::new(Inner { text: text.into(), root, selectors, host_local, longest_range })))
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

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

/// Refuses what would recurse too deep, before anything recurses: the parser's own checks do.
fn check_size(text: &str) -> Result<(), ParseError> {
    if text.trim().is_empty() {
        return Err(ParseError::Empty);
    }
    if TEXT_BYTES_MAX < text.len() {
        return Err(ParseError::TooLong(text.len()));
    }
    let (mut depth, mut operators, mut quote, mut escaped) = (0usize, 0usize, None, false);
    for c in text.chars() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '(' | '{' | '[') => depth += 1,
            (None, ')' | '}' | ']') => depth = depth.saturating_sub(1),
            (None, '+' | '-' | '*' | '/' | '%' | '^' | '<' | '>' | '=' | '!') => operators += 1,
            _ => {}
        }
        if DEPTH_MAX < depth {
            return Err(ParseError::TooDeep);
        }
    }
    let is_operator = |w: &&str| ["and", "or", "unless", "atan2"].iter().any(|op| op.eq_ignore_ascii_case(w));
    operators += text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(is_operator).count();
    if OPERATORS_MAX < operators { Err(ParseError::TooDeep) } else { Ok(()) }
}
