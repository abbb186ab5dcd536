//! Results as tables: a line a series.

use unicode_width::UnicodeWidthStr as _;

use super::layout::Layout;
use super::{InstantView, RangeView, SeriesView, selector};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table};
use crate::view::Moment;

/// Widths of the small curve of a range: as wide as the terminal lets it, and without one.
const CURVE_WIDTHS: std::ops::RangeInclusive<usize> = 10..=48;
const CURVE_WIDTH: usize = 40;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const BARS_ASCII: [char; 8] = ['_', '.', '-', '~', '=', '+', '*', '#'];

/// Nothing found is not nothing wrong: it is said what may be the reason.
pub(super) const NO_SERIES: &str =
    "no series matches; look at the name and the labels, or further back with --start\n";

/// The values at an instant; at most `limit` series.
pub fn draw_instant(view: &InstantView, limit: usize, style: &Style) -> String {
    match (view.result_type.as_str(), &view.text) {
        ("string", Some(text)) => format!("{}\n", clean(text)),
        ("scalar", _) => match view.series.first().and_then(|series| series.points.first()) {
            Some(point) => format!("{}\n", point.value),
            None => NO_SERIES.into(),
        },
        _ if view.series.is_empty() => NO_SERIES.into(),
        ("matrix", _) => draw_points(&view.series, style),
        _ => draw_vector(view, limit, style),
    }
}

fn draw_vector(view: &InstantView, limit: usize, style: &Style) -> String {
    let shown = &view.series[..limit.min(view.series.len())];
    let layout = Layout::of(shown);
    let mut text = columns_of_vector(shown, &layout, style);
    let mut said = vec![figures::seconds(view.at.0)];
    match text.as_deref().is_some_and(|text| fits(text, style)) {
        true if !layout.common.is_empty() => said.insert(0, clean(&selector(&layout.common))),
        true => {}
        false => text = None,
    }
    text.unwrap_or_else(|| selectors_of_vector(shown, style))
        + &footer(said, view.series.len() - shown.len(), style)
}

fn columns_of_vector(series: &[SeriesView], layout: &Layout, style: &Style) -> Option<String> {
    layout.columns.as_ref()?;
    let mut titles = layout.titles();
    titles.push(("VALUE".into(), true));
    let mut table = Table::titled(titles);
    for series in series {
        table.row(layout.cells(series).map(Cell::from).chain([value(series)]));
    }
    Some(table.draw(style))
}

/// Label lists may be long: the value comes first, so that it is never cut off.
fn selectors_of_vector(series: &[SeriesView], style: &Style) -> String {
    let mut table = Table::new(&[">VALUE", "SERIES"]);
    for series in series {
        table.row([value(series), series.selector().into()]);
    }
    table.draw(style)
}

