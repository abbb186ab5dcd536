//! Who may use a spool directory, whose records it holds, and which epoch it is in.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use tocsin_shared::disk::{Disk, read_whole, replace};
use tocsin_shared::identity::{AgentId, Epoch};
use uuid::Uuid;

use super::SpoolError;

/// Longer than any epoch file; a uuid and a line feed.
const EPOCH_MAX: u64 = 64;

/// Held while the spool is open. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Takes the directory for this process, or says which process has it.
    pub(super) fn take(dir: &Path) -> Result<Self, SpoolError> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(SpoolError::disk("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is, is a courtesy; that it is taken, is the answer.
                let read = (&mut file).take(20).read_to_string(&mut holder);
                let holder = if read.is_ok() { holder.trim().to_owned() } else { String::new() };
                return Err(SpoolError::Locked { dir: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(SpoolError::disk("lock", &path)(error)),
        }
        write_pid(&mut file).map_err(SpoolError::disk("write", &path))?;
        Ok(Self(file))
    }
}

/// A full disk must not keep the agent from starting: the lock holds without its note.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    match writeln!(file, "{}", std::process::id()) {
        Err(error) if tocsin_shared::disk::is_full(&error) => Ok(()),
        result => result,
    }
}

/// The epoch of the spool in `dir`; a new directory gets `new`, durable on return.
pub(super) fn epoch(disk: &dyn Disk, dir: &Path, new: Epoch) -> Result<Epoch, SpoolError> {
    let path = dir.join("epoch");
    match read_whole(disk, &path, EPOCH_MAX) {
        Ok(content) => std::str::from_utf8(&content)
            .ok()
            .and_then(|text| Uuid::parse_str(text.trim()).ok())
            .map(Epoch)
            .ok_or(SpoolError::InvalidEpoch { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_epoch(disk, dir, new)?;
            Ok(new)
        }
        Err(error) => Err(SpoolError::disk("read", &path)(error)),
    }
}

/// Names the epoch that the spool is in; durable on return.
pub(super) fn write_epoch(disk: &dyn Disk, dir: &Path, epoch: Epoch) -> Result<(), SpoolError> {
    let path = dir.join("epoch");
    replace(disk, &path, format!("{epoch}\n").as_bytes()).map_err(SpoolError::disk("write", &path))
}

/// Whose records are in `dir`.
pub(super) fn owner(disk: &dyn Disk, dir: &Path) -> Result<Option<AgentId>, SpoolError> {
    let path = dir.join("owner");
    match read_whole(disk, &path, EPOCH_MAX) {
        Ok(content) if content.iter().all(u8::is_ascii_whitespace) => Ok(None),
        Ok(content) => {
            let owner = std::str::from_utf8(&content).ok().and_then(|text| text.trim().parse().ok());
            owner.map(Some).ok_or(SpoolError::InvalidOwner { path })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SpoolError::disk("read", &path)(error)),
    }
}

/// Writes down whose they are, or that they are nobody's yet.
pub(super) fn set_owner(disk: &dyn Disk, dir: &Path, owner: Option<AgentId>) -> Result<(), SpoolError> {
    let path = dir.join("owner");
    let text = owner.map(|owner| owner.to_string()).unwrap_or_default();
    replace(disk, &path, format!("{text}\n").as_bytes()).map_err(SpoolError::disk("write", &path))
}
