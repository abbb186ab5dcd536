//! One series' cells in an open chunk: a constant with its extent, or a cell a row.
//!
//! Most series of a host never change within a chunk; those take no memory beyond the `Column` itself. Rows outside a
//! column's extent are `ABSENT`. The first value written to a cell stays.

use super::codec::{ABSENT, is_absent};

/// Columns of changing values grow by this many cells: little is left unused, and growing costs less than writing.
const GROWTH: usize = 16;

/// The cells of a series in the rows of an open chunk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Column {
    /// `value` in the rows from `start` up to `end`; no value at all when they are equal.
    Constant { value: f64, start: u16, end: u16 },
    /// A cell a row, from row zero; later rows are absent.
    Cells(Vec<f64>),
}

impl Column {
    pub(crate) const EMPTY: Self = Self::Constant { value: 0.0, start: 0, end: 0 };

    /// Whether no row has a value.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Constant { start, end, .. } => start == end,
            Self::Cells(cells) => cells.iter().all(|cell| is_absent(*cell)),
        }
    }

    /// The cell of a row.
    pub(crate) fn get(&self, row: usize) -> f64 {
        match self {
            Self::Constant { value, start, end } => {
                if (usize::from(*start)..usize::from(*end)).contains(&row) { *value } else { ABSENT }
            }
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
                    self.spread(row.max(to));
                    self.put(row, new);
                }
            }
            Self::Cells(cells) => match cells.get_mut(row) {
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
            },
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
                    self.spread(to + 1);
                    self.open_row(row);
                }
            }
            Self::Cells(cells) if row < cells.len() => cells.insert(row, ABSENT),
            Self::Cells(_) => {}
        }
    }

    /// From a constant to a cell a row, with room for `rows`.
    fn spread(&mut self, rows: usize) {
        if let Self::Constant { value, start, end } = *self {
            let mut cells = Vec::with_capacity((rows + 1).next_multiple_of(GROWTH));
            cells.resize(usize::from(start), ABSENT);
            cells.resize(usize::from(end), value);
            *self = Self::Cells(cells);
        }
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
            Self::Cells(cells) => {
                let there = &cells[from.min(cells.len())..to.min(cells.len())];
                out.extend_from_slice(there);
                out.extend(std::iter::repeat_n(ABSENT, to - from - there.len()));
            }
        }
    }

    /// Removes the first `rows` rows; what is left becomes a constant again when it can.
    pub(crate) fn drop_front(&mut self, rows: usize) {
        match self {
            Self::Constant { start, end, .. } => {
                let rows = u16::try_from(rows).unwrap_or(u16::MAX);
                (*start, *end) = (start.saturating_sub(rows), end.saturating_sub(rows));
            }
            Self::Cells(cells) => {
                cells.drain(..rows.min(cells.len()));
                let first = cells.first().copied().unwrap_or(ABSENT);
                if cells.iter().any(|cell| cell.to_bits() != first.to_bits()) {
                    return;
                }
                let rows = if is_absent(first) { 0 } else { cells.len() as u16 };
                *self = Self::Constant { value: first, start: 0, end: rows };
            }
        }
    }

    /// Cells that hold a value.
    pub(crate) fn samples(&self) -> usize {
        match self {
            Self::Constant { start, end, .. } => usize::from(end - start),
            Self::Cells(cells) => cells.iter().filter(|cell| !is_absent(**cell)).count(),
        }
    }

    /// Bytes of memory behind the column itself.
    pub(crate) fn heap(&self) -> usize {
        match self {
            Self::Constant { .. } => 0,
            Self::Cells(cells) => cells.capacity() * 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(usize, u8),
        Open(usize),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0usize..40, 0u8..3).prop_map(|(row, value)| Step::Put(row, value)),
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
                    Step::Put(row, value) => {
                        column.put(row, f64::from(value));
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
                let expected = model.iter().map(|cell| cell.map_or(ABSENT, f64::from).to_bits());
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
        assert!(column.heap() >= 151 * 8);
        column.drop_front(150);
        assert_eq!(column, Column::Constant { value: 0.75, start: 0, end: 1 });
    }
}
