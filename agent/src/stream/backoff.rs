//! How long to wait before the next attempt. Pure: the random number is handed in.
//!
//! Full jitter, so that a fleet whose collector restarted does not come back at one moment: a wait is anything
//! between a second and a ceiling that doubles with each failure. A connection counts as good only after a minute:
//! a link that flaps is not hammered. A refusal by name (revoked, unknown) is waited out longer; nothing ends trying.

use std::time::Duration;

/// The shortest wait, and the first ceiling.
const FIRST: Duration = Duration::from_secs(1);
/// The ceiling when the collector cannot be reached. A collector that has started again waits a little longer than this
/// before it calls hosts unreachable; 10,000 agents come back at 670 connections a second.
const CEILING: Duration = Duration::from_secs(30);
/// The ceiling when it can, and does not want us.
const CEILING_REFUSED: Duration = Duration::from_secs(600);
/// A connection that lasted this long was a good one.
const STABLE: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Forgets the failures if the connection that ended now was a good one.
    pub(crate) fn ended_after(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.failures = 0;
        }
    }

    /// The wait after one more failure; `random` is from 0 to 1.
    pub(crate) fn next(&mut self, refused: bool, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let most = if refused { CEILING_REFUSED } else { CEILING };
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(most);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        FIRST + (ceiling - FIRST).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: I9, N9
    #[test]
    fn waits_grow_to_their_ceiling_and_start_again_after_a_good_connection() {
        let secs = |waits: &[u64]| waits.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        for (refused, random, waits) in [
            (false, 1.0, secs(&[2, 4, 8, 16, 30, 30])),
            (true, 1.0, secs(&[2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600])),
            (false, 0.0, secs(&[1, 1, 1, 1])),
            (true, f64::NAN, secs(&[2, 4])),
        ] {
            let mut backoff = Backoff::default();
            let got: Vec<_> = waits.iter().map(|_| backoff.next(refused, random)).collect();
            assert_eq!(got, waits, "refused {refused}, random {random}");
        }
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(false, 1.0);
        }
        backoff.ended_after(Duration::from_secs(59));
        assert_eq!(backoff.next(false, 1.0), Duration::from_secs(30), "a link that flaps is not hammered");
        backoff.ended_after(STABLE);
        assert_eq!(backoff.next(false, 1.0), Duration::from_secs(2));
        for _ in 0..100 {
            assert!(backoff.next(true, 1.0) <= CEILING_REFUSED);
        }
    }
}
