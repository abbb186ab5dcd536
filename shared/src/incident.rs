//! An incident: the handling axis. What is true is the alerts' matter.

use crate::event::Actor;
use crate::identity::Env;
use crate::labels::Labels;
use crate::severity::Severity;
use crate::time::Timestamp;

/// Where the handling of an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IncidentStatus {
    /// Nobody has taken it yet, or the one who had lost it (expired acknowledgement, worsening).
    Triggered,
    Acknowledged,
    Resolved,
}

impl IncidentStatus {
    /// The word people and the API read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Triggered => "triggered",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }

    /// Whether someone still has to do something.
    pub const fn is_open(self) -> bool {
        !matches!(self, Self::Resolved)
    }
}

/// ITIL's three steps of impact and of urgency, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    High,
    Medium,
    Low,
}

impl Level {
    /// The word people and the API read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// P1 (worst) to P5, from impact × urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The ITIL matrix: HH 1; HM MH 2; HL MM LH 3; ML LM 4; LL 5.
    pub const fn from_matrix(impact: Level, urgency: Level) -> Self {
        Self(1 + impact as u8 + urgency as u8)
    }

    /// From its number; `None` outside 1..=5.
    pub const fn from_number(number: u8) -> Option<Self> {
        if number >= 1 && number <= 5 { Some(Self(number)) } else { None }
    }

    /// 1 to 5.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// Someone has taken the incident; it expires, so that it can't be forgotten.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    pub by: Actor,
    pub at: Timestamp,
    pub expires_at: Timestamp,
    pub note: String,
}

/// How an incident ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    pub by: Actor,
    pub at: Timestamp,
    /// `auto`, `fixed`, `workaround`, `false_positive`, `duplicate`, `rule_removed`, `host_retired`, `other`.
    pub code: String,
    pub text: String,
}

/// An alert inside an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRef {
    pub dedup_key: String,
    pub generation: u32,
    pub name: String,
    pub firing: bool,
}

/// One incident. Its key is `number`; at most one open incident has a given `incident_key`.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Dense from 1; people write it `INC-12` or `12`.
    pub number: u64,
    /// What is one incident: (env, alertname, instance) unless the rule groups otherwise.
    pub incident_key: String,
    /// Counts the public events of this incident, without gaps.
    pub key_seq: u64,
    pub title: String,
    pub env: Env,
    /// Labels that all its alerts share.
    pub labels: Labels,
    pub status: IncidentStatus,
    /// The worst severity of its alerts so far.
    pub severity: Severity,
    pub impact: Level,
    pub urgency: Level,
    pub priority: Priority,
    /// Whether paging tools shall wake somebody: production and high urgency only.
    pub pages: bool,
    /// At most `ALERTS_MAX`, the oldest resolved ones leave first.
    pub alerts: Vec<AlertRef>,
    pub opened_at: Timestamp,
    pub ack: Option<Ack>,
    pub resolution: Option<Resolution>,
    /// When it will resolve by itself: set while no alert of it fires.
    pub auto_resolve_at: Option<Timestamp>,
    pub reopen_count: u32,
    /// Counts changes; an operator's command may name the one it saw.
    pub rev: u64,
}

impl Incident {
    /// How many alerts an incident names: enough for every rule on a host, and the record stays below 32 KiB.
    pub const ALERTS_MAX: usize = 100;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_follows_the_matrix() {
        use Level::*;
        for (impact, urgency, number) in [
            (High, High, 1),
            (High, Medium, 2),
            (Medium, High, 2),
            (Medium, Medium, 3),
            (High, Low, 3),
            (Low, High, 3),
            (Medium, Low, 4),
            (Low, Low, 5),
        ] {
            assert_eq!(Priority::from_matrix(impact, urgency).number(), number, "{impact:?} {urgency:?}");
        }
    }
}
