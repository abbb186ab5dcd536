//! Reads a log from any record to its durable end, while the writer goes on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::cursor::{Cursor, Found};
use super::head::{Head, Segment};
use super::{LogError, failed, segment};
use crate::disk::Disk;
use crate::frame::Role;

/// A frame of the log, the log's own excepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's number; for an unnumbered frame that of the record after it.
    pub seq: u64,
    pub numbered: bool,
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// A position in a log. Independent of the writer and of other readers; may live in another thread.
///
/// Damaged records are passed over: a `seq` higher than the one expected says how many are lost, unless they are numbers
/// that a crash tore off before they were durable (`torn_off_before`).
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    salt: u32,
    head: Arc<Head>,
    /// The next record to return.
    position: u64,
    place: Option<Place>,
    /// The first number of the segment before which the last jump was, if nothing durable can have been there.
    torn_off_before: Option<u64>,
}

/// Where the position is: a segment and what was last known of it.
struct Place {
    cursor: Cursor,
    segment: Segment,
    durable_bytes: u64,
    /// Where the next segment starts, once there is one.
    until: Option<u64>,
    generation: u64,
    /// Whether anything since the last record could not be read.
    spoiled: bool,
}

impl Reader {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, salt: u32, head: Arc<Head>) -> Self {
        let position = head.segments().first().map_or(1, |first| first.first_seq);
        Self { disk, dir, salt, head, position, place: None, torn_off_before: None }
    }

    /// The number of the next record that `next` looks for.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The highest number that `next` can return now.
    pub fn durable_seq(&self) -> u64 {
        self.head.durable_seq()
    }

    /// Whether the numbers that are missing right before this one were never durable: the segment before ends where its
    /// last whole record does, because what a crash had left of the next ones was cut off when the log was opened.
    pub fn torn_off_before(&self, seq: u64) -> bool {
        self.torn_off_before == Some(seq)
    }

    /// Moves to a record, or to where it will be. `next` then returns the unnumbered frames before it in its segment,
    /// in order, and then the record. `Gone` says that it was dropped; the position stays as it was.
    pub fn seek(&mut self, seq: u64) -> Result<(), LogError> {
        if let Some(Err(first_seq)) = self.head.segment_for(seq) {
            return Err(LogError::Gone { first_seq });
        }
        self.position = seq;
        self.place = None;
        Ok(())
    }

    /// The next frame; `None` at the durable end, where a later call may find more.
    #[expect(clippy::should_implement_trait, reason = "fails, and goes on after None")]
    pub fn next(&mut self) -> Result<Option<Entry>, LogError> {
        loop {
            self.refresh_if_changed()?;
            let Some(place) = &mut self.place else { return Ok(None) };
            let found = place.cursor.next(place.durable_bytes);
            match found
                .map_err(|error| failed("read", &segment::path(&self.dir, place.segment.first_seq))(error))?
            {
                Found::Frame { header, payload } if header.role != Role::Segment => {
                    let numbered = header.role == Role::Numbered;
                    place.spoiled &= !numbered; // What is missing before a record shows in its number.
                    let ours = place.until.is_none_or(|until| header.seq < until + u64::from(!numbered));
                    if !ours || (numbered && header.seq < self.position) {
                        continue;
                    }
                    let payload = place.cursor.payload(payload).to_vec();
                    if numbered {
                        self.position = header.seq + 1;
                    }
                    return Ok(Some(Entry { seq: header.seq, numbered, kind: header.kind, payload }));
                }
                Found::Frame { .. } => {}
                Found::Spoiled { .. } | Found::Garbage { .. } => place.spoiled = true,
                Found::End { bytes, .. } => match place.until {
                    None => return Ok(None),
                    Some(until) => {
                        let whole = bytes == 0 && !place.spoiled;
                        self.torn_off_before = (whole && self.position < until).then_some(until);
                        self.position = self.position.max(until);
                        self.place = None;
                    }
                },
            }
        }
    }

    fn refresh_if_changed(&mut self) -> Result<(), LogError> {
        let generation = self.head.generation();
        match &self.place {
            Some(place) if place.generation == generation => Ok(()),
            _ => self.refresh(generation),
        }
    }

    /// Learns from the writer what became of the place, or finds one for the position. In a log without segments
    /// there is none.
    fn refresh(&mut self, generation: u64) -> Result<(), LogError> {
        loop {
            // A place is kept while its segment is: the position may already be the first of the next one.
            let at = self.place.as_ref().map_or(self.position, |place| place.segment.first_seq);
            let (found, until) = match self.head.segment_for(at) {
                None => return Ok(()),
                Some(Ok(found)) => found,
                Some(Err(_)) if self.place.take().is_some() => continue, // Its segment was dropped.
                Some(Err(first_seq)) => return Err(LogError::Gone { first_seq }),
            };
            match &mut self.place {
                Some(place) if place.segment.id == found.id => {
                    place.durable_bytes = found.bytes;
                    place.until = until;
                    place.generation = generation;
                    return Ok(());
                }
                _ => {}
            }
            let path = segment::path(&self.dir, found.first_seq);
            match self.disk.open(&path) {
                Ok(file) => {
                    let cursor = Cursor::new(file, self.salt, 0);
                    let durable_bytes = found.bytes;
                    let (segment, spoiled) = (found, false);
                    self.place = Some(Place { cursor, segment, durable_bytes, until, generation, spoiled });
                    return Ok(());
                }
                // Someone removed it behind the writer's back: its records are lost, the next segment's are not.
                Err(error) if error.kind() == io::ErrorKind::NotFound && until.is_some() => {
                    self.place = None;
                    self.position = self.position.max(until.unwrap_or(0));
                }
                Err(error) => return Err(failed("open", &path)(error)),
            }
        }
    }
}
