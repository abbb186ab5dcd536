//! How full each mounted file system is.
//!
//! The table of mounts is read when the kernel says that it changed, and once a minute. The file systems are asked
//! by `probe`, so that one that hangs delays neither the tick nor the others; it is said with `device_error` set to
//! "mountpoint timeout" and without sizes.

pub(crate) mod mounts;
mod probe;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use regex::Regex;
use tocsin_shared::time::Timestamp;

use self::mounts::{Exclusions, Mount};
use self::probe::{Ask, Known, Probe, Prober, statvfs};
use super::file::KernelFile;
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

/// Mounts that are asked at most, the first ones of the table: seven series each fit into a section. How many are left
/// out is said.
const MOUNTS_MAX: usize = 2_000;
/// The word for a mount that does not answer.
const TIMEOUT: &str = "mountpoint timeout";

/// The `filesystem` collector.
pub(crate) struct Filesystem {
    roots: Roots,
    /// The first process's mounts, else our own: a service manager may have given the agent a view of its own.
    tables: [KernelFile; 2],
    exclusions: Exclusions,
    mounts: Vec<Mount>,
    probes: Vec<Probe>,
    prober: Prober,
    refresh: Refresh,
    left_out: usize,
}

impl Filesystem {
    pub(crate) fn new(roots: &Roots, types: Option<Regex>, points: Option<Regex>) -> Self {
        Self::asking(roots, Exclusions::new(types, points), Arc::new(statvfs))
    }

    fn asking(roots: &Roots, exclusions: Exclusions, ask: Ask) -> Self {
        Self {
            roots: roots.clone(),
            tables: ["1/mounts", "self/mounts"].map(|path| KernelFile::table(roots.proc(path))),
            exclusions,
            mounts: Vec::new(),
            probes: Vec::new(),
            prober: Prober::new(ask),
            refresh: Refresh::default(),
            left_out: 0,
        }
    }

    fn list(&mut self) -> Result<(), CollectError> {
        let [first, own] = &mut self.tables;
        let text = match first.read() {
            Ok(text) => text,
            Err(_) => own.read()?,
        };
        let mut mounts = mounts::parse(&text, &self.exclusions)?;
        self.left_out = mounts.len().saturating_sub(MOUNTS_MAX);
        mounts.truncate(MOUNTS_MAX);
        if mounts == self.mounts {
            return Ok(());
        }
        // A probe that is still out keeps its mount's flag, so the mount is not asked a second time.
        let mut old: Vec<(Mount, Probe)> = self.mounts.drain(..).zip(self.probes.drain(..)).collect();
        for mount in mounts {
            let kept = old.iter().position(|(was, _)| was.point == mount.point && was.device == mount.device);
            let probe = match kept {
                Some(at) => old.swap_remove(at).1,
                None => Probe::new(self.roots.host(&mount.point), mount.is_remote()),
            };
            self.mounts.push(mount);
            self.probes.push(probe);
        }
        Ok(())
    }
}

/// Whether the kernel says that the table changed since it was last asked.
fn changed(table: &mut KernelFile) -> bool {
    let Ok(file) = table.open() else { return false };
    let mut waiting = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    let polled = poll(&mut waiting, PollTimeout::ZERO);
    let changes = PollFlags::POLLPRI | PollFlags::POLLERR;
    polled.is_ok() && waiting[0].revents().is_some_and(|events| events.intersects(changes))
}

impl Source for Filesystem {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let moved = self.tables.iter_mut().map(changed).fold(false, |any, one| any | one);
        if self.refresh.due(now) || moved {
            self.list().inspect_err(|_| self.refresh.forget())?;
        }
        let begun = Instant::now();
        self.prober.round(&mut self.probes, begun);
        if self.left_out > 0 {
            out.put("tocsin_agent_mounts_left_out", &[], self.left_out as f64);
        }
        for (mount, probe) in self.mounts.iter().zip(&self.probes) {
            say(mount, probe.known(begun), out);
        }
        Ok(())
    }
}

