//! The few things a log asks of a file system, so that the same code runs on a real disk and on a failing one.
//!
//! Promises of every implementation: a created file is new, mode 0600, and never reached through a symbolic link;
//! a directory is 0700 and its name is durable when `create_dir` returns; a file's bytes are durable after
//! `sync_data`, its name after `sync_dir` of its directory. Nothing here retries, and nothing buffers.

use std::io;
use std::path::Path;

mod image;
mod memory;
mod power_cut;
mod random;
mod real;
mod recording;

pub use memory::{Crash, Fault, MemoryDisk, Operation};
pub use power_cut::{History, PowerCut, PowerCuts, STATES_MAX};
pub use real::RealDisk;
pub use recording::{FileId, RecordingDisk, Step};

/// What a directory holds under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The file's name; a name that is no UTF-8 is shown with replacement characters.
    pub name: String,
    /// Its length in bytes; zero for what is no regular file.
    pub bytes: u64,
    /// Whether it is a regular file: no directory, link, socket or device.
    pub regular: bool,
}

/// How much room a file system has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still write.
    pub free: u64,
    /// The size of the whole file system.
    pub total: u64,
}

/// A file system, or something that behaves as badly as one.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and its missing parents, each made durable in its own parent.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
    /// Creates a file that must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing regular file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// How much room the file system of a directory has.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// The file's length.
    fn bytes(&self) -> io::Result<u64>;
    /// Reads up to `into.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`; after an error any part of them may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and length durable. After an error the file must be given up: a second call proves nothing.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Cuts the file off at `bytes`.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Takes room for `bytes` bytes, so that the file system has that much less to give to others.
    fn allocate(&mut self, bytes: u64) -> io::Result<()>;
}

/// Whether an error says that there is no room left: space, inodes, quota, or file descriptors, which come back, too.
pub fn is_full(error: &io::Error) -> bool {
    let descriptors = [nix::libc::EMFILE, nix::libc::ENFILE];
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.raw_os_error().is_some_and(|number| descriptors.contains(&number))
}

/// Reads a whole file of at most `bytes_max` bytes; a longer one is `InvalidData`, so that nobody allocates for it.
pub fn read_whole(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let bytes = file.bytes()?;
    if bytes > bytes_max {
        let why = format!("file is {bytes} bytes long, expected at most {bytes_max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let read = file.read_at(0, &mut content)?;
    content.truncate(read);
    Ok(content)
}

/// Replaces a small file so that after a crash it holds either the old bytes or the new ones, durable on return.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "path names no file"));
    };
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = dir.join(temporary);
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // A crash may have left one behind.
    }
    let mut file = disk.create(&temporary)?;
    if let Err(error) = file.write_at(0, bytes).and_then(|()| file.sync_data()) {
        drop(file);
        disk.remove(&temporary).ok(); // A full disk needs its room; if it stays, the next call removes it.
        return Err(error);
    }
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}
