//! ⇄ When a row is taken: on the wall clock's grid, by a clock that suspend does not stop.
//!
//! `Grid` is pure: handed both clocks' readings, it says which row is due. Promises: rows of an undisturbed clock are
//! exactly one interval apart in both clocks, whenever the thread really woke; missed ticks are skipped; a row is
//! never older on CLOCK_BOOTTIME than the row before it. A wall clock that jumps by 50 ms or more against
//! CLOCK_BOOTTIME and is still there at the next tick was set: that is told, and starts a new grid. Until then, and for
//! as long as it jumps to and fro, rows stay on the grid that they were on. One that drifts slowly moves it silently.
//! The thread at the end sleeps, reads the clocks, collects, and hands on. It ends at the tick after its receiver did.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use crate::collect::Collector;

/// A wall clock that differs by this much from what CLOCK_BOOTTIME says it is, was set.
const STEP_MS: i64 = 50;
/// A gap of more ticks than this between two rows is told: fewer are a busy host.
const MISSED_TOLD: u32 = 3;
/// How fast a wall clock may be slewed: Linux allows 500 parts in a million.
const SLEW_PARTS: i64 = 2000;

/// Both clocks at one moment, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub wall: Timestamp,
    /// CLOCK_BOOTTIME.
    pub boot_ms: u64,
}

impl Reading {
    /// The clocks now.
    pub fn now() -> Self {
        let wall = Timestamp::from_system(SystemTime::now());
        // Linux has had this clock since 2.6.39; without it a row says when it was taken by the wall clock alone.
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self { wall, boot_ms: u64::try_from(boot.as_millis()).unwrap_or(u64::MAX) }
    }

    fn difference(self) -> i64 {
        self.wall.as_millis().saturating_sub(self.boot())
    }

    fn boot(self) -> i64 {
        i64::try_from(self.boot_ms).unwrap_or(i64::MAX)
    }
}

/// The grid that rows are on.
#[derive(Clone, Debug)]
pub struct Grid {
    interval: Duration,
    /// Wall less boot, as rows are stamped.
    anchor: i64,
    /// The same when it was last followed, and when that was.
    seen: (i64, i64),
    /// Where the wall clock jumped to at the last reading.
    jumped_to: Option<i64>,
    /// The grid time that is due next.
    next: Timestamp,
    last_boot: i64,
}

/// What a moment brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The row to take now, stamped on the grid.
    pub row: Option<Reading>,
    /// How far the wall clock was set before the last reading, in milliseconds.
    pub step_ms: Option<i64>,
}

impl Grid {
    /// A grid that begins after `now`. The interval is at least a millisecond.
    pub fn new(interval: Duration, now: Reading) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let anchor = now.difference();
        let next = now.wall.align_down(interval).plus(interval);
        Self { interval, anchor, seen: (anchor, now.boot()), jumped_to: None, next, last_boot: i64::MIN }
    }

    /// The CLOCK_BOOTTIME at which the next row is due.
    pub fn next_boot_ms(&self) -> u64 {
        u64::try_from(self.next.as_millis().saturating_sub(self.anchor)).unwrap_or(0)
    }

    /// What is due at this moment. Nothing before `next_boot_ms`, unless the clock was set.
    pub fn due(&mut self, now: Reading) -> Due {
        let difference = now.difference();
        let allowed = STEP_MS.max(now.boot().saturating_sub(self.seen.1) / SLEW_PARTS);
        let jump = difference.saturating_sub(self.seen.0);
        let jumped = jump.saturating_abs() >= allowed;
        let before = std::mem::replace(&mut self.jumped_to, jumped.then_some(difference));
        let held = before.is_some_and(|to| difference.saturating_sub(to).saturating_abs() < STEP_MS);
        let step_ms = (jumped && held).then_some(jump);
        if !jumped || held {
            self.seen = (difference, now.boot());
            self.jumped_to = None;
            if step_ms.is_some() || difference.saturating_sub(self.anchor).saturating_abs() >= STEP_MS {
                self.anchor = difference;
                self.next = now.wall.align_down(self.interval);
            }
        }
        let on_grid = now.boot().saturating_add(self.anchor);
        let row = self.row(Timestamp::from_millis(on_grid));
        Due { row, step_ms }
    }

    fn row(&mut self, now: Timestamp) -> Option<Reading> {
        if now < self.next {
            return None;
        }
        let wall = now.align_down(self.interval);
        self.next = wall.plus(self.interval);
        let boot = wall.as_millis().saturating_sub(self.anchor);
        if boot <= self.last_boot {
            return None;
        }
        self.last_boot = boot;
        Some(Reading { wall, boot_ms: u64::try_from(boot).ok()? })
    }
}

