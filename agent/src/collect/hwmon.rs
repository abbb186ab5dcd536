//! Sensors of the hardware: temperatures, fans, voltages, from `/sys/class/hwmon`.
//!
//! The kernel describes them by file names (`temp1_crit_alarm`); names, units and oddities of the metrics made from
//! them are node_exporter's. Which files there are is looked up once a minute, their values are read on every tick.

use std::path::Path;

use tocsin_shared::time::Timestamp;

use super::fields::number;
use super::file::{KernelFile, names_in, read_once};
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};

/// Chips looked at; a large server has about twenty.
const CHIPS_MAX: usize = 64;
/// Files of one chip looked at.
const FILES_MAX: usize = 1024;
/// Sensor files of the whole host kept open.
const SENSORS_MAX: usize = 512;
/// The kinds of sensors there are, as file names begin.
const KINDS: [&str; 11] =
    ["in", "cpu", "fan", "pwm", "temp", "curr", "power", "energy", "humidity", "intrusion", "freq"];
/// Divisors, not divisors: 48500 / 1000 is exactly the decimal 48.5, which is cheap to send and keep.
const MILLI: f64 = 1e3;
const MICRO: f64 = 1e6;

/// A sensor's file name in its parts: `temp`, `temp1`, `crit_alarm`.
pub(crate) fn parse(file: &str) -> Option<(&'static str, &str, &str)> {
    let letters = file.find(|c: char| c.is_ascii_digit())?;
    let kind = KINDS.into_iter().find(|kind| *kind == &file[..letters])?;
    let digits = file[letters..].find(|c: char| !c.is_ascii_digit()).unwrap_or(file.len() - letters);
    let (sensor, element) = file.split_at(letters + digits);
    match element.strip_prefix('_') {
        Some(element) if !element.is_empty() => Some((kind, sensor, element)),
        None if element.is_empty() => Some((kind, sensor, "")),
        _ => None,
    }
}

/// The metric for an element of a sensor and the divisor to its unit. `has_bare` says that the sensor also has a file
/// without an element, which then is the value proper.
pub(crate) fn metric(kind: &str, element: &str, has_bare: bool) -> (String, f64) {
    let mut name = format!("node_hwmon_{kind}");
    if !element.is_empty() && (element != "input" || has_bare) {
        name = format!("{name}_{}", clean(element));
    }
    let (suffix, divisor) = match (kind, element) {
        (_, "fault" | "alarm") => ("", 1.0),
        (_, "beep") => ("_enabled", 1.0),
        ("in" | "cpu", _) => ("_volts", MILLI),
        ("temp", element) if element != "type" => ("_celsius", MILLI),
        ("curr", _) => ("_amps", MILLI),
        ("energy", _) => ("_joule_total", MICRO),
        ("power", "accuracy") => ("", MICRO),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
            ("_seconds", MILLI)
        }
        ("power", _) => ("_watt", MICRO),
        ("humidity", _) => ("", MICRO),
        ("fan", "input" | "min" | "max" | "target") => ("_rpm", 1.0),
        _ => ("", 1.0),
    };
    (name + suffix, divisor)
}

/// A word that is fit for a label of a chip: lower case, what is not a letter or digit replaced.
pub(crate) fn clean(word: &str) -> String {
    let replaced = word.trim().chars().map(|c| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | ':' | '_') => c,
        _ => '_',
    });
    replaced.collect::<String>().trim_matches('_').to_owned()
}

/// A chip's stable name: bus and device if it has them, else its driver's name, else its number.
fn chip_name(folder: &Path) -> String {
    let device = folder.join("device").canonicalize().ok();
    let part = |path: Option<&Path>| {
        path.and_then(|p| p.file_name()).map(|n| clean(&n.to_string_lossy())).unwrap_or_default()
    };
    let (bus, name) = (part(device.as_deref().and_then(Path::parent)), part(device.as_deref()));
    match (bus.is_empty(), name.is_empty()) {
        (false, false) => format!("{bus}_{name}"),
        (true, false) => name,
        _ => match read_once(&folder.join("name")).map(|name| clean(&name)) {
            Ok(name) if !name.is_empty() => name,
            _ => part(Some(folder)),
        },
    }
}

struct Sensor {
    metric: String,
    divisor: f64,
    chip: usize,
    sensor: String,
    file: KernelFile,
}

