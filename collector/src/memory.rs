//! ⇄ The collector's memory: how much it may have, how much it has, and what gives way when that is nearly all.
//!
//! Backlogs give way first, which agents keep and send later; then all rows; outcomes, state and commands never do.
//! A kernel that ends the process for its memory would cost everyone more. Memory is what the process wrote itself:
//! files that are mapped or cached can be had back at any time. The limit is the least of what is configured, what the
//! control group allows and what the machine has. Not here: who is refused (`room`), the alert (`state/own`).

use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

/// What gives way, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shed {
    #[default]
    Nothing,
    /// Rows that hosts kept while they were away.
    Backlog,
    /// All rows.
    Rows,
}

/// Percent of the limit from which something gives way, and below which it does not any more: five lower, so that it
/// does not come and go with each look.
const BACKLOG_PERCENT: u64 = 80;
const ROWS_PERCENT: u64 = 90;
const BACK_PERCENT: u64 = 5;

/// What gives way when so much of the limit is used, and what did before. Pure.
pub fn judge(before: Shed, used: u64, limit: u64) -> Shed {
    let least = |shed: Shed, percent: u64| if before >= shed { percent - BACK_PERCENT } else { percent };
    let over = |percent: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(percent);
    match () {
        () if over(least(Shed::Rows, ROWS_PERCENT)) => Shed::Rows,
        () if over(least(Shed::Backlog, BACKLOG_PERCENT)) => Shed::Backlog,
        () => Shed::Nothing,
    }
}

/// Memory as it was last seen, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub used: u64,
    pub limit: u64,
    pub shed: Shed,
}

impl Seen {
    /// For people: what gives way and what goes on; nothing while nothing does.
    pub fn trouble(&self) -> Option<String> {
        let refused = match self.shed {
            Shed::Nothing => return None,
            Shed::Backlog => "rows that hosts kept are",
            Shed::Rows => "all metrics are",
        };
        let mib = |bytes: u64| bytes >> 20;
        Some(format!(
            "{refused} refused: memory is nearly used up, {} MiB of {} MiB; outcomes and incidents go on, agents keep what is refused",
            mib(self.used),
            mib(self.limit)
        ))
    }
}

/// What this process wrote itself and has in memory; none where the kernel does not say.
pub fn used() -> Option<u64> {
    anonymous_pages(&std::fs::read_to_string("/proc/self/statm").ok()?).map(|pages| pages * page_bytes())
}

/// `statm` in pages: what is resident, without what is of files.
fn anonymous_pages(statm: &str) -> Option<u64> {
    let mut fields = statm.split_whitespace().skip(1).map(str::parse);
    let (resident, of_files): (u64, u64) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(of_files))
}

fn page_bytes() -> u64 {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

/// How much there may be, at most `configured`.
pub fn limit(configured: Option<u64>) -> u64 {
    let pages = sysconf(SysconfVar::_PHYS_PAGES).ok().flatten().and_then(|pages| u64::try_from(pages).ok());
    let machine = pages.map(|pages| pages.saturating_mul(page_bytes()));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = of_group(&groups, |path| std::fs::read_to_string(path).ok());
    [configured, machine, group].into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// The least limit of the control group and those around it, of either version of control groups.
fn of_group(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let root = Path::new("/sys/fs/cgroup");
    let files = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or("/"));
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|it| it == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => (PathBuf::new(), ""),
        };
        let inner = root.join(path.trim_start_matches('/'));
        let around: Vec<PathBuf> = inner.ancestors().map(|dir| dir.join(file)).collect();
        around.into_iter().filter(move |path| path.starts_with(&root) && !file.is_empty())
    });
    // `max` is no number, and means what it says.
    files.filter_map(|path| read(&path)?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: C9
    #[test]
    fn backlogs_give_way_first_and_nothing_flaps() {
        use Shed::{Backlog, Nothing, Rows};
        for (before, used, shed) in [
            (Nothing, 79, Nothing),
            (Nothing, 80, Backlog),
            (Nothing, 95, Rows),
            (Backlog, 89, Backlog),
            (Backlog, 90, Rows),
            (Backlog, 75, Backlog),
            (Backlog, 74, Nothing),
            (Rows, 85, Rows),
            (Rows, 84, Backlog),
            (Rows, 74, Nothing),
        ] {
            assert_eq!(judge(before, used << 30, 100 << 30), shed, "{used} % after {before:?}");
        }
        assert_eq!(judge(Nothing, u64::MAX, u64::MAX), Rows);
    }

    // Cases: C9
    #[test]
    fn the_limit_is_the_least_of_the_groups_around() {
        let read = |path: &Path| {
            let limit = match path.to_str()? {
                "/sys/fs/cgroup/memory.max" => "max",
                "/sys/fs/cgroup/system.slice/memory.max" => "5000\n",
                "/sys/fs/cgroup/system.slice/tocsin.service/memory.max" => "7000\n",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes" => "3000\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "9223372036854771712\n",
                _ => return None,
            };
            Some(limit.to_owned())
        };
        for (groups, limit) in [
            ("0::/system.slice/tocsin.service\n", Some(5000)),
            ("0::/\n", None),
            ("4:memory:/a/b\n2:cpu,cpuacct:/x\n0::/\n", Some(3000)),
            ("4:memory:/elsewhere\n", Some(9_223_372_036_854_771_712)),
            ("2:cpu:/a\n", None),
            ("", None),
            ("nonsense", None),
        ] {
            assert_eq!(of_group(groups, read), limit, "{groups:?}");
        }
        assert_eq!(limit(Some(1)), 1);
        assert!(limit(None) > 1 << 20);
    }

    #[test]
    fn memory_is_what_is_not_of_files() {
        assert_eq!(anonymous_pages("9000 700 200 5 0 600 0\n"), Some(500));
        assert_eq!(anonymous_pages("9000"), None);
        assert!(used().is_some_and(|used| used > 0));
    }
}
