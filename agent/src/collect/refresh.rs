//! When facts that hardly ever change are read again.

use std::time::Duration;

use tocsin_shared::time::Timestamp;

/// How long a slow fact (a device's address, the list of chips) is kept. Such facts were 29 % of the cost of a
/// collection that read them each time.
pub(crate) const SLOW_FACTS_KEPT: Duration = Duration::from_secs(60);

/// Remembers when something was last read.
#[derive(Debug, Default)]
pub(crate) struct Refresh {
    last: Option<Timestamp>,
}

impl Refresh {
    /// Whether it is time to read again; if so, that counts as done. A clock that went back is a reason, too.
    pub(crate) fn due(&mut self, now: Timestamp) -> bool {
        let fresh = self.last.is_some_and(|last| last <= now && now.since(last) < SLOW_FACTS_KEPT);
        if !fresh {
            self.last = Some(now);
        }
        !fresh
    }

    /// Makes the next question come out true.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_again_after_a_minute_or_when_the_clock_goes_back() {
        let mut refresh = Refresh::default();
        for (second, due) in [(100, true), (110, false), (159, false), (160, true), (161, false), (90, true)]
        {
            assert_eq!(refresh.due(Timestamp::from_millis(second * 1000)), due, "at {second} s");
        }
        refresh.forget();
        assert!(refresh.due(Timestamp::from_millis(91_000)));
    }
}
