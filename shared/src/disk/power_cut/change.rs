//! One change to a file's content or to a directory, and what can become of it.

use std::fmt;
use std::path::PathBuf;

use crate::disk::FileId;
use crate::disk::image::Content;
use crate::frame;

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// Places where one write is cut. More are thinned out: they would multiply with those of other writes.
const CUTS_MAX: usize = 12;

/// A change that a sync of its file makes durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DataChange {
    Write { offset: u64, bytes: Vec<u8> },
    Truncate { bytes: u64 },
    Allocate { bytes: u64 },
}

/// A change that a sync of its directory makes durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NameChange {
    Link {
        path: PathBuf,
        file: FileId,
    },
    /// Atomic, and also after a cut that forgot how the file came to its first name.
    Rename {
        from: PathBuf,
        to: PathBuf,
        file: FileId,
    },
    Unlink {
        path: PathBuf,
    },
}

/// What a power cut makes of a change. Lengths count from the start of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Dropped,
    /// Only so many bytes of the write.
    Front(usize),
    /// Only what follows so many bytes; if the file grew, zeros before.
    Back(usize),
    /// The file grew by zeros.
    Length,
}

impl fmt::Display for Fate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => write!(out, "kept"),
            Self::Dropped => write!(out, "dropped"),
            Self::Front(bytes) => write!(out, "only {bytes} bytes"),
            Self::Back(bytes) => write!(out, "without its first {bytes} bytes"),
            Self::Length => write!(out, "zeros"),
        }
    }
}

impl fmt::Display for DataChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(out, "{} bytes at {offset}", bytes.len()),
            Self::Truncate { bytes } => write!(out, "cut to {bytes} bytes"),
            Self::Allocate { bytes } => write!(out, "room for {bytes} bytes"),
        }
    }
}

impl fmt::Display for NameChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { path, .. } => write!(out, "new name {}", path.display()),
            Self::Rename { from, to, .. } => write!(out, "{} renamed to {}", from.display(), to.display()),
            Self::Unlink { path } => write!(out, "{} removed", path.display()),
        }
    }
}

impl DataChange {
    /// What can become of it, `Kept` first.
    pub(super) fn fates(&self) -> Vec<Fate> {
        let mut fates = vec![Fate::Kept, Fate::Dropped];
        if let Self::Write { offset, bytes } = self {
            fates.extend(cuts(*offset, bytes).into_iter().map(Fate::Front));
            fates.extend(backs(*offset, bytes.len()).into_iter().map(Fate::Back));
            fates.push(Fate::Length);
        }
        fates
    }

    pub(super) fn apply(&self, fate: Fate, to: &mut Content) {
        match (self, fate) {
            (_, Fate::Dropped) => {}
            (Self::Write { offset, bytes }, Fate::Kept) => write(to, *offset, bytes),
            (Self::Write { offset, bytes }, Fate::Front(kept)) => write(to, *offset, &bytes[..kept]),
            (Self::Write { offset, bytes }, Fate::Back(lost)) => {
                write(to, offset + lost as u64, &bytes[lost..]);
            }
            (Self::Write { offset, bytes }, Fate::Length) => write(to, offset + bytes.len() as u64, &[]),
            (Self::Truncate { bytes }, _) => {
                to.bytes.resize(index(*bytes), 0);
                to.allocated = to.allocated.min(*bytes);
            }
            (Self::Allocate { bytes }, _) => to.allocated = to.allocated.max(*bytes),
        }
    }
}

impl NameChange {
    /// The file it gives a name.
    pub(super) fn file(&self) -> Option<FileId> {
        match self {
            Self::Link { file, .. } | Self::Rename { file, .. } => Some(*file),
            Self::Unlink { .. } => None,
        }
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a file in memory is no longer than memory")
}

fn write(to: &mut Content, offset: u64, bytes: &[u8]) {
    let (start, end) = (index(offset), index(offset) + bytes.len());
    if to.bytes.len() < end {
        to.bytes.resize(end, 0);
    }
    to.bytes[start..end].copy_from_slice(bytes);
}

/// Where a write may end too early: soon, in the middle, late, at a sector, and before a frame of a log.
fn cuts(offset: u64, bytes: &[u8]) -> Vec<usize> {
    let length = bytes.len();
    let mut cuts = vec![1, length / 2, length.saturating_sub(1)];
    cuts.extend(sectors(offset, length));
    cuts.extend(frame::starts(bytes));
    cuts.sort_unstable();
    cuts.dedup();
    cuts.retain(|cut| (1..length).contains(cut));
    thinned(cuts)
}

/// Where a write may begin too late: the first, the middle and the last sector boundary in it.
fn backs(offset: u64, length: usize) -> Vec<usize> {
    let sectors: Vec<usize> = sectors(offset, length).collect();
    let (Some(first), Some(last)) = (sectors.first(), sectors.last()) else { return Vec::new() };
    let mut backs = vec![*first, sectors[sectors.len() / 2], *last];
    backs.dedup();
    backs
}

/// The sector boundaries inside a write.
fn sectors(offset: u64, length: usize) -> impl Iterator<Item = usize> {
    let first = offset.next_multiple_of(SECTOR) - offset;
    (first..length as u64).step_by(index(SECTOR)).map(index).filter(|at| *at > 0)
}

fn thinned(cuts: Vec<usize>) -> Vec<usize> {
    if cuts.len() <= CUTS_MAX {
        return cuts;
    }
    (0..CUTS_MAX).map(|at| cuts[at * (cuts.len() - 1) / (CUTS_MAX - 1)]).collect()
}
