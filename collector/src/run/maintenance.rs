//! What happens by itself: timers, silent hosts, sealing, retention.

use std::time::{Duration, Instant};

use tocsin_shared::event::{Actor, Block, Sealed};
use tocsin_shared::time::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use super::Parts;
use crate::clock::{self, now};
use crate::journal::ledger::Fatal;
use crate::samples::WINDOW;
use crate::state::Command;

/// How often timers and silence are looked at: what is due is at most this late.
const TICK: Duration = Duration::from_secs(1);
/// How often sealing and retention are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How long after its end a window is sealed: rules then find their ranges in memory, and most late rows are in.
const SEAL_AFTER: Duration = Duration::from_secs(3600);

/// Starts the tasks; they end with `stop`.
pub(super) fn spawn(parts: &Parts, tasks: &TaskTracker, fatal: &Fatal) {
    let timers = until_stopped(parts.clone(), TICK, tick);
    tasks.spawn(fatal.clone().watch("timers", timers));
    let housekeeping = until_stopped(parts.clone(), HOUSEKEEPING, housekeeping);
    tasks.spawn(fatal.clone().watch("housekeeping", housekeeping));
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
        submit(&parts, Command::Tick, "let happen what is due").await;
    }
    for (agent, since) in parts.presence.silent(Instant::now()) {
        let since = since.unwrap_or_else(|| now().minus(parts.presence.silent_after_start()));
        submit(&parts, Command::HostSilent { agent, since }, "tell that a host is silent").await;
        parts.presence.told(agent); // It may have come back meanwhile: then its next heartbeat says so again.
    }
}

async fn submit(parts: &Parts, command: Command, what: &str) -> bool {
    match parts.ledger.submit(command, Actor::System).await {
        Ok(Ok(_)) => true,
        Ok(Err(refusal)) => {
            tracing::warn!(%refusal, "could not {what}");
            false
        }
        Err(_) => false, // Stopping.
    }
}

async fn housekeeping(parts: Parts) {
    let sealed_to = now().minus(SEAL_AFTER).align_down(WINDOW);
    seal(&parts, sealed_to).await;
    if let Some(off_by_ms) = parts.skews.own() {
        tracing::warn!(off_by_ms, "most hosts say another time than this host's clock: is it synchronised?");
    }
    // A clock that was set far ahead would make everything old.
    let may_forget = clock::may_forget();
    if may_forget {
        parts.ledger.drop_older(now().minus(parts.config.keep_events)).await.ok(); // Stopping: the next start does it.
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
}

/// Seals every window that ended before `sealed_to`, then settles with the journals what is needed no more.
async fn seal(parts: &Parts, sealed_to: Timestamp) {
    let Ok(standing) = parts.rows.standing().await else { return };
    let samples = parts.samples.clone();
    let sealing = tokio::task::spawn_blocking(move || {
        let closed = samples.windows_in_memory().into_iter().filter(|window| window.to <= sealed_to);
        closed.map(|window| samples.seal(window)).collect::<Result<Vec<_>, _>>()
    });
    let sealed = match sealing.await {
        Ok(Ok(sealed)) => sealed,
        Ok(Err(error)) => return tracing::error!(%error, "sealing failed; it is tried again"),
        Err(_) => return, // A panic was reported where it happened.
    };
    if sealed.iter().flatten().count() == 0 {
        return;
    }
    let blocks = parts.samples.blocks().into_iter().map(|entry| Block {
        file: entry.name.clone(),
        from: entry.window.from,
        to: entry.window.to,
        bytes: entry.bytes,
        series: entry.series,
        samples: entry.samples,
    });
    // What is not evaluated yet stays in the journal, and a start evaluates it.
    let evaluated_through = parts.statistics.evaluated_through().min(standing.through);
    let samples_from = standing.needed_from(sealed_to).min(evaluated_through + 1);
    let record = Sealed {
        samples_from,
        sealed_seq: standing.through,
        sealed_to,
        evaluated_through,
        lanes: standing.lanes,
        blocks: blocks.collect(),
    };
    if submit(parts, Command::Sealed(record), "settle the sealing").await {
        parts.rows.drop_before(samples_from).await.ok(); // Stopping: the next start drops them.
    }
}

/// At a clean stop: how far rows were evaluated, so that the next start evaluates none of them again.
pub(super) async fn note_evaluated(parts: &Parts) {
    let evaluated_through = parts.statistics.evaluated_through();
    let known = parts.ledger.read(|state| (state.evaluated_through(), state.sealed().clone())).await;
    let Ok((through, sealed)) = known else { return };
    if evaluated_through > through {
        let record = Sealed { evaluated_through, ..sealed };
        submit(parts, Command::Sealed(record), "note what was evaluated").await;
    }
}
