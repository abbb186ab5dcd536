//! What an expression gives: values now, or curves over a range.

use serde::Serialize;
use tocsin_proto::pb;

use super::{LabelMap, Moment, label_list, label_map, moment};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table};

/// Width of the small curve of a range.
const CURVE_WIDTH: usize = 40;
const CURVE_STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `tocsin query`, at an instant.
#[derive(Clone, Debug, Serialize)]
pub struct InstantView {
    pub at: Moment,
    /// `scalar`, `vector`, `matrix`, `string`.
    pub result_type: String,
    pub series: Vec<SeriesView>,
    /// The value of a `string`.
    pub text: Option<String>,
}

/// `tocsin query --start`.
#[derive(Clone, Debug, Serialize)]
pub struct RangeView {
    pub start: Moment,
    pub end: Moment,
    pub step_ms: u64,
    pub series: Vec<SeriesView>,
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
        let pb::InstantResponse { at_ms, result_type, series, text } = answer;
        let text = (result_type == "string").then_some(text);
        Self {
            at: moment(at_ms),
            result_type,
            series: series.into_iter().map(SeriesView::from).collect(),
            text,
        }
    }
}

impl SeriesView {
    /// `node_load1{instance="web-1"}`, as PromQL writes it.
    pub fn selector(&self) -> String {
        let mut labels = self.labels.clone();
        let name = labels.remove("__name__").unwrap_or_default();
        match labels.is_empty() {
            true if name.is_empty() => "{}".into(),
            true => name,
            false => format!("{name}{{{}}}", label_list(&labels)),
        }
    }
}

/// Nothing found is not nothing wrong: it is said what may be the reason.
const NO_SERIES: &str = "no series matches; look at the name and the labels, or further back with --start\n";

/// The values at an instant.
pub fn draw_instant(view: &InstantView, style: &Style) -> String {
    match (view.result_type.as_str(), &view.text) {
        ("string", Some(text)) => format!("{}\n", clean(text)),
        ("scalar", _) => match view.series.first().and_then(|series| series.points.first()) {
            Some(point) => format!("{}\n", point.value),
            None => NO_SERIES.into(),
        },
        _ if view.series.is_empty() => NO_SERIES.into(),
        ("matrix", _) => draw_points(&view.series, style),
        _ => draw_vector(view, style),
    }
}

fn draw_vector(view: &InstantView, style: &Style) -> String {
    // Label lists may be long: the value comes first, so that it is never cut off.
    let mut table = Table::new(&[">VALUE", "SERIES"]);
    for series in &view.series {
        let value = series.points.last().map(|point| figures::short_value(point.number)).unwrap_or_default();
        table.row([value.into(), series.selector().into()]);
    }
    table.draw(style)
}

fn draw_points(series: &[SeriesView], style: &Style) -> String {
    let mut text = String::new();
    for series in series {
        text.push_str(&format!("{}\n", style.strong(&clean(&series.selector()))));
        let mut table = Table::new(&["", ">"]).indented("  ");
        for point in &series.points {
            table.row([point.at.0.to_string().into(), point.value.as_str().into()]);
        }
        text.push_str(&table.draw(style));
    }
    text
}

/// The curves of a range: how low, how high, where it ended and which way it went.
pub fn draw_range(view: &RangeView, style: &Style) -> String {
    if view.series.is_empty() {
        return NO_SERIES.into();
    }
    let mut table = Table::new(&[">MIN", ">MAX", ">LAST", "CURVE", "SERIES"]);
    for series in &view.series {
        let numbers: Vec<f64> = series.points.iter().map(|point| point.number).collect();
        let finite = || numbers.iter().copied().filter(|number| !number.is_nan());
        let (low, high) = (finite().reduce(f64::min), finite().reduce(f64::max));
        let shown = |number: Option<f64>| number.map(figures::short_value).unwrap_or_default();
        table.row([
            shown(low).into(),
            shown(high).into(),
            shown(series.points.last().map(|point| point.number)).into(),
            Cell::from(curve(view, series)),
            series.selector().into(),
        ]);
    }
    let span = view.end.0.since(view.start.0);
    let note = format!(
        "{} to {} ({}), a point every {}; -o json has every point\n",
        figures::seconds(view.start.0),
        figures::seconds(view.end.0),
        figures::span(span),
        tocsin_shared::time::format_duration(std::time::Duration::from_millis(view.step_ms)),
    );
    table.draw(style) + &style.paint(Some(Paint::Faint), &note)
}

/// The points as small bars over the whole range; a time without points is blank.
fn curve(view: &RangeView, series: &SeriesView) -> String {
    let span = view.end.0.as_millis().saturating_sub(view.start.0.as_millis()).max(1) as f64;
    let mut slots = [None::<f64>; CURVE_WIDTH];
    for point in series.points.iter().filter(|point| point.number.is_finite()) {
        let from_start = point.at.0.as_millis().saturating_sub(view.start.0.as_millis()) as f64;
        let slot = (from_start / span * (CURVE_WIDTH - 1) as f64) as usize; // A float-to-int `as` saturates.
        let slot = &mut slots[slot.min(CURVE_WIDTH - 1)];
        *slot = Some(slot.map_or(point.number, |number| number.max(point.number)));
    }
    let values = || slots.iter().flatten().copied();
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let bar = |number: f64| match high - low {
        height if height > 0.0 => CURVE_STEPS[(((number - low) / height * 7.0).round() as usize).min(7)],
        _ => CURVE_STEPS[0],
    };
    slots.iter().map(|slot| slot.map_or(' ', bar)).collect()
}