/// What a tick hands on.
#[derive(Debug)]
pub enum Ticked {
    Row {
        at: Reading,
        series: Arc<[Labels]>,
        values: Vec<f64>,
    },
    ClockStep {
        at: Reading,
        step_ms: i64,
    },
    /// No row was taken for this long before `at`, in milliseconds: the host slept, or the agent was stopped.
    Missed {
        at: Reading,
        gap_ms: i64,
    },
}

/// How long no row was taken before this one, if that is worth telling; `last_boot_ms` is of the row before.
fn missed(interval: Duration, last_boot_ms: Option<u64>, row: Reading) -> Option<i64> {
    let gap = Duration::from_millis(row.boot_ms.saturating_sub(last_boot_ms?));
    (gap > interval.saturating_mul(MISSED_TOLD)).then(|| i64::try_from(gap.as_millis()).unwrap_or(i64::MAX))
}

/// Collects on the grid until `hand_on` says that nobody listens any more. `extras` adds the agent's own series.
pub fn run(
    interval: Duration,
    mut collector: Collector,
    mut extras: impl FnMut(&mut Collector),
    mut hand_on: impl FnMut(Ticked) -> bool,
) {
    let mut grid = Grid::new(interval, Reading::now());
    let (mut took, mut last_boot_ms) = (Duration::ZERO, None);
    loop {
        sleep_until(grid.next_boot_ms());
        let now = Reading::now();
        let Due { row, step_ms } = grid.due(now);
        let mut goes_on = true;
        if let Some(step_ms) = step_ms {
            tracing::info!(step_ms, "the wall clock was set");
            goes_on = hand_on(Ticked::ClockStep { at: now, step_ms });
        }
        if let Some(at) = row {
            if let Some(gap_ms) = missed(interval, last_boot_ms.replace(at.boot_ms), at) {
                tracing::info!(gap_ms, "no rows were taken for a while");
                goes_on &= hand_on(Ticked::Missed { at, gap_ms });
            }
            let begun = Instant::now();
            // In steps of a tenth of a millisecond, as every duration that a row carries.
            collector.extra("tocsin_agent_collect_seconds", &[], (took.as_secs_f64() * 1e4).round() / 1e4);
            extras(&mut collector);
            let tick = collector.collect(at.wall);
            let (series, values) = (Arc::clone(&tick.series), tick.values.clone());
            took = begun.elapsed();
            goes_on &= hand_on(Ticked::Row { at, series, values });
        }
        if !goes_on {
            return;
        }
    }
}

