//! How far every lane of every spool has been taken.
//!
//! Bounded per agent by epochs, in the order of their first appearance: a spool that was replaced so often does not
//! come back. `all` gives that order too, so that a restored state forgets the same epochs. What was taken stays taken,
//! whatever a later record says: one that was written without knowing all of the journal knows less.
//!
//! Of the newest records of a lane a checksum is kept, so that another record with such a key is noticed. Older ones are
//! not compared: a resend comes within the window of what is not acknowledged yet, which is far smaller.

use std::collections::{BTreeMap, VecDeque};

use tocsin_shared::event::LaneProgress;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;

/// How many epochs of an agent stay: a spool on a memory disk gets a new one at each boot.
pub(crate) const EPOCHS_PER_AGENT_MAX: usize = 64;

/// Records of a lane whose checksums are kept: as many as one message holds. Some kilobytes for a host.
pub(crate) const CONTENTS_MAX: usize = 256;

/// What is known of one lane.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    taken: Ranges,
    /// Checksums by seq, in the order in which the records were taken.
    contents: VecDeque<(u64, u32)>,
}

/// Lanes by agent, epoch and lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lanes {
    by_agent: BTreeMap<AgentId, Vec<(Epoch, OfEpoch)>>,
}

type OfEpoch = BTreeMap<Lane, Known>;

impl Lanes {
    pub(crate) fn put(&mut self, progress: LaneProgress) {
        let LaneProgress { agent, epoch, lane, taken, contents } = progress;
        let epochs = self.by_agent.entry(agent).or_default();
        let at = epochs.iter().rposition(|(known, _)| *known == epoch);
        let at = at.unwrap_or_else(|| {
            epochs.push((epoch, OfEpoch::new()));
            epochs.len() - 1
        });
        let known = epochs[at].1.entry(lane).or_default();
        if !known.taken.merge(&taken) {
            known.taken = taken; // More holes than there is room for: rows that come again do no harm.
        }
        known.contents.extend(contents);
        let old = known.contents.len().saturating_sub(CONTENTS_MAX);
        known.contents.drain(..old);
        if epochs.len() > EPOCHS_PER_AGENT_MAX {
            epochs.remove(0);
        }
    }

    pub(crate) fn get(&self, agent: AgentId, epoch: Epoch, lane: Lane) -> Option<&Ranges> {
        let (_, lanes) = self.by_agent.get(&agent)?.iter().rev().find(|(known, _)| *known == epoch)?;
        lanes.get(&lane).map(|known| &known.taken)
    }

    /// The checksum of the record with this seq, if it is one of the newest.
    pub(crate) fn content(&self, agent: AgentId, epoch: Epoch, lane: Lane, seq: u64) -> Option<u32> {
        let (_, lanes) = self.by_agent.get(&agent)?.iter().rev().find(|(known, _)| *known == epoch)?;
        let contents = &lanes.get(&lane)?.contents;
        contents.iter().rev().find(|(known, _)| *known == seq).map(|(_, checksum)| *checksum)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = LaneProgress> {
        self.by_agent.iter().flat_map(|(agent, epochs)| {
            epochs.iter().flat_map(|(epoch, lanes)| {
                lanes.iter().map(|(lane, known)| LaneProgress {
                    agent: *agent,
                    epoch: *epoch,
                    lane: *lane,
                    taken: known.taken.clone(),
                    contents: known.contents.iter().copied().collect(),
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
                contents: Vec::new(),
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
