//! The directory of block files: written whole or not at all, read by `pread`, deleted whole.
//!
//! A block is written beside its place, flushed to the device, renamed, and its directory flushed; only then is it
//! read from. A file that does not check out is set aside as `.bad` and reported; a newer format is left as it is.
//! A block that was joined from others names them: one that a crash has left beside it does not count and goes at the
//! next start. No name is given twice while a block tells of it, and a name's number tells what was written first.
//! Nothing here deletes a block but `retain` and `joining`.

mod joining;
mod opened;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tocsin_shared::disk::{Disk, DiskFile};
use tocsin_shared::time::Timestamp;

use super::block::{self, Packing, Sealing};
use super::bytes::Malformed;
use super::series::SeriesKey;
use super::window::Window;

pub(crate) use opened::Block;

/// The longest index that is read into memory: a thousand times that of 1,000 hosts would be damage, not data.
const INDEX_LEN_MAX: u64 = 1 << 30;

/// A file operation that failed, or a file that does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("cannot {action} {path}: {source}; check the disk and its permissions")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the block {path} is damaged: {source}; restore it from a backup or move it away")]
    Damaged { path: PathBuf, source: Malformed },
    #[error("the block {path} has format {format}, which is newer than this program; upgrade the collector")]
    Newer { path: PathBuf, format: u32 },
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlockError {
    move |source| BlockError::Io { action, path: path.into(), source }
}

/// A block file as the journal remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// The file's name in the directory of blocks.
    pub name: String,
    pub window: Window,
    pub bytes: u64,
    /// Series, each counted once for each host.
    pub series: u64,
    pub samples: u64,
    /// crc32 of the block's index, which holds or leads to the checksums of all the rest.
    pub crc: u32,
}

/// A file that could not be opened as a block.
#[derive(Debug)]
pub struct SetAside {
    pub error: BlockError,
    /// Where the file is now; its old place when it was not moved.
    pub path: PathBuf,
}

/// Why a block was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedFor {
    Age,
    Size,
}

/// A block that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub entry: BlockEntry,
    pub why: RemovedFor,
}

/// All blocks of a directory.
pub(crate) struct Blocks {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// In the order of `place`.
    list: RwLock<Arc<[Arc<Block>]>>,
    /// Files that count no more and could not be removed.
    leftover: Mutex<Vec<PathBuf>>,
    /// Windows that could not be joined: not tried again before the next start.
    given_up: Mutex<HashSet<Window>>,
    /// The end of the newest window: what is younger needs no look at the list.
    end: AtomicI64,
}

