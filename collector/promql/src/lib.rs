//! The query engine: parse, plan and evaluate PromQL over any source of samples.
//!
//! Text becomes an `Expr` once (`expr`, `plan`): parsed, type-checked, its regular expressions compiled. An `Expr` is
//! then evaluated as often as wanted, at one instant or over a range (`eval`), over anything that implements `Source`.
//! Promises: pure (no I/O, no clock), Prometheus 3 semantics for float samples, every refusal at parse time unless
//! it depends on the data, and no panic whatever the text or the samples are.
//! Not here, and refused by name: native histograms and the functions for them, `info()`, `limitk`, `limit_ratio`,
//! `sort_by_label`, `fill` and what else Prometheus hides behind feature flags, except the functions of scalars and
//! windows it hides there (`step()`, `max_of()`, `ts_of_max_over_time()`, `mad_over_time()`, …), which work.
//! `script` runs Prometheus' test language over it.

mod aggregate;
mod annotations;
mod binary;
mod eval;
mod expr;
mod functions;
mod labelling;
mod numbers;
mod places;
mod plan;
pub mod script;
mod selector;
mod source;
mod sums;
mod text;

pub use annotations::Annotations;
pub use eval::{
    Answer, Element, EvalError, Judged, SeriesPoints, Side, Value, Weighed, instant, instant_with, judge,
    range, range_with, weigh,
};
pub use expr::{Expr, ParseError, format};
pub use selector::{InvalidPattern, MatchOp, Matcher, Selector};
pub use source::{Limits, MemorySource, Options, Source};

/// How far an instant selector looks back for a sample: Prometheus' default. A sample exactly this old is out.
pub const LOOK_BACK: std::time::Duration = std::time::Duration::from_secs(5 * 60);
