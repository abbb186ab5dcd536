//! Rules across hosts: at their ticks, behind a watermark.
//!
//! The watermark is the slowest host that still sends; a host that is silent for longer than `SILENT` is not waited
//! for. While such a host is silent, elements that were breached and vanish are held: its silence is no evidence.

use std::collections::HashMap;
use std::time::Duration;

use tocsin_promql::Element;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::host::{breaches, record, run};
use super::plan::Plan;
use super::statistics::Statistics;
use crate::alert::Evaluation;
use crate::journal::rows::Derived;
use crate::samples::Store;

/// A host without a row for this long, in event time, is silent. Longer than three ticks of any sensible interval.
const SILENT: Duration = Duration::from_secs(60);

/// How far all sending hosts have come, and whether some host that sent before is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermark {
    at: Timestamp,
    some_silent: bool,
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

#[derive(Default)]
pub(super) struct FleetRules {
    rules: HashMap<usize, FleetProgress>,
}

struct FleetProgress {
    ran_at: Timestamp,
    held: Vec<Element>,
    told: bool,
}

impl FleetRules {
    pub(super) fn adopt(&mut self, _plan: &Plan) {
        self.rules.clear();
    }

    pub(super) fn evaluate(
        &mut self,
        plan: &Plan,
        store: &Store,
        watermark: Watermark,
        statistics: &Statistics,
    ) -> (Vec<Evaluation>, Vec<Derived>) {
        let (mut evaluations, mut derived) = (Vec::new(), Vec::new());
        for (number, planned) in plan.rules.iter().enumerate().filter(|(_, planned)| !planned.host_local) {
            let tick = watermark.at.align_down(planned.interval);
            let progress = self.rules.entry(number).or_insert(FleetProgress {
                ran_at: Timestamp::MIN,
                held: Vec::new(),
                told: false,
            });
            if tick <= progress.ran_at {
                continue;
            }
            progress.ran_at = tick;
            let view = store.view();
            let result = run(planned, &view, tick).and_then(|elements| match view.take_error() {
                Some(error) => Err(error.to_string()),
                None => Ok(elements),
            });
            let mut elements = match result {
                Ok(elements) => elements,
                Err(why) => {
                    statistics.rule_failed(planned.rule.id.as_str(), why);
                    continue;
                }
            };
            let Some(spec) = &planned.spec else {
                for (labels, value) in record(planned, elements, tick) {
                    store.append_derived(None, labels.clone(), tick, value).ok(); // Counted by the journal's writer, which shows it again.
                    derived.push(Derived { agent: None, labels, at: tick, value });
                }
                continue;
            };
            if watermark.some_silent {
                hold(&mut elements, &progress.held);
            }
            progress.held.clone_from(&elements);
            if !elements.is_empty() || progress.told || !spec.keep_firing_for.is_zero() {
                progress.told = !elements.is_empty();
                let elements = breaches(planned, elements, statistics);
                evaluations.push(Evaluation {
                    agent: None,
                    rule: spec.clone(),
                    at: tick,
                    samples_seq: 0,
                    elements,
                });
            }
        }
        (evaluations, derived)
    }
}

/// Adds the elements that were there before and are not now.
fn hold(elements: &mut Vec<Element>, before: &[Element]) {
    let now: Vec<Labels> = elements.iter().map(|element| element.labels.clone()).collect();
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

    #[test]
    fn a_vanished_element_is_held_once() {
        let element = |name: &str, value| Element { labels: Labels::new([("a", name)]), value };
        let mut now = vec![element("x", 2.0)];
        hold(&mut now, &[element("x", 1.0), element("y", 1.0)]);
        assert_eq!(now.iter().map(|e| e.value).collect::<Vec<_>>(), [2.0, 1.0]);
    }
}
