//! The open chunk of a host: rows not yet packed, one time column and a `Column` for each series.
//!
//! It decides when its oldest rows are ready to be packed: a chunk's worth that the short windows of rules no longer
//! reach, a window boundary among them, or too many rows. A chunk never spans two windows.

use tocsin_shared::time::Timestamp;

use super::chunk::{Chunk, ChunkBuilder};
use super::column::Column;
use super::window::Window;

/// Rows of a chunk in memory: 20 minutes at 10 s. Measured: 0.58 B a sample, against 0.50 at twice as many.
pub(crate) const CHUNK_ROWS: usize = 120;
/// The most rows kept open: what a burst or a 1 s tick may hold unpacked. Two chunks, so that one can always be cut.
pub(crate) const OPEN_ROWS_MAX: usize = 2 * CHUNK_ROWS;
/// Rows younger than this, against the newest, stay open: rules look back five minutes, and unpacking for each of them would
/// cost more than the memory.
const OPEN_SPAN_MILLIS: i64 = 330_000;

/// Where a row belongs among those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// After all rows.
    End,
    /// It is row `0`.
    At(usize),
    /// Before row `0`, after another.
    Between(usize),
    /// Before every row.
    Before,
}

/// Rows that are not packed yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open {
    pub(crate) times: Vec<i64>,
    /// By slot; series without a value may lie beyond the end.
    pub(crate) columns: Vec<Column>,
    /// How many of the oldest rows are in a head file as they are.
    pub(crate) saved: usize,
}

impl Open {
    pub(crate) fn position(&self, at: i64) -> Position {
        match self.times.last() {
            None => Position::End,
            Some(last) if *last < at => Position::End,
            Some(_) => match self.times.binary_search(&at) {
                Ok(row) => Position::At(row),
                Err(0) => Position::Before,
                Err(row) => Position::Between(row),
            },
        }
    }

    /// The row for `at`, made if it is not there yet. Rows before the first one are made too.
    pub(crate) fn row(&mut self, at: i64) -> usize {
        let row = match self.position(at) {
            Position::At(row) => {
                self.saved = self.saved.min(row); // It may get a value.
                return row;
            }
            Position::End => self.times.len(),
            Position::Between(row) => row,
            Position::Before => 0,
        };
        if row < self.times.len() {
            self.columns.iter_mut().for_each(|column| column.open_row(row));
        }
        self.times.insert(row, at);
        self.saved = self.saved.min(row);
        row
    }

    /// Makes room for the series of `slots` slots.
    pub(crate) fn reserve(&mut self, slots: usize) {
        if self.columns.len() < slots {
            self.columns.reserve_exact(slots - self.columns.len());
            self.columns.resize(slots, Column::EMPTY);
        }
    }

    pub(crate) fn column(&self, slot: u32) -> &Column {
        self.columns.get(slot as usize).unwrap_or(&Column::EMPTY)
    }

    /// How many of the oldest rows are ready to be packed into one chunk; `keep` holds the youngest back.
    pub(crate) fn ready(&self, keep: bool) -> usize {
        let (rows, Some(last)) = (self.times.len(), self.times.last()) else { return 0 };
        let settled = match keep {
            true => self.times.partition_point(|time| *time < last.saturating_sub(OPEN_SPAN_MILLIS)),
            false => rows,
        };
        let in_window = self.rows_of_first_window();
        if settled >= CHUNK_ROWS || rows >= OPEN_ROWS_MAX {
            in_window.min(CHUNK_ROWS)
        } else if keep && in_window < rows && in_window <= settled {
            in_window
        } else {
            0
        }
    }

    /// How many of the oldest rows share the window of the first.
    fn rows_of_first_window(&self) -> usize {
        let Some(first) = self.times.first() else { return 0 };
        let end = Window::of(Timestamp::from_millis(*first)).to.as_millis();
        self.times.partition_point(|time| *time < end)
    }

    /// How many of the oldest rows to cut next so that no row before `end` stays; zero when none is left.
    pub(crate) fn before(&self, end: i64) -> usize {
        self.times.partition_point(|time| *time < end).min(self.rows_of_first_window()).min(CHUNK_ROWS)
    }

