//! One time for the collector, made of two clocks: CLOCK_BOOTTIME says how fast, the wall clock says where.
//!
//! Pure: both readings are handed in. Promises: it never goes back, not over a restart either (`begin_after`); a wall
//! clock that is set, strobes or says what cannot be moves nothing until it has held still for as long as its jump
//! deserves. Then a wall clock that is ahead is followed at once, and one that is behind by running 1 % slower:
//! what waits for time to pass waits a hundredth longer, nothing happens twice and no row comes before the last one.
//! Not here: who reads the clocks (`clock`), and what an agent's clocks mean (`ingest::clock`).

use std::time::Duration;

use tocsin_shared::time::{RELEASED, Timestamp};

/// Nearer than this the wall clock is not set but drifts; it is followed by slewing.
const NEAR_MS: i64 = 1_000;
/// How much slower or faster for a wall clock that is near: what NTP allows itself.
const SLEW_NEAR: i64 = 500;
/// How much slower for a wall clock that was set back: an hour is made up in four days, and no rule notices.
const SLEW_FAR: i64 = 10_000;
/// A wall clock must hold still for a sixtieth of its jump, within these bounds: who mistypes a date mends it in
/// minutes, and what the mistake would start (certificates that run out, old samples that go) can't be taken back.
const SETTLE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// After a jump further than this, nothing is removed for its age for so long: time for a person to see it.
const FAR_JUMP: Duration = Duration::from_secs(3_600);
const KEEP_AFTER_JUMP: Duration = Duration::from_secs(86_400);
/// No installation is in use longer after its release than this; a clock that says so is wrong.
const LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);

/// The collector's time. All spans are of CLOCK_BOOTTIME.
#[derive(Clone, Debug)]
pub(super) struct Steady {
    /// This time less CLOCK_BOOTTIME, in milliseconds.
    offset: i64,
    /// What was given last.
    last: i64,
    /// Up to when slewing was done, on CLOCK_BOOTTIME.
    slewed: i64,
    /// Where a wall clock that was set wants to be, since when, and whether it has held still for long enough.
    set: Option<Set>,
    /// Whether the wall clock ever said what can be: before that, this is a guess.
    trusted: bool,
    /// Until when on CLOCK_BOOTTIME nothing goes for its age.
    keep_until: i64,
    jumps: u64,
}

#[derive(Clone, Copy, Debug)]
struct Set {
    offset: i64,
    since: i64,
    settled: bool,
}

/// Whether a wall clock can be right: not before this program was written, nor decades after.
pub(super) fn can_be(wall: Timestamp) -> bool {
    RELEASED <= wall && wall < RELEASED.plus(LIFE)
}

impl Steady {
    /// Begins at the wall clock; at the release of this program when that is wrong.
    pub(super) fn new(wall: Timestamp, boot_ms: i64) -> Self {
        let trusted = can_be(wall);
        let begin = if trusted { wall } else { RELEASED }.as_millis();
        Self {
            offset: begin.saturating_sub(boot_ms),
            last: begin,
            slewed: boot_ms,
            set: None,
            trusted,
            keep_until: boot_ms,
            jumps: 0,
        }
    }

    /// Goes on after `known`, the youngest instant of what was stored before, if the clock is not later anyway.
    pub(super) fn begin_after(&mut self, known: Timestamp, boot_ms: i64) {
        // A collector that was down for a while finds a clock far ahead of its samples: it may be wrong.
        if self.trusted && self.last.saturating_sub(known.as_millis()) > millis(FAR_JUMP) {
            self.keep_for_now(boot_ms);
        }
        if can_be(known) && known.as_millis() > self.last {
            self.offset = known.as_millis().saturating_sub(boot_ms);
            self.last = known.as_millis();
        }
    }

    /// The time at this reading of both clocks.
    pub(super) fn read(&mut self, wall: Timestamp, boot_ms: i64) -> Timestamp {
        if can_be(wall) {
            self.follow(wall.as_millis().saturating_sub(boot_ms), boot_ms);
        } else {
            self.set = None;
            self.slewed = boot_ms;
        }
        self.last = self.last.max(boot_ms.saturating_add(self.offset));
        Timestamp::from_millis(self.last)
    }