impl Blocks {
    /// Opens every block of `dir`, which is made if it is not there.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<(Self, Vec<SetAside>), BlockError> {
        disk.create_dir(&dir).map_err(io_error("make", &dir))?;
        let (mut list, mut aside): (Vec<Arc<Block>>, _) = (Vec::new(), Vec::new());
        let listed = disk.list(&dir).map_err(io_error("list", &dir))?;
        let files = listed.into_iter().filter(|listed| listed.regular);
        let mut names = files.map(|listed| listed.name).collect::<Vec<_>>();
        names.sort();
        for path in names.into_iter().map(|name| dir.join(name)) {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") => disk.remove(&path).map_err(io_error("remove the unfinished", &path))?,
                Some("block") => match Block::open(&*disk, &path, interner(list.last())) {
                    Ok(block) => list.push(Arc::new(block)),
                    Err(error) => aside.push(set_aside(&*disk, path, error)),
                },
                _ => {}
            }
        }
        let blocks = Self {
            disk,
            dir,
            list: RwLock::new(Arc::new([])),
            leftover: Mutex::default(),
            given_up: Mutex::default(),
            end: AtomicI64::new(i64::MIN),
        };
        blocks.drop_replaced(&mut list)?;
        blocks.replace(list);
        Ok((blocks, aside))
    }

    /// Takes out what a joined block has, left there by a crash between its listing and their removal.
    fn drop_replaced(&self, list: &mut Vec<Arc<Block>>) -> Result<(), BlockError> {
        let all = list.iter().flat_map(|block| &block.index.replaces).collect::<HashSet<_>>();
        // What is itself replaced says nothing about names that were given since.
        let valid = list.iter().filter(|block| !all.contains(&block.entry.name));
        let gone = valid.flat_map(|block| block.index.replaces.clone()).collect::<HashSet<_>>();
        let (replaced, kept) = list.drain(..).partition(|block| gone.contains(&block.entry.name));
        *list = kept;
        let replaced: Vec<Arc<Block>> = replaced;
        if replaced.is_empty() {
            return Ok(());
        }
        sync_dir(&*self.disk, &self.dir)?; // After a kill the joined block's name may not be durable yet.
        self.lock_leftover().extend(replaced.iter().map(|block| block.path.clone()));
        self.clear_leftover()
    }

    fn lock_leftover(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.leftover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what counts no more; durable when it returns.
    fn clear_leftover(&self) -> Result<(), BlockError> {
        let mut leftover = self.lock_leftover();
        if leftover.is_empty() {
            return Ok(());
        }
        for path in leftover.iter() {
            remove(&*self.disk, path)?;
        }
        sync_dir(&*self.disk, &self.dir)?;
        leftover.clear();
        Ok(())
    }

    fn replace(&self, mut list: Vec<Arc<Block>>) {
        list.sort_by_key(|block| place(&block.entry));
        let end = list.iter().map(|block| block.entry.window.to.as_millis()).max();
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list.into();
        self.end.store(end.unwrap_or(i64::MIN), Ordering::Release);
    }

    /// The blocks there are now.
    pub(crate) fn list(&self) -> Arc<[Arc<Block>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The blocks that may have samples in (from, to].
    pub(crate) fn overlapping(&self, (from, to): (i64, i64)) -> Vec<Arc<Block>> {
        // `end` is read with the list already replaced or not: too early a value only costs a look at the list.
        if self.end.load(Ordering::Acquire) <= from.saturating_add(1) {
            return Vec::new();
        }
        let reaches = |block: &&Arc<Block>| {
            let window = block.entry.window;
            window.from.as_millis() <= to && from < window.to.as_millis() - 1
        };
        self.list().iter().filter(reaches).cloned().collect()
    }

    /// Writes a block and opens it. One caller at a time.
    pub(crate) fn write(&self, window: Window, hosts: &mut [Sealing]) -> Result<BlockEntry, BlockError> {
        let path = self.free_path(window)?;
        let tmp = path.with_extension("tmp");
        let pack = |out: &mut BufWriter<Appending>| {
            block::write(window, Packing::Merged(hosts), out).map_err(io_error("write", &tmp))
        };
        if let Err(error) = write_file(&*self.disk, &tmp, pack).and_then(|_| self.put_in_place(&tmp, &path)) {
            self.disk.remove(&tmp).ok(); // Best effort: the next start removes what is left.
            return Err(error);
        }
        let list = self.list();
        let block = Block::open(&*self.disk, &path, interner(list.last()))?;
        let entry = block.entry.clone();
        self.replace(list.iter().cloned().chain([Arc::new(block)]).collect());
        Ok(entry)
    }

    /// Gives a finished file its name, durable when it returns.
    fn put_in_place(&self, tmp: &Path, path: &Path) -> Result<(), BlockError> {
        self.disk.rename(tmp, path).map_err(io_error("rename to", path))?;
        sync_dir(&*self.disk, &self.dir)
    }

    /// `<from>-<to>.block`, with a number before the ending when the window has, or had, a block already: greater than
    /// that of all of them, unfinished ones included.
    fn free_path(&self, window: Window) -> Result<PathBuf, BlockError> {
        let stem = format!("{}-{}", window.from.as_millis(), window.to.as_millis());
        let listed = self.disk.list(&self.dir).map_err(io_error("list", &self.dir))?;
        let list = self.list();
        let names = listed.iter().map(|listed| &listed.name);
        let names = names.chain(list.iter().flat_map(|block| &block.index.replaces));
        let own = |name: &&String| name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('.'));
        Ok(self.dir.join(match names.filter(own).map(|name| order(name)).max() {
            None => format!("{stem}.block"),
            Some(last) => format!("{stem}.{}.block", last.saturating_add(1)),
        }))
    }

    /// Deletes blocks that ended before `now - max_age`, then the oldest until the rest takes at most `max_bytes`.
    pub(crate) fn retain(
        &self,
        now: Timestamp,
        max_age: Duration,
        max_bytes: u64,
    ) -> Result<Vec<Removed>, BlockError> {
        self.clear_leftover()?; // Without what replaced it, it would count again.
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        let mut bytes = 0u64;
        let mut list = self.list().to_vec();
        list.sort_by_key(|block| Reverse(place(&block.entry)));
        let mut full = false;
        for block in list {
            let old = block.entry.window.to <= now.minus(max_age);
            full |= bytes.saturating_add(block.entry.bytes) > max_bytes; // Nothing older than a gap is kept.
            if old || full {
                let why = if old { RemovedFor::Age } else { RemovedFor::Size };
                removed.push((block, why));
            } else {
                bytes += block.entry.bytes;
                kept.push(block);
            }
        }
        if removed.is_empty() {
            return Ok(Vec::new());
        }
        self.replace(kept);
        removed.reverse(); // Oldest first: what a crash leaves is the younger part.
        for (block, _) in &removed {
            remove(&*self.disk, &block.path)?;
        }
        sync_dir(&*self.disk, &self.dir)?;
        Ok(removed.into_iter().map(|(block, why)| Removed { entry: block.entry.clone(), why }).collect())
    }
}

