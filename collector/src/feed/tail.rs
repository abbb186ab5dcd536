//! The tail: reads the events journal from a position on, a piece at a time, and never skips in silence.
//!
//! What is missing (dropped, or damaged) comes out as a gap; reading goes on with the first event after it. Blocking:
//! for a thread that may wait for the disk. Holds at most a piece in memory.

use tocsin_shared::event::{Event, Subject};
use tocsin_shared::log::{LogError, Reader};

use super::Filter;
use crate::journal::{JournalError, ledger};

/// Events looked at for one piece: some milliseconds of work, after which the reader is asked whether it is still there.
const PIECE_EVENTS_MAX: usize = 256;
/// Bytes of wanted events in one piece; a larger event comes alone.
pub(crate) const PIECE_BYTES_MAX: usize = 512 * 1024;

/// A position in the journal and what reads on from there.
pub struct Tail {
    reader: Reader,
    /// The next event to look at.
    next: u64,
    sought: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Wanted events in order, perhaps none, and whether more may be there already.
    Events { events: Vec<Event>, more: bool },
    /// These events are missing; both ends are.
    Gap { first: u64, last: u64 },
}

impl Tail {
    /// Reads what comes after a position.
    pub fn after(reader: Reader, seq: u64) -> Self {
        Self { reader, next: seq.saturating_add(1), sought: false }
    }

    /// Reads from the oldest event kept.
    pub fn earliest(reader: Reader) -> Self {
        let next = reader.position();
        Self { reader, next, sought: true }
    }

    /// Everything up to here was looked at.
    pub fn position(&self) -> u64 {
        self.next - 1
    }

    /// Goes on after a position instead.
    pub fn skip_to(&mut self, seq: u64) {
        (self.next, self.sought) = (seq.saturating_add(1), false);
    }

    /// Reads the next piece.
    pub fn read(&mut self, filter: &Filter) -> Result<Piece, JournalError> {
        if !self.sought {
            match self.reader.seek(self.next) {
                Err(LogError::Gone { first_seq }) => return Ok(self.gap(first_seq)),
                sought => sought?,
            }
            self.sought = true;
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        for _ in 0..PIECE_EVENTS_MAX {
            let entry = match self.reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(Piece::Events { events, more: false }),
                Err(LogError::Gone { first_seq }) if events.is_empty() => return Ok(self.gap(first_seq)),
                Err(LogError::Gone { .. }) => break, // The next piece is the gap.
                Err(error) => return Err(error.into()),
            };
            if !entry.numbered {
                continue;
            }
            // What a crash tore off was never durable, so nobody was told of it, and nobody misses it.
            if entry.seq > self.next && !self.reader.torn_off_before(entry.seq) {
                self.sought = false; // This one is read again after the gap.
                if events.is_empty() {
                    return Ok(self.gap(entry.seq));
                }
                break;
            }
            let mut event = ledger::decode(&entry.payload, entry.seq)?;
            self.next = entry.seq + 1;
            if filter.takes(event.kind) {
                withhold_output(&mut event);
                events.push(event);
                bytes += entry.payload.len();
            }
            if bytes >= PIECE_BYTES_MAX {
                break;
            }
        }
        Ok(Piece::Events { events, more: true })
    }

    fn gap(&mut self, goes_on_with: u64) -> Piece {
        let (first, last) = (self.next, goes_on_with.saturating_sub(1));
        self.skip_to(last);
        Piece::Gap { first, last }
    }
}

