//! What a program takes of a host: CPU time of all its threads and its memory, over some ticks.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// CPU and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Of all its threads since its start, also of those that have ended; in nanoseconds.
    pub cpu: Duration,
    pub memory: Memory,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// The part of `resident` that is not of files, such as the program itself.
    pub anonymous: u64,
}

/// Reads the footprint of a process.
pub fn of(pid: u32) -> anyhow::Result<Footprint> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let memory = memory(&status).with_context(|| format!("{path} is not as proc(5) says"))?;
    Ok(Footprint { cpu: cpu(pid).with_context(|| format!("no CPU time of process {pid}"))?, memory })
}

/// `/proc/PID/stat` counts in steps of 10 ms, more than a tick takes; the sum of the threads' `schedstat` forgets
/// threads that end. The process's clock does neither.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let clock: ClockId = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
    Ok(Duration::from(clock.now()?))
}

fn memory(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(Memory { resident: field("VmRSS")?, anonymous: field("RssAnon")? })
}

/// What one program took, seen before the first tick and after each.
#[derive(Clone, Debug)]
pub struct Watch {
    pub name: String,
    pid: u32,
    before: Footprint,
    after: Footprint,
    resident_max: u64,
    ticks: u32,
    pub series: Option<usize>,
}

impl Watch {
    /// Begins to watch a process.
    pub fn begin(name: &str, pid: u32, series: Option<usize>) -> anyhow::Result<Self> {
        let before = of(pid)?;
        let resident_max = before.memory.resident;
        Ok(Self { name: name.into(), pid, before, after: before, resident_max, ticks: 0, series })
    }

    /// Looks after a tick.
    pub fn look(&mut self) -> anyhow::Result<()> {
        self.saw(of(self.pid)?);
        Ok(())
    }

    fn saw(&mut self, now: Footprint) {
        (self.after, self.ticks) = (now, self.ticks + 1);
        self.resident_max = self.resident_max.max(now.memory.resident);
    }

    fn cpu_ms_per_tick(&self) -> f64 {
        let cpu = self.after.cpu.saturating_sub(self.before.cpu);
        cpu.as_secs_f64() * 1e3 / f64::from(self.ticks.max(1))
    }
}

/// A table with a line for each program.
pub struct Table<'a> {
    pub interval: Duration,
    pub watches: &'a [Watch],
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{:<16}{:>7}{:>14}{:>12}{:>10}{:>10}{:>10}{:>8}",
            "", "ticks", "CPU ms/tick", "% of core", "RSS MiB", "anon MiB", "max MiB", "series"
        )?;
        for watch in self.watches {
            let ms = watch.cpu_ms_per_tick();
            let percent = ms / 10.0 / self.interval.as_secs_f64();
            let Memory { resident, anonymous } = watch.after.memory;
            let series = watch.series.map_or("-".into(), |series| series.to_string());
            writeln!(
                f,
                "{:<16}{:>7}{ms:>14.3}{percent:>12.3}{:>10.1}{:>10.1}{:>10.1}{series:>8}",
                watch.name,
                watch.ticks,
                mib(resident),
                mib(anonymous),
                mib(watch.resident_max)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_its_lines() {
        let status = "Name:\tVmRSS: 7 kB\nVmRSS:\t   14412 kB\nRssAnon:\t    8032 kB\n";
        let expected = Memory { resident: 14412 << 10, anonymous: 8032 << 10 };
        assert_eq!(memory(status), Some(expected));
        assert_eq!(memory("VmRSS: 1 kB\n"), None, "a kernel thread has none");
    }

    #[test]
    fn this_process_has_memory_and_its_ended_threads_count() {
        let pid = std::process::id();
        let before = of(pid).unwrap();
        assert!(before.memory.resident > before.memory.anonymous);
        let thread = std::thread::spawn(|| (0..3_000_000u64).fold(1, |a, b| std::hint::black_box(a ^ b)));
        thread.join().unwrap();
        assert!(of(pid).unwrap().cpu > before.cpu);
        assert!(of(u32::MAX).is_err());
    }

    #[test]
    fn figures_are_per_tick() {
        let at = |ms, mib: u64| Footprint {
            cpu: Duration::from_millis(ms),
            memory: Memory { resident: mib << 20, anonymous: 1 << 20 },
        };
        let before = at(100, 2);
        let mut watch = Watch {
            name: "agent".into(),
            pid: 1,
            before,
            after: before,
            resident_max: 2 << 20,
            ticks: 0,
            series: Some(7),
        };
        watch.saw(at(101, 5));
        watch.saw(at(105, 3));
        let table = Table { interval: Duration::from_secs(10), watches: &[watch] }.to_string();
        let line: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["agent", "2", "2.500", "0.025", "3.0", "1.0", "5.0", "7"]);
    }
}
