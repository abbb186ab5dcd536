//! Annotations and labels with holes in them: the part of Go's text/template that alerting rules use.
//!
//! Promises: a template is checked whole when its file is read, so that a wrong one is a mistake in a file and
//! not a surprise at night; expanding one is pure and bounded in output and in time, whatever it says.
//! It reads as Prometheus reads it, with one kindness: whole numbers and fractions compare with each other.
//! Not here: queries inside templates (`query`, `first`, `value` and their like are refused), and links to a
//! console, which need an address that rules do not know.

mod expand;
mod function;
mod lex;
mod number;
mod parse;
mod printf;
mod value;

use tocsin_shared::labels::Labels;

/// The longest output of one template: what a ticket or a message can still show.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// A template that was read and found well-formed.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    source: Box<str>,
    nodes: Vec<parse::Node>,
}

/// Why a text is not a template, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// The byte of the text at which the trouble begins.
    pub offset: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl TemplateError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}

/// Why a well-formed template has no text for these labels and this value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The template uses a value as something it is not.
    #[error("{0}")]
    Value(String),
    /// The output, or a text on its way there, grew too long.
    #[error("the text is longer than {OUTPUT_BYTES_MAX} bytes")]
    TooLong,
    /// The template did too much work: loops within loops, or many regular expressions.
    #[error("the template takes too long; use fewer loops and regular expressions")]
    TooMuchWork,
}

impl Template {
    /// Reads a template; the error says what is wrong and at which byte.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        Ok(Self { source: source.into(), nodes: parse::nodes(lex::pieces(source)?, source.len())? })
    }

    /// A text that stands for itself, braces and all: the labels of recording rules.
    pub fn literal(text: &str) -> Self {
        Self { source: text.into(), nodes: vec![parse::Node::Text(text.into())] }
    }

    /// One whose expansion panics, as only a fault of ours could make one: its variable is nowhere set.
    #[cfg(test)]
    pub(crate) fn faulty() -> Self {
        let never_set = parse::Command::Operand(parse::Operand::Variable("$never_set".into()));
        let pipeline = parse::Pipeline { target: None, commands: vec![never_set] };
        Self { source: "{{ $never_set }}".into(), nodes: vec![parse::Node::Action(pipeline)] }
    }

    /// The text as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text for one element of a rule's result: its labels, its value, and the collector's external labels.
    pub fn expand(&self, labels: &Labels, value: f64, external: &Labels) -> Result<String, ExpandError> {
        expand::expand(&self.nodes, &expand::Data { labels, value, external })
    }
}

#[cfg(test)]
mod tests;
