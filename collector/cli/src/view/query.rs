//! What an expression gives: values now, or curves over a range.
//!
//! Here are the JSON shapes; how people see them is in `draw` and `plot`, the forms for other programs in `export`,
//! and which labels become columns in `layout`.

mod draw;
mod export;
mod layout;
mod plot;
#[cfg(test)]
mod tests;

use serde::Serialize;
use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;

use super::{LabelMap, Moment, label_list, label_map, moment};
use crate::figures;

pub use draw::{curve, draw_instant, draw_range};
pub use export::{csv_of_instant, csv_of_range, plain_of_instant, plain_of_range};
pub use plot::draw_plot;

/// `tocsin query`, at an instant.
#[derive(Clone, Debug, Serialize)]
pub struct InstantView {
    pub at: Moment,
    /// `scalar`, `vector`, `matrix`, `string`.
    pub result_type: String,
    pub series: Vec<SeriesView>,
    /// The value of a `string`.
    pub text: Option<String>,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

/// `tocsin query --start`.
#[derive(Clone, Debug, Serialize)]
pub struct RangeView {
    pub start: Moment,
    pub end: Moment,
    pub step_ms: u64,
    pub series: Vec<SeriesView>,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

/// A series and its points, oldest first.
#[derive(Clone, Debug, Serialize)]
pub struct SeriesView {
    pub labels: LabelMap,
    pub points: Vec<PointView>,
}

/// A value at a time.
#[derive(Clone, Debug, Serialize)]
pub struct PointView {
    pub at: Moment,
    /// As Prometheus' API writes it; `NaN`, `+Inf` and `-Inf` are values, too.
    pub value: String,
    #[serde(skip)]
    pub number: f64,
}

impl From<pb::PointSeries> for SeriesView {
    fn from(pb::PointSeries { labels, points }: pb::PointSeries) -> Self {
        let point = |pb::Point { at_ms, value }| PointView {
            at: moment(at_ms),
            value: figures::value(value),
            number: value,
        };
        Self { labels: label_map(labels), points: points.into_iter().map(point).collect() }
    }
}

impl From<pb::InstantResponse> for InstantView {
    fn from(answer: pb::InstantResponse) -> Self {
        let pb::InstantResponse { at_ms, result_type, series, text, warnings, infos } = answer;
        let text = (result_type == "string").then_some(text);
        let series = series.into_iter().map(SeriesView::from).collect();
        Self { at: moment(at_ms), result_type, series, text, warnings, infos }
    }
}

impl RangeView {
    /// The answer to a request for these times.
    pub fn new(start: Timestamp, end: Timestamp, step_ms: i64, answer: pb::RangeResponse) -> Self {
        let pb::RangeResponse { series, warnings, infos } = answer;
        let series = series.into_iter().map(SeriesView::from).collect();
        let step_ms = step_ms.unsigned_abs();
        Self { start: Moment(start), end: Moment(end), step_ms, series, warnings, infos }
    }
}

impl SeriesView {
    /// `node_load1{instance="web-1"}`, as PromQL writes it.
    pub fn selector(&self) -> String {
        selector(&self.labels)
    }

    fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        self.points.iter().map(|point| point.number)
    }

    /// Lowest, highest and last value.
    fn extremes(&self) -> [Option<f64>; 3] {
        let some = || self.numbers().filter(|number| !number.is_nan());
        [some().reduce(f64::min), some().reduce(f64::max), self.numbers().last()]
    }
}

fn selector(labels: &LabelMap) -> String {
    let mut labels = labels.clone();
    let name = labels.remove("__name__").unwrap_or_default();
    match labels.is_empty() {
        true if name.is_empty() => "{}".into(),
        true => name,
        false => format!("{name}{{{}}}", label_list(&labels)),
    }
}
