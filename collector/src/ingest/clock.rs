//! Event time: what an agent's clocks mean on the collector's.
//!
//! One offset per (agent, boot) turns CLOCK_BOOTTIME into event time. It follows the collector's view of the agent's
//! clock: at most 500 ppm as long as they are near, at once and with an event when they are not. Rows stay on the
//! agent's grid: a mapping within `SNAP` of whole seconds from the row's own wall time is taken as those seconds.

use std::time::Duration;

use tocsin_shared::time::Timestamp;

/// A wall clock this near to the collector's is taken as right. A message is under way this long at most, too.
const TRUSTED_MS: i64 = 1_000;
/// Further than this the offset jumps, with a `host.clock_step` event.
const STEP_MS: i64 = 30_000;
/// How much a row may miss its grid and still be meant to be on it: the jitter of reading two clocks.
const SNAP_MS: i64 = 50;
const SLEW_PER_MILLION: i64 = 500;
/// The same when they are further apart than `TRUSTED_MS`: twice of what the collector's own time may slew by after its
/// clock was set back, so that the offset keeps up with it and never has to step back.
const SLEW_FAR_PER_MILLION: i64 = 20_000;

/// Two clocks of an agent, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub wall: Timestamp,
    pub boot_ms: u64,
}

/// What a reading says of the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The offset now.
    Offset(i64),
    /// It jumped to this.
    Step(i64),
}

/// The offset after a reading that arrived at `received`, `since` after the last one.
pub fn observe(offset: Option<i64>, reading: Reading, received: Timestamp, since: Duration) -> Observed {
    let boot = i64::try_from(reading.boot_ms).unwrap_or(i64::MAX);
    let own = reading.wall.as_millis().saturating_sub(boot);
    let skew = received.as_millis().saturating_sub(reading.wall.as_millis());
    let wanted =
        if skew.saturating_abs() <= TRUSTED_MS { own } else { own.saturating_add(round_to_second(skew)) };
    let Some(offset) = offset else { return Observed::Offset(wanted) };
    let off_by = wanted.saturating_sub(offset);
    if off_by.saturating_abs() > STEP_MS {
        return Observed::Step(wanted);
    }
    let rate = if off_by.saturating_abs() < TRUSTED_MS { SLEW_PER_MILLION } else { SLEW_FAR_PER_MILLION };
    let slew = i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_mul(rate) / 1_000_000;
    Observed::Offset(offset.saturating_add(off_by.clamp(-slew, slew)))
}

/// The event time of a row that carries these clocks, under an offset.
pub fn event_time(offset: i64, row: Reading) -> Timestamp {
    let mapped = i64::try_from(row.boot_ms).unwrap_or(i64::MAX).saturating_add(offset);
    let off_grid = mapped.saturating_sub(row.wall.as_millis());
    let whole = round_to_second(off_grid);
    let near = off_grid.saturating_sub(whole).saturating_abs() <= SNAP_MS;
    Timestamp::from_millis(if near { row.wall.as_millis().saturating_add(whole) } else { mapped })
}

/// The event time of a row of an earlier boot, whose CLOCK_BOOTTIME says nothing any more: its wall time, corrected
/// by what the wall clock is off now.
pub fn event_time_of_earlier_boot(offset: i64, now: Reading, wall: Timestamp) -> Timestamp {
    let boot = i64::try_from(now.boot_ms).unwrap_or(i64::MAX);
    let skew = boot.saturating_add(offset).saturating_sub(now.wall.as_millis());
    Timestamp::from_millis(wall.as_millis().saturating_add(round_to_second(skew)))
}

fn round_to_second(millis: i64) -> i64 {
    millis.saturating_add(500).div_euclid(1000).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: i64, boot_ms: u64) -> Reading {
        Reading { wall: Timestamp::from_millis(wall), boot_ms }
    }

    // Cases: T1, T2, T4
    #[test]
    fn offsets_follow_slowly_and_jump_with_an_event() {
        let minute = Duration::from_secs(60);
        for (offset, wall, boot, received, want, why) in [
            (None, 100_000, 40_000, 100_020, Observed::Offset(60_000), "a right clock is taken as it is"),
            (
                None,
                100_000,
                40_000,
                700_120,
                Observed::Offset(660_000),
                "a wrong one is corrected by whole seconds",
            ),
            (
                Some(60_000),
                100_003,
                40_000,
                100_020,
                Observed::Offset(60_003),
                "a few milliseconds are followed",
            ),
            (Some(60_000), 100_500, 40_000, 100_520, Observed::Offset(60_030), "at most 500 ppm"),
            (
                Some(60_000),
                3_700_000,
                40_000,
                100_020,
                Observed::Offset(60_000),
                "an agent's own step changes nothing",
            ),
            (
                Some(60_000),
                100_000,
                40_000,
                3_700_000,
                Observed::Step(3_660_000),
                "the collector's does, with an event",
            ),
            (
                Some(60_000),
                100_000,
                40_000,
                97_000,
                Observed::Offset(58_800),
                "a collector that runs slower to make up for its clock is kept up with",
            ),
        ] {
            let got = observe(offset, reading(wall, boot), Timestamp::from_millis(received), minute);
            assert_eq!(got, want, "{why}");
        }
    }

    // Cases: T4, T5, T8
    #[test]
    fn rows_stay_on_their_grid() {
        for (offset, wall, boot, want, why) in [
            (60_003, 100_000, 40_000, 100_000, "jitter is not time"),
            (660_000, 100_000, 40_000, 700_000, "a wrong wall clock is corrected"),
            (60_000, 3_700_000, 40_000, 100_000, "a stepped wall clock is not followed"),
            (60_300, 100_000, 40_000, 100_300, "what is no whole second is taken as it is"),
        ] {
            assert_eq!(event_time(offset, reading(wall, boot)).as_millis(), want, "{why}");
        }
        let earlier =
            event_time_of_earlier_boot(660_000, reading(100_000, 40_000), Timestamp::from_millis(50_000));
        assert_eq!(earlier.as_millis(), 650_000);
        let far = reading(i64::MIN, u64::MAX);
        event_time(i64::MAX, far);
        observe(Some(i64::MIN), far, Timestamp::MAX, Duration::MAX);
    }
}
