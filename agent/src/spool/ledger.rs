//! What is settled in each lane: acknowledged by the collector, or lost and told as a gap.
//!
//! Pure. Promise: every lost record is in exactly one gap, no acknowledged one is in any (a flood of gaps excepted,
//! see `GAPS_MAX`), and a gap stays until it is recorded in the outcomes lane. Not here: the file (`slots`).

use tocsin_shared::identity::Epoch;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::{RANGES_MAX, Ranges};
use uuid::Uuid;

/// The most gaps a lane keeps. A disk that rots in more places than this is dying: further damage makes the last gap
/// longer, and what lies between is given up with it.
pub(super) const GAPS_MAX: usize = 512;

/// The longest encoding, for the size of a slot.
pub(super) const ENCODED_MAX: usize = 16 + 3 * (16 + 16 * RANGES_MAX + 8 + 26 * GAPS_MAX + 8);

/// Why records are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Removed to keep the spool within its bounds.
    Evicted,
    /// Damaged or removed by something else.
    Corrupt,
    /// Cut off by a crash while being written; nobody had been told that they were safe.
    Torn,
}

impl Reason {
    /// Its name in gap records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Corrupt => "corrupt",
            Self::Torn => "torn",
        }
    }
}

/// Records that will never be sent. Of a torn tail the range may name numbers that were never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub lane: Lane,
    pub first: u64,
    pub last: u64,
    /// How many in the range are lost; fewer than its length only when gaps had to be joined.
    pub count: u64,
    pub reason: Reason,
}

/// A gap and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    first: u64,
    last: u64,
    count: u64,
    reason: Reason,
    /// Handed out since the start, so its range is fixed.
    taken: bool,
    /// Recorded, but the ranges had no room for it yet.
    recorded: bool,
}

/// One lane's acknowledgements and gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Account {
    acked: Ranges,
    /// Sorted and disjoint.
    gaps: Vec<Open>,
}

/// The accounts of all lanes in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ledger {
    epoch: Epoch,
    lanes: [Account; 3],
    /// Up to which number of a lane records may have been in memory only; 0 when none was.
    reserved: [u64; 3],
}

