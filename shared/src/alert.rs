//! An alert: the condition axis alone. Who handles it is the incident's matter, who is told the feed's.

use crate::identity::{AgentId, Env};
use crate::labels::Labels;
use crate::severity::Severity;
use crate::time::Timestamp;

/// Where an alert stands. Missing data moves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Breached, but not yet for the rule's `for`.
    Pending,
    Firing,
    /// It was firing, and there is positive evidence that it ended (or a named reason).
    Resolved,
    /// It was pending and ended before it fired; the record is gone with this.
    Inactive,
}

impl Condition {
    /// The word people and the API read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Inactive => "inactive",
        }
    }
}

/// Why an alert is resolved. Silence is not among the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolveReason {
    /// Its source gave evidence that it is over.
    Source,
    /// Its rule was removed or renamed.
    RuleRemoved,
    /// Its host was retired.
    HostRetired,
}

impl ResolveReason {
    /// The word people and the API read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::RuleRemoved => "rule_removed",
            Self::HostRetired => "host_retired",
        }
    }
}

/// What raises alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertSource {
    /// A rule over samples.
    Rule,
    /// A job's run.
    Job,
    /// A host's presence.
    Host,
}

impl AlertSource {
    /// The word people and the API read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Job => "job",
            Self::Host => "host",
        }
    }
}

/// One alert. Its key is `dedup_key`; at most one generation of a key is pending or firing.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Hex of a hash over the source's id and the labels, each length-prefixed.
    pub dedup_key: String,
    /// Counts the times this key fired: 1 for the first.
    pub generation: u32,
    /// Counts the public events of this key, without gaps.
    pub key_seq: u64,
    pub source: AlertSource,
    /// The rule's id, `job/<name>` or `host/<what>`.
    pub source_id: String,
    /// With `alertname`, `severity`, and what the source set.
    pub labels: Labels,
    pub annotations: Labels,
    pub severity: Severity,
    pub env: Env,
    /// The host it is about, if it is about one.
    pub agent: Option<AgentId>,
    pub condition: Condition,
    /// Event time at which the breach began.
    pub active_since: Timestamp,
    /// Event time at which it fired.
    pub fired_at: Option<Timestamp>,
    /// Event time of the last evidence that it is true.
    pub last_true: Timestamp,
    /// Event time at which the expression stopped holding, while `keep_firing_for` keeps it firing.
    pub recovering_since: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub resolve_reason: Option<ResolveReason>,
    /// The expression's value at the last change.
    pub value: f64,
    /// Whether this alert opens an incident.
    pub opens_incident: bool,
    /// The incident it belongs to.
    pub incident: Option<u64>,
    /// It began and ended within rows that came late: recorded, and nobody was told. It counts no generation.
    pub late: bool,
}

impl Alert {
    /// The label `alertname`.
    pub fn name(&self) -> &str {
        self.labels.get("alertname").unwrap_or("")
    }
}
