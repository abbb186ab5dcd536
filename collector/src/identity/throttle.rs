//! How often strangers may ask for an identity: enrolments and recoveries.
//!
//! Pure: told `now`, a time since any fixed moment. Promises: an address gets one a second and all together twenty; an
//! address that shows five bad tokens or proofs within an hour gets nothing for ten minutes. This very host is free,
//! for proxies stand on it. Bounded: the address that was not heard of for the longest is forgotten first.

use std::collections::HashMap;
use std::time::Duration;

use crate::listen::limits::Origin;

/// Between two enrolments of one address, and how many it may save up: a person who corrects a mistake.
const PER_ORIGIN: Duration = Duration::from_secs(1);
const ORIGIN_BURST: u32 = 3;
/// Between two enrolments of anyone: each costs a signature and a write to disk.
const GLOBAL: Duration = Duration::from_millis(50);
const GLOBAL_BURST: u32 = 20;
/// What is guessing and how long it is stopped.
const BAD_MAX: u32 = 5;
const BAD_WITHIN: Duration = Duration::from_secs(3600);
const BLOCKED_FOR: Duration = Duration::from_secs(600);
/// Addresses that are remembered: with the global limit, three minutes' worth of them.
const ORIGINS_MAX: usize = 4096;

/// Why an attempt has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    #[error("this address enrols too often: try again in {} s", seconds(.0))]
    Origin(Duration),
    #[error("too many hosts enrol at once: try again in {} s", seconds(.0))]
    Global(Duration),
    #[error("this address showed too many bad tokens: try again in {} s", seconds(.0))]
    Blocked(Duration),
}

fn seconds(wait: &Duration) -> u64 {
    wait.as_secs() + 1
}

/// A bucket that fills by one each `every`, kept as the moment at which it would be full.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes one, or says how long to wait.
    fn take(&mut self, every: Duration, burst: u32, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + every;
        let ahead = full_at - now;
        if ahead > every * burst {
            return Err(ahead - every * burst);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    bucket: Bucket,
    heard_at: Duration,
    bad: u32,
    bad_since: Duration,
    blocked_until: Duration,
}

/// What is known of who asked.
#[derive(Debug, Default)]
pub struct Throttle {
    global: Bucket,
    origins: HashMap<Origin, Known>,
}

impl Throttle {
    /// Whether this origin may try now.
    pub fn admit(&mut self, origin: Origin, now: Duration) -> Result<(), Wait> {
        if origin.is_loopback() {
            return Ok(());
        }
        let known = self.known(origin, now);
        if now < known.blocked_until {
            return Err(Wait::Blocked(known.blocked_until - now));
        }
        known.bucket.take(PER_ORIGIN, ORIGIN_BURST, now).map_err(Wait::Origin)?;
        self.global.take(GLOBAL, GLOBAL_BURST, now).map_err(Wait::Global)
    }

    /// The attempt showed a token or a proof that was no good.
    pub fn bad(&mut self, origin: Origin, now: Duration) {
        if origin.is_loopback() {
            return;
        }
        let known = self.known(origin, now);
        if known.bad == 0 || now.saturating_sub(known.bad_since) > BAD_WITHIN {
            (known.bad, known.bad_since) = (0, now);
        }
        known.bad += 1;
        if known.bad >= BAD_MAX {
            (known.bad, known.blocked_until) = (0, now + BLOCKED_FOR);
        }
    }

    fn known(&mut self, origin: Origin, now: Duration) -> &mut Known {
        if self.origins.len() >= ORIGINS_MAX && !self.origins.contains_key(&origin) {
            // Who is blocked was heard of last when it was blocked, so that a flood of others takes time to hide it.
            let oldest = self.origins.iter().min_by_key(|(_, known)| known.heard_at.max(known.blocked_until));
            if let Some(oldest) = oldest.map(|(origin, _)| *origin) {
                self.origins.remove(&oldest);
            }
        }
        let known = self.origins.entry(origin).or_default();
        known.heard_at = now;
        known
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::listen::limits::origin;

    fn address(n: u32) -> Origin {
        origin(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)))
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    // Cases: I10
    #[test]
    fn an_address_enrols_once_a_second_and_all_together_twenty_times() {
        let mut throttle = Throttle::default();
        let one = |throttle: &mut Throttle, at| throttle.admit(address(1), ms(at));
        for (at, expected) in [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(Wait::Origin(ms(1_000)))),
            (999, Err(Wait::Origin(ms(1)))),
            (1_000, Ok(())),
            (1_500, Err(Wait::Origin(ms(500)))),
        ] {
            assert_eq!(one(&mut throttle, at), expected, "at {at} ms");
        }
        let mut throttle = Throttle::default();
        let admitted = |throttle: &mut Throttle, from: u32, at| {
            (from..from + 100).filter(|n| throttle.admit(address(*n), at).is_ok()).count()
        };
        assert_eq!(admitted(&mut throttle, 0, ms(0)), 20);
        assert_eq!(admitted(&mut throttle, 100, ms(1_000)), 20, "2,000 hosts of one image take 100 s");
        assert_eq!(admitted(&mut throttle, 200, ms(1_100)), 2);
        let local = origin(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!((0..1_000).all(|_| throttle.admit(local, ms(1_100)).is_ok()), "this host is free");
    }

    // Cases: I10
    #[test]
    fn who_guesses_waits() {
        for (bad_at, asks_at, blocked, why) in [
            (&[0, 1, 2, 3][..], 4, false, "four mistakes"),
            (&[0, 1, 2, 3, 4], 5, true, "five mistakes"),
            (&[0, 1, 2, 3, 4], 603, true, "for ten minutes"),
            (&[0, 1, 2, 3, 4], 604, false, "and no longer"),
            (&[0, 1_000, 2_000, 3_000, 3_601], 3_602, false, "not five within an hour"),
        ] {
            let mut throttle = Throttle::default();
            bad_at.iter().for_each(|at| throttle.bad(address(1), Duration::from_secs(*at)));
            let asked = throttle.admit(address(1), Duration::from_secs(asks_at));
            assert_eq!(matches!(asked, Err(Wait::Blocked(_))), blocked, "{why}: {asked:?}");
            assert!(
                throttle.admit(address(2), Duration::from_secs(asks_at)).is_ok(),
                "{why}: another address"
            );
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut throttle = Throttle::default();
        (0..5).for_each(|_| throttle.bad(address(0), ms(0)));
        (1..10_000).for_each(|n| throttle.bad(address(n), ms(u64::from(n))));
        assert_eq!(throttle.origins.len(), ORIGINS_MAX);
        assert!(throttle.admit(address(0), ms(10_000)).is_err(), "who is blocked is not pushed out");
    }
}
