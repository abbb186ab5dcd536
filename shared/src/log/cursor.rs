//! Walks the frames of one segment file, past damage, without ever holding more than a frame and a chunk.

use std::io;
use std::ops::Range;

use crate::disk::DiskFile;
use crate::frame::{self, Decoded, Header};

/// How much is read at a time: large enough that system calls cost little, small enough for an agent.
const CHUNK: usize = 128 * 1024;

/// What comes next in a segment.
pub(super) enum Found {
    /// A whole frame. Its payload is `cursor.payload(range)` until the next call.
    Frame { header: Header, payload: Range<usize> },
    /// A frame with a damaged payload; walked past.
    Spoiled { header: Header },
    /// Bytes that are no frame; walked past.
    Garbage { bytes: u64 },
    /// Nothing more below the limit but `bytes` bytes that are not yet, or never will be, a frame. Asking again with
    /// a higher limit goes on from here.
    End { header: Option<Header>, bytes: u64 },
}

pub(super) struct Cursor {
    file: Box<dyn DiskFile>,
    salt: u32,
    buffer: Vec<u8>,
    /// Where in `buffer` the next frame starts.
    start: usize,
    /// Where in the file the next frame starts.
    offset: u64,
}

impl Cursor {
    pub(super) fn new(file: Box<dyn DiskFile>, salt: u32, offset: u64) -> Self {
        Self { file, salt, buffer: Vec::new(), start: 0, offset }
    }

    /// Where in the file the next frame starts.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn payload(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// What comes next below `limit`, an offset in the file that never goes down.
    pub(super) fn next(&mut self, limit: u64) -> io::Result<Found> {
        loop {
            let unread = &self.buffer[self.start..];
            let left = limit.saturating_sub(self.offset);
            let at_limit = unread.len() as u64 >= left;
            let decoded = frame::decode(self.salt, unread);
            match decoded {
                Decoded::Frame { header, payload } => {
                    let payload = payload.start + self.start..payload.end + self.start;
                    self.advance(header.frame_bytes());
                    return Ok(Found::Frame { header, payload });
                }
                Decoded::Spoiled { header } => {
                    self.advance(header.frame_bytes());
                    return Ok(Found::Spoiled { header });
                }
                Decoded::Garbage { skip } if skip > 0 => {
                    self.advance(skip);
                    return Ok(Found::Garbage { bytes: skip as u64 });
                }
                Decoded::Short { header, .. } if at_limit => return Ok(Found::End { header, bytes: left }),
                Decoded::Short { needed, .. } => {
                    if !self.fill(needed, left)? {
                        return Ok(Found::End { header: None, bytes: left });
                    }
                }
                // Only no bytes at all are garbage of no length.
                Decoded::Garbage { .. } if at_limit => return Ok(Found::End { header: None, bytes: 0 }),
                Decoded::Garbage { .. } => {
                    if !self.fill(1, left)? {
                        return Ok(Found::End { header: None, bytes: left });
                    }
                }
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Reads on until `needed` bytes are there, or all `left` ones; whether anything was read.
    fn fill(&mut self, needed: usize, left: u64) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let have = self.buffer.len();
        let wanted = needed.max(CHUNK).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(wanted.max(have), 0);
        let read = self.file.read_at(self.offset + have as u64, &mut self.buffer[have..]);
        self.buffer.truncate(have + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}
