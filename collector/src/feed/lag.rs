//! How far a consumer of the feed is behind: since when the oldest event that it wants and has not acknowledged waits.
//!
//! Looked at now and then, each time from where the last look ended, so that many internal events cost one reading. The
//! events themselves say how old they are, so a restart of the collector forgets nothing. What a consumer wants is what
//! it asked for last; until it asks, every public event.

use std::time::Duration;

use tocsin_shared::access::Consumer;
use tocsin_shared::log::Reader;
use tocsin_shared::time::Timestamp;

use super::{Filter, Piece, Tail};
use crate::journal::JournalError;

/// A consumer this far behind is told of to whoever reads the feed by another way.
pub const BEHIND: Duration = Duration::from_secs(300);
/// One that did not acknowledge anything for so long is given up: somebody tried it, or the tool is gone for good.
const GIVEN_UP: Duration = Duration::from_secs(86_400);
/// Pieces of the journal that one look reads for one consumer: thousands of events; the next look reads on.
const PIECES_MAX: usize = 32;

/// One consumer's place.
pub struct Lag {
    acked: u64,
    filter: Filter,
    tail: Tail,
    /// The oldest event that waits, and since when.
    waits: Option<(u64, Timestamp)>,
}

impl Lag {
    /// Begins to look at a consumer.
    pub fn new(consumer: &Consumer, filter: Filter, reader: Reader) -> Self {
        let tail = Tail::after(reader, consumer.acked_seq);
        Self { acked: consumer.acked_seq, filter, tail, waits: None }
    }

    /// Whether this is still about the consumer as it stands.
    pub fn is_of(&self, consumer: &Consumer, filter: &Filter) -> bool {
        self.acked == consumer.acked_seq && self.filter == *filter
    }

    /// How long the oldest event waits; none when none does. Reads the disk.
    pub fn look(&mut self, now: Timestamp) -> Result<Option<Duration>, JournalError> {
        for _ in 0..PIECES_MAX {
            if self.waits.is_some() {
                break;
            }
            match self.tail.read(&self.filter)? {
                Piece::Gap { .. } => {} // What is no longer kept is told to the consumer itself.
                Piece::Events { events, more } => {
                    self.waits = events.first().map(|(event, _)| (event.seq, event.recorded_at));
                    if !more {
                        break;
                    }
                }
            }
        }
        Ok(self.waits.map(|(_, since)| now.since(since)))
    }
}

/// What is told of a consumer whose oldest event waits so long; nothing while that is little, or too much to matter.
pub fn behind(consumer: &Consumer, waits: Option<Duration>, now: Timestamp) -> Option<String> {
    let waits = waits.filter(|waits| *waits >= BEHIND)?;
    let last = consumer.acked_at.unwrap_or(consumer.created_at);
    if now.since(last) >= GIVEN_UP {
        return None;
    }
    let (name, minutes) = (&consumer.name, waits.as_secs() / 60);
    Some(format!(
        "consumer {name} has acknowledged nothing for {minutes} min while events wait for it: whoever it pages is not paged"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use prost::Message as _;
    use tocsin_proto::pb;
    use tocsin_shared::disk::{Disk, MemoryDisk};
    use tocsin_shared::event::{Event, EventKind};
    use tocsin_shared::identity::Env;
    use tocsin_shared::log::{Config, Log};

    use super::*;
    use crate::journal::EVENTS_FORMAT;
    use crate::state::testing::{Desk, rule};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn consumer(acked_seq: u64) -> Consumer {
        Consumer {
            name: "pager".into(),
            owner: "o".into(),
            acked_seq,
            created_at: at(0),
            acked_at: None,
            filter: None,
        }
    }

    // Cases: F3, C-F5
    #[test]
    fn a_consumer_is_behind_by_the_age_of_the_oldest_event_that_it_wants() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let config = Config { segment_bytes: 1 << 20, scan_all: false };
        let mut log = Log::open(disk, Path::new("/j"), EVENTS_FORMAT, config).unwrap().0;
        let mut desk = Desk::with_hosts(1, Env::Prod);
        desk.evaluate(&rule("one", 0, 0), &[("sda", "critical")]);
        let any = desk.journal.remove(0);
        let write = |log: &mut Log, kind: EventKind, seconds: i64| {
            let event = Event { seq: log.next_seq(), kind, recorded_at: at(seconds), ..any.clone() };
            log.append(0, &pb::Event::from(&event).encode_to_vec()).unwrap();
            log.sync().unwrap();
        };
        write(&mut log, EventKind::JobFailed, 10);
        write(&mut log, EventKind::ConsumerMoved, 20);
        write(&mut log, EventKind::IncidentTriggered, 30);
        let all = Filter::parse::<&str>(&[]).unwrap();
        let incidents = Filter::parse(&["incident."]).unwrap();
        for (acked, filter, waits) in [
            (0, &all, Some(390)),
            (1, &all, Some(370)),
            (2, &all, Some(370)),
            (3, &all, None),
            (0, &incidents, Some(370)),
        ] {
            let mut lag = Lag::new(&consumer(acked), filter.clone(), log.reader());
            let want = waits.map(Duration::from_secs);
            assert_eq!(lag.look(at(400)).unwrap(), want, "after {acked}, {filter:?}");
            assert!(lag.is_of(&consumer(acked), filter) && !lag.is_of(&consumer(acked + 1), filter));
        }
        let mut lag = Lag::new(&consumer(3), all, log.reader());
        assert_eq!(lag.look(at(400)).unwrap(), None);
        write(&mut log, EventKind::ConsumerMoved, 410);
        write(&mut log, EventKind::JobFailed, 420);
        assert_eq!(lag.look(at(425)).unwrap(), Some(Duration::from_secs(5)), "it reads on from where it was");
    }

    // Cases: F3, C-F5
    #[test]
    fn it_is_told_after_five_minutes_and_for_a_day() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (waits, now, told) in [
            (None, 500, false),
            (seconds(299), 500, false),
            (seconds(300), 500, true),
            (seconds(90_000), 90_000, false),
        ] {
            assert_eq!(behind(&consumer(1), waits, at(now)).is_some(), told, "{waits:?}");
        }
    }
}
