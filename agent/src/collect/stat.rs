//! `/proc/stat`, read once for two collectors: `cpu` (in `cpu.rs`) and `stat`, the kernel's activity counters.

use super::cpu::{self, Processor, Settled};
use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};
use tocsin_shared::time::Timestamp;

/// What `/proc/stat` says, besides the processors' sum and the soft interrupts by kind.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stat<'a> {
    pub(crate) processors: Vec<Processor<'a>>,
    /// Metric and value, in the file's order.
    pub(crate) counters: Vec<(&'static str, f64)>,
}

/// Reads the whole file.
pub(crate) fn parse(text: &str) -> Result<Stat<'_>, Malformed> {
    let mut stat = Stat::default();
    for line in text.lines() {
        if line.starts_with("cpu") {
            stat.processors.extend(cpu::parse(line)?);
            continue;
        }
        let mut fields = line.split_ascii_whitespace();
        let metric = match fields.next() {
            Some("intr") => "node_intr_total",
            Some("ctxt") => "node_context_switches_total",
            Some("btime") => "node_boot_time_seconds",
            Some("processes") => "node_forks_total",
            Some("procs_running") => "node_procs_running",
            Some("procs_blocked") => "node_procs_blocked",
            _ => continue,
        };
        let value = fields.next().and_then(number).ok_or_else(|| Malformed::new("/proc/stat", line))?;
        stat.counters.push((metric, value));
    }
    if stat.processors.is_empty() {
        return Err(Malformed::new("/proc/stat", text.lines().next().unwrap_or("")));
    }
    Ok(stat)
}

/// The boot time in seconds since the epoch, from the text of `/proc/stat`.
pub(crate) fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|value| number(value.trim()))
}

/// The two collectors that live on `/proc/stat`.
pub(crate) struct StatSource {
    file: KernelFile,
    settled: Settled,
}

impl StatSource {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self { file: KernelFile::table(roots.proc("stat")), settled: Settled::default() }
    }
}

impl Source for StatSource {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let stat = parse(&text)?;
        for processor in &stat.processors {
            cpu::say(processor.cpu, &self.settled.settle(processor), out);
        }
        for (metric, value) in stat.counters {
            out.put(metric, &[], value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixture_is_read() {
        let stat = parse(include_str!("fixtures/proc/stat")).unwrap();
        assert_eq!(stat.processors.iter().map(|p| p.cpu).collect::<Vec<_>>(), ["0", "1"]);
        assert_eq!(stat.processors[0].seconds[0], 61.52);
        assert_eq!(
            stat.counters,
            [
                ("node_intr_total", 157527.0),
                ("node_context_switches_total", 268858.0),
                ("node_boot_time_seconds", 1795428394.0),
                ("node_forks_total", 8130.0),
                ("node_procs_running", 1.0),
                ("node_procs_blocked", 0.0),
            ]
        );
    }

    #[test]
    fn unreadable_texts_are_refused() {
        for text in ["", "ctxt 1\n", "cpu0 1 2 3 4\nctxt many\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
