//! What each network device is and whether it is up, from `/sys/class/net`.
//!
//! Some twenty small files per device, nearly all constant: they are read once a minute and said from memory on
//! every tick. A device's count of carrier changes is read on every tick, and when it moves the device is read anew,
//! so that a link going down is seen at once.

use std::path::Path;

use regex::Regex;
use tocsin_shared::time::Timestamp;

use super::fields::{hex, number};
use super::file::{KernelFile, names_in, read_once};
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

/// More devices than this are not looked at; a host with so many has lost count of its containers.
const DEVICES_MAX: usize = 1024;
/// Devices watched on every tick for a change of carrier. Each costs an open file and a read.
const WATCHED_MAX: usize = 64;
/// Speed is in Mbit/s, the metric in bytes per second.
const MEGABIT_BYTES: f64 = 1e6 / 8.0;
/// The flag of a device that the administrator switched on.
const FLAG_UP: u64 = 1;

/// Attribute, metric, factor. Numbers are decimal or `0x`.
const ATTRIBUTES: [(&str, &str, f64); 18] = [
    ("addr_assign_type", "node_network_address_assign_type", 1.0),
    ("carrier", "node_network_carrier", 1.0),
    ("carrier_changes", "node_network_carrier_changes_total", 1.0),
    ("carrier_down_count", "node_network_carrier_down_changes_total", 1.0),
    ("carrier_up_count", "node_network_carrier_up_changes_total", 1.0),
    ("dev_id", "node_network_device_id", 1.0),
    ("dormant", "node_network_dormant", 1.0),
    ("flags", "node_network_flags", 1.0),
    ("ifindex", "node_network_iface_id", 1.0),
    ("iflink", "node_network_iface_link", 1.0),
    ("link_mode", "node_network_iface_link_mode", 1.0),
    ("mtu", "node_network_mtu_bytes", 1.0),
    ("name_assign_type", "node_network_name_assign_type", 1.0),
    ("netdev_group", "node_network_net_dev_group", 1.0),
    ("type", "node_network_protocol_type", 1.0),
    ("speed", "node_network_speed_bytes", MEGABIT_BYTES),
    ("tx_queue_len", "node_network_transmit_queue_length", 1.0),
    ("statistics/rx_nohandler", "node_network_receive_nohandler_total", 1.0),
];

/// One device as last read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Device {
    name: String,
    address: String,
    broadcast: String,
    duplex: String,
    ifalias: String,
    operstate: String,
    adminstate: &'static str,
    numbers: Vec<(&'static str, f64)>,
}

/// A number as the attributes write it.
pub(crate) fn parse(text: &str) -> Option<f64> {
    match text.strip_prefix("0x") {
        Some(_) => hex(text).map(|value| value as f64),
        None => number(text),
    }
}

/// Reads a device's attributes. One that the driver refuses (speed of a virtual device, carrier of one that is down)
/// is absent.
fn read_device(folder: &Path, name: String) -> Device {
    let word = |attribute: &str| read_once(&folder.join(attribute)).unwrap_or_default();
    let numbers = ATTRIBUTES.iter().filter_map(|(attribute, metric, factor)| {
        Some((*metric, parse(&read_once(&folder.join(attribute)).ok()?)? * factor))
    });
    Device {
        name,
        address: word("address"),
        broadcast: word("broadcast"),
        duplex: word("duplex"),
        ifalias: word("ifalias"),
        operstate: word("operstate"),
        adminstate: match hex(&word("flags")) {
            Some(flags) if flags & FLAG_UP != 0 => "up",
            Some(_) => "down",
            None => "unknown",
        },
        numbers: numbers.collect(),
    }
}

struct Watched {
    device: Device,
    changes: KernelFile,
    seen: String,
}

/// The `netclass` collector.
pub(crate) struct Netclass {
    roots: Roots,
    excluded: Option<Regex>,
    devices: Vec<Watched>,
    refresh: Refresh,
}

impl Netclass {
    pub(crate) fn new(roots: &Roots, excluded: Option<Regex>) -> Self {
        Self { roots: roots.clone(), excluded, devices: Vec::new(), refresh: Refresh::default() }
    }

