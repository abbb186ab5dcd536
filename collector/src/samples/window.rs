//! The windows of event time that block files hold: two hours, aligned to the epoch; joined, whole days in UTC.

use std::time::Duration;

use tocsin_shared::time::Timestamp;

/// The span of a block: two hours, as in Prometheus. At 10 s a row it is 720 rows, enough for columns to pack well.
pub const WINDOW: Duration = Duration::from_secs(2 * 3600);

/// The span of a joined block: columns of it pack nearly as well as any longer ones, and what retention deletes is still
/// little of a month.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A stretch of event time, `from` included, `to` not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Window {
    /// The window an instant falls in.
    pub fn of(at: Timestamp) -> Self {
        let from = at.align_down(WINDOW);
        Self { from, to: from.plus(WINDOW) }
    }

    /// The day it begins in.
    pub fn day(self) -> Self {
        let from = self.from.align_down(DAY);
        Self { from, to: from.plus(DAY) }
    }

    /// Whether an instant falls in it.
    pub fn contains(self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_and_left_closed() {
        for (at, from) in [(0, 0), (7_199_999, 0), (7_200_000, 7_200_000), (-1, -7_200_000)] {
            let window = Window::of(Timestamp::from_millis(at));
            assert_eq!(window.from.as_millis(), from, "{at}");
            assert!(window.contains(Timestamp::from_millis(at)));
            assert!(!window.contains(window.to));
            assert!(window.day().from <= window.from && window.to <= window.day().to);
            assert_eq!(window.day().day(), window.day());
        }
    }
}
