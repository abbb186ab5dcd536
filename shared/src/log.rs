//! A log of checksummed frames in segment files: the agent's spool lanes and the collector's journals are made of it.
//!
//! One writer numbers records densely from 1 and groups them: `append` buffers, `sync` writes and makes durable.
//! Promises: what `sync` confirmed survives any crash; a reader sees only that; damage costs the damaged records and
//! no others, and shows as a jump in `seq`; a number that may have been used is never used again, so what a crash tore
//! off stays a hole. Nothing is deleted but whole segments, and nothing is shortened, unless the owner says so; files
//! that are not ours stay.
//! Not here: who may open a directory (the owner locks it), what a payload means, what is dropped when.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{io, mem};

use crate::disk::{Disk, DiskFile};
use crate::frame::{self, FRAME_MAX, HEADER_BYTES, Role};

mod cursor;
mod error;
mod head;
mod reader;
mod recovery;
mod rewrite;
mod segment;
#[cfg(test)]
mod tests;

pub use error::LogError;
pub use reader::{Entry, Reader};
pub use recovery::{Lost, Recovery};
pub use rewrite::Rewritten;

use error::{SYNCING, failed};
use head::Head;

/// The most bytes that wait for a `sync`; one more append syncs first. Two of the largest frames, so that memory is
/// bounded whatever the caller does, and far above a usual group.
pub const PENDING_MAX: usize = 2 * (FRAME_MAX + HEADER_BYTES);

/// What a log's files hold. A reader of version `n` refuses what a later version wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub name: &'static str,
    pub version: u16,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// When a segment would grow beyond this many bytes, a new one starts. One record larger than it still fits.
    pub segment_bytes: u64,
    /// Whether `open` reads every segment, not only the last: slower, but damage is known before it is read.
    pub scan_all: bool,
}

/// A segment file. The newest may be without records: then `last_seq` is `first_seq - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The number of its first record; the record itself may be lost.
    pub first_seq: u64,
    pub last_seq: u64,
    /// Its length, what still waits for `sync` included.
    pub bytes: u64,
    pub path: PathBuf,
}

/// The one writer of a log.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    format: Format,
    salt: u32,
    config: Config,
    head: Arc<Head>,
    active: Option<Active>,
    next_seq: u64,
    /// Encoded frames since the last `sync`; all of them belong to the active segment.
    pending: Vec<u8>,
    torn: Option<Torn>,
    poisoned: bool,
}

/// The segment that is written to.
struct Active {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    first_seq: u64,
    durable_bytes: u64,
    /// Whether its name is durable.
    named: bool,
}

/// A tail to cut off as soon as a later segment is durable. Not before: the cut forgets which numbers were used.
struct Torn {
    path: PathBuf,
    bytes: u64,
}

