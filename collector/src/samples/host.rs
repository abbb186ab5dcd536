//! The samples of one host in memory: rows in, cells out.
//!
//! All series of a host share their rows. New rows go to the open chunk, rows older than all of it to a second one for
//! late rows; both are packed into closed chunks as they fill. A series that left the agent's table gets one
//! staleness marker at the first row without it. Nothing here knows of files, other hosts or locks.

mod received;

use std::collections::BTreeSet;
use std::sync::Arc;

use tocsin_shared::labels::Labels;
use tocsin_shared::sample::STALE_NAN;
use tocsin_shared::time::Timestamp;

use super::bytes::Malformed;
use super::chunk::Chunk;
use super::codec::is_absent;
use super::column::Column;
use super::heads::Loaded;
use super::latest::{Newest, last_present};
use super::merge::{Merge, rows_between};
use super::open::{Open, Position};
use super::rewrite::in_order;
use super::series::{Series, SeriesKey, Visit, next_generation};
use super::window::Window;

/// The most series in an agent's table: forty times a usual host, and a bound on what one agent can make us hold.
pub const SERIES_MAX: usize = 20_000;
/// The most slots a host may hold between two seals, series that ended included: room for four whole replacements.
const SLOTS_MAX: usize = 4 * SERIES_MAX;
/// Tables whose mapping is kept: the present one, and those of rows that arrive late.
const TABLES_MAX: usize = 4;

/// Why a row is not taken. Nothing of it was stored.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    #[error("a row of {got} values for a table of {expected} series; send the table again")]
    RowLength { expected: usize, got: usize },
    #[error("{got} series, at most {max} are taken of one host; drop some at the agent")]
    TooManySeries { got: usize, max: usize },
    #[error("the series {0} is twice in its table; send each series once")]
    DuplicateSeries(Labels),
}

/// A closed chunk, and the slots of its columns, ascending.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) slots: Arc<[u32]>,
    pub(crate) chunk: Arc<Chunk>,
    /// Whether all of it is in head files.
    pub(crate) saved: bool,
}

/// Samples that no head file has, to be packed without the host's lock.
pub(crate) struct Unsaved {
    closed: Vec<Held>,
    rows: [Open; 2],
}

impl Unsaved {
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.rows.iter().all(|rows| rows.times.is_empty())
    }

    /// As chunks, in the order in which they are to be looked at.
    pub(crate) fn held(self) -> Vec<Held> {
        let packed = self.rows.into_iter().flat_map(Open::packed);
        let held = |(slots, chunk): (Vec<u32>, Chunk)| Held {
            slots: slots.into(),
            chunk: Arc::new(chunk),
            saved: true,
        };
        self.closed.into_iter().chain(packed.map(held)).collect()
    }
}

#[derive(Debug)]
struct Table {
    series: Arc<[Labels]>,
    slots: Arc<[u32]>,
}

/// A host's samples in memory.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) series: Series,
    tables: Vec<Table>,
    /// The slots of the newest row's table.
    current: Option<Arc<[u32]>>,
    open: Open,
    late: Open,
    closed: Vec<Held>,
    /// The newest row of the agent, recorded series not counted.
    pub(crate) last_row: Option<Timestamp>,
    /// Another one whenever slots are renumbered; unique in the process.
    numbering: u64,
}

impl Host {
    pub(crate) fn new(target: Labels) -> Self {
        let (tables, current, open, late, closed, last_row) = Default::default();
        let (series, numbering) = (Series::new(target), next_generation());
        Self { series, tables, current, open, late, closed, last_row, numbering }
    }

    /// Adds a row: a value for each series of the table. A row already there is left as it is.
    pub(crate) fn append(
        &mut self,
        table: &Arc<[Labels]>,
        at: Timestamp,
        values: &[f64],
    ) -> Result<(), SampleError> {
        if values.len() != table.len() {
            return Err(SampleError::RowLength { expected: table.len(), got: values.len() });
        }
        let slots = self.slots_of(table)?;
        let (rows, newest) = self.rows_for(at);
        let before = rows.times.len();
        let row = rows.row(at.as_millis());
        for (slot, value) in slots.iter().zip(values) {
            rows.columns[*slot as usize].put(row, *value);
        }
        // A row that was there already may be an old one sent again: it tells nothing about the present table.
        if newest && row == before {
            self.end_series(slots, row);
        }
        self.last_row = self.last_row.max(Some(at));
        self.close_ready();
        Ok(())
    }

    /// Adds one sample of a series that is not in the agent's table; its labels are complete.
    pub(crate) fn append_derived(
        &mut self,
        labels: Labels,
        at: Timestamp,
        value: f64,
    ) -> Result<(), SampleError> {
        let key = (labels, true);
        let slot = match self.series.slot(&key) {
            Some(slot) => slot,
            None => {
                self.check_room(1)?;
                self.series.slot_or_insert(key)
            }
        };
        let (rows, _) = self.rows_for(at);
        let row = rows.row(at.as_millis());
        rows.columns[slot as usize].put(row, value);
        self.close_ready();
        Ok(())
    }

