//! The tables in sled 0.34.
//!
//! Its `flush` ends in `sync_file_range`, which a power cut does not respect, so each commit is followed by an
//! `fdatasync` of its `db` file. A kill during its open can leave a torn `snap.*.generating`, which its next open
//! takes for a snapshot: such files are removed first. Transactions are short and take one lock of the process.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Pair, StoreError, Table, Tables, Write};

/// sled takes two to three times of this.
const CACHE_BYTES: u64 = 16 << 20;

/// Two seconds in all; by then it is another process that holds it.
const LOCK_WAIT: Duration = Duration::from_millis(20);
const LOCK_WAITS_MAX: u32 = 100;

/// A sled database of one tree; the table is the first byte of the key.
pub struct SledTables {
    db: sled::Db,
    file: File,
    path: PathBuf,
}

impl SledTables {
    /// Opens or creates the database.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        remove_torn_snapshots(path)?;
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = open_unlocked(&config)?;
        let file = File::open(path.join("db"))?;
        File::open(path)?.sync_all()?;
        Ok(Self { db, file, path: path.to_owned() })
    }
}

/// sled's own threads let go of its file a moment after the last handle is dropped: a lock that is held is waited for.
fn open_unlocked(config: &sled::Config) -> Result<sled::Db, StoreError> {
    let mut waits = 0;
    loop {
        match caught(|| config.open()) {
            Err(StoreError::Sled(sled::Error::Io(error)))
                if waits < LOCK_WAITS_MAX && error.to_string().contains("could not acquire lock") =>
            {
                waits += 1;
                std::thread::sleep(LOCK_WAIT);
            }
            opened => return opened,
        }
    }
}

fn remove_torn_snapshots(path: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A panic inside sled becomes an error: the store is set aside, the collector goes on.
fn caught<T>(run: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(StoreError::Panicked(text.unwrap_or("without a message").to_owned()))
        }
    }
}

pub(super) fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(table as u8);
    full.extend_from_slice(key);
    full
}

impl Tables for SledTables {
    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for Write { table, key, value } in writes {
            match value {
                Some(value) => batch.insert(full_key(*table, key), value.as_slice()),
                None => batch.remove(full_key(*table, key)),
            }
        }
        caught(|| self.db.apply_batch(batch).and_then(|()| self.db.flush()))?;
        self.file.sync_data()?;
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(caught(|| self.db.get(full_key(table, key)))?.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        caught(|| {
            let pairs = self.db.scan_prefix(full_key(table, prefix));
            let pair = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
                pair.map(|(key, value)| (key[1..].to_vec(), value.to_vec()))
            };
            if newest_first {
                pairs.rev().take(limit).map(pair).collect()
            } else {
                pairs.take(limit).map(pair).collect()
            }
        })
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        caught(|| {
            for pair in self.db.iter() {
                let (key, value) = pair?;
                if !visit(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .filter(|meta| meta.is_file())
            .map(|meta| meta.len())
            .sum()
    }
}
