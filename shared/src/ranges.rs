//! Which sequence numbers of a lane are settled: a floor below which all are, and at most 64 ranges above it.
//!
//! The same state answers "seen already?" in the collector and "acknowledged?" in the agent. Pure. The ranges above
//! the floor are sorted, disjoint and never touch each other or the floor, so equal states are equal values.

/// The most ranges above the floor. 64 holes at once is more than outages of a day leave; more would let one agent
/// grow the collector's memory.
pub const RANGES_MAX: usize = 64;

/// A set of sequence numbers, mostly one block from the start. Everything up to and including `floor` is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    floor: u64,
    above: Vec<(u64, u64)>,
}

/// Why a range was not taken; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeRefused {
    #[error("{RANGES_MAX} ranges are open already: fill a hole first")]
    Full,
    #[error("range {first}..={last} ends before it starts")]
    Reversed { first: u64, last: u64 },
}

impl Ranges {
    /// The set of everything up to and including `floor`.
    pub fn up_to(floor: u64) -> Self {
        Self { floor, above: Vec::new() }
    }

    /// The last number up to which nothing is missing; 0 when 1 is missing.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The closed ranges above the floor, in order.
    pub fn above(&self) -> &[(u64, u64)] {
        &self.above
    }

    /// The highest number in the set; 0 when it is empty.
    pub fn highest(&self) -> u64 {
        self.above.last().map_or(self.floor, |range| range.1)
    }

    /// Whether a number is in the set. 0 is no sequence number and always is.
    pub fn contains(&self, seq: u64) -> bool {
        let after = self.above.partition_point(|range| range.0 <= seq);
        seq <= self.floor || (after > 0 && seq <= self.above[after - 1].1)
    }

    /// Whether a whole closed range is in the set.
    pub fn contains_range(&self, first: u64, last: u64) -> bool {
        let first = first.max(self.floor.saturating_add(1));
        let after = self.above.partition_point(|range| range.0 <= first);
        last <= self.floor || (after > 0 && last <= self.above[after - 1].1)
    }

    /// Whether nothing below the highest number is missing.
    pub fn is_complete(&self) -> bool {
        self.above.is_empty()
    }

    /// Whether a number that touches no range would be refused.
    pub fn is_full(&self) -> bool {
        self.above.len() >= RANGES_MAX
    }

    /// Adds a number; tells whether it is new.
    pub fn insert(&mut self, seq: u64) -> Result<bool, RangeRefused> {
        if self.contains(seq) {
            return Ok(false);
        }
        self.insert_range(seq, seq).map(|()| true)
    }

    /// Adds the closed range `first..=last`.
    pub fn insert_range(&mut self, first: u64, last: u64) -> Result<(), RangeRefused> {
        if last < first {
            return Err(RangeRefused::Reversed { first, last });
        }
        if first <= self.floor.saturating_add(1) {
            self.lift_floor(last);
            return Ok(());
        }
        // Those that overlap or touch the new one become part of it.
        let start = self.above.partition_point(|range| range.1 < first - 1);
        let end = self.above.partition_point(|range| range.0 <= last.saturating_add(1));
        let Some(touched) = self.above.get(start..end).filter(|touched| !touched.is_empty()) else {
            if self.is_full() {
                return Err(RangeRefused::Full);
            }
            self.above.insert(start, (first, last));
            return Ok(());
        };
        let merged = (first.min(touched[0].0), last.max(touched[touched.len() - 1].1));
        self.above.splice(start..end, [merged]);
        Ok(())
    }

    /// Adds everything up to and including `to`.
    pub fn lift_floor(&mut self, to: u64) {
        self.floor = self.floor.max(to);
        let swallowed = self.above.partition_point(|range| range.0 <= self.floor.saturating_add(1));
        if let Some(last) = self.above.drain(..swallowed).next_back() {
            self.floor = self.floor.max(last.1);
        }
    }

