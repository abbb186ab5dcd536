//! One host's rules over one row.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use tocsin_promql::{Element, Limits, Source, Value, Weighed, judge, weigh};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::sample::STALE_NAN;
use tocsin_shared::time::Timestamp;

use super::burden::Burden;
use super::plan::{Plan, Planned};
use super::statistics::Statistics;
use super::stopwatch::Stopwatch;
use crate::alert::{Breach, ELEMENTS_MAX, Evaluation};
use crate::contain::called;
use crate::journal::rows::{Derived, DurableRow};
use crate::rules::{RuleKind, Template};
use crate::samples::{HostView, SelectorCache, Store};
use crate::state::Command;

/// Rows this many times as far apart as usual have others missing between them: an agent that missed as many
/// heartbeats is called unreachable, too.
const MISSED_TICKS: u32 = 3;
/// How far before the last row a start looks for them: the longest tick is a minute.
const PACE_WITHIN: Duration = Duration::from_secs(600);

/// The last distances between two rows. The usual one is their median, so that a single odd one does not matter.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    last: [Duration; 3],
    known: usize,
}

impl Pace {
    fn note(&mut self, distance: Duration) {
        self.last.rotate_right(1);
        self.last[0] = distance;
        self.known = (self.known + 1).min(self.last.len());
    }

    fn usual(&self) -> Option<Duration> {
        let mut known = self.last;
        let known = known.get_mut(..self.known)?;
        known.sort_unstable();
        known.get(known.len() / 2).copied()
    }
}

/// What is known of a host between two rows.
pub(super) struct HostRules {
    pub(super) last_at: Timestamp,
    /// Where the hole begins while older rows are still in the host's spool.
    pub(super) hole: Option<Timestamp>,
    /// All rows of the hole are here.
    pub(super) waits_to_be_filled: bool,
    pace: Pace,
    /// How long no row came before this one, if others are missing there.
    blind: Duration,
    cache: RefCell<SelectorCache>,
    rules: Vec<RuleProgress>,
}

#[derive(Clone, Default)]
struct RuleProgress {
    ran_at: Option<Timestamp>,
    /// Whether it may have active alerts: then an empty result matters. A rule with `keep_firing_for` keeps it once
    /// it was set: the ledger alone knows when such an alert ends, and being told of nothing costs it next to nothing.
    active: bool,
    recorded: Recorded,
}

impl HostRules {
    /// A host whose rows up to `last_at` are evaluated, and the rules that have active alerts there.
    pub(super) fn new(
        plan: &Plan,
        store: &Store,
        agent: AgentId,
        last_at: Timestamp,
        active: &[String],
    ) -> Self {
        let progress = |planned: &Planned| RuleProgress {
            active: active.iter().any(|rule| rule == planned.rule.id.as_str()),
            ..RuleProgress::default()
        };
        // Without them the first row after an outage would look like the next one.
        let before = store.row_times(agent, last_at.minus(PACE_WITHIN), last_at).unwrap_or_default();
        let mut pace = Pace::default();
        before.windows(2).for_each(|pair| pace.note(pair[1].since(pair[0])));
        Self {
            last_at,
            hole: None,
            waits_to_be_filled: false,
            pace,
            blind: Duration::ZERO,
            cache: RefCell::default(),
            rules: plan.rules.iter().map(progress).collect(),
        }
    }

    /// What there is to tell when this row came before older ones of its spool.
    pub(super) fn hole_before(&mut self, row: &DurableRow) -> Option<Command> {
        if row.complete || self.hole.is_some() {
            return None;
        }
        self.hole = Some(self.last_at);
        Some(Command::HoleOpened { agent: row.agent, from: self.last_at, samples_seq: row.samples_seq })
    }

    /// What there is to tell when rows are missing between the last one and this one. Call it once for each row.
    pub(super) fn rows_missing(&mut self, row: &DurableRow) -> Option<Command> {
        if self.last_at == Timestamp::MIN {
            return None;
        }
        let distance = row.at.since(self.last_at);
        let missing = !row.follows || self.pace.usual().is_some_and(|usual| distance > usual * MISSED_TICKS);
        self.pace.note(distance);
        self.blind = if missing { distance } else { Duration::ZERO };
        let waits = missing && self.rules.iter().any(|progress| progress.active);
        let DurableRow { agent, at, samples_seq, .. } = *row;
        waits.then_some(Command::RowsMissing { agent: Some(agent), from: self.last_at, to: at, samples_seq })
    }

    /// A new plan: every rule runs at the next row, and an empty result is told once.
    pub(super) fn adopt(&mut self, plan: &Plan) {
        self.rules = vec![RuleProgress { active: true, ..RuleProgress::default() }; plan.rules.len()];
        self.cache = RefCell::default();
    }

