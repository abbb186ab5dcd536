//! Which records were stored a moment ago, so that one handed in twice is stored once.
//!
//! A wrapper that hears no answer in time writes its record to the drop-box too, and then both copies arrive. Pure.
//! Keyed by uid as well: no user can spend another's run id. Copies further apart than the memory, or on both sides
//! of an agent's restart, pass; whoever folds the records of a run takes the first end.

use std::collections::{HashMap, VecDeque};

use tocsin_shared::job::{JobRecord, RunId};

/// Twenty times a minute's quota of one user; about 200 KiB.
const REMEMBERED_MAX: usize = 4096;

/// A record's identity: whose, which run, and which of its two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    uid: u32,
    run: RunId,
    is_end: bool,
}

impl Key {
    pub(crate) fn of(record: &JobRecord) -> Self {
        Self { uid: record.uid(), run: record.run_id(), is_end: matches!(record, JobRecord::Ended(_)) }
    }
}

/// What is known about a record that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not known; it is now being stored by the caller.
    New,
    /// Another copy is being stored right now, with an open end.
    Storing,
    /// Stored: this copy is done with.
    Stored,
}

/// How far a record came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Storing,
    Stored,
    /// The sink did not say that it is safe. It may have it all the same.
    Failed,
}

/// The last records that came in.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    stored: HashMap<Key, State>,
    order: VecDeque<Key>,
}

impl Recent {
    /// Notes that a record came in.
    pub(crate) fn begin(&mut self, key: Key) -> Seen {
        match self.stored.get(&key) {
            Some(State::Stored) => Seen::Stored,
            Some(State::Storing) => Seen::Storing,
            Some(State::Failed) => {
                self.stored.insert(key, State::Storing);
                Seen::New
            }
            None => {
                while self.order.len() >= REMEMBERED_MAX {
                    if let Some(oldest) = self.order.pop_front() {
                        self.stored.remove(&oldest);
                    }
                }
                self.stored.insert(key, State::Storing);
                self.order.push_back(key);
                Seen::New
            }
        }
    }

    /// Whether a record is stored, so that another copy of it costs nothing.
    pub(crate) fn is_stored(&self, key: Key) -> bool {
        self.stored.get(&key) == Some(&State::Stored)
    }

    /// Whether the sink was given a record: then it may have it, and no other record may count its run, too.
    pub(crate) fn was_tried(&self, key: Key) -> bool {
        self.stored.contains_key(&key)
    }

    /// Whether the end of a record's run is stored: its start comes late, and nothing is to be waited for.
    pub(crate) fn has_ended(&self, key: Key) -> bool {
        self.is_stored(Key { is_end: true, ..key })
    }

    /// Notes how the storing went; a record that could not be stored may come again.
    pub(crate) fn finish(&mut self, key: Key, stored: bool) {
        if let Some(state) = self.stored.get_mut(&key) {
            *state = if stored { State::Stored } else { State::Failed };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::envelope::tests::{ended, started};
    use tocsin_shared::job::Outcome;

    fn key(run: u128, uid: u32) -> Key {
        Key::of(&ended(run, uid, Outcome::Exited(0), ""))
    }

    #[test]
    fn a_copy_is_known_once_the_first_is_stored() {
        let mut recent = Recent::default();
        let first = key(7, 1000);
        assert_eq!(recent.begin(first), Seen::New);
        assert_eq!(recent.begin(first), Seen::Storing);
        recent.finish(first, false);
        assert!(recent.was_tried(first) && !recent.is_stored(first));
        assert_eq!(recent.begin(first), Seen::New, "a failure may be tried again");
        recent.finish(first, true);
        assert_eq!(recent.begin(first), Seen::Stored);
        for (other, why) in [
            (key(7, 1001), "another user's run of the same id"),
            (key(8, 1000), "another run"),
            (Key::of(&started(1000)), "the start of the same run"),
        ] {
            assert_eq!(recent.begin(other), Seen::New, "{why}");
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut recent = Recent::default();
        for run in 0..2 * REMEMBERED_MAX as u128 {
            assert_eq!(recent.begin(key(run, 1)), Seen::New);
            recent.finish(key(run, 1), true);
        }
        assert_eq!((recent.stored.len(), recent.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert_eq!(recent.begin(key(0, 1)), Seen::New, "the oldest is forgotten");
    }
}
