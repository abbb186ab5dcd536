//! A file system of its own for a data directory, in an image that can be cut off from its power.
//!
//! What a program wrote and did not sync is in the page cache of the mounted file system and not yet in the image: a
//! copy of the image, taken while the program stands still, is the disk after a power cut.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// Holds the data of a run and the agent's reserve, and is copied in some 20 ms.
const IMAGE_BYTES: u64 = 96 << 20;
/// The system writes by itself every so many seconds; a cut loses the more, the longer it waits.
const COMMIT_SECONDS: u32 = 300;
/// Where images lie, if it is there: syncing them costs nothing then, and takes nothing from a real disk.
const MEMORY: &str = "/dev/shm";

/// A mounted image.
pub struct Volume {
    dir: TempDir,
    place: PathBuf,
    /// Which of the two image files is mounted; the other one is the next copy.
    number: u32,
}

impl Volume {
    /// Makes a file system and mounts it at a place, which is made.
    pub fn mount(place: &Path) -> anyhow::Result<Self> {
        let within = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("tocsin-image-").tempdir_in(within)?;
        std::fs::create_dir_all(place)?;
        let volume = Self { dir, place: place.to_owned(), number: 0 };
        let image = volume.image();
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=1"]).arg(&image))?;
        volume.attach()?;
        Ok(volume)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join(format!("{}.ext4", self.number % 2))
    }

    fn attach(&self) -> anyhow::Result<()> {
        let options = format!("loop,commit={COMMIT_SECONDS}");
        run(Command::new("mount").args(["-o", &options]).arg(self.image()).arg(&self.place))?;
        Ok(())
    }

    /// Takes the copy that becomes the disk after the cut. Whoever writes to the volume stands still meanwhile.
    pub fn copy(&mut self) -> anyhow::Result<()> {
        let image = self.image();
        self.number += 1;
        run(Command::new("cp").arg("--sparse=always").arg(image).arg(self.image()))?;
        Ok(())
    }

    /// Puts the copy in the place of what was mounted. Nobody has a file of the volume open.
    pub fn swap(&self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.place))?;
        self.attach()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A program that still has a file open shall not keep the mount.
        Command::new("umount").arg("-l").arg(&self.place).stderr(Stdio::null()).status().ok();
    }
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output)
}

/// Whether images can be mounted here; says so if not.
pub fn can_mount() -> bool {
    let try_it = || {
        let dir = tempfile::tempdir()?;
        Volume::mount(&dir.path().join("volume")).map(drop)
    };
    match try_it() {
        Ok(()) => true,
        Err(error) => {
            println!("skipped: power cuts need root, loop devices and ext4: {error:#}");
            false
        }
    }
}
