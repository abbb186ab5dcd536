//! Load averages over 1, 5 and 15 minutes.

use super::fields::{Malformed, numbers};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};
use tocsin_shared::time::Timestamp;

/// Reads `/proc/loadavg`.
pub(crate) fn parse(text: &str) -> Result<[f64; 3], Malformed> {
    numbers(text.split_ascii_whitespace()).ok_or_else(|| Malformed::new("/proc/loadavg", text))
}

/// The `loadavg` collector.
pub(crate) struct Loadavg(KernelFile);

impl Loadavg {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::attribute(roots.proc("loadavg")))
    }
}

impl Source for Loadavg {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let averages = parse(&self.0.read()?)?;
        for (metric, value) in ["node_load1", "node_load5", "node_load15"].into_iter().zip(averages) {
            out.put(metric, &[], value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_averages_are_read() {
        assert_eq!(parse("0.50 0.28 0.13 1/123 456\n"), Ok([0.5, 0.28, 0.13]));
        assert!(parse("0.50 0.28\n").is_err());
    }
}
