//! Head files: what is in memory and in no block yet, written down every few minutes so that a start loads it.
//!
//! They are a shortcut, never the truth: the journal keeps every row until its window is sealed. A head file has the
//! format of a block, its chunks as they were in memory; each holds what the ones before it do not. A manifest beside
//! them, replaced as a whole, says which of them count and up to which row of the journal, and carries the journal's
//! own note. What it does not name is removed; if one of them does not check out, none of them counts.
//! Not here: when to write one (`run`), what the note says (`journal::rows`).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tocsin_shared::disk::{self, Disk};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::block::{self, Packing, Sealing};
use super::blocks::{Block, BlockError, io_error, sync_dir, write_file};
use super::bytes::{Malformed, Reader, put_varint, unzigzag, zigzag};
use super::chunk::Chunk;
use super::series::SeriesKey;
use super::window::Window;

const MAGIC: [u8; 8] = *b"TOCSNHDS";
/// The format this program writes; head files of another one do not count, the journal does.
const FORMAT: u32 = 1;
/// A note has some hundred bytes an agent: what is longer is damage.
const MANIFEST_BYTES_MAX: u64 = 1 << 28;

/// A head file that is written and not yet listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewHead {
    /// With the files before it, it has every row of the journal up to here.
    pub through: u64,
    /// The end of the youngest window it has samples of.
    end: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    through: u64,
    /// It has no row of the journal beyond this.
    upto: u64,
    end: Timestamp,
}

/// What blocks hold: rows of the journal up to `seq` that are older than `to`.
#[derive(Clone, Copy, Debug)]
pub struct SealedTo {
    pub seq: u64,
    pub to: Timestamp,
}

impl SealedTo {
    fn has(self, upto: u64, end: Timestamp) -> bool {
        upto <= self.seq && end <= self.to
    }
}

/// One chunk of a host, read back.
pub(crate) struct Loaded {
    pub(crate) series: Arc<[SeriesKey]>,
    pub(crate) chunk: Chunk,
}

/// A host's chunks in the order in which they were written.
pub(crate) struct LoadedHost {
    pub(crate) agent: Option<AgentId>,
    pub(crate) target: Labels,
    pub(crate) chunks: Vec<Loaded>,
}

/// What head files had, and the journal's note.
pub(crate) type Found = (Vec<LoadedHost>, Vec<u8>);

