//! Small ext4 file systems in image files, mounted over a loop device: to be filled, made read-only, made to run out.
//!
//! Needs root, `mkfs.ext4` and `mount`; where these are missing, or a container forbids them, that is printed and
//! the test is skipped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// A mounted file system; it is unmounted with this value.
pub struct SmallDisk {
    image: PathBuf,
    mount: PathBuf,
}

impl SmallDisk {
    /// Makes a file system of so many MiB and mounts it at `mount`, which is created. `None`, with the reason printed,
    /// where this cannot be done. `options` go to `mkfs.ext4`.
    pub fn mount(mount: &Path, mib: u64, options: &[&str]) -> anyhow::Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: mounting a small disk needs root");
            return Ok(None);
        }
        std::fs::create_dir_all(mount)?;
        let image = mount.with_extension("image");
        File::create(&image)?.set_len(mib << 20)?;
        let image_text = image.to_string_lossy().into_owned();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).args(options).arg(&image).output();
        match made {
            Err(error) => {
                println!("skipped: mkfs.ext4 cannot be run: {error}");
                return Ok(None);
            }
            Ok(made) => {
                ensure!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr))
            }
        }
        let mount_text = mount.to_string_lossy().into_owned();
        if let Err(error) = run("mount", &["-o", "loop", &image_text, &mount_text]) {
            println!("skipped: {error:#}");
            return Ok(None);
        }
        Ok(Some(Self { image, mount: mount.to_owned() }))
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Free bytes.
    pub fn free(&self) -> anyhow::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.mount)?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }

    /// Somebody else fills the disk until so many bytes are free.
    pub fn fill(&self, leave: u64) -> anyhow::Result<()> {
        let path = self.mount.join("somebody-elses");
        let has = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let wanted = (has + self.free()?).saturating_sub(leave);
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        nix::fcntl::posix_fallocate(&file, 0, i64::try_from(wanted)?).ok(); // As much of it as there is.
        Ok(())
    }

    /// Somebody else cleans up.
    pub fn clean_up(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.mount.join("somebody-elses"))?)
    }

    /// The kernel finds an error: the file system is read-only from now on, also for files that are open.
    pub fn abort(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "remount,abort", &self.mount.to_string_lossy()])
    }

    /// Somebody repairs it: it is mounted anew in the same place.
    pub fn mount_again(&self) -> anyhow::Result<()> {
        let (image, mount) = (self.image.to_string_lossy(), self.mount.to_string_lossy());
        run("umount", &["-l", &mount])?;
        run("mount", &["-o", "loop", &image, &mount])
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: programs that use it may end only after this.
        run("umount", &["-l", &self.mount.to_string_lossy()]).ok();
        std::fs::remove_file(&self.image).ok();
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let ended = Command::new(program).args(arguments).output();
    let ended = ended.with_context(|| format!("{program} cannot be run"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
