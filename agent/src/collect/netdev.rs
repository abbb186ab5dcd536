//! Traffic per network device, from `/proc/net/dev`.

use regex::Regex;
use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, numbers};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

/// The columns in the order of the file.
const COLUMNS: [&str; 16] = [
    "node_network_receive_bytes_total",
    "node_network_receive_packets_total",
    "node_network_receive_errs_total",
    "node_network_receive_drop_total",
    "node_network_receive_fifo_total",
    "node_network_receive_frame_total",
    "node_network_receive_compressed_total",
    "node_network_receive_multicast_total",
    "node_network_transmit_bytes_total",
    "node_network_transmit_packets_total",
    "node_network_transmit_errs_total",
    "node_network_transmit_drop_total",
    "node_network_transmit_fifo_total",
    "node_network_transmit_colls_total",
    "node_network_transmit_carrier_total",
    "node_network_transmit_compressed_total",
];

/// Reads one device's line: its name and its sixteen counters. The name may touch the first number.
pub(crate) fn parse(line: &str) -> Result<(&str, [f64; 16]), Malformed> {
    let malformed = || Malformed::new("/proc/net/dev", line);
    let (device, counters) = line.rsplit_once(':').ok_or_else(malformed)?;
    Ok((device.trim(), numbers(counters.split_ascii_whitespace()).ok_or_else(malformed)?))
}

/// The `netdev` collector.
pub(crate) struct Netdev {
    file: KernelFile,
    excluded: Option<Regex>,
}

impl Netdev {
    pub(crate) fn new(roots: &Roots, excluded: Option<Regex>) -> Self {
        Self { file: KernelFile::table(roots.proc("net/dev")), excluded }
    }
}

/// The lines that are column titles.
const TITLE_LINES: usize = 2;

impl Source for Netdev {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for line in text.lines().skip(TITLE_LINES) {
            let (device, counters) = parse(line)?;
            if self.excluded.as_ref().is_some_and(|excluded| excluded.is_match(device)) {
                continue;
            }
            for (metric, value) in COLUMNS.into_iter().zip(counters) {
                out.put(metric, &[("device", device)], value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_a_space_after_the_name() {
        for line in
            ["  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"]
        {
            let (device, counters) = parse(line).unwrap();
            assert_eq!((device, counters[0], counters[8], counters[15]), ("eth0", 1.0, 9.0, 16.0));
        }
        assert_eq!(parse("eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").unwrap().0, "eth0:1");
        for line in ["eth0 1 2", "eth0: 1 2 3", "eth0: a b c d e f g h i j k l m n o p"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