impl Log {
    /// Opens or creates the log in `dir`, which its owner has locked. Changes no content on disk.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        format: Format,
        config: Config,
    ) -> Result<(Self, Recovery), LogError> {
        let found = recovery::recover(&*disk, dir, format, config.scan_all)?;
        let (mut active, mut torn) = (None, None);
        if let Some(last) = found.segments.last() {
            let path = segment::path(dir, last.first_seq);
            let mut file = disk.open(&path).map_err(failed("open", &path))?;
            // A kill may have left bytes that were written and not synced; readers are about to take them for durable.
            file.sync_data().map_err(failed(SYNCING, &path))?;
            disk.sync_dir(dir).map_err(failed(SYNCING, dir))?;
            match found.torn_at {
                Some(bytes) => torn = Some(Torn { path, bytes }),
                None => {
                    active = Some(Active {
                        file,
                        path,
                        first_seq: last.first_seq,
                        durable_bytes: last.bytes,
                        named: true,
                    });
                }
            }
        }
        let log = Self {
            disk,
            dir: dir.to_owned(),
            format,
            salt: frame::salt(format.name),
            config,
            head: Arc::new(Head::new(found.segments, found.recovery.next_seq - 1)),
            active,
            next_seq: found.recovery.next_seq,
            pending: Vec::new(),
            torn,
            poisoned: false,
        };
        Ok((log, found.recovery))
    }

    /// The number the next record gets; the first of all is 1.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The number up to which every record is durable; 0 in a new log.
    pub fn durable_seq(&self) -> u64 {
        self.head.durable_seq()
    }

    /// Whether the next frame is the first of its segment, after what the log itself writes there.
    pub fn starts_segment(&self) -> bool {
        self.active.as_ref().is_none_or(|active| {
            active.durable_bytes + self.pending.len() as u64 <= segment::header_bytes(self.format)
        })
    }

    /// Whether appending a payload of this length starts a new segment.
    pub fn will_roll(&self, payload_bytes: usize) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let bytes = active.durable_bytes + (self.pending.len() + HEADER_BYTES + payload_bytes) as u64;
            self.next_seq > active.first_seq && bytes > self.config.segment_bytes
        })
    }

    /// How many bytes appending a payload of this length adds at most, a new segment's header included.
    pub fn cost(&self, payload_bytes: usize) -> u64 {
        (HEADER_BYTES + payload_bytes) as u64 + segment::header_bytes(self.format)
    }

    /// Buffers a record and returns its number. After an error nothing was taken. Bytes in waiting are durable only
    /// after `sync`; a full buffer or segment syncs by itself.
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<u64, LogError> {
        self.admit(payload)?;
        if self.will_roll(payload.len()) {
            self.roll()?;
        }
        self.encode((self.next_seq, kind, Role::Numbered), payload)?;
        self.next_seq += 1;
        Ok(self.next_seq - 1)
    }

    /// Buffers a header frame that has no number of its own, such as a table at the start of a segment. It never
    /// starts a new segment by itself.
    pub fn append_unnumbered(&mut self, kind: u8, payload: &[u8]) -> Result<(), LogError> {
        self.admit(payload)?;
        self.encode((self.next_seq, kind, Role::Unnumbered), payload)
    }

    fn admit(&mut self, payload: &[u8]) -> Result<(), LogError> {
        self.usable()?;
        if payload.len() > FRAME_MAX {
            return Err(LogError::TooLarge { bytes: payload.len() });
        }
        if self.pending.len() + HEADER_BYTES + payload.len() > PENDING_MAX {
            self.sync()?;
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), LogError> {
        if self.poisoned { Err(LogError::Poisoned { dir: self.dir.clone() }) } else { Ok(()) }
    }

    fn encode(&mut self, header: (u64, u8, Role), payload: &[u8]) -> Result<(), LogError> {
        if self.active.is_none() {
            self.active = Some(self.create_segment(self.next_seq)?);
        }
        if self.pending.is_empty() && self.active.as_ref().is_some_and(|active| active.durable_bytes == 0) {
            segment::encode_header(self.format, self.next_seq, &mut self.pending);
        }
        frame::encode(self.salt, header, payload, &mut self.pending);
        Ok(())
    }

    fn create_segment(&self, first_seq: u64) -> Result<Active, LogError> {
        let path = segment::path(&self.dir, first_seq);
        let file = self.disk.create(&path).map_err(failed("create", &path))?;
        self.head.push(first_seq);
        Ok(Active { file, path, first_seq, durable_bytes: 0, named: false })
    }

    /// Makes everything appended durable; returns the highest durable number.
    ///
    /// After a failed write the records still wait: call again, or `discard` them. After a failed fsync nothing that
    /// the kernel says can be trusted: every later call fails until `revive`.
    pub fn sync(&mut self) -> Result<u64, LogError> {
        self.usable()?;
        let Some(active) = &mut self.active else { return Ok(self.durable_seq()) };
        if self.pending.is_empty() {
            return Ok(self.durable_seq());
        }
        if let Err(error) = active.file.write_at(active.durable_bytes, &self.pending) {
            // No partial frame may stay behind; if it cannot be cut off, the file is not to be trusted.
            self.poisoned = active.file.truncate(active.durable_bytes).is_err();
            return Err(failed("write", &active.path)(error));
        }
        let synced = match active.file.sync_data() {
            Ok(()) if !active.named => self.disk.sync_dir(&self.dir),
            result => result,
        };
        if let Err(error) = synced {
            self.poisoned = true;
            return Err(failed(SYNCING, &active.path)(error));
        }
        active.named = true;
        active.durable_bytes += self.pending.len() as u64;
        let bytes = active.durable_bytes;
        self.pending.clear();
        self.pending.shrink_to(self.config.segment_bytes.min(1 << 20) as usize);
        self.head.publish(self.next_seq - 1, bytes);
        self.cut_torn_tail()?;
        Ok(self.durable_seq())
    }

    /// A later segment now says which numbers come next, so the torn bytes are of no use to anyone.
    fn cut_torn_tail(&mut self) -> Result<(), LogError> {
        let Some(torn) = self.torn.take() else { return Ok(()) };
        let mut file = self.disk.open(&torn.path).map_err(failed("open", &torn.path))?;
        file.truncate(torn.bytes).and_then(|()| file.sync_data()).map_err(failed("truncate", &torn.path))
    }

    /// Gives up what was appended since the last successful `sync`: those numbers were shown to no reader and are
    /// given again. Returns how many records that were.
    pub fn discard(&mut self) -> u64 {
        self.pending.clear();
        let next_seq = self.durable_seq() + 1;
        mem::replace(&mut self.next_seq, next_seq) - next_seq
    }

    /// Makes everything durable and ends the segment: the next frame starts a new one. A segment without records
    /// goes on instead, because segments are named after their first record.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.sync()?;
        if self.active.as_ref().is_some_and(|active| self.next_seq > active.first_seq) {
            self.active = None;
        }
        Ok(())
    }

    /// Makes `seq` the next number if it is higher: the numbers before it were used by records this log does not have.
    pub fn skip_to(&mut self, seq: u64) -> Result<(), LogError> {
        if seq > self.next_seq {
            self.roll()?;
            self.next_seq = seq;
            self.head.skip_to(seq);
        }
        Ok(())
    }

    /// After a failed fsync: leaves the suspect file as it was last known good, and writes what waits to a new
    /// segment. On success the log is as before; header frames of the old segment are not repeated in the new one.
    pub fn revive(&mut self) -> Result<u64, LogError> {
        if !mem::replace(&mut self.poisoned, false) {
            return self.sync();
        }
        let revived = self.restart_segment().and_then(|()| self.sync());
        self.poisoned |= revived.is_err();
        revived
    }

    /// Ends the segment wherever it is and begins another one, which takes what waits: for an owner whose disk gives
    /// new files another place. Header frames are not repeated. Returns the highest durable number.
    pub fn move_on(&mut self) -> Result<u64, LogError> {
        self.usable()?;
        self.restart_segment()?;
        self.sync()
    }

    fn restart_segment(&mut self) -> Result<(), LogError> {
        let Some(mut old) = self.active.take() else { return Ok(()) };
        let waiting = mem::take(&mut self.pending);
        let first_seq = self.durable_seq() + 1;
        let mut content = Vec::new();
        let restarted = self.replacement(&mut old, first_seq, &mut content);
        match restarted {
            Ok(active) => {
                content.extend_from_slice(&waiting);
                self.pending = content;
                self.active = Some(active);
                Ok(())
            }
            Err(error) => {
                self.pending = waiting;
                self.active = Some(old);
                Err(error)
            }
        }
    }

    /// The segment that takes over from a suspect one, and what it must hold before the waiting frames.
    fn replacement(
        &self,
        old: &mut Active,
        first_seq: u64,
        content: &mut Vec<u8>,
    ) -> Result<Active, LogError> {
        if old.first_seq < first_seq {
            old.file.truncate(old.durable_bytes).map_err(failed("truncate", &old.path))?;
            segment::encode_header(self.format, first_seq, content);
            return self.create_segment(first_seq);
        }
        // No record in it is durable, so the new one needs its name.
        content.resize(old.durable_bytes as usize, 0);
        old.file.read_at(0, content).map_err(failed("read", &old.path))?;
        match self.disk.remove(&old.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &old.path)(error));
            }
            _ => {}
        }
        self.head.change(|segments| segments.retain(|segment| segment.first_seq != first_seq));
        self.create_segment(first_seq)
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.head.segments();
        let ends = segments.iter().skip(1).map(|next| next.first_seq).chain([self.next_seq]);
        let mut infos: Vec<SegmentInfo> = segments
            .iter()
            .zip(ends)
            .map(|(segment, end)| SegmentInfo {
                first_seq: segment.first_seq,
                last_seq: end - 1,
                bytes: segment.bytes,
                path: segment::path(&self.dir, segment.first_seq),
            })
            .collect();
        if let Some(last) = infos.last_mut() {
            last.bytes += self.pending.len() as u64;
        }
        infos
    }

    /// How many bytes all segments have together, what waits for `sync` included.
    pub fn bytes(&self) -> u64 {
        self.head.bytes() + self.pending.len() as u64
    }

    /// Removes the whole segments that hold nothing from `seq` on; returns the bytes that freed. The newest segment
    /// always stays: it remembers which number comes next.
    pub fn drop_segments_before(&mut self, seq: u64) -> Result<u64, LogError> {
        let mut freed = 0;
        let segments = self.head.segments();
        let dropped = segments.windows(2).take_while(|pair| pair[1].first_seq <= seq).count();
        for segment in &segments[..dropped] {
            let path = segment::path(&self.dir, segment.first_seq);
            // Readers learn it first, so that none takes the missing file for damage.
            self.head.change(|segments| segments.retain(|kept| kept.first_seq != segment.first_seq));
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.head.change(|segments| segments.insert(0, *segment));
                    return Err(failed("remove", &path)(error));
                }
                _ => freed += segment.bytes,
            }
            if self.torn.as_ref().is_some_and(|torn| torn.path == path) {
                self.torn = None;
            }
        }
        if dropped > 0 {
            self.disk.sync_dir(&self.dir).map_err(failed(SYNCING, &self.dir))?;
        }
        Ok(freed)
    }

    /// An independent reader, at the first record that is still there.
    pub fn reader(&self) -> Reader {
        Reader::new(self.disk.clone(), self.dir.clone(), self.salt, self.head.clone())
    }
}
