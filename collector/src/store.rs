//! The store people query: a projection of the events journal, in sled.
//!
//! It is another reader of the journal. Each batch of events is written in one transaction together with
//! `applied`, the last of them; nothing is ever acknowledged from here. If sled does not open, panics, or knows more
//! than the journal, it is set aside and built again from the journal's beginning, and that is said.
//! Keys and values are bytes behind `Tables`; a twin in memory serves tests.

mod memory;
mod overlay;
mod project;
pub mod projector;
mod query;
mod sled_tables;
#[cfg(test)]
mod tests;

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
    /// Run ids by (start, id).
    RunsByTime = 5,
    /// Output of runs by (id, part): values stay below 32 KiB.
    Outputs = 6,
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
}

impl StoreError {
    /// Whether the cause is that there is no room on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Sled(sled::Error::Io(error)) | Self::Io(error) => tocsin_shared::disk::is_full(error),
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
    /// Bytes on disk.
    fn bytes(&self) -> u64;
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);
