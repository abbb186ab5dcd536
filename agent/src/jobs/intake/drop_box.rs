//! ⇄ The directory where wrappers leave records when the agent does not answer.
//!
//! Anyone may create files in it and nobody but the agent may list it (mode 1733, as /var/spool jobs are left). So
//! nothing in it is trusted: a name is opened without following links or waiting, and only a regular file with one
//! name, of a bounded size, whose owner is the user it speaks for, is a record. Work per scan is bounded.
//! The agent needs to read files of all users and to own the directory: root, or `CAP_DAC_READ_SEARCH`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tocsin_shared::job::{JobRecord, RunId};

use super::alike;
use crate::jobs::envelope::{self, HEADER_BYTES, InvalidEnvelope, PAYLOAD_BYTES_MAX};

/// A complete record's name ends so; the wrapper renames to it when all is written.
pub(crate) const COMPLETE_SUFFIX: &str = ".job";
/// A name that starts so is still being written.
pub(crate) const PARTIAL_PREFIX: &str = ".partial-";
/// A partial file this old was left by a wrapper that died.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(3600);
/// Names looked at per scan: bounds the memory of a scan however full the directory is.
pub(crate) const NAMES_PER_SCAN_MAX: usize = 4096;
const FILE_BYTES_MAX: u64 = (HEADER_BYTES + PAYLOAD_BYTES_MAX) as u64;

/// What the file system vouches for about an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub regular: bool,
    pub links: u64,
    pub owner: u32,
    pub bytes: u64,
}

/// Why a file in the drop-box is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedFile {
    #[error("not a regular file")]
    NotRegular,
    #[error("has {0} names, expected 1")]
    Links(u64),
    #[error("is {0} bytes long, expected at most {FILE_BYTES_MAX}")]
    Size(u64),
    #[error("belongs to uid {owner} but speaks for uid {claimed}")]
    ForeignUid { owner: u32, claimed: u32 },
    #[error(transparent)]
    Envelope(#[from] InvalidEnvelope),
    #[error("its name is not one that wrappers give")]
    Name,
    #[error("cannot be read")]
    Io(#[from] io::Error),
}

/// Whether a file may be read at all.
pub(crate) fn check_file(facts: FileFacts) -> Result<(), RefusedFile> {
    match facts {
        FileFacts { regular: false, .. } => Err(RefusedFile::NotRegular),
        FileFacts { links, .. } if links != 1 => Err(RefusedFile::Links(links)),
        FileFacts { bytes, .. } if bytes > FILE_BYTES_MAX => Err(RefusedFile::Size(bytes)),
        _ => Ok(()),
    }
}

/// Whether the record in a file speaks for the file's owner.
pub(crate) fn check_claim(owner: u32, record: &JobRecord) -> Result<(), RefusedFile> {
    let claimed = record.uid();
    if claimed == owner { Ok(()) } else { Err(RefusedFile::ForeignUid { owner, claimed }) }
}

/// Makes the directory with its mode when it is not there.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o1733)) // Not lowered by the umask.
}

/// What a scan finds: records that may be complete, and what should not be there.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub complete: Vec<PathBuf>,
    pub stray: Vec<PathBuf>,
    /// Batches of outcomes that an agent was about to tell as one.
    pub batches: Vec<(PathBuf, RunId)>,
    /// There are more names than were looked at.
    pub has_more: bool,
}

/// Lists at most `NAMES_PER_SCAN_MAX` names; `now` decides which partial files are left over.
pub(crate) fn list(directory: &Path, now: SystemTime) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(directory)?.take(NAMES_PER_SCAN_MAX + 1) {
        let path = entry?.path();
        let count = listing.complete.len() + listing.stray.len() + listing.batches.len();
        if count >= NAMES_PER_SCAN_MAX {
            listing.has_more = true;
            break;
        }
        if let Some(id) = alike::batch_id(&path) {
            listing.batches.push((path, id));
            continue;
        }
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.ends_with(COMPLETE_SUFFIX.as_bytes()) && !name.starts_with(b".") {
            listing.complete.push(path);
        } else if !name.starts_with(PARTIAL_PREFIX.as_bytes()) || is_left_over(&path, now) {
            listing.stray.push(path);
        }
    }
    Ok(listing)
}

fn is_left_over(path: &Path, now: SystemTime) -> bool {
    let written = fs::symlink_metadata(path).and_then(|facts| facts.modified());
    written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > PARTIAL_AGE_MAX))
}

