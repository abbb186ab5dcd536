//! Cursors: where a consumer goes on, as opaque text.
//!
//! A cursor names the store it is of: positions of another journal mean nothing here, and are refused, not guessed at.
//! It carries a checksum of the event at its position, so that it is refused, too, when an older copy of the data was
//! put back and the number now is another event's; and one of the filter it was read with. Cursors without them, as
//! older versions wrote them, are read.

/// Longer texts are no cursors of ours.
const TEXT_BYTES_MAX: usize = 128;
/// What stands in the place of the position.
const SNAPSHOT: &str = "snapshot";

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// With a snapshot: the one that was being sent was not finished.
    Snapshot,
    /// With the first event after this position.
    After(u64),
}

/// A cursor and what it says about the reading it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub cursor: Cursor,
    /// The checksum of the filter.
    pub filter: Option<u32>,
    /// The checksum of the event at the position.
    pub event: Option<u32>,
}

/// Why a text is not a cursor of this store, or not one to go on from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    #[error("not a cursor: {0:?}; use the text that an item of the feed carried, or begin with a snapshot")]
    Malformed(String),
    #[error("the cursor is of another store ({0}): this collector's data began anew; begin with a snapshot")]
    OtherStore(String),
    #[error(
        "the cursor is at {seq}, beyond the last event {head}: data was lost since; begin with a snapshot"
    )]
    Beyond { seq: u64, head: u64 },
    #[error(
        "the cursor is at {seq}, which is another event now: an older copy of the data was put back; begin with a snapshot"
    )]
    Replaced { seq: u64 },
    #[error(
        "{what} was read with other kinds: events before it that only these select would never come; begin with a snapshot, earliest or now, or set accept_filter_change (`--accept-filter-change`) to go on"
    )]
    OtherFilter { what: String },
}

