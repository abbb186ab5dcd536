//! One series' cells in an open chunk: a constant with its extent, or a cell a row.
//!
//! Most series of a host never change within a chunk; those take no memory beyond the `Column` itself. Most others
//! take four bytes a cell (`narrow`), the rest eight. Rows outside a column's extent are `ABSENT`. The first value
//! written to a cell stays.

use super::codec::{ABSENT, is_absent};
use super::narrow::{GROWTH, Narrow};

/// The cells of a series in the rows of an open chunk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Column {
    /// `value` in the rows from `start` up to `end`; no value at all when they are equal.
    Constant { value: f64, start: u16, end: u16 },
    /// A cell a row, from row zero; later rows are absent.
    Narrow(Box<Narrow>),
    /// The same for values that are multiples of no unit.
    Cells(Vec<f64>),
}

impl Column {
    pub(crate) const EMPTY: Self = Self::Constant { value: 0.0, start: 0, end: 0 };

    /// A column of cells that are not all the same.
    fn of(cells: Vec<f64>) -> Self {
        Narrow::of(&cells).map_or(Self::Cells(cells), |narrow| Self::Narrow(Box::new(narrow)))
    }

    /// Whether no row has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples() == 0
    }

    /// The cell of a row.
    pub(crate) fn get(&self, row: usize) -> f64 {
        match self {
            Self::Constant { value, start, end } => {
                if (usize::from(*start)..usize::from(*end)).contains(&row) { *value } else { ABSENT }
            }
            Self::Narrow(narrow) => narrow.get(row),
            Self::Cells(cells) => cells.get(row).copied().unwrap_or(ABSENT),
        }
    }

    /// Gives an absent cell its value; a cell that has one keeps it.
    pub(crate) fn put(&mut self, row: usize, new: f64) {
        match self {
            Self::Constant { value, start, end } => {
                let (from, to) = (usize::from(*start), usize::from(*end));
                let same = value.to_bits() == new.to_bits();
                if row == to && same && from < to {
                    *end += 1;
                } else if is_absent(new) || (from..to).contains(&row) {
                    // Nothing to write, or first written wins.
                } else if from == to {
                    *self = Self::Constant { value: new, start: row as u16, end: row as u16 + 1 };
                } else if same && row + 1 == from {
                    *start -= 1;
                } else {
                    self.change(row.max(to), |cells| write(cells, row, new));
                }
            }
            Self::Narrow(narrow) => {
                if !narrow.put(row, new) {
                    let rows = narrow.len().max(row);
                    self.change(rows, |cells| write(cells, row, new));
                }
            }
            Self::Cells(cells) => write(cells, row, new),
        }
    }

    /// Makes room for a row in the middle: the cells from `row` on move up, and the new cell is absent.
    pub(crate) fn open_row(&mut self, row: usize) {
        match self {
            Self::Constant { start, end, .. } => {
                let (from, to) = (usize::from(*start), usize::from(*end));
                if from == to || to <= row {
                } else if row <= from {
                    (*start, *end) = (*start + 1, *end + 1);
                } else {
                    self.change(to + 1, |cells| cells.insert(row, ABSENT));
                }
            }
            Self::Narrow(narrow) => narrow.open_row(row),
            Self::Cells(cells) if row < cells.len() => cells.insert(row, ABSENT),
            Self::Cells(_) => {}
        }
    }

    /// Makes a cell a row of it, with room for `rows`, changes them, and keeps them as narrow as they are then.
    fn change(&mut self, rows: usize, change: impl FnOnce(&mut Vec<f64>)) {
        let there = match self {
            Self::Constant { end, .. } => usize::from(*end),
            Self::Narrow(narrow) => narrow.len(),
            Self::Cells(cells) => cells.len(),
        };
        let mut cells = Vec::with_capacity((rows + 1).next_multiple_of(GROWTH));
        self.cells(0, there, &mut cells);
        change(&mut cells);
        *self = Self::of(cells);
    }

    /// The value of all of the first `rows` rows, when it is one and known without looking at each.
    pub(crate) fn constant(&self, from: usize, to: usize) -> Option<f64> {
        match self {
            Self::Constant { value, start, end }
                if usize::from(*start) <= from && to <= usize::from(*end) =>
            {
                Some(*value)
            }
            _ => None,
        }
    }

    /// The cells of rows `from..to`.
    pub(crate) fn cells(&self, from: usize, to: usize, out: &mut Vec<f64>) {
        match self {
            Self::Constant { .. } => out.extend((from..to).map(|row| self.get(row))),
            Self::Narrow(narrow) => narrow.cells(from, to, out),
            Self::Cells(cells) => {
                let there = &cells[from.min(cells.len())..to.min(cells.len())];
                out.extend_from_slice(there);
                out.extend(std::iter::repeat_n(ABSENT, to - from - there.len()));
            }
        }
    }

    /// Removes the first `rows` rows; what is left takes as little room as it can.
    pub(crate) fn drop_front(&mut self, rows: usize) {
        let one = match self {
            Self::Constant { start, end, .. } => {
                let rows = u16::try_from(rows).unwrap_or(u16::MAX);
                (*start, *end) = (start.saturating_sub(rows), end.saturating_sub(rows));
                return;
            }
            Self::Narrow(narrow) => narrow.drop_front(rows),
            Self::Cells(cells) => {
                cells.drain(..rows.min(cells.len()));
                let first = cells.first().copied().unwrap_or(ABSENT);
                let one = cells.iter().all(|cell| cell.to_bits() == first.to_bits());
                one.then(|| (first, if is_absent(first) { 0 } else { cells.len() }))
            }
        };
        match (one, &mut *self) {
            (Some((value, rows)), _) => *self = Self::Constant { value, start: 0, end: rows as u16 },
            (None, Self::Cells(cells)) => *self = Self::of(std::mem::take(cells)),
            (None, _) => {}
        }
    }

    /// Cells that hold a value.
    pub(crate) fn samples(&self) -> usize {
        match self {
            Self::Constant { start, end, .. } => usize::from(end - start),
            Self::Narrow(narrow) => narrow.samples(),
            Self::Cells(cells) => cells.iter().filter(|cell| !is_absent(**cell)).count(),
        }
    }

    /// Bytes of memory behind the column itself.
    pub(crate) fn heap(&self) -> usize {
        match self {
            Self::Constant { .. } => 0,
            Self::Narrow(narrow) => narrow.memory(),
            Self::Cells(cells) => cells.capacity() * 8,
        }
    }
}

