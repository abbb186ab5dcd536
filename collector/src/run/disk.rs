//! ⇄ Minds the disk: looks every second, lets old blocks go when it runs short, and raises the collector's own alert.
//!
//! The alert fires as soon as rows are refused, and ends when they have been taken for a while: a disk at its edge
//! pages once.

use std::time::{Duration, Instant};

use tocsin_shared::event::Actor;
use tokio::time::MissedTickBehavior;

use super::Parts;
use crate::clock::now;
use crate::room::RETRY_AFTER;
use crate::state::Command;
use crate::state::command::Matter;

/// Ingest at full speed takes far longer to fill the floor.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until the collector stops.
pub(super) async fn mind(parts: Parts) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gate = parts.room.gate();
    let instance = super::setup::host_name();
    let mut told = Told::default();
    loop {
        tokio::select! {
            () = parts.stop.cancelled() => return,
            _ = interval.tick() => look(&parts).await,
            _ = gate.changed() => {} // The room lives as long as the parts do.
        }
        let trouble = parts.room.standing().trouble();
        let Some(news) = told.news(trouble.is_some(), Instant::now()) else { continue };
        let command = Command::CollectorStands { matter: Matter::Disk, instance: instance.clone(), trouble };
        if let Ok(Ok(_)) = parts.ledger.submit(command, Actor::System).await {
            told.known = Some(news); // Otherwise it is told again at the next look.
        }
    }
}

/// What the ledger knows, and since when there is room.
#[derive(Default)]
pub(super) struct Told {
    /// Nothing at a start: an alert of an earlier process ends like one of this.
    pub(super) known: Option<bool>,
    open_since: Option<Instant>,
}

impl Told {
    /// Whether it is news that something is short, or that it is not.
    pub(super) fn news(&mut self, short: bool, now: Instant) -> Option<bool> {
        if short {
            self.open_since = None;
            return (self.known != Some(true)).then_some(true);
        }
        let since = *self.open_since.get_or_insert(now);
        (self.known != Some(false) && now.duration_since(since) >= RETRY_AFTER).then_some(false)
    }
}

/// Looks at the room, and lets the oldest blocks go if that helps and the configuration allows it.
async fn look(parts: &Parts) {
    let parts = parts.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let wanted = parts.room.look(now()).wanted;
        let bytes: u64 = parts.samples.blocks().iter().map(|block| block.bytes).sum();
        let config = &parts.config;
        let left = bytes.saturating_sub(wanted).max(config.samples_bytes_min);
        parts.room.note_blocks_stay(wanted > 0 && bytes > 0 && left >= bytes);
        if wanted == 0 || left >= bytes {
            return;
        }
        match parts.samples.retain(now(), config.keep_samples, left) {
            Ok(removed) => tracing::warn!(
                blocks = removed.len(),
                wanted,
                "the disk is nearly full: the oldest blocks went before their time"
            ),
            Err(error) => tracing::error!(%error, "no block could be removed; it is tried again"),
        }
    });
    looked.await.ok(); // A panic was reported where it happened.
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: C7
    #[test]
    fn a_disk_at_its_edge_pages_once() {
        let (begin, mut told) = (Instant::now(), Told::default());
        let table = [
            (0, true, Some(true)),
            (1, true, None),
            (2, false, None),
            (11, false, None),
            (11, true, None),
            (12, false, None),
            (21, false, None),
            (22, false, Some(false)),
            (23, false, None),
            (24, true, Some(true)),
        ];
        for (second, short, news) in table {
            assert_eq!(told.news(short, begin + Duration::from_secs(second)), news, "at {second}");
            told.known = news.or(told.known);
        }
        let mut restarted = Told::default();
        restarted.news(false, begin);
        assert_eq!(restarted.news(false, begin + RETRY_AFTER), Some(false), "an older alert ends, too");
    }
}
