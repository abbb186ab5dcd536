//! Rules across hosts: at their ticks, behind a watermark. And host-local rules over received series, of whose hosts
//! nobody says when a row is whole: all of them at their ticks, too, behind the watermark of the sources.
//!
//! The watermark is the slowest host that still sends; a host that is silent for longer than `SILENT` is not waited
//! for. While such a host is silent, elements that were breached and vanish are held: its silence is no evidence.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tocsin_promql::{Element, Weighed};
use tocsin_shared::alert::{Alert, AlertSource};
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::time::Timestamp;

use super::burden::Burden;
use super::host::{Recorded, breaches, record, run, show};
use super::plan::{Plan, Planned};
use super::statistics::Statistics;
use super::stopwatch::Stopwatch;
use crate::alert::{Evaluation, dedup_key};
use crate::journal::rows::Derived;
use crate::samples::Store;

/// A host without a row for this long, in event time, is silent. Longer than three ticks of any sensible interval.
const SILENT: Duration = Duration::from_secs(60);

/// Ticks that are made up for when the watermark jumps; a `for` needs no more than its ends.
const TICKS_MAX: u32 = 8;

/// How far all sending hosts have come, and whether some host that sent before is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) at: Timestamp,
    pub(super) some_silent: bool,
}

/// The watermark of hosts whose last rows were at `seen`; `newest` is the youngest row of all.
pub(super) fn watermark(seen: impl Iterator<Item = Timestamp>, newest: Timestamp) -> Option<Watermark> {
    let (mut at, mut some_silent) = (None, false);
    for last in seen {
        if newest.since(last) > SILENT {
            some_silent = true;
        } else {
            at = Some(at.map_or(last, |at: Timestamp| at.min(last)));
        }
    }
    at.map(|at| Watermark { at, some_silent })
}

/// Which rules run, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Rules across hosts, over everything.
    Hosts,
    /// Host-local rules, over what sources push.
    Received,
}

/// What is known of the rules across hosts between two ticks, by rule: it outlives a new plan.
pub(super) struct FleetRules {
    over: Over,
    rules: HashMap<String, FleetProgress>,
}

#[derive(Default)]
struct FleetProgress {
    ran_at: Option<Timestamp>,
    /// The last tick that was looked at: it ran, or was left out.
    seen: Option<Timestamp>,
    /// The elements that were breached at the last tick.
    held: Vec<Element>,
    /// Whether the ledger may know of alerts: then an empty result matters.
    active: bool,
    recorded: Recorded,
}

impl FleetRules {
    /// The alerts of rules across hosts that were active at the start hold their elements as if nothing had happened.
    pub(super) fn new(over: Over, active: &[Alert], plan: &Plan) -> Self {
        let mut rules: HashMap<String, FleetProgress> = HashMap::new();
        for alert in active {
            let progress = rules.entry(alert.source_id.clone()).or_default();
            progress.active = true;
            let planned = plan.rules.iter().find(|planned| planned.rule.id.as_str() == alert.source_id);
            progress.held.extend(planned.and_then(|planned| element_of(alert, planned)));
        }
        Self { over, rules }
    }

    /// A new plan: rules that stay go on, and tell an empty result once.
    pub(super) fn adopt(&mut self, plan: &Plan) {
        let ids = plan.rule_ids();
        self.rules.retain(|id, _| ids.contains(id));
        self.rules.values_mut().for_each(|progress| progress.active = true);
    }

    pub(super) fn evaluate(
        &mut self,
        plan: &Plan,
        store: &Store,
        watermark: Watermark,
        (statistics, burden): (&Statistics, &mut Burden),
    ) -> (Vec<Evaluation>, Vec<Derived>) {
        let (mut evaluations, mut derived) = (Vec::new(), Vec::new());
        let mut stopwatch = Stopwatch::begin(burden);
        let host_local = self.over == Over::Received;
        for planned in plan.rules.iter().filter(|planned| planned.host_local == host_local) {
            let id = planned.rule.id.as_str();
            if !self.rules.contains_key(id) {
                self.rules.insert(id.to_owned(), FleetProgress::default());
            }
            let Some(progress) = self.rules.get_mut(id) else { continue };
            statistics.skipped(passed_over(progress.seen, watermark.at, planned.interval));
            for tick in ticks(progress.seen, watermark.at, planned.interval) {
                progress.seen = Some(tick);
                let since = progress.ran_at.map(|ran_at| tick.since(ran_at));
                if stopwatch.defers(planned.group_at, since) {
                    continue;
                }
                statistics.moved();
                let before = progress.ran_at.replace(tick);
                let view = if host_local { store.view().of_received() } else { store.view() };
                let result = run(planned, &view, tick, progress.active).and_then(|found| {
                    let when = When { at: tick, before, some_silent: watermark.some_silent };
                    match view.take_error() {
                        Some(error) => Err(error.to_string()),
                        None => progress.outcome(planned, found, when, statistics),
                    }
                });
                match result {
                    Ok((evaluation, values)) => {
                        evaluations.extend(evaluation);
                        derived.extend(show(store, None, tick, values));
                    }
                    Err(why) => statistics.rule_failed(id, why),
                }
            }
        }
        (evaluations, derived)
    }
}

type Outcome = (Option<Evaluation>, Vec<(Labels, f64)>);

/// When a rule across hosts is evaluated.
struct When {
    at: Timestamp,
    /// Its tick before this one.
    before: Option<Timestamp>,
    some_silent: bool,
}

