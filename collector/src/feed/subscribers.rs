//! Who is subscribed as which consumer: one at a time, and the newest wins.
//!
//! A paging tool that restarts must not wait until its dead connection is noticed, so the newer one takes over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Filter;

/// The subscribers of named consumers. Bounded by the consumers there may be.
#[derive(Debug, Default)]
pub struct Subscribers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last: u64,
    by_consumer: HashMap<String, (u64, CancellationToken)>,
    /// What each consumer asked for last.
    wanted: HashMap<String, Filter>,
}

/// A subscription as a consumer; it ends when this is dropped.
#[derive(Debug)]
pub struct Connected {
    subscribers: Arc<Subscribers>,
    consumer: String,
    number: u64,
    taken_over: CancellationToken,
}

impl Connected {
    /// Cancelled when another subscriber has taken the consumer over.
    pub fn taken_over(&self) -> &CancellationToken {
        &self.taken_over
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut known = self.subscribers.lock();
        if known.by_consumer.get(&self.consumer).is_some_and(|(number, _)| *number == self.number) {
            known.by_consumer.remove(&self.consumer);
        }
    }
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes as a consumer; an older subscriber is told that it is over.
    pub fn take_over(self: &Arc<Self>, consumer: &str) -> Connected {
        let mut known = self.lock();
        known.last += 1;
        let (number, taken_over) = (known.last, CancellationToken::new());
        let older = known.by_consumer.insert(consumer.to_owned(), (number, taken_over.clone()));
        if let Some((_, older)) = older {
            older.cancel();
        }
        Connected { subscribers: self.clone(), consumer: consumer.to_owned(), number, taken_over }
    }

    /// Notes what a consumer asks for.
    pub fn wants(&self, consumer: &str, filter: Filter) {
        self.lock().wanted.insert(consumer.to_owned(), filter);
    }

    /// What a consumer asked for last, since the start.
    pub fn wanted(&self, consumer: &str) -> Option<Filter> {
        self.lock().wanted.get(consumer).cloned()
    }

    /// Whether somebody is subscribed as this consumer.
    pub fn is_connected(&self, consumer: &str) -> bool {
        self.lock().by_consumer.contains_key(consumer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: F4
    #[test]
    fn the_newest_subscriber_wins() {
        let subscribers = Arc::new(Subscribers::default());
        let (older, other) = (subscribers.take_over("pager"), subscribers.take_over("chat"));
        let newer = subscribers.take_over("pager");
        assert!(older.taken_over().is_cancelled());
        assert!(!newer.taken_over().is_cancelled() && !other.taken_over().is_cancelled());
        drop(older);
        assert!(subscribers.is_connected("pager"), "the older one's end does not end the newer");
        drop(newer);
        assert!(!subscribers.is_connected("pager") && subscribers.is_connected("chat"));
    }
}
