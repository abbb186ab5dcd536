//! ⇄ Watches how far evaluation is behind the rows, and raises the collector's own alert while it stays far behind.
//!
//! Alerts are promised within a second. A burst of rows, or a rule that is dear once, is over before anyone could look.

use std::time::{Duration, Instant};

use tocsin_shared::event::Actor;
use tokio::time::MissedTickBehavior;

use super::Parts;
use crate::evaluate::burden::BEHIND;
use crate::evaluate::statistics::Statistics;
use crate::state::Command;
use crate::state::command::Matter;

const LOOK: Duration = Duration::from_secs(1);
/// How long it has to be behind before somebody is told.
const TOLD_AFTER: Duration = Duration::from_secs(30);
/// How long it has to keep up before that is over: when rules are thinned out, it comes and goes within seconds.
const OVER_AFTER: Duration = Duration::from_secs(60);

/// Runs until the collector stops.
pub(super) async fn watch(parts: Parts) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let instance = super::setup::host_name();
    let mut lagging = Lagging::default();
    while parts.stop.run_until_cancelled(interval.tick()).await.is_some() {
        let now = Instant::now();
        let lag = parts.statistics.lag(now);
        let Some(news) = lagging.news(lag, now) else { continue };
        let trouble = news.then(|| trouble(lag, &parts.statistics));
        let command =
            Command::CollectorStands { matter: Matter::Evaluation, instance: instance.clone(), trouble };
        if let Ok(Ok(_)) = parts.ledger.submit(command, Actor::System).await {
            lagging.known = Some(news); // Otherwise it is told again at the next look.
        }
    }
}

fn trouble(lag: Duration, statistics: &Statistics) -> String {
    let groups = statistics.groups();
    let total: f64 = groups.iter().map(|group| group.time.spent.as_secs_f64()).sum();
    let dearest = groups.iter().max_by_key(|group| group.time.spent).map(|dearest| {
        let share = 100.0 * dearest.time.spent.as_secs_f64() / total.max(f64::MIN_POSITIVE);
        format!("; {share:.0} % of the time goes to the group {} of {}", dearest.group, dearest.file)
    });
    let seconds = lag.as_secs();
    format!(
        "rules are evaluated {seconds} s after their rows came, alerts are late{}",
        dearest.unwrap_or_default()
    )
}

/// What the ledger knows, and since when it is otherwise.
#[derive(Default)]
struct Lagging {
    /// Nothing at a start: an alert of an earlier process ends like one of this.
    known: Option<bool>,
    otherwise_since: Option<Instant>,
}

impl Lagging {
    /// Whether it is news that evaluation lags, or that it does not.
    fn news(&mut self, lag: Duration, now: Instant) -> Option<bool> {
        let behind = lag >= BEHIND;
        if self.known == Some(behind) {
            self.otherwise_since = None;
            return None;
        }
        if self.known.is_none() && behind {
            // The wait is the same, whatever an earlier process said.
            (self.known, self.otherwise_since) = (Some(false), None);
        }
        let since = *self.otherwise_since.get_or_insert(now);
        let after = if behind { TOLD_AFTER } else { OVER_AFTER };
        (now.duration_since(since) >= after).then_some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: T9
    #[test]
    fn evaluation_that_stays_behind_is_told_once_and_when_it_has_kept_up() {
        let (begin, mut lagging) = (Instant::now(), Lagging::default());
        lagging.known = Some(false);
        for (second, lag, news, why) in [
            (0, 0, None, "all is well"),
            (1, 10, None, "far behind"),
            (30, 40, None, "not for long enough"),
            (31, 40, Some(true), "for half a minute"),
            (32, 40, None, "told once"),
            (33, 9, None, "it keeps up"),
            (60, 11, None, "it does not"),
            (61, 0, None, "it keeps up"),
            (120, 0, None, "not for long enough"),
            (121, 0, Some(false), "for a minute"),
            (122, 0, None, "told once"),
            (130, 20, None, "behind"),
            (140, 0, None, "a burst, over"),
            (165, 20, None, "another one"),
            (170, 0, None, "over, too"),
        ] {
            let told = lagging.news(Duration::from_secs(lag), begin + Duration::from_secs(second));
            assert_eq!(told, news, "at {second}: {why}");
            lagging.known = told.or(lagging.known);
        }
        let mut restarted = Lagging::default();
        restarted.news(Duration::ZERO, begin);
        assert_eq!(
            restarted.news(Duration::ZERO, begin + OVER_AFTER),
            Some(false),
            "an older alert ends, too"
        );
    }
}
