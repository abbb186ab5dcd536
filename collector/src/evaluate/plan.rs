//! The rules in force, ready to run: an immutable snapshot that is swapped whole.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tocsin_promql::Expr;
use tocsin_shared::severity::Severity;

use crate::alert::RuleSpec;
use crate::rules::{Rule, RuleKind, RuleSet};

/// Rules that look back further than this run at most once in `LONG_GAP` for a host: their result hardly moves.
const LONG_RANGE: Duration = Duration::from_secs(3600);
const LONG_GAP: Duration = Duration::from_secs(60);
/// The tick of rules across hosts whose group names none.
const FLEET_INTERVAL: Duration = Duration::from_secs(15);

/// One rule, ready to run.
#[derive(Debug)]
pub struct Planned {
    pub rule: Rule,
    pub expr: Expr,
    /// What the ledger needs to know of an alerting rule.
    pub spec: Option<Arc<RuleSpec>>,
    pub host_local: bool,
    /// The shortest time between two runs for one host.
    pub gap: Duration,
    /// The longest range that it looks back over; zero without one.
    pub range: Duration,
    /// For rules across hosts: the tick.
    pub interval: Duration,
    pub query_offset: Duration,
    pub limit: Option<usize>,
    /// Its group's place in `Plan::groups`.
    pub group_at: usize,
    pub group: Box<str>,
    pub file: Arc<str>,
}

/// All rules in their order: files by name, groups and rules as written.
#[derive(Debug, Default)]
pub struct Plan {
    /// Grows with each reload.
    pub version: u64,
    pub rules: Vec<Planned>,
    /// The file and the name of each group that has rules.
    pub groups: Vec<(Arc<str>, Box<str>)>,
}

impl Plan {
    /// Plans a set of rules.
    pub fn new(version: u64, set: &RuleSet) -> Self {
        let mut groups: Vec<(Arc<str>, Box<str>)> = Vec::new();
        let rules = set.rules().map(|(group, rule)| {
            // The rules of a group stand together, and its name is its own within the file.
            let named = (group.file.clone(), group.name.clone());
            if groups.last() != Some(&named) {
                groups.push(named);
            }
            let expr = rule.expr.expr().clone();
            let long = expr.longest_range() > LONG_RANGE;
            let gap = group.interval.unwrap_or_default().max(if long { LONG_GAP } else { Duration::ZERO });
            Planned {
                rule: rule.clone(),
                spec: spec(&group.name, rule),
                host_local: expr.is_host_local(),
                gap,
                range: expr.longest_range(),
                interval: group.interval.unwrap_or(FLEET_INTERVAL).max(Duration::from_secs(1)),
                query_offset: group.query_offset.unwrap_or_default(),
                limit: group.limit,
                group_at: groups.len() - 1,
                group: group.name.clone(),
                file: group.file.clone(),
                expr,
            }
        });
        let rules = rules.collect();
        Self { version, rules, groups }
    }

    /// The ids of all rules.
    pub fn rule_ids(&self) -> BTreeSet<String> {
        self.rules.iter().map(|planned| planned.rule.id.as_str().to_owned()).collect()
    }

    /// Whether some rule runs across hosts.
    pub fn has_fleet_rules(&self) -> bool {
        self.rules.iter().any(|planned| !planned.host_local)
    }
}

fn spec(group: &str, rule: &Rule) -> Option<Arc<RuleSpec>> {
    let RuleKind::Alert { name, hold, keep_firing_for, incident } = &rule.kind else { return None };
    let severity = rule.label("severity").and_then(|template| template.source().parse().ok());
    Some(Arc::new(RuleSpec {
        rule_id: rule.id.as_str().to_owned(),
        group: group.to_owned(),
        alertname: name.to_string(),
        hold: *hold,
        keep_firing_for: *keep_firing_for,
        severity: severity.unwrap_or(Severity::Warning),
        opens_incident: *incident,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::parse_file;

    #[test]
    fn rules_are_planned_as_they_are_written() {
        let text = "groups:\n- name: g\n  interval: 30s\n  rules:\n  - {alert: A, expr: 'up == 0', for: 5m, labels: {severity: critical}}\n  - {alert: B, expr: 'sum(up) < 1'}\n  - {record: 'r:s', expr: 'rate(x[2h])'}\n";
        let set = RuleSet::new(vec![parse_file("f", text).unwrap()]).unwrap();
        let plan = Plan::new(7, &set);
        let row = |at: usize| {
            (plan.rules[at].host_local, plan.rules[at].gap.as_secs(), plan.rules[at].spec.is_some())
        };
        assert_eq!([row(0), row(1), row(2)], [(true, 30, true), (false, 30, true), (true, 60, false)]);
        let spec = plan.rules[0].spec.as_ref().unwrap();
        assert_eq!((spec.severity, spec.hold.as_secs()), (Severity::Critical, 300));
        assert!(plan.has_fleet_rules());
    }
}