/// A constant word about a chip or sensor: metric, chip, and one or two labels.
struct Word {
    metric: &'static str,
    chip: usize,
    labels: Vec<(&'static str, String)>,
}

/// The `hwmon` collector.
pub(crate) struct Hwmon {
    roots: Roots,
    chips: Vec<String>,
    sensors: Vec<Sensor>,
    words: Vec<Word>,
    refresh: Refresh,
}

impl Hwmon {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            roots: roots.clone(),
            chips: Vec::new(),
            sensors: Vec::new(),
            words: Vec::new(),
            refresh: Refresh::default(),
        }
    }

    fn list(&mut self) -> Result<(), CollectError> {
        let class = self.roots.sys("class/hwmon");
        let chips = names_in(&class, CHIPS_MAX).map_err(|error| absent_or(error, "hardware sensors"))?;
        (self.chips, self.sensors, self.words) = (Vec::new(), Vec::new(), Vec::new());
        for chip in chips {
            let folder = class.join(chip);
            let labels = vec![("chip_name", clean(&read_once(&folder.join("name")).unwrap_or_default()))];
            self.words.push(Word { metric: "node_hwmon_chip_names", chip: self.chips.len(), labels });
            self.chips.push(chip_name(&folder));
            self.list_chip(&folder)?;
            // Old drivers keep their files with the device.
            let device = folder.join("device");
            if device.is_dir() {
                self.list_chip(&device)?;
            }
        }
        Ok(())
    }

    fn list_chip(&mut self, folder: &Path) -> Result<(), CollectError> {
        let chip = self.chips.len() - 1;
        let files = names_in(folder, FILES_MAX)?;
        for name in &files {
            let Some((kind, sensor, element)) = parse(name) else { continue };
            if element == "label" {
                let label = read_once(&folder.join(name)).unwrap_or_default();
                let labels = vec![("sensor", sensor.to_owned()), ("label", label)];
                self.words.push(Word { metric: "node_hwmon_sensor_label", chip, labels });
            } else if self.sensors.len() < SENSORS_MAX {
                let (metric, divisor) = metric(kind, element, files.iter().any(|file| file == sensor));
                let file = KernelFile::attribute(folder.join(name));
                self.sensors.push(Sensor { metric, divisor, chip, sensor: sensor.to_owned(), file });
            }
        }
        Ok(())
    }
}

impl Source for Hwmon {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        if self.refresh.due(now) {
            self.list().inspect_err(|_| self.refresh.forget())?;
        }
        for Sensor { metric, divisor, chip, sensor, file } in &mut self.sensors {
            // A sensor without a device behind it refuses to be read: no series.
            let Some(value) = file.read().ok().and_then(|text| number(text.trim())) else { continue };
            out.put(metric.as_str(), &[("chip", &self.chips[*chip]), ("sensor", sensor)], value / *divisor);
        }
        for Word { metric, chip, labels } in &self.words {
            let chip = [("chip", self.chips[*chip].as_str())];
            let labels: Vec<(&str, &str)> =
                chip.into_iter().chain(labels.iter().map(|(n, v)| (*n, v.as_str()))).collect();
            out.put(*metric, &labels, 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn file_names_become_metrics_and_units() {
        for (file, name, divisor) in [
            ("temp1_input", "node_hwmon_temp_celsius", MILLI),
            ("temp1_max", "node_hwmon_temp_max_celsius", MILLI),
            ("temp1_crit_alarm", "node_hwmon_temp_crit_alarm_celsius", MILLI),
            ("temp1_alarm", "node_hwmon_temp_alarm", 1.0),
            ("temp1_type", "node_hwmon_temp_type", 1.0),
            ("fan2_input", "node_hwmon_fan_rpm", 1.0),
            ("fan2_min", "node_hwmon_fan_min_rpm", 1.0),
            ("in0_input", "node_hwmon_in_volts", MILLI),
            ("pwm1", "node_hwmon_pwm", 1.0),
            ("power1_average", "node_hwmon_power_average_watt", MICRO),
        ] {
            let (kind, _, element) = parse(file).unwrap();
            assert_eq!(metric(kind, element, false), (name.to_owned(), divisor), "{file}");
        }
        for file in ["name", "uevent", "temp", "tempx1_input", "temp1_", "update_interval"] {
            assert_eq!(parse(file), None, "{file}");
        }
        assert_eq!(parse("temp12_input"), Some(("temp", "temp12", "input")));
        assert_eq!(clean(" 0000:00:18.3\n"), "0000:00:18_3");
    }

    #[test]
    fn a_chip_is_named_after_its_device_and_its_sensors_are_said() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/devices/platform/coretemp.0");
        let chip = device.join("hwmon0");
        fs::create_dir_all(&chip).unwrap();
        fs::create_dir_all(root.path().join("sys/class/hwmon")).unwrap();
        std::os::unix::fs::symlink(&chip, root.path().join("sys/class/hwmon/hwmon0")).unwrap();
        std::os::unix::fs::symlink(&device, chip.join("device")).unwrap();
        for (file, text) in [
            ("name", "coretemp\n"),
            ("temp1_input", "48500\n"),
            ("temp1_label", "Core 0\n"),
            ("temp1_alarm", "0\n"),
        ] {
            fs::write(chip.join(file), text).unwrap();
        }
        let mut section = Section::default();
        section.begin();
        Hwmon::new(&Roots::new(root.path())).read(Timestamp::default(), &mut section).unwrap();
        section.end();
        let said: Vec<_> =
            section.slots().iter().map(|slot| format!("{} {}", slot.labels, slot.value)).collect();
        assert_eq!(
            said,
            [
                r#"node_hwmon_temp_alarm{chip="platform_coretemp_0", sensor="temp1"} 0"#,
                r#"node_hwmon_temp_celsius{chip="platform_coretemp_0", sensor="temp1"} 48.5"#,
                r#"node_hwmon_chip_names{chip="platform_coretemp_0", chip_name="coretemp"} 1"#,
                r#"node_hwmon_sensor_label{chip="platform_coretemp_0", label="Core 0", sensor="temp1"} 1"#,
            ]
        );
    }
}
