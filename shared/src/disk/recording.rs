//! A disk that writes down what it was asked to change, so that a test can ask what a power cut at any moment leaves.
//!
//! ```
//! # use tocsin_shared::disk::{Disk, RecordingDisk};
//! # use std::path::Path;
//! let disk = RecordingDisk::default();
//! disk.create_dir(Path::new("/d")).unwrap();
//! let mut file = disk.create(Path::new("/d/note")).unwrap();
//! file.write_at(0, b"kept?").unwrap();
//! let written = disk.position();
//! file.sync_data().unwrap();
//! disk.sync_dir(Path::new("/d")).unwrap();
//! let durable = disk.position();
//! for cut in disk.history().power_cuts() {
//!     let note = cut.disk.content(Path::new("/d/note"));
//!     assert!(cut.after < durable || note.as_deref() == Some(b"kept?"), "{cut}");
//!     assert!(cut.after >= written || note.is_none_or(|note| note.is_empty()), "{cut}");
//! }
//! ```
//!
//! Promises: steps are in the order in which they happened, also from several threads; a call that failed is left out,
//! but for what it changed all the same: the part of a failed write, and that nothing before a failed sync can be made
//! durable by a later one. Not here: which states a history can end in (`power_cut`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::image::Image;
use super::power_cut::History;
use super::{Disk, DiskFile, Listed, MemoryDisk, Space};

/// Which file a step is about, whatever names it has: files are counted as they appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) usize);

/// One change. Offsets and lengths are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Durable at once, as `Disk::create_dir` promises.
    CreateDir {
        dir: PathBuf,
    },
    Create {
        path: PathBuf,
        file: FileId,
    },
    Write {
        file: FileId,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: FileId,
        bytes: u64,
    },
    Allocate {
        file: FileId,
        bytes: u64,
    },
    SyncData {
        file: FileId,
    },
    /// What was not durable before it never becomes so by another sync: the kernel has forgotten that it was to.
    SyncDataFailed {
        file: FileId,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// One that fails is no step: a file system that cannot write its names stops, and forgets nothing quietly.
    SyncDir {
        dir: PathBuf,
    },
}

type Watch = Box<dyn FnMut(usize) + Send>;

/// A disk in memory that records; clones share it. Failures and capacity are those of the `MemoryDisk` below; that one
/// must not `crash` while it is recorded.
#[derive(Clone)]
pub struct RecordingDisk {
    memory: MemoryDisk,
    record: Arc<Mutex<Record>>,
}

struct Record {
    base: Image,
    names: BTreeMap<PathBuf, FileId>,
    files: usize,
    steps: Vec<Step>,
    watch: Option<Watch>,
}

impl Default for RecordingDisk {
    fn default() -> Self {
        Self::on(MemoryDisk::new())
    }
}

impl RecordingDisk {
    /// Records from here on. What `memory` holds now counts as durable.
    pub fn on(memory: MemoryDisk) -> Self {
        let base = memory.image();
        let names: BTreeMap<PathBuf, FileId> = base.files.keys().cloned().zip((0..).map(FileId)).collect();
        let record = Record { base, files: names.len(), names, steps: Vec::new(), watch: None };
        Self { memory, record: Arc::new(Mutex::new(record)) }
    }

    /// The disk below, to let calls fail and to look at files.
    pub fn memory(&self) -> &MemoryDisk {
        &self.memory
    }

    /// How many steps were taken. What is confirmed at position `n` must survive every power cut `after` `n` or more.
    pub fn position(&self) -> usize {
        self.record().steps.len()
    }

    /// Calls `watch` with the position before each change is tried, on the thread that tries it. A test that waits for
    /// answers of another thread learns here which of them that thread gave before its next step. `watch` must not
    /// use this disk.
    pub fn before_each(&self, watch: impl FnMut(usize) + Send + 'static) {
        self.record().watch = Some(Box::new(watch));
    }

    /// Everything recorded so far.
    pub fn history(&self) -> History {
        let record = self.record();
        History::new(record.base.clone(), record.steps.clone())
    }