/// Gives an absent cell its value.
fn write(cells: &mut Vec<f64>, row: usize, new: f64) {
    match cells.get_mut(row) {
        Some(cell) if is_absent(*cell) => *cell = new,
        Some(_) => {}
        None if is_absent(new) => {}
        None => {
            if cells.capacity() <= row {
                cells.reserve_exact((row + 1).next_multiple_of(GROWTH) - cells.len());
            }
            cells.resize(row, ABSENT);
            cells.push(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(usize, u8, bool),
        Open(usize),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0usize..40, 0u8..3, proptest::bool::weighted(0.1))
                .prop_map(|(row, value, wide)| Step::Put(row, value, wide)),
            1 => (0usize..40).prop_map(Step::Open),
            1 => (0usize..20).prop_map(Step::Drop),
        ]
    }

    proptest! {
        /// Against the plainest model: a row of optional values.
        #[test]
        fn a_column_is_what_was_written_first(steps in proptest::collection::vec(step(), 0..80)) {
            let (mut column, mut model) = (Column::EMPTY, vec![None; 200]);
            for step in steps {
                match step {
                    Step::Put(row, value, wide) => {
                        let value = f64::from(value) / if wide { 3.0 } else { 4.0 };
                        column.put(row, value);
                        model[row].get_or_insert(value);
                    }
                    Step::Open(row) => {
                        column.open_row(row);
                        model.insert(row, None);
                        model.pop();
                    }
                    Step::Drop(rows) => {
                        column.drop_front(rows);
                        model.drain(..rows);
                        model.resize(200, None);
                    }
                }
                let expected = model.iter().map(|cell| cell.unwrap_or(ABSENT).to_bits());
                let expected = expected.collect::<Vec<_>>();
                let mut cells = Vec::new();
                column.cells(0, 200, &mut cells);
                prop_assert_eq!(cells.iter().map(|cell| cell.to_bits()).collect::<Vec<_>>(), expected);
                prop_assert_eq!(column.samples(), model.iter().flatten().count());
                prop_assert_eq!(column.is_empty(), model.iter().all(Option::is_none));
            }
        }
    }

    #[test]
    fn a_constant_takes_no_heap_and_a_column_three_words() {
        assert_eq!(size_of::<Column>(), 24);
        let mut column = Column::EMPTY;
        (3..150).for_each(|row| column.put(row, 0.5));
        assert_eq!(column.heap(), 0);
        assert_eq!(column.constant(3, 150), Some(0.5));
        column.put(150, 0.75);
        assert!((151 * 4..151 * 5).contains(&column.heap()), "{}", column.heap());
        column.put(151, 1.0 / 3.0);
        assert!(column.heap() >= 152 * 8);
        column.drop_front(150);
        assert_eq!((column.get(0), column.get(1)), (0.75, 1.0 / 3.0));
        column.drop_front(1);
        assert_eq!(column, Column::Constant { value: 1.0 / 3.0, start: 0, end: 1 });
    }
}
