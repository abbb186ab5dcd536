//! Files in memory, for records that the disk does not take: alone, or beside a disk for some of its directories.
//!
//! What is here is gone with the process. A removed file's bytes go when the last who reads it lets go.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tocsin_shared::disk::{Disk, DiskFile, Listed, Space};

type Content = Arc<Mutex<Vec<u8>>>;

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk without a disk. What bounds it is its owner.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<PathBuf, Content>>);

impl Memory {
    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.0).values().map(|content| lock(content).len() as u64).sum()
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        lock(&self.0).contains_key(path)
    }
}

impl Disk for Memory {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let files = lock(&self.0);
        let inside = files.iter().filter(|(path, _)| path.parent() == Some(dir));
        let listed = inside.filter_map(|(path, content)| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(Listed { name, bytes: lock(content).len() as u64, regular: true })
        });
        Ok(listed.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut files = lock(&self.0);
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Content::default();
        files.insert(path.to_owned(), content.clone());
        Ok(Box::new(File(content)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let content = lock(&self.0).get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File(content)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.0);
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        Ok(Space { free: u64::MAX, total: u64::MAX })
    }
}

struct File(Content);

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.0);
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut content = lock(&self.0);
        let length = content.len().max(start + bytes.len());
        content.resize(length, 0);
        content[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        lock(&self.0).resize(length, 0);
        Ok(())
    }

    fn allocate(&mut self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A disk some of whose directories get their new files in memory.
pub(super) struct Tiers {
    disk: Arc<dyn Disk>,
    memory: Memory,
    volatile: Mutex<BTreeSet<PathBuf>>,
}

impl Tiers {
    pub(super) fn over(disk: Arc<dyn Disk>) -> Self {
        Self { disk, memory: Memory::default(), volatile: Mutex::default() }
    }

    /// Whether new files of a directory are in memory.
    pub(super) fn is_volatile(&self, dir: &Path) -> bool {
        lock(&self.volatile).contains(dir)
    }

    pub(super) fn set_volatile(&self, dir: &Path, volatile: bool) {
        let mut dirs = lock(&self.volatile);
        if volatile {
            dirs.insert(dir.to_owned())
        } else {
            dirs.remove(dir)
        };
    }

    /// Bytes of files in memory.
    pub(super) fn volatile_bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// Whether a file is in memory.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.memory.has(path)
    }

    fn of(&self, path: &Path) -> &dyn Disk {
        if self.memory.has(path) { &self.memory } else { &*self.disk }
    }
}

impl Disk for Tiers {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = self.disk.list(dir)?;
        listed.extend(self.memory.list(dir)?);
        Ok(listed)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let volatile = path.parent().is_some_and(|dir| self.is_volatile(dir));
        if volatile { self.memory.create(path) } else { self.disk.create(path) }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.of(path).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.of(from).rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }
}
