//! A control group with a limit of memory, for a program that is to meet it.
//!
//! Needs root and a hierarchy of control groups that may be written, of either version; where these are missing, that is
//! printed and the test is skipped.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A group; it is removed with this value, as far as nobody is in it.
pub struct MemoryGroup {
    dir: PathBuf,
    limit: &'static str,
    peak: &'static str,
    usage: &'static str,
}

impl MemoryGroup {
    /// A group of its own with this limit in bytes. `None`, with the reason printed, where this cannot be done.
    pub fn with_limit(bytes: u64) -> anyhow::Result<Option<Self>> {
        let name = format!("tocsin-test-{}", std::process::id());
        let v1 = (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.max_usage_in_bytes",
            "memory.usage_in_bytes",
        );
        let v2 = ("/sys/fs/cgroup", "memory.max", "memory.peak", "memory.current");
        for (root, limit, peak, usage) in [v1, v2] {
            let dir = Path::new(root).join(&name);
            if !Path::new(root).join("cgroup.procs").exists() || std::fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self { dir, limit, peak, usage };
            match group.set_limit(bytes) {
                Ok(()) => return Ok(Some(group)),
                Err(error) => println!("{root}: {error:#}"),
            }
        }
        println!("skipped: no control group with a limit of memory can be made here");
        Ok(None)
    }

    /// Another limit.
    pub fn set_limit(&self, bytes: u64) -> anyhow::Result<()> {
        let path = self.dir.join(self.limit);
        std::fs::write(&path, bytes.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What a program is started under to be in the group.
    pub fn under(&self) -> Vec<String> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.dir.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }

    /// The most that was ever used, in bytes.
    pub fn peak(&self) -> anyhow::Result<u64> {
        self.read(self.peak)
    }

    /// What is used, in bytes.
    pub fn used(&self) -> anyhow::Result<u64> {
        self.read(self.usage)
    }

    fn read(&self, file: &str) -> anyhow::Result<u64> {
        let path = self.dir.join(file);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.dir).ok(); // Somebody may be in it still.
    }
}