/// Waits for a moment of CLOCK_BOOTTIME; at once after a suspend that went past it.
fn sleep_until(boot_ms: u64) {
    let until = TimeSpec::from(Duration::from_millis(boot_ms));
    // A signal only wakes us early; the grid then says that nothing is due.
    clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &until).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_795_428_770_000;

    fn at(wall: i64, boot: u64) -> Reading {
        Reading { wall: Timestamp::from_millis(START + wall), boot_ms: boot }
    }

    // Cases: T4, T7, N17
    #[test]
    fn rows_are_on_the_grid() {
        // Interval 10 s; the grid begins at wall +3 s, boot 1 s: the anchor is START + 2 s.
        type Row = Option<(i64, u64)>;
        type Moment = (i64, u64, Row, Option<i64>);
        let table: [(&str, &[Moment]); 7] = [
            (
                "late by 3 and by 40 ms: no jitter",
                &[
                    (10_003, 8_003, Some((10_000, 8_000)), None),
                    (20_040, 18_040, Some((20_000, 18_000)), None),
                ],
            ),
            ("woken early", &[(9_999, 7_999, None, None), (10_000, 8_000, Some((10_000, 8_000)), None)]),
            (
                "missed ticks are skipped",
                &[
                    (47_000, 45_000, Some((40_000, 38_000)), None),
                    (50_001, 48_001, Some((50_000, 48_000)), None),
                ],
            ),
            ("suspended for an hour", &[(3_610_000, 3_608_000, Some((3_610_000, 3_608_000)), None)]),
            (
                "set forward an hour",
                &[
                    (10_000, 8_000, Some((10_000, 8_000)), None),
                    (3_620_500, 18_500, Some((20_000, 18_000)), None),
                    (3_630_000, 28_000, Some((3_630_000, 28_000)), Some(3_600_000)),
                    (3_640_000, 38_000, Some((3_640_000, 38_000)), None),
                ],
            ),
            (
                "set back: boot time goes on",
                &[
                    (10_000, 8_000, Some((10_000, 8_000)), None),
                    (-3_580_500, 17_500, None, None),
                    (-3_580_000, 18_000, Some((-3_580_000, 18_000)), Some(-3_600_000)),
                    (-3_570_000, 28_000, Some((-3_570_000, 28_000)), None),
                ],
            ),
            (
                "slewed 5 ms a tick: silent, and one row moves at 50 ms",
                &[
                    (10_005, 8_000, Some((10_000, 8_000)), None),
                    (20_030, 18_000, Some((20_000, 18_000)), None),
                    (30_055, 28_000, Some((30_000, 27_945)), None),
                ],
            ),
        ];
        for (name, moments) in table {
            let mut grid = Grid::new(Duration::from_secs(10), at(3_000, 1_000));
            assert_eq!(grid.next_boot_ms(), 8_000);
            for (wall, boot, row, step_ms) in moments {
                let row = row.map(|(wall, boot)| at(wall, boot));
                assert_eq!(grid.due(at(*wall, *boot)), Due { row, step_ms: *step_ms }, "{name}, at {wall}");
            }
        }
    }

    // Cases: N17, T7
    #[test]
    fn a_long_sleep_is_told_and_a_busy_host_is_not() {
        let interval = Duration::from_secs(10);
        for (last, boot, told) in [
            (None, 90_000, None),
            (Some(60_000), 90_000, None),
            (Some(60_000), 100_000, Some(40_000)),
            (Some(60_000), 60_000 + 8 * 3_600_000, Some(8 * 3_600_000)),
            (Some(90_000), 60_000, None),
        ] {
            assert_eq!(missed(interval, last, at(boot as i64, boot)), told, "{last:?} {boot}");
        }
    }

    // Cases: T5
    #[test]
    fn a_clock_set_back_and_forth_gives_every_row_and_no_step() {
        let mut grid = Grid::new(Duration::from_secs(10), at(0, 0));
        for tick in 1..100u32 {
            let (wall, boot) = (i64::from(tick) * 10_000, u64::from(tick) * 10_000);
            let jump = if tick % 2 == 0 { 4_000 } else { -4_000 };
            assert_eq!(grid.due(at(wall + jump, boot)), Due { row: Some(at(wall, boot)), step_ms: None });
        }
    }

    // Cases: T3, T8
    #[test]
    fn absurd_clocks_are_harmless() {
        for wall in [i64::MIN, -1, 0, i64::MAX] {
            for boot_ms in [0, u64::MAX] {
                let now = Reading { wall: Timestamp::from_millis(wall), boot_ms };
                let mut grid = Grid::new(Duration::from_secs(10), now);
                grid.due(Reading::default());
                grid.due(now);
                grid.next_boot_ms();
            }
        }
    }

    #[test]
    fn a_row_is_collected_when_it_is_due() {
        let root = tempfile::tempdir().unwrap();
        let config = crate::collect::Config { root: root.path().to_owned(), ..Default::default() };
        let mut got = None;
        let extras = |collector: &mut Collector| collector.extra("tocsin_agent_session_connected", &[], 1.0);
        run(Duration::from_millis(1), Collector::new(config), extras, |ticked| {
            got = Some(ticked);
            false
        });
        let Some(Ticked::Row { series, values, .. }) = got else { panic!("no row: {got:?}") };
        assert_eq!(series.len(), values.len());
        for name in ["tocsin_agent_collect_seconds", "tocsin_agent_session_connected"] {
            assert!(series.iter().any(|labels| labels.metric() == name), "{name}");
        }
    }
}
