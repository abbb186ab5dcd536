//! Neighbours in the address-resolution table, per device.

use std::collections::BTreeMap;

use tocsin_shared::time::Timestamp;

use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

/// Counts the neighbours per device in `/proc/net/arp`.
pub(crate) fn parse(text: &str) -> BTreeMap<&str, f64> {
    let mut entries = BTreeMap::new();
    for device in text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(5)) {
        *entries.entry(device).or_insert(0.0) += 1.0;
    }
    entries
}

/// The `arp` collector.
pub(crate) struct Arp(KernelFile);

impl Arp {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::table(roots.proc("net/arp")))
    }
}

impl Source for Arp {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        for (device, entries) in parse(&self.0.read()?) {
            out.put("node_arp_entries", &[("device", device)], entries);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_counted_by_device() {
        let text = "IP address HW type Flags HW address Mask Device\n\
                    10.0.0.1 0x1 0x2 02:fc:00:00:00:05 * eth0\n10.0.0.2 0x1 0x2 02:fc:00:00:00:06 * eth0\n\
                    10.1.0.2 0x1 0x2 02:fc:00:00:00:07 * br0\n";
        assert_eq!(parse(text), BTreeMap::from([("br0", 1.0), ("eth0", 2.0)]));
    }
}
