//! Results for other programs: CSV and plain lines.
//!
//! Pure. Both are a promise, as the JSON is. CSV: a header, then a line a point: a column for each label of the result in
//! the order of their names (`__name__` is the metric's), then `time` (RFC 3339, milliseconds, UTC) and `value` (as
//! Prometheus' API writes it). Fields are quoted where RFC 4180 says so; a text that a spreadsheet would take for a formula
//! gets a `'` before it. Plain: a line a point in Prometheus' text format, series, value, milliseconds. A string is one
//! line, a scalar a series without labels.

use std::collections::BTreeSet;

use super::{InstantView, RangeView, SeriesView};
use crate::screen::clean;

/// A range as CSV.
pub fn csv_of_range(view: &RangeView) -> String {
    csv(&view.series)
}

/// The values at an instant as CSV.
pub fn csv_of_instant(view: &InstantView) -> String {
    match &view.text {
        Some(text) => format!("value\n{}\n", field(text)),
        None => csv(&view.series),
    }
}

/// A range as plain lines.
pub fn plain_of_range(view: &RangeView) -> String {
    plain(&view.series)
}

/// The values at an instant as plain lines.
pub fn plain_of_instant(view: &InstantView) -> String {
    match &view.text {
        Some(text) => format!("{}\n", clean(text)),
        None => plain(&view.series),
    }
}

fn csv(series: &[SeriesView]) -> String {
    let names: BTreeSet<&String> = series.iter().flat_map(|series| series.labels.keys()).collect();
    let mut text = String::new();
    for name in &names {
        text.push_str(&field(name));
        text.push(',');
    }
    text.push_str("time,value\n");
    for series in series {
        let labels: String = names
            .iter()
            .map(|name| field(series.labels.get(*name).map_or("", String::as_str)) + ",")
            .collect();
        for point in &series.points {
            text.push_str(&format!("{labels}{},{}\n", point.at.0, point.value));
        }
    }
    text
}

fn field(text: &str) -> String {
    let mut text = clean(text);
    if text.starts_with(['=', '+', '-', '@']) {
        text.insert(0, '\'');
    }
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        text = format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

fn plain(series: &[SeriesView]) -> String {
    let mut text = String::new();
    for series in series {
        let name = clean(&series.selector());
        for point in &series.points {
            text.push_str(&format!("{name} {} {}\n", point.value, point.at.0.as_millis()));
        }
    }
    text
}
