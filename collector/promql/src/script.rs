//! Prometheus' test language: `load` some series, `eval` expressions over them, compare with what is expected.
//!
//! Text in, report out. A case is one `eval`; it passes, fails, or is skipped by a kind that is named: native histograms
//! and what Prometheus has behind feature flags. Values and annotations are compared as Prometheus' own runner does it:
//! six digits, warnings and infos only where a line expects them or their absence, and an instant once more as the
//! middle of a range. Promise: no line is passed over. One that cannot be read is a failed case with its number.
//! Left out: the runner's variants of an instant query with every selector at `@` the same time.

mod check;
mod experimental;
mod read;
mod series;

use crate::MemorySource;
use crate::selector::Selector;
use read::{Command, Load};
use series::Values;
pub(crate) use series::string;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

/// What came of a file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// One `eval`, or a line that cannot be read.
#[derive(Clone, Debug)]
pub struct Case {
    /// From 1.
    pub line: usize,
    /// The line as it stands there.
    pub text: String,
    pub outcome: Outcome,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Skipped(Skip),
    /// What was expected and what came instead.
    Failed(String),
}

/// Why a case is not judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    NativeHistograms,
    StartTimestamps,
    /// A function, an operator or a piece of syntax, as it is called.
    Experimental(String),
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NativeHistograms => write!(f, "native histograms"),
            Self::StartTimestamps => write!(f, "start timestamps"),
            Self::Experimental(what) => write!(f, "experimental: {what}"),
        }
    }
}

impl Report {
    /// How many passed, failed and were skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |is: fn(&Outcome) -> bool| self.cases.iter().filter(|case| is(&case.outcome)).count();
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        (count(|outcome| *outcome == Outcome::Passed), failed, skipped)
    }
}

/// Runs a file of cases.
pub fn run(text: &str) -> Report {
    run_all(text, false)
}

/// As `run`, and judges also the experimental functions that the engine knows.
pub fn run_experimental(text: &str) -> Report {
    run_all(text, true)
}

fn run_all(text: &str, experimental: bool) -> Report {
    let mut store = Store::default();
    let mut cases = Vec::new();
    for step in read::steps(text) {
        let outcome = match step.command {
            Err(why) => Outcome::Failed(why),
            Ok(Command::Clear) => {
                store = Store::default();
                continue;
            }
            Ok(Command::Load(load)) => match store.load(load) {
                Ok(()) => continue,
                Err(why) => Outcome::Failed(why),
            },
            Ok(Command::Eval(eval)) => check::outcome(&eval, &store, experimental),
        };
        cases.push(Case { line: step.line, text: step.text, outcome });
    }
    Report { cases }
}

/// Samples all files of cases together may load: far more than any has, and well within memory.
const SAMPLES_MAX: usize = 5_000_000;

/// What was loaded, and what could not be.
#[derive(Default)]
struct Store {
    source: MemorySource,
    samples: usize,
    /// Series that are not or not wholly in the source: what reads them cannot be judged.
    left_out: Vec<(Labels, Skip)>,
}

impl Store {
    fn load(&mut self, load: Load) -> Result<(), String> {
        for series::Line { labels, values, start_timestamps } in load.series {
            if start_timestamps {
                self.left_out.push((labels.clone(), Skip::StartTimestamps));
            }
            if load.converts {
                self.left_out.extend(converted(&labels).map(|labels| (labels, Skip::NativeHistograms)));
            }
            let Values::Floats(values) = values else {
                self.left_out.push((labels, Skip::NativeHistograms));
                continue;
            };
            self.samples = self.samples.saturating_add(values.len());
            if SAMPLES_MAX < self.samples {
                return Err(format!("{labels} is too much: a file may load {SAMPLES_MAX} samples at most"));
            }
            for (at, value) in values.into_iter().enumerate() {
                let time = load.step.saturating_mul(i64::try_from(at).unwrap_or(i64::MAX));
                if let Some(value) = value {
                    self.source.push(&labels, Timestamp::from_millis(time), value);
                }
            }
        }
        Ok(())
    }

    /// Why what these selectors read cannot be judged.
    fn misses(&self, selectors: &[Selector]) -> Option<Skip> {
        let read = |(labels, _): &&(Labels, Skip)| selectors.iter().any(|selector| selector.matches(labels));
        self.left_out.iter().find(read).map(|(_, skip)| skip.clone())
    }
}

/// The native histogram that `load_with_nhcb` makes beside the series of a classic one.
fn converted(labels: &Labels) -> Option<Labels> {
    let metric = labels.metric();
    let base = ["_bucket", "_count", "_sum"].into_iter().find_map(|suffix| metric.strip_suffix(suffix))?;
    Some(labels.with([("__name__", base), ("le", "")]))
}

#[cfg(test)]
mod tests;
