//! Cursors: where a consumer goes on, as opaque text.
//!
//! A cursor names the store it is of: positions of another journal mean nothing here, and are refused, not guessed at.

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

/// Why a text is not a cursor of this store.
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
    pub fn write(&self, cursor: Cursor) -> String {
        match cursor {
            Cursor::Snapshot => format!("{}-{SNAPSHOT}", self.epoch),
            Cursor::After(seq) => format!("{}-{seq}", self.epoch),
        }
    }

    /// Reads a cursor; `head` is the last event there is.
    pub fn read(&self, text: &str, head: u64) -> Result<Cursor, InvalidCursor> {
        let malformed = || InvalidCursor::Malformed(text.chars().take(TEXT_BYTES_MAX).collect());
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed());
        }
        let (epoch, place) = text.rsplit_once('-').ok_or_else(malformed)?;
        let cursor = match place {
            SNAPSHOT => Cursor::Snapshot,
            place if place.bytes().all(|digit| digit.is_ascii_digit()) => {
                Cursor::After(place.parse().map_err(|_| malformed())?)
            }
            _ => return Err(malformed()),
        };
        if epoch != self.epoch {
            return Err(InvalidCursor::OtherStore(epoch.to_owned()));
        }
        match cursor {
            Cursor::After(seq) if seq > head => Err(InvalidCursor::Beyond { seq, head }),
            cursor => Ok(cursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: F6, C16 (partly)
    #[test]
    fn cursors_are_of_one_store_and_not_beyond_its_head() {
        let cursors = Cursors::new("a1-b2");
        let malformed = |text: &str| Err(InvalidCursor::Malformed(text.into()));
        let long = format!("a1-b2-{}", "0".repeat(200));
        for (text, expected) in [
            ("a1-b2-0", Ok(Cursor::After(0))),
            ("a1-b2-10", Ok(Cursor::After(10))),
            ("a1-b2-11", Err(InvalidCursor::Beyond { seq: 11, head: 10 })),
            ("a1-b2-snapshot", Ok(Cursor::Snapshot)),
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
            assert_eq!(cursors.read(&cursors.write(cursor), u64::MAX), Ok(cursor));
        }
    }
}