    fn follow(&mut self, wanted: i64, boot_ms: i64) {
        let off_by = wanted.saturating_sub(self.offset);
        if off_by.saturating_abs() <= NEAR_MS {
            (self.set, self.trusted) = (None, true);
            return self.slew(off_by, SLEW_NEAR, boot_ms);
        }
        let held = self.set.filter(|set| set.offset.saturating_sub(wanted).saturating_abs() <= NEAR_MS);
        let set = held.unwrap_or(Set { offset: wanted, since: boot_ms, settled: false });
        let deserved = Duration::from_millis(off_by.unsigned_abs() / 60).clamp(SETTLE.0, SETTLE.1);
        // Before any right time was known there is nothing to lose by believing the first one.
        let deserved = if self.trusted { deserved } else { SETTLE.0 };
        let settled = set.settled || boot_ms.saturating_sub(set.since) >= millis(deserved);
        self.set = Some(Set { settled, ..set });
        match settled {
            false => self.slewed = boot_ms,
            true if off_by > 0 => self.jump(wanted, boot_ms),
            true => {
                self.trusted = true;
                self.slew(off_by, SLEW_FAR, boot_ms);
            }
        }
    }

    fn jump(&mut self, wanted: i64, boot_ms: i64) {
        if self.trusted && wanted.saturating_sub(self.offset) > millis(FAR_JUMP) {
            self.keep_for_now(boot_ms);
        }
        (self.offset, self.slewed, self.set, self.trusted) = (wanted, boot_ms, None, true);
        self.jumps += 1;
    }

    fn keep_for_now(&mut self, boot_ms: i64) {
        self.keep_until = boot_ms.saturating_add(millis(KEEP_AFTER_JUMP));
    }

    /// Moves towards the wall clock by so many millionths of the time that went by.
    fn slew(&mut self, off_by: i64, per_million: i64, boot_ms: i64) {
        let gone = boot_ms.saturating_sub(self.slewed).max(0);
        let allowed = gone.saturating_mul(per_million) / 1_000_000;
        if allowed > 0 {
            self.offset = self.offset.saturating_add(off_by.clamp(-allowed, allowed));
            self.slewed = boot_ms; // What is below a millisecond waits for the next time.
        }
    }

    /// Whether the wall clock ever said what can be.
    pub(super) fn trusted(&self) -> bool {
        self.trusted
    }

    /// Whether something may be removed for its age.
    pub(super) fn may_forget(&self, boot_ms: i64) -> bool {
        self.trusted && boot_ms >= self.keep_until && self.set.is_none()
    }

