//! A segment file: its name, which says its first number, and the frame it opens with, which says its format.

use std::path::{Path, PathBuf};

use super::{Format, LogError};
use crate::disk::DiskFile;
use crate::frame::{self, Decoded, HEADER_BYTES, Role};

/// The segment header's own salt, the same for every format, so that a foreign log is recognised as one.
const HEADER_SALT: u32 = 0;

/// The longest segment header that is read.
const HEADER_MAX: usize = HEADER_BYTES + 256;

/// The highest number a segment can start with: far beyond use, far enough from overflow.
pub(super) const SEQ_MAX: u64 = 1 << 62;

pub(super) fn path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}.seg"))
}

/// The first number in a segment's name; `None` for names that no segment has.
pub(super) fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|seq| plain && (1..=SEQ_MAX).contains(seq))
}

pub(super) fn header_bytes(format: Format) -> u64 {
    (HEADER_BYTES + 2 + format.name.len()) as u64
}

pub(super) fn encode_header(format: Format, first_seq: u64, out: &mut Vec<u8>) {
    let mut payload = format.version.to_le_bytes().to_vec();
    payload.extend_from_slice(format.name.as_bytes());
    frame::encode(HEADER_SALT, (first_seq, 0, Role::Segment), &payload, out);
}

/// Whether a file opens with a whole segment header of our format and how long that is: 0 for a damaged one, which
/// says nothing. A newer version and another format are errors.
pub(super) fn check_header(file: &dyn DiskFile, path: &Path, format: Format) -> Result<u64, LogError> {
    let mut front = [0; HEADER_MAX];
    let read = file.read_at(0, &mut front).map_err(super::error::failed("read", path))?;
    let Decoded::Frame { header, payload } = frame::decode(HEADER_SALT, &front[..read]) else { return Ok(0) };
    let Some((version, name)) = front[payload].split_first_chunk::<2>() else { return Ok(0) };
    if name != format.name.as_bytes() {
        let found = String::from_utf8_lossy(name).into_owned();
        return Err(LogError::OtherFormat { path: path.to_owned(), found, expected: format.name });
    }
    let found = u16::from_le_bytes(*version);
    if found > format.version {
        return Err(LogError::Newer { path: path.to_owned(), found, known: format.version });
    }
    Ok(header.frame_bytes() as u64)
}
