//! A range as a plot in the terminal: axes with times and units, a line a series, a legend below.
//!
//! Pure. With a locale that has them, lines are drawn in braille, eight dots to a character; one series, or several in
//! colours. Otherwise each series is drawn with a letter of its own. It is as wide as the terminal.

use unicode_width::UnicodeWidthStr as _;

use super::draw::{NO_SERIES, footer};
use super::layout::Layout;
use super::{RangeView, SeriesView, selector};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table};

/// More lines in one plot are not told apart.
const SERIES_MAX: usize = 6;
const LETTERS: [char; SERIES_MAX] = ['a', 'b', 'c', 'd', 'e', 'f'];
/// Without a terminal, and at least.
const WIDTH: usize = 80;
const WIDTH_MIN: usize = 40;
/// Lines of the plot itself.
const HEIGHT: usize = 15;
/// Rows between two marks of the vertical axis, about; columns between two of the horizontal one, at least.
const ROWS_A_TICK: usize = 3;
const COLUMNS_A_TICK: usize = 14;
/// Distances of marks of time, in seconds: what a clock divides well.
const TIME_STEPS: [i64; 16] = [
    1, 5, 15, 30, 60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800, 2_592_000, 31_536_000,
];

/// What the values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    BytesPerSecond,
    Seconds,
    None,
}

/// Draws the series with the highest values.
pub fn draw_plot(view: &RangeView, expression: &str, style: &Style) -> String {
    if view.series.is_empty() {
        return NO_SERIES.into();
    }
    let mut shown: Vec<&SeriesView> = view.series.iter().collect();
    let peak = |series: &&SeriesView| series.extremes()[1].unwrap_or(f64::NEG_INFINITY);
    shown.sort_by(|a, b| peak(b).total_cmp(&peak(a))); // A stable sort: equals stay in their order.
    shown.truncate(SERIES_MAX);
    let finite = || shown.iter().flat_map(|series| series.numbers()).filter(|number| number.is_finite());
    let Some((low, high)) =
        finite().map(|number| (number, number)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    else {
        return "every value of this range is NaN or infinite: there is nothing to plot\n".into();
    };
    let unit = unit(&shown, expression);
    let scale = Scale::over(low, high, unit);
    let ticks: Vec<(usize, String)> = scale.ticks(unit);
    let margin = ticks.iter().map(|(_, text)| text.width()).max().unwrap_or(0);
    let width = style.width.unwrap_or(WIDTH).max(WIDTH_MIN) - margin - 2;
    let mut canvas = Canvas::new(width, style, shown.len());
    for (number, series) in shown.iter().enumerate() {
        canvas.draw(view, series, number, &scale);
    }
    let mut text = String::new();
    for row in 0..HEIGHT {
        let tick = ticks.iter().find(|(at, _)| *at == row).map(|(_, text)| text.as_str());
        let axis = axis_of(tick.is_some(), style);
        text.push_str(&format!("{:>margin$} {axis}", tick.unwrap_or("")));
        text.push_str(&canvas.line(row, style));
        text.push('\n');
    }
    text + &times(view, width, margin, style) + &legend(view, &shown, &canvas, unit, style)
}

fn axis_of(tick: bool, style: &Style) -> char {
    match (tick, style.unicode) {
        (true, true) => '┤',
        (false, true) => '│',
        (true, false) => '+',
        (false, false) => '|',
    }
}

/// The unit that the metric's name tells, as long as nothing is computed that would change it.
fn unit(series: &[&SeriesView], expression: &str) -> Unit {
    let of = |name: &str| match name {
        name if name.ends_with("_bytes") => Unit::Bytes,
        name if name.ends_with("_bytes_total") => Unit::Bytes,
        name if name.ends_with("_seconds") => Unit::Seconds,
        _ => Unit::None,
    };
    let names: Vec<Unit> = series
        .iter()
        .map(|series| series.labels.get("__name__").map_or(Unit::None, |name| of(name)))
        .collect();
    if let Some(first) = names.first().filter(|first| **first != Unit::None) {
        return if names.iter().all(|unit| unit == first) { *first } else { Unit::None };
    }
    let inner = ["rate(", "irate("].iter().find_map(|function| expression.trim().strip_prefix(function));
    let metric = inner.map(|inner| inner.split(['{', '[']).next().unwrap_or(""));
    let alone = !expression.contains(['*', '/', '+']);
    match metric {
        Some(metric) if alone && of(metric) == Unit::Bytes => Unit::BytesPerSecond,
        _ => Unit::None,
    }
}

/// The vertical axis: from a round number below everything to one above it.
struct Scale {
    bottom: f64,
    step: f64,
    top: f64,
}

impl Scale {
    fn over(low: f64, high: f64, unit: Unit) -> Self {
        // From nothing on, unless that would press everything to the top.
        let low = if low > 0.0 && low < high * 0.5 { 0.0 } else { low };
        let (low, high) = if low < high {
            (low, high)
        } else {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low - if low == 0.0 { 0.0 } else { room }, high + room)
        };
        let step = round_step((high - low) / (HEIGHT / ROWS_A_TICK) as f64, unit);
        let bottom = (low / step).floor() * step;
        let top = ((high / step).ceil() * step).max(bottom + step);
        Self { bottom, step, top }
    }

    /// How high a value is, from 0 to 1.
    fn height(&self, value: f64) -> f64 {
        (value - self.bottom) / (self.top - self.bottom)
    }

    /// Rows, from the top, and what stands at them.
    fn ticks(&self, unit: Unit) -> Vec<(usize, String)> {
        let count = ((self.top - self.bottom) / self.step).round() as usize; // Some: `over` chose the step.
        let tick = |number: usize| {
            let value = self.bottom + self.step * number as f64;
            // What is nothing but an error of rounding is nothing.
            let value = if value.abs() < self.step * 1e-9 { 0.0 } else { value };
            let row = ((1.0 - self.height(value)) * (HEIGHT - 1) as f64).round() as usize;
            (row.min(HEIGHT - 1), shown(value, self.step, unit))
        };
        (0..=count).map(tick).collect()
    }
}

