//! Bonded network devices: how many links each has and how many of them work.

use super::file::read_once;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};
use tocsin_shared::time::Timestamp;

/// The `bonding` collector.
pub(crate) struct Bonding(Roots);

impl Bonding {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(roots.clone())
    }

    /// Whether a link of a bond works. Its file has had two names.
    fn is_up(&self, master: &str, link: &str) -> bool {
        ["lower", "slave"].iter().any(|kind| {
            let path = format!("class/net/{master}/{kind}_{link}/bonding_slave/mii_status");
            read_once(&self.0.sys(&path)).is_ok_and(|status| status == "up")
        })
    }
}

impl Source for Bonding {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let masters = read_once(&self.0.sys("class/net/bonding_masters"))
            .map_err(|error| absent_or(error, "bonded network devices"))?;
        for master in masters.split_ascii_whitespace() {
            let links = read_once(&self.0.sys(&format!("class/net/{master}/bonding/slaves")))?;
            let links: Vec<&str> = links.split_ascii_whitespace().collect();
            let active = links.iter().filter(|link| self.is_up(master, link)).count();
            out.put("node_bonding_slaves", &[("master", master)], links.len() as f64);
            out.put("node_bonding_active", &[("master", master)], active as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_are_counted_and_so_are_those_that_work() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("sys/class/net");
        for (file, text) in [
            ("bonding_masters", "bond0 bond1\n"),
            ("bond0/bonding/slaves", "eth0 eth1\n"),
            ("bond0/lower_eth0/bonding_slave/mii_status", "up\n"),
            ("bond0/lower_eth1/bonding_slave/mii_status", "down\n"),
            ("bond1/bonding/slaves", "\n"),
        ] {
            fs::create_dir_all(net.join(file).parent().unwrap()).unwrap();
            fs::write(net.join(file), text).unwrap();
        }
        let mut section = Section::default();
        section.begin();
        Bonding::new(&Roots::new(root.path())).read(Timestamp::default(), &mut section).unwrap();
        section.end();
        let said: Vec<_> =
            section.slots().iter().map(|slot| (slot.labels.get("master"), slot.value)).collect();
        assert_eq!(
            said,
            [(Some("bond0"), 2.0), (Some("bond0"), 1.0), (Some("bond1"), 0.0), (Some("bond1"), 0.0)]
        );
    }
}
