//! Rows that a host kept while it was away, waiting for their place with the rows' writer.
//!
//! When a fleet comes back, its backlogs are many times what the writer takes in a second. A session whose backlog
//! waits goes on reading, so an outcome or a new row of its host waits for nobody's backlog. Waiting rows are kept as
//! they came, not decoded. Promises: a session waits for one place at a time, in the order of asking, so every host
//! gets its share; nothing that came is dropped; a session that was sent more than an honest agent has on its way is
//! read no further until some of it is handed over.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Instant;

use tocsin_proto::pb;

use crate::journal::Stopping;
use crate::journal::rows::{Place, Rows};

/// Rows of one message that count as new: what a host measured in the seconds that a message took.
const NEW_ROWS_MAX: usize = 4;
/// Messages that wait: an agent sends one batch of its backlog at a time.
const MESSAGES_MAX: usize = 2;

type Asked = Pin<Box<dyn Future<Output = Result<Place, Stopping>> + Send + Sync>>;

/// Rows of a message, or what is left of them, and when they came.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) rows: Vec<pb::Row>,
    pub(super) received: Instant,
}

/// One session's.
#[derive(Default)]
pub(super) struct Backlog {
    messages: VecDeque<Kept>,
    /// Asked for when there is something to hand over, and kept until it is given: who asks anew is last again.
    place: Option<Asked>,
}

impl Backlog {
    /// Whether these rows have to wait: they are a backlog, or go on with a chain of rows that wait.
    pub(super) fn takes(&self, rows: &[pb::Row]) -> bool {
        let follows =
            |row: &pb::Row| self.messages.iter().flat_map(|kept| &kept.rows).any(|it| it.chain == row.chain);
        rows.len() > NEW_ROWS_MAX || rows.iter().any(follows)
    }

    pub(super) fn push(&mut self, kept: Kept) {
        self.messages.push_back(kept);
    }

    /// What was not handed over with a place waits for the next one.
    pub(super) fn push_front(&mut self, kept: Kept) {
        self.messages.push_front(kept);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= MESSAGES_MAX
    }

    /// The next rows and their place; never when nothing waits. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self, rows: &Rows) -> Result<(Kept, Place), Stopping> {
        if self.messages.is_empty() {
            return std::future::pending().await;
        }
        let place = self.place.get_or_insert_with(|| Box::pin(rows.place())).await;
        self.place = None;
        let kept = self.messages.pop_front().expect("there was one, and only this takes any");
        Ok((kept, place?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: N20
    #[test]
    fn a_backlog_waits_and_new_rows_do_not() {
        let rows = |chain: u64, count: u64| -> Vec<pb::Row> {
            (0..count).map(|at| pb::Row { seq: chain + at, chain, ..pb::Row::default() }).collect()
        };
        let mut backlog = Backlog::default();
        for (count, waits) in [(1, false), (4, false), (5, true), (512, true)] {
            assert_eq!(backlog.takes(&rows(1, count)), waits, "{count} rows");
        }
        backlog.push(Kept { rows: rows(1, 9), received: Instant::now() });
        assert!(backlog.takes(&rows(1, 1)), "a row of a chain whose earlier rows wait");
        assert!(!backlog.takes(&rows(100, 1)), "a new row of another chain");
        assert!(!backlog.is_full());
        backlog.push(Kept { rows: rows(20, 9), received: Instant::now() });
        assert!(backlog.is_full());
    }
}