impl Ledger {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, lanes: Default::default(), reserved: [0; 3] }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Gives the accounts another epoch's name; returns the one they had.
    pub(super) fn set_epoch(&mut self, epoch: Epoch) -> Epoch {
        std::mem::replace(&mut self.epoch, epoch)
    }

    /// The closed ranges up to `end` about which nothing is left to do.
    pub(super) fn settled(&self, lane: Lane, end: u64) -> Vec<(u64, u64)> {
        let (mut settled, mut from) = (Vec::new(), 1);
        for (first, last) in self.unsettled(lane, 1, end) {
            if from < first {
                settled.push((from, first - 1));
            }
            from = last + 1;
        }
        if from <= end {
            settled.push((from, end));
        }
        settled
    }

    /// Up to which number records may be in memory only.
    pub(super) fn reserved(&self, lane: Lane) -> u64 {
        self.reserved[lane.index()]
    }

    pub(super) fn reserve(&mut self, lane: Lane, to: u64) {
        self.reserved[lane.index()] = to;
    }

    pub(super) fn acked(&self, lane: Lane) -> &Ranges {
        &self.lanes[lane.index()].acked
    }

    /// The highest number that is settled; 0 when none is.
    pub(super) fn highest(&self, lane: Lane) -> u64 {
        let Account { acked, gaps } = &self.lanes[lane.index()];
        acked.highest().max(gaps.last().map_or(0, |gap| gap.last))
    }

    /// Takes the collector's word for what it has; whether that was news.
    pub(super) fn acknowledge(&mut self, lane: Lane, acks: &Ranges) -> bool {
        let account = &mut self.lanes[lane.index()];
        let before = account.acked.clone();
        account.acked.merge(acks);
        account.absorb_recorded();
        account.acked != before
    }

    /// Whether nothing is left to do about a record.
    pub(super) fn is_settled(&self, lane: Lane, seq: u64) -> bool {
        let account = &self.lanes[lane.index()];
        let after = account.gaps.partition_point(|gap| gap.first <= seq);
        account.acked.contains(seq) || (after > 0 && seq <= account.gaps[after - 1].last)
    }

    /// The parts of a closed range that are neither acknowledged nor in a gap, in order.
    pub(super) fn unsettled(&self, lane: Lane, first: u64, last: u64) -> Vec<(u64, u64)> {
        self.lanes[lane.index()].unsettled(first, last)
    }

    /// Notes what is lost of a closed range; whether anything is.
    pub(super) fn lose(&mut self, lane: Lane, range: (u64, u64), reason: Reason) -> bool {
        let account = &mut self.lanes[lane.index()];
        let lost = account.unsettled(range.0, range.1);
        for (first, last) in &lost {
            account.lose(*first, *last, reason);
        }
        !lost.is_empty()
    }

    /// The gaps that were not handed out since the start. They are handed out again after a restart until `recorded`.
    pub(super) fn take_gaps(&mut self) -> Vec<Gap> {
        let mut taken = Vec::new();
        for lane in Lane::ALL {
            for gap in &mut self.lanes[lane.index()].gaps {
                if !gap.taken && !gap.recorded {
                    gap.taken = true;
                    let Open { first, last, count, reason, .. } = *gap;
                    taken.push(Gap { lane, first, last, count, reason });
                }
            }
        }
        taken
    }

    /// A gap is durable as a record of its own now; whether it was known.
    pub(super) fn recorded(&mut self, gap: &Gap) -> bool {
        let account = &mut self.lanes[gap.lane.index()];
        let known = account
            .gaps
            .iter_mut()
            .find(|open| (open.first, open.last) == (gap.first, gap.last) && open.taken);
        let Some(open) = known else { return false };
        open.recorded = true;
        account.absorb_recorded();
        true
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.epoch.0.as_bytes().to_vec();
        for account in &self.lanes {
            account.encode(&mut out);
        }
        self.reserved.iter().for_each(|to| out.extend_from_slice(&to.to_le_bytes()));
        out
    }

    /// Reads what `encode` wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, mut rest) = bytes.split_first_chunk::<16>()?;
        let mut ledger = Self::new(Epoch(Uuid::from_bytes(*epoch)));
        for account in &mut ledger.lanes {
            *account = Account::decode(&mut rest)?;
        }
        if rest.is_empty() {
            return Some(ledger); // As it was written before there were reserved numbers.
        }
        for to in &mut ledger.reserved {
            *to = number(&mut rest)?;
        }
        rest.is_empty().then_some(ledger)
    }
}

impl Account {
    fn unsettled(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let gaps = self.gaps.iter().map(|gap| (gap.first, gap.last));
        let mut settled: Vec<(u64, u64)> = std::iter::once((0, self.acked.floor()))
            .chain(self.acked.above().iter().copied())
            .chain(gaps)
            .collect();
        settled.sort_unstable();
        let (mut parts, mut from) = (Vec::new(), first);
        for (start, end) in settled {
            if start > last {
                break;
            }
            if start > from {
                parts.push((from, start - 1));
            }
            from = from.max(end.saturating_add(1));
        }
        if from <= last {
            parts.push((from, last));
        }
        parts
    }

    /// Adds a gap of a range of which nothing is settled. It joins a neighbour of its kind that nobody has seen yet.
    fn lose(&mut self, first: u64, last: u64, reason: Reason) {
        let count = last - first + 1;
        let at = self.gaps.partition_point(|gap| gap.first < first);
        let before = at.checked_sub(1).map(|at| &mut self.gaps[at]);
        if let Some(before) = before.filter(|gap| !gap.taken && gap.reason == reason && gap.last + 1 == first)
        {
            before.last = last;
            before.count += count;
            return;
        }
        if self.gaps.len() < GAPS_MAX {
            self.gaps.insert(at, Open { first, last, count, reason, taken: false, recorded: false });
        } else {
            self.join(at, first, last);
        }
    }