    /// The rows that take an instant, with a column for each slot; and whether they are the newest.
    fn rows_for(&mut self, at: Timestamp) -> (&mut Open, bool) {
        let newest = self.open.position(at.as_millis()) != Position::Before;
        let rows = if newest { &mut self.open } else { &mut self.late };
        rows.reserve(self.series.len());
        (rows, newest)
    }

    fn slots_of(&mut self, table: &Arc<[Labels]>) -> Result<Arc<[u32]>, SampleError> {
        if let Some(known) = self.tables.iter().find(|known| Arc::ptr_eq(&known.series, table)) {
            return Ok(Arc::clone(&known.slots));
        }
        if table.len() > SERIES_MAX {
            return Err(SampleError::TooManySeries { got: table.len(), max: SERIES_MAX });
        }
        let mut seen = std::collections::HashSet::with_capacity(table.len());
        if let Some(twice) = table.iter().find(|labels| !seen.insert(*labels)) {
            return Err(SampleError::DuplicateSeries(twice.clone()));
        }
        let fresh =
            table.iter().filter(|labels| self.series.slot(&((*labels).clone(), false)).is_none()).count();
        self.check_room(fresh)?;
        self.series.reserve(fresh);
        let slots: Arc<[u32]> =
            table.iter().map(|labels| self.series.slot_or_insert((labels.clone(), false))).collect();
        if self.tables.len() == TABLES_MAX {
            self.tables.remove(0);
        }
        self.tables.push(Table { series: Arc::clone(table), slots: Arc::clone(&slots) });
        Ok(slots)
    }

    fn check_room(&mut self, fresh: usize) -> Result<(), SampleError> {
        if self.series.len() + fresh > SLOTS_MAX {
            self.compact();
        }
        match self.series.len() + fresh {
            got if got > SLOTS_MAX => Err(SampleError::TooManySeries { got, max: SLOTS_MAX }),
            _ => Ok(()),
        }
    }

