//! What a log finds when it is opened: its segments, the next number, and what a crash or a bad disk cost.
//!
//! Only reads. Each number that may have been used stays used: where damage hides how many records there were, as
//! many numbers are skipped as could have fitted.

use std::io;
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, Found};
use super::head::Segment;
use super::{Format, LogError, failed, segment};
use crate::disk::Disk;
use crate::frame::{self, HEADER_BYTES, Header, Role};

/// The furthest a number can jump from one frame to the next and be believed. No segment holds as many records.
const JUMP_MAX: u64 = 1 << 40;

/// Records that are not there any more. The range is closed; of a torn tail it may name numbers never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub first: u64,
    pub last: u64,
    /// Whether they were at the very end, where a crash tears; otherwise a disk or a person damaged them.
    pub torn: bool,
}

/// The state of a log at its opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The number the next record gets.
    pub next_seq: u64,
    /// What is missing in the segments that were read, in order.
    pub lost: Vec<Lost>,
    /// Bytes at the end of the last segment that are no whole frame.
    pub torn_bytes: u64,
    /// What else is in the directory; it stays there.
    pub foreign: Vec<PathBuf>,
}

/// A recovery and what only the log itself needs of it.
pub(super) struct Recovered {
    pub(super) recovery: Recovery,
    pub(super) segments: Vec<Segment>,
    /// Where the last segment must be cut off, if it is torn.
    pub(super) torn_at: Option<u64>,
}

pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    format: Format,
    scan_all: bool,
) -> Result<Recovered, LogError> {
    disk.create_dir(dir).map_err(failed("create", dir))?;
    let Listing { mut segments, foreign, claimed } = list(disk, dir)?;
    let mut headers = Vec::with_capacity(segments.len());
    for listed in &segments {
        let path = segment::path(dir, listed.first_seq);
        let file = disk.open(&path).map_err(failed("open", &path))?;
        headers.push(segment::check_header(&*file, &path, format)?);
    }
    let mut recovery =
        Recovery { next_seq: claimed.map_or(1, |seq| seq + 1), foreign, ..Recovery::default() };
    let mut torn_at = None;
    for at in 0..segments.len() {
        let last = at + 1 == segments.len();
        if !last && !scan_all {
            continue;
        }
        let Segment { first_seq, bytes, .. } = segments[at];
        let path = segment::path(dir, first_seq);
        let file = disk.open(&path).map_err(failed("open", &path))?;
        let cursor = Cursor::new(file, frame::salt(format.name), headers[at]);
        let until = segments.get(at + 1).map_or(u64::MAX, |next| next.first_seq);
        let mut scan = Scan::new(first_seq, until, headers[at]);
        scan.run(cursor, bytes).map_err(failed("read", &path))?;
        recovery.lost.append(&mut scan.lost);
        let torn_bytes = bytes.saturating_sub(scan.whole_end);
        let end = if last { scan.next_seq(torn_bytes > 0) } else { until };
        if scan.expected < end {
            recovery.lost.push(Lost { first: scan.expected, last: end - 1, torn: last });
        }
        if last {
            let beyond = claimed.filter(|seq| *seq >= end);
            recovery.lost.extend(beyond.map(|seq| Lost { first: end, last: seq, torn: false }));
            recovery.next_seq = beyond.map_or(end, |seq| seq + 1);
            recovery.torn_bytes = torn_bytes;
            torn_at = (torn_bytes > 0).then_some(scan.whole_end);
            segments[at].bytes = scan.whole_end;
        }
    }
    Ok(Recovered { recovery, segments, torn_at })
}

/// What a log's directory holds.
#[derive(Default)]
struct Listing {
    /// In order.
    segments: Vec<Segment>,
    /// Everything else.
    foreign: Vec<PathBuf>,
    /// The highest number whose segment's name has something else. It stays there, so the log goes on behind it.
    claimed: Option<u64>,
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Listing, LogError> {
    let mut listing = Listing::default();
    for listed in disk.list(dir).map_err(failed("list", dir))? {
        let Listing { segments, foreign, claimed } = &mut listing;
        match segment::first_seq(&listed.name) {
            Some(first_seq) if listed.regular => {
                segments.push(Segment { first_seq, id: segments.len() as u64, bytes: listed.bytes });
            }
            named => {
                *claimed = named.filter(|seq| *seq < JUMP_MAX).max(*claimed);
                foreign.push(dir.join(listed.name));
            }
        }
    }
    listing.segments.sort_by_key(|segment| segment.first_seq);
    listing.foreign.sort();
    Ok(listing)
}

/// What was seen so far in one segment.
struct Scan {
    /// The number of the next record if none is missing.
    expected: u64,
    /// Where the next segment starts: a record from there on is what a failed fsync left behind.
    until: u64,
    /// The end of the last whole frame.
    whole_end: u64,
    /// The number after the highest that a readable header named.
    named: u64,
    /// Bytes since the last readable header that are no frame.
    garbage: u64,
    lost: Vec<Lost>,
}

impl Scan {
    fn new(first_seq: u64, until: u64, whole_end: u64) -> Self {
        Self { expected: first_seq, until, whole_end, named: first_seq, garbage: 0, lost: Vec::new() }
    }

    fn run(&mut self, mut cursor: Cursor, limit: u64) -> io::Result<()> {
        loop {
            match cursor.next(limit)? {
                Found::Frame { header, .. } if self.believable(&header) => {
                    self.frame(&header);
                    self.whole_end = cursor.offset();
                }
                Found::Spoiled { header } if self.believable(&header) => self.name(&header),
                Found::Frame { header, .. } | Found::Spoiled { header } => {
                    self.garbage += header.frame_bytes() as u64;
                }
                Found::Garbage { bytes } => self.garbage += bytes,
                Found::End { header: Some(header), .. } if self.believable(&header) => {
                    self.name(&header);
                    return Ok(());
                }
                Found::End { bytes, .. } => {
                    self.garbage += bytes;
                    return Ok(());
                }
            }
        }
    }

    /// Whether a frame can stand here: numbers go up, by steps that a segment can hold, up to the next segment.
    fn believable(&self, header: &Header) -> bool {
        let jump = header.seq.checked_sub(self.named.max(self.expected));
        let inside = match header.role {
            Role::Numbered => header.seq < self.until,
            Role::Unnumbered => header.seq <= self.until,
            Role::Segment => false,
        };
        inside && jump.is_some_and(|jump| jump < JUMP_MAX)
    }

    fn frame(&mut self, header: &Header) {
        if header.seq > self.expected {
            self.lost.push(Lost { first: self.expected, last: header.seq - 1, torn: false });
        }
        self.name(header);
        self.expected = self.named;
    }

    fn name(&mut self, header: &Header) {
        self.named = header.seq + u64::from(header.role == Role::Numbered);
        self.garbage = 0;
    }

    /// The first number that no record of this segment can have had. A torn segment always loses one, because its
    /// successor must not have its name.
    fn next_seq(&self, torn: bool) -> u64 {
        let hidden = self.garbage.div_ceil(HEADER_BYTES as u64);
        (self.named + hidden).max(self.expected + u64::from(torn))
    }
}
