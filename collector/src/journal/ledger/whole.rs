//! Decisions are whole: a crash leaves all events of a decision or none.
//!
//! The events of a decision lie in one segment, one behind the other; all but the last are marked. When a crash tore
//! the last ones off, what is left of the decision was answered and shown to nobody: it is cut off before the log opens.

use std::path::Path;

use tocsin_shared::disk::{self, Disk};
use tocsin_shared::frame::{self, Decoded, HEADER_BYTES, Role};
use tocsin_shared::log::LogError;

use crate::journal::{EVENTS_FORMAT, JournalError};

/// The last event of a decision.
pub(super) const LAST: u8 = 0;
/// More events of the decision follow.
pub(super) const MORE: u8 = 1;

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
    if let Some(begin) = half_decision(&bytes) {
        let mut file = disk.open(&path).map_err(failed("open", &path))?;
        file.truncate(begin as u64).and_then(|()| file.sync_data()).map_err(failed("truncate", &path))?;
    }
    Ok(())
}

/// Where the last decision begins, if its end is missing; frames behind damage are left alone.
fn half_decision(bytes: &[u8]) -> Option<usize> {
    let salt = frame::salt(EVENTS_FORMAT.name);
    let (mut at, mut begin) = (0, None);
    while let Decoded::Frame { header, payload } = frame::decode(salt, &bytes[at..]) {
        if header.role == Role::Numbered {
            begin = if header.kind == MORE { begin.or(Some(at)) } else { None };
        }
        at += payload.end;
    }
    begin.filter(|_| !later_frame(salt, &bytes[at..]))
}

/// Whether a whole frame follows somewhere: then the middle is damaged, and what is damage is not ours to cut.
fn later_frame(salt: u32, rest: &[u8]) -> bool {
    (1..rest.len().saturating_sub(HEADER_BYTES))
        .any(|at| matches!(frame::decode(salt, &rest[at..]), Decoded::Frame { .. }))
}
