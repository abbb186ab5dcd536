//! The directory of block files: written whole or not at all, read by `pread`, deleted whole.
//!
//! A block is written beside its place, flushed to the device, renamed, and its directory flushed; only then is it
//! read from. A file that does not check out is set aside as `.bad` and reported; a newer format is left as it is.
//! Nothing here deletes a block but `retain`.

use std::cmp::Reverse;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tocsin_shared::disk::{Disk, DiskFile};
use tocsin_shared::time::Timestamp;

use super::block::{self, FOOTER_LEN, Footer, HEADER_LEN, Index, InvalidBlock, Packing, Sealing};
use super::bytes::Malformed;
use super::chunk::{Chunk, Head, Place, unpack};
use super::series::SeriesKey;
use super::window::Window;

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

/// An open block.
pub(crate) struct Block {
    pub(crate) path: PathBuf,
    file: Box<dyn DiskFile>,
    pub(crate) entry: BlockEntry,
    pub(crate) index: Index,
}

impl Block {
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        intern: impl Fn(SeriesKey) -> SeriesKey,
    ) -> Result<Self, BlockError> {
        let file = disk.open(path).map_err(io_error("open", path))?;
        let bytes = file.bytes().map_err(io_error("look at", path))?;
        let damaged = |source| BlockError::Damaged { path: path.into(), source };
        let body = bytes.checked_sub(HEADER_LEN + FOOTER_LEN as u64);
        let footer_at = HEADER_LEN + body.ok_or_else(|| damaged(Malformed("it is cut short")))?;
        let (mut header, mut footer) = ([0; HEADER_LEN as usize], [0; FOOTER_LEN]);
        read_exact(&*file, 0, &mut header).map_err(io_error("read", path))?;
        read_exact(&*file, footer_at, &mut footer).map_err(io_error("read", path))?;
        let footer = Footer::from_bytes(&header, &footer).map_err(|error| match error {
            InvalidBlock::Newer(format) => BlockError::Newer { path: path.into(), format },
            InvalidBlock::Malformed(source) => damaged(source),
        })?;
        if footer.index_at.checked_add(footer.index_len) != Some(footer_at)
            || footer.index_len > INDEX_LEN_MAX
        {
            return Err(damaged(Malformed("its index is not where its footer says")));
        }
        let mut index = vec![0; footer.index_len as usize];
        read_exact(&*file, footer.index_at, &mut index).map_err(io_error("read", path))?;
        if crc32fast::hash(&index) != footer.index_crc {
            return Err(damaged(Malformed("its index does not match its checksum")));
        }
        let index = Index::from_bytes(&index, intern).map_err(damaged)?;
        let chunks = index.hosts.iter().flat_map(|host| &host.chunks);
        let beyond = |chunk: &block::ChunkAt| {
            let len = u64::from(chunk.head_len) + u64::from(chunk.body_len);
            chunk.offset.checked_add(len).is_none_or(|end| end > footer.index_at)
        };
        if chunks.into_iter().any(beyond) {
            return Err(damaged(Malformed("a chunk is outside the file")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Footer { window, series, samples, index_crc: crc, .. } = footer;
        let entry = BlockEntry { name, window, bytes, series, samples, crc };
        Ok(Self { path: path.into(), file, entry, index })
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockError> {
        let mut bytes = vec![0; len];
        read_exact(&*self.file, offset, &mut bytes).map_err(io_error("read", &self.path))?;
        Ok(bytes)
    }

    pub(crate) fn damaged(&self, source: Malformed) -> BlockError {
        BlockError::Damaged { path: self.path.clone(), source }
    }

    /// The head of a chunk.
    pub(crate) fn head(&self, chunk: &block::ChunkAt) -> Result<Head, BlockError> {
        let bytes = self.read(chunk.offset, chunk.head_len as usize)?;
        if crc32fast::hash(&bytes) != chunk.head_crc {
            return Err(self.damaged(Malformed("a chunk does not match its checksum")));
        }
        Head::from_bytes(&bytes).map_err(|source| self.damaged(source))
    }

    /// A whole chunk for memory, every checksum of it looked at.
    pub(crate) fn chunk(&self, at: &block::ChunkAt) -> Result<Chunk, BlockError> {
        let head = self.head(at)?;
        let body = self.read(at.offset + u64::from(at.head_len), at.body_len as usize)?;
        Chunk::checked(at.first, at.last, head, body.into()).map_err(|source| self.damaged(source))
    }

    /// The times of a chunk.
    pub(crate) fn times(&self, head: &Head) -> Result<Vec<i64>, BlockError> {
        head.times().map_err(|source| self.damaged(source))
    }

    /// The values of one column of a chunk, a cell a row.
    pub(crate) fn values(
        &self,
        chunk: &block::ChunkAt,
        head: &Head,
        column: usize,
    ) -> Result<Vec<f64>, BlockError> {
        match head.place(column, chunk.body_len as usize).map_err(|source| self.damaged(source))? {
            Place::Constant(value) => Ok(vec![value; head.rows]),
            Place::Packed(range) => {
                let body_at = chunk.offset + u64::from(chunk.head_len);
                let bytes = self.read(body_at + range.start as u64, range.len())?;
                unpack(&bytes, head.rows).map_err(|source| self.damaged(source))
            }
        }
    }
}

fn read_exact(file: &dyn DiskFile, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let read = file.read_at(offset, into)?;
    if read == into.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
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
    /// Oldest window first; blocks of one window in the order in which they were written.
    list: RwLock<Arc<[Arc<Block>]>>,
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
        let blocks = Self { disk, dir, list: RwLock::new(Arc::new([])), end: AtomicI64::new(i64::MIN) };
        blocks.replace(list);
        Ok((blocks, aside))
    }

    fn replace(&self, mut list: Vec<Arc<Block>>) {
        list.sort_by_key(|block| (block.entry.window, order(&block.entry.name)));
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
        if let Err(error) = write_file(&*self.disk, &tmp, window, Packing::Merged(hosts)).and_then(|()| {
            self.disk.rename(&tmp, &path).map_err(io_error("rename to", &path))?;
            sync_dir(&*self.disk, &self.dir)
        }) {
            self.disk.remove(&tmp).ok(); // Best effort: the next start removes what is left.
            return Err(error);
        }
        let list = self.list();
        let block = Block::open(&*self.disk, &path, interner(list.last()))?;
        let entry = block.entry.clone();
        self.replace(list.iter().cloned().chain([Arc::new(block)]).collect());
        Ok(entry)
    }

    /// `<from>-<to>.block`, with a number before the ending when the window has a block already.
    fn free_path(&self, window: Window) -> Result<PathBuf, BlockError> {
        let stem = format!("{}-{}", window.from.as_millis(), window.to.as_millis());
        let listed = self.disk.list(&self.dir).map_err(io_error("list", &self.dir))?;
        let taken = |name: &str| listed.iter().any(|listed| listed.name == name);
        for number in 0u32.. {
            let name = if number == 0 { format!("{stem}.block") } else { format!("{stem}.{number}.block") };
            if !taken(&name) && !taken(&format!("{name}.bad")) {
                return Ok(self.dir.join(name));
            }
        }
        unreachable!("a directory does not hold four billion blocks of one window")
    }

    /// Deletes blocks that ended before `now - max_age`, then the oldest until the rest takes at most `max_bytes`.
    pub(crate) fn retain(
        &self,
        now: Timestamp,
        max_age: Duration,
        max_bytes: u64,
    ) -> Result<Vec<Removed>, BlockError> {
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        let mut bytes = 0u64;
        let mut list = self.list().to_vec();
        list.sort_by_key(|block| Reverse((block.entry.window, order(&block.entry.name))));
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
            match self.disk.remove(&block.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &block.path)(error));
                }
                _ => {}
            }
        }
        sync_dir(&*self.disk, &self.dir)?;
        Ok(removed.into_iter().map(|(block, why)| Removed { entry: block.entry.clone(), why }).collect())
    }
}

/// The number in the name of a further block of a window; zero for the first.
fn order(name: &str) -> u32 {
    name.trim_end_matches(".block").rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
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
pub(crate) fn write_file(
    disk: &dyn Disk,
    path: &Path,
    window: Window,
    hosts: Packing,
) -> Result<(), BlockError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove the unfinished", path)(error));
        }
        _ => {} // A failure or a crash may have left one behind.
    }
    let file = disk.create(path).map_err(io_error("make", path))?;
    let mut out = BufWriter::with_capacity(1 << 20, Appending { file, at: 0 });
    block::write(window, hosts, &mut out).map_err(io_error("write", path))?;
    let mut out = out.into_inner().map_err(|error| io_error("write", path)(error.into_error()))?;
    out.file.sync_data().map_err(io_error("flush", path))
}

/// A file that is written from its beginning to its end.
struct Appending {
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
