//! The few chains of a stream that writer and reader of a segment follow, each by the same rule.

use tocsin_shared::chain::CHAIN_ROWS_MAX;

/// Chains of one stream at a time: a live one, one that fills a hole, and their successors.
const CHAINS_MAX: usize = 4;

/// Unfinished chains, the one that moved last at the end: its id, the index it expects, and what its owner keeps.
pub(super) struct Followed<T>(Vec<(u64, u32, T)>);

impl<T> Default for Followed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Followed<T> {
    /// Takes out a chain; its state, if the row at `index` is the one it expects.
    pub(super) fn take(&mut self, chain: u64, index: u32) -> Option<T> {
        let at = self.0.iter().position(|(known, ..)| *known == chain)?;
        let (_, expected, state) = self.0.remove(at);
        (expected == index).then_some(state)
    }

    /// The row at `index` of a chain is there; the chain that moved least recently makes room.
    pub(super) fn keep(&mut self, chain: u64, index: u32, state: T) {
        if index + 1 < CHAIN_ROWS_MAX {
            self.0.push((chain, index + 1, state));
        }
        if self.0.len() > CHAINS_MAX {
            self.0.remove(0);
        }
    }
}
