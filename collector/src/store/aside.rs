//! The store's directory: opened in time or given up, set aside when it is no good, put in the place of another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use std::{fs, io, thread};

use super::{StoreError, Tables};
use crate::clock::now;

/// Stores that were set aside and are kept for whoever wants to know why: the newest ones.
const KEPT: usize = 2;

/// Opens tables in a directory.
pub(super) type Open = Arc<dyn Fn(&Path) -> Result<Arc<dyn Tables>, StoreError> + Send + Sync>;

/// Opens tables on a thread of its own; one that does not come to an end is left to itself.
pub(super) fn open_within(open: &Open, path: &Path, within: Duration) -> Result<Arc<dyn Tables>, StoreError> {
    let (out, opened) = channel();
    let (open, path) = (open.clone(), path.to_owned());
    thread::Builder::new().name("store-open".into()).spawn(move || {
        out.send(open(&path)).ok(); // When nobody waits any longer the tables are closed again.
    })?;
    opened.recv_timeout(within).unwrap_or_else(|error| {
        Err(match error {
            RecvTimeoutError::Timeout => StoreError::Hangs(within),
            RecvTimeoutError::Disconnected => StoreError::Panicked("while it was opened".into()),
        })
    })
}

/// Lets go of tables where a failure or a hang of theirs stops nobody.
pub(super) fn drop_apart(tables: Option<Arc<dyn Tables>>) {
    let Some(tables) = tables else { return };
    let spawned = thread::Builder::new().name("store-close".into()).spawn(move || drop(tables));
    drop(spawned); // Without a thread they were dropped here.
}

/// A name beside the store's.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Moves the store out of the way, if there is one; of those set aside before only the newest stay.
pub(super) fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    let aside = beside(path, &format!(".bad-{}", now().as_millis()));
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        renamed => renamed?,
    }
    forget_aside(path, KEPT)?;
    Ok(Some(aside))
}

/// Removes all stores that were set aside but the newest `kept`.
pub(super) fn forget_aside(path: &Path, kept: usize) -> io::Result<()> {
    let prefix = format!("{}.bad-", path.file_name().unwrap_or_default().to_string_lossy());
    let Some(dir) = path.parent() else { return Ok(()) };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        names.extend(name.to_string_lossy().starts_with(&prefix).then_some(name));
    }
    names.sort(); // By time: milliseconds have had as many digits since 2001.
    for old in names.iter().rev().skip(kept) {
        remove(&dir.join(old))?;
    }
    Ok(())
}

/// Removes a directory or a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts a closed store in the place of another closed one. A crash in between leaves no store: it is built again.
pub(super) fn swap(new: &Path, path: &Path) -> io::Result<()> {
    let old = beside(path, ".old");
    remove(&old)?;
    fs::rename(path, &old)?;
    fs::rename(new, path)?;
    remove(&old)
}