/// 1, 2 or 5 times a power: of ten, or for bytes of two.
fn round_step(rough: f64, unit: Unit) -> f64 {
    if matches!(unit, Unit::Bytes | Unit::BytesPerSecond) && rough >= 1.0 {
        let power = 1024_f64.powi((rough.log2() / 10.0).floor() as i32);
        return power * nice(rough / power);
    }
    nice(rough)
}

fn nice(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.abs().max(f64::MIN_POSITIVE).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
    steps.into_iter().find(|step| rough <= *step * 1.000_001).unwrap_or(10.0 * power)
}

/// A value at the axis, with as many digits as tell two marks apart.
fn shown(value: f64, step: f64, unit: Unit) -> String {
    let digits = |step: f64| (-step.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    let scaled = |size: f64, name: &str| {
        let (value, step) = (value / size, step / size);
        format!("{value:.*}{name}", digits(step * 1.000_001))
    };
    match unit {
        Unit::Bytes | Unit::BytesPerSecond => {
            let per = if unit == Unit::BytesPerSecond { "/s" } else { "" };
            let names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
            let power = if value.abs() < 1.0 { 0 } else { (value.abs().log2() / 10.0).floor() as usize };
            let power = power.min(names.len() - 1);
            scaled(1024_f64.powi(power as i32), &format!(" {}{per}", names[power]))
        }
        Unit::Seconds => scaled(1.0, " s"),
        Unit::None if value.abs() >= 1e15 || (value != 0.0 && step < 1e-9) => format!("{value:.2e}"),
        Unit::None => match value.abs() {
            size if size >= 1e12 => scaled(1e12, "T"),
            size if size >= 1e9 => scaled(1e9, "G"),
            size if size >= 1e6 => scaled(1e6, "M"),
            size if size >= 1e4 => scaled(1e3, "k"),
            _ => scaled(1.0, ""),
        },
    }
}

/// The plane that is drawn on: dots, some to a character, and whose the last dot of a character was.
struct Canvas {
    width: usize,
    /// Dots across and down a character.
    dots: (usize, usize),
    cells: Vec<(u8, usize)>,
    letters: bool,
}

impl Canvas {
    fn new(width: usize, style: &Style, series: usize) -> Self {
        let letters = !style.unicode || (series > 1 && !style.colour);
        let dots = if letters { (1, 1) } else { (2, 4) };
        Self { width, dots, cells: vec![(0, 0); width * HEIGHT], letters }
    }

    /// Draws a series as a line; where a step has no point, there is none.
    fn draw(&mut self, view: &RangeView, series: &SeriesView, number: usize, scale: &Scale) {
        let (across, down) = (self.width * self.dots.0 - 1, HEIGHT * self.dots.1 - 1);
        let start = view.start.0.as_millis() as f64;
        let span = (view.end.0.as_millis() as f64 - start).max(1.0);
        let place = |at: f64, value: f64| {
            let x = ((at - start) / span * across as f64).round() as i64;
            let y = ((1.0 - scale.height(value)) * down as f64).round() as i64;
            (x.clamp(0, across as i64), y.clamp(0, down as i64))
        };
        let mut before: Option<(f64, (i64, i64))> = None;
        for point in series.points.iter().filter(|point| point.number.is_finite()) {
            let at = point.at.0.as_millis() as f64;
            let here = place(at, point.number);
            let joined = before.filter(|(then, _)| at - then < view.step_ms as f64 * 1.5);
            self.join(joined.map_or(here, |(_, there)| there), here, number);
            before = Some((at, here));
        }
    }

    /// A straight line, dot by dot.
    fn join(&mut self, (x0, y0): (i64, i64), (x1, y1): (i64, i64), number: usize) {
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).max(1);
        for step in 0..=steps {
            let on = |from: i64, to: i64| {
                (from as f64 + (to - from) as f64 * step as f64 / steps as f64).round() as usize
            };
            self.dot(on(x0, x1), on(y0, y1), number);
        }
    }

    fn dot(&mut self, x: usize, y: usize, number: usize) {
        // Braille numbers its dots down the left side, then the right, and the lowest row last.
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let at = y / self.dots.1 * self.width + x / self.dots.0;
        if let Some((bits, owner)) = self.cells.get_mut(at) {
            *bits |= BITS[y % self.dots.1][x % self.dots.0];
            *owner = number;
        }
    }

    fn line(&self, row: usize, style: &Style) -> String {
        let cells = &self.cells[row * self.width..(row + 1) * self.width];
        let end = cells.iter().rposition(|(bits, _)| *bits != 0).map_or(0, |last| last + 1);
        let mut line = String::new();
        for run in cells[..end].chunk_by(|a, b| (a.0 == 0, a.1) == (b.0 == 0, b.1)) {
            let text: String = run.iter().map(|(bits, owner)| self.shown(*bits, *owner)).collect();
            let paint = Some(Paint::One(run[0].1)).filter(|_| run[0].0 != 0);
            line.push_str(&style.paint(paint, &text));
        }
        line
    }

    fn shown(&self, bits: u8, owner: usize) -> char {
        match (bits, self.letters) {
            (0, _) => ' ',
            (_, true) => LETTERS[owner],
            (bits, false) => char::from_u32(0x2800 + u32::from(bits)).unwrap_or('*'),
        }
    }

    /// What a series is drawn with.
    fn mark(&self, number: usize) -> Cell {
        let mark = if self.letters { LETTERS[number].to_string() } else { "⣿⣿".to_owned() };
        Cell::painted(mark, Some(Paint::One(number)))
    }
}

