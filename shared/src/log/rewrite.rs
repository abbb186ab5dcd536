//! A segment written again with some of its records shorter.
//!
//! The new file is made elsewhere, is durable, and takes the old one's name: a crash leaves the one or the other, each
//! with every record under its number. Records that were damaged stay missing. The newest segment is never rewritten.

use std::path::Path;

use super::{Log, LogError, failed, segment};
use crate::frame::{self, Role};

/// A segment as it would be.
pub struct Rewritten {
    first_seq: u64,
    content: Vec<u8>,
    /// How many bytes that saves.
    pub saved: u64,
}

impl Rewritten {
    /// How many bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.content.len() as u64
    }
}

impl Log {
    /// The segment that begins at `first_seq` with the payloads that `shorten` gives for a kind and a payload, and with
    /// the others as they are; none for the newest, and for one whose torn end still says which numbers were used.
    pub fn shortened(
        &self,
        first_seq: u64,
        shorten: impl Fn(u8, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Option<Rewritten>, LogError> {
        let segments = self.segments();
        let at = segments.iter().position(|segment| segment.first_seq == first_seq);
        let Some([old, next, ..]) = at.map(|at| &segments[at..]) else { return Ok(None) };
        if self.torn.as_ref().is_some_and(|torn| torn.path == old.path) {
            return Ok(None);
        }
        let mut content = Vec::new();
        segment::encode_header(self.format, first_seq, &mut content);
        let mut reader = self.reader();
        reader.seek(first_seq)?;
        while let Some(entry) = reader.next()?.filter(|entry| entry.seq < next.first_seq) {
            let role = if entry.numbered { Role::Numbered } else { Role::Unnumbered };
            let payload = shorten(entry.kind, &entry.payload).unwrap_or(entry.payload);
            frame::encode(self.salt, (entry.seq, entry.kind, role), &payload, &mut content);
        }
        let saved = old.bytes.saturating_sub(content.len() as u64);
        Ok(Some(Rewritten { first_seq, content, saved }))
    }

    /// Puts a rewritten segment in the place of the old one, durably. `scratch` is a path of the same file system where
    /// nothing is; after an error something may be.
    pub fn rewrite(&mut self, new: &Rewritten, scratch: &Path) -> Result<(), LogError> {
        let path = segment::path(&self.dir, new.first_seq);
        let mut file = self.disk.create(scratch).map_err(failed("create", scratch))?;
        file.write_at(0, &new.content).map_err(failed("write", scratch))?;
        file.sync_data().map_err(failed(super::SYNCING, scratch))?;
        self.disk.rename(scratch, &path).map_err(failed("replace", &path))?;
        self.head.replace(new.first_seq, new.bytes());
        self.disk.sync_dir(&self.dir).map_err(failed(super::SYNCING, &self.dir))?;
        let parent = scratch.parent().unwrap_or(Path::new("/"));
        self.disk.sync_dir(parent).map_err(failed(super::SYNCING, parent))
    }
}
