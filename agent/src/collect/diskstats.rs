//! Block devices' work, from `/proc/diskstats`, and what each device is, from udev's database.
//!
//! Partitions, RAM disks and loop devices are left out unless the configuration says otherwise. Kernels before 4.18
//! have no discard columns and those before 5.5 no flush columns; the series are then absent, not zero.

use std::collections::BTreeMap;

use regex::Regex;
use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, number};
use super::file::{KernelFile, read_once};
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

/// The devices left out by default.
const EXCLUDED_DEVICES: &str = r"^(?:z?ram|loop|fd|(?:h|s|v|xv)d[a-z]|nvme[0-9]+n[0-9]+p)[0-9]+$";
/// Bytes of a sector in `/proc/diskstats`, whatever the device's own sector is.
const SECTOR_BYTES: f64 = 512.0;
const MILLISECOND: f64 = 1000.0;

/// The columns after the device's name: metric and what to multiply by, and divide by.
const COLUMNS: [(&str, f64, f64); 17] = [
    ("node_disk_reads_completed_total", 1.0, 1.0),
    ("node_disk_reads_merged_total", 1.0, 1.0),
    ("node_disk_read_bytes_total", SECTOR_BYTES, 1.0),
    ("node_disk_read_time_seconds_total", 1.0, MILLISECOND),
    ("node_disk_writes_completed_total", 1.0, 1.0),
    ("node_disk_writes_merged_total", 1.0, 1.0),
    ("node_disk_written_bytes_total", SECTOR_BYTES, 1.0),
    ("node_disk_write_time_seconds_total", 1.0, MILLISECOND),
    ("node_disk_io_now", 1.0, 1.0),
    ("node_disk_io_time_seconds_total", 1.0, MILLISECOND),
    ("node_disk_io_time_weighted_seconds_total", 1.0, MILLISECOND),
    ("node_disk_discards_completed_total", 1.0, 1.0),
    ("node_disk_discards_merged_total", 1.0, 1.0),
    ("node_disk_discarded_sectors_total", 1.0, 1.0),
    ("node_disk_discard_time_seconds_total", 1.0, MILLISECOND),
    ("node_disk_flush_requests_total", 1.0, 1.0),
    ("node_disk_flush_requests_time_seconds_total", 1.0, MILLISECOND),
];
/// The columns every kernel since 2.6 has.
const COLUMNS_MIN: usize = 11;

/// One device's line.
#[derive(Debug, PartialEq)]
pub(crate) struct Disk<'a> {
    pub(crate) major: &'a str,
    pub(crate) minor: &'a str,
    pub(crate) device: &'a str,
    values: [f64; COLUMNS.len()],
    columns: usize,
}

impl Disk<'_> {
    /// Metric and value, in seconds and bytes.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        let columns = COLUMNS.iter().zip(self.values).take(self.columns);
        columns.map(|((metric, times, divided), value)| (*metric, value * times / divided))
    }
}

/// Reads one line of `/proc/diskstats`.
pub(crate) fn parse(line: &str) -> Result<Disk<'_>, Malformed> {
    let malformed = || Malformed::new("/proc/diskstats", line);
    let mut fields = line.split_ascii_whitespace();
    let (Some(major), Some(minor), Some(device)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(malformed());
    };
    let (mut values, mut columns) = ([0.0; COLUMNS.len()], 0);
    for (place, field) in values.iter_mut().zip(fields) {
        *place = number(field).ok_or_else(malformed)?;
        columns += 1;
    }
    if columns < COLUMNS_MIN { Err(malformed()) } else { Ok(Disk { major, minor, device, values, columns }) }
}

/// What udev knows of a device; empty where it knows nothing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Identity {
    model: String,
    path: String,
    revision: String,
    rotational: String,
    serial: String,
    wwn: String,
}

/// Reads a file of udev's database, lines like `E:ID_MODEL=…`.
pub(crate) fn parse_identity(text: &str) -> Identity {
    let mut identity = Identity::default();
    for (key, value) in text.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('=')) {
        match key {
            "ID_MODEL" => identity.model = value.to_owned(),
            "ID_PATH" => identity.path = value.to_owned(),
            "ID_REVISION" => identity.revision = value.to_owned(),
            "ID_SERIAL_SHORT" => identity.serial = value.to_owned(),
            "ID_WWN" => identity.wwn = value.to_owned(),
            _ => {}
        }
    }
    identity
}