/// The horizontal axis and its times.
fn times(view: &RangeView, width: usize, margin: usize, style: &Style) -> String {
    let (start, end) = (view.start.0.as_millis() / 1_000, view.end.0.as_millis() / 1_000);
    let span = (end - start).max(1);
    let rough = span * COLUMNS_A_TICK as i64 / width as i64;
    let step = TIME_STEPS.into_iter().find(|step| rough <= *step).unwrap_or(TIME_STEPS[TIME_STEPS.len() - 1]);
    let (corner, line, mark) = if style.unicode { ('└', '─', '┴') } else { ('+', '-', '+') };
    let mut axis: Vec<char> = vec![line; width];
    let mut labels = String::new();
    let first = start + (step - start.rem_euclid(step)) % step;
    for at in (first..=end).step_by(usize::try_from(step).unwrap_or(1)) {
        let column = ((at - start) as f64 / span as f64 * (width - 1) as f64).round() as usize;
        axis[column.min(width - 1)] = mark;
        let text = time_of(at, step);
        let begin = column.saturating_sub(text.len() / 2).min(width.saturating_sub(text.len()));
        // The first label may stand where the next begins: it is left out rather than run together.
        if labels.is_empty() && begin == 0 || labels.len() < begin {
            labels.push_str(&" ".repeat(begin - labels.len()));
            labels.push_str(&text);
        }
    }
    let axis: String = axis.into_iter().collect();
    format!("{:>margin$} {corner}{axis}\n{:>margin$}  {labels}\n", "", "")
}