fn say(mount: &Mount, known: Known, out: &mut Section) {
    let (error, usage) = match known {
        Known::Nothing => return,
        Known::Hangs => (TIMEOUT.to_owned(), None),
        Known::Answer(Err(errno)) => (errno.desc().to_lowercase(), None),
        Known::Answer(Ok(usage)) => (String::new(), Some(usage)),
    };
    let labels = [
        ("device", mount.device.as_str()),
        ("mountpoint", mount.point.as_str()),
        ("fstype", mount.kind.as_str()),
        ("device_error", error.as_str()),
    ];
    let flag = |is| if is { 1.0 } else { 0.0 };
    out.put("node_filesystem_device_error", &labels, flag(usage.is_none()));
    out.put("node_filesystem_readonly", &labels, flag(mount.read_only));
    let Some(usage) = usage else { return };
    out.put("node_filesystem_size_bytes", &labels, usage.size);
    out.put("node_filesystem_free_bytes", &labels, usage.free);
    out.put("node_filesystem_avail_bytes", &labels, usage.available);
    out.put("node_filesystem_files", &labels, usage.files);
    out.put("node_filesystem_files_free", &labels, usage.files_free);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    // Cases: S27
    #[test]
    fn of_four_thousand_mounts_the_first_are_said_and_the_rest_counted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/1")).unwrap();
        let table: String = (0..4_000).map(|n| format!("/dev/d{n} /data/{n} ext4 rw 0 0\n")).collect();
        std::fs::write(root.path().join("proc/1/mounts"), table).unwrap();
        let ask: Ask = Arc::new(|_| Ok(probe::Usage::default()));
        let mut source = Filesystem::asking(&Roots::new(root.path()), Exclusions::new(None, None), ask);
        let mut section = Section::default();
        // A loaded machine may not schedule the asking thread within one tick's patience.
        while section.slots().len() < 1 + 7 * MOUNTS_MAX {
            section.begin();
            source.read(Timestamp::default(), &mut section).unwrap();
            section.end();
            assert!(!section.overflowed());
        }
        let first = &section.slots()[0];
        assert_eq!((first.labels.metric(), first.value), ("tocsin_agent_mounts_left_out", 2_000.0));
    }

    #[test]
    fn each_mount_is_said_with_its_sizes_or_its_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/1")).unwrap();
        std::fs::write(root.path().join("proc/1/mounts"), "/dev/vda / ext4 ro 0 0\nx:/y /data nfs4 rw 0 0\n")
            .unwrap();
        let data = root.path().join("data");
        let ask: Ask = Arc::new(move |path| match path {
            path if path == data => Err(Errno::ESTALE),
            _ => Ok(probe::Usage { size: 8.0, free: 4.0, available: 2.0, files: 9.0, files_free: 3.0 }),
        });
        let roots = Roots::new(root.path());
        let mut source = Filesystem::asking(&roots, Exclusions::new(None, None), ask);
        let mut said = Vec::new();
        // A loaded machine may not schedule the asking threads within one tick's patience.
        while said.len() < 9 {
            let mut section = Section::default();
            section.begin();
            source.read(Timestamp::default(), &mut section).unwrap();
            section.end();
            let slots = section.slots().iter();
            said = slots.map(|slot| format!("{} {}", slot.labels, slot.value)).collect();
        }
        let local = r#"{device="/dev/vda", fstype="ext4", mountpoint="/"}"#;
        let stale = r#"{device="x:/y", device_error="stale file handle", fstype="nfs4", mountpoint="/data"}"#;
        let want = [
            format!("node_filesystem_device_error{local} 0"),
            format!("node_filesystem_readonly{local} 1"),
            format!("node_filesystem_size_bytes{local} 8"),
            format!("node_filesystem_free_bytes{local} 4"),
            format!("node_filesystem_avail_bytes{local} 2"),
            format!("node_filesystem_files{local} 9"),
            format!("node_filesystem_files_free{local} 3"),
            format!("node_filesystem_device_error{stale} 1"),
            format!("node_filesystem_readonly{stale} 0"),
        ];
        assert_eq!(said, want);
    }
}
