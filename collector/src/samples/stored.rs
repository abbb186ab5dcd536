//! Samples of one host out of blocks: which series are there, and their columns.
//!
//! What many series share is read once: heads and times of chunks, and stretches of columns that lie side by side. A
//! series that memory knows, too, is found by its key and never compared with the selector again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;

use super::block::ChunkAt;
use super::blocks::{Block, BlockError};
use super::chunk::{CHUNK_ROWS_MAX, Head, Place};
use super::host::Host;
use super::latest::{Newest, last_present};
use super::merge::{Merge, rows_between};
use super::series::{Wanted, resolve};

/// Read together when the columns that are wanted take this much each, on average: between a column of a merged day and
/// the cost of another call.
const COLUMN_BYTES: usize = 2048;
/// Of one host, for one selection; beyond it columns are read one by one.
const AHEAD_BYTES_MAX: usize = 4 << 20;

/// Where a series of a host has samples.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) slot: Option<u32>,
    /// Block and the series' number in it, oldest first.
    pub(crate) stored: Vec<(usize, u32)>,
}

impl Found {
    /// The series of a host that match and may have samples in the span, in these blocks or in these slots, which
    /// ascend and are all that match.
    pub(crate) fn all(
        (agent, host): (Option<AgentId>, &Host),
        slots: &[u32],
        wanted: &Wanted,
        blocks: &[Arc<Block>],
        span: (i64, i64),
    ) -> Vec<(Labels, Self)> {
        let in_memory =
            |slot: &u32| (host.series.labels(*slot).clone(), Self { slot: Some(*slot), stored: Vec::new() });
        let mut found = slots.iter().map(in_memory).collect::<Vec<_>>();
        let mut by_labels: Option<HashMap<Labels, usize>> = None; // Most hosts need none.
        let complete_only = wanted.excludes(host.series.target());
        for (number, block) in blocks.iter().enumerate() {
            for id in matching(block, agent, span, wanted) {
                let key = &block.index.series[id as usize];
                if complete_only && !key.1 {
                    continue;
                }
                let place = match host.series.slot(key) {
                    Some(slot) => slots.binary_search(&slot).ok(),
                    None => {
                        let read_as = resolve(&key.0, key.1, host.series.target());
                        let place = |(at, (labels, _)): (usize, &(Labels, Self))| (labels.clone(), at);
                        (wanted.matches)(&read_as).then(|| {
                            let known = by_labels
                                .get_or_insert_with(|| found.iter().enumerate().map(place).collect());
                            *known.entry(read_as.clone()).or_insert_with(|| {
                                found.push((read_as, Self::default()));
                                found.len() - 1
                            })
                        })
                    }
                };
                if let Some(place) = place {
                    found[place].1.stored.push((number, id));
                }
            }
        }
        found
    }
}

/// The chunks of a host in a block that reach into a span.
pub(crate) fn chunks(
    block: &Block,
    agent: Option<AgentId>,
    (from, to): (i64, i64),
) -> impl DoubleEndedIterator<Item = &ChunkAt> {
    let chunks = block.index.host(agent).map_or(&[][..], |host| &host.chunks);
    chunks.iter().filter(move |chunk| chunk.first <= to && from < chunk.last)
}

/// The series of a host in a block that the index cannot rule out.
pub(crate) fn matching(block: &Block, agent: Option<AgentId>, span: (i64, i64), wanted: &Wanted) -> Vec<u32> {
    let mut lists = chunks(block, agent, span).map(|chunk| chunk.list).collect::<Vec<_>>();
    lists.sort_unstable();
    lists.dedup();
    let columns = |list: &u32| block.index.columns(*list, wanted.metric());
    if let [list] = lists.as_slice() {
        return columns(list).to_vec(); // Ascending already.
    }
    let mut ids = lists.iter().flat_map(columns).copied().collect::<Vec<_>>();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The chunks of one host, over all blocks of a selection.
pub(crate) struct Chunks<'b> {
    blocks: &'b [Arc<Block>],
    span: (i64, i64),
    /// By block.
    of: Vec<Stretch<'b>>,
    ahead_left: usize,
}

/// Those of one block.
struct Stretch<'b> {
    chunks: Vec<Opened<'b>>,
    /// The least and the greatest number of a series that is wanted, and how many are.
    wanted: Option<(u32, u32, usize)>,
}

struct Opened<'b> {
    at: &'b ChunkAt,
    /// The series of its columns.
    list: &'b [u32],
    part: Option<Part>,
}

struct Part {
    head: Head,
    times: Vec<i64>,
    /// Bytes of the body from a place on.
    ahead: Option<(usize, Vec<u8>)>,
}

