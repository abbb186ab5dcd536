//! Blocks of many hosts read on all cores: unpacking columns is most of the work of a question about all hosts.
//!
//! Hosts are collected until they have as much as memory should hold at once, read by a few threads, and handed out by
//! the caller's. What is in memory of a series is taken while its host is looked at, as everywhere (`select`).

use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;

use super::blocks::{Block, BlockError};
use super::host::Host;
use super::in_parallel;
use super::merge::Merge;
use super::select::{SelectError, Selection};
use super::series::Wanted;
use super::stored::{Chunks, Found};

/// Cells that are unpacked before they are handed out, 64 MB of times and values; a host that has more is read series
/// by series.
const CELLS_MAX: usize = 4 << 20;

/// Hosts that wait to be read.
pub(crate) struct Together {
    parts: Vec<Part>,
    cells: usize,
    pub(crate) cells_max: usize,
}

impl Default for Together {
    fn default() -> Self {
        Self { parts: Vec::new(), cells: 0, cells_max: CELLS_MAX }
    }
}

struct Part {
    agent: Option<AgentId>,
    blocks: Vec<Arc<Block>>,
    found: Vec<(Labels, Found)>,
    /// What memory has of each of `found`.
    memory: Vec<Merge>,
}

impl Together {
    /// Adds the series of a host that match, and hands out what is complete by then.
    pub(crate) fn add(
        &mut self,
        selection: &mut Selection,
        (agent, host): (Option<AgentId>, &Host),
        slots: &[u32],
        wanted: &Wanted,
        blocks: Vec<Arc<Block>>,
    ) -> Result<(), SelectError> {
        let span = selection.span;
        let found = Found::all((agent, host), slots, wanted, &blocks, span);
        let cells = Chunks::new(&blocks, agent, span, &found).cells_max(&found);
        if cells > self.cells_max {
            return selection.found((agent, host), &found, &blocks);
        }
        let mut memory = Vec::with_capacity(found.len());
        for (_, found) in &found {
            let mut merge = Merge::default();
            if let Some(slot) = found.slot {
                host.gather(slot, span, &mut merge)?;
            }
            self.cells += merge.times.len();
            memory.push(merge);
        }
        self.cells += cells;
        self.parts.push(Part { agent, blocks, found, memory });
        if self.cells > self.cells_max { self.read(selection) } else { Ok(()) }
    }

    /// Reads and hands out what waits.
    pub(crate) fn read(&mut self, selection: &mut Selection) -> Result<(), SelectError> {
        let (span, parts) = (selection.span, std::mem::take(&mut self.parts));
        self.cells = 0;
        let read = match parts.len() {
            0 | 1 => parts.into_iter().map(|part| part.read(span)).collect(),
            _ => in_parallel(parts, |part| part.read(span)),
        };
        for part in read {
            part?.into_iter().try_for_each(|(labels, merge)| selection.give(&labels, merge))?;
        }
        Ok(())
    }
}

impl Part {
    fn read(self, span: (i64, i64)) -> Result<Vec<(Labels, Merge)>, BlockError> {
        let Self { agent, blocks, found, memory } = self;
        let mut chunks = Chunks::new(&blocks, agent, span, &found);
        let mut read = Vec::with_capacity(found.len());
        for ((labels, found), memory) in found.iter().zip(&memory) {
            let mut merge = Merge::default();
            chunks.gather(found, &mut merge)?;
            merge.append(memory);
            merge.settle();
            read.push((labels.clone(), merge));
        }
        Ok(read)
    }
}
