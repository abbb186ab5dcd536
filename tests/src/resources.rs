//! What a process has used, as the kernel tells it.

use anyhow::Context as _;

/// CPU and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time since its start.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
}

/// Reads `/proc/PID/stat`.
pub fn of(pid: u32) -> anyhow::Result<Usage> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock ticks")? as f64;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("no page size")? as u64;
    parse(&stat, ticks, page).with_context(|| format!("{path} is not as proc(5) says"))
}

fn parse(stat: &str, ticks: f64, page: u64) -> Option<Usage> {
    // The second field is the name in parentheses and may hold anything; what follows starts with the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Usage { cpu_seconds: (field(14)? + field(15)?) as f64 / ticks, resident_bytes: field(24)? * page })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_the_name() {
        let stat = "7 (a) b)) S 1 7 7 0 -1 4 100 0 0 0 250 50 0 0 20 0 3 0 5 9000 2 18446744073709551615";
        assert_eq!(parse(stat, 100.0, 4096), Some(Usage { cpu_seconds: 3.0, resident_bytes: 8192 }));
        assert_eq!(parse("7 (a S 1", 100.0, 4096), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(of(std::process::id()).unwrap().resident_bytes > 0);
    }
}
