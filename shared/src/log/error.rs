//! What a log operation can fail at.

use std::io;
use std::path::{Path, PathBuf};

use crate::frame::FRAME_MAX;

/// What is being done in an fsync.
pub(super) const SYNCING: &str = "make durable";

/// What a log operation failed at.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("a record of {bytes} bytes is too large for the log, expected at most {FRAME_MAX}")]
    TooLarge { bytes: usize },
    #[error("{} has version {found} of its format, this program knows up to {known}: start a newer program, the file is untouched", path.display())]
    Newer { path: PathBuf, found: u16, known: u16 },
    #[error("{} holds {found:?}, expected {expected:?}: point the program at its own directory", path.display())]
    OtherFormat { path: PathBuf, found: String, expected: &'static str },
    #[error("the log in {} could not make data durable before and takes no more: reopen or revive it", dir.display())]
    Poisoned { dir: PathBuf },
    #[error("records before {first_seq} are gone from the log")]
    Gone { first_seq: u64 },
}

impl LogError {
    /// Whether the cause is that there is no room left on the disk. The same call may succeed later. A failed fsync is
    /// never that, whatever it says: what was written before it may be lost.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { doing, source, .. } if *doing != SYNCING && crate::disk::is_full(source))
    }
}

/// For `map_err`: what was being done to which file.
pub(super) fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LogError + 'a {
    move |source| LogError::Io { doing, path: path.to_owned(), source }
}
