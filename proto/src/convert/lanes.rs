//! Progress of lanes, holes in them, what sealing settles, and what the journal has lost.

use tocsin_shared::event::{Block, Hole, LaneProgress, Loss, Sealed};
use tocsin_shared::identity::Epoch;
use tocsin_shared::ranges::Ranges;

use super::{InvalidMessage, Number, must, parse, time};
use crate::pb;

impl From<&Ranges> for pb::Ranges {
    fn from(ranges: &Ranges) -> Self {
        let above = ranges.above().iter().map(|&(first, last)| pb::SeqRange { first, last }).collect();
        Self { floor: ranges.floor(), above }
    }
}

impl TryFrom<pb::Ranges> for Ranges {
    type Error = InvalidMessage;
    fn try_from(ranges: pb::Ranges) -> Result<Self, InvalidMessage> {
        let pb::Ranges { floor, above } = ranges;
        let mut taken = Self::up_to(floor);
        for pb::SeqRange { first, last } in above {
            taken.insert_range(first, last).map_err(|error| InvalidMessage::new("ranges", error))?;
        }
        Ok(taken)
    }
}

impl From<&LaneProgress> for pb::LaneProgress {
    fn from(progress: &LaneProgress) -> Self {
        let LaneProgress { agent, epoch, lane, taken, contents } = progress;
        Self {
            agent: agent.to_string(),
            epoch: epoch.to_string(),
            lane: lane.number(),
            taken: Some(taken.into()),
            contents: contents.iter().map(|&(seq, checksum)| pb::RecordContent { seq, checksum }).collect(),
        }
    }
}

/// A spool's epoch from its 32 hex digits.
pub fn epoch_in(field: &'static str, text: &str) -> Result<Epoch, InvalidMessage> {
    parse(field, text).map(Epoch)
}

impl TryFrom<pb::LaneProgress> for LaneProgress {
    type Error = InvalidMessage;
    fn try_from(progress: pb::LaneProgress) -> Result<Self, InvalidMessage> {
        let pb::LaneProgress { agent, epoch, lane, taken, contents } = progress;
        Ok(Self {
            agent: parse("lane.agent", &agent)?,
            epoch: epoch_in("lane.epoch", &epoch)?,
            lane: Number::from_number(lane)?,
            taken: must("lane.taken", taken)?.try_into()?,
            contents: contents
                .into_iter()
                .map(|pb::RecordContent { seq, checksum }| (seq, checksum))
                .collect(),
        })
    }
}

impl From<&Hole> for pb::Hole {
    fn from(hole: &Hole) -> Self {
        let Hole { agent, from, alerts, closed } = hole;
        Self {
            agent: agent.to_string(),
            from_ms: from.as_millis(),
            alerts: alerts.iter().map(Into::into).collect(),
            closed: *closed,
        }
    }
}

impl TryFrom<pb::Hole> for Hole {
    type Error = InvalidMessage;
    fn try_from(hole: pb::Hole) -> Result<Self, InvalidMessage> {
        let pb::Hole { agent, from_ms, alerts, closed } = hole;
        let alerts = alerts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(Self { agent: parse("hole.agent", &agent)?, from: time(from_ms), alerts, closed })
    }
}

impl From<&Loss> for pb::Loss {
    fn from(loss: &Loss) -> Self {
        let Loss { first, last, state, incidents_from } = loss;
        let (first, last, incidents_from) = (*first, *last, *incidents_from);
        Self { first, last, state: state.number(), incidents_from }
    }
}

impl TryFrom<pb::Loss> for Loss {
    type Error = InvalidMessage;
    fn try_from(loss: pb::Loss) -> Result<Self, InvalidMessage> {
        let pb::Loss { first, last, state, incidents_from } = loss;
        Ok(Self { first, last, state: Number::from_number(state)?, incidents_from })
    }
}

impl From<&Block> for pb::Block {
    fn from(block: &Block) -> Self {
        let Block { file, from, to, bytes, series, samples } = block;
        Self {
            file: file.clone(),
            from_ms: from.as_millis(),
            to_ms: to.as_millis(),
            bytes: *bytes,
            series: *series,
            samples: *samples,
        }
    }
}

impl From<pb::Block> for Block {
    fn from(block: pb::Block) -> Self {
        let pb::Block { file, from_ms, to_ms, bytes, series, samples } = block;
        Self { file, from: time(from_ms), to: time(to_ms), bytes, series, samples }
    }
}

impl From<&Sealed> for pb::Sealed {
    fn from(sealed: &Sealed) -> Self {
        let Sealed { samples_from, sealed_seq, sealed_to, evaluated_through, lanes, blocks } = sealed;
        Self {
            samples_from: *samples_from,
            evaluated_through: *evaluated_through,
            lanes: lanes.iter().map(Into::into).collect(),
            blocks: blocks.iter().map(Into::into).collect(),
            sealed_seq: *sealed_seq,
            sealed_to_ms: sealed_to.as_millis(),
        }
    }
}

impl TryFrom<pb::Sealed> for Sealed {
    type Error = InvalidMessage;
    fn try_from(sealed: pb::Sealed) -> Result<Self, InvalidMessage> {
        let pb::Sealed { samples_from, evaluated_through, lanes, blocks, sealed_seq, sealed_to_ms } = sealed;
        Ok(Self {
            samples_from,
            sealed_seq,
            sealed_to: time(sealed_to_ms),
            evaluated_through,
            lanes: lanes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            blocks: blocks.into_iter().map(Into::into).collect(),
        })
    }
}
