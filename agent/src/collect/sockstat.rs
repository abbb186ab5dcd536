//! Sockets in use by protocol, and the memory they take, from `/proc/net/sockstat` and `sockstat6`.

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::{Name, Section};
use super::source::{CollectError, Roots, Source};

/// One counter: protocol, field, value.
type Counter<'a> = (&'a str, &'a str, f64);

/// Reads a whole file: a protocol a line, then fields and their values.
pub(crate) fn parse(text: &str) -> Result<Vec<Counter<'_>>, Malformed> {
    let mut counters = Vec::new();
    for line in text.lines() {
        let malformed = || Malformed::new("/proc/net/sockstat", line);
        let (protocol, pairs) = line.split_once(':').ok_or_else(malformed)?;
        let mut words = pairs.split_ascii_whitespace();
        while let Some(field) = words.next() {
            counters.push((protocol, field, words.next().and_then(number).ok_or_else(malformed)?));
        }
    }
    Ok(counters)
}

/// The `sockstat` collector.
pub(crate) struct Sockstat {
    files: [KernelFile; 2],
    page_bytes: f64,
}

impl Sockstat {
    pub(crate) fn new(roots: &Roots, page_bytes: f64) -> Self {
        let files = ["net/sockstat", "net/sockstat6"].map(|path| KernelFile::table(roots.proc(path)));
        Self { files, page_bytes }
    }
}

impl Source for Sockstat {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let [four, six] = &mut self.files;
        let page_bytes = self.page_bytes;
        let mut say = |text: &str| -> Result<(), CollectError> {
            for (protocol, field, value) in parse(text)? {
                out.put(Name(["node_sockstat_", protocol, "_", field, ""]), &[], value);
                if field == "mem" {
                    let name = Name(["node_sockstat_", protocol, "_mem_bytes", "", ""]);
                    out.put(name, &[], value * page_bytes);
                }
            }
            Ok(())
        };
        say(&four.read()?)?;
        six.read().map_or(Ok(()), |text| say(&text)) // Absent where IPv6 is off.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_counts_are_read() {
        let text = "sockets: used 15\nTCP: inuse 1 orphan 0 mem 266\n";
        let want =
            [("sockets", "used", 15.0), ("TCP", "inuse", 1.0), ("TCP", "orphan", 0.0), ("TCP", "mem", 266.0)];
        assert_eq!(parse(text).unwrap(), want);
        assert!(parse("TCP: inuse\n").is_err());
    }
}
