//! What an evaluation says beside its result: warnings where part of the result is in doubt, infos where a query may
//! not mean what it says. The words and the conditions are those of Prometheus 3.
//!
//! Promise: rules pay nothing for it: without a `Notes` that listens, nothing is looked at or formatted.
//! Not here: what only native histograms can cause.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tocsin_shared::time::Timestamp;

use crate::numbers;
use crate::places::{Place, position};

/// What is said of one result, each once, in the order of the query's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

impl Annotations {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }

    /// At most so many of each, and a line that counts the others. Prometheus' API gives 10 of each.
    pub fn at_most(mut self, most: usize) -> Self {
        shorten(&mut self.warnings, most, "warning");
        shorten(&mut self.infos, most, "info");
        self
    }
}

fn shorten(lines: &mut Vec<String>, most: usize, kind: &str) {
    let more = lines.len().saturating_sub(most);
    if 0 < more {
        lines.truncate(most);
        lines.push(format!("{more} more {kind} annotations omitted"));
    }
}

/// Distinct annotations kept of one evaluation: people read ten, and every series could cause one of its own.
const NOTES_MAX: usize = 200;

/// One thing to say, without where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Note {
    InvalidQuantile { text: String },
    BadBucketLabel { label: String, metric: String },
    NotACounter { metric: String },
    NotMonotonic { metric: String },
}

/// By how much the buckets of a histogram had to be lifted, over all steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lift {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) most: f64,
}

#[derive(Clone, Copy, Debug)]
struct Lifts {
    all: Lift,
    samples: usize,
    first: i64,
    last: i64,
}

/// An annotation is said once per place.
type Key = (Option<Place>, Note);

/// Listens to an evaluation, or not.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    listens: bool,
    found: RefCell<BTreeMap<Key, Option<Lifts>>>,
    /// What was noted last, so that the many series of one metric cost a comparison each.
    last: RefCell<(Option<Place>, String)>,
    full: Cell<bool>,
}

impl Notes {
    /// One that nobody reads.
    pub(crate) fn deaf() -> Self {
        Self::default()
    }

    pub(crate) fn listening() -> Self {
        Self { listens: true, ..Self::default() }
    }

    pub(crate) fn listens(&self) -> bool {
        self.listens
    }

    fn add(&self, place: Option<Place>, note: Note) {
        let mut found = self.found.borrow_mut();
        if NOTES_MAX <= found.len() {
            self.full.set(true);
        } else {
            found.entry((place, note)).or_insert(None);
        }
    }

    /// A quantile that is not between 0 and 1.
    pub(crate) fn quantile(&self, value: f64, place: Option<Place>) {
        if self.listens && !(0.0..=1.0).contains(&value) {
            self.add(place, Note::InvalidQuantile { text: numbers::general(value) });
        }
    }

    /// A bucket whose `le` is no number.
    pub(crate) fn bad_bucket(&self, label: &str, metric: &str, place: Option<Place>) {
        if self.listens {
            self.add(place, Note::BadBucketLabel { label: label.to_owned(), metric: metric.to_owned() });
        }
    }

    /// A rate of something that may be no counter, by its name.
    pub(crate) fn rate_of(&self, metric: &str, place: Option<Place>) {
        let counts = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix));
        if counts || metric.is_empty() {
            return;
        }
        let mut last = self.last.borrow_mut();
        if (last.0, last.1.as_str()) != (place, metric) {
            *last = (place, metric.to_owned());
            self.add(place, Note::NotACounter { metric: metric.to_owned() });
        }
    }

    /// A histogram at one instant whose counts fell from one bucket to the next.
    pub(crate) fn lifted(&self, lift: Lift, at: i64, metric: &str, place: Option<Place>) {
        if !self.listens {
            return;
        }
        let key = (place, Note::NotMonotonic { metric: metric.to_owned() });
        let mut found = self.found.borrow_mut();
        if NOTES_MAX <= found.len() && !found.contains_key(&key) {
            self.full.set(true);
            return;
        }
        let lifts = found.entry(key).or_insert(None);
        let sum = lifts.get_or_insert(Lifts { all: lift, samples: 0, first: at, last: at });
        sum.all.lowest = sum.all.lowest.min(lift.lowest);
        sum.all.highest = sum.all.highest.max(lift.highest);
        sum.all.most = sum.all.most.max(lift.most);
        (sum.first, sum.last) = (sum.first.min(at), sum.last.max(at));
        sum.samples += 1;
    }

    /// What was found, as it is read; `text` is the query.
    pub(crate) fn into_annotations(self, text: &str) -> Annotations {
        let mut annotations = Annotations::default();
        for ((place, note), lifts) in self.found.into_inner() {
            let (is_warning, mut line) = words(&note, lifts);
            if let Some(place) = place {
                line.push_str(&format!(" ({})", position(text, place)));
            }
            let lines = if is_warning { &mut annotations.warnings } else { &mut annotations.infos };
            lines.push(line);
        }
        if self.full.get() {
            annotations
                .warnings
                .push(format!("PromQL warning: more than {NOTES_MAX} annotations, the rest is omitted"));
        }
        annotations
    }
}

