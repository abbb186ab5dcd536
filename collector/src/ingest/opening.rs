//! How many sessions are between Hello and Welcome: a fleet that comes back at once is let in a few at a time.
//!
//! Promise: who waits is let in in the order of coming. Who would wait until its patience ends is told so before, and
//! how long to stay away: a handshake was paid for it, so it is better let in late than sent away, and better sent away
//! than left to give up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Sessions that open at the same time: as many as handshakes at the same time. Each costs a decision of the ledger.
const OPENING_MAX: usize = 256;
/// An agent waits 30 s for its Welcome; what is left is for the answer itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long who was not let in should stay away; agents add a random wait of their own.
const STAY_AWAY: Duration = Duration::from_secs(30);
/// gRPC's own word for it, in milliseconds.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The door between Hello and Welcome; clones share it.
#[derive(Clone, Debug)]
pub struct Opening {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Opening {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(OPENING_MAX)), patience: PATIENCE }
    }
}

impl Opening {
    /// Waits for a place; it is free again when dropped.
    pub(super) async fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await;
        match place {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Status::unavailable("the collector is stopping")),
            Err(_) => Err(come_later()),
        }
    }
}

fn come_later() -> Status {
    let mut status = Status::resource_exhausted(format!(
        "{OPENING_MAX} agents are connecting already; come back in {} s",
        STAY_AWAY.as_secs()
    ));
    status.metadata_mut().insert(PUSHBACK, u64::try_from(STAY_AWAY.as_millis()).unwrap_or(u64::MAX).into());
    status
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    // Cases: N19, C-D5
    #[tokio::test]
    async fn who_cannot_be_let_in_is_told_how_long_to_stay_away() {
        let opening = Opening { patience: Duration::from_millis(20), ..Opening::default() };
        let mut places = Vec::new();
        for _ in 0..OPENING_MAX {
            places.push(opening.admit().await.unwrap());
        }
        let refused = opening.clone().admit().await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let asked = refused.metadata().get(PUSHBACK).and_then(|value| value.to_str().ok());
        assert_eq!(asked, Some("30000"));
        // Who waits in time is let in as soon as somebody has its Welcome.
        let patient = Opening { patience: PATIENCE, ..opening.clone() };
        let waiting = tokio::spawn(async move { patient.admit().await.map(drop) });
        tokio::task::yield_now().await;
        places.pop();
        waiting.await.unwrap().unwrap();
    }
}