    /// Packs and removes the oldest `rows`; nothing when they hold no value.
    pub(crate) fn cut(&mut self, rows: usize) -> Option<(Vec<u32>, Chunk)> {
        self.saved = self.saved.saturating_sub(rows);
        let times = self.times.drain(..rows).collect::<Vec<_>>();
        let mut builder = ChunkBuilder::new(&times);
        let mut cells = Vec::with_capacity(rows);
        for (slot, column) in self.columns.iter_mut().enumerate() {
            match column.constant(0, rows) {
                Some(value) => builder.push_constant(slot as u32, value),
                None => {
                    cells.clear();
                    column.cells(0, rows, &mut cells);
                    builder.push(slot as u32, &cells);
                }
            }
            column.drop_front(rows);
        }
        builder.finish()
    }

    /// A copy of the rows that no head file has; they count as saved from now on.
    pub(crate) fn take_unsaved(&mut self) -> Self {
        let saved = std::mem::replace(&mut self.saved, self.times.len());
        if saved == self.times.len() {
            return Self::default();
        }
        let mut copy = self.clone();
        copy.times.drain(..saved);
        copy.columns.iter_mut().for_each(|column| column.drop_front(saved));
        copy
    }

    /// All rows, packed, one window a chunk.
    pub(crate) fn packed(mut self) -> Vec<(Vec<u32>, Chunk)> {
        let mut chunks = Vec::new();
        while !self.times.is_empty() {
            let rows = self.before(i64::MAX);
            chunks.extend(self.cut(rows));
        }
        chunks
    }

    /// Cells that hold a value.
    pub(crate) fn samples(&self) -> usize {
        self.columns.iter().map(Column::samples).sum()
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let columns = self.columns.capacity() * size_of::<Column>();
        self.times.capacity() * 8 + columns + self.columns.iter().map(Column::heap).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(times: impl IntoIterator<Item = i64>) -> Open {
        let mut open = Open::default();
        open.reserve(1);
        for time in times {
            let row = open.row(time);
            open.columns[0].put(row, time as f64);
        }
        open
    }

    #[test]
    fn rows_are_packed_by_the_chunk_once_rules_no_longer_reach_them() {
        let grid = |rows: i64, step: i64, from: i64| (0..rows).map(move |row| from + row * step);
        let window = 7_200_000;
        for (name, times, keep, ready) in [
            ("nothing", grid(0, 1, 0), true, 0),
            ("a young chunk", grid(120, 10_000, 0), true, 0),
            ("a settled chunk", grid(154, 10_000, 0), true, CHUNK_ROWS),
            ("too many at 1 s", grid(240, 1_000, 0), true, CHUNK_ROWS),
            ("over a boundary, reached", grid(20, 10_000, window - 100_000), true, 0),
            ("over a boundary, settled", grid(60, 10_000, window - 100_000), true, 10),
            ("late rows wait for a chunk", grid(119, 10_000, 0), false, 0),
            ("late rows make a chunk", grid(120, 10_000, 0), false, CHUNK_ROWS),
            ("late rows of two windows", grid(120, 10_000, window - 30_000), false, 3),
        ] {
            assert_eq!(open(times).ready(keep), ready, "{name}");
        }
    }

    #[test]
    fn a_late_row_finds_its_place() {
        let mut open = open([10, 20, 40]);
        for (at, position) in
            [(50, Position::End), (20, Position::At(1)), (30, Position::Between(2)), (5, Position::Before)]
        {
            assert_eq!(open.position(at), position, "{at}");
        }
        let row = open.row(30);
        open.columns[0].put(row, 30.0);
        let (series, chunk) = open.cut(3).unwrap();
        assert_eq!(series, [0]);
        assert_eq!(chunk.head.times().unwrap(), [10, 20, 30]);
        assert_eq!(chunk.values(0).unwrap(), [10.0, 20.0, 30.0]);
        assert_eq!((open.times.as_slice(), open.columns[0].get(0)), ([40].as_slice(), 40.0));
    }
}