    /// A disk to which the same was done: what was not synced is there and still not durable.
    pub(super) fn replayed(base: &Image, steps: &[Step]) -> Self {
        let disk = Self::on(MemoryDisk::from_image(base.clone()));
        let mut files: Vec<Box<dyn DiskFile>> =
            base.files.keys().filter_map(|path| disk.open(path).ok()).collect();
        for step in steps {
            let done = disk.redo(step, &mut files);
            done.expect("a step that succeeded once does so again");
        }
        disk
    }

    fn redo(&self, step: &Step, files: &mut Vec<Box<dyn DiskFile>>) -> io::Result<()> {
        match step {
            Step::CreateDir { dir } => self.create_dir(dir),
            Step::Create { path, .. } => self.create(path).map(|file| files.push(file)),
            Step::Write { file, offset, bytes } => files[file.0].write_at(*offset, bytes),
            Step::Truncate { file, bytes } => files[file.0].truncate(*bytes),
            Step::Allocate { file, bytes } => files[file.0].allocate(*bytes),
            Step::SyncData { file } => files[file.0].sync_data(),
            Step::Rename { from, to } => self.rename(from, to),
            Step::Remove { path } => self.remove(path),
            Step::SyncDir { dir } => self.sync_dir(dir),
            Step::SyncDataFailed { .. } => {
                self.record().steps.push(step.clone());
                Ok(())
            }
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record, locked until the change it is about is made, so that the order is the true one.
    fn begin(&self) -> MutexGuard<'_, Record> {
        let mut record = self.record();
        if let Some(mut watch) = record.watch.take() {
            watch(record.steps.len());
            record.watch = Some(watch);
        }
        record
    }

    fn file(&self, file: FileId, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(RecordingFile { disk: self.clone(), file, inner })
    }
}

impl Disk for RecordingDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut record = self.begin();
        self.memory.create_dir(dir)?;
        record.steps.push(Step::CreateDir { dir: dir.to_owned() });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.memory.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut record = self.begin();
        let inner = self.memory.create(path)?;
        let file = FileId(record.files);
        record.files += 1;
        record.names.insert(path.to_owned(), file);
        record.steps.push(Step::Create { path: path.to_owned(), file });
        drop(record);
        Ok(self.file(file, inner))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let record = self.record();
        let inner = self.memory.open(path)?;
        let file = record.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        drop(record);
        Ok(self.file(file, inner))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut record = self.begin();
        self.memory.rename(from, to)?;
        if let Some(file) = record.names.remove(from) {
            record.names.insert(to.to_owned(), file);
        }
        record.steps.push(Step::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut record = self.begin();
        self.memory.remove(path)?;
        record.names.remove(path);
        record.steps.push(Step::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut record = self.begin();
        self.memory.sync_dir(dir)?;
        record.steps.push(Step::SyncDir { dir: dir.to_owned() });
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.memory.space(dir)
    }
}

struct RecordingFile {
    disk: RecordingDisk,
    file: FileId,
    inner: Box<dyn DiskFile>,
}

impl RecordingFile {
    /// What a failed write left in the file where it was to write.
    fn written_all_the_same(&self, offset: u64, wanted: usize) -> Vec<u8> {
        let mut bytes = vec![0; wanted];
        let read = self.inner.read_at(offset, &mut bytes).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }
}

impl DiskFile for RecordingFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, into)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut record = self.disk.begin();
        let written = self.inner.write_at(offset, bytes);
        let bytes = match written {
            Ok(()) => bytes.to_vec(),
            Err(_) => self.written_all_the_same(offset, bytes.len()),
        };
        if !bytes.is_empty() {
            record.steps.push(Step::Write { file: self.file, offset, bytes });
        }
        written
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut record = self.disk.begin();
        let (file, synced) = (self.file, self.inner.sync_data());
        record.steps.push(if synced.is_ok() {
            Step::SyncData { file }
        } else {
            Step::SyncDataFailed { file }
        });
        synced
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut record = self.disk.begin();
        self.inner.truncate(bytes)?;
        record.steps.push(Step::Truncate { file: self.file, bytes });
        Ok(())
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let mut record = self.disk.begin();
        self.inner.allocate(bytes)?;
        record.steps.push(Step::Allocate { file: self.file, bytes });
        Ok(())
    }
}
