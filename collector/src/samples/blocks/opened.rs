//! One block file: opened and looked at once, then read by `pread`, a column at a time.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tocsin_shared::disk::{Disk, DiskFile};

use super::super::block::{ChunkAt, FOOTER_LEN, Footer, HEADER_LEN, Index, InvalidBlock};
use super::super::bytes::Malformed;
use super::super::chunk::{Chunk, Head, unpack};
use super::super::series::SeriesKey;
use super::{BlockEntry, BlockError, INDEX_LEN_MAX, io_error};

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
        let beyond = |chunk: &ChunkAt| {
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
    pub(crate) fn head(&self, chunk: &ChunkAt) -> Result<Head, BlockError> {
        let bytes = self.read(chunk.offset, chunk.head_len as usize)?;
        if crc32fast::hash(&bytes) != chunk.head_crc {
            return Err(self.damaged(Malformed("a chunk does not match its checksum")));
        }
        Head::from_bytes(&bytes).map_err(|source| self.damaged(source))
    }

    /// A whole chunk for memory, every checksum of it looked at.
    pub(crate) fn chunk(&self, at: &ChunkAt) -> Result<Chunk, BlockError> {
        let head = self.head(at)?;
        let body = self.read(at.offset + u64::from(at.head_len), at.body_len as usize)?;
        Chunk::checked(at.first, at.last, head, body.into()).map_err(|source| self.damaged(source))
    }

    /// The times of a chunk.
    pub(crate) fn times(&self, head: &Head) -> Result<Vec<i64>, BlockError> {
        head.times().map_err(|source| self.damaged(source))
    }

    /// Some bytes of a chunk's body.
    pub(crate) fn body(&self, chunk: &ChunkAt, range: Range<usize>) -> Result<Vec<u8>, BlockError> {
        self.read(chunk.offset + u64::from(chunk.head_len) + range.start as u64, range.len())
    }

    /// The values of a packed column of so many rows.
    pub(crate) fn unpack(&self, bytes: &[u8], rows: usize) -> Result<Vec<f64>, BlockError> {
        unpack(bytes, rows).map_err(|source| self.damaged(source))
    }
}

fn read_exact(file: &dyn DiskFile, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let read = file.read_at(offset, into)?;
    if read == into.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
