//! Which sequence numbers of a lane are taken: a floor, and at most 64 ranges above it.

/// Everything up to `floor` is in the set, and the disjoint, sorted, closed ranges `above` it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    floor: u64,
    above: Vec<(u64, u64)>,
}

impl Ranges {
    /// The highest number below which nothing is missing.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The ranges above the floor, sorted, neither touching each other nor the floor.
    pub fn above(&self) -> &[(u64, u64)] {
        &self.above
    }
}