impl<'b> Chunks<'b> {
    pub(crate) fn new(
        blocks: &'b [Arc<Block>],
        agent: Option<AgentId>,
        span: (i64, i64),
        found: &[(Labels, Found)],
    ) -> Self {
        let opened = |block: &'b Arc<Block>| {
            let opened = |at| {
                let list = block.index.lists.get(at_list(at)).map_or(&[][..], |list| list);
                Opened { at, list, part: None }
            };
            Stretch { chunks: chunks(block, agent, span).map(opened).collect(), wanted: None }
        };
        let mut of = blocks.iter().map(opened).collect::<Vec<_>>();
        for (number, id) in found.iter().flat_map(|(_, found)| &found.stored) {
            let (least, most, count) = of[*number].wanted.unwrap_or((*id, *id, 0));
            of[*number].wanted = Some((least.min(*id), most.max(*id), count + 1));
        }
        Self { blocks, span, of, ahead_left: AHEAD_BYTES_MAX }
    }

    /// The most cells that reading all of `found` can give.
    pub(crate) fn cells_max(&self, found: &[(Labels, Found)]) -> usize {
        let chunks = |found: &Found| {
            found.stored.iter().map(|(number, _)| self.of[*number].chunks.len()).sum::<usize>()
        };
        found.iter().map(|(_, found)| chunks(found)).sum::<usize>().saturating_mul(CHUNK_ROWS_MAX)
    }

    /// Adds what blocks have of a series.
    pub(crate) fn gather(&mut self, found: &Found, merge: &mut Merge) -> Result<(), BlockError> {
        for (number, id) in &found.stored {
            let (block, span) = (&self.blocks[*number], self.span);
            let Stretch { chunks, wanted } = &mut self.of[*number];
            for chunk in chunks {
                let Ok(column) = chunk.list.binary_search(id) else { continue };
                let at = chunk.at;
                let part = chunk.open(block, *wanted, &mut self.ahead_left)?;
                let (low, high) = rows_between(&part.times, span);
                match part.head.place(column, at.body_len as usize).map_err(|source| block.damaged(source))? {
                    Place::Constant(value) => merge.push_constant(&part.times[low..high], value),
                    Place::Packed(range) => {
                        let values = part.values(block, at, range)?;
                        merge.push_rows(&part.times[low..high], &values[low..high]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Offers what blocks have of a series, the newest first.
    pub(crate) fn latest(&mut self, found: &Found, newest: &mut Newest) -> Result<(), BlockError> {
        for (number, id) in found.stored.iter().rev() {
            let (block, span) = (&self.blocks[*number], self.span);
            let Stretch { chunks, wanted } = &mut self.of[*number];
            for chunk in chunks.iter_mut().rev() {
                let column = chunk.list.binary_search(id).ok();
                let Some(column) = column.filter(|_| newest.wants((chunk.at.first, chunk.at.last), span))
                else {
                    continue;
                };
                let at = chunk.at;
                let part = chunk.open(block, *wanted, &mut self.ahead_left)?;
                let place = part.head.place(column, at.body_len as usize);
                newest.offer(match place.map_err(|source| block.damaged(source))? {
                    Place::Constant(value) => last_present(&part.times, span, |_| value),
                    Place::Packed(range) => {
                        let values = part.values(block, at, range)?;
                        last_present(&part.times, span, |row| values[row])
                    }
                });
            }
        }
        Ok(())
    }
}

fn at_list(at: &ChunkAt) -> usize {
    at.list as usize
}

impl Opened<'_> {
    /// Its head and times, and the columns that are wanted if they lie close together.
    fn open(
        &mut self,
        block: &Block,
        wanted: Option<(u32, u32, usize)>,
        ahead_left: &mut usize,
    ) -> Result<&Part, BlockError> {
        if self.part.is_none() {
            let head = block.head(self.at)?;
            if head.entries.len() != self.list.len() {
                return Err(block.damaged(super::bytes::Malformed("a chunk and its list of series differ")));
            }
            let times = block.times(&head)?;
            let mut ahead = None;
            if let Some((least, most, count)) = wanted.filter(|(.., count)| *count > 1) {
                let first = self.list.partition_point(|id| *id < least);
                let last = self.list.partition_point(|id| *id <= most);
                let bytes = head.stretch(first..last, self.at.body_len as usize);
                if bytes.len() <= (count * COLUMN_BYTES).min(*ahead_left) {
                    *ahead_left -= bytes.len();
                    ahead = Some((bytes.start, block.body(self.at, bytes)?));
                }
            }
            self.part = Some(Part { head, times, ahead });
        }
        Ok(self.part.as_ref().expect("it was just put there"))
    }
}

impl Part {
    fn values(&self, block: &Block, at: &ChunkAt, range: Range<usize>) -> Result<Vec<f64>, BlockError> {
        let ahead = self.ahead.as_ref().and_then(|(start, bytes)| {
            bytes.get(range.start.checked_sub(*start)?..range.end.checked_sub(*start)?)
        });
        match ahead {
            Some(bytes) => block.unpack(bytes, self.head.rows),
            None => block.unpack(&block.body(at, range)?, self.head.rows),
        }
    }
}
