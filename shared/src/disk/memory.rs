//! A disk in memory that remembers what was synced, and can crash, fill up and fail on command. For tests.
//!
//! It knows two states: the live one, which running code sees, and the durable one, which only `sync_data`
//! (content) and `sync_dir` (names) move. `crash` decides what of the difference survives, as a power cut would.
//! Not modelled: directories are durable at once, and reads never fail.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::image::{Content, Image};
use super::random::Random;
use super::{Disk, DiskFile, Listed, Space};

/// The unit in which unsynced content survives a torn crash: a disk sector.
const SECTOR: usize = 512;

/// What becomes of everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All of it is there, as after a kill.
    Kept,
    /// None of it is there.
    Dropped,
    /// Each name and each sector decides for itself, by this seed.
    Torn(u64),
}

/// The calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Write,
    SyncData,
    SyncDir,
    Rename,
    Remove,
    Truncate,
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which call fails; `None` is any call that changes something.
    pub operation: Option<Operation>,
    /// How many such calls succeed first.
    pub after: u64,
    /// What it fails with: `StorageFull`, for ENOSPC, or anything else.
    pub kind: io::ErrorKind,
    /// Whether all later calls fail too.
    pub stays: bool,
}

/// A disk in memory; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
    nodes: Vec<Node>,
    fault: Option<Fault>,
    capacity: u64,
    calls: u64,
    generation: u64,
}