impl FleetProgress {
    fn outcome(
        &mut self,
        planned: &Planned,
        Weighed { certain: mut elements, doubtful }: Weighed,
        When { at, before, some_silent }: When,
        statistics: &Statistics,
    ) -> Result<Outcome, String> {
        let Some(spec) = &planned.spec else {
            return Ok((None, self.recorded.next(record(planned, elements)?)));
        };
        let (doubted, others): (Vec<Element>, _) =
            std::mem::take(&mut self.held).into_iter().partition(|element| is_among(element, &doubtful));
        if some_silent {
            hold(&mut elements, &others);
        }
        self.held = elements.iter().cloned().chain(doubted).collect();
        if elements.is_empty() && !self.active {
            return Ok((None, Vec::new()));
        }
        let breached = breaches(planned, elements, statistics)?;
        let holds = self.active && !doubtful.is_empty();
        self.active = !breached.is_empty() || holds || !spec.keep_firing_for.is_zero();
        let rule = spec.clone();
        let evaluation =
            Evaluation { agent: None, rule, at, samples_seq: 0, elements: breached, doubtful, before };
        Ok((Some(evaluation), Vec::new()))
    }
}

/// Whether these labels are an element's, but for its metric name.
fn is_among(element: &Element, labels: &[Labels]) -> bool {
    !labels.is_empty() && labels.contains(&element.labels.without(|name| name == METRIC_NAME))
}

/// The ticks after `ran_at` up to the watermark: the last alone at first, and the last few after a jump.
fn ticks(
    ran_at: Option<Timestamp>,
    watermark: Timestamp,
    interval: Duration,
) -> impl Iterator<Item = Timestamp> {
    let last = watermark.align_down(interval);
    let back = (0..TICKS_MAX).rev().map(move |back| last.minus(interval * back));
    back.filter(move |tick| ran_at.map_or(*tick == last, |ran_at| *tick > ran_at))
}

/// How many ticks `ticks` leaves out of those after `seen`.
fn passed_over(seen: Option<Timestamp>, watermark: Timestamp, interval: Duration) -> u64 {
    let Some(seen) = seen else { return 0 };
    let after = watermark.align_down(interval).since(seen).as_millis() / interval.as_millis().max(1);
    u64::try_from(after).unwrap_or(u64::MAX).saturating_sub(u64::from(TICKS_MAX))
}

/// The element whose alert this is: its labels without what the rule put on, if that is the same alert still.
fn element_of(alert: &Alert, planned: &Planned) -> Option<Element> {
    let of_rule = |name: &str| planned.rule.labels.iter().any(|(own, _)| **own == *name);
    let added = |name: &str| name == "alertname" || name == "severity" || of_rule(name);
    let labels = alert.labels.without(added);
    let key = dedup_key(AlertSource::Rule, &alert.source_id, None, &labels);
    (key == alert.dedup_key).then_some(Element { labels, value: alert.value })
}

/// Adds the elements that were there before and are not now.
fn hold(elements: &mut Vec<Element>, before: &[Element]) {
    let now: HashSet<Labels> = elements.iter().map(|element| element.labels.clone()).collect();
    elements.extend(before.iter().filter(|element| !now.contains(&element.labels)).cloned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_sending_host_sets_the_watermark() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        for (seen, newest, want) in [
            (vec![], 100, None),
            (vec![100, 90], 100, Some((90, false))),
            (vec![100, 40], 100, Some((40, false))),
            (vec![100, 39], 100, Some((100, true))),
        ] {
            let got = watermark(seen.iter().map(|s| at(*s)), at(newest));
            assert_eq!(got, want.map(|(s, some_silent)| Watermark { at: at(s), some_silent }), "{seen:?}");
        }
    }

    // Cases: T9
    #[test]
    fn ticks_do_not_pile_up_and_those_passed_over_are_counted() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        for (seen, watermark, ran, passed) in [
            (None, 1_000, vec![990], 0),
            (Some(990), 1_000, vec![], 0),
            (Some(990), 1_020, vec![1_020], 0),
            (Some(990), 1_084, vec![1_020, 1_050, 1_080], 0),
            (Some(990), 1_230, vec![1_020, 1_050, 1_080, 1_110, 1_140, 1_170, 1_200, 1_230], 0),
            (Some(990), 1_260, vec![1_050, 1_080, 1_110, 1_140, 1_170, 1_200, 1_230, 1_260], 1),
            (Some(990), 4_230, (0..8).map(|n| 4_020 + n * 30).collect(), 100),
        ] {
            let interval = Duration::from_secs(30);
            let ticks: Vec<_> = ticks(seen.map(at), at(watermark), interval).collect();
            assert_eq!(ticks, ran.into_iter().map(at).collect::<Vec<_>>(), "{seen:?} to {watermark}");
            assert_eq!(passed_over(seen.map(at), at(watermark), interval), passed, "{seen:?} to {watermark}");
        }
    }

    #[test]
    fn a_vanished_element_is_held_once() {
        let element = |name: &str, value| Element { labels: Labels::new([("a", name)]), value };
        let mut now = vec![element("x", 2.0)];
        hold(&mut now, &[element("x", 1.0), element("y", 1.0)]);
        assert_eq!(now.iter().map(|e| e.value).collect::<Vec<_>>(), [2.0, 1.0]);
    }
}
