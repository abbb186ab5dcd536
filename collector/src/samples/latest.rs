//! The newest sample of each series in a span: what an instant selector at one instant needs.
//!
//! It is what the last sample of a selection over the same span would be. Parts are looked at in the reverse of the
//! order in which they were written, and one is read only if it can hold something newer, or as new and written
//! before: a live host's answer lies in its open rows, and nothing is unpacked or copied.

use std::sync::Arc;

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;

use super::blocks::Block;
use super::codec::is_absent;
use super::host::Host;
use super::merge::rows_between;
use super::select::SelectError;
use super::series::Wanted;
use super::stored::{Chunks, Found};

/// Takes a series' labels as read, the time of its newest sample in milliseconds and its value.
pub type VisitLatest<'v> = dyn FnMut(&Labels, i64, f64) + 'v;

/// The newest sample seen so far, while going from what was written last to what was written first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Newest(pub(crate) Option<(i64, f64)>);

impl Newest {
    /// Whether a part that begins at `first` and ends at `last` has to be looked at.
    pub(crate) fn wants(self, (first, last): (i64, i64), (from, to): (i64, i64)) -> bool {
        first <= to && from < last && self.0.is_none_or(|(time, _)| time <= last)
    }

    /// Takes a part's newest sample; of equal times the one written first stays, and that is this one.
    pub(crate) fn offer(&mut self, sample: Option<(i64, f64)>) {
        if let Some((time, _)) = sample
            && self.0.is_none_or(|(known, _)| known <= time)
        {
            self.0 = sample;
        }
    }
}

/// The last row of ascending `times` in the span whose cell holds a value.
pub(crate) fn last_present(
    times: &[i64],
    span: (i64, i64),
    cell: impl Fn(usize) -> f64,
) -> Option<(i64, f64)> {
    let (low, high) = rows_between(times, span);
    (low..high).rev().map(|row| (times[row], cell(row))).find(|(_, value)| !is_absent(*value))
}

/// One look at the newest samples of one or many hosts.
pub(crate) struct Latest<'v> {
    span: (i64, i64),
    max: u64,
    left: u64,
    visit: &'v mut VisitLatest<'v>,
}

impl<'v> Latest<'v> {
    /// After the first, up to the second of `span`; at most `max` series.
    pub(crate) fn new(span: (i64, i64), max: u64, visit: &'v mut VisitLatest<'v>) -> Self {
        Self { span, max, left: max, visit }
    }

    /// The series of these slots, all of them in memory.
    pub(crate) fn memory(&mut self, host: &Host, slots: &[u32]) -> Result<(), SelectError> {
        for slot in slots {
            let newest = host.latest(*slot, self.span)?;
            self.hand_out(host.series.labels(*slot), newest)?;
        }
        Ok(())
    }

    /// The series of a host that match, blocks and memory together.
    pub(crate) fn stored(
        &mut self,
        (agent, host): (Option<AgentId>, &Host),
        slots: &[u32],
        wanted: &Wanted,
        blocks: &[Arc<Block>],
    ) -> Result<(), SelectError> {
        let found = Found::all((agent, host), slots, wanted, blocks, self.span);
        let mut chunks = Chunks::new(blocks, agent, self.span, &found);
        for (labels, found) in found {
            let mut newest = match found.slot {
                Some(slot) => host.latest(slot, self.span)?,
                None => Newest::default(),
            };
            chunks.latest(&found, &mut newest)?;
            self.hand_out(&labels, newest)?;
        }
        Ok(())
    }

    fn hand_out(&mut self, labels: &Labels, newest: Newest) -> Result<(), SelectError> {
        let Some((time, value)) = newest.0 else { return Ok(()) };
        self.left = self.left.checked_sub(1).ok_or(SelectError::TooManySamples { max: self.max })?;
        (self.visit)(labels, time, value);
        Ok(())
    }
}