    fn list(&mut self) -> Result<(), CollectError> {
        let class = self.roots.sys("class/net");
        self.devices.clear();
        for name in names_in(&class, DEVICES_MAX)? {
            let folder = class.join(&name);
            let left_out = self.excluded.as_ref().is_some_and(|excluded| excluded.is_match(&name));
            if left_out || !folder.is_dir() {
                continue; // `bonding_masters` is a file among the devices.
            }
            let mut changes = KernelFile::attribute(folder.join("carrier_changes"));
            let seen = changes.read().map(std::borrow::Cow::into_owned).unwrap_or_default();
            self.devices.push(Watched { device: read_device(&folder, name), changes, seen });
        }
        // Beyond the limit the once-a-minute reading has to do, without an open file each.
        for watched in self.devices.iter_mut().skip(WATCHED_MAX) {
            watched.changes = KernelFile::attribute(class.join(&watched.device.name).join("carrier_changes"));
        }
        Ok(())
    }

    fn look(&mut self) {
        let class = self.roots.sys("class/net");
        for watched in self.devices.iter_mut().take(WATCHED_MAX) {
            let Ok(now) = watched.changes.read() else {
                self.refresh.forget(); // Gone: list again on the next tick.
                continue;
            };
            if *now != *watched.seen {
                watched.seen = now.into_owned();
                let name = std::mem::take(&mut watched.device.name);
                watched.device = read_device(&class.join(&name), name);
            }
        }
    }
}

impl Source for Netclass {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        if self.refresh.due(now) {
            self.list()?;
        } else {
            self.look();
        }
        for Watched { device, .. } in &self.devices {
            say(device, out);
        }
        Ok(())
    }
}

fn say(device: &Device, out: &mut Section) {
    let Device { name, address, broadcast, duplex, ifalias, operstate, adminstate, numbers } = device;
    for (metric, value) in numbers {
        out.put(*metric, &[("device", name)], *value);
    }
    let up = if operstate == "up" { 1.0 } else { 0.0 };
    out.put("node_network_up", &[("device", name)], up);
    let labels = [
        ("device", name.as_str()),
        ("address", address),
        ("broadcast", broadcast),
        ("duplex", duplex),
        ("operstate", operstate),
        ("adminstate", adminstate),
        ("ifalias", ifalias),
    ];
    out.put("node_network_info", &labels, 1.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn said(source: &mut Netclass, second: i64) -> Vec<String> {
        let mut section = Section::default();
        section.begin();
        source.read(Timestamp::from_millis(second * 1000), &mut section).unwrap();
        section.end();
        section.slots().iter().map(|slot| format!("{} {}", slot.labels, slot.value)).collect()
    }

    #[test]
    fn facts_are_kept_for_a_minute_but_a_carrier_change_is_seen_at_once() {
        let root = tempfile::tempdir().unwrap();
        let eth0 = root.path().join("sys/class/net/eth0");
        fs::create_dir_all(&eth0).unwrap();
        fs::write(root.path().join("sys/class/net/bonding_masters"), "").unwrap();
        for (file, text) in [
            ("operstate", "up\n"),
            ("carrier_changes", "2\n"),
            ("mtu", "1500\n"),
            ("speed", "-1\n"),
            ("flags", "0x1003\n"),
            ("address", "02:fc:00:00:00:01\n"),
        ] {
            fs::write(eth0.join(file), text).unwrap();
        }
        let mut source = Netclass::new(&Roots::new(root.path()), None);
        let first = said(&mut source, 0);
        for line in [
            r#"node_network_up{device="eth0"} 1"#,
            r#"node_network_mtu_bytes{device="eth0"} 1500"#,
            r#"node_network_speed_bytes{device="eth0"} -125000"#,
            r#"node_network_flags{device="eth0"} 4099"#,
            r#"node_network_info{address="02:fc:00:00:00:01", adminstate="up", device="eth0", operstate="up"} 1"#,
        ] {
            assert!(first.iter().any(|is| is == line), "{line} is not in {first:#?}");
        }
        fs::write(eth0.join("mtu"), "9000\n").unwrap();
        assert_eq!(said(&mut source, 10), first, "constant facts come from memory");
        fs::write(eth0.join("operstate"), "down\n").unwrap();
        fs::write(eth0.join("carrier_changes"), "3\n").unwrap();
        let changed = said(&mut source, 20);
        assert!(changed.iter().any(|line| line == r#"node_network_up{device="eth0"} 0"#), "{changed:#?}");
        fs::remove_dir_all(&eth0).unwrap();
        assert!(said(&mut source, 80).is_empty(), "a device that is gone");
    }
}
