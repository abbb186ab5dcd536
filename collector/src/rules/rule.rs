//! Rules as they are once their file was found right.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::expression::Expression;
use super::template::Template;

/// A rule file: its name as it was given, and its groups in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleFile {
    pub name: Arc<str>,
    pub groups: Vec<RuleGroup>,
}

/// Rules that are evaluated together, in their order: a later one sees what an earlier one recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleGroup {
    pub name: Box<str>,
    pub file: Arc<str>,
    /// The shortest time between two evaluations; None leaves it to the collector.
    pub interval: Option<Duration>,
    /// How far behind the samples the rules look; None leaves it to the collector.
    pub query_offset: Option<Duration>,
    /// How many alerts or series one rule may give; None is no limit.
    pub limit: Option<usize>,
    pub rules: Vec<Rule>,
    /// The line of the file the group begins on, from 1.
    pub line: usize,
}

/// One rule, its group's labels among its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: RuleId,
    pub kind: RuleKind,
    pub expr: Expression,
    /// By name; templates in alerting rules, literal texts in recording rules.
    pub labels: Vec<(Box<str>, Template)>,
    /// By name; empty in recording rules.
    pub annotations: Vec<(Box<str>, Template)>,
    /// The service whose trouble this is.
    pub service: Option<Box<str>>,
    /// Where the way out of it is written down.
    pub runbook: Option<Box<str>>,
    /// The line of the file the rule begins on, from 1.
    pub line: usize,
}

/// What comes of a rule's result.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// Every element of the result is an alert.
    Alert {
        name: Box<str>,
        /// `for`: how long an element must be there before it fires.
        hold: Duration,
        /// How long an alert goes on firing after its element has gone.
        keep_firing_for: Duration,
        /// Whether a firing alert opens an incident; None leaves it to the severity.
        incident: Option<bool>,
    },
    /// Every element of the result is a sample of this metric.
    Record { metric: Box<str> },
}

impl Rule {
    /// The alert's name or the recorded metric's.
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Alert { name, .. } => name,
            RuleKind::Record { metric } => metric,
        }
    }

    /// The label's text, a template as it was written; None when the rule does not set it.
    pub fn label(&self, name: &str) -> Option<&Template> {
        self.labels.iter().find(|(known, _)| **known == *name).map(|(_, template)| template)
    }

    /// The annotation of this name.
    pub fn annotation(&self, name: &str) -> Option<&Template> {
        self.annotations.iter().find(|(known, _)| **known == *name).map(|(_, template)| template)
    }
}

/// Which rule this is, whatever becomes of its expression: file, group, name, and its place among rules of the same
/// name in the group. The same files always give the same ids, so that timers and alerts survive a reload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// Joins the parts by `;`, which is escaped inside them: no two rules share an id.
    pub(super) fn new(file: &str, group: &str, name: &str, index: usize) -> Self {
        let part = |text: &str| text.replace('%', "%25").replace(';', "%3B");
        Self(format!("{};{};{};{index}", part(file), part(group), part(name)).into())
    }

    /// The id as text, as it is stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
