//! Reading samples: instant selectors look back, windows slide. Every series is read once and walked once.

use tocsin_shared::labels::Labels;
use tocsin_shared::sample::{Sample, is_stale};
use tocsin_shared::time::Timestamp;

use super::walk::{Evaluator, Grid};
use super::{ABSENT, Block, EvalError, Scalars, SeriesPoints};
use crate::functions::rate::{Growth, Reach};
use crate::functions::window::{self, Samples};
use crate::places::Place;
use crate::plan::{Fetch, Node, Window, WindowFunction, WindowInput};

/// What is done with one series of a window: its labels, times and values, without staleness markers.
type Visit<'v> = dyn FnMut(&Labels, &[i64], &[f64]) -> Result<(), EvalError> + 'v;

impl Evaluator<'_> {
    fn look_back(&self) -> i64 {
        i64::try_from(self.options.look_back.as_millis()).unwrap_or(i64::MAX)
    }

    /// The newest sample no older than the look-back, at each step; `pick(time, value)` says what of it is wanted.
    pub(super) fn fetch(
        &self,
        fetch: &Fetch,
        grid: Grid,
        pick: impl Fn(i64, f64) -> f64,
    ) -> Result<Block, EvalError> {
        let look_back = self.look_back();
        let (first, last) = (self.look(fetch.shift, grid.start), self.look(fetch.shift, grid.last()));
        if first == last {
            return self.fetch_latest(fetch, grid, pick);
        }
        let mut block = Block::new(grid.count);
        self.select(fetch.selector, first.saturating_sub(look_back), last, &mut |labels, times, values| {
            self.charge(times.len() + grid.count)?;
            let mut next = times.partition_point(|time| *time <= first);
            let row = (0..grid.count).map(|step| {
                let now = self.look(fetch.shift, grid.at(step));
                while next < times.len() && times[next] <= now {
                    next += 1;
                }
                match next.checked_sub(1) {
                    Some(at) if now.saturating_sub(look_back) < times[at] && !is_stale(values[at]) => {
                        pick(times[at], values[at])
                    }
                    _ => ABSENT,
                }
            });
            block.push(labels.clone(), row);
            self.check_series(block.len())
        })?;
        Ok(block)
    }

    /// As `fetch`, when all steps look at one moment: a single step, or `@`.
    fn fetch_latest(
        &self,
        fetch: &Fetch,
        grid: Grid,
        pick: impl Fn(i64, f64) -> f64,
    ) -> Result<Block, EvalError> {
        let now = self.look(fetch.shift, grid.start);
        let from = now.saturating_sub(self.look_back());
        let mut block = Block::new(grid.count);
        let mut outcome = Ok(());
        let selector = &self.expr.selectors()[fetch.selector];
        let (from, to) = (Timestamp::from_millis(from), Timestamp::from_millis(now));
        self.source.latest(selector, from, to, &mut |labels, time, value| {
            if outcome.is_ok() && !is_stale(value) {
                block.push(labels.clone(), std::iter::repeat_n(pick(time, value), grid.count));
                outcome = self.charge(1 + grid.count).and_then(|()| self.check_series(block.len()));
            }
        });
        outcome.map(|()| block)
    }

    /// A function of each window, under the series' names.
    pub(super) fn over_window(
        &self,
        (function, place): (WindowFunction, Option<Place>),
        window: &Window,
        parameters: &[Node],
        grid: Grid,
    ) -> Result<Block, EvalError> {
        let parameters =
            parameters.iter().map(|node| self.scalars(node, grid)).collect::<Result<Vec<Scalars>, _>>()?;
        if function == WindowFunction::Quantile {
            self.note_quantiles(&parameters[0], place, grid);
        }
        for step in 0..grid.count {
            window::check(function, |at| parameters[at].at(step))?;
        }
        let growth = function.growth();
        let is_rate = self.notes.listens() && growth.is_some_and(|growth| growth.counter);
        let mut block = Block::new(grid.count);
        let mut rows = WindowRows::new(window.range, growth);
        self.each_series(window, grid, &mut |labels, times, values| {
            let ends = |step| self.look(window.shift, grid.at(step));
            rows.find(times, (0..grid.count).map(ends));
            let falls = || values.windows(2).any(|pair| pair[1] < pair[0]);
            let monotonic = growth.is_some_and(|growth| growth.counter) && !falls();
            let row = rows.windows.iter().enumerate().map(|(step, rows)| {
                let InWindow { low, high, reach } = rows;
                let (times, values) = (&times[*low..*high], &values[*low..*high]);
                if let Some(growth) = growth {
                    let grown = reach.map(|reach| reach.growth(values, growth.counter, monotonic));
                    return grown.unwrap_or(ABSENT);
                }
                let end = ends(step);
                let start = end.saturating_sub(window.range);
                let samples = Samples { times, values, start, end, now: grid.at(step) };
                window::apply(function, samples, |at| parameters[at].at(step)).unwrap_or(ABSENT)
            });
            let before = block.len();
            block.push(labels.clone(), row);
            if is_rate && before < block.len() {
                self.notes.rate_of(labels.metric(), place);
            }
            self.charge(grid.count)?;
            self.charge_visits(rows.visits)?;
            self.check_series(block.len())
        })?;
        Ok(block)
    }

    /// Whether any series has a sample in the window, at each step.
    pub(super) fn presence(&self, window: &Window, grid: Grid) -> Result<Vec<bool>, EvalError> {
        let mut present = vec![false; grid.count];
        self.each_series(window, grid, &mut |_, times, _| {
            for (step, present) in present.iter_mut().enumerate() {
                let end = self.look(window.shift, grid.at(step));
                let high = times.partition_point(|time| *time <= end);
                *present |= 0 < high && end.saturating_sub(window.range) < times[high - 1];
            }
            Ok(())
        })?;
        Ok(present)
    }

    /// A range vector as the whole result.
    pub(super) fn matrix(&self, window: &Window) -> Result<Vec<SeriesPoints>, EvalError> {
        let mut all = Vec::new();
        self.each_series(window, self.grid(), &mut |labels, times, values| {
            let sample =
                |(time, value): (&i64, &f64)| Sample { at: Timestamp::from_millis(*time), value: *value };
            let points: Vec<Sample> = times.iter().zip(values).map(sample).collect();
            if !points.is_empty() {
                all.push(SeriesPoints { labels: labels.clone(), points });
            }
            self.check_series(all.len())
        })?;
        Ok(all)
    }

    /// Every series with samples in any of the windows of the grid's steps.
    fn each_series(&self, window: &Window, grid: Grid, visit: &mut Visit<'_>) -> Result<(), EvalError> {
        let (first, last) = (self.look(window.shift, grid.start), self.look(window.shift, grid.last()));
        let oldest = first.saturating_sub(window.range);
        let (mut kept_times, mut kept_values) = (Vec::new(), Vec::new());
        match &window.input {
            WindowInput::Selector(selector) => {
                self.select(*selector, oldest, last, &mut |labels, times, values| {
                    self.charge(times.len())?;
                    if !values.iter().any(|value| is_stale(*value)) {
                        return visit(labels, times, values);
                    }
                    keep(times.iter().copied(), values, &mut kept_times, &mut kept_values);
                    visit(labels, &kept_times, &kept_values)
                })
            }
            WindowInput::Subquery { inner, step } => {
                let Some(grid) = subquery_grid(oldest, last, *step) else { return Ok(()) };
                self.charge(grid.count)?;
                let block = self.vector(inner, grid)?;
                for (labels, row) in block.rows() {
                    keep((0..row.len()).map(|at| grid.at(at)), row, &mut kept_times, &mut kept_values);
                    visit(labels, &kept_times, &kept_values)?;
                }
                Ok(())
            }
        }
    }

    /// The source's select, with a visitor that may refuse.
    fn select(&self, selector: usize, from: i64, to: i64, visit: &mut Visit<'_>) -> Result<(), EvalError> {
        let mut outcome = Ok(());
        let (from, to) = (Timestamp::from_millis(from), Timestamp::from_millis(to));
        self.source.select(&self.expr.selectors()[selector], from, to, &mut |labels, times, values| {
            if outcome.is_ok() {
                let length = times.len().min(values.len());
                outcome = visit(labels, &times[..length], &values[..length]);
            }
        });
        outcome
    }

    fn check_series(&self, series: usize) -> Result<(), EvalError> {
        if self.options.limits.series < series {
            return Err(EvalError::TooManySeries { limit: self.options.limits.series });
        }
        Ok(())
    }
}