/// The `diskstats` collector.
pub(crate) struct Diskstats {
    roots: Roots,
    file: KernelFile,
    excluded: Regex,
    identities: BTreeMap<String, Identity>,
    refresh: Refresh,
}

impl Diskstats {
    pub(crate) fn new(roots: &Roots, excluded: Option<Regex>) -> Self {
        Self {
            roots: roots.clone(),
            file: KernelFile::table(roots.proc("diskstats")),
            excluded: excluded
                .unwrap_or_else(|| Regex::new(EXCLUDED_DEVICES).expect("the built-in pattern compiles")),
            identities: BTreeMap::new(),
            refresh: Refresh::default(),
        }
    }
}

fn identity_of(roots: &Roots, disk: &Disk<'_>) -> Identity {
    let udev = roots.host(&format!("run/udev/data/b{}:{}", disk.major, disk.minor));
    let mut identity = parse_identity(&read_once(&udev).unwrap_or_default());
    let rotational = roots.sys(&format!("block/{}/queue/rotational", disk.device));
    identity.rotational = read_once(&rotational).unwrap_or_default();
    identity
}

impl Source for Diskstats {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        if self.refresh.due(now) {
            self.identities.clear();
        }
        let text = self.file.read()?;
        for line in text.lines() {
            let disk = parse(line)?;
            if self.excluded.is_match(disk.device) {
                continue;
            }
            for (metric, value) in disk.values() {
                out.put(metric, &[("device", disk.device)], value);
            }
            if !self.identities.contains_key(disk.device) {
                self.identities.insert(disk.device.to_owned(), identity_of(&self.roots, &disk));
            }
            let Identity { model, path, revision, rotational, serial, wwn } = &self.identities[disk.device];
            let labels = [
                ("device", disk.device),
                ("major", disk.major),
                ("minor", disk.minor),
                ("model", model),
                ("path", path),
                ("revision", revision),
                ("rotational", rotational),
                ("serial", serial),
                ("wwn", wwn),
            ];
            out.put("node_disk_info", &labels, 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_three_ages_of_kernels_are_read() {
        let new =
            "254 0 vda 9838 4797 4045042 12989 2304 24483 1882840 6309 0 5452 19677 3845 62 66848 375 80 3";
        let fields: Vec<&str> = new.split(' ').collect();
        for columns in [11, 15, 17] {
            let line = fields[..3 + columns].join(" ");
            let disk = parse(&line).unwrap();
            assert_eq!((disk.device, disk.values().count()), ("vda", columns));
        }
        let disk = parse(new).unwrap();
        let values: BTreeMap<_, _> = disk.values().collect();
        assert_eq!(values["node_disk_read_bytes_total"], 4_045_042.0 * 512.0);
        assert_eq!(values["node_disk_io_time_weighted_seconds_total"], 19.677);
        assert_eq!(values["node_disk_discarded_sectors_total"], 66_848.0);
        assert_eq!(values["node_disk_flush_requests_time_seconds_total"], 0.003);
        for line in
            ["254 0", "254 0 vda 1 2 3", "254 0 vda x 4797 4045042 12989 2304 24483 1882840 6309 0 5452 1"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn partitions_and_ram_disks_are_left_out() {
        let excluded = Regex::new(EXCLUDED_DEVICES).unwrap();
        for (device, out) in [
            ("sda", false),
            ("sda1", true),
            ("vda", false),
            ("xvda1", true),
            ("nvme0n1", false),
            ("nvme0n1p2", true),
            ("loop0", true),
            ("zram0", true),
            ("dm-0", false),
            ("md0", false),
        ] {
            assert_eq!(excluded.is_match(device), out, "{device}");
        }
    }

    #[test]
    fn udev_s_words_are_read() {
        let identity =
            parse_identity("S:disk/by-id/x\nE:ID_MODEL=Fast_Disk\nE:ID_SERIAL_SHORT=A=1\nE:ID_WWN=0x5\n");
        let want = Identity {
            model: "Fast_Disk".into(),
            serial: "A=1".into(),
            wwn: "0x5".into(),
            ..Identity::default()
        };
        assert_eq!(identity, want);
    }
}
