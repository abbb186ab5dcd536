//! Rules: what is looked for in the samples, and how it is told to people.
//!
//! Decides what a Prometheus rule file means and refuses what it cannot act on: `parse_file` gives a file's groups
//! or all of its mistakes, each with line and column. Nothing in a file is silently ignored.
//! Pure: files are read and rules evaluated elsewhere.
//! Not here: when a rule is evaluated, and what an alert does once it fires.

mod expression;
mod file;
mod mistake;
mod report;
mod rule;
mod set;
mod template;
mod yaml;

pub use expression::Expression;
pub use file::{FILE_BYTES_MAX, RULES_MAX, TEXT_BYTES_MAX, parse_file};
pub use mistake::Mistake;
pub use report::report;
pub use rule::{Rule, RuleFile, RuleGroup, RuleId, RuleKind};
pub use set::{DuplicateFile, RuleSet};
pub use template::{ExpandError, OUTPUT_BYTES_MAX, Template, TemplateError};

#[cfg(test)]
mod tests;