/// Reads one file; the record's owner is verified.
pub(crate) fn read(path: &Path) -> Result<JobRecord, RefusedFile> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|error| {
        let link = error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32);
        if link { RefusedFile::NotRegular } else { RefusedFile::Io(error) }
    })?;
    let facts = facts(&file)?;
    check_file(facts)?;
    let mut bytes = Vec::with_capacity(usize::try_from(facts.bytes).unwrap_or(0));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let record = envelope::decode(&bytes)?;
    check_claim(facts.owner, &record)?;
    Ok(record)
}

fn facts(file: &File) -> io::Result<FileFacts> {
    let facts = file.metadata()?;
    Ok(FileFacts { regular: facts.is_file(), links: facts.nlink(), owner: facts.uid(), bytes: facts.len() })
}

/// Removes a name; an empty directory too. What cannot be removed stays and is met again at the next scan.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(path),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::envelope::tests::{ended, started};
    use std::os::unix::fs::symlink;
    use tocsin_shared::job::Outcome;

    #[test]
    fn only_plain_files_of_their_owner_are_taken() {
        let good = FileFacts { regular: true, links: 1, owner: 1000, bytes: 100 };
        for (facts, taken, why) in [
            (good, true, "a record as a wrapper leaves it"),
            (FileFacts { regular: false, ..good }, false, "a device, directory or pipe"),
            (FileFacts { links: 2, ..good }, false, "another name for some file"),
            (FileFacts { links: 0, ..good }, false, "already removed"),
            (FileFacts { bytes: FILE_BYTES_MAX, ..good }, true, "the largest"),
            (FileFacts { bytes: FILE_BYTES_MAX + 1, ..good }, false, "larger than any record"),
        ] {
            assert_eq!(check_file(facts).is_ok(), taken, "{why}");
        }
        for (owner, claimed, taken) in
            [(1000, 1000, true), (1000, 1001, false), (1000, 0, false), (0, 1000, false)]
        {
            let record = ended(1, claimed, Outcome::Exited(0), "");
            assert_eq!(check_claim(owner, &record).is_ok(), taken, "file of {owner}, speaks for {claimed}");
        }
    }

    #[test]
    fn hostile_names_are_met_without_harm() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::getuid().as_raw();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("good.job"), envelope::encode(&started(uid))).unwrap();
        fs::write(path("foreign.job"), envelope::encode(&started(uid + 1))).unwrap();
        fs::write(path("torn.job"), &envelope::encode(&started(uid))[..30]).unwrap();
        fs::write(path("twice.job"), envelope::encode(&started(uid))).unwrap();
        fs::hard_link(path("twice.job"), path("other.job")).unwrap();
        symlink("/etc/passwd", path("link.job")).unwrap();
        fs::create_dir(path("dir.job")).unwrap();
        nix::unistd::mkfifo(&path("pipe.job"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, expected) in [
            ("good.job", "taken"),
            ("foreign.job", "belongs to uid"),
            ("torn.job", "ends in the middle"),
            ("twice.job", "has 2 names"),
            ("link.job", "not a regular file"),
            ("dir.job", "not a regular file"),
            ("pipe.job", "not a regular file"),
            ("gone.job", "cannot be read"),
        ] {
            let found = read(&path(name)).map_or_else(|error| error.to_string(), |_| "taken".into());
            assert!(found.contains(expected), "{name}: {found}");
        }
        for name in ["good.job", "link.job", "dir.job", "pipe.job", "gone.job"] {
            remove(&path(name)).unwrap();
            assert!(fs::symlink_metadata(path(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn partial_files_are_left_alone_until_they_are_old() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.job", ".partial-b", "junk", ".hidden.job"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names = |paths: &[PathBuf]| {
            let mut names: Vec<_> =
                paths.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
            names.sort();
            names.join(" ")
        };
        let now = SystemTime::now();
        let found = list(dir.path(), now).unwrap();
        assert_eq!(
            (names(&found.complete).as_str(), names(&found.stray).as_str()),
            ("a.job", ".hidden.job junk")
        );
        let found = list(dir.path(), now + 2 * PARTIAL_AGE_MAX).unwrap();
        assert_eq!(names(&found.stray), ".hidden.job .partial-b junk");
    }

    #[test]
    fn the_directory_can_be_written_but_not_listed_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let drop_box = dir.path().join("spool/jobs");
        prepare(&drop_box).unwrap();
        assert_eq!(fs::metadata(&drop_box).unwrap().permissions().mode() & 0o7777, 0o1733);
        prepare(&drop_box).unwrap();
    }
}
