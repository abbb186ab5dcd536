//! How long an agent waits before it connects again. Pure: the random number is handed in.
//!
//! Full jitter, so that a fleet whose collector restarted does not come back at one moment: a wait is anything
//! between a second and a ceiling that doubles with each failure. A connection counts as good only after most of a
//! minute: one that ended sooner does not make the waits short again, and the next handshake comes at the earliest ten seconds
//! after its own, so that a link that flaps costs neither end much. A refusal by name (revoked, unknown) is waited out
//! longer. What the collector asks for is waited in addition. Nothing ends trying, and no wait is longer than ten minutes.

use std::time::Duration;

/// The shortest wait, and the first ceiling.
const FIRST: Duration = Duration::from_secs(1);
/// The ceiling when the collector cannot be reached. A collector that has started again waits a little longer than this
/// before it calls hosts unreachable; 10,000 agents come back at 670 connections a second.
const CEILING: Duration = Duration::from_secs(30);
/// The ceiling when it can, and does not want us; and for what it may ask for.
const CEILING_REFUSED: Duration = Duration::from_secs(600);
/// A connection that lasted this long was a good one. Balancers end connections after a minute; what is left of that
/// after the handshake is a little less, and an agent that took it for a failure would soon count as unreachable.
const STABLE: Duration = Duration::from_secs(45);
/// From one handshake to the next when the connection between was none that lasted.
const HANDSHAKES_APART: Duration = Duration::from_secs(10);

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// How long the connection was open after its handshake; none if there was no handshake.
    pub lasted: Option<Duration>,
    /// Whether the collector is there and does not want us, so that asking often is of no use.
    pub refused: bool,
    /// How long the collector asked us to stay away.
    pub asked: Option<Duration>,
}

impl Backoff {
    /// The wait after one more attempt; `random` is from 0 to 1.
    pub fn next(&mut self, attempt: Attempt, random: f64) -> Duration {
        let Attempt { lasted, refused, asked } = attempt;
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let most = if refused { CEILING_REFUSED } else { CEILING };
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(most);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        let wait = FIRST + (ceiling - FIRST).mul_f64(random) + asked.unwrap_or_default().min(CEILING_REFUSED);
        let apart = lasted.map_or(Duration::ZERO, |lasted| HANDSHAKES_APART.saturating_sub(lasted));
        wait.max(apart).min(CEILING_REFUSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn lasted(seconds: u32) -> Attempt {
        Attempt { lasted: Some(S * seconds), ..Attempt::default() }
    }

    // Cases: N18, N19, C-A9
    #[test]
    fn waits_grow_to_their_ceiling_and_nothing_ends_trying() {
        let secs = |waits: &[u32]| waits.iter().map(|s| S * *s).collect::<Vec<_>>();
        let refused = Attempt { refused: true, ..Attempt::default() };
        for (attempt, random, waits) in [
            (Attempt::default(), 1.0, secs(&[2, 4, 8, 16, 30, 30])),
            (refused, 1.0, secs(&[2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600])),
            (Attempt::default(), 0.0, secs(&[1, 1, 1, 1])),
            (refused, f64::NAN, secs(&[2, 4])),
            (lasted(45), 1.0, secs(&[2, 2, 2])),
            (lasted(44), 1.0, secs(&[2, 4, 8])),
            (lasted(3), 0.0, secs(&[7, 7, 7])),
            (lasted(0), 1.0, secs(&[10, 10, 10, 16])),
        ] {
            let mut backoff = Backoff::default();
            let got: Vec<_> = waits.iter().map(|_| backoff.next(attempt, random)).collect();
            assert_eq!(got, waits, "{attempt:?}, random {random}");
        }
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(refused, 1.0), CEILING_REFUSED);
    }

    // Cases: N19
    #[test]
    fn what_the_collector_asks_for_is_waited_in_addition() {
        for (asked, random, wait) in [(30, 0.0, 31), (30, 1.0, 32), (100_000, 1.0, 600)] {
            let attempt = Attempt { asked: Some(S * asked), ..lasted(60) };
            assert_eq!(Backoff::default().next(attempt, random), S * wait, "{asked}, {random}");
        }
    }

    // Cases: N9
    #[test]
    fn a_link_that_flaps_for_half_an_hour_costs_a_handshake_in_ten_seconds_at_most() {
        // Up for two seconds, down for two: an attempt in the down phase finds nobody, one in the up phase is cut.
        let (mut backoff, mut now, mut seed) = (Backoff::default(), Duration::ZERO, 7_u64);
        let mut handshakes: Vec<Duration> = Vec::new();
        while now < S * 1800 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = f64::from(u32::try_from(seed >> 32).unwrap()) / f64::from(u32::MAX);
            let phase = Duration::from_millis(u64::try_from(now.as_millis() % 4_000).unwrap());
            let attempt = if phase < S * 2 {
                handshakes.push(now);
                let lasted = S * 2 - phase;
                now += lasted;
                Attempt { lasted: Some(lasted), ..Attempt::default() }
            } else {
                Attempt::default()
            };
            now += backoff.next(attempt, random);
        }
        let near = handshakes.windows(2).find(|pair| pair[1] - pair[0] < S * 10);
        assert_eq!(near, None);
        assert!((30..=180).contains(&handshakes.len()), "{} handshakes", handshakes.len());
    }
}
