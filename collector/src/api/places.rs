//! Places for queries: how many run or wait to be taken at a time, of all callers and of one.
//!
//! Promise: nobody holds all of them. A place goes with the answer until its caller has taken it: an answer that
//! nobody reads takes memory as one that is being computed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tonic::{Response, Status};

/// Of all callers: each may take a core and a gigabyte.
const PLACES: usize = 16;
/// Of one principal.
const PER_PRINCIPAL: usize = 8;
/// Callers that wait for a place: some dashboards that are opened at once.
const WAITING: usize = 512;
/// Of one principal.
const WAITING_PER_PRINCIPAL: usize = 128;

/// Subscribed queries of all callers: the panels of a wall of dashboards.
const SUBSCRIPTIONS: usize = 256;
/// Of one principal: the screens of a team that shares a credential.
const SUBSCRIPTIONS_PER_PRINCIPAL: usize = 128;

/// The places of a collector.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    per_principal: usize,
    all: Arc<Semaphore>,
    held: Mutex<HashMap<String, usize>>,
    /// Told when a place is given back.
    freed: Notify,
    waiting: Arc<Semaphore>,
    waiting_of: Mutex<HashMap<String, usize>>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(PLACES, PER_PRINCIPAL)
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// Always there until it is dropped.
    one: Option<OwnedSemaphorePermit>,
    of: Arc<Places>,
    who: Option<String>,
}

impl Places {
    /// The places of subscribed queries.
    pub(super) fn for_subscriptions() -> Self {
        Self::new(SUBSCRIPTIONS, SUBSCRIPTIONS_PER_PRINCIPAL)
    }

    fn new(most: usize, per_principal: usize) -> Self {
        Self {
            most,
            per_principal,
            all: Arc::new(Semaphore::new(most)),
            held: Mutex::default(),
            freed: Notify::new(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            waiting_of: Mutex::default(),
        }
    }

    /// A place for a principal's query, now or not at all.
    pub(crate) fn take(self: &Arc<Self>, who: &str) -> Result<Place, Status> {
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
        Ok(Place { one: Some(one), of: Arc::clone(self), who: Some(who.to_owned()) })
    }

    /// A place for a principal's query as soon as there is one: who opens a page of panels gets them one after another.
    /// Not at all for more than may wait.
    pub(crate) async fn wait(self: &Arc<Self>, who: &str) -> Result<Place, Status> {
        let mut ticket = None;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable(); // What is freed between the look and the wait counts.
            let full = match self.take(who) {
                Ok(place) => return Ok(place),
                Err(full) => full,
            };
            if ticket.is_none() {
                ticket = Some(Ticket::take(self, who).ok_or(full)?);
            }
            freed.await;
        }
    }

    /// Waits for a place: for what nobody sits in front of.
    pub(super) async fn turn(self: &Arc<Self>) -> Result<Place, Status> {
        let one = self.all.clone().acquire_owned().await;
        let one = one.map_err(|_| Status::unavailable("the collector is stopping"))?;
        Ok(Place { one: Some(one), of: Arc::clone(self), who: None })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(who) = self.who.take() {
            give_back(&self.of.held, &who);
        }
        drop(self.one.take());
        self.of.freed.notify_waiters();
    }
}

fn give_back(counts: &Mutex<HashMap<String, usize>>, who: &str) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    match counts.get_mut(who) {
        Some(count) if 1 < *count => *count -= 1,
        _ => drop(counts.remove(who)),
    }
}

/// One of those that may wait, given back when dropped.
struct Ticket {
    _one: OwnedSemaphorePermit,
    of: Arc<Places>,
    who: String,
}

impl Ticket {
    fn take(of: &Arc<Places>, who: &str) -> Option<Self> {
        let mut waiting = of.waiting_of.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.get(who).copied().unwrap_or(0);
        let one = of.waiting.clone().try_acquire_owned().ok().filter(|_| count < WAITING_PER_PRINCIPAL)?;
        waiting.insert(who.to_owned(), count + 1);
        Some(Self { _one: one, of: Arc::clone(of), who: who.to_owned() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        give_back(&self.of.waiting_of, &self.who);
    }
}

/// What goes with an answer until it is taken; the guard moves it to the answer's body.
#[derive(Clone, Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "it is held, and given back when dropped")] Arc<Place>);

/// An answer that keeps its place until it is taken.
pub(super) fn answer<T>(message: T, place: Place) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(held(place));
    response
}

/// A place as it goes with an answer, among its extensions.
pub(crate) fn held(place: Place) -> Held {
    Held(Arc::new(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_the_next_place_and_not_everybody_may_wait() {
        let places = Arc::new(Places::default());
        let mut held: Vec<Place> = (0..PER_PRINCIPAL).map(|_| places.take("a").unwrap()).collect();
        let mut waiting: Vec<_> = (0..WAITING_PER_PRINCIPAL)
            .map(|_| {
                let places = places.clone();
                Box::pin(async move { places.wait("a").await })
            })
            .collect();
        for one in &mut waiting {
            assert!(
                std::future::poll_fn(|cx| std::task::Poll::Ready(one.as_mut().poll(cx))).await.is_pending()
            );
        }
        assert!(places.wait("a").await.is_err(), "too many wait");
        assert!(places.wait("b").await.is_ok(), "others are not held up");
        drop(held.pop());
        let soon = std::time::Duration::from_secs(30);
        let got = tokio::time::timeout(soon, waiting.remove(0)).await.expect("a place is free").unwrap();
        drop((got, waiting, held));
        assert!(places.waiting_of.lock().unwrap().is_empty(), "who does not wait takes no memory");
        assert_eq!((places.all.available_permits(), places.waiting.available_permits()), (PLACES, WAITING));
    }

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