/// Output of jobs is for responders, who ask for the run.
fn withhold_output(event: &mut Event) {
    if let Subject::Run(run) = &mut event.subject {
        run.output_tail = String::new();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use prost::Message;
    use tocsin_proto::pb;
    use tocsin_shared::disk::{Disk, MemoryDisk};
    use tocsin_shared::event::EventKind;
    use tocsin_shared::identity::Env;
    use tocsin_shared::log::{Config, Log};
    use uuid::Uuid;

    use super::*;
    use crate::journal::EVENTS_FORMAT;
    use crate::state::Command;
    use crate::state::testing::{self, Desk, on, rule};

    /// A journal of incident 1: seq 1 triggers an alert, seq 2 the incident, each later one is a note.
    fn journal(notes: usize) -> Vec<Event> {
        let mut desk = Desk::with_hosts(1, Env::Prod);
        desk.now = 10;
        desk.evaluate(&rule("one", 0, 0), &[("sda", "critical")]);
        for note in 0..notes {
            desk.done(Command::Note(on(1, &format!("note {note}"))));
        }
        for (at, event) in desk.journal.iter_mut().enumerate() {
            event.seq = at as u64 + 1;
        }
        desk.journal
    }

    fn log(disk: &Arc<dyn Disk>, segment_bytes: u64) -> Log {
        let config = Config { segment_bytes, scan_all: false };
        Log::open(disk.clone(), Path::new("/events"), EVENTS_FORMAT, config).unwrap().0
    }

    fn append(log: &mut Log, events: &[Event]) {
        for event in events {
            log.append(0, &pb::Event::from(event).encode_to_vec()).unwrap();
        }
        log.sync().unwrap();
    }

    fn all() -> Filter {
        Filter::parse::<&str>(&[]).unwrap()
    }

    /// Everything that is there, and the gaps.
    fn drain(tail: &mut Tail) -> (Vec<u64>, Vec<(u64, u64)>) {
        let (mut seqs, mut gaps) = (Vec::new(), Vec::new());
        loop {
            match tail.read(&all()).unwrap() {
                Piece::Gap { first, last } => gaps.push((first, last)),
                Piece::Events { events, more } => {
                    seqs.extend(events.iter().map(|event| event.seq));
                    if !more {
                        return (seqs, gaps);
                    }
                }
            }
        }
    }

    // Cases: C-F1
    #[test]
    fn a_tail_gives_exactly_what_comes_after_its_position() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut log = log(&disk, 1 << 20);
        let events = journal(700);
        append(&mut log, &events[..600]);
        for after in [0, 1, 255, 256, 599, 600] {
            let mut tail = Tail::after(log.reader(), after);
            assert_eq!(drain(&mut tail), ((after + 1..=600).collect(), vec![]), "after {after}");
            assert_eq!(tail.position(), 600);
        }
        let mut tail = Tail::earliest(log.reader());
        assert_eq!(drain(&mut tail).0.len(), 600);
        append(&mut log, &events[600..]);
        assert_eq!(drain(&mut tail).0, (601..=events.len() as u64).collect::<Vec<_>>(), "and goes on");
    }

    // Cases: F5, C-F3
    #[test]
    fn what_was_dropped_is_a_gap_and_the_rest_comes() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut log = log(&disk, 8 * 1024);
        append(&mut log, &journal(300));
        let mut slow = Tail::after(log.reader(), 0);
        let Piece::Events { events, more: true } = slow.read(&all()).unwrap() else { panic!("no events") };
        let reached = events.last().unwrap().seq;
        let last = log.segments().last().unwrap().last_seq;
        log.drop_segments_before(last).unwrap();
        let first = log.segments().first().unwrap().first_seq;
        assert!(first > reached + 1, "the test drops what is not read yet");
        for (tail, missing) in [(&mut slow, reached + 1), (&mut Tail::after(log.reader(), 4), 5)] {
            let (seqs, gaps) = drain(tail);
            assert_eq!(gaps, [(missing, first - 1)]);
            assert_eq!(seqs, (first..=last).collect::<Vec<_>>());
        }
        assert_eq!(drain(&mut Tail::earliest(log.reader())).1, []);
    }

    // Cases: C5
    #[test]
    fn a_damaged_event_is_a_gap() {
        let memory = MemoryDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let mut log = log(&disk, 1 << 20);
        append(&mut log, &journal(6));
        let path = log.segments()[0].path.clone();
        let mut content = memory.content(&path).unwrap();
        let damaged = content.windows(6).position(|text| text == b"note 2").unwrap();
        content[damaged] ^= 1;
        memory.set_content(&path, content);
        assert_eq!(drain(&mut Tail::after(log.reader(), 0)), (vec![1, 2, 3, 4, 6, 7, 8], vec![(5, 5)]));
    }

    // Cases: C2
    #[test]
    fn what_a_power_cut_tore_off_is_no_gap() {
        let memory = MemoryDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let events = journal(6);
        let mut before = log(&disk, 1 << 20);
        append(&mut before, &events[..3]);
        let path = before.segments()[0].path.clone();
        drop(before);
        let mut content = memory.content(&path).unwrap();
        let whole = content.len();
        content.extend([0; 500]); // The file had grown; what was written did not reach the disk.
        memory.set_content(&path, content.clone());
        let mut after = log(&disk, 1 << 20);
        append(&mut after, &events[3..]);
        let next = after.segments().last().unwrap().first_seq;
        assert!(next > 4, "numbers that may have been used are not used again");
        for seq in [0, 2, 3] {
            let (seqs, gaps) = drain(&mut Tail::after(after.reader(), seq));
            assert_eq!(gaps, [], "after {seq}");
            assert_eq!(
                seqs,
                (seq + 1..=8).collect::<Vec<_>>(),
                "each event says its own number, after {seq}"
            );
        }
        let Some(last) = whole.checked_sub(2) else { panic!("an empty segment") };
        content.truncate(whole);
        content[last] ^= 1;
        memory.set_content(&path, content);
        assert_eq!(
            drain(&mut Tail::after(after.reader(), 0)).1,
            [(3, next - 1)],
            "a durable one that is damaged is"
        );
    }

    #[test]
    fn an_unreadable_event_is_an_error() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut log = log(&disk, 1 << 20);
        log.append(0, b"what a newer version may write").unwrap();
        log.sync().unwrap();
        assert!(Tail::after(log.reader(), 0).read(&all()).is_err(), "to pass over it would be silence");
    }

    #[test]
    fn only_wanted_events_come_and_none_with_output() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut log = log(&disk, 1 << 20);
        let mut events = journal(3);
        events[0].kind = EventKind::JobFailed;
        events[0].subject = Subject::Run(testing::run(Uuid::nil(), 1));
        append(&mut log, &events);
        let filter = Filter::parse(&["job.", "incident.triggered"]).unwrap();
        let Piece::Events { events, .. } = Tail::after(log.reader(), 0).read(&filter).unwrap() else {
            panic!("no events")
        };
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::JobFailed, EventKind::IncidentTriggered]);
        assert!(matches!(&events[0].subject, Subject::Run(run) if run.output_tail.is_empty()));
    }
}
