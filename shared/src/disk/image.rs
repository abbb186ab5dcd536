//! What a disk in memory holds, taken apart from the disk: directories, and files with their content.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

/// One file: its bytes, and the room allocated for it beyond them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) allocated: u64,
}

/// A whole disk at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Image {
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, Content>,
}

impl Image {
    /// The same for equal images, in every process.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}
