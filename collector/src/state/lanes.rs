//! How far every lane of every spool has been taken.
//!
//! Bounded per agent by epochs, in the order of their first appearance: a spool that was replaced so often does not
//! come back. `all` gives that order too, so that a restored state forgets the same epochs.

use std::collections::BTreeMap;

use tocsin_shared::event::LaneProgress;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;

/// How many epochs of an agent stay: a spool on a memory disk gets a new one at each boot.
pub(crate) const EPOCHS_PER_AGENT_MAX: usize = 64;

/// Lanes by agent, epoch and lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lanes {
    by_agent: BTreeMap<AgentId, Vec<(Epoch, OfEpoch)>>,
}

type OfEpoch = BTreeMap<Lane, Ranges>;

impl Lanes {
    pub(crate) fn put(&mut self, progress: LaneProgress) {
        let LaneProgress { agent, epoch, lane, taken } = progress;
        let epochs = self.by_agent.entry(agent).or_default();
        if let Some((_, lanes)) = epochs.iter_mut().rev().find(|(known, _)| *known == epoch) {
            lanes.insert(lane, taken);
            return;
        }
        epochs.push((epoch, BTreeMap::from([(lane, taken)])));
        if epochs.len() > EPOCHS_PER_AGENT_MAX {
            epochs.remove(0);
        }
    }

    /// Adds what was taken to what is known: a gap record may have come after the writer of rows was asked.
    pub(crate) fn merge(&mut self, progress: &LaneProgress) {
        let known = self.get(progress.agent, progress.epoch, progress.lane);
        let mut taken = known.cloned().unwrap_or_default();
        if !taken.merge(&progress.taken) {
            taken = progress.taken.clone(); // More holes than there is room for: rows that come again do no harm.
        }
        self.put(LaneProgress { taken, ..progress.clone() });
    }

    pub(crate) fn get(&self, agent: AgentId, epoch: Epoch, lane: Lane) -> Option<&Ranges> {
        let (_, lanes) = self.by_agent.get(&agent)?.iter().rev().find(|(known, _)| *known == epoch)?;
        lanes.get(&lane)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = LaneProgress> {
        self.by_agent.iter().flat_map(|(agent, epochs)| {
            epochs.iter().flat_map(|(epoch, lanes)| {
                lanes.iter().map(|(lane, taken)| LaneProgress {
                    agent: *agent,
                    epoch: *epoch,
                    lane: *lane,
                    taken: taken.clone(),
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::state::testing;

    #[test]
    fn epochs_are_bounded_and_a_copy_forgets_the_same_ones() {
        let put = |lanes: &mut Lanes, n: u128| {
            let epoch = Epoch(Uuid::from_u128(u128::MAX - n));
            lanes.put(LaneProgress {
                agent: testing::agent(1),
                epoch,
                lane: Lane::State,
                taken: Ranges::default(),
            });
        };
        let mut lanes = Lanes::default();
        (0..EPOCHS_PER_AGENT_MAX as u128).for_each(|n| put(&mut lanes, n));
        let mut copy = Lanes::default();
        lanes.all().for_each(|lane| copy.put(lane));
        put(&mut lanes, 1_000);
        put(&mut copy, 1_000);
        assert_eq!(lanes, copy);
        let gone = Epoch(Uuid::from_u128(u128::MAX));
        assert!(lanes.get(testing::agent(1), gone, Lane::State).is_none(), "the first leaves first");
    }
}
