//! The store people query: a projection of the events journal, in sled.
//!
//! It is another reader of the journal. Each batch of events is written in one transaction together with
//! `applied`, the last of them; nothing is ever acknowledged from here. It is expendable: if sled does not open, hangs,
//! panics, or disagrees with the journal, it is set aside and built again while everything else goes on, and that is
//! said. It forgets what is beyond retention, and is copied anew when it has grown far beyond what it holds.
//! Keys and values are bytes behind `Tables`; a twin in memory serves tests.

mod memory;
mod aside;
mod project;
pub mod projector;
mod prune;
mod query;
mod sled_tables;
#[cfg(test)]
mod tests;

use tocsin_shared::disk;

pub use memory::MemoryTables;
pub use query::Store;
pub use sled_tables::SledTables;

/// What the store keeps, by kind; the first byte of every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `applied`.
    Meta = 0,
    /// Incidents by number.
    Incidents = 1,
    /// Public events of incidents by (number, seq).
    Timeline = 2,
    /// The newest generation of alerts by dedup key.
    Alerts = 3,
    /// Runs by id, without their output.
    Runs = 4,
    /// The job of each run by (start, id).
    RunsByTime = 5,
    /// Output of runs by (id, part): values stay below 32 KiB.
    Outputs = 6,
}

impl Table {
    const ALL: [Self; 7] = [
        Self::Meta,
        Self::Incidents,
        Self::Timeline,
        Self::Alerts,
        Self::Runs,
        Self::RunsByTime,
        Self::Outputs,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// One key and its new value; `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// What the store failed at. The projector sets the store aside and builds it again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    #[error("sled panicked: {0}")]
    Panicked(String),
    #[error("the store's files: {0}")]
    Io(#[from] std::io::Error),
    #[error("a record in the store can't be read: {0}")]
    Record(String),
    #[error("it does not open within {} s", .0.as_secs())]
    Hangs(std::time::Duration),
    /// Not the store's fault.
    #[error("the events journal: {0}")]
    Journal(String),
    #[error("the store is being built again: {done} of {of} events; nothing is lost, try again in a moment")]
    Building { done: u64, of: u64 },
}

impl StoreError {
    /// Whether there is no room: another store would have none either.
    fn is_full(&self) -> bool {
        match self {
            Self::Io(error) | Self::Sled(sled::Error::Io(error)) => disk::is_full(error),
            _ => false,
        }
    }
}

/// Ordered tables of bytes with atomic batches.
pub trait Tables: Send + Sync {
    /// Writes all of it or nothing.
    fn commit(&self, writes: &[Write]) -> Result<(), StoreError>;
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Keys and values of a table whose key starts with `prefix`, in order of keys or against it, at most `limit`.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError>;
    /// Hands out keys and values of all tables, the table as the key's first byte, until `visit` says no.
    fn visit(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>;
    /// Bytes on disk.
    fn bytes(&self) -> u64;
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);
