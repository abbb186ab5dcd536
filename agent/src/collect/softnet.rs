//! Packets that each processor took from its backlog, and those it dropped, from `/proc/net/softnet_stat`.

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, hex};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

/// The columns of `/proc/net/softnet_stat` that are said: column, metric.
const SOFTNET: [(usize, &str); 6] = [
    (0, "node_softnet_processed_total"),
    (1, "node_softnet_dropped_total"),
    (2, "node_softnet_times_squeezed_total"),
    (8, "node_softnet_cpu_collision_total"),
    (9, "node_softnet_received_rps_total"),
    (10, "node_softnet_flow_limit_count_total"),
];
const SOFTNET_BACKLOG: usize = 11;
const SOFTNET_CPU: usize = 12;

/// One line of `/proc/net/softnet_stat`, hexadecimal; newer kernels have more columns.
pub(crate) fn parse(line: &str) -> Result<Vec<u64>, Malformed> {
    let columns: Option<Vec<u64>> = line.split_ascii_whitespace().map(hex).collect();
    columns.filter(|columns| columns.len() >= 9).ok_or_else(|| Malformed::new("/proc/net/softnet_stat", line))
}

/// The `softnet` collector.
pub(crate) struct Softnet(KernelFile);

impl Softnet {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::table(roots.proc("net/softnet_stat")))
    }
}

impl Source for Softnet {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        for (at, line) in self.0.read()?.lines().enumerate() {
            let columns = parse(line)?;
            // Older kernels do not say which processor a line is for; their lines are those of the online ones.
            let cpu = columns.get(SOFTNET_CPU).copied().unwrap_or(at as u64).to_string();
            let labels = [("cpu", cpu.as_str())];
            let backlog = (SOFTNET_BACKLOG, "node_softnet_backlog_len");
            for (column, metric) in SOFTNET.into_iter().chain([backlog]) {
                if let Some(value) = columns.get(column) {
                    out.put(metric, &labels, *value as f64);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlog_lines_are_hexadecimal() {
        assert_eq!(parse("0000001a 0 2 0 0 0 0 0 3").unwrap()[..3], [26, 0, 2]);
        assert!(parse("1 2 3").is_err());
    }
}
