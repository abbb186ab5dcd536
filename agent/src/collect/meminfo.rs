//! Memory: every line of `/proc/meminfo`, in bytes where the kernel says kB.

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::{Name, Section};
use super::source::{CollectError, Roots, Source};
use tocsin_shared::time::Timestamp;

/// One line.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry<'a> {
    /// `Active` of `Active(anon):`.
    pub(crate) field: &'a str,
    /// `anon` of `Active(anon):`; empty for most.
    pub(crate) part: &'a str,
    /// Bytes, or a count when `bytes` is not set (huge pages).
    pub(crate) value: f64,
    pub(crate) bytes: bool,
}

impl Entry<'_> {
    fn name(&self) -> Name<'_> {
        let join = if self.part.is_empty() { "" } else { "_" };
        Name(["node_memory_", self.field, join, self.part, if self.bytes { "_bytes" } else { "" }])
    }
}

/// Reads the whole file.
pub(crate) fn parse(text: &str) -> Result<Vec<Entry<'_>>, Malformed> {
    text.lines().filter(|line| !line.trim().is_empty()).map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<Entry<'_>, Malformed> {
    let malformed = || Malformed::new("/proc/meminfo", line);
    let (name, rest) = line.split_once(':').ok_or_else(malformed)?;
    let mut fields = rest.split_ascii_whitespace();
    let value = fields.next().and_then(number).ok_or_else(malformed)?;
    let (field, part) = match name.split_once('(') {
        Some((field, part)) => (field, part.strip_suffix(')').ok_or_else(malformed)?),
        None => (name, ""),
    };
    match fields.next() {
        None => Ok(Entry { field, part, value, bytes: false }),
        Some("kB") => Ok(Entry { field, part, value: value * 1024.0, bytes: true }),
        Some(_) => Err(malformed()),
    }
}

/// The `meminfo` collector.
pub(crate) struct Meminfo(KernelFile);

impl Meminfo {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::table(roots.proc("meminfo")))
    }
}

impl Source for Meminfo {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let text = self.0.read()?;
        for entry in parse(&text)? {
            out.put(entry.name(), &[], entry.value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_names_and_bytes() {
        for (line, name, value) in [
            ("MemTotal:       24684084 kB", "node_memory_MemTotal_bytes", 25_276_502_016.0),
            ("Active(anon):       1552 kB", "node_memory_Active_anon_bytes", 1_589_248.0),
            ("HugePages_Total:       3", "node_memory_HugePages_Total", 3.0),
        ] {
            let entry = parse_line(line).unwrap();
            assert_eq!((entry.name().0.concat(), entry.value), (name.to_owned(), value));
        }
        for line in ["MemTotal", "MemTotal: kB", "MemTotal: 1 MB", "Active(anon: 1 kB"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_fixture_is_read_whole() {
        let text = include_str!("fixtures/proc/meminfo");
        assert_eq!(parse(text).unwrap().len(), text.lines().count());
    }
}
