//! Places for queries: how many run or wait to be taken at a time, of all callers and of one.
//!
//! Promise: nobody holds all of them. A place goes with the answer until its caller has taken it: an answer that
//! nobody reads takes memory as one that is being computed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Response, Status};

/// Of all callers: each may take a core and a gigabyte.
const PLACES: usize = 16;
/// Of one principal.
const PER_PRINCIPAL: usize = 8;
/// Subscribed queries of all callers: the panels of a wall of dashboards.
const SUBSCRIPTIONS: usize = 256;
/// Of one principal: the screens of a team that shares a credential.
const SUBSCRIPTIONS_PER_PRINCIPAL: usize = 128;

/// The places of a collector.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    per_principal: usize,
    all: Arc<Semaphore>,
    held: Mutex<HashMap<String, usize>>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(PLACES, PER_PRINCIPAL)
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _one: OwnedSemaphorePermit,
    of: Arc<Places>,
    who: Option<String>,
}

impl Places {
    /// The places of subscribed queries.
    pub(super) fn for_subscriptions() -> Self {
        Self::new(SUBSCRIPTIONS, SUBSCRIPTIONS_PER_PRINCIPAL)
    }

    fn new(most: usize, per_principal: usize) -> Self {
        Self { most, per_principal, all: Arc::new(Semaphore::new(most)), held: Mutex::default() }
    }

    /// A place for a principal's query, now or not at all.
    pub(super) fn take(self: &Arc<Self>, who: &str) -> Result<Place, Status> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(who).copied().unwrap_or(0);
        let (most, per_principal) = (self.most, self.per_principal);
        if per_principal <= count {
            let why = format!(
                "{who:?} has {per_principal} queries running or not read yet, which is all it may have: read or end one"
            );
            return Err(Status::resource_exhausted(why));
        }
        let one = self.all.clone().try_acquire_owned();
        let one = one.map_err(|_| {
            Status::resource_exhausted(format!("{most} queries run already: try again in some seconds"))
        })?;
        held.insert(who.to_owned(), count + 1);
        Ok(Place { _one: one, of: Arc::clone(self), who: Some(who.to_owned()) })
    }

    /// Waits for a place: for what nobody sits in front of.
    pub(super) async fn turn(self: &Arc<Self>) -> Result<Place, Status> {
        let one = self.all.clone().acquire_owned().await;
        let one = one.map_err(|_| Status::unavailable("the collector is stopping"))?;
        Ok(Place { _one: one, of: Arc::clone(self), who: None })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(who) = self.who.take() else { return };
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&who) {
            Some(count) if 1 < *count => *count -= 1,
            _ => drop(held.remove(&who)),
        }
    }
}

/// What goes with an answer until it is taken; the guard moves it to the answer's body.
#[derive(Clone, Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "it is held, and given back when dropped")] Arc<Place>);

/// An answer that keeps its place until it is taken.
pub(super) fn answer<T>(message: T, place: Place) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(Held(Arc::new(place)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_holds_all_places() {
        let places = Arc::new(Places::default());
        let mut held: Vec<Place> = (0..PER_PRINCIPAL).map(|_| places.take("a").unwrap()).collect();
        let refused = places.take("a").unwrap_err();
        assert!(refused.message().contains("8 queries"), "{refused}");
        held.extend((0..PLACES - PER_PRINCIPAL).map(|_| places.take("b").unwrap()));
        assert!(places.take("c").unwrap_err().message().contains("try again"));
        drop(held);
        assert!(places.take("a").is_ok());
        assert!(places.held.lock().unwrap().is_empty(), "who holds nothing takes no memory");
    }
}
