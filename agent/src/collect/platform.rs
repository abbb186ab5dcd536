//! The platform's slow gauges: processor clocks, thermal zones, cooling devices and power supplies.
//!
//! All are one-value files of `/sys`, found once a minute and read on every tick. A file that the driver refuses to
//! read (a clock of a processor that is off) is absent in that tick.

use std::path::{Path, PathBuf};

use tocsin_shared::time::Timestamp;

use super::fields::number;
use super::file::{KernelFile, names_in, read_once};
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};

/// Devices of one kind looked at, processors among them.
const DEVICES_MAX: usize = 1024;
/// Files kept open for one collector; 256 processors with three clocks each.
const FILES_MAX: usize = 768;
/// Divisors, so that a result is exactly the short decimal that it looks like.
const KILOHERTZ: f64 = 1e-3;
const MILLI: f64 = 1e3;

/// One file and the series that it is.
struct Gauge {
    metric: &'static str,
    labels: Vec<(&'static str, String)>,
    divisor: f64,
    file: KernelFile,
}

/// Which kind of device has which files.
struct Family {
    /// The directory below `/sys` and how its entries of this kind begin.
    class: &'static str,
    prefix: &'static str,
    /// File, metric and divisor.
    files: &'static [(&'static str, &'static str, f64)],
    /// The label that says which device, by what follows the prefix or, for an empty one, the whole name.
    label: &'static str,
    /// Whether the device's `type` is a label, too.
    typed: bool,
}

/// The `thermal_zone` collector's families.
const THERMAL: &[Family] = &[
    Family {
        class: "class/thermal",
        prefix: "thermal_zone",
        files: &[("temp", "node_thermal_zone_temp", MILLI)],
        label: "zone",
        typed: true,
    },
    Family {
        class: "class/thermal",
        prefix: "cooling_device",
        files: &[
            ("cur_state", "node_cooling_device_cur_state", 1.0),
            ("max_state", "node_cooling_device_max_state", 1.0),
        ],
        label: "name",
        typed: true,
    },
];
/// The `cpufreq` collector's.
const CLOCKS: &[Family] = &[Family {
    class: "devices/system/cpu",
    prefix: "cpu",
    files: &[
        ("cpufreq/scaling_cur_freq", "node_cpu_scaling_frequency_hertz", KILOHERTZ),
        ("cpufreq/scaling_min_freq", "node_cpu_scaling_frequency_min_hertz", KILOHERTZ),
        ("cpufreq/scaling_max_freq", "node_cpu_scaling_frequency_max_hertz", KILOHERTZ),
    ],
    label: "cpu",
    typed: false,
}];
/// The `powersupplyclass` collector's.
const SUPPLIES: &[Family] = &[Family {
    class: "class/power_supply",
    prefix: "",
    files: &[("online", "node_power_supply_online", 1.0), ("capacity", "node_power_supply_capacity", 1.0)],
    label: "power_supply",
    typed: false,
}];

/// One collector over some families.
pub(crate) struct Platform {
    roots: Roots,
    families: &'static [Family],
    what: &'static str,
    gauges: Vec<Gauge>,
    refresh: Refresh,
}

impl Platform {
    /// Thermal zones and cooling devices.
    pub(crate) fn thermal(roots: &Roots) -> Self {
        Self::new(roots, THERMAL, "thermal zones")
    }

    /// Processor clocks as the scaling governor sets them.
    pub(crate) fn clocks(roots: &Roots) -> Self {
        Self::new(roots, CLOCKS, "scaling of processor clocks")
    }

    /// Mains and batteries.
    pub(crate) fn supplies(roots: &Roots) -> Self {
        Self::new(roots, SUPPLIES, "power supplies")
    }

    fn new(roots: &Roots, families: &'static [Family], what: &'static str) -> Self {
        Self { roots: roots.clone(), families, what, gauges: Vec::new(), refresh: Refresh::default() }
    }

    fn list(&mut self) -> Result<(), CollectError> {
        self.gauges.clear();
        for family in self.families {
            let class = self.roots.sys(family.class);
            let names = names_in(&class, DEVICES_MAX).map_err(|error| absent_or(error, self.what))?;
            for name in names {
                let Some(device) = name.strip_prefix(family.prefix) else { continue };
                let numbered = device.bytes().all(|byte| byte.is_ascii_digit());
                if family.prefix.is_empty() || numbered {
                    self.gauges.extend(gauges(family, &class.join(&name), device));
                }
            }
        }
        self.gauges.truncate(FILES_MAX);
        Ok(())
    }
}

fn gauges(family: &'static Family, folder: &Path, device: &str) -> impl Iterator<Item = Gauge> {
    let mut labels = vec![(family.label, device.to_owned())];
    if family.typed {
        labels.push(("type", read_once(&folder.join("type")).unwrap_or_default()));
    }
    let folder: PathBuf = folder.to_owned();
    let present = move |&(file, metric, divisor): &(&'static str, &'static str, f64)| {
        let path = folder.join(file);
        let there = path.exists();
        let labels = labels.clone();
        there.then(|| Gauge { metric, labels, divisor, file: KernelFile::attribute(path) })
    };
    family.files.iter().filter_map(present)
}

impl Source for Platform {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        if self.refresh.due(now) {
            self.list().inspect_err(|_| self.refresh.forget())?;
        }
        for Gauge { metric, labels, divisor, file } in &mut self.gauges {
            let Some(value) = file.read().ok().and_then(|text| number(text.trim())) else { continue };
            let (first, second) = (&labels[0], labels.get(1));
            let second = second.map_or(("type", ""), |(name, value)| (*name, value.as_str()));
            out.put(*metric, &[(first.0, first.1.as_str()), second], value / *divisor);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn each_kind_of_device_is_said_in_base_units() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("class/thermal/thermal_zone0/temp", "48500\n"),
            ("class/thermal/thermal_zone0/type", "x86_pkg_temp\n"),
            ("class/thermal/cooling_device3/type", "Processor\n"),
            ("class/thermal/cooling_device3/cur_state", "1\n"),
            ("class/thermal/cooling_device3/max_state", "10\n"),
            ("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2400000\n"),
            ("devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "<unknown>\n"),
            ("devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "1\n"),
            ("class/power_supply/AC/online", "1\n"),
        ] {
            let path = root.path().join("sys").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let roots = Roots::new(root.path());
        let mut section = Section::default();
        section.begin();
        for mut source in [Platform::thermal(&roots), Platform::clocks(&roots), Platform::supplies(&roots)] {
            source.read(Timestamp::default(), &mut section).unwrap();
        }
        section.end();
        let said: Vec<_> =
            section.slots().iter().map(|slot| format!("{} {}", slot.labels, slot.value)).collect();
        assert_eq!(
            said,
            [
                r#"node_thermal_zone_temp{type="x86_pkg_temp", zone="0"} 48.5"#,
                r#"node_cooling_device_cur_state{name="3", type="Processor"} 1"#,
                r#"node_cooling_device_max_state{name="3", type="Processor"} 10"#,
                r#"node_cpu_scaling_frequency_hertz{cpu="0"} 2400000000"#,
                r#"node_power_supply_online{power_supply="AC"} 1"#,
            ]
        );
    }

    #[test]
    fn a_host_without_such_devices_says_so() {
        let root = tempfile::tempdir().unwrap();
        let mut source = Platform::thermal(&Roots::new(root.path()));
        let result = source.read(Timestamp::default(), &mut Section::default());
        assert!(matches!(result, Err(CollectError::Absent("thermal zones"))), "{result:?}");
    }
}
