//! Cells of an open column in half the room: whole multiples of a unit, kept as differences from the first of them.
//!
//! Most of what changes on a host is a count, a time in hundredths or millionths, or memory in pages. Such a column
//! takes four bytes a cell. Every value comes back bit for bit; one that would not is refused, and the column is kept
//! in another way.

use super::codec::{ABSENT, EXACT_MAX, POWERS, is_absent};

/// A difference that stands for a cell without a value.
const GAP: i32 = i32::MIN;
/// Kilobytes and pages, which are tried when differences of single bytes are too large.
const MULTIPLES: [f64; 2] = [1024.0, 4096.0];
/// Columns grow by this many cells: little is left unused, and growing costs less than writing.
pub(crate) const GROWTH: usize = 16;

/// Cells as differences.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Narrow {
    /// A value is `(base + difference) / power * multiple`; one of the two is 1.
    power: f64,
    multiple: f64,
    base: f64,
    cells: Vec<i32>,
}

impl Narrow {
    /// The cells, if one unit fits all of them.
    pub(crate) fn of(cells: &[f64]) -> Option<Self> {
        let first = cells.iter().copied().find(|cell| !is_absent(*cell))?;
        let powers = POWERS.iter().map(|power| (*power, 1.0));
        let units = powers.chain(MULTIPLES.iter().map(|multiple| (1.0, *multiple)));
        units.filter_map(|unit| Self::in_units(cells, first, unit)).next()
    }

    fn in_units(cells: &[f64], first: f64, (power, multiple): (f64, f64)) -> Option<Self> {
        let base = (first / multiple * power).round();
        let mut narrow = Self { power, multiple, base, cells: Vec::new() };
        narrow.difference(first)?;
        narrow.cells.reserve_exact(cells.len().next_multiple_of(GROWTH));
        for cell in cells {
            narrow.cells.push(narrow.difference(*cell)?);
        }
        Some(narrow)
    }

    /// How a value is kept here; nothing if it would not come back as it is.
    fn difference(&self, value: f64) -> Option<i32> {
        if is_absent(value) {
            return Some(GAP);
        }
        let whole = (value / self.multiple * self.power).round();
        let difference = whole - self.base;
        let fits = whole.abs() < EXACT_MAX && difference.abs() < f64::from(i32::MAX);
        let difference = fits.then_some(difference as i32)?;
        (self.value(difference).to_bits() == value.to_bits()).then_some(difference)
    }

    fn value(&self, difference: i32) -> f64 {
        match difference {
            GAP => ABSENT,
            some => (self.base + f64::from(some)) / self.power * self.multiple,
        }
    }

    /// The cell of a row; absent beyond the end.
    pub(crate) fn get(&self, row: usize) -> f64 {
        self.cells.get(row).map_or(ABSENT, |difference| self.value(*difference))
    }

    /// Gives an absent cell its value; says no if it cannot hold it.
    pub(crate) fn put(&mut self, row: usize, value: f64) -> bool {
        if is_absent(value) || self.cells.get(row).is_some_and(|cell| *cell != GAP) {
            return true;
        }
        let Some(difference) = self.difference(value) else { return false };
        if self.cells.len() <= row {
            if self.cells.capacity() <= row {
                self.cells.reserve_exact((row + 1).next_multiple_of(GROWTH) - self.cells.len());
            }
            self.cells.resize(row + 1, GAP);
        }
        self.cells[row] = difference;
        true
    }

    /// Moves the cells from `row` on up by one.
    pub(crate) fn open_row(&mut self, row: usize) {
        if row < self.cells.len() {
            self.cells.insert(row, GAP);
        }
    }

    /// Adds the cells of rows `from..to` to `out`.
    pub(crate) fn cells(&self, from: usize, to: usize, out: &mut Vec<f64>) {
        let there = &self.cells[from.min(self.cells.len())..to.min(self.cells.len())];
        out.extend(there.iter().map(|difference| self.value(*difference)));
        out.extend(std::iter::repeat_n(ABSENT, to - from - there.len()));
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Cells that hold a value.
    pub(crate) fn samples(&self) -> usize {
        self.cells.iter().filter(|cell| **cell != GAP).count()
    }

    /// Removes the first `rows` rows. Gives the value of all that is left, and of how many rows, when it is one.
    pub(crate) fn drop_front(&mut self, rows: usize) -> Option<(f64, usize)> {
        self.cells.drain(..rows.min(self.cells.len()));
        self.cells.shrink_to(self.cells.len().next_multiple_of(GROWTH));
        let first = self.cells.first().copied().unwrap_or(GAP);
        let one = self.cells.iter().all(|cell| *cell == first);
        one.then(|| (self.value(first), if first == GAP { 0 } else { self.cells.len() }))
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.cells.capacity() * size_of::<i32>()
    }
}

#[cfg(test)]
mod tests {
    use tocsin_shared::sample::STALE_NAN;

    use super::*;

    #[test]
    fn what_fits_comes_back_bit_for_bit_and_what_does_not_is_refused() {
        for (name, cells, fits) in [
            ("counts", vec![1e15, 1e15 + 3.0, 1e15 - 7.0], true),
            ("hundredths", vec![12_345.67, 12_345.68, ABSENT, 0.01], true),
            ("nanoseconds", vec![0.000_000_001, 1.5], true),
            ("pages far apart", vec![4096.0, 4096.0 * 2e9], true),
            ("bytes far apart", vec![4097.0, 4096.0 * 2e9], false),
            ("thirds", vec![1.0, 1.0 / 3.0], false),
            ("a negative zero", vec![1.0, -0.0], false),
            ("an end", vec![1.0, STALE_NAN], false),
            ("infinity", vec![f64::INFINITY], false),
            ("beyond what is exact", vec![1e300], false),
            ("nothing", vec![ABSENT], false),
        ] {
            let narrow = Narrow::of(&cells);
            assert_eq!(narrow.is_some(), fits, "{name}");
            let Some(narrow) = narrow else { continue };
            let mut back = Vec::new();
            narrow.cells(0, cells.len(), &mut back);
            let bits = |cells: &[f64]| cells.iter().map(|cell| cell.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&cells), "{name}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_changes_nothing() {
        let mut narrow = Narrow::of(&[1.0, 2.0]).unwrap();
        let before = narrow.clone();
        assert!(!narrow.put(2, 0.5));
        assert_eq!(narrow, before);
        assert!(narrow.put(3, 4.0) && narrow.put(3, 9.0));
        assert!(is_absent(narrow.get(2)) && narrow.get(3) == 4.0);
    }
}