    /// Adds everything in another set, as far as 64 ranges hold it; whether all of it was taken.
    pub fn merge(&mut self, other: &Self) -> bool {
        self.lift_floor(other.floor);
        let mut all = true;
        for (first, last) in &other.above {
            all &= self.insert_range(*first, *last).is_ok();
        }
        all
    }

    /// The closed ranges that are missing below the highest number, in order.
    pub fn holes(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let before = std::iter::once(self.floor).chain(self.above.iter().map(|range| range.1));
        before.zip(&self.above).map(|(end, next)| (end + 1, next.0 - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Range(u64, u64),
        Lift(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1u64..300).prop_map(Step::Insert),
            2 => (1u64..300, 0u64..12).prop_map(|(first, more)| Step::Range(first, first + more)),
            1 => (1u64..60).prop_map(Step::Lift),
        ];
        prop::collection::vec(step, 0..250)
    }

    /// The set as its numbers, and the shape every state must have.
    fn checked(ranges: &Ranges) -> BTreeSet<u64> {
        let mut end = ranges.floor();
        for (first, last) in ranges.above() {
            assert!(*first > end + 1 && last >= first, "ranges touch or are out of order: {ranges:?}");
            end = *last;
        }
        assert!(ranges.above().len() <= RANGES_MAX);
        let above = ranges.above().iter().flat_map(|(first, last)| *first..=*last);
        (1..=ranges.floor()).chain(above).collect()
    }

    proptest! {
        #[test]
        fn is_a_set(steps in steps()) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(seq) => match ranges.insert(seq) {
                        Ok(new) => prop_assert_eq!(new, model.insert(seq)),
                        Err(_) => prop_assert!(ranges.is_full() && !model.contains(&seq)),
                    },
                    Step::Range(first, last) => match ranges.insert_range(first, last) {
                        Ok(()) => model.extend(first..=last),
                        Err(_) => prop_assert!(ranges.is_full()),
                    },
                    Step::Lift(to) => {
                        ranges.lift_floor(to);
                        model.extend(1..=to);
                    }
                }
                prop_assert_eq!(&checked(&ranges), &model);
            }
            for seq in 1..320 {
                prop_assert_eq!(ranges.contains(seq), model.contains(&seq));
                let run = (seq..seq + 5).all(|seq| model.contains(&seq));
                prop_assert_eq!(ranges.contains_range(seq, seq + 4), run);
            }
            let holes: BTreeSet<u64> = ranges.holes().flat_map(|(first, last)| first..=last).collect();
            let missing: BTreeSet<u64> = (1..=ranges.highest()).filter(|seq| !model.contains(seq)).collect();
            prop_assert_eq!(holes, missing);
        }
    }

    #[test]
    fn holds_64_ranges_and_no_more() {
        let mut ranges = Ranges::default();
        for at in 1..=64 {
            assert_eq!(ranges.insert(at * 2), Ok(true));
        }
        assert!(ranges.is_full());
        assert_eq!(ranges.insert(1000), Err(RangeRefused::Full));
        assert_eq!(ranges.insert(128), Ok(false), "what is in stays in");
        assert_eq!(ranges.insert(129), Ok(true), "growing a range needs no other");
        assert_eq!(ranges.insert(1), Ok(true), "filling a hole makes room");
        assert_eq!((ranges.floor(), ranges.above().len()), (2, 63));
    }

    #[test]
    fn the_ends_of_the_numbers_are_safe() {
        let mut ranges = Ranges::default();
        ranges.insert_range(u64::MAX - 1, u64::MAX).unwrap();
        assert!(ranges.contains(u64::MAX));
        assert_eq!(ranges.insert_range(5, 4), Err(RangeRefused::Reversed { first: 5, last: 4 }));
        ranges.lift_floor(u64::MAX);
        assert_eq!(ranges, Ranges::up_to(u64::MAX));
    }
}
