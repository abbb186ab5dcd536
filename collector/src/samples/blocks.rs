//! The directory of block files: written whole or not at all, read by `pread`, deleted whole.
//!
//! A block is written beside its place, flushed to the device, renamed, and its directory flushed; only then is it
//! read from. A file that does not check out is set aside as `.bad` and reported; a newer format is left as it is.
//! Nothing here deletes a block but `retain`.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tocsin_shared::time::Timestamp;

use super::block::{self, FOOTER_LEN, Footer, HEADER_LEN, Index, InvalidBlock, Sealing};
use super::bytes::Malformed;
use super::chunk::{Head, Place, unpack};
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

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlockError {
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
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) path: PathBuf,
    file: File,
    pub(crate) entry: BlockEntry,
    pub(crate) index: Index,
}

impl Block {
    fn open(path: &Path, intern: impl Fn(SeriesKey) -> SeriesKey) -> Result<Self, BlockError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let bytes = file.metadata().map_err(io_error("look at", path))?.len();
        let damaged = |source| BlockError::Damaged { path: path.into(), source };
        let body = bytes.checked_sub(HEADER_LEN + FOOTER_LEN as u64);
        let footer_at = HEADER_LEN + body.ok_or_else(|| damaged(Malformed("it is cut short")))?;
        let (mut header, mut footer) = ([0; HEADER_LEN as usize], [0; FOOTER_LEN]);
        file.read_exact_at(&mut header, 0).map_err(io_error("read", path))?;
        file.read_exact_at(&mut footer, footer_at).map_err(io_error("read", path))?;
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
        file.read_exact_at(&mut index, footer.index_at).map_err(io_error("read", path))?;
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
        self.file.read_exact_at(&mut bytes, offset).map_err(io_error("read", &self.path))?;
        Ok(bytes)
    }

    fn damaged(&self, source: Malformed) -> BlockError {
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
#[derive(Debug)]
pub(crate) struct Blocks {
    dir: PathBuf,
    /// Oldest window first; blocks of one window in the order in which they were written.
    list: RwLock<Arc<[Arc<Block>]>>,
    /// The end of the newest window: what is younger needs no look at the list.
    end: AtomicI64,
}

impl Blocks {
    /// Opens every block of `dir`, which is made if it is not there.
    pub(crate) fn open(dir: PathBuf) -> Result<(Self, Vec<SetAside>), BlockError> {
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        let (mut list, mut aside): (Vec<Arc<Block>>, _) = (Vec::new(), Vec::new());
        let mut paths = fs::read_dir(&dir)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(io_error("list", &dir))?;
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") => fs::remove_file(&path).map_err(io_error("remove the unfinished", &path))?,
                Some("block") => match Block::open(&path, interner(list.last())) {
                    Ok(block) => list.push(Arc::new(block)),
                    Err(error) => aside.push(set_aside(path, error)),
                },
                _ => {}
            }
        }
        let blocks = Self { dir, list: RwLock::new(Arc::new([])), end: AtomicI64::new(i64::MIN) };
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
        if let Err(error) = write_file(&tmp, window, hosts).and_then(|()| {
            fs::rename(&tmp, &path).map_err(io_error("rename to", &path))?;
            sync_dir(&self.dir)
        }) {
            fs::remove_file(&tmp).ok(); // Best effort: the next start removes what is left.
            return Err(error);
        }
        let list = self.list();
        let block = Block::open(&path, interner(list.last()))?;
        let entry = block.entry.clone();
        self.replace(list.iter().cloned().chain([Arc::new(block)]).collect());
        Ok(entry)
    }

    /// `<from>-<to>.block`, with a number before the ending when the window has a block already.
    fn free_path(&self, window: Window) -> Result<PathBuf, BlockError> {
        let stem = format!("{}-{}", window.from.as_millis(), window.to.as_millis());
        for number in 0u32.. {
            let name = if number == 0 { format!("{stem}.block") } else { format!("{stem}.{number}.block") };
            let path = self.dir.join(name);
            let taken = path.try_exists().map_err(io_error("look for", &path))?;
            let bad = bad_path(&path);
            if !taken && !bad.try_exists().map_err(io_error("look for", &bad))? {
                return Ok(path);
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
            match fs::remove_file(&block.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &block.path)(error));
                }
                _ => {}
            }
        }
        sync_dir(&self.dir)?;
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

fn bad_path(path: &Path) -> PathBuf {
    path.with_extension("block.bad")
}

/// Moves a damaged file out of the way; one of a newer format stays.
fn set_aside(path: PathBuf, error: BlockError) -> SetAside {
    let bad = bad_path(&path);
    let moved = matches!(error, BlockError::Damaged { .. }) && fs::rename(&path, &bad).is_ok();
    SetAside { error, path: if moved { bad } else { path } }
}

fn write_file(path: &Path, window: Window, hosts: &mut [Sealing]) -> Result<(), BlockError> {
    let file = File::create(path).map_err(io_error("make", path))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    block::write(window, hosts, &mut out).map_err(io_error("write", path))?;
    let file = out.into_inner().map_err(|error| io_error("write", path)(error.into_error()))?;
    file.sync_data().map_err(io_error("flush", path))
}

fn sync_dir(dir: &Path) -> Result<(), BlockError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("flush the directory", dir))
}
