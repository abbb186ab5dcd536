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
        let mut content = match read_whole(&*disk, &path, FILE_BYTES) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let there = content.len();
        content.resize(2 * SLOT, 0); // As it is about to be: a slot that ended in zeros is whole again.
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
        if there != content.len() {
            slots.complete(dir, there).map_err(SpoolError::disk("create", &slots.path))?;
        }
        let ledger = newest.map(|(_, ledger)| ledger);
        if let Some(ledger) = &ledger {
            slots.believe(ledger)?;
        }
        Ok((slots, ledger))
    }

    /// Makes the file as long as it will ever be, keeping the bytes that are in it.
    fn complete(&self, dir: &Path, there: usize) -> io::Result<()> {
        let mut file = match self.disk.create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&self.path)?,
            result => result?,
        };
        file.write_at(there as u64, &vec![0; 2 * SLOT - there])?;
        file.truncate(FILE_BYTES)?;
        file.sync_data()?;
        self.disk.sync_dir(dir)
    }

    /// Writes the newest ledger once more, as it is: a kill or a failed fsync may have left it where it can be read and
    /// a power cut still takes it, after records were removed on its word.
    fn believe(&self, ledger: &Ledger) -> Result<(), SpoolError> {
        match self.write(self.generation, ledger) {
            // Only file systems that never overwrite in place get here. A start matters more.
            Err(error) if error.is_full() => Ok(()),
            written => written,
        }
    }

    /// Makes a ledger durable. After an error the one before it still is, and the next call writes the same slot.
    pub(super) fn save(&mut self, ledger: &Ledger) -> Result<(), SpoolError> {
        self.write(self.generation + 1, ledger)?;
        self.generation += 1;
        Ok(())
    }

    fn write(&self, generation: u64, ledger: &Ledger) -> Result<(), SpoolError> {
        let mut bytes = Vec::with_capacity(SLOT);
        frame::encode(salt(), (generation, VERSION, Role::Numbered), &ledger.encode(), &mut bytes);
        let offset = if generation.is_multiple_of(2) { 0 } else { SLOT as u64 };
        // Opened anew each time: an fsync that failed on an older handle says nothing about this one's pages.
        let saved = self.disk.open(&self.path).and_then(|mut file| {
            file.write_at(offset, &bytes)?;
            file.sync_data()
        });
        saved.map_err(SpoolError::disk("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use tocsin_shared::disk::{MemoryDisk, RecordingDisk};
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

    // Cases: S2, S7
    #[test]
    fn a_power_cut_leaves_the_last_ledger_or_the_one_before() {
        let disk = RecordingDisk::default();
        disk.create_dir(Path::new("/d")).unwrap();
        let (mut slots, none) = Slots::open(Arc::new(disk.clone()), Path::new("/d")).unwrap();
        assert_eq!(none, None);
        let (mut ledger, mut saved) = (Ledger::new(Epoch(Uuid::from_u128(1))), vec![(0, 0)]);
        for to in 1..=4 {
            ledger.acknowledge(Lane::State, &Ranges::up_to(to));
            slots.save(&ledger).unwrap();
            saved.push((disk.position(), to));
        }
        for cut in disk.history().power_cuts() {
            let (_, saved) = *saved.iter().rev().find(|(at, _)| *at <= cut.after).unwrap();
            let found = floor(open(&cut.disk).1.as_ref());
            assert!(found == saved || found == saved + 1, "{cut}: {found}, saved {saved}");
            assert_eq!(floor(open(&cut.disk).1.as_ref()), found, "{cut}: another opening");
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