    /// How often it jumped ahead since the start.
    pub(super) fn jumps(&self) -> u64 {
        self.jumps
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;

    fn wall(ms: i64) -> Timestamp {
        RELEASED.plus(Duration::from_secs(86_400 * 30)).plus(Duration::ZERO).shifted(ms)
    }

    trait Shifted {
        fn shifted(self, ms: i64) -> Self;
    }

    impl Shifted for Timestamp {
        fn shifted(self, ms: i64) -> Self {
            Self::from_millis(self.as_millis().saturating_add(ms))
        }
    }

    /// Reads once a second for so many seconds, the wall clock off by `error(second)`; gives how far off the truth
    /// the collector's time is at the end. It never goes back on the way.
    fn off_after(clock: &mut Steady, from: i64, seconds: i64, error: impl Fn(i64) -> i64) -> i64 {
        let mut last = Timestamp::MIN;
        for second in from..=from + seconds {
            let boot = second * 1_000;
            let now = clock.read(wall(boot + error(second)), boot);
            assert!(now >= last, "it went back at {second} s");
            last = now;
        }
        last.as_millis() - wall((from + seconds) * 1_000).as_millis()
    }

    // Cases: T1, T2, T3, T5, T6
    #[test]
    fn a_wall_clock_that_is_set_moves_it_only_when_it_holds_still() {
        type ErrorAt = fn(i64) -> i64;
        let cases: [(&str, ErrorAt, i64, i64); 12] = [
            ("right", |_| 0, 100, 0),
            ("back an hour: it goes on", |_| -HOUR, 10, 0),
            ("back an hour: then 1 % slower", |_| -HOUR, 160, -1_000),
            ("back an hour, all of it made up", |_| -HOUR, 365_000, -HOUR),
            ("ahead an hour: not yet", |_| HOUR, 59, 0),
            ("ahead an hour: followed after a minute", |_| HOUR, 61, HOUR),
            ("ahead a year: not within ten minutes", |_| YEAR, 599, 0),
            ("ahead a year: then it is", |_| YEAR, 601, YEAR),
            ("ahead forty years: never", |_| 40 * YEAR, 10_000, 0),
            ("1970: never", |_| -wall(0).as_millis(), 10_000, 0),
            ("strobing by 4 s: never", |second| if second % 2 == 0 { 4_000 } else { -4_000 }, 10_000, 0),
            ("a leap second: within the hour", |_| -1_000, 3_000, -1_000),
        ];
        for (name, error, seconds, want) in cases {
            let mut clock = Steady::new(wall(0), 0);
            let off = off_after(&mut clock, 0, seconds, error);
            assert!((off - want).abs() <= 20, "{name}: {off} instead of {want}");
        }
    }

    // Cases: T3
    #[test]
    fn a_start_with_a_dead_clock_is_a_guess_until_the_clock_is_set() {
        let mut clock = Steady::new(Timestamp::from_millis(5_000), 5_000);
        assert!(!clock.trusted());
        assert_eq!(clock.read(Timestamp::from_millis(6_000), 6_000), RELEASED.plus(Duration::from_secs(1)));
        clock.begin_after(wall(-HOUR), 6_000);
        assert_eq!(clock.read(Timestamp::from_millis(7_000), 7_000), wall(-HOUR + 1_000));
        assert!(!clock.trusted() && !clock.may_forget(7_000));
        off_after(&mut clock, 8, 11, |_| 0);
        assert!(clock.trusted() && clock.may_forget(20_000));
        assert_eq!((clock.read(wall(20_000), 20_000), clock.jumps()), (wall(20_000), 1));
    }

    // Cases: T1
    #[test]
    fn a_restart_goes_on_where_the_samples_end() {
        let mut clock = Steady::new(wall(-HOUR), 0);
        clock.begin_after(wall(0), 0);
        assert_eq!(clock.read(wall(-HOUR + 1_000), 1_000), wall(1_000));
        let mut clock = Steady::new(wall(0), 0);
        clock.begin_after(wall(-1_000), 0);
        assert_eq!(clock.read(wall(1_000), 1_000), wall(1_000));
        clock.begin_after(Timestamp::MAX, 1_000);
        assert_eq!(clock.read(wall(2_000), 2_000), wall(2_000), "what cannot be is not believed");
    }

    // Cases: T2, T3
    #[test]
    fn nothing_goes_for_its_age_for_a_day_after_a_far_jump() {
        for (error, kept) in [(0, false), (30_000, false), (YEAR, true)] {
            let mut clock = Steady::new(wall(0), 0);
            off_after(&mut clock, 0, 601, |_| error);
            assert_eq!(clock.may_forget(601_000), !kept, "{error}");
            assert!(clock.may_forget(601_000 + 2 * 24 * HOUR), "{error}");
        }
        let mut clock = Steady::new(wall(0), 0);
        clock.begin_after(wall(-2 * HOUR), 0);
        assert!(!clock.may_forget(0), "nor after a start that finds old samples only");
    }

    proptest::proptest! {
        // Cases: T1, T5, T8
        /// Whatever the clocks say, and however they are set: it never goes back and never panics.
        #[test]
        fn it_never_goes_back(readings in proptest::collection::vec((proptest::num::i64::ANY, 0i64..100_000), 1..50)) {
            let (mut clock, mut boot) = (Steady::new(wall(0), 0), 0i64);
            let mut last = Timestamp::MIN;
            for (set, went_by) in readings {
                boot += went_by;
                let set = if set % 3 == 0 { Timestamp::from_millis(set) } else { wall(boot + set % (2 * YEAR)) };
                let now = clock.read(set, boot);
                proptest::prop_assert!(now >= last);
                last = now;
            }
            Steady::new(Timestamp::MIN, i64::MIN).read(Timestamp::MAX, i64::MAX);
        }
    }
}
