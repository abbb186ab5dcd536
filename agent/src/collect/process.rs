//! The agent's own cost: processor time, memory, open files, and when it started.

use tocsin_shared::time::Timestamp;

use super::cpu::USER_HZ;
use super::fields::{Malformed, number};
use super::file::{KernelFile, read_once};
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source};
use super::stat::boot_time;

/// What `/proc/self/stat` says of a process.
#[derive(Debug, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: f64,
    /// Seconds after the boot.
    pub(crate) started: f64,
    pub(crate) virtual_bytes: f64,
    pub(crate) resident_pages: f64,
}

/// Reads `/proc/PID/stat`. The name in it may hold anything, so fields are counted after its last parenthesis.
pub(crate) fn parse(text: &str) -> Result<Process, Malformed> {
    let malformed = || Malformed::new("/proc/self/stat", text);
    let (_, after) = text.rsplit_once(')').ok_or_else(malformed)?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|field| number(field)).ok_or_else(malformed);
    Ok(Process {
        cpu_seconds: (field(11)? + field(12)?) / USER_HZ,
        started: field(19)? / USER_HZ,
        virtual_bytes: field(20)?,
        resident_pages: field(21)?,
    })
}

/// The soft limit of a line of `/proc/self/limits`; unlimited is the largest number, as everywhere in Prometheus.
pub(crate) fn parse_limit(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        soft => number(soft),
    }
}

/// The `process` collector: this process.
pub(crate) struct OwnProcess {
    roots: Roots,
    stat: KernelFile,
    page_bytes: f64,
    booted: Option<f64>,
    /// Metric and soft limit; limits of a running process hardly ever change.
    limits: Vec<(&'static str, f64)>,
    refresh: Refresh,
}

/// A process's limits that are said: their names in the kernel's table, and the metric.
const LIMITS: [(&str, &str); 2] =
    [("Max open files", "process_max_fds"), ("Max address space", "process_virtual_memory_max_bytes")];

impl OwnProcess {
    pub(crate) fn new(roots: &Roots, page_bytes: f64) -> Self {
        Self {
            roots: roots.clone(),
            stat: KernelFile::table(roots.proc("self/stat")),
            page_bytes,
            booted: None,
            limits: Vec::new(),
            refresh: Refresh::default(),
        }
    }
}

impl Source for OwnProcess {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let process = parse(&self.stat.read()?)?;
        if self.refresh.due(now) {
            let limits = read_once(&self.roots.proc("self/limits"))?;
            let limit = |(name, metric)| Some((metric, parse_limit(&limits, name)?));
            self.limits = LIMITS.into_iter().filter_map(limit).collect();
            self.booted = boot_time(&read_once(&self.roots.proc("stat"))?);
        }
        let path = self.roots.proc("self/fd");
        let open = std::fs::read_dir(&path).map_err(|source| CollectError::Read { path, source })?.count();
        out.put("process_cpu_seconds_total", &[], process.cpu_seconds);
        out.put("process_open_fds", &[], open as f64);
        out.put("process_resident_memory_bytes", &[], process.resident_pages * self.page_bytes);
        out.put("process_virtual_memory_bytes", &[], process.virtual_bytes);
        if let Some(booted) = self.booted {
            // To the clock tick, as exact as it is known.
            let started = ((booted + process.started) * USER_HZ).round() / USER_HZ;
            out.put("process_start_time_seconds", &[], started);
        }
        for (metric, limit) in &self.limits {
            out.put(*metric, &[], *limit);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 12345 1123295232 4722 \
                    18446744073709551615 1 1 0";
        let want = Process {
            cpu_seconds: 3.0,
            started: 123.45,
            virtual_bytes: 1_123_295_232.0,
            resident_pages: 4722.0,
        };
        assert_eq!(parse(text), Ok(want));
        assert!(parse("42 (a) S 1").is_err());
    }

    #[test]
    fn limits_are_read() {
        let text = "Max open files            1024                 524288               files     \n\
                    Max address space         unlimited            unlimited            bytes     \n";
        for (name, want) in
            [("Max open files", Some(1024.0)), ("Max address space", Some(u64::MAX as f64)), ("Max x", None)]
        {
            assert_eq!(parse_limit(text, name), want, "{name}");
        }
    }
}