    pub(super) fn evaluate(
        &mut self,
        plan: &Plan,
        store: &Store,
        row: DurableRow,
        (statistics, burden): (&Statistics, &mut Burden),
    ) -> (Vec<Evaluation>, Vec<Derived>) {
        let (mut evaluations, mut derived) = (Vec::new(), Vec::new());
        let mut stopwatch = Stopwatch::begin(burden);
        let mut view = store.host_view(row.agent);
        let mut target = view.target();
        let numbered = plan.rules.iter().zip(&mut self.rules).enumerate();
        for (number, (planned, progress)) in numbered.filter(|(_, (planned, _))| planned.host_local) {
            if progress.ran_at.is_some_and(|ran_at| row.at.since(ran_at) < planned.gap) {
                continue;
            }
            // This row alone is in its range: a rate over it is nothing, and nothing is no evidence that it is over.
            if !planned.range.is_zero() && self.blind >= planned.range {
                continue;
            }
            let since = progress.ran_at.map(|ran_at| row.at.since(ran_at));
            if stopwatch.defers(planned.group_at, since) {
                continue;
            }
            statistics.moved();
            let before = progress.ran_at.replace(row.at);
            view = view.with_cache(number, &self.cache);
            let result = run_as_labelled(planned, &view, (row.at, progress.active), &mut target);
            let result = result.and_then(|found| match view.take_error() {
                Some(error) => Err(error.to_string()),
                None => progress.outcome(planned, found, (row, before), statistics),
            });
            match result {
                Ok(Outcome::Nothing) => {}
                Ok(Outcome::Breached(evaluation)) => evaluations.push(of_series(evaluation, &target)),
                Ok(Outcome::Recorded(values)) => derived.extend(show(store, Some(row.agent), row.at, values)),
                Err(why) => statistics.rule_failed(planned.rule.id.as_str(), why),
            }
        }
        (evaluations, derived)
    }
}

/// Runs a rule while the host is labelled with `target`; again, with the new labels, if it was relabelled meanwhile:
/// selections before and after would not match each other.
fn run_as_labelled(
    planned: &Planned,
    view: &HostView<'_>,
    (at, active): (Timestamp, bool),
    target: &mut Labels,
) -> Result<Weighed, String> {
    loop {
        let found = run(planned, view, at, active);
        let now = view.target();
        if *target == now {
            return found;
        }
        *target = now;
    }
}

/// Without the labels of the host, which tell nothing apart. Here, and not only in the ledger: until that takes the
/// evaluation the host may be relabelled, and the labels of before would make another alert of the same thing.
fn of_series(mut evaluation: Evaluation, target: &Labels) -> Evaluation {
    let breached = evaluation.elements.iter_mut().map(|breach| &mut breach.labels);
    for labels in breached.chain(&mut evaluation.doubtful) {
        *labels = labels.without(|name| target.get(name) == labels.get(name));
    }
    evaluation
}

enum Outcome {
    Nothing,
    Breached(Evaluation),
    Recorded(Vec<(Labels, f64)>),
}

impl RuleProgress {
    fn outcome(
        &mut self,
        planned: &Planned,
        Weighed { certain, doubtful }: Weighed,
        (row, before): (DurableRow, Option<Timestamp>),
        statistics: &Statistics,
    ) -> Result<Outcome, String> {
        let Some(spec) = &planned.spec else {
            return Ok(Outcome::Recorded(self.recorded.next(record(planned, certain)?)));
        };
        if certain.is_empty() && !self.active {
            return Ok(Outcome::Nothing);
        }
        let elements = breaches(planned, certain, statistics)?;
        let holds = self.active && !doubtful.is_empty();
        self.active = !elements.is_empty() || holds || !spec.keep_firing_for.is_zero();
        let DurableRow { agent, at, samples_seq, .. } = row;
        Ok(Outcome::Breached(Evaluation {
            agent: Some(agent),
            rule: spec.clone(),
            at,
            samples_seq,
            elements,
            doubtful,
            before,
        }))
    }
}

/// The series that a recording rule gave last: those that vanish end with a marker, as a scraped one does.
#[derive(Clone, Default)]
pub(super) struct Recorded(Vec<Labels>);

impl Recorded {
    /// The values to keep: the new ones, and an end for each series that has none any more.
    pub(super) fn next(&mut self, mut values: Vec<(Labels, f64)>) -> Vec<(Labels, f64)> {
        let now: Vec<Labels> = values.iter().map(|(labels, _)| labels.clone()).collect();
        if self.0 != now {
            let still: HashSet<&Labels> = now.iter().collect();
            let gone = self.0.iter().filter(|labels| !still.contains(labels));
            values.extend(gone.map(|labels| (labels.clone(), STALE_NAN)));
            self.0 = now;
        }
        values
    }
}