fn value(series: &SeriesView) -> Cell {
    series.points.last().map(|point| figures::short_value(point.number)).unwrap_or_default().into()
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

/// The curves of a range: how they went, how low, how high, where they ended; at most `limit` series.
pub fn draw_range(view: &RangeView, limit: usize, style: &Style) -> String {
    if view.series.is_empty() {
        return NO_SERIES.into();
    }
    let shown = &view.series[..limit.min(view.series.len())];
    let span = span_of(view);
    let layout = Layout::of(shown);
    let drawn = layout.columns.as_ref().and_then(|_| {
        let bare = lines_of_range(view, shown, &layout, 0, style);
        let room = style.width.map_or(CURVE_WIDTH, |width| width.saturating_sub(widest(&bare)));
        CURVE_WIDTHS
            .start()
            .le(&room)
            .then(|| lines_of_range(view, shown, &layout, room.min(*CURVE_WIDTHS.end()), style))
    });
    let mut said = vec![span];
    match &drawn {
        Some(_) if !layout.common.is_empty() => said.insert(0, clean(&selector(&layout.common))),
        _ => {}
    }
    let drawn = drawn.unwrap_or_else(|| {
        let width =
            style.width.map_or(CURVE_WIDTH, |width| (width / 3).clamp(*CURVE_WIDTHS.start(), CURVE_WIDTH));
        lines_of_range(view, shown, &Layout::selectors(), width, style)
    });
    drawn + &footer(said, view.series.len() - shown.len(), style)
}

fn lines_of_range(
    view: &RangeView,
    series: &[SeriesView],
    layout: &Layout,
    width: usize,
    style: &Style,
) -> String {
    let mut titles = layout.titles();
    let column = |title: &str, right| (title.to_owned(), right);
    titles.extend([column("CURVE", false), column("MIN", true), column("MAX", true), column("LAST", true)]);
    if layout.columns.is_none() {
        titles.push(column("SERIES", false));
    }
    let mut table = Table::titled(titles);
    for series in series {
        let figure = |number: Option<f64>| number.map(figures::short_value).unwrap_or_default().into();
        let mut cells: Vec<Cell> = layout.cells(series).map(Cell::from).collect();
        cells.push(curve(view, series, width, style).into());
        cells.extend(series.extremes().map(figure));
        if layout.columns.is_none() {
            cells.push(series.selector().into());
        }
        table.row(cells);
    }
    table.draw(style)
}

fn span_of(view: &RangeView) -> String {
    let (Moment(start), Moment(end)) = (view.start, view.end);
    format!(
        "{} to {} ({}), a point every {}",
        figures::seconds(start),
        figures::seconds(end),
        figures::span(end.since(start)),
        tocsin_shared::time::format_duration(std::time::Duration::from_millis(view.step_ms)),
    )
}

/// What is true of all lines, and how many there are no lines for.
pub(super) fn footer(said: Vec<String>, more: usize, style: &Style) -> String {
    let mut text = String::new();
    if more > 0 {
        text.push_str(&format!("… and {} more series; --limit 0 shows all\n", figures::count(more as u64)));
    }
    let one = said.join("  ");
    let lines = if style.width.is_none_or(|width| one.width() <= width) { vec![one] } else { said };
    for line in lines {
        text.push_str(&style.paint(Some(Paint::Faint), &line));
        text.push('\n');
    }
    text
}

fn fits(text: &str, style: &Style) -> bool {
    style.width.is_none_or(|width| widest(text) <= width)
}

/// Columns that the widest line takes; colours take none.
fn widest(text: &str) -> usize {
    let bare = |line: &str| {
        let mut width = 0;
        for (at, part) in line.split('\u{1b}').enumerate() {
            width +=
                if at == 0 { part.width() } else { part.split_once('m').map_or(0, |(_, rest)| rest.width()) };
        }
        width
    };
    text.lines().map(bare).max().unwrap_or(0)
}

/// The points as small bars over the whole range; a time without points is blank.
pub fn curve(view: &RangeView, series: &SeriesView, width: usize, style: &Style) -> String {
    if width == 0 {
        return String::new();
    }
    let span = view.end.0.as_millis().saturating_sub(view.start.0.as_millis()).max(1) as f64;
    let mut slots = vec![None::<f64>; width];
    for point in series.points.iter().filter(|point| point.number.is_finite()) {
        let from_start = point.at.0.as_millis().saturating_sub(view.start.0.as_millis()) as f64;
        let slot = (from_start / span * (width - 1) as f64).round() as usize; // A float-to-int `as` saturates.
        let slot = &mut slots[slot.min(width - 1)];
        *slot = Some(slot.map_or(point.number, |number| number.max(point.number)));
    }
    let values = || slots.iter().flatten().copied();
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let bars = if style.unicode { BARS } else { BARS_ASCII };
    let bar = |number: f64| match high - low {
        height if height > 0.0 => bars[(((number - low) / height * 7.0).round() as usize).min(7)],
        _ => bars[0],
    };
    slots.iter().map(|slot| slot.map_or(' ', bar)).collect()
}