/// A mark of time: what differs between two of them.
fn time_of(seconds: i64, step: i64) -> String {
    let text = figures::seconds(tocsin_shared::time::Timestamp::from_millis(seconds * 1_000));
    let part = match step {
        ..60 => text.get(11..19),
        60..43_200 => text.get(11..16),
        _ => text.get(5..10),
    };
    part.unwrap_or(&text).to_owned()
}

/// A value in the legend.
fn figure(value: f64, unit: Unit) -> String {
    let bytes = |value: f64| figures::bytes(value as u64); // A float-to-int `as` saturates.
    match unit {
        Unit::Bytes if value >= 0.0 => bytes(value),
        Unit::BytesPerSecond if value >= 0.0 => bytes(value) + "/s",
        Unit::Seconds => figures::short_value(value) + " s",
        _ => figures::short_value(value),
    }
}

fn legend(view: &RangeView, shown: &[&SeriesView], canvas: &Canvas, unit: Unit, style: &Style) -> String {
    let owned: Vec<SeriesView> = shown.iter().map(|series| (*series).clone()).collect();
    let layout = Layout::of(&owned);
    let layout = if layout.columns.is_some() { layout } else { Layout::selectors() };
    let mut titles = vec![(String::new(), false)];
    titles.extend(layout.titles());
    titles.extend(["MIN", "MAX", "LAST"].map(|title| (title.to_owned(), true)));
    if layout.columns.is_none() {
        titles.push(("SERIES".to_owned(), false));
    }
    let mut table = Table::titled(titles);
    for (number, series) in shown.iter().enumerate() {
        let figure =
            |number: Option<f64>| number.map(|number| figure(number, unit)).unwrap_or_default().into();
        let mut cells: Vec<Cell> = vec![canvas.mark(number)];
        cells.extend(layout.cells(series).map(Cell::from));
        cells.extend(series.extremes().map(figure));
        if layout.columns.is_none() {
            cells.push(series.selector().into());
        }
        table.row(cells);
    }
    let mut said = Vec::new();
    if !layout.common.is_empty() {
        said.push(clean(&selector(&layout.common)));
    }
    let more = view.series.len() - shown.len();
    if more > 0 {
        let count = figures::count(more as u64);
        said.push(format!(
            "the {SERIES_MAX} with the highest values; {count} more are not drawn, choose with topk()"
        ));
    }
    let day = figures::seconds(view.start.0);
    said.push(format!("from {day}, UTC"));
    table.draw(style) + &footer(said, 0, style)
}
