//! What keeps a start short: how far rows are evaluated is noted every few seconds, and what is in memory is written
//! to a head file every few minutes, or sooner when many rows came.
//!
//! Both are shortcuts over the journals. A note is written once everything the rows said is durable; a head file
//! counts once all of its rows are evaluated. A failure costs the next start time, and is tried again. Housekeeping
//! takes turns with them in one task: no head file has what is being sealed.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::Parts;
use super::maintenance::{HOUSEKEEPING, housekeeping};
use crate::journal::Stopping;
use crate::journal::rows::head::Head;
use crate::samples::{BlockError, SealedTo};

/// How often it is noted how far rows are evaluated: a start evaluates at most so many seconds of rows again.
const NOTE: Duration = Duration::from_secs(5);
/// The most time between two head files: a start reads at most so many minutes of rows.
const HEAD: Duration = Duration::from_secs(600);
/// The most bytes of rows between two head files, as when many spools are drained: two seconds of a start.
const HEAD_BYTES: u64 = 48 << 20;
/// How long evaluation may be behind the rows of a head file; beyond it the head file waits for the next turn.
const EVALUATED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it is not any more.
const LOOK: Duration = Duration::from_millis(50);

/// Runs until the collector stops.
pub(super) async fn run(parts: Parts) {
    let mut interval = tokio::time::interval(NOTE);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut noted, mut written, mut cleaned) = (0, Instant::now(), None::<Instant>);
    while parts.stop.run_until_cancelled(interval.tick()).await.is_some() {
        if cleaned.is_none_or(|cleaned| cleaned.elapsed() >= HOUSEKEEPING) {
            cleaned = Some(Instant::now());
            housekeeping(parts.clone()).await;
        }
        let evaluated = parts.statistics.evaluated_through();
        if evaluated > noted && note(&parts, evaluated).await.is_ok() {
            noted = evaluated;
        }
        let tail = parts.rows.tail_bytes();
        if tail >= HEAD_BYTES || (tail > 0 && written.elapsed() >= HEAD) {
            written = Instant::now();
            match write(&parts).await {
                Ok(()) => tracing::debug!(bytes = tail, took = ?written.elapsed(), "head file written"),
                Err(HeadError::Stopping(_)) => return,
                Err(error) => tracing::warn!(%error, "no head file was written: a start now would read more rows"),
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum HeadError {
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("evaluation is more than {} s behind the rows", EVALUATED_WITHIN.as_secs())]
    Behind,
    #[error("it panicked; the log has the place")]
    Panicked,
}

/// Notes in the samples journal that rows up to `through` are evaluated.
pub(super) async fn note(parts: &Parts, through: u64) -> Result<(), Stopping> {
    // The ledger answers once everything it was told before is durable; the rows' writer has what was recorded.
    parts.ledger.read(|_| ()).await?;
    parts.rows.evaluated(through).await
}

async fn write(parts: &Parts) -> Result<(), HeadError> {
    let head = parts.rows.begin_head().await?;
    let begun = Instant::now();
    while parts.statistics.evaluated_through() < head.newest_row {
        if begun.elapsed() > EVALUATED_WITHIN {
            return Err(HeadError::Behind);
        }
        tokio::time::sleep(LOOK).await;
    }
    note(parts, head.newest_row).await?;
    let (samples, through) = (parts.samples.clone(), head.through);
    let written = blocking(move || samples.write_head(through)).await?;
    let Some(written) = written else { return Ok(()) };
    let upto = parts.rows.standing().await?.through;
    let sealed = sealed(parts).await?;
    let (samples, note) = (parts.samples.clone(), Head::to_bytes(&head));
    blocking(move || samples.list_head(written, upto, note, sealed)).await
}

/// What blocks hold by now.
pub(super) async fn sealed(parts: &Parts) -> Result<SealedTo, Stopping> {
    parts.ledger.read(|state| SealedTo { seq: state.sealed().sealed_seq, to: state.sealed().sealed_to }).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlockError> + Send + 'static,
) -> Result<T, HeadError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| HeadError::Panicked)??)
}
