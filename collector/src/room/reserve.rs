//! ⇄ The reserve: a file that holds room, shrunk from its end when the room is needed.
//!
//! Its content means nothing; its length is what it holds. What it gives back is free when `release` returns. Empty
//! files beside it hold inodes, which a file system can run out of, too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tocsin_shared::disk::Disk;

/// How much is given back at a time: one group of the events journal at its largest fits twice.
const STEP: u64 = 16 << 20;

/// Inodes that are held: as many segments and checkpoints can be begun without a free one.
const SPARES: usize = 4;

pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    held: u64,
}

impl Reserve {
    /// The reserve that an earlier process left in `dir`, if any.
    pub(super) fn find(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        let path = dir.join("reserve");
        let held = match disk.open(&path).and_then(|file| file.bytes()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { disk, path, held })
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Holds `bytes` bytes from now on, or what it held before.
    pub(super) fn take(&mut self, bytes: u64) -> io::Result<()> {
        let mut file = match self.disk.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(&self.path)?,
            opened => opened?,
        };
        if bytes < self.held {
            file.truncate(bytes)?;
        } else if let Err(error) = file.allocate(bytes).and_then(|()| file.sync_data()) {
            file.truncate(self.held)?; // What it got of the rest goes back.
            return Err(error);
        }
        self.held = bytes;
        self.spare_inodes()
    }

    fn spare_inodes(&self) -> io::Result<()> {
        for path in self.spares() {
            match self.disk.create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn spares(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..SPARES).map(|n| self.path.with_extension(format!("inode-{n}")))
    }

    /// Gives a step and an inode back; false when there is nothing left, or it cannot be shrunk. `wanted` is its full size.
    pub(super) fn release(&mut self, wanted: u64) -> bool {
        if self.held == 0 {
            return false;
        }
        self.spares().find(|path| self.disk.remove(path).is_ok());
        let left = self.held.saturating_sub(STEP.min(wanted / 8).max(64 * 1024));
        // Synced, because file systems reuse freed blocks only when the freeing is durable.
        let shrunk = self.disk.open(&self.path).and_then(|mut file| {
            file.truncate(left)?;
            file.sync_data()
        });
        match shrunk {
            Ok(()) => {
                self.held = left;
                true
            }
            Err(error) => {
                tracing::error!(%error, "the reserve cannot be used");
                false
            }
        }
    }
}