/// Where a block stands among all: by day, within a day the joined one first because it was written first, then by
/// window and in the order of writing.
fn place(entry: &BlockEntry) -> (Timestamp, Reverse<bool>, Window, u32) {
    let day = entry.window.day();
    (day.from, Reverse(entry.window == day), entry.window, order(&entry.name))
}

/// The number in the name of a further block of a window; zero for the first.
fn order(name: &str) -> u32 {
    let mut parts = name.split('.').skip(1);
    parts.next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Removes a file, if it is there.
fn remove(disk: &dyn Disk, path: &Path) -> Result<(), BlockError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Gives back the label set of `last` that equals the one read: blocks in a row have nearly the same series.
fn interner(last: Option<&Arc<Block>>) -> impl Fn(SeriesKey) -> SeriesKey {
    let known = last.map(Arc::clone);
    move |key| {
        let Some(series) = known.as_ref().map(|block| &block.index.series) else { return key };
        let order = |other: &SeriesKey| other.0.metric().cmp(key.0.metric()).then_with(|| other.cmp(&key));
        series.binary_search_by(order).map_or(key.clone(), |at| series[at].clone())
    }
}

/// Moves a damaged file out of the way; one of a newer format stays.
fn set_aside(disk: &dyn Disk, path: PathBuf, error: BlockError) -> SetAside {
    let bad = path.with_extension("block.bad");
    let moved = matches!(error, BlockError::Damaged { .. }) && disk.rename(&path, &bad).is_ok();
    SetAside { error, path: if moved { bad } else { path } }
}

/// Writes a file of a block's format and makes it durable, not its name. What was under the name is gone.
pub(crate) fn write_file<T>(
    disk: &dyn Disk,
    path: &Path,
    pack: impl FnOnce(&mut BufWriter<Appending>) -> Result<T, BlockError>,
) -> Result<T, BlockError> {
    remove(disk, path)?; // A failure or a crash may have left one behind.
    write_to(disk.create(path).map_err(io_error("make", path))?, path, pack)
}

/// `write_file` to a file that is open and empty.
fn write_to<T>(
    file: Box<dyn DiskFile>,
    path: &Path,
    pack: impl FnOnce(&mut BufWriter<Appending>) -> Result<T, BlockError>,
) -> Result<T, BlockError> {
    let mut out = BufWriter::with_capacity(1 << 20, Appending { file, at: 0 });
    let packed = pack(&mut out)?;
    let mut out = out.into_inner().map_err(|error| io_error("write", path)(error.into_error()))?;
    out.file.sync_data().map_err(io_error("flush", path))?;
    Ok(packed)
}

/// A file that is written from its beginning to its end.
pub(crate) struct Appending {
    file: Box<dyn DiskFile>,
    at: u64,
}

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), BlockError> {
    disk.sync_dir(dir).map_err(io_error("flush the directory", dir))
}
