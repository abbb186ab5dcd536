//! Selection: from one host's memory and blocks to one ascending run of samples for each series.
//!
//! The common case, a short window of a live host, hands out the open rows as they lie. Otherwise parts are merged in
//! the order in which they were written: blocks, closed chunks, late rows, open rows. Memory is looked at before the
//! list of blocks: a chunk leaves memory only once its block is listed, so nothing is missed in between.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;

use super::block::ChunkAt;
use super::blocks::{Block, BlockError};
use super::bytes::Malformed;
use super::chunk::Head;
use super::host::Host;
use super::merge::{Merge, rows_between};
use super::series::{Visit, Wanted, resolve};

/// Why a selection ended early. What was visited before is right, but not all.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    #[error("the selection has more than {max} samples; narrow it by labels or time")]
    TooManySamples { max: u64 },
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("samples in memory are damaged: {0}; restart the collector to read them from its journal")]
    Memory(#[from] Malformed),
}

/// One selection over one or many hosts: its span, what it may still give, and buffers.
pub(crate) struct Selection<'v> {
    /// After the first, up to the second, milliseconds.
    pub(crate) span: (i64, i64),
    max: u64,
    left: u64,
    merge: Merge,
    pub(crate) scratch: Vec<f64>,
    visit: &'v mut Visit<'v>,
}

/// Where a series of a host has samples.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) slot: Option<u32>,
    /// Block and the series' number in it, oldest first.
    pub(crate) stored: Vec<(usize, u32)>,
}

impl Found {
    /// The series of a host that match and may have samples in the span, in these blocks or in these slots.
    pub(crate) fn all(
        (agent, host): (Option<AgentId>, &Host),
        slots: &[u32],
        wanted: &Wanted,
        blocks: &[Arc<Block>],
        span: (i64, i64),
    ) -> HashMap<Labels, Self> {
        let mut found: HashMap<Labels, Self> = HashMap::new();
        for (number, block) in blocks.iter().enumerate() {
            for id in matching(block, agent, span, wanted) {
                let (labels, complete) = &block.index.series[id as usize];
                let read_as = resolve(labels, *complete, host.series.target());
                if (wanted.matches)(&read_as) {
                    found.entry(read_as).or_default().stored.push((number, id));
                }
            }
        }
        for slot in slots {
            found.entry(host.series.labels(*slot).clone()).or_default().slot = Some(*slot);
        }
        found
    }
}

impl<'v> Selection<'v> {
    pub(crate) fn new(span: (i64, i64), max: u64, visit: &'v mut Visit<'v>) -> Self {
        Self { span, max, left: max, merge: Merge::default(), scratch: Vec::new(), visit }
    }

    /// Hands out the samples of these slots, all of them in memory.
    pub(crate) fn memory(&mut self, host: &Host, slots: &[u32]) -> Result<(), SelectError> {
        for slot in slots {
            let (left, mut taken) = (self.left, 0);
            let visit = &mut *self.visit;
            let mut counted = |labels: &Labels, times: &[i64], values: &[f64]| {
                taken = times.len() as u64;
                if taken <= left {
                    visit(labels, times, values);
                }
            };
            if host.visit_newest(*slot, self.span, &mut self.scratch, &mut counted) {
                self.charge(taken)?;
                continue;
            }
            self.merge.clear();
            host.gather(*slot, self.span, &mut self.merge)?;
            self.hand_out(host.series.labels(*slot))?;
        }
        Ok(())
    }

    /// Hands out the samples of a host that match, blocks and memory together.
    pub(crate) fn stored(
        &mut self,
        (agent, host): (Option<AgentId>, &Host),
        slots: &[u32],
        wanted: &Wanted,
        blocks: &[Arc<Block>],
    ) -> Result<(), SelectError> {
        let mut heads = Heads::default();
        for (labels, found) in Found::all((agent, host), slots, wanted, blocks, self.span) {
            self.merge.clear();
            for (number, id) in found.stored {
                let block = &blocks[number];
                for (place, chunk) in chunks(block, agent, self.span) {
                    let columns = block.index.lists.get(chunk.list as usize);
                    let Some(column) = columns.and_then(|list| list.binary_search(&id).ok()) else {
                        continue;
                    };
                    let (head, times) = heads.get((number, place), block, chunk)?;
                    self.merge.push(times, &block.values(chunk, head, column)?, self.span);
                }
            }
            if let Some(slot) = found.slot {
                host.gather(slot, self.span, &mut self.merge)?;
            }
            self.hand_out(&labels)?;
        }
        Ok(())
    }

    fn hand_out(&mut self, labels: &Labels) -> Result<(), SelectError> {
        self.merge.settle();
        self.charge(self.merge.times.len() as u64)?;
        if !self.merge.times.is_empty() {
            (self.visit)(labels, &self.merge.times, &self.merge.values);
        }
        Ok(())
    }

    fn charge(&mut self, samples: u64) -> Result<(), SelectError> {
        self.left = self.left.checked_sub(samples).ok_or(SelectError::TooManySamples { max: self.max })?;
        Ok(())
    }
}

/// The chunks of a host in a block that reach into a span, with their place among the host's.
pub(crate) fn chunks(
    block: &Block,
    agent: Option<AgentId>,
    (from, to): (i64, i64),
) -> impl DoubleEndedIterator<Item = (usize, &ChunkAt)> {
    let chunks = block.index.host(agent).map_or(&[][..], |host| &host.chunks);
    chunks.iter().enumerate().filter(move |(_, chunk)| chunk.first <= to && from < chunk.last)
}

/// The times of a host's rows in a span, in memory and in blocks, ascending.
pub(crate) fn row_times(
    (agent, host): (Option<AgentId>, &Host),
    blocks: &[Arc<Block>],
    span: (i64, i64),
) -> Result<BTreeSet<i64>, SelectError> {
    let mut times = BTreeSet::new();
    host.row_times(span, &mut times)?;
    for block in blocks {
        for (_, chunk) in chunks(block, agent, span) {
            let all = block.times(&block.head(chunk)?)?;
            let (low, high) = rows_between(&all, span);
            times.extend(&all[low..high]);
        }
    }
    Ok(times)
}

/// The series of a host in a block that the index cannot rule out.
pub(crate) fn matching(block: &Block, agent: Option<AgentId>, span: (i64, i64), wanted: &Wanted) -> Vec<u32> {
    let lists = chunks(block, agent, span).map(|(_, chunk)| chunk.list);
    let mut lists = lists.collect::<Vec<_>>();
    lists.sort_unstable();
    lists.dedup();
    let mut ids = lists
        .iter()
        .flat_map(|list| block.index.columns(*list, wanted.metric()))
        .copied()
        .collect::<Vec<_>>();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The chunk heads one selection has read of a host: many series share each.
#[derive(Default)]
pub(crate) struct Heads(HashMap<(usize, usize), (Head, Vec<i64>)>);

impl Heads {
    pub(crate) fn get(
        &mut self,
        place: (usize, usize),
        block: &Block,
        chunk: &ChunkAt,
    ) -> Result<(&Head, &[i64]), BlockError> {
        let (head, times) = match self.0.entry(place) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(gap) => {
                let head = block.head(chunk)?;
                let times = block.times(&head)?;
                gap.insert((head, times))
            }
        };
        Ok((head, times))
    }
}
