//! What changed of a result since a subscriber was last given it.
//!
//! Pure. A series is known by its labels; its value changed when its bits did, and one NaN is like another.
//! Promise: whoever forgets everything at `Whole`, puts what `changed` and takes away what is `gone`, has the result.

use std::collections::HashMap;

use tocsin_promql::{Annotations, Element};
use tocsin_shared::labels::Labels;

/// What a subscriber has.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// `None`: nothing yet.
    series: Option<HashMap<Labels, u64>>,
    notes: Notes,
}

/// What is said about a result beside its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

impl From<Annotations> for Notes {
    fn from(annotations: Annotations) -> Self {
        let Annotations { warnings, infos } = annotations;
        Self { warnings, infos }
    }
}

/// What to give.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Delta {
    Whole(Vec<Element>),
    Changes { changed: Vec<Element>, gone: Vec<Labels> },
    Unchanged,
}

impl Given {
    /// Takes a result, and says what of it the subscriber does not have.
    pub(super) fn give(&mut self, result: Vec<Element>, notes: &Notes) -> Delta {
        let new: HashMap<Labels, u64> =
            result.iter().map(|element| (element.labels.clone(), bits(element.value))).collect();
        let said = std::mem::replace(&mut self.notes, notes.clone());
        let Some(mut old) = self.series.replace(new) else { return Delta::Whole(result) };
        let changed = |element: &Element| old.remove(&element.labels) != Some(bits(element.value));
        let changed: Vec<Element> = result.into_iter().filter(changed).collect();
        let mut gone: Vec<Labels> = old.into_keys().collect();
        if changed.is_empty() && gone.is_empty() && said == *notes {
            return Delta::Unchanged;
        }
        gone.sort_unstable();
        Delta::Changes { changed, gone }
    }
}

fn bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a=1 b=2`: two series and their values.
    fn result(text: &str) -> Vec<Element> {
        let element = |part: &str| {
            let (name, value) = part.split_once('=').unwrap();
            Element { labels: Labels::series(name, &[]), value: value.parse().unwrap() }
        };
        text.split_whitespace().map(element).collect()
    }

    fn shown(delta: &Delta) -> String {
        let elements = |elements: &[Element]| {
            elements
                .iter()
                .map(|element| format!(" {}={}", element.labels, element.value))
                .collect::<String>()
        };
        match delta {
            Delta::Whole(all) => format!("whole{}", elements(all)),
            Delta::Changes { changed, gone } => {
                let gone: String = gone.iter().map(|labels| format!(" -{labels}")).collect();
                format!("changes{}{gone}", elements(changed))
            }
            Delta::Unchanged => "unchanged".into(),
        }
    }

    #[test]
    fn each_step_gives_what_is_new() {
        for (steps, why) in [
            (&[("", "whole"), ("", "unchanged"), ("a=1", "changes a=1")][..], "an empty result is a result"),
            (&[("a=1 b=2", "whole a=1 b=2"), ("a=1 b=2", "unchanged")], "nothing new"),
            (&[("a=1 b=2", "whole a=1 b=2"), ("b=2 a=1", "unchanged")], "order is nothing"),
            (&[("a=1 b=2", "whole a=1 b=2"), ("a=1 b=3", "changes b=3")], "a value"),
            (&[("a=1", "whole a=1"), ("a=1 b=2", "changes b=2")], "one appears"),
            (&[("a=1 b=2 c=3", "whole a=1 b=2 c=3"), ("b=2", "changes -a -c")], "some vanish"),
            (&[("a=1 b=2", "whole a=1 b=2"), ("c=1 a=2", "changes c=1 a=2 -b")], "all at once"),
            (&[("a=NaN", "whole a=NaN"), ("a=-NaN", "unchanged"), ("a=1", "changes a=1")], "NaN is itself"),
            (&[("a=0", "whole a=0"), ("a=-0", "changes a=-0")], "zero has a sign"),
            (&[("a=1", "whole a=1"), ("", "changes -a"), ("a=1", "changes a=1")], "it comes back"),
        ] {
            let mut given = Given::default();
            for (number, (text, expected)) in steps.iter().enumerate() {
                let delta = given.give(result(text), &Notes::default());
                assert_eq!(shown(&delta), *expected, "{why}, step {number}");
            }
        }
    }

    #[test]
    fn a_new_warning_is_a_change() {
        let mut given = Given::default();
        let warned = Notes { warnings: vec!["hm".into()], infos: Vec::new() };
        given.give(result("a=1"), &Notes::default());
        assert_eq!(given.give(result("a=1"), &warned), Delta::Changes { changed: vec![], gone: vec![] });
        assert_eq!(given.give(result("a=1"), &warned), Delta::Unchanged);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Some steps are missed: what is given later is made against what was given, so nothing is lost by it.
        #[test]
        fn who_follows_has_the_result(steps in prop::collection::vec(
            prop::collection::btree_map("[a-e]", 0..3_i32, 0..5), 1..12,
        )) {
            let (mut given, mut has) = (Given::default(), HashMap::new());
            for step in steps {
                let element = |(name, value): (&String, &i32)| Element {
                    labels: Labels::series(name, &[]),
                    value: f64::from(*value),
                };
                match given.give(step.iter().map(element).collect(), &Notes::default()) {
                    Delta::Whole(all) => {
                        has.clear();
                        has.extend(all.into_iter().map(|element| (element.labels, element.value)));
                    }
                    Delta::Changes { changed, gone } => {
                        has.extend(changed.into_iter().map(|element| (element.labels, element.value)));
                        has.retain(|labels, _| !gone.contains(labels));
                    }
                    Delta::Unchanged => {}
                }
                let expected: HashMap<Labels, f64> =
                    step.iter().map(element).map(|element| (element.labels, element.value)).collect();
                prop_assert_eq!(&has, &expected);
            }
        }
    }
}
