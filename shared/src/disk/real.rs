//! The disk of the machine.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use super::{Disk, DiskFile, Listed, Space};

/// How much is written at a time where a file system cannot allocate without writing.
const ZEROS: usize = 64 * 1024;

/// The file system of the machine, through `std::fs`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        self.create_dir(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            result => result?,
        }
        self.sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let regular = entry.file_type()?.is_file();
            let bytes = match entry.metadata() {
                Ok(metadata) if regular => metadata.len(),
                Ok(_) => 0,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // Removed since it was read.
                Err(error) => return Err(error),
            };
            listed.push(Listed { name: entry.file_name().to_string_lossy().into_owned(), bytes, regular });
        }
        Ok(listed)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = options().create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = options().open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(dir).map_err(io::Error::from)?;
        let unit: u64 = stat.fragment_size();
        let bytes = |blocks: u64| blocks.saturating_mul(unit);
        Ok(Space { free: bytes(stat.blocks_available()), total: bytes(stat.blocks()) })
    }
}

/// `O_NONBLOCK` keeps a fifo under one of our names from blocking the open; regular files ignore it.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    options
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.0.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let length = libc::off_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        match nix::fcntl::posix_fallocate(&self.0, 0, length) {
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => self.write_zeros(bytes),
            result => result.map_err(io::Error::from),
        }
    }
}

impl RealFile {
    fn write_zeros(&mut self, bytes: u64) -> io::Result<()> {
        let mut offset = 0;
        while offset < bytes {
            let part = usize::try_from(bytes - offset).unwrap_or(ZEROS).min(ZEROS);
            self.write_at(offset, &[0; ZEROS][..part])?;
            offset += part as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_are_private_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        RealDisk.create_dir(&dir).unwrap();
        let file = dir.join("file");
        let mut open = RealDisk.create(&file).unwrap();
        open.write_at(0, b"hello").unwrap();
        open.sync_data().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&dir)), (0o600, 0o700));
        assert_eq!(RealDisk.create(&file).err().unwrap().kind(), io::ErrorKind::AlreadyExists);

        symlink(&file, dir.join("link")).unwrap();
        assert!(RealDisk.open(&dir.join("link")).is_err(), "a link must not be followed");
        assert!(RealDisk.create(&dir.join("link")).is_err(), "a link must not be written through");
        assert!(RealDisk.open(&dir).is_err(), "a directory is no file");
        let mut listed = RealDisk.list(&dir).unwrap();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(
            listed,
            [
                Listed { name: "file".into(), bytes: 5, regular: true },
                Listed { name: "link".into(), bytes: 0, regular: false }
            ]
        );
    }

    #[test]
    fn replaced_files_are_read_whole_and_bounded() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state");
        for content in ["one", "another"] {
            super::super::replace(&RealDisk, &path, content.as_bytes()).unwrap();
            assert_eq!(super::super::read_whole(&RealDisk, &path, 10).unwrap(), content.as_bytes());
        }
        assert!(super::super::read_whole(&RealDisk, &path, 3).is_err());
        assert_eq!(RealDisk.list(home.path()).unwrap().len(), 1, "nothing temporary stays");
    }

    #[test]
    fn allocated_room_counts_as_length() {
        let home = tempfile::tempdir().unwrap();
        let mut file = RealDisk.create(&home.path().join("reserve")).unwrap();
        file.allocate(100_000).unwrap();
        assert_eq!(file.bytes().unwrap(), 100_000);
        file.truncate(10).unwrap();
        assert_eq!(file.bytes().unwrap(), 10);
        let space = RealDisk.space(home.path()).unwrap();
        assert!(space.free <= space.total && space.total > 0);
    }
}
