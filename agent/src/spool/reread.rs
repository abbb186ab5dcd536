//! Reading what is settled already, for the rows that later rows of a chain were made from.
//!
//! Reads change nothing: what is missing here is not lost, it may only have been dropped.

use tocsin_shared::lane::Lane;
use tocsin_shared::log::{Entry, LogError};

use super::{Reason, Spool, SpoolError};

impl Spool {
    /// The records `first..=last` as far as they are still here, settled ones included, with the header frames of
    /// their segments. Independent of where `read` is.
    pub fn reread(&self, lane: Lane, first: u64, last: u64) -> Result<Vec<Entry>, SpoolError> {
        let mut reader = self.lane(lane).log.reader();
        let mut entries = Vec::new();
        match reader.seek(first.max(1)) {
            Ok(()) => {}
            Err(LogError::Gone { .. }) => return Ok(entries),
            Err(error) => return Err(SpoolError::log(lane)(error)),
        }
        while let Some(entry) = reader.next().map_err(SpoolError::log(lane))? {
            if entry.seq > last {
                break;
            }
            let is_end = entry.numbered && entry.seq == last;
            entries.push(entry);
            if is_end {
                break;
            }
        }
        Ok(entries)
    }

    /// Gives up a record that is whole but of no use, such as a row whose chain is damaged before it.
    pub fn give_up(&mut self, lane: Lane, seq: u64) {
        self.lose(lane, (seq, seq), Reason::Corrupt);
    }
}
