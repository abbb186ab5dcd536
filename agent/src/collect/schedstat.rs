//! Time that tasks ran and waited on each processor, from `/proc/schedstat`; absent in kernels built without it.

use super::fields::{Malformed, numbers};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};
use tocsin_shared::time::Timestamp;

const NANOSECOND: f64 = 1e9;
/// The fields between a processor's name and its running time.
const FIELDS_BEFORE: usize = 6;

/// Reads a `cpuN` line: processor, seconds run, seconds waited, time slices. `None` for any other line.
pub(crate) fn parse(line: &str) -> Result<Option<(&str, [f64; 3])>, Malformed> {
    let Some(line) = line.strip_prefix("cpu") else { return Ok(None) };
    let mut fields = line.split_ascii_whitespace();
    let cpu = fields.next().unwrap_or("");
    let [running, waiting, slices] =
        numbers(fields.skip(FIELDS_BEFORE)).ok_or_else(|| Malformed::new("/proc/schedstat", line))?;
    Ok(Some((cpu, [running / NANOSECOND, waiting / NANOSECOND, slices])))
}

/// The `schedstat` collector.
pub(crate) struct Schedstat(KernelFile);

impl Schedstat {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::table(roots.proc("schedstat")))
    }
}

impl Source for Schedstat {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let text = self.0.read().map_err(|error| absent_or(error, "scheduler statistics"))?;
        for line in text.lines() {
            let Some((cpu, [running, waiting, slices])) = parse(line)? else { continue };
            let labels = [("cpu", cpu)];
            out.put("node_schedstat_running_seconds_total", &labels, running);
            out.put("node_schedstat_waiting_seconds_total", &labels, waiting);
            out.put("node_schedstat_timeslices_total", &labels, slices);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_lines_are_read_and_others_passed_over() {
        let line = "cpu3 0 0 0 0 0 0 2045936778163039 343796328169361 4767485306";
        let want = ("3", [2_045_936.778163039, 343_796.328169361, 4_767_485_306.0]);
        assert_eq!(parse(line), Ok(Some(want)));
        assert_eq!(parse("domain0 00000003 1 2"), Ok(None));
        assert!(parse("cpu0 1 2 3").is_err());
    }
}
