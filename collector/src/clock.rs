//! ⇄ The collector's time, read at the edges only: the wall clock and CLOCK_BOOTTIME, joined by `steady`.
//!
//! One for the process, because there is one pair of clocks. Whatever asks what time it is asks here, so that a wall
//! clock which is set does not reach alerts, incidents, certificates and retention one after the other.

mod steady;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use tocsin_shared::certificate::BACKDATED;
use tocsin_shared::time::Timestamp;

use steady::{Steady, can_be};

/// How long a certificate is let in after its end, at most: clocks differ, and a renewal may be on its way.
const EXPIRY_TOLERANCE: Duration = Duration::from_secs(300);

/// Until when a certificate is let in: a tenth of its life after its end, and five minutes at most.
pub fn tolerated_until(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life = not_after.since(not_before.plus(BACKDATED));
    not_after.plus(EXPIRY_TOLERANCE.min(life / 10))
}
/// Off by more than this, people should know.
const TROUBLE_MS: i64 = 10_000;

static CLOCK: LazyLock<Mutex<Steady>> = LazyLock::new(|| Mutex::new(Steady::new(wall(), boot_ms())));

fn clock() -> MutexGuard<'static, Steady> {
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the system clock says, right or wrong.
pub fn wall() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn boot_ms() -> i64 {
    // Linux has had this clock since 2.6.39.
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    i64::try_from(boot.as_millis()).unwrap_or(i64::MAX)
}

/// The collector's time. It never goes back.
pub fn now() -> Timestamp {
    let mut clock = clock(); // Before the clocks are read: their readings come in order.
    clock.read(wall(), boot_ms())
}

/// The time to judge the end of certificates by; the beginning of time while it is not known, so that none has ended.
pub fn judging() -> Timestamp {
    let now = now();
    if is_known() { now } else { Timestamp::MIN }
}

/// Goes on after the youngest instant of what was stored before this start.
pub fn begin_after(known: Timestamp) {
    clock().begin_after(known, boot_ms());
}

/// Whether the time is known, and not a guess because the system clock says what cannot be.
pub fn is_known() -> bool {
    clock().trusted()
}

/// Whether something may be removed for its age: the time is known, and did not jump far within the last day.
pub fn may_forget() -> bool {
    clock().may_forget(boot_ms())
}

/// How far this time is ahead of the system clock, in milliseconds, and how often it has jumped to it.
pub fn standing() -> (i64, u64) {
    let (now, jumps) = (now(), clock().jumps());
    (now.as_millis().saturating_sub(wall().as_millis()), jumps)
}

/// What people should know of this host's clock, if there is something.
pub fn trouble() -> Option<String> {
    let (wall, now) = (wall(), now());
    let off_by = now.as_millis().saturating_sub(wall.as_millis());
    let way = match (can_be(wall), off_by) {
        (false, _) if is_known() => "which cannot be; the collector counts on from where it was",
        (false, _) => "which cannot be; until it is set, no certificates are issued and none expire",
        (true, off) if off > TROUBLE_MS => "it was set back; the collector runs 1 % slower until they agree",
        (true, off) if off < -TROUBLE_MS => "it was set ahead; the collector follows when it has held still",
        _ => return None,
    };
    Some(format!("this host's clock says {wall}, the collector's time is {now}: {way}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_clock_is_followed() {
        let (before, now) = (wall(), now());
        assert!(now.since(before) < Duration::from_secs(60) && is_known());
        assert_eq!(trouble(), None);
        assert!(judging() >= now);
    }
}
