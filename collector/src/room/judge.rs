//! From what is free to whether rows are let in. Pure.
//!
//! Promise: the gate does not flap. It closes below the floor and opens an eighth above it, and not before the room
//! that the reserve still misses is there, too.

/// What a look saw, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) free: u64,
    pub(super) floor: u64,
    /// What the reserve misses.
    pub(super) owed: u64,
    pub(super) closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    /// So many bytes are missing.
    Short {
        missing: u64,
    },
}

pub(super) fn judge(Seen { free, floor, owed, closed }: Seen) -> Verdict {
    let needed = if closed { floor.saturating_add(floor / 8).saturating_add(owed) } else { floor };
    match needed.saturating_sub(free) {
        0 => Verdict::Open,
        _ => Verdict::Short { missing: floor.saturating_add(floor / 8).saturating_add(owed) - free },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: C7
    #[test]
    fn closes_below_the_floor_and_opens_well_above_it() {
        for (free, owed, closed, missing) in [
            (800, 0, false, 0),
            (799, 0, false, 101),
            (899, 0, true, 1),
            (900, 0, true, 0),
            (900, 50, true, 50),
            (950, 50, true, 0),
            (800, 50, false, 0),
            (0, 0, false, 900),
        ] {
            let verdict = judge(Seen { free, floor: 800, owed, closed });
            let want = if missing == 0 { Verdict::Open } else { Verdict::Short { missing } };
            assert_eq!(verdict, want, "free {free}, owed {owed}, closed {closed}");
        }
        assert_eq!(judge(Seen { free: 0, floor: 0, owed: 0, closed: true }), Verdict::Open, "no floor");
    }
}
