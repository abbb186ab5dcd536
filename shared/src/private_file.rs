//! Files that hold secrets: readable by their owner alone, and whole or not there at all.
//!
//! Promise: once a call here returns, a power cut leaves the new file; until then, the old state. The bytes go to
//! a new file with mode 0600, which is synced, put in its place in one step, and its directory synced.
//! Not here: what the files mean.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What must not be set on a secret file: write for the group, anything for others. The group may read,
/// because Kubernetes mounts secrets that way.
const MODE_FORBIDDEN: u32 = 0o027;
/// Keys and certificates are a few KiB; more is not what we wrote.
const SIZE_MAX: u64 = 1 << 20;

/// Why a private file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} already exists and is not overwritten")]
    Exists { path: PathBuf },
    #[error("{path} has mode {mode:03o}, so others than its owner may use it; run `chmod 600 {path}`")]
    Open { path: PathBuf, mode: u32 },
    #[error("{path} is {size} bytes long, more than any key or certificate file; it is not ours")]
    TooLong { path: PathBuf, size: u64 },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateFileError {
    let path = path.to_owned();
    move |source| PrivateFileError::Io { action, path, source }
}

/// Makes a directory with mode 0700, and its parents, unless it is there.
pub fn create_dir(path: &Path) -> Result<(), PrivateFileError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
    sync_parent(path)
}

/// Writes a file that must not exist yet.
pub fn create(path: &Path, content: &str) -> Result<(), PrivateFileError> {
    let staged = stage(path, content)?;
    // A link, unlike a rename, never replaces what is there.
    let linked = fs::hard_link(&staged, path);
    fs::remove_file(&staged).map_err(failed("remove", &staged))?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(PrivateFileError::Exists { path: path.to_owned() })
        }
        linked => linked.map_err(failed("create", path)).and_then(|()| sync_parent(path)),
    }
}

/// Writes a file, in one step instead of the one that is there, if any.
pub fn replace(path: &Path, content: &str) -> Result<(), PrivateFileError> {
    let staged = stage(path, content)?;
    fs::rename(&staged, path).map_err(failed("replace", path))?;
    sync_parent(path)
}

/// Renames a directory over an absent or empty one, and syncs.
pub fn move_dir(from: &Path, to: &Path) -> Result<(), PrivateFileError> {
    sync_dir(from)?;
    fs::rename(from, to).map_err(failed("create", to))?;
    sync_parent(to)
}

/// Makes a file or directory durable that is only known to be readable: somebody else wrote it, or a kill came between
/// a write and its sync.
pub fn settle(path: &Path) -> Result<(), PrivateFileError> {
    sync_dir(path)
}

/// Removes a file for good; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), PrivateFileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)).and_then(|()| sync_parent(path)),
    }
}

/// Reads a file that only its owner may use; `None` if it is not there.
pub fn read(path: &Path) -> Result<Option<String>, PrivateFileError> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed("read", path))?,
    };
    let mode = metadata.mode() & 0o777;
    if mode & MODE_FORBIDDEN != 0 {
        return Err(PrivateFileError::Open { path: path.to_owned(), mode });
    }
    if metadata.len() > SIZE_MAX {
        return Err(PrivateFileError::TooLong { path: path.to_owned(), size: metadata.len() });
    }
    fs::read_to_string(path).map(Some).map_err(failed("read", path))
}

/// Writes and syncs the content beside its place. What a crash left there before is dropped: it was never in use.
fn stage(path: &Path, content: &str) -> Result<PathBuf, PrivateFileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let staged = PathBuf::from(name);
    remove(&staged)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true) // Does not follow a link that someone else put here.
        .mode(0o600)
        .open(&staged)
        .map_err(failed("create", &staged))?;
    file.write_all(content.as_bytes()).map_err(failed("write", &staged))?;
    file.sync_all().map_err(failed("sync", &staged))?;
    Ok(staged)
}

fn sync_parent(path: &Path) -> Result<(), PrivateFileError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

fn sync_dir(path: &Path) -> Result<(), PrivateFileError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_private_whole_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("identity");
        create_dir(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);

        let path = inner.join("ca.key");
        assert_eq!(read(&path).unwrap(), None);
        create(&path, "first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = create(&path, "second").unwrap_err();
        assert!(error.to_string().contains("not overwritten"), "{error}");
        assert_eq!(read(&path).unwrap().as_deref(), Some("first"));

        // What a crash in the middle of a write leaves must not stop the next one.
        fs::write(inner.join("ca.key.new"), "half").unwrap();
        replace(&path, "third").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("third"));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.pem");
        create(&path, "key").unwrap();
        for (mode, readable) in [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), readable, "{mode:o}");
        }
    }
}