fn words(note: &Note, lifts: Option<Lifts>) -> (bool, String) {
    let named = |metric: &str| match metric {
        "" => String::new(),
        metric => format!(" for metric name {}", numbers::quoted(metric)),
    };
    match note {
        Note::InvalidQuantile { text } => {
            (true, format!("PromQL warning: quantile value should be between 0 and 1, got {text}"))
        }
        Note::BadBucketLabel { label, metric } => {
            let what = "PromQL warning: bucket label \"le\" is missing or has a malformed value of";
            (true, format!("{what} {}{}", numbers::quoted(label), named(metric)))
        }
        Note::NotACounter { metric } => {
            let what = "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
            (false, format!("{what} {}", numbers::quoted(metric)))
        }
        Note::NotMonotonic { metric } => {
            let what = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
                        https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
            (false, format!("{what}{}{}", named(metric), lifts.map_or(String::new(), how_far)))
        }
    }
}

fn how_far(Lifts { all, samples, first, last }: Lifts) -> String {
    let (lowest, highest) = (numbers::general(all.lowest), numbers::general(all.highest));
    let time = |at: i64| {
        let at = Timestamp::from_millis(at.div_euclid(1000).saturating_mul(1000)).to_string();
        at.replace(".000Z", "Z")
    };
    let most = numbers::significant(all.most, 2);
    let (first, last) = (time(first), time(last));
    format!(
        ", from buckets {lowest} to {highest}, with a max diff of {most}, over {samples} samples from {first} to {last}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_said_once_in_the_order_of_the_text() {
        let notes = Notes::listening();
        let place = |at| Some(Place(at));
        notes.rate_of("x", place(7));
        notes.rate_of("y", place(9));
        notes.rate_of("x", place(7));
        notes.rate_of("x_total", place(7));
        notes.rate_of("", place(7));
        notes.quantile(1.0, place(3));
        notes.quantile(1.5, place(3));
        notes.quantile(f64::NAN, None);
        let lift = |most| Lift { lowest: 2.5, highest: 100.0, most };
        notes.lifted(lift(7.5), 1_703_462_400_000, "h_bucket", place(2));
        notes.lifted(lift(10.0), 1_735_084_800_000, "h_bucket", place(2));
        notes.bad_bucket("Hello\n", "h_bucket", place(2));
        let annotations = notes.into_annotations("ab\nlonger text");
        assert_eq!(
            annotations.warnings,
            [
                "PromQL warning: quantile value should be between 0 and 1, got NaN",
                "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"Hello\\n\" for metric name \
                 \"h_bucket\" (1:3)",
                "PromQL warning: quantile value should be between 0 and 1, got 1.5 (2:1)",
            ]
        );
        assert_eq!(
            annotations.infos,
            [
                "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
                 https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name \
                 \"h_bucket\", from buckets 2.5 to 100, with a max diff of 10, over 2 samples from \
                 2023-12-25T00:00:00Z to 2024-12-25T00:00:00Z (1:3)",
                "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"x\" (2:5)",
                "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"y\" (2:7)",
            ]
        );
        let short = annotations.at_most(1);
        assert_eq!((short.warnings.len(), short.infos[1].as_str()), (2, "2 more info annotations omitted"));
    }

    #[test]
    fn a_deaf_ear_and_a_full_one_keep_little() {
        let deaf = Notes::deaf();
        deaf.quantile(2.0, None);
        deaf.bad_bucket("", "", None);
        assert!(deaf.into_annotations("").is_empty());
        let notes = Notes::listening();
        (0..10 * NOTES_MAX).for_each(|at| notes.bad_bucket(&at.to_string(), "", None));
        assert_eq!(notes.into_annotations("").warnings.len(), NOTES_MAX + 1);
    }
}
