//! What rules cost, and which of them run less often when evaluation cannot keep up.
//!
//! Pure. Evaluation is one thread behind a bounded queue. While it is far behind the rows, the groups that take more
//! than their share of its time run less often for each host, the further behind the less, so that the queue does not
//! grow and the rules of other groups go on as before. What is skipped is counted, and no evidence: alerts stay as they
//! are until the next run. Nothing is skipped while evaluation keeps up.
//! Not here: who is told (`run::lag`).

use std::time::Duration;

/// How far evaluation may be behind the rows: ten times what a start under full load was seen to need.
pub const BEHIND: Duration = Duration::from_secs(10);
/// How many times as far apart as it is behind a group's runs are then: 80 s at first. A group may need eight times
/// the time there is before the queue grows at all.
const STRETCH: u32 = 8;
/// The longest distance of two runs, however far behind: a rule that does not run is worth nothing.
const STRETCH_MAX: Duration = Duration::from_secs(600);
/// Time spent whose shares are remembered; then the past counts half.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What a group of rules took since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTime {
    /// How often its rules ran: for each row of each host, or each tick.
    pub runs: u64,
    pub spent: Duration,
    pub longest: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    time: GroupTime,
    recent: Duration,
}

/// What evaluation is burdened with, by group.
#[derive(Debug, Default)]
pub(super) struct Burden {
    groups: Vec<Group>,
    recent: Duration,
    /// The shortest distance of two runs of a group that takes more than its share.
    stretch: Duration,
    skipped: u64,
}

impl Burden {
    /// Of a plan with so many groups.
    pub(super) fn new(groups: usize) -> Self {
        Self { groups: vec![Group::default(); groups], ..Self::default() }
    }

    /// Evaluation is this far behind the rows.
    pub(super) fn behind(&mut self, lag: Duration) {
        self.stretch =
            if lag < BEHIND { Duration::ZERO } else { lag.saturating_mul(STRETCH).min(STRETCH_MAX) };
    }

    /// A group's rules ran.
    pub(super) fn ran(&mut self, group: usize, took: Duration) {
        let Some(Group { time, recent }) = self.groups.get_mut(group) else { return };
        *time = GroupTime { runs: time.runs + 1, spent: time.spent + took, longest: time.longest.max(took) };
        *recent += took;
        self.recent += took;
        if self.recent > REMEMBERED {
            self.groups.iter_mut().for_each(|group| group.recent /= 2);
            self.recent /= 2;
        }
    }

    /// Whether a rule has to wait although its own interval is over; `since` is the time since its last run.
    pub(super) fn defers(&mut self, group: usize, since: Option<Duration>) -> bool {
        if self.stretch.is_zero() {
            return false; // By far the most.
        }
        let share = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let dear =
            self.groups.get(group).is_some_and(|group| group.recent.saturating_mul(share) >= self.recent);
        let defers = dear && since.is_some_and(|since| since < self.stretch);
        self.skipped += u64::from(defers);
        defers
    }

    /// Runs that were skipped since the last call.
    pub(super) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// What each group took.
    pub(super) fn times(&self) -> Vec<GroupTime> {
        self.groups.iter().map(|group| group.time).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: usize = 100;
    const TICK: Duration = Duration::from_secs(10);

    /// What an hour of rows came to: the longest wait, and the runs of each group.
    fn hour(costs: &[Duration]) -> (Duration, Vec<u64>) {
        let mut burden = Burden::new(costs.len());
        let mut ran_at = vec![vec![None::<Duration>; costs.len()]; HOSTS];
        let (mut clock, mut longest) = (Duration::ZERO, Duration::ZERO);
        for row in 0..HOSTS * 360 {
            let arrived = TICK / HOSTS as u32 * row as u32;
            clock = clock.max(arrived);
            longest = longest.max(clock - arrived);
            burden.behind(clock - arrived);
            for (group, cost) in costs.iter().enumerate() {
                let ran_at = &mut ran_at[row % HOSTS][group];
                if !burden.defers(group, ran_at.map(|ran_at| arrived - ran_at)) {
                    *ran_at = Some(arrived);
                    clock += *cost;
                    burden.ran(group, *cost);
                }
            }
        }
        (longest, burden.times().iter().map(|time| time.runs).collect())
    }

    // Cases: T9
    #[test]
    fn rules_that_take_longer_than_there_is_time_run_less_often_and_hold_up_no_others() {
        let ms = Duration::from_millis;
        let all = HOSTS as u64 * 360;
        for (costs, bound, thinned, why) in [
            (vec![ms(1); 10], ms(1), vec![], "all is well"),
            (vec![ms(9); 10], ms(1), vec![], "just so"),
            // What a group takes for all hosts once, it may be behind: they come due together.
            (vec![ms(1), ms(300), ms(1), ms(1)], ms(31_000), vec![1], "three times too dear"),
            (vec![ms(1), ms(3_000), ms(1), ms(1)], ms(301_000), vec![1], "thirty times"),
            (vec![ms(200), ms(200), ms(1), ms(1)], ms(41_000), vec![0, 1], "two of them"),
            (vec![ms(150)], ms(16_000), vec![0], "the only one"),
        ] {
            let (longest, runs) = hour(&costs);
            assert!(longest < bound, "{why}: {longest:?} behind");
            for (group, runs) in runs.into_iter().enumerate() {
                let fewer = runs < all;
                assert_eq!(fewer, thinned.contains(&group), "{why}: group {group} ran {runs} times of {all}");
                assert!(runs >= HOSTS as u64 * 3, "{why}: group {group} ran {runs} times only");
            }
        }
    }
}
