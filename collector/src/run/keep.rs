//! The way of samples from the journal into blocks, and what keeps a start short: how far rows are evaluated is noted
//! every few seconds, and what is in memory is written to a head file every few minutes, or sooner when many rows came.
//!
//! Both are shortcuts over the journals. A note is written once everything the rows said is durable; a head file
//! counts once all of its rows are evaluated. A failure costs the next start time, and is tried again. Housekeeping
//! takes turns with them in one task: no head file has what is being sealed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tocsin_shared::event::{Block, Sealed};
use tocsin_shared::time::Timestamp;
use tokio::time::MissedTickBehavior;

use super::Parts;
use super::maintenance::{HOUSEKEEPING, housekeeping, submit};
use crate::evaluate::statistics::Statistics;
use crate::journal::Stopping;
use crate::journal::ledger::Ledger;
use crate::journal::rows::Rows;
use crate::samples::{self, BlockError, SealedTo};
use crate::state::{Command, State};

/// How often it is noted how far rows are evaluated: a start evaluates at most so many seconds of rows again.
const NOTE: Duration = Duration::from_secs(5);
/// The most time between two head files: a start reads at most so many minutes of rows.
const HEAD: Duration = Duration::from_secs(600);
/// The most bytes of rows between two head files, at many series or when many spools are drained: reading 24 MiB takes
/// a core about a second.
const HEAD_BYTES: u64 = 32 << 20;
/// How long evaluation may be behind the rows of a head file; beyond it the head file waits for the next turn.
const EVALUATED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it is not any more.
const LOOK: Duration = Duration::from_millis(50);

/// Runs until the collector stops.
pub(super) async fn run(parts: Parts) {
    let mut interval = tokio::time::interval(NOTE);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut noted, mut written, mut cleaned, mut owed) = (0, Instant::now(), None::<Instant>, false);
    let keeping = Keeping {
        ledger: parts.ledger.clone(),
        rows: parts.rows.clone(),
        samples: parts.samples.clone(),
        statistics: parts.statistics.clone(),
    };
    while parts.stop.run_until_cancelled(interval.tick()).await.is_some() {
        if cleaned.is_none_or(|cleaned| cleaned.elapsed() >= HOUSEKEEPING) {
            cleaned = Some(Instant::now());
            housekeeping(&parts, &keeping).await;
        }
        let evaluated = parts.statistics.evaluated_through();
        if evaluated > noted && keeping.note(evaluated).await.is_ok() {
            noted = evaluated;
        }
        let tail = parts.rows.tail_bytes();
        if owed || tail >= HEAD_BYTES || (tail > 0 && written.elapsed() >= HEAD) {
            (written, owed) = (Instant::now(), false);
            match keeping.write_head().await {
                Ok(()) => tracing::debug!(bytes = tail, took = ?written.elapsed(), "head file written"),
                Err(HeadError::Stopping(_)) => return,
                Err(error) => {
                    owed = true; // At the next turn, then.
                    tracing::warn!(%error, "no head file was written: a start now would read more rows")
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HeadError {
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("evaluation is more than {} s behind the rows", EVALUATED_WITHIN.as_secs())]
    Behind,
    #[error("it panicked; the log has the place")]
    Panicked,
}

/// Who holds the samples on their way from the journal into blocks.
pub(super) struct Keeping {
    pub(super) ledger: Ledger,
    pub(super) rows: Rows,
    pub(super) samples: Arc<samples::Store>,
    pub(super) statistics: Arc<Statistics>,
}

impl Keeping {
    /// Notes in the samples journal that rows up to `through` are evaluated.
    pub(super) async fn note(&self, through: u64) -> Result<(), Stopping> {
        // The ledger answers once everything it was told before is durable; the rows' writer has what was recorded.
        self.ledger.read(|_| ()).await?;
        self.rows.evaluated(through).await
    }

    /// Writes a head file.
    pub(super) async fn write_head(&self) -> Result<(), HeadError> {
        let head = self.rows.begin_head().await?;
        let begun = Instant::now();
        while self.statistics.evaluated_through() < head.newest_row {
            if begun.elapsed() > EVALUATED_WITHIN {
                return Err(HeadError::Behind);
            }
            tokio::time::sleep(LOOK).await;
        }
        self.note(head.newest_row).await?;
        let (samples, through) = (self.samples.clone(), head.through);
        let written = blocking(move || samples.write_head(through)).await?;
        let Some(written) = written else { return Ok(()) };
        let upto = self.rows.standing().await?.through;
        let sealed = self.sealed().await?;
        let (samples, note) = (self.samples.clone(), head.to_bytes());
        blocking(move || samples.list_head(written, upto, note, sealed)).await
    }

    /// What blocks hold by now.
    async fn sealed(&self) -> Result<SealedTo, Stopping> {
        let sealed =
            |state: &State| SealedTo { seq: state.sealed().sealed_seq, to: state.sealed().sealed_to };
        self.ledger.read(sealed).await
    }

    /// Seals every window that ended before `sealed_to`, then settles with the journals what is needed no more.
    pub(super) async fn seal(&self, sealed_to: Timestamp) {
        let Ok(standing) = self.rows.standing().await else { return };
        let samples = self.samples.clone();
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
        // What is not evaluated yet stays in the journal, and a start evaluates it.
        // Once the last row that rules run over is, everything up to here is: rules run over nothing else.
        let evaluated_through = match self.statistics.evaluated_through() {
            evaluated if standing.newest_row <= evaluated => standing.through,
            evaluated => evaluated.min(standing.through),
        };
        let samples_from = standing.needed_from(sealed_to).min(evaluated_through + 1);
        let record = Sealed {
            samples_from,
            sealed_seq: standing.through,
            sealed_to,
            evaluated_through,
            lanes: standing.lanes,
            blocks: self.blocks(),
        };
        if submit(&self.ledger, Command::Sealed(record), "settle the sealing").await {
            self.rows.drop_before(samples_from).await.ok(); // Stopping: the next start drops them.
            let (Ok(sealed), samples) = (self.sealed().await, self.samples.clone()) else { return };
            let dropped = tokio::task::spawn_blocking(move || samples.drop_heads(sealed)).await;
            if let Ok(Err(error)) = dropped {
                tracing::warn!(%error, "head files that blocks have are still there; it is tried again");
            }
        }
    }
}

impl Keeping {
    /// Records the blocks there are, when others are recorded: some were joined or deleted since.
    pub(super) async fn record_blocks(&self) {
        let Ok(sealed) = self.ledger.read(|state| state.sealed().clone()).await else { return }; // Stopping.
        let blocks = self.blocks();
        if sealed.blocks != blocks {
            submit(&self.ledger, Command::Sealed(Sealed { blocks, ..sealed }), "record the blocks there are")
                .await;
        }
    }

    fn blocks(&self) -> Vec<Block> {
        let blocks = self.samples.blocks().into_iter().map(|entry| Block {
            file: entry.name,
            from: entry.window.from,
            to: entry.window.to,
            bytes: entry.bytes,
            series: entry.series,
            samples: entry.samples,
        });
        blocks.collect()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlockError> + Send + 'static,
) -> Result<T, HeadError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| HeadError::Panicked)??)
}

#[cfg(test)]
mod tests;
