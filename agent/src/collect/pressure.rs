//! Pressure stall information: time lost waiting for processor, memory, disks and interrupts.
//!
//! "some" is waiting, "full" is stalled. Of the processor only waiting is said: "full" means nothing for it.

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};
use tocsin_shared::time::Timestamp;

/// File, its line, and the metric.
const STALLS: [(&str, &str, &str); 6] = [
    ("cpu", "some", "node_pressure_cpu_waiting_seconds_total"),
    ("io", "some", "node_pressure_io_waiting_seconds_total"),
    ("io", "full", "node_pressure_io_stalled_seconds_total"),
    ("memory", "some", "node_pressure_memory_waiting_seconds_total"),
    ("memory", "full", "node_pressure_memory_stalled_seconds_total"),
    ("irq", "full", "node_pressure_irq_stalled_seconds_total"),
];
const FILES: [&str; 4] = ["cpu", "io", "memory", "irq"];
const MICROSECOND: f64 = 1e6;

/// The total of one line (`some` or `full`) in seconds; `None` when the file has no such line.
pub(crate) fn parse(text: &str, line: &str) -> Result<Option<f64>, Malformed> {
    let Some(found) = text.lines().find(|is| is.split(' ').next() == Some(line)) else { return Ok(None) };
    let total = found.split(' ').find_map(|field| field.strip_prefix("total=")).and_then(number);
    total.map(|total| Some(total / MICROSECOND)).ok_or_else(|| Malformed::new("/proc/pressure", found))
}

/// The `pressure` collector.
pub(crate) struct Pressure([(&'static str, KernelFile); 4]);

impl Pressure {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(FILES.map(|name| (name, KernelFile::table(roots.proc(&format!("pressure/{name}"))))))
    }
}

impl Source for Pressure {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let mut found = false;
        for (name, file) in &mut self.0 {
            // Older kernels lack `irq`, and a kernel booted with psi=0 refuses to read any.
            let Ok(text) = file.read() else { continue };
            for (_, line, metric) in STALLS.iter().filter(|(of, ..)| of == name) {
                if let Some(total) = parse(&text, line)? {
                    out.put(*metric, &[], total);
                    found = true;
                }
            }
        }
        if found { Ok(()) } else { Err(CollectError::Absent("pressure stall information")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_in_seconds() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=13178276\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse(text, "some"), Ok(Some(13.178276)));
        assert_eq!(parse(text, "full"), Ok(Some(0.0)));
        assert_eq!(parse("full avg10=0.00 total=5\n", "some"), Ok(None));
        assert!(parse("some avg10=0.00\n", "some").is_err());
    }
}
