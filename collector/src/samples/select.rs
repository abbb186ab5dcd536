//! Selection: from one host's memory and blocks to one ascending run of samples for each series.
//!
//! The common case, a short window of a live host, hands out the open rows as they lie. Otherwise parts are merged in
//! the order in which they were written: blocks, closed chunks, late rows, open rows. Memory is looked at before the
//! list of blocks: a chunk leaves memory only once its block is listed, so nothing is missed in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;

use super::blocks::{Block, BlockError};
use super::bytes::Malformed;
use super::host::Host;
use super::merge::{Merge, rows_between};
use super::series::{Visit, Wanted};
use super::stored::{Chunks, Found, chunks};

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
        let found = Found::all((agent, host), slots, wanted, blocks, self.span);
        self.found((agent, host), &found, blocks)
    }

    /// Hands out these series of a host, one after the other.
    pub(crate) fn found(
        &mut self,
        (agent, host): (Option<AgentId>, &Host),
        found: &[(Labels, Found)],
        blocks: &[Arc<Block>],
    ) -> Result<(), SelectError> {
        let mut chunks = Chunks::new(blocks, agent, self.span, found);
        for (labels, found) in found {
            self.merge.clear();
            chunks.gather(found, &mut self.merge)?;
            if let Some(slot) = found.slot {
                host.gather(slot, self.span, &mut self.merge)?;
            }
            self.hand_out(labels)?;
        }
        Ok(())
    }

    /// Hands out a series that was gathered elsewhere.
    pub(crate) fn give(&mut self, labels: &Labels, merge: Merge) -> Result<(), SelectError> {
        self.merge = merge;
        self.hand_out(labels)
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

/// The times of a host's rows in a span, in memory and in blocks, ascending.
pub(crate) fn row_times(
    (agent, host): (Option<AgentId>, &Host),
    blocks: &[Arc<Block>],
    span: (i64, i64),
) -> Result<BTreeSet<i64>, SelectError> {
    let mut times = BTreeSet::new();
    host.row_times(span, &mut times)?;
    for block in blocks {
        for chunk in chunks(block, agent, span) {
            let all = block.times(&block.head(chunk)?)?;
            let (low, high) = rows_between(&all, span);
            times.extend(&all[low..high]);
        }
    }
    Ok(times)
}
