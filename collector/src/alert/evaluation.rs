//! What a rule's evaluation hands over.

use std::sync::Arc;
use std::time::Duration;

use tocsin_shared::alert::Alert;
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;

/// What of an alerting rule matters to the life of its alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// Names the rule for as long as its alerts shall go on; another id is another rule.
    pub rule_id: String,
    pub group: String,
    pub alertname: String,
    /// `for`.
    pub hold: Duration,
    pub keep_firing_for: Duration,
    /// Of an element without a valid label `severity`.
    pub severity: Severity,
    /// `incident:` of the rule; without it the severity decides.
    pub opens_incident: Option<bool>,
}

/// The result of a rule at one instant.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The host whose row it was; `None` for a rule across hosts.
    pub agent: Option<AgentId>,
    pub rule: Arc<RuleSpec>,
    /// Event time of the row.
    pub at: Timestamp,
    /// The row's place in the samples journal.
    pub samples_seq: u64,
    /// Where the expression holds. Active alerts of this rule and agent that are not here are clear.
    pub elements: Vec<Breach>,
    /// Labels of what would be an element or not if some number were one that is none (NaN): alerts of these stay as
    /// they are. Like `Breach::labels`.
    pub doubtful: Vec<Labels>,
    /// Event time of the rule's evaluation before this one, if it is known.
    pub before: Option<Timestamp>,
}

/// One element of a rule's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    /// The labels of the result, without its host's for a rule of one host: they tell the rule's alerts apart.
    pub labels: Labels,
    pub value: f64,
    /// With templates expanded.
    pub annotations: Labels,
    /// The labels of the result and the rule's own, with templates expanded.
    pub alert_labels: Labels,
}

/// What the rules said of a hole's rows, and of the later ones with them: a second run, on a copy.
#[derive(Clone, Debug)]
pub struct Filled {
    pub agent: AgentId,
    /// Event time of the last row that the copy has seen; the live alerts have seen the same.
    pub at: Timestamp,
    /// The youngest row's place in the samples journal.
    pub samples_seq: u64,
    /// What fired on the copy and was resolved there, in this order.
    pub ended: Vec<Alert>,
    /// What is pending or firing on the copy at its end.
    pub active: Vec<Alert>,
}
