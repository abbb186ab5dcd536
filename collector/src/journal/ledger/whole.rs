//! Decisions are whole: a crash leaves all events of a decision or none.
//!
//! The events of a decision lie in one segment, one behind the other; all but the last are marked, and so is the first
//! of each group. What a crash tore was answered and shown to nobody: it is cut off, from the first decision that is
//! not whole, before the log opens.

use std::path::Path;

use tocsin_shared::disk::{self, Disk};
use tocsin_shared::frame::{self, Decoded, Role};
use tocsin_shared::log::LogError;

use crate::journal::{EVENTS_FORMAT, JournalError};

/// In a frame's kind: more events of the decision follow.
pub(super) const MORE: u8 = 1;
/// In a frame's kind: it is the first since everything before it became durable.
pub(super) const GROUP: u8 = 2;

/// The header of a segment has this salt in every format.
const SEGMENT_SALT: u32 = 0;
/// A segment is far smaller; one that is larger was not written here and is left to the log.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Cuts the newest segment off where a decision begins whose end is missing.
pub(super) fn cut_half_decision(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| JournalError::Log(LogError::Io { doing, path, source })
    };
    disk.create_dir(dir).map_err(failed("create", dir))?;
    let names = disk.list(dir).map_err(failed("list", dir))?;
    let segments = names.into_iter().filter(|listed| listed.regular && listed.name.ends_with(".seg"));
    let newest = segments.map(|listed| listed.name).max();
    let Some(path) = newest.map(|name| dir.join(name)) else { return Ok(()) };
    let bytes = match disk::read_whole(disk, &path, SEGMENT_BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(()),
        bytes => bytes.map_err(failed("read", &path))?,
    };
    if let Some(begin) = torn_at(&bytes) {
        let mut file = disk.open(&path).map_err(failed("open", &path))?;
        file.truncate(begin as u64).and_then(|()| file.sync_data()).map_err(failed("truncate", &path))?;
    }
    Ok(())
}

/// Where to cut, if the last group is torn inside a decision or has events behind the tear. A tear before the start
/// of a later group is not one: that group was begun when all before it was durable, so a disk or a person did it.
fn torn_at(bytes: &[u8]) -> Option<usize> {
    let salt = frame::salt(EVENTS_FORMAT.name);
    let (mut at, mut begin, mut torn) = (first_event(bytes)?, None, None);
    while at < bytes.len() {
        match frame::decode(salt, &bytes[at..]) {
            Decoded::Frame { header, payload } => {
                if header.kind & GROUP != 0 {
                    (begin, torn) = (None, None);
                }
                torn = torn.map(|(from, _)| (from, true));
                begin = if header.kind & MORE != 0 { begin.or(Some(at)) } else { None };
                at += payload.end;
            }
            other => {
                torn = torn.or(Some((begin.unwrap_or(at), begin.is_some())));
                at += match other {
                    Decoded::Spoiled { header } => header.frame_bytes(),
                    Decoded::Garbage { skip } => skip.max(1),
                    Decoded::Short { .. } | Decoded::Frame { .. } => 1,
                };
            }
        }
    }
    match torn {
        Some((from, events_behind_or_before)) => events_behind_or_before.then_some(from),
        None => begin,
    }
}

/// Where events begin: after a header of this version. What a newer one wrote is not touched. Without a whole header,
/// of which a tear may have taken the sector, at the start.
fn first_event(bytes: &[u8]) -> Option<usize> {
    let Decoded::Frame { header, payload } = frame::decode(SEGMENT_SALT, bytes) else { return Some(0) };
    let (version, name) = bytes[payload.clone()].split_first_chunk::<2>()?;
    let ours = header.role == Role::Segment
        && name == EVENTS_FORMAT.name.as_bytes()
        && u16::from_le_bytes(*version) == EVENTS_FORMAT.version;
    ours.then_some(payload.end)
}