impl Mark {
    /// Refuses a cursor that was read with another filter.
    pub fn read_with(&self, filter: u32) -> Result<(), InvalidCursor> {
        match self.filter {
            Some(other) if other != filter => {
                Err(InvalidCursor::OtherFilter { what: "the cursor".to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a cursor whose event is another one now; `found` is the checksum of the one that has its number.
    pub fn still_is(&self, found: Option<u32>) -> Result<(), InvalidCursor> {
        match (self.cursor, self.event, found) {
            (Cursor::After(seq), Some(known), Some(found)) if known != found => {
                Err(InvalidCursor::Replaced { seq })
            }
            _ => Ok(()),
        }
    }
}

/// The cursors of one store.
#[derive(Clone, Debug)]
pub struct Cursors {
    epoch: String,
}

impl Cursors {
    /// The cursors of the store with this epoch.
    pub fn new(epoch: impl Into<String>) -> Self {
        Self { epoch: epoch.into() }
    }

    /// A cursor as text.
    pub fn write(&self, mark: Mark) -> String {
        let place = match mark.cursor {
            Cursor::Snapshot => SNAPSHOT.to_owned(),
            Cursor::After(seq) => seq.to_string(),
        };
        let checksum = |of: Option<u32>| of.map(|of| format!(".{of:08x}")).unwrap_or_default();
        let filter = mark.filter.or(mark.event.map(|_| 0));
        format!("{}-{place}{}{}", self.epoch, checksum(filter), checksum(mark.event))
    }

    /// Reads a cursor; `head` is the last event there is.
    pub fn read(&self, text: &str, head: u64) -> Result<Mark, InvalidCursor> {
        let malformed = || InvalidCursor::Malformed(text.chars().take(TEXT_BYTES_MAX).collect());
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed());
        }
        let (epoch, rest) = text.rsplit_once('-').ok_or_else(malformed)?;
        let mut parts = rest.split('.');
        let cursor = match parts.next().unwrap_or_default() {
            SNAPSHOT => Cursor::Snapshot,
            place if place.bytes().all(|digit| digit.is_ascii_digit()) => {
                Cursor::After(place.parse().map_err(|_| malformed())?)
            }
            _ => return Err(malformed()),
        };
        let mut checksum = || parts.next().map(checksum_in).transpose().map_err(|NoChecksum| malformed());
        let (filter, event) = (checksum()?, checksum()?);
        if parts.next().is_some() {
            return Err(malformed());
        }
        if epoch != self.epoch {
            return Err(InvalidCursor::OtherStore(epoch.to_owned()));
        }
        match cursor {
            Cursor::After(seq) if seq > head => Err(InvalidCursor::Beyond { seq, head }),
            cursor => Ok(Mark { cursor, filter, event }),
        }
    }
}

struct NoChecksum;

fn checksum_in(text: &str) -> Result<u32, NoChecksum> {
    let hex = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| hex).ok_or(NoChecksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(cursor: Cursor, filter: Option<u32>, event: Option<u32>) -> Mark {
        Mark { cursor, filter, event }
    }

    // Cases: F6, C16
    #[test]
    fn cursors_are_of_one_store_and_not_beyond_its_head() {
        let cursors = Cursors::new("a1-b2");
        let malformed = |text: &str| Err(InvalidCursor::Malformed(text.into()));
        let long = format!("a1-b2-{}", "0".repeat(200));
        for (text, expected) in [
            ("a1-b2-0", Ok(mark(Cursor::After(0), None, None))),
            ("a1-b2-10", Ok(mark(Cursor::After(10), None, None))),
            ("a1-b2-10.0000000a", Ok(mark(Cursor::After(10), Some(10), None))),
            ("a1-b2-10.0000000a.ffffffff", Ok(mark(Cursor::After(10), Some(10), Some(u32::MAX)))),
            ("a1-b2-10.a", malformed("a1-b2-10.a")),
            ("a1-b2-10.+000000a", malformed("a1-b2-10.+000000a")),
            ("a1-b2-10.0000000a.0000000a.0000000a", malformed("a1-b2-10.0000000a.0000000a.0000000a")),
            ("a1-b2-11", Err(InvalidCursor::Beyond { seq: 11, head: 10 })),
            ("a1-b2-snapshot", Ok(mark(Cursor::Snapshot, None, None))),
            ("a1-b2-snapshot.00000001", Ok(mark(Cursor::Snapshot, Some(1), None))),
            ("a1-5", Err(InvalidCursor::OtherStore("a1".into()))),
            ("other-snapshot", Err(InvalidCursor::OtherStore("other".into()))),
            ("", malformed("")),
            ("10", malformed("10")),
            ("a1-b2-", malformed("a1-b2-")),
            ("a1-b2-+3", malformed("a1-b2-+3")),
            ("a1-b2-99999999999999999999", malformed("a1-b2-99999999999999999999")),
            (&long, malformed(&long[..TEXT_BYTES_MAX])),
        ] {
            assert_eq!(cursors.read(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let cursors = Cursors::new("0f");
        for cursor in [Cursor::Snapshot, Cursor::After(0), Cursor::After(u64::MAX)] {
            for (filter, event) in [(None, None), (Some(0), None), (Some(7), Some(u32::MAX))] {
                let mark = mark(cursor, filter, event);
                assert_eq!(cursors.read(&cursors.write(mark), u64::MAX), Ok(mark));
            }
        }
    }

    // Cases: F7, C16
    #[test]
    fn a_cursor_is_of_its_filter_and_of_its_event() {
        let (here, one, other) = (Cursor::After(5), Some(1), Some(2));
        for (mark, filter, found, same_filter, same_event) in [
            (mark(here, one, one), 1, one, true, true),
            (mark(here, one, one), 2, one, false, true),
            (mark(here, one, one), 1, other, true, false),
            (mark(here, one, one), 1, None, true, true), // Dropped or lost: a gap says so.
            (mark(here, None, None), 2, other, true, true), // Of an older version.
        ] {
            assert_eq!(mark.read_with(filter).is_ok(), same_filter, "{mark:?} {filter}");
            assert_eq!(mark.still_is(found).is_ok(), same_event, "{mark:?} {found:?}");
        }
    }
}
