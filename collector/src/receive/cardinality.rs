//! ⇄ Looks every half minute which sources have more series than they may, and tells the ledger, with the label whose
//! values are most: that is nearly always who is to blame.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tocsin_shared::access::Role;
use tocsin_shared::event::Actor;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::refused::Reason;
use super::{Receiver, SourceStanding};
use crate::journal::ledger::Ledger;
use crate::state::Command;
use crate::state::command::Matter;

/// Late by no more than that.
const LOOK: Duration = Duration::from_secs(30);
/// Looks without a refused series after which it is over: a sender that waits and tries again is not.
const QUIET_LOOKS: u32 = 10;

/// Runs until the collector stops; `instance` is its own name in alerts.
pub(crate) async fn watch(
    receiver: Arc<Receiver>,
    ledger: Ledger,
    instance: String,
    stop: CancellationToken,
) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = HashMap::new();
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        look(&receiver, &ledger, &instance, &mut seen).await;
    }
}

/// What the last look saw of a source.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    refused: u64,
    quiet: u32,
    /// What was told; nothing before the first time, so that an alert of an earlier process ends like one of this.
    told: Option<bool>,
}

impl Seen {
    /// Whether a source that has had so many samples of new series refused is in trouble. Pure.
    fn judge(&mut self, refused: u64) -> bool {
        let grew = refused > self.refused;
        self.quiet = if grew { 0 } else { self.quiet.saturating_add(1) };
        self.refused = refused;
        grew || (self.told == Some(true) && self.quiet < QUIET_LOOKS)
    }
}

async fn look(receiver: &Arc<Receiver>, ledger: &Ledger, instance: &str, seen: &mut HashMap<String, Seen>) {
    let standings = receiver.sources();
    let mut names = standings.iter().map(|standing| standing.source.to_string()).collect::<BTreeSet<_>>();
    let writers = ledger.read(|state| {
        let writers = state.principals().filter(|principal| principal.role == Role::Writer);
        writers.map(|principal| principal.name.clone()).collect::<Vec<_>>()
    });
    names.extend(writers.await.unwrap_or_default());
    seen.retain(|name, _| names.contains(name));
    for name in names {
        let standing = standings.iter().find(|standing| *standing.source == *name);
        let known = seen.entry(name.clone()).or_default();
        let refused = standing.map_or(0, |standing| standing.refused.count(Reason::SeriesLimit));
        let trouble = known.judge(refused);
        if known.told == Some(trouble) {
            continue;
        }
        let text = match (trouble, standing) {
            (true, Some(standing)) => Some(text(receiver, standing).await),
            _ => None,
        };
        let (matter, instance) = (Matter::Source(name), instance.to_owned());
        let command = Command::CollectorStands { matter, instance, trouble: text };
        // Otherwise it is told again at the next look.
        if let Ok(Ok(_)) = ledger.submit(command, Actor::System).await {
            known.told = Some(trouble);
        }
    }
}

/// What is wrong, with the label that has the most values.
async fn text(receiver: &Arc<Receiver>, standing: &SourceStanding) -> String {
    let (receiver, source) = (Arc::clone(receiver), Arc::clone(&standing.source));
    let SourceStanding { source: name, series_max, refused, .. } = standing;
    let refused = refused.count(Reason::SeriesLimit);
    // Walks hundreds of thousands of series.
    let widest = tokio::task::spawn_blocking(move || receiver.widest_label(&source)).await;
    let widest =
        widest.ok().flatten().map(|(label, values)| format!("; the label {label} has {values} values"));
    let widest = widest.unwrap_or_default();
    format!("{name} writes more than {series_max} series: {refused} samples of new ones are refused{widest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_over_after_some_quiet_looks() {
        let mut seen = Seen::default();
        assert!(!seen.judge(0));
        seen.told = Some(false);
        assert!(seen.judge(5));
        seen.told = Some(true);
        for look in 1..QUIET_LOOKS {
            assert!(seen.judge(5), "{look}");
        }
        assert!(seen.judge(6), "it goes on");
        let quiet = (0..QUIET_LOOKS).map(|_| seen.judge(6)).collect::<Vec<_>>();
        assert_eq!(quiet.iter().filter(|trouble| !**trouble).count(), 1, "{quiet:?}");
    }
}
