//! The places of records in their lanes: what was taken, and what will never come.

use tocsin_shared::event::LaneProgress;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::RangeRefused;

use super::Place;
use crate::state::Refusal;
use crate::state::decide::Decision;

/// The lane as it is with this record taken; `None` when it was taken already. Another record in its place is refused:
/// the spool was set back or copied.
pub(super) fn take(d: &Decision<'_>, agent: AgentId, place: &Place) -> Result<Option<LaneProgress>, Refusal> {
    let Place { epoch, lane, seq, content } = *place;
    let mut progress = progress(d, agent, epoch, lane);
    let new = progress.taken.insert(seq).map_err(|refused| refusal(lane, refused))?;
    let known = d.state.lanes.content(agent, epoch, lane, seq);
    if !new && known.is_some_and(|known| known != content) {
        return Err(Refusal::SeqConflict { lane: lane.as_str(), seq });
    }
    progress.contents.push((seq, content));
    Ok(new.then_some(progress))
}

/// How far a lane has been taken.
pub(super) fn progress(d: &Decision<'_>, agent: AgentId, epoch: Epoch, lane: Lane) -> LaneProgress {
    let taken = d.state.lane(agent, epoch, lane).cloned().unwrap_or_default();
    LaneProgress { agent, epoch, lane, taken, contents: Vec::new() }
}

/// Counts a range as taken.
pub(super) fn skip(progress: &mut LaneProgress, first: u64, last: u64) -> Result<(), Refusal> {
    progress.taken.insert_range(first, last).map_err(|refused| refusal(progress.lane, refused))
}

fn refusal(lane: Lane, refused: RangeRefused) -> Refusal {
    match refused {
        RangeRefused::Full => Refusal::Exhausted {
            what: format!("holes in the lane {}: send what is missing first", lane.as_str()),
            max: tocsin_shared::ranges::RANGES_MAX,
        },
        RangeRefused::Reversed { .. } => Refusal::invalid(refused.to_string()),
    }
}
