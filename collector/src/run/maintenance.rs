//! What happens by itself: timers, silent hosts, sealing, retention.

use std::time::{Duration, Instant};

use tocsin_shared::event::{Actor, Sealed};
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use super::Parts;
use super::keep::Keeping;
use crate::clock::{self, now};
use crate::journal::ledger::{Fatal, Ledger};
use crate::samples::WINDOW;
use crate::state::Command;

/// How often timers and silence are looked at: what is due is at most this late.
const TICK: Duration = Duration::from_secs(1);
/// How often sealing and retention are looked at.
pub(super) const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How long after its end a window is sealed: rules then find their ranges in memory, and most late rows are in.
const SEAL_AFTER: Duration = Duration::from_secs(3600);

/// Windows that ended before this are sealed, or will be at the next turn.
pub(super) fn sealed_to() -> Timestamp {
    now().minus(SEAL_AFTER).align_down(WINDOW)
}

/// Starts the tasks; they end with `stop`.
pub(super) fn spawn(parts: &Parts, tasks: &TaskTracker, fatal: &Fatal) {
    let presence = |parts: Parts| async move { parts.presence.watch(Instant::now()) };
    tasks.spawn(fatal.clone().watch("presence", until_stopped(parts.clone(), TICK, presence)));
    tasks.spawn(fatal.clone().watch("timers", until_stopped(parts.clone(), TICK, tick)));
    tasks.spawn(fatal.clone().watch("housekeeping", super::keep::run(parts.clone())));
    tasks.spawn(fatal.clone().watch("joining", super::joining::run(parts.clone())));
}

async fn until_stopped<F: Future<Output = ()>>(parts: Parts, every: Duration, run: impl Fn(Parts) -> F) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while parts.stop.run_until_cancelled(interval.tick()).await.is_some() {
        run(parts.clone()).await;
    }
}

async fn tick(parts: Parts) {
    if parts.ledger.next_due() <= now() {
        submit(&parts.ledger, Command::Tick, "let happen what is due").await;
    }
    tell_silent(&parts).await;
}

/// Together, so that a network that goes down with a thousand hosts costs a few writes and not a thousand.
async fn tell_silent(parts: &Parts) {
    let silent = parts.presence.silent(Instant::now());
    let unheard = || now().minus(parts.presence.silent_after_start());
    let command = |(agent, since): &(AgentId, Option<Timestamp>)| Command::HostSilent {
        agent: *agent,
        since: since.unwrap_or_else(unheard),
    };
    let commands = silent.iter().map(command).collect();
    let Ok(decided) = parts.ledger.submit_all(commands, Actor::System).await else { return }; // Stopping.
    for ((agent, _), decided) in silent.into_iter().zip(decided) {
        if let Err(refusal) = decided {
            tracing::warn!(%agent, %refusal, "could not tell that a host is silent");
        }
        parts.presence.told(agent); // It may have come back meanwhile: then its next message says so again.
    }
}

pub(super) async fn submit(ledger: &Ledger, command: Command, what: &str) -> bool {
    match ledger.submit(command, Actor::System).await {
        Ok(Ok(_)) => true,
        Ok(Err(refusal)) => {
            tracing::warn!(%refusal, "could not {what}");
            false
        }
        Err(_) => false, // Stopping.
    }
}

/// Sealing and retention.
pub(super) async fn housekeeping(parts: &Parts, keeping: &Keeping) {
    keeping.seal(sealed_to()).await;
    if let Some(off_by_ms) = parts.skews.own() {
        tracing::warn!(off_by_ms, "most hosts say another time than this host's clock: is it synchronised?");
    }
    // A clock that was set far ahead would make everything old.
    let may_forget = clock::may_forget();
    if may_forget {
        let (age, bytes_max) = (parts.config.keep_events, parts.config.events_bytes_max);
        parts.ledger.drop_older(now().minus(age), bytes_max).await.ok(); // Stopping: the next start does it.
    }
    let (samples, config) = (parts.samples.clone(), parts.config.clone());
    let retained = tokio::task::spawn_blocking(move || {
        let age = if may_forget { config.keep_samples } else { Duration::MAX };
        samples.retain(now(), age, config.samples_bytes_max)
    });
    match retained.await {
        Ok(Ok(removed)) if !removed.is_empty() => {
            tracing::info!(blocks = removed.len(), "old blocks removed")
        }
        Ok(Ok(_)) | Err(_) => {} // A panic was reported where it happened.
        Ok(Err(error)) => tracing::error!(%error, "retention failed; it is tried again"),
    }
    keeping.record_blocks().await;
}

/// At a clean stop: how far rows were evaluated, so that the next start evaluates none of them again.
pub(super) async fn note_evaluated(parts: &Parts) {
    let evaluated_through = parts.statistics.evaluated_through();
    let known = parts.ledger.read(|state| (state.evaluated_through(), state.sealed().clone())).await;
    let Ok((through, sealed)) = known else { return };
    if evaluated_through > through {
        let record = Sealed { evaluated_through, ..sealed };
        submit(&parts.ledger, Command::Sealed(record), "note what was evaluated").await;
    }
}