/// Copies what is there.
fn keep(
    times: impl Iterator<Item = i64>,
    values: &[f64],
    kept_times: &mut Vec<i64>,
    kept_values: &mut Vec<f64>,
) {
    kept_times.clear();
    kept_values.clear();
    for (time, value) in times.zip(values).filter(|(_, value)| !is_stale(**value)) {
        kept_times.push(time);
        kept_values.push(*value);
    }
}

/// The rows of the windows of all steps. Series of one host have the same times, which are then not looked at again.
struct WindowRows {
    range: i64,
    growth: Option<Growth>,
    times: Vec<i64>,
    windows: Vec<InWindow>,
    /// Rows of all windows together.
    visits: u64,
}

/// The rows of one window, from `low` up to `high`, and how growth over them is stretched, if it is asked for.
struct InWindow {
    low: usize,
    high: usize,
    reach: Option<Reach>,
}

impl WindowRows {
    fn new(range: i64, growth: Option<Growth>) -> Self {
        Self { range, growth, times: Vec::new(), windows: Vec::new(), visits: 0 }
    }

    /// Finds them for windows that end at `ends`, ascending, and are open on the left.
    fn find(&mut self, times: &[i64], ends: impl Iterator<Item = i64>) {
        if !self.windows.is_empty() && self.times == times {
            return;
        }
        self.times.clear();
        self.times.extend_from_slice(times);
        self.windows.clear();
        let (range, growth, mut low, mut high) = (self.range, self.growth, 0, 0);
        self.windows.extend(ends.map(|end| {
            let start = end.saturating_sub(range);
            high += times[high..].partition_point(|time| *time <= end);
            low += times[low..high].partition_point(|time| *time <= start);
            let reach = growth.and_then(|growth| Reach::of(&times[low..high], (start, end), growth));
            InWindow { low, high, reach }
        }));
        self.visits = self.windows.iter().map(|rows| (rows.high - rows.low) as u64).sum();
    }
}

/// The multiples of `step` in (oldest, last]: a subquery's steps do not depend on when it is asked.
fn subquery_grid(oldest: i64, last: i64, step: i64) -> Option<Grid> {
    let step = step.max(1);
    let start = oldest.div_euclid(step).saturating_add(1).saturating_mul(step);
    if last < start {
        return None;
    }
    let count = usize::try_from(last.abs_diff(start) / step.unsigned_abs() + 1).ok()?;
    Some(Grid { start, step, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subquery_steps_are_multiples_of_the_step_and_leave_the_left_end_out() {
        for (oldest, last, step, expected) in [
            (-50, 50, 25, vec![-25, 0, 25, 50]),
            (-51, 50, 25, vec![-50, -25, 0, 25, 50]),
            (0, 0, 10, vec![]),
            (1, 9, 10, vec![]),
            (0, 10, 10, vec![10]),
        ] {
            let grid = subquery_grid(oldest, last, step);
            let steps: Vec<i64> = grid.map_or(vec![], |grid| (0..grid.count).map(|at| grid.at(at)).collect());
            assert_eq!(steps, expected, "({oldest}, {last}] by {step}");
        }
    }
}
