//! ⇄ Looks every half minute whether the consumers of the feed follow, and tells the ledger which do not.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tocsin_shared::access::Consumer;
use tocsin_shared::event::Actor;
use tocsin_shared::time::Timestamp;
use tokio::time::MissedTickBehavior;

use super::super::{Api, blocking};
use crate::clock::now;
use crate::feed::Filter;
use crate::feed::lag::{Lag, behind};
use crate::state::Command;
use crate::state::command::Matter;

/// A tenth of what is told: late by no more than that.
const LOOK: Duration = Duration::from_secs(30);

/// Runs until the collector stops; `instance` is its own name in alerts.
pub(crate) async fn watch(api: Api, instance: String) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = api.stop.clone();
    let mut watch =
        Watch { api, instance, lags: HashMap::new(), told: HashSet::new(), looked: HashSet::new() };
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        watch.look(now()).await;
    }
}

/// What is known of consumers, by name: as many as there may be.
struct Watch {
    api: Api,
    instance: String,
    lags: HashMap<String, Lag>,
    /// Whose alert was raised.
    told: HashSet<String>,
    /// Who was looked at since the start: an alert of an earlier process ends like one of this.
    looked: HashSet<String>,
}

impl Watch {
    async fn look(&mut self, now: Timestamp) {
        let consumers = self.api.read(|state| state.consumers().cloned().collect::<Vec<_>>()).await;
        for consumer in consumers.unwrap_or_default() {
            let Some(waits) = self.waits(&consumer, now).await else { continue };
            let behind = behind(&consumer, waits, now);
            let is_news = behind.is_some() != self.told.contains(&consumer.name);
            if !is_news && self.looked.contains(&consumer.name) {
                continue;
            }
            let (name, lags) = (consumer.name.clone(), behind.is_some());
            let (matter, instance) = (Matter::Consumer(name), self.instance.clone());
            let command = Command::CollectorStands { matter, instance, trouble: behind };
            // Otherwise it is told again at the next look.
            if let Ok(Ok(_)) = self.api.ledger.submit(command, Actor::System).await {
                self.looked.insert(consumer.name.clone());
                if lags {
                    self.told.insert(consumer.name)
                } else {
                    self.told.remove(&consumer.name)
                };
            }
        }
    }

    /// How long something waits for a consumer; none when that cannot be read now.
    async fn waits(&mut self, consumer: &Consumer, now: Timestamp) -> Option<Option<Duration>> {
        let filter = self.api.calls.subscribers.wanted(&consumer.name);
        let filter = filter.or_else(|| Filter::parse::<&str>(&[]).ok())?;
        let mut lag = match self.lags.remove(&consumer.name).filter(|lag| lag.is_of(consumer, &filter)) {
            Some(lag) => lag,
            None => Lag::new(consumer, filter, self.api.ledger.reader().await.ok()?),
        };
        let looked = blocking(move || {
            let waits = lag.look(now);
            (lag, waits)
        });
        let (lag, waits) = looked.await.ok()?;
        self.lags.insert(consumer.name.clone(), lag);
        match waits {
            Ok(waits) => Some(waits),
            Err(error) => {
                tracing::warn!(%error, consumer = consumer.name, "cannot see how far a consumer is");
                None
            }
        }
    }
}