    /// Marks the series of the newest row's table that this newer row no longer has.
    fn end_series(&mut self, slots: Arc<[u32]>, row: usize) {
        if self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &slots)) {
            return;
        }
        let still = slots.iter().copied().collect::<std::collections::HashSet<_>>();
        let ended = match &self.current {
            Some(current) => current.iter().copied().filter(|slot| !still.contains(slot)).collect(),
            None => self.restored_and_ended(&still, self.open.times[row]),
        };
        for slot in ended {
            self.open.columns[slot as usize].put(row, STALE_NAN);
        }
        self.current = Some(slots);
    }

    /// The first table after a start: series that a table before it had are those whose newest sample is no end.
    fn restored_and_ended(&self, still: &std::collections::HashSet<u32>, at: i64) -> Vec<u32> {
        if self.closed.is_empty() {
            return Vec::new();
        }
        let own = (0..self.series.len() as u32).filter(|slot| !self.series.key(*slot).1);
        let sent_before = |slot: &u32| match self.latest(*slot, (i64::MIN, at)) {
            Ok(newest) => newest.0.is_some_and(|(_, value)| value.to_bits() != STALE_NAN.to_bits()),
            Err(_) => false, // Damaged memory is told to whoever reads it.
        };
        own.filter(|slot| !still.contains(slot)).filter(sent_before).collect()
    }

    fn close_ready(&mut self) {
        for (late, keep) in [(false, true), (true, false)] {
            loop {
                let rows = if late { &mut self.late } else { &mut self.open };
                let ready = rows.ready(keep);
                if ready == 0 {
                    break;
                }
                let saved = ready <= rows.saved;
                let cut = rows.cut(ready);
                self.hold(cut, saved);
            }
        }
        self.rest();
    }

    /// Frees the columns for late rows once there are none: most hosts have none most of the time.
    fn rest(&mut self) {
        if self.late.times.is_empty() {
            self.late = Open::default();
        }
    }

    fn hold(&mut self, cut: Option<(Vec<u32>, Chunk)>, saved: bool) {
        let Some((slots, chunk)) = cut else { return };
        let slots = match self.closed.last() {
            Some(last) if *last.slots == *slots => Arc::clone(&last.slots),
            _ => slots.into(),
        };
        self.closed.push(Held { slots, chunk: Arc::new(chunk), saved });
    }

    /// What no head file has; it counts as saved from now on.
    pub(crate) fn take_unsaved(&mut self) -> Unsaved {
        let mut closed = Vec::new();
        for held in self.closed.iter_mut().filter(|held| !held.saved) {
            held.saved = true;
            closed.push(held.clone());
        }
        Unsaved { closed, rows: [self.late.take_unsaved(), self.open.take_unsaved()] }
    }

    /// The head files are not to be relied on.
    pub(crate) fn forget_saved(&mut self) {
        self.closed.iter_mut().for_each(|held| held.saved = false);
        (self.open.saved, self.late.saved) = (0, 0);
    }

    /// Takes chunks back from head files.
    pub(crate) fn restore(&mut self, chunks: Vec<Loaded>) {
        let mut known: Option<(Arc<[SeriesKey]>, Vec<u32>)> = None; // Most chunks have the series of the one before.
        for Loaded { series, chunk } in chunks {
            let slots = match known.take().filter(|(keys, _)| Arc::ptr_eq(keys, &series)) {
                Some((_, slots)) => slots,
                None => series.iter().map(|key| self.series.slot_or_insert(key.clone())).collect(),
            };
            let ordered =
                in_order(&slots, chunk).expect("every column's place was looked at when it was read");
            self.hold(Some(ordered), true);
            known = Some((series, slots));
        }
    }

    /// Packs every row before the window's end, and gives the chunks of the window.
    pub(crate) fn close(&mut self, window: Window) -> Vec<Held> {
        for late in [false, true] {
            loop {
                let rows = if late { &mut self.late } else { &mut self.open };
                let ready = rows.before(window.to.as_millis());
                if ready == 0 {
                    break;
                }
                let saved = ready <= rows.saved;
                let cut = rows.cut(ready);
                self.hold(cut, saved);
            }
        }
        self.rest();
        let inside = |held: &&Held| window.contains(Timestamp::from_millis(held.chunk.first));
        self.closed.iter().filter(inside).cloned().collect()
    }

    /// Forgets chunks that are in a block now, and the series that have nothing left.
    pub(crate) fn forget(&mut self, sealed: &[Held]) {
        self.closed.retain(|held| !sealed.iter().any(|gone| Arc::ptr_eq(&gone.chunk, &held.chunk)));
        self.compact();
    }

    /// Drops the slots of series that are neither sent nor held, when they are many, and renumbers the rest.
    fn compact(&mut self) {
        let mut live = vec![false; self.series.len()];
        let tables = self.current.iter().chain(self.closed.iter().map(|held| &held.slots));
        tables.flat_map(|slots| slots.iter()).for_each(|slot| live[*slot as usize] = true);
        for columns in [&self.open.columns, &self.late.columns] {
            for (slot, _) in columns.iter().enumerate().filter(|(_, column)| !column.is_empty()) {
                live[slot] = true;
            }
        }
        let dead = live.iter().filter(|live| !**live).count();
        if dead * 8 <= live.len() {
            return; // Renumbering costs every cache; few leftovers do not pay for it.
        }
        let renumbered = self.series.compact(|slot| live[slot as usize]);
        let renumber = |slots: &Arc<[u32]>| -> Arc<[u32]> {
            slots.iter().filter_map(|slot| renumbered[*slot as usize]).collect()
        };
        self.tables.clear();
        self.numbering = next_generation();
        self.current = self.current.as_ref().map(renumber);
        self.closed.iter_mut().for_each(|held| held.slots = renumber(&held.slots));
        for rows in [&mut self.open, &mut self.late] {
            let mut slot = 0;
            rows.columns.retain(|_| {
                slot += 1;
                live[slot - 1]
            });
            rows.columns.shrink_to_fit();
        }
    }

    /// The key of a slot, for a block.
    pub(crate) fn key(&self, slot: u32) -> &SeriesKey {
        self.series.key(slot)
    }

    /// Hands a series' samples in (from, to] to `visit`, if the newest rows alone hold them all; else says no.
    pub(crate) fn visit_newest(
        &self,
        slot: u32,
        span: (i64, i64),
        scratch: &mut Vec<f64>,
        visit: &mut Visit<'_>,
    ) -> bool {
        let held = self.closed.iter().any(|held| held.chunk.first <= span.1 && span.0 < held.chunk.last);
        let late = self.late.times.first().is_some_and(|first| *first <= span.1);
        if held || late {
            return false;
        }
        let (low, high) = rows_between(&self.open.times, span);
        let column = self.open.column(slot);
        let values = match column {
            Column::Constant { .. } => {
                let Some(value) = column.constant(low, high) else { return false };
                // Most series that do not change are zero, so the one before has often left what is needed.
                if scratch.len() != high - low
                    || scratch.first().is_some_and(|old| old.to_bits() != value.to_bits())
                {
                    scratch.clear();
                    scratch.resize(high - low, value);
                }
                scratch.as_slice()
            }
            Column::Cells(cells) if high <= cells.len() => {
                let values = &cells[low..high];
                if values.iter().any(|value| is_absent(*value)) {
                    return false;
                }
                values
            }
            Column::Narrow(narrow) if high <= narrow.len() => {
                scratch.clear();
                narrow.cells(low, high, scratch);
                let whole = !scratch.iter().any(|value| is_absent(*value));
                if whole && low < high {
                    visit(self.series.labels(slot), &self.open.times[low..high], scratch);
                }
                scratch.clear(); // It is no constant that the next series could take.
                return whole;
            }
            Column::Cells(_) | Column::Narrow(_) => return false,
        };
        if low < high {
            visit(self.series.labels(slot), &self.open.times[low..high], values);
        }
        true
    }

    /// A series' newest sample in (from, to] in memory.
    pub(crate) fn latest(&self, slot: u32, span: (i64, i64)) -> Result<Newest, Malformed> {
        let mut newest = Newest::default();
        for rows in [&self.open, &self.late] {
            if let (Some(first), Some(last)) = (rows.times.first(), rows.times.last())
                && newest.wants((*first, *last), span)
            {
                let column = rows.column(slot);
                newest.offer(last_present(&rows.times, span, |row| column.get(row)));
            }
        }
        for held in self.closed.iter().rev() {
            if newest.wants((held.chunk.first, held.chunk.last), span)
                && let Ok(column) = held.slots.binary_search(&slot)
            {
                newest.offer(held.chunk.latest(column, span)?);
            }
        }
        Ok(newest)
    }

    /// Adds a series' samples in (from, to] that are in memory to `merge`, closed chunks first.
    pub(crate) fn gather(&self, slot: u32, span: (i64, i64), merge: &mut Merge) -> Result<(), Malformed> {
        for held in self.closed.iter().filter(|held| held.chunk.first <= span.1 && span.0 < held.chunk.last) {
            if let Ok(column) = held.slots.binary_search(&slot) {
                merge.push(&held.chunk.head.times()?, &held.chunk.values(column)?, span);
            }
        }
        for rows in [&self.late, &self.open] {
            let (low, high) = rows_between(&rows.times, span);
            if low < high && !matches!(rows.column(slot), Column::Constant { start, end, .. } if start == end)
            {
                let mut cells = Vec::with_capacity(high - low);
                rows.column(slot).cells(low, high, &mut cells);
                merge.push(&rows.times[low..high], &cells, span);
            }
        }
        Ok(())
    }

    /// Adds the times of all rows in (from, to] that are in memory.
    pub(crate) fn row_times(&self, span: (i64, i64), times: &mut BTreeSet<i64>) -> Result<(), Malformed> {
        for held in self.closed.iter().filter(|held| held.chunk.first <= span.1 && span.0 < held.chunk.last) {
            let all = held.chunk.head.times()?;
            let (low, high) = rows_between(&all, span);
            times.extend(&all[low..high]);
        }
        for rows in [&self.late, &self.open] {
            let (low, high) = rows_between(&rows.times, span);
            times.extend(&rows.times[low..high]);
        }
        Ok(())
    }

    /// Whether a series has, or may have, samples in (from, to] in memory.
    pub(crate) fn reaches(&self, slot: u32, span: (i64, i64)) -> bool {
        let held = self.closed.iter().filter(|held| held.chunk.first <= span.1 && span.0 < held.chunk.last);
        let open = [&self.open, &self.late].into_iter().any(|rows| {
            let (low, high) = rows_between(&rows.times, span);
            (low..high).any(|row| !is_absent(rows.column(slot).get(row)))
        });
        open || held.into_iter().any(|held| held.slots.binary_search(&slot).is_ok())
    }

    /// The windows of what is in memory.
    pub(crate) fn windows(&self) -> impl Iterator<Item = Window> {
        let closed = self.closed.iter().map(|held| held.chunk.first);
        let open = self.open.times.iter().chain(&self.late.times).copied();
        closed.chain(open).map(|time| Window::of(Timestamp::from_millis(time)))
    }

    /// Whether nothing is in memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.times.is_empty() && self.late.times.is_empty()
    }

    /// Cells in memory that hold a value.
    pub(crate) fn samples(&self) -> u64 {
        let closed = self.closed.iter().map(|held| held.chunk.samples).sum::<u64>();
        closed + (self.open.samples() + self.late.samples()) as u64
    }

    /// Bytes of memory: series lists, and samples.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let mut lists =
            self.closed.iter().map(|held| (Arc::as_ptr(&held.slots), held.slots.len())).collect::<Vec<_>>();
        lists.dedup();
        let slots = lists.iter().map(|(_, len)| len * 4).sum::<usize>();
        let tables = self.tables.iter().map(|table| table.slots.len() * 4).sum::<usize>();
        let chunks = self.closed.iter().map(|held| held.chunk.memory()).sum::<usize>();
        (self.series.memory() + tables, slots + chunks + self.open.memory() + self.late.memory())
    }
}
