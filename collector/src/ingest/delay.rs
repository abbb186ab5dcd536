//! Whether a reading of an agent's clocks came at once, or lay about on its way.
//!
//! A reading that waited (behind rows on a narrow link, in front of a collector that stood still, in a partition that
//! healed) looks like a clock that is wrong. But CLOCK_BOOTTIME on the host and the collector's monotonic clock run
//! alike, so one that took longer than the quickest so far shows it, whatever the wall clocks do.

use std::time::Duration;

/// What a message may take longer than the quickest and still tell the time.
const LATE_MS: i64 = 1_000;
/// How much faster than ours the host's clock may run for ever: twice what NTP lets a clock be slewed.
const DRIFT_PER_MILLION: i64 = 1_000;

/// What a reading is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It came at once.
    Timely,
    /// It came at once, and all before it lay about.
    Better,
    /// It lay about.
    None,
}

/// The quickest way of a reading so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delays {
    /// Our moment of arrival minus the host's boot time, at the quickest, in milliseconds.
    least: i64,
    /// When it was looked at last.
    at: i64,
}

impl Delays {
    /// A session whose first reading came at `at`, measured from any moment.
    pub(super) fn new(at: Duration, boot_ms: u64) -> Self {
        let at = millis(at.as_millis());
        Self { least: at.saturating_sub(millis(boot_ms.into())), at }
    }

    /// Takes a reading.
    pub(super) fn take(&mut self, at: Duration, boot_ms: u64) -> Worth {
        let at = millis(at.as_millis());
        let drift = at.saturating_sub(self.at).saturating_mul(DRIFT_PER_MILLION) / 1_000_000;
        let took = at.saturating_sub(millis(boot_ms.into()));
        let longest = self.least.saturating_add(drift);
        let quicker = self.least.saturating_sub(took);
        (self.at, self.least) = (at, took.min(longest));
        match took.saturating_sub(longest) {
            late if late > LATE_MS => Worth::None,
            _ if quicker > LATE_MS / 2 => Worth::Better,
            _ => Worth::Timely,
        }
    }
}

fn millis(millis: u128) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: N7, N16, T4
    #[test]
    fn a_reading_that_lay_about_tells_no_time() {
        // Seconds of arrival and of the host's boot time.
        for (readings, timely, why) in [
            (&[(10.0, 110.0), (15.0, 115.0), (20.9, 120.0)][..], "yy", "jitter"),
            (&[(10.0, 110.0), (48.0, 115.0), (48.0, 120.0), (48.1, 148.0)], "nny", "a standstill of 33 s"),
            (&[(10.0, 110.0), (15.0, 110.5), (20.0, 120.0)], "ny", "it waited behind a batch"),
            (&[(40.0, 110.0), (40.1, 140.0), (45.0, 145.0)], "by", "only the first one waited"),
            (
                &[(10.0, 110.0), (3_000.0, 3_098.0), (6_000.0, 6_096.0)],
                "yy",
                "a clock that runs 670 ppm slow",
            ),
            (&[(10.0, 110.0), (15.0, 3_715.0), (20.0, 3_720.0)], "by", "the collector slept for an hour"),
            (&[(10.0, 110.0), (15.0, 115.0), (16.0, 0.0)], "yn", "of nowhere"),
        ] {
            let ms = |seconds: f64| Duration::from_secs_f64(seconds);
            let boot = |seconds: f64| u64::try_from(ms(seconds).as_millis()).unwrap();
            let mut delays = Delays::new(ms(readings[0].0), boot(readings[0].1));
            let said: String = readings[1..]
                .iter()
                .map(|(at, of)| match delays.take(ms(*at), boot(*of)) {
                    Worth::Timely => 'y',
                    Worth::Better => 'b',
                    Worth::None => 'n',
                })
                .collect();
            assert_eq!(said, timely, "{why}");
        }
        let mut far = Delays::new(Duration::MAX, u64::MAX);
        far.take(Duration::ZERO, u64::MAX);
        far.take(Duration::MAX, 0);
    }
}
