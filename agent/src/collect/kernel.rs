//! The kernel's one-line facts: entropy, hung tasks, address resolution, and what the distribution calls itself.

use std::collections::BTreeMap;

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, number};
use super::file::{KernelFile, read_once};
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};

/// The `entropy` collector.
pub(crate) struct Entropy([(&'static str, KernelFile); 2]);

impl Entropy {
    pub(crate) fn new(roots: &Roots) -> Self {
        let files = [
            ("node_entropy_available_bits", "sys/kernel/random/entropy_avail"),
            ("node_entropy_pool_size_bits", "sys/kernel/random/poolsize"),
        ];
        Self(files.map(|(metric, path)| (metric, KernelFile::attribute(roots.proc(path)))))
    }
}

impl Source for Entropy {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        for (metric, file) in &mut self.0 {
            let text = file.read()?;
            let value =
                number(text.trim()).ok_or_else(|| Malformed::new("/proc/sys/kernel/random", &text))?;
            out.put(*metric, &[], value);
        }
        Ok(())
    }
}

/// The `kernel_hung` collector: how often the kernel found a task hung. Kernels before 6.15 do not count.
pub(crate) struct HungTasks(KernelFile);

impl HungTasks {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::attribute(roots.proc("sys/kernel/hung_task_detect_count")))
    }
}

impl Source for HungTasks {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let text = self.0.read().map_err(|error| absent_or(error, "count of hung tasks"))?;
        let tasks = number(text.trim()).ok_or_else(|| Malformed::new("hung_task_detect_count", &text))?;
        out.put("node_kernel_hung_tasks_total", &[], tasks);
        Ok(())
    }
}

/// Counts the neighbours per device in `/proc/net/arp`.
pub(crate) fn parse_arp(text: &str) -> BTreeMap<&str, f64> {
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
        for (device, entries) in parse_arp(&self.0.read()?) {
            out.put("node_arp_entries", &[("device", device)], entries);
        }
        Ok(())
    }
}

/// The words of `os-release` that are labels, in lower case, with the file's key.
const OS_WORDS: [(&str, &str); 12] = [
    ("build_id", "BUILD_ID"),
    ("id", "ID"),
    ("id_like", "ID_LIKE"),
    ("image_id", "IMAGE_ID"),
    ("image_version", "IMAGE_VERSION"),
    ("name", "NAME"),
    ("pretty_name", "PRETTY_NAME"),
    ("variant", "VARIANT"),
    ("variant_id", "VARIANT_ID"),
    ("version", "VERSION"),
    ("version_codename", "VERSION_CODENAME"),
    ("version_id", "VERSION_ID"),
];

/// Reads `os-release`: keys and values without their quotes.
pub(crate) fn parse_os(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

/// The version's leading `12.3` as a number.
fn os_version(text: &str) -> Option<f64> {
    let mut parts = text.split('.');
    let (major, minor) = (parts.next()?, parts.next().unwrap_or("0"));
    format!("{major}.{minor}").parse().ok()
}

/// The `os` collector.
pub(crate) struct Os {
    roots: Roots,
    words: BTreeMap<String, String>,
    refresh: Refresh,
}

impl Os {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self { roots: roots.clone(), words: BTreeMap::new(), refresh: Refresh::default() }
    }
}

impl Source for Os {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        if self.refresh.due(now) {
            let read = |path| read_once(&self.roots.host(path));
            let text = read("etc/os-release").or_else(|_| read("usr/lib/os-release"));
            self.words = match text {
                Ok(text) => parse_os(&text),
                Err(error) => {
                    self.refresh.forget();
                    return Err(absent_or(error, "os-release file"));
                }
            };
        }
        let word = |key| self.words.get(key).map_or("", String::as_str);
        let labels = OS_WORDS.map(|(label, key)| (label, word(key)));
        out.put("node_os_info", &labels, 1.0);
        if let Some(version) = os_version(word("VERSION_ID")) {
            let labels = [("id", word("ID")), ("id_like", word("ID_LIKE")), ("name", word("NAME"))];
            out.put("node_os_version", &labels, version);
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
        assert_eq!(parse_arp(text), BTreeMap::from([("br0", 1.0), ("eth0", 2.0)]));
    }

    #[test]
    fn distributions_are_read() {
        let words = parse_os("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n# x\n\n");
        assert_eq!((words["NAME"].as_str(), words["ID"].as_str()), ("Debian GNU/Linux", "debian"));
        for (text, version) in
            [("12", Some(12.0)), ("22.04", Some(22.04)), ("3.19.1", Some(3.19)), ("x", None)]
        {
            assert_eq!(os_version(text), version, "{text}");
        }
    }
}
