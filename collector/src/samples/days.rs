//! Which blocks are to become one, and when. Pure.
//!
//! A day that is over becomes one block as soon as all of its windows are sealed. What comes late for it stands beside
//! it in blocks of its own, until that is a good part of it; a window that collects many of them gets one instead. So
//! each sample is packed a few times at most, however late rows come.

use std::collections::HashSet;

use tocsin_shared::time::Timestamp;

use super::blocks::BlockEntry;
use super::window::Window;

/// Late blocks are joined into their day when they are an eighth of it: each rewriting of a day is paid for by that
/// much that is new.
const LATE_SHARE: u64 = 8;
/// So many blocks of one window become one: a spool that is drained leaves one a minute.
const PILE: usize = 4;
/// What is larger than all that came after it by this factor is left as it is.
const PILE_SPREAD: u64 = 4;

/// The window of the block to be made, and the places of those it is made of, in the order in which they were written.
pub(crate) type Due = (Window, Vec<usize>);

/// What is due of blocks in the order of the directory: the oldest day first, then piles. `sealed_to`: there is no
/// sample in memory that is older and was there when its window was sealed. Sets larger than `bytes_max`, and windows
/// of `skip`, are left out.
pub(crate) fn due(
    entries: &[BlockEntry],
    sealed_to: Timestamp,
    bytes_max: u64,
    skip: &HashSet<Window>,
) -> Option<Due> {
    let numbered = entries.iter().enumerate().collect::<Vec<_>>();
    let days = || numbered.chunk_by(|a, b| a.1.window.day() == b.1.window.day());
    let windows = || numbered.chunk_by(|a, b| a.1.window == b.1.window);
    let over = |set: &[(usize, &BlockEntry)]| set[0].1.window.day().to <= sealed_to;
    let whole = days().filter(|set| over(set) && is_due(set)).map(|set| (set[0].1.window.day(), set));
    let piles = windows().map(|set| (set[0].1.window, pile(set)));
    let fits = |set: &[(usize, &BlockEntry)]| bytes(set) <= bytes_max;
    let mut all = whole.chain(piles.filter(|(_, set)| set.len() >= PILE));
    let (window, set) = all.find(|(window, set)| !skip.contains(window) && fits(set))?;
    Some((window, set.iter().map(|(place, _)| *place).collect()))
}

/// Whether the blocks of a day that is over should become one.
fn is_due(set: &[(usize, &BlockEntry)]) -> bool {
    let (_, first) = set[0];
    let joined = first.window == first.window.day();
    let late = bytes(&set[1..]);
    set.len() > 1 && (!joined || late.saturating_mul(LATE_SHARE) >= first.bytes)
}

/// The youngest blocks of a window, without large ones before them.
fn pile<'a, 'b>(mut set: &'a [(usize, &'b BlockEntry)]) -> &'a [(usize, &'b BlockEntry)] {
    while let [(_, first), rest @ ..] = set
        && first.bytes > bytes(rest).saturating_mul(PILE_SPREAD)
    {
        set = rest;
    }
    set
}

fn bytes(set: &[(usize, &BlockEntry)]) -> u64 {
    set.iter().map(|(_, entry)| entry.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::super::window::{DAY, WINDOW};
    use super::*;

    fn block(window: Window, bytes: u64) -> BlockEntry {
        BlockEntry { name: String::new(), window, bytes, series: 1, samples: 1, crc: 0 }
    }

    fn hours(from: i64) -> Window {
        Window::of(Timestamp::from_millis(from * 3_600_000))
    }

    #[test]
    fn a_day_that_is_over_and_a_window_of_many_blocks_are_due() {
        let day = |number: i64| hours(24 * number).day();
        let (first, second) = (day(0), day(1));
        for (name, blocks, sealed_to, expected) in [
            ("nothing", vec![], 100, None),
            ("one block is as it should be", vec![(hours(0), 9)], 100, None),
            ("a day that is not over", vec![(hours(0), 9), (hours(2), 9)], 23, None),
            ("a day that is over", vec![(hours(0), 9), (hours(2), 9)], 24, Some((first, vec![0, 1]))),
            (
                "the oldest first",
                vec![(hours(0), 9), (hours(2), 9), (hours(24), 9), (hours(26), 9)],
                100,
                Some((first, vec![0, 1])),
            ),
            ("little came late", vec![(first, 100), (hours(2), 9)], 100, None),
            (
                "much came late",
                vec![(first, 100), (hours(2), 9), (hours(4), 4)],
                100,
                Some((first, vec![0, 1, 2])),
            ),
            (
                "a day that is done, and one that is not",
                vec![(first, 9), (hours(24), 9), (hours(26), 9)],
                100,
                Some((second, vec![1, 2])),
            ),
            (
                "a pile beside a large one",
                vec![
                    (hours(0), 100),
                    (hours(2), 17),
                    (hours(2), 1),
                    (hours(2), 1),
                    (hours(2), 1),
                    (hours(2), 1),
                ],
                10,
                Some((hours(2), vec![2, 3, 4, 5])),
            ),
            ("a small pile", vec![(hours(2), 13), (hours(2), 1), (hours(2), 1), (hours(2), 1)], 10, None),
            (
                "a pile of late ones",
                vec![(first, 1000), (hours(2), 1), (hours(2), 1), (hours(2), 1), (hours(2), 1)],
                100,
                Some((hours(2), vec![1, 2, 3, 4])),
            ),
            ("too large for the room", vec![(hours(0), 1500), (hours(2), 1501)], 100, None),
        ] {
            let blocks = blocks.into_iter().map(|(window, bytes)| block(window, bytes)).collect::<Vec<_>>();
            let sealed_to = Timestamp::from_millis(sealed_to * 3_600_000);
            let due = |skip: &[Window]| due(&blocks, sealed_to, 3000, &skip.iter().copied().collect());
            assert_eq!(due(&[]), expected, "{name}");
            if let Some((window, _)) = expected {
                assert_ne!(due(&[window]).map(|(window, _)| window), Some(window), "{name}, given up");
            }
        }
        assert!(DAY.as_secs().is_multiple_of(WINDOW.as_secs()), "a window lies in one day");
    }
}
