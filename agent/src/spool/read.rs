//! Reading a lane, from any record to its durable end, past what is settled and what is damaged.

use tocsin_shared::lane::Lane;
use tocsin_shared::log::{Entry, Log, LogError, Reader};

use super::{Reason, Spool, SpoolError};

/// Records of one lane, in order, as `read` found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records that are not settled, and the header frames before and between them.
    pub entries: Vec<Entry>,
    /// Where to read on. Equal to what was asked for when there was nothing.
    pub next_seq: u64,
}

/// One lane of an open spool.
pub(super) struct LaneLog {
    pub(super) lane: Lane,
    pub(super) log: Log,
    /// One for what is new and one for the backlog: each goes on where it was, however they take turns.
    readers: [Reader; 2],
    /// Which of them was used last.
    reading: usize,
    pub(super) evicted: u64,
    pub(super) discarded: u64,
}

impl LaneLog {
    pub(super) fn new(lane: Lane, log: Log) -> Self {
        let readers = [log.reader(), log.reader()];
        Self { lane, log, readers, reading: 0, evicted: 0, discarded: 0 }
    }

    /// Takes the reader that is at `seq`; if none is, the one that was not used last.
    fn choose_reader(&mut self, seq: u64) {
        let at = self.readers.iter().position(|reader| reader.position() == seq);
        self.reading = at.unwrap_or(1 - self.reading);
    }

    fn reader(&mut self) -> &mut Reader {
        &mut self.readers[self.reading]
    }
}

impl Spool {
    /// The records of a lane from a number on: about `max_bytes` of payload, at least one record if there is any.
    /// Settled ones are left out. Damaged ones are noted as gaps on the way. Who reads on where one of the last two
    /// places ended sees each header frame once; who starts elsewhere first sees those of the segment it starts in.
    pub fn read(&mut self, lane: Lane, from_seq: u64, max_bytes: usize) -> Result<Batch, SpoolError> {
        let mut batch = Batch { entries: Vec::new(), next_seq: from_seq.max(1) };
        if batch.next_seq > self.durable_seq(lane) {
            return Ok(batch);
        }
        self.lane_mut(lane).choose_reader(batch.next_seq);
        let (mut bytes, mut records) = (0, 0);
        while bytes < max_bytes || records == 0 {
            let Some(entry) = self.next_entry(lane, &mut batch.next_seq)? else { break };
            if entry.numbered && self.ledger.is_settled(lane, entry.seq) {
                continue;
            }
            bytes += entry.payload.len();
            records += usize::from(entry.numbered);
            batch.entries.push(entry);
        }
        if records == 0 && !batch.entries.is_empty() {
            batch.entries.clear(); // Headers without a record come again with the next one.
            self.lane_mut(lane).reader().seek(batch.next_seq).map_err(SpoolError::log(lane))?;
        }
        Ok(batch)
    }

    /// The frame at `next`, or the first after it; what is missing in between is lost.
    fn next_entry(&mut self, lane: Lane, next: &mut u64) -> Result<Option<Entry>, SpoolError> {
        let lane_log = self.lane_mut(lane);
        let durable_seq = lane_log.log.durable_seq();
        let reader = lane_log.reader();
        let found = match if reader.position() == *next { Ok(()) } else { reader.seek(*next) } {
            Ok(()) => reader.next(),
            Err(error) => Err(error),
        };
        let (end, entry) = match found {
            Ok(Some(entry)) => (entry.seq.max(*next), Some(entry)),
            Ok(None) => (durable_seq + 1, None),
            Err(LogError::Gone { first_seq }) => {
                reader.seek(first_seq).map_err(SpoolError::log(lane))?;
                self.lose(lane, (*next, first_seq - 1), Reason::Corrupt);
                *next = first_seq;
                return self.next_entry(lane, next);
            }
            Err(error) => return Err(SpoolError::log(lane)(error)),
        };
        if end > *next {
            self.lose(lane, (*next, end - 1), Reason::Corrupt);
            *next = end;
        }
        *next += u64::from(entry.as_ref().is_some_and(|entry| entry.numbered));
        Ok(entry)
    }
}