/// Shows recorded values to the rules after this one, and gives them for the journal.
pub(super) fn show(
    store: &Store,
    agent: Option<AgentId>,
    at: Timestamp,
    values: Vec<(Labels, f64)>,
) -> impl Iterator<Item = Derived> {
    values.into_iter().map(move |(labels, value)| {
        store.append_derived(agent, labels.clone(), at, value).ok(); // The journal's writer shows it again, and tells.
        Derived { agent, labels, at, value }
    })
}

/// Runs a rule's expression at an instant. A recording rule keeps what Prometheus would; of an alerting rule, what
/// depends on numbers that are none is doubtful, which matters only if there is an element or an `active` alert.
pub(super) fn run(
    planned: &Planned,
    source: &dyn Source,
    at: Timestamp,
    active: bool,
) -> Result<Weighed, String> {
    // One rule that meets a fault of ours must not blind the others.
    called(|| weighed(planned, source, at, active)).unwrap_or_else(|panicked| Err(panicked.to_string()))
}

fn weighed(planned: &Planned, source: &dyn Source, at: Timestamp, active: bool) -> Result<Weighed, String> {
    let (at, limits) = (at.minus(planned.query_offset), Limits::default());
    let judged = judge(&planned.expr, source, at, &limits).map_err(|error| error.to_string())?;
    let elements = match judged.value {
        Value::Vector(elements) => elements,
        Value::Scalar(value) => vec![Element { labels: Labels::empty(), value }],
        Value::Matrix(_) | Value::Text(_) => return Err("the expression gives no instant vector".into()),
    };
    if let Some(limit) = planned.limit.filter(|limit| *limit > 0 && elements.len() > *limit) {
        return Err(format!("{} elements, the group's limit is {limit}", elements.len()));
    }
    let matters = planned.spec.is_some() && (active || !elements.is_empty());
    if !(judged.in_doubt && matters) {
        return Ok(Weighed { certain: elements, doubtful: Vec::new() });
    }
    let weighed = weigh(&planned.expr, source, at, &limits, elements).map_err(|error| {
        format!("some number is none (NaN), and without it the expression can't be evaluated: {error}")
    })?;
    match weighed.doubtful.len() {
        found if found > ELEMENTS_MAX => {
            Err(format!("{found} elements depend on numbers that are none (NaN), at most {ELEMENTS_MAX}"))
        }
        _ => Ok(weighed),
    }
}

/// What an alerting rule's elements tell the ledger. Elements that it could not tell apart are a mistake of the rule.
pub(super) fn breaches(
    planned: &Planned,
    elements: Vec<Element>,
    statistics: &Statistics,
) -> Result<Vec<Breach>, String> {
    let RuleKind::Alert { name, .. } = &planned.rule.kind else { return Ok(Vec::new()) };
    if elements.len() > ELEMENTS_MAX {
        let found = elements.len();
        return Err(format!("{found} alerts at once, at most {ELEMENTS_MAX}: make its expression narrower"));
    }
    let expand = |templates: &[(Box<str>, Template)], labels: &Labels, value: f64| {
        let pairs = templates.iter().map(|(key, template)| {
            let text = expanded(template, labels, value).unwrap_or_else(|error| {
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
    let breaches: Vec<Breach> = elements.into_iter().map(breach).collect();
    distinct(breaches.iter().map(|breach| &breach.labels))?;
    Ok(breaches)
}

/// A template's text. One that meets a fault of ours has none, and its alert is told all the same.
fn expanded(template: &Template, labels: &Labels, value: f64) -> Result<String, String> {
    let text = called(|| template.expand(labels, value, &Labels::empty()));
    text.map_err(|panicked| panicked.to_string())?.map_err(|error| error.to_string())
}

/// The series that a recording rule's elements are values of.
pub(super) fn record(planned: &Planned, elements: Vec<Element>) -> Result<Vec<(Labels, f64)>, String> {
    let RuleKind::Record { metric } = &planned.rule.kind else { return Ok(Vec::new()) };
    let own = planned.rule.labels.iter().map(|(name, template)| (&**name, template.source()));
    let own: Vec<(&str, &str)> = own.chain([(METRIC_NAME, &**metric)]).collect();
    let series =
        elements.into_iter().map(|element| (element.labels.with(own.iter().copied()), element.value));
    let series: Vec<(Labels, f64)> = series.collect();
    distinct(series.iter().map(|(labels, _)| labels))?;
    Ok(series)
}

fn distinct<'a>(all: impl Iterator<Item = &'a Labels>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for labels in all {
        if !seen.insert(labels) {
            return Err(format!("two elements have the labels {labels}"));
        }
    }
    Ok(())
}