/// A file's content apart from its names. Room allocated beyond the content is `allocated`.
#[derive(Debug, Default)]
struct Node {
    live: Vec<u8>,
    synced: Vec<u8>,
    allocated: u64,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk without limits.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            dirs: BTreeSet::new(),
            nodes: Vec::new(),
            fault: None,
            capacity: u64::MAX,
            calls: 0,
            generation: 0,
        })))
    }

    /// Lets a later call fail, in place of any failure set before.
    pub fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// How many bytes fit on the disk. A write that does not fit is done as far as it does.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// How many bytes the files take, allocated room included.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// How many calls have changed something, or tried to, since the disk was made.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The power goes: handles die, unsynced state survives as `crash` says, failures end.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state();
        state.generation += 1;
        state.fault = None;
        let mut random = Random::new(match crash {
            Crash::Torn(seed) => seed,
            Crash::Kept | Crash::Dropped => 0,
        });
        state.names_after(crash, &mut random);
        for node in &mut state.nodes {
            node.live = match crash {
                Crash::Kept => std::mem::take(&mut node.live),
                Crash::Dropped => node.synced.clone(),
                Crash::Torn(_) => torn(&node.synced, &node.live, &mut random),
            };
            node.synced = node.live.clone();
        }
    }

    /// The content of a file as running code sees it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.live.get(path).map(|node| state.nodes[*node].live.clone())
    }

    /// Sets a file's content, durable: damage done from outside.
    pub fn set_content(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.state();
        let node = state.nodes.len();
        state.nodes.push(Node { synced: content.clone(), live: content, allocated: 0 });
        state.live.insert(path.to_owned(), node);
        state.durable.insert(path.to_owned(), node);
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().live.keys().cloned().collect()
    }

    /// Everything on it, as running code sees it.
    pub(super) fn image(&self) -> Image {
        let state = self.state();
        let content = |node: &usize| {
            let Node { live, allocated, .. } = &state.nodes[*node];
            Content { bytes: live.clone(), allocated: *allocated }
        };
        let files = state.live.iter().map(|(path, node)| (path.clone(), content(node)));
        Image { dirs: state.dirs.clone(), files: files.collect() }
    }

    /// A disk that holds this, all of it durable.
    pub(super) fn from_image(image: Image) -> Self {
        let disk = Self::new();
        let mut state = disk.state();
        state.dirs = image.dirs;
        for (path, Content { bytes, allocated }) in image.files {
            let node = state.nodes.len();
            state.nodes.push(Node { synced: bytes.clone(), live: bytes, allocated });
            state.live.insert(path, node);
        }
        state.durable = state.live.clone();
        drop(state);
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Content after a torn write: each sector that differs is the old one, the new one, or zeros.
fn torn(synced: &[u8], live: &[u8], random: &mut Random) -> Vec<u8> {
    if synced == live {
        return live.to_vec();
    }
    let (short, long) = (synced.len().min(live.len()), synced.len().max(live.len()));
    let length = short + random.below(long - short + 1);
    let mut content = Vec::with_capacity(length);
    for start in (0..length).step_by(SECTOR) {
        for at in start..(start + SECTOR).min(length) {
            content.push(*synced.get(at).or_else(|| live.get(at)).unwrap_or(&0));
        }
        let (choice, end) = (random.below(3), (start + SECTOR).min(length));
        let changed = |at: usize| synced.get(at) != live.get(at);
        for at in (start..end).filter(|at| changed(*at)) {
            content[at] = match choice {
                0 => *synced.get(at).unwrap_or(&0),
                _ => *live.get(at).unwrap_or(&0),
            };
        }
    }
    content
}

impl State {
    fn used(&self) -> u64 {
        let named: BTreeSet<usize> = self.live.values().copied().collect();
        named.into_iter().map(|at| self.nodes[at].room()).sum()
    }

    /// Which names are there after a crash.
    fn names_after(&mut self, crash: Crash, random: &mut Random) {
        match crash {
            Crash::Kept => {}
            Crash::Dropped => self.live = self.durable.clone(),
            Crash::Torn(_) => {
                let names: BTreeSet<PathBuf> = self.live.keys().chain(self.durable.keys()).cloned().collect();
                for name in names {
                    let survivor = if random.below(2) == 0 { &self.live } else { &self.durable };
                    match survivor.get(&name).copied() {
                        Some(node) => self.live.insert(name, node),
                        None => self.live.remove(&name),
                    };
                }
            }
        }
        self.durable = self.live.clone();
    }

    /// Counts a call, and fails it if its time has come.
    fn call(&mut self, operation: Operation) -> io::Result<()> {
        self.calls += 1;
        let Some(fault) = &mut self.fault else { return Ok(()) };
        if fault.operation.is_some_and(|failing| failing != operation) {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let kind = fault.kind;
        if !fault.stays {
            self.fault = None;
        }
        Err(io::Error::new(kind, "injected failure"))
    }

    fn node(&self, path: &Path) -> io::Result<usize> {
        self.live.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Node {
    fn room(&self) -> u64 {
        self.allocated.max(self.live.len() as u64)
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let state = self.state();
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let inside = |path: &Path| path.parent() == Some(dir);
        let files = state.live.iter().filter(|(path, _)| inside(path)).filter_map(|(path, node)| {
            let bytes = state.nodes[*node].room();
            Some(Listed { name: name(path)?, bytes, regular: true })
        });
        let dirs = state.dirs.iter().filter(|path| inside(path));
        let dirs = dirs.filter_map(|path| Some(Listed { name: name(path)?, bytes: 0, regular: false }));
        Ok(files.chain(dirs).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.call(Operation::Create)?;
        if state.live.contains_key(path) || state.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if path.parent().is_none_or(|dir| !state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let node = state.nodes.len();
        state.nodes.push(Node::default());
        state.live.insert(path.to_owned(), node);
        Ok(Box::new(MemoryFile { disk: self.clone(), node, generation: state.generation }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        let node = state.node(path)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), node, generation: state.generation }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Operation::Rename)?;
        let node = state.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.call(Operation::Remove)?;
        state.live.remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Operation::SyncDir)?;
        let State { live, durable, .. } = &mut *state;
        durable.retain(|path, _| path.parent() != Some(dir));
        durable.extend(
            live.iter()
                .filter(|(path, _)| path.parent() == Some(dir))
                .map(|(path, node)| (path.clone(), *node)),
        );
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let state = self.state();
        Ok(Space { free: state.capacity.saturating_sub(state.used()), total: state.capacity })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    node: usize,
    generation: u64,
}

impl MemoryFile {
    /// The disk's state, unless the power went since this file was opened.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.generation == self.generation { Ok(state) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

impl DiskFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.state()?.nodes[self.node].room())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state()?;
        let live = &state.nodes[self.node].live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        let read = into.len().min(live.len() - start);
        into[..read].copy_from_slice(&live[start..start + read]);
        Ok(read)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let outcome = state.call(Operation::Write);
        let free = state.capacity.saturating_sub(state.used());
        let node = &mut state.nodes[self.node];
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let room = usize::try_from(node.room().saturating_add(free)).unwrap_or(usize::MAX);
        let mut fits = bytes.len().min(room.saturating_sub(start));
        if outcome.is_err() {
            fits /= 2; // A failing write has usually written something.
        }
        if node.live.len() < start + fits {
            node.live.resize(start + fits, 0);
        }
        node.live[start..start + fits].copy_from_slice(&bytes[..fits]);
        outcome?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.state()?;
        state.call(Operation::SyncData)?;
        let node = &mut state.nodes[self.node];
        node.synced = node.live.clone();
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.call(Operation::Truncate)?;
        let node = &mut state.nodes[self.node];
        node.live.resize(usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?, 0);
        node.allocated = node.allocated.min(bytes);
        Ok(())
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.call(Operation::Write)?;
        let free = state.capacity.saturating_sub(state.used());
        let node = &mut state.nodes[self.node];
        if bytes.saturating_sub(node.room()) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        node.allocated = node.allocated.max(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_or_drops_what_was_not_synced() {
        let path = Path::new("/d/file");
        for (crash, content) in [(Crash::Kept, &b"abXY"[..]), (Crash::Dropped, b"ab")] {
            let disk = MemoryDisk::new();
            disk.create_dir(Path::new("/d")).unwrap();
            let mut file = disk.create(path).unwrap();
            file.write_at(0, b"ab").unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(2, b"XY").unwrap();
            disk.create(Path::new("/d/other")).unwrap();
            disk.crash(crash);
            assert_eq!(disk.content(path).unwrap(), content, "{crash:?}");
            assert_eq!(disk.paths().len(), if crash == Crash::Kept { 2 } else { 1 }, "{crash:?}");
            assert!(file.sync_data().is_err(), "handles die with the power");
        }
    }

    #[test]
    fn a_full_disk_writes_what_fits() {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new("/d")).unwrap();
        disk.set_capacity(3);
        let mut file = disk.create(Path::new("/d/file")).unwrap();
        let error = file.write_at(0, b"abcdef").unwrap_err();
        assert!(super::super::is_full(&error));
        assert_eq!(disk.content(Path::new("/d/file")).unwrap(), b"abc");
    }
}
