//! ⇄ Minds the memory: looks every two seconds, lets rows give way when it runs short, and raises the collector's own
//! alert.

use std::time::{Duration, Instant};

use tocsin_shared::event::Actor;
use tokio::time::MissedTickBehavior;

use super::Parts;
use super::disk::Told;
use crate::memory::{self, Seen};
use crate::state::Command;
use crate::state::command::Matter;

/// A fleet at full speed takes longer for a tenth of a usual limit.
const LOOK: Duration = Duration::from_secs(2);

/// Runs until the collector stops.
pub(super) async fn mind(parts: Parts) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (instance, mut told) = (super::setup::host_name(), Told::default());
    let limit = memory::limit(parts.config.memory_max);
    while parts.stop.run_until_cancelled(interval.tick()).await.is_some() {
        let Some(used) = memory::used() else { continue };
        let shed = memory::judge(parts.room.memory().shed, used, limit);
        parts.room.set_memory(Seen { used, limit, shed });
        let short = parts.room.memory().trouble();
        let Some(news) = told.news(short.is_some(), Instant::now()) else { continue };
        let (matter, instance) = (Matter::Memory, instance.clone());
        let command = Command::CollectorStands { matter, instance, trouble: short };
        if let Ok(Ok(_)) = parts.ledger.submit(command, Actor::System).await {
            told.known = Some(news); // Otherwise it is told again at the next look.
        }
    }
}
