//! ⇄ Whether the kernel killed for want of memory: it counts such kills in the control group that job and wrapper share.
//!
//! The count is the whole group's: of two jobs in one group (cron's, say) that are killed at once, one by hand, both
//! look alike. Where there is no such group, a kill is a signal like any other.

use std::fs;
use std::path::{Path, PathBuf};

/// The count of a group when a job was about to start.
#[derive(Debug)]
pub(crate) struct MemoryKills {
    file: Option<PathBuf>,
    before: u64,
}

impl MemoryKills {
    /// So far.
    pub(crate) fn so_far() -> Self {
        let file = fs::read_to_string("/proc/self/cgroup").ok().and_then(|groups| counter(&groups));
        let before = file.as_deref().and_then(count).unwrap_or_default();
        Self { file, before }
    }

    /// Whether there was one since.
    pub(crate) fn since(&self) -> bool {
        self.file.as_deref().and_then(count).is_some_and(|now| now > self.before)
    }
}

/// The file that counts, of a process with these groups: a line is `hierarchy:controllers:path`.
fn counter(groups: &str) -> Option<PathBuf> {
    let named = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (mut unified, mut memory) = (None, None);
    for (controllers, path) in named {
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            unified = Some(Path::new("/sys/fs/cgroup").join(path).join("memory.events"));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            memory = Some(Path::new("/sys/fs/cgroup/memory").join(path).join("memory.oom_control"));
        }
    }
    memory.or(unified)
}

fn count(file: &Path) -> Option<u64> {
    kills(&fs::read_to_string(file).ok()?)
}

fn kills(counts: &str) -> Option<u64> {
    let line = counts.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: P3
    #[test]
    fn the_group_that_counts_is_found_in_both_kinds_of_hierarchy() {
        for (groups, file) in [
            (
                "0::/system.slice/cron.service\n",
                Some("/sys/fs/cgroup/system.slice/cron.service/memory.events"),
            ),
            ("0::/\n", Some("/sys/fs/cgroup/memory.events")),
            (
                "5:cpu,memory:/a:b\n1:name=systemd:/x\n0::/x\n",
                Some("/sys/fs/cgroup/memory/a:b/memory.oom_control"),
            ),
            ("1:cpu:/x\n", None),
            ("rubbish", None),
        ] {
            assert_eq!(counter(groups).as_deref(), file.map(Path::new), "{groups}");
        }
        assert_eq!(kills("low 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(kills("oom_kill_disable 0\n"), None, "an old kernel");
    }
}