    /// Too many gaps: a neighbour takes the range in, with what lies between. It is told anew, with its new range.
    fn join(&mut self, at: usize, first: u64, last: u64) {
        let neighbour = at.saturating_sub(1);
        let (from, to) = (first.min(self.gaps[neighbour].first), last.max(self.gaps[neighbour].last));
        let more: u64 = self.unsettled(from, to).iter().map(|(from, to)| to - from + 1).sum();
        let gap = &mut self.gaps[neighbour];
        *gap = Open { first: from, last: to, count: gap.count + more, taken: false, recorded: false, ..*gap };
    }

    /// Moves recorded gaps into the ranges, as far as there is room, lowest first.
    fn absorb_recorded(&mut self) {
        let acked = &mut self.acked;
        self.gaps.retain(|gap| !gap.recorded || acked.insert_range(gap.first, gap.last).is_err());
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_le_bytes());
        number(out, self.acked.floor());
        number(out, self.acked.above().len() as u64);
        for (first, last) in self.acked.above() {
            number(out, *first);
            number(out, *last);
        }
        number(out, self.gaps.len() as u64);
        for gap in &self.gaps {
            number(out, gap.first);
            number(out, gap.last);
            number(out, gap.count);
            let reason = match gap.reason {
                Reason::Evicted => 1,
                Reason::Corrupt => 2,
                Reason::Torn => 3,
            };
            out.extend_from_slice(&[reason, u8::from(gap.recorded)]);
        }
    }

    fn decode(rest: &mut &[u8]) -> Option<Self> {
        let mut account = Self { acked: Ranges::up_to(number(rest)?), gaps: Vec::new() };
        for _ in 0..number(rest)?.min(RANGES_MAX as u64 + 1) {
            let (first, last) = (number(rest)?, number(rest)?);
            account.acked.insert_range(first, last).ok()?;
        }
        for _ in 0..number(rest)?.min(GAPS_MAX as u64 + 1) {
            let (first, last, count) = (number(rest)?, number(rest)?, number(rest)?);
            let ([reason, recorded], after) = rest.split_first_chunk::<2>()?;
            *rest = after;
            let reason = match reason {
                1 => Reason::Evicted,
                2 => Reason::Corrupt,
                3 => Reason::Torn,
                _ => return None,
            };
            let follows = account.gaps.last().is_none_or(|before| before.last < first);
            if !follows || last < first || last == u64::MAX {
                return None;
            }
            account.gaps.push(Open { first, last, count, reason, taken: false, recorded: *recorded != 0 });
        }
        Some(account)
    }
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Epoch(Uuid::from_u128(7)))
    }

    fn acks(floor: u64, above: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::up_to(floor);
        for (first, last) in above {
            ranges.insert_range(*first, *last).unwrap();
        }
        ranges
    }

    #[test]
    fn gaps_hold_what_is_lost_and_not_acknowledged() {
        let mut ledger = ledger();
        ledger.acknowledge(Lane::Samples, &acks(10, &[(15, 16)]));
        assert!(ledger.lose(Lane::Samples, (5, 20), Reason::Evicted));
        assert!(!ledger.lose(Lane::Samples, (5, 20), Reason::Corrupt), "each record is lost once");
        ledger.lose(Lane::Samples, (21, 30), Reason::Evicted);
        let gap = |first, last| Gap {
            lane: Lane::Samples,
            first,
            last,
            count: last - first + 1,
            reason: Reason::Evicted,
        };
        let taken = ledger.take_gaps();
        assert_eq!(taken, [gap(11, 14), gap(17, 30)], "neighbours of one kind are one gap");
        assert_eq!(ledger.take_gaps(), [], "handed out once");
        ledger.lose(Lane::Samples, (31, 31), Reason::Evicted);
        assert_eq!(ledger.take_gaps(), [gap(31, 31)], "a gap someone has seen does not grow");

        assert!(ledger.recorded(&taken[1]));
        let mut restarted = Ledger::decode(&ledger.encode()).unwrap();
        assert_eq!(restarted.take_gaps(), [gap(11, 14), gap(31, 31)], "again until recorded");
        for gap in [gap(11, 14), gap(31, 31)] {
            assert!(restarted.recorded(&gap));
        }
        assert_eq!(restarted.acked(Lane::Samples), &Ranges::up_to(31));
        assert!(!restarted.recorded(&gap(11, 14)), "unknown by now");
    }

    #[test]
    fn recorded_gaps_wait_for_room_in_the_ranges() {
        let mut ledger = ledger();
        let many: Vec<(u64, u64)> = (1..=64).map(|at| (at * 10, at * 10)).collect();
        ledger.acknowledge(Lane::State, &acks(0, &many));
        ledger.lose(Lane::State, (1005, 1006), Reason::Corrupt);
        let gap = ledger.take_gaps()[0];
        ledger.recorded(&gap);
        assert!(ledger.is_settled(Lane::State, 1005));
        let mut ledger = Ledger::decode(&ledger.encode()).unwrap();
        assert_eq!(ledger.take_gaps(), [], "recorded is recorded");
        ledger.acknowledge(Lane::State, &acks(1004, &[]));
        assert_eq!(ledger.acked(Lane::State), &Ranges::up_to(1006));
    }

    #[test]
    fn a_flood_of_damage_stays_bounded_and_fits_its_slot() {
        let mut ledger = ledger();
        for lane in Lane::ALL {
            let many: Vec<(u64, u64)> = (1..=64).map(|at| (at * 2, at * 2)).collect();
            ledger.acknowledge(lane, &acks(0, &many));
            for at in 0..3000 {
                ledger.lose(lane, (1000 + at * 3, 1000 + at * 3), Reason::Corrupt);
            }
            assert!((0..3000).all(|at| ledger.is_settled(lane, 1000 + at * 3)));
        }
        let encoded = ledger.encode();
        assert!(encoded.len() <= ENCODED_MAX, "{}", encoded.len());
        let mut decoded = Ledger::decode(&encoded).unwrap();
        assert_eq!(decoded, ledger);
        assert_eq!(decoded.take_gaps().len(), 3 * GAPS_MAX);
        assert!(Ledger::decode(&encoded[1..]).is_none());
        assert!(Ledger::decode(&encoded[..encoded.len() - 1]).is_none());
    }

    proptest! {
        #[test]
        fn settled_is_acknowledged_or_lost(steps in prop::collection::vec((0u8..3, 1u64..100, 0u64..9), 0..60)) {
            let (mut ledger, mut acked, mut lost) = (ledger(), BTreeSet::new(), BTreeSet::new());
            for (what, first, more) in steps {
                let last = first + more;
                match what {
                    0 => {
                        ledger.acknowledge(Lane::State, &acks(0, &[(first, last)]));
                        acked.extend(first..=last);
                    }
                    1 => {
                        ledger.lose(Lane::State, (first, last), Reason::Evicted);
                        lost.extend((first..=last).filter(|seq| !acked.contains(seq)));
                    }
                    _ => for gap in ledger.take_gaps() {
                        prop_assert!((gap.first..=gap.last).all(|seq| lost.contains(&seq)));
                        ledger.recorded(&gap);
                    },
                }
                prop_assert_eq!(Ledger::decode(&ledger.encode()).map(|ledger| ledger.encode()), Some(ledger.encode()));
            }
            let open: BTreeSet<u64> = ledger.unsettled(Lane::State, 1, 120).into_iter().flat_map(|(a, b)| a..=b).collect();
            for seq in 1..=120 {
                let settled = acked.contains(&seq) || lost.contains(&seq);
                prop_assert_eq!(ledger.is_settled(Lane::State, seq), settled);
                prop_assert_eq!(open.contains(&seq), !settled);
            }
        }
    }
}