/// The head files of a directory.
pub(crate) struct Heads {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    manifest: Mutex<Manifest>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Manifest {
    files: Vec<Listed>,
    note: Vec<u8>,
}

impl Heads {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, manifest: Mutex::default() }
    }

    fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, through: u64) -> PathBuf {
        self.dir.join(format!("{through:020}.head"))
    }

    fn manifest_path(&self) -> PathBuf {
        self.dir.join("manifest")
    }

    /// Reads what the manifest names and blocks do not have, with the journal's note; nothing when there is no
    /// manifest. After an error none of the files counts.
    pub(crate) fn load(
        &self,
        sealed: SealedTo,
        intern: impl Fn(SeriesKey) -> SeriesKey,
    ) -> Result<Option<Found>, BlockError> {
        self.disk.create_dir(&self.dir).map_err(io_error("make", &self.dir))?;
        let loaded = self.read_manifest().and_then(|manifest| {
            let Some(manifest) = manifest else { return Ok(None) };
            let wanted = manifest.files.iter().filter(|file| !sealed.has(file.upto, file.end));
            let blocks = wanted
                .map(|file| Ok((*file, Block::open(&*self.disk, &self.path(file.through), &intern)?)))
                .collect::<Result<Vec<_>, BlockError>>()?;
            let hosts = read_hosts(&blocks, sealed)?;
            Ok(Some((hosts, manifest)))
        });
        let known =
            loaded.as_ref().ok().and_then(|loaded| loaded.as_ref()).map(|(_, manifest)| manifest.clone());
        *self.manifest() = known.unwrap_or_default();
        self.remove_unlisted()?;
        Ok(loaded?.map(|(hosts, manifest)| (hosts, manifest.note)))
    }

    fn read_manifest(&self) -> Result<Option<Manifest>, BlockError> {
        let path = self.manifest_path();
        match disk::read_whole(&*self.disk, &path, MANIFEST_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read", &path)(source)),
            Ok(bytes) => {
                Manifest::from_bytes(&bytes).map(Some).map_err(|source| BlockError::Damaged { path, source })
            }
        }
    }

    /// Writes a head file, durable and not yet listed.
    pub(crate) fn write(&self, through: u64, hosts: &mut [Sealing]) -> Result<NewHead, BlockError> {
        self.disk.create_dir(&self.dir).map_err(io_error("make", &self.dir))?;
        let chunks = || hosts.iter().flat_map(|host| &host.held).map(|held| &*held.chunk);
        let first = chunks().map(|chunk| chunk.first).min().unwrap_or(0);
        let last = chunks().map(|chunk| chunk.last).max().unwrap_or(0);
        let window = Window {
            from: Timestamp::from_millis(first),
            to: Timestamp::from_millis(last.saturating_add(1)),
        };
        let path = self.path(through);
        let pack =
            |out: &mut _| block::write(window, Packing::Copied(hosts), out).map_err(io_error("write", &path));
        if let Err(error) =
            write_file(&*self.disk, &path, pack).and_then(|_| sync_dir(&*self.disk, &self.dir))
        {
            self.disk.remove(&path).ok(); // Best effort: the next start removes what is left.
            return Err(error);
        }
        Ok(NewHead { through, end: Window::of(Timestamp::from_millis(last)).to })
    }

    /// Lists a new file beside the others that blocks do not have.
    pub(crate) fn commit(
        &self,
        head: Option<NewHead>,
        upto: u64,
        note: Option<Vec<u8>>,
        sealed: SealedTo,
    ) -> Result<(), BlockError> {
        let mut manifest = self.manifest();
        let mut next = manifest.clone();
        next.files.retain(|file| !sealed.has(file.upto, file.end));
        next.files.extend(head.map(|NewHead { through, end }| Listed { through, upto, end }));
        next.note = note.unwrap_or(next.note);
        if next == *manifest {
            return Ok(());
        }
        let path = self.manifest_path();
        disk::replace(&*self.disk, &path, &next.to_bytes()).map_err(io_error("replace", &path))?;
        *manifest = next;
        drop(manifest);
        self.remove_unlisted()
    }

    /// Removes what no manifest names: sealed, or left over by a crash.
    fn remove_unlisted(&self) -> Result<(), BlockError> {
        let listed = self.disk.list(&self.dir).map_err(io_error("list", &self.dir))?;
        let manifest = self.manifest().clone();
        for file in listed.into_iter().filter(|file| file.regular && file.name.ends_with(".head")) {
            let path = self.dir.join(&file.name);
            if !manifest.files.iter().any(|known| self.path(known.through) == path) {
                self.disk.remove(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Reads all hosts, on a few threads: checksums take longer than the disk.
fn read_hosts(blocks: &[(Listed, Block)], sealed: SealedTo) -> Result<Vec<LoadedHost>, BlockError> {
    let mut agents = blocks
        .iter()
        .flat_map(|(_, block)| block.index.hosts.iter().map(|host| host.agent))
        .collect::<Vec<_>>();
    agents.sort_unstable();
    agents.dedup();
    super::in_parallel(agents, |agent| read_host(blocks, agent, sealed)).into_iter().collect()
}

fn read_host(
    blocks: &[(Listed, Block)],
    agent: Option<AgentId>,
    sealed: SealedTo,
) -> Result<LoadedHost, BlockError> {
    let mut loaded = LoadedHost { agent, target: Labels::empty(), chunks: Vec::new() };
    let mut lists: Vec<Arc<[SeriesKey]>> = Vec::new(); // Of this host: the newest last, most files have the same.
    for (file, block) in blocks {
        let Some(host) = block.index.host(agent) else { continue };
        loaded.target = host.target.clone();
        for at in &host.chunks {
            if sealed.has(file.upto, Window::of(Timestamp::from_millis(at.first)).to) {
                continue;
            }
            let ids = block.index.lists.get(at.list as usize);
            let ids = ids.ok_or_else(|| block.damaged(Malformed("a chunk of no list of series")))?;
            let chunk = block.chunk(at)?;
            if chunk.head.entries.len() != ids.len() {
                return Err(block.damaged(Malformed("a chunk and its list of series differ")));
            }
            let key = |id: &u32| &block.index.series[*id as usize];
            let series = match lists.last().filter(|known| known.iter().eq(ids.iter().map(key))) {
                Some(known) => Arc::clone(known),
                None => ids.iter().map(key).cloned().collect(),
            };
            lists.push(Arc::clone(&series));
            loaded.chunks.push(Loaded { series, chunk });
        }
    }
    Ok(loaded)
}

impl Manifest {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.note.len() + 64 * self.files.len() + 64);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        put_varint(&mut out, self.files.len() as u64);
        for Listed { through, upto, end } in &self.files {
            put_varint(&mut out, *through);
            put_varint(&mut out, *upto);
            put_varint(&mut out, zigzag(end.as_millis()));
        }
        put_varint(&mut out, self.note.len() as u64);
        out.extend_from_slice(&self.note);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed("it is cut short"))?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return Err(Malformed("it does not match its checksum"));
        }
        let mut reader = Reader(content);
        if reader.array()? != MAGIC || reader.u32()? != FORMAT {
            return Err(Malformed("it has another format"));
        }
        let mut manifest = Self::default();
        for _ in 0..reader.count()? {
            let (through, upto) = (reader.varint()?, reader.varint()?);
            let end = Timestamp::from_millis(unzigzag(reader.varint()?));
            manifest.files.push(Listed { through, upto, end });
        }
        let len = reader.count()?;
        manifest.note = reader.take(len)?.to_vec();
        Ok(manifest)
    }
}
