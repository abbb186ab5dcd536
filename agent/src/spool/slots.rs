//! The ledger's file: two slots of fixed size, written in turn, so that one is always whole.
//!
//! The file never grows, so it can be written on a full disk: that is when evictions must be noted. Promise: after a
//! crash at any point `load` returns the last saved ledger or the one before it that `save` was replacing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tocsin_shared::disk::{Disk, read_whole};
use tocsin_shared::frame::{self, Decoded, HEADER_BYTES, Role};

use super::SpoolError;
use super::ledger::{ENCODED_MAX, Ledger};

/// A slot: the largest ledger, rounded up to whole pages, so that writing one slot never touches the other's.
const SLOT: usize = (ENCODED_MAX + HEADER_BYTES).next_multiple_of(4096);

/// What the file adds to the spool.
pub(super) const FILE_BYTES: u64 = 2 * SLOT as u64;

/// The version of the encoding, kept as the frame's kind.
const VERSION: u8 = 1;

/// Where the ledger is, and which slot holds the newest one.
pub(super) struct Slots {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Saves so far. An even one is in the first slot.
    generation: u64,
}

fn salt() -> u32 {
    frame::salt("tocsin spool ledger")
}

impl Slots {
    /// Opens or creates the file in `dir`. The ledger is `None` in a new file and when both slots are damaged.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Option<Ledger>), SpoolError> {
        let path = dir.join("ledger");
        let failed = SpoolError::disk("read", &path);
        let content = match read_whole(&*disk, &path, FILE_BYTES) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut newest: Option<(u64, Ledger)> = None;
        for slot in content.chunks(SLOT) {
            let Decoded::Frame { header, payload } = frame::decode(salt(), slot) else { continue };
            if header.kind > VERSION {
                return Err(SpoolError::Newer { path, found: header.kind, known: VERSION });
            }
            let later = newest.as_ref().is_none_or(|(generation, _)| *generation < header.seq);
            if let (Some(ledger), true) = (Ledger::decode(&slot[payload]), later) {
                newest = Some((header.seq, ledger));
            }
        }
        let generation = newest.as_ref().map_or(0, |(generation, _)| *generation);
        let slots = Self { disk, path, generation };
        if content.len() as u64 != FILE_BYTES {
            slots.create(dir, &content).map_err(SpoolError::disk("create", &slots.path))?;
        }
        Ok((slots, newest.map(|(_, ledger)| ledger)))
    }

    /// Makes the file as long as it will ever be, keeping what is in it.
    fn create(&self, dir: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = match self.disk.create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&self.path)?,
            result => result?,
        };
        let zeros = vec![0; 2 * SLOT - content.len().min(2 * SLOT)];
        file.write_at(content.len() as u64, &zeros)?;
        file.truncate(FILE_BYTES)?;
        file.sync_data()?;
        self.disk.sync_dir(dir)
    }

    /// Makes a ledger durable. After an error the one before it still is, and the next call writes the same slot.
    pub(super) fn save(&mut self, ledger: &Ledger) -> Result<(), SpoolError> {
        let generation = self.generation + 1;
        let mut bytes = Vec::with_capacity(SLOT);
        frame::encode(salt(), (generation, VERSION, Role::Numbered), &ledger.encode(), &mut bytes);
        let offset = if generation.is_multiple_of(2) { 0 } else { SLOT as u64 };
        // Opened anew each time: an fsync that failed on an older handle says nothing about this one's pages.
        let saved = self.disk.open(&self.path).and_then(|mut file| {
            file.write_at(offset, &bytes)?;
            file.sync_data()
        });
        saved.map_err(SpoolError::disk("write", &self.path))?;
        self.generation = generation;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tocsin_shared::disk::{Crash, Fault, MemoryDisk};
    use tocsin_shared::identity::Epoch;
    use tocsin_shared::lane::Lane;
    use tocsin_shared::ranges::Ranges;
    use uuid::Uuid;

    use super::*;

    fn open(disk: &MemoryDisk) -> (Slots, Option<Ledger>) {
        disk.create_dir(Path::new("/d")).unwrap();
        Slots::open(Arc::new(disk.clone()), Path::new("/d")).unwrap()
    }

    fn floor(ledger: Option<&Ledger>) -> u64 {
        ledger.map_or(0, |ledger| ledger.acked(Lane::State).floor())
    }

    #[test]
    fn a_crash_leaves_the_last_ledger_or_the_one_before() {
        for crash in
            [Crash::Kept, Crash::Dropped, Crash::Torn(1), Crash::Torn(2), Crash::Torn(3), Crash::Torn(4)]
        {
            for calls in 0..12 {
                let disk = MemoryDisk::new();
                let (mut slots, none) = open(&disk);
                assert_eq!(none, None);
                disk.fail(Fault { operation: None, after: calls, kind: ErrorKind::Other, stays: true });
                let mut ledger = Ledger::new(Epoch(Uuid::from_u128(1)));
                let mut saved = 0;
                for to in 1..=5 {
                    ledger.acknowledge(Lane::State, &Ranges::up_to(to));
                    match slots.save(&ledger) {
                        Ok(()) => saved = to,
                        Err(_) => break,
                    }
                }
                disk.crash(crash);
                let found = floor(open(&disk).1.as_ref());
                assert!(
                    found == saved || found == saved + 1,
                    "{crash:?} after {calls}: {found}, saved {saved}"
                );
            }
        }
    }

    #[test]
    fn saving_needs_no_room_and_damage_costs_one_slot() {
        let disk = MemoryDisk::new();
        let (mut slots, _) = open(&disk);
        disk.set_capacity(disk.used());
        let mut ledger = Ledger::new(Epoch(Uuid::from_u128(1)));
        for to in 1..=4 {
            ledger.acknowledge(Lane::State, &Ranges::up_to(to));
            slots.save(&ledger).unwrap();
        }
        let path = Path::new("/d/ledger");
        for (at, left) in [(0, 3), (SLOT, 0)] {
            let mut content = disk.content(path).unwrap();
            content[at + HEADER_BYTES] ^= 1;
            disk.set_content(path, content);
            assert_eq!(floor(open(&disk).1.as_ref()), left);
        }
    }
}
