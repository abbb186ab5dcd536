//! One host's rules over one row.

use std::cell::RefCell;

use tocsin_promql::{Element, Limits, Source, Value, instant};
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::time::Timestamp;

use super::plan::{Plan, Planned};
use super::statistics::Statistics;
use crate::alert::{Breach, Evaluation};
use crate::journal::rows::{Derived, DurableRow};
use crate::rules::RuleKind;
use crate::samples::{SelectorCache, Store};

/// What is known of a host between two rows.
pub(super) struct HostRules {
    pub(super) last_at: Timestamp,
    cache: RefCell<SelectorCache>,
    rules: Vec<RuleProgress>,
}

#[derive(Clone)]
struct RuleProgress {
    ran_at: Timestamp,
    /// Whether it may have active alerts: then an empty result matters.
    active: bool,
}

impl HostRules {
    pub(super) fn new(plan: &Plan, active: &[String]) -> Self {
        let progress = |planned: &Planned| RuleProgress {
            ran_at: Timestamp::MIN,
            active: active.iter().any(|rule| rule == planned.rule.id.as_str()),
        };
        let rules = plan.rules.iter().map(progress).collect();
        Self { last_at: Timestamp::MIN, cache: RefCell::default(), rules }
    }

    /// A new plan: every rule runs at the next row, and an empty result is told once.
    pub(super) fn adopt(&mut self, plan: &Plan) {
        self.rules = vec![RuleProgress { ran_at: Timestamp::MIN, active: true }; plan.rules.len()];
        self.cache = RefCell::default();
    }

    pub(super) fn evaluate(
        &mut self,
        plan: &Plan,
        store: &Store,
        row: DurableRow,
        statistics: &Statistics,
    ) -> (Vec<Evaluation>, Vec<Derived>) {
        let (mut evaluations, mut derived) = (Vec::new(), Vec::new());
        let mut view = store.host_view(row.agent);
        for (number, planned) in plan.rules.iter().enumerate() {
            let progress = &mut self.rules[number];
            let due = progress.ran_at == Timestamp::MIN || row.at.since(progress.ran_at) >= planned.gap;
            if !planned.host_local || !due {
                continue;
            }
            progress.ran_at = row.at;
            view = view.with_cache(number, &self.cache);
            let result = run(planned, &view, row.at).and_then(|elements| match view.take_error() {
                Some(error) => Err(error.to_string()),
                None => Ok(elements),
            });
            let elements = match result {
                Ok(elements) => elements,
                Err(why) => {
                    statistics.rule_failed(planned.rule.id.as_str(), why);
                    continue;
                }
            };
            match &planned.spec {
                Some(spec) => {
                    if !elements.is_empty() || progress.active {
                        progress.active = !elements.is_empty() || !spec.keep_firing_for.is_zero();
                        let elements = breaches(planned, elements, statistics);
                        let (agent, at) = (Some(row.agent), row.at);
                        let samples_seq = row.samples_seq;
                        evaluations.push(Evaluation { agent, rule: spec.clone(), at, samples_seq, elements });
                    }
                }
                None => {
                    let new = record(planned, elements, row.at);
                    for (labels, value) in new {
                        store.append_derived(Some(row.agent), labels.clone(), row.at, value).ok(); // Counted by the journal's writer, which shows it again.
                        derived.push(Derived { agent: Some(row.agent), labels, at: row.at, value });
                    }
                }
            }
        }
        (evaluations, derived)
    }
}

/// Runs a rule's expression at an instant.
pub(super) fn run(planned: &Planned, source: &dyn Source, at: Timestamp) -> Result<Vec<Element>, String> {
    let at = at.minus(planned.query_offset);
    let elements =
        match instant(&planned.expr, source, at, &Limits::default()).map_err(|error| error.to_string())? {
            Value::Vector(elements) => elements,
            Value::Scalar(value) => vec![Element { labels: Labels::empty(), value }],
            Value::Matrix(_) | Value::Text(_) => return Err("the expression gives no instant vector".into()),
        };
    match planned.limit.filter(|limit| *limit > 0 && elements.len() > *limit) {
        Some(limit) => Err(format!("{} elements, the group's limit is {limit}", elements.len())),
        None => Ok(elements),
    }
}

/// What an alerting rule's elements tell the ledger.
pub(super) fn breaches(planned: &Planned, elements: Vec<Element>, statistics: &Statistics) -> Vec<Breach> {
    let RuleKind::Alert { name, .. } = &planned.rule.kind else { return Vec::new() };
    let expand = |templates: &[(Box<str>, crate::rules::Template)], labels: &Labels, value: f64| {
        let pairs = templates.iter().map(|(key, template)| {
            let text = template.expand(labels, value, &Labels::empty()).unwrap_or_else(|error| {
                statistics.rule_failed(planned.rule.id.as_str(), format!("{key}: {error}"));
                format!("<error expanding template: {error}>")
            });
            (key.to_string(), text)
        });
        Labels::new(pairs.collect::<Vec<_>>())
    };
    let breach = |element: Element| {
        let labels = element.labels.without(|label| label == METRIC_NAME);
        let own = expand(&planned.rule.labels, &labels, element.value);
        let annotations = expand(&planned.rule.annotations, &labels, element.value);
        let alert_labels = labels.with(own.iter()).with([("alertname", &**name)]);
        Breach { labels, value: element.value, annotations, alert_labels }
    };
    elements.into_iter().map(breach).collect()
}

/// The series that a recording rule's elements are values of.
pub(super) fn record(planned: &Planned, elements: Vec<Element>, _at: Timestamp) -> Vec<(Labels, f64)> {
    let RuleKind::Record { metric } = &planned.rule.kind else { return Vec::new() };
    let own = planned.rule.labels.iter().map(|(name, template)| (&**name, template.source()));
    let own: Vec<(&str, &str)> = own.chain([(METRIC_NAME, &**metric)]).collect();
    elements.into_iter().map(|element| (element.labels.with(own.iter().copied()), element.value)).collect()
}
