//! Blocks that become one, on disk: what takes their place is durable and listed before they go.
//!
//! The joined block gets its name when the joining begins, so that a block sealed meanwhile is known to be younger. It
//! takes as long as it takes; meanwhile its sources may be deleted, and then it is thrown away.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tocsin_shared::disk::{DiskFile, is_full};
use tocsin_shared::time::Timestamp;

use super::super::days::due;
use super::super::join::join;
use super::super::window::Window;
use super::{Block, BlockEntry, BlockError, Blocks, interner, io_error, remove, write_to};

/// A joined block in the making.
pub(crate) struct Joining {
    window: Window,
    sources: Vec<Arc<Block>>,
    path: PathBuf,
    tmp: PathBuf,
    file: Box<dyn DiskFile>,
}

/// What came of writing one: its final and its present place and its sources; nothing when it was stopped.
pub(crate) struct Written {
    window: Window,
    sources: Vec<Arc<Block>>,
    path: PathBuf,
    tmp: PathBuf,
    done: Result<bool, BlockError>,
}

impl Blocks {
    /// Begins what is due, if anything is. One caller at a time, and nobody seals or deletes meanwhile.
    pub(crate) fn begin_joining(
        &self,
        sealed_to: Timestamp,
        bytes_max: u64,
    ) -> Result<Option<Joining>, BlockError> {
        self.clear_leftover()?;
        let list = self.list();
        let entries = list.iter().map(|block| block.entry.clone()).collect::<Vec<_>>();
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((window, places)) = due(&entries, sealed_to, bytes_max, &given_up) else { return Ok(None) };
        let sources = places.into_iter().map(|place| Arc::clone(&list[place])).collect();
        let path = self.free_path(window)?;
        let tmp = path.with_extension("tmp");
        remove(&*self.disk, &tmp)?;
        let file = self.disk.create(&tmp).map_err(io_error("make", &tmp))?;
        Ok(Some(Joining { window, sources, path, tmp, file }))
    }

    /// Puts what was written in the place of its sources. As `begin_joining`, alone.
    pub(crate) fn settle_joining(&self, written: Written) -> Result<Option<BlockEntry>, BlockError> {
        let Written { window, sources, path, tmp, done } = written;
        let list = self.list();
        let listed = |source: &Arc<Block>| list.iter().any(|block| Arc::ptr_eq(block, source));
        let joined = match done {
            Ok(true) if sources.iter().all(listed) => self
                .put_in_place(&tmp, &path)
                .and_then(|()| Block::open(&*self.disk, &path, interner(list.last()))),
            Ok(_) => return remove(&*self.disk, &tmp).map(|()| None),
            Err(error) => Err(error),
        };
        let joined = match joined {
            Ok(joined) => Arc::new(joined),
            Err(error) => {
                // Best effort: the next start removes the one, and takes the other for what it is: whole.
                [&tmp, &path].into_iter().for_each(|path| drop(self.disk.remove(path)));
                let full = matches!(&error, BlockError::Io { source, .. } if is_full(source));
                if !full {
                    self.given_up.lock().unwrap_or_else(PoisonError::into_inner).insert(window);
                }
                return Err(error);
            }
        };
        let gone = sources.iter().map(|source| &source.entry.name).collect::<HashSet<_>>();
        let kept = list.iter().filter(|block| !gone.contains(&block.entry.name)).cloned();
        let entry = joined.entry.clone();
        self.replace(kept.chain([joined]).collect());
        self.lock_leftover().extend(sources.iter().map(|source| source.path.clone()));
        self.clear_leftover()?;
        Ok(Some(entry))
    }
}

impl Joining {
    /// Writes it, durable but for its name. Takes long; `go_on` is asked between hosts and may wait.
    pub(crate) fn write(self, go_on: &dyn Fn() -> bool) -> Written {
        let Self { window, sources, path, tmp, file } = self;
        let failed = |error| io_error("write", &tmp)(error);
        let done = write_to(file, &tmp, |out| join(&sources, window, out, failed, go_on));
        Written { window, sources, path, tmp, done }
    }
}
