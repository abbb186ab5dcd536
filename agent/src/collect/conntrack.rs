//! The connection-tracking table: how full it is, and what the kernel dropped. Absent when the module is.

use super::fields::{Malformed, hex, number};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};
use tocsin_shared::time::Timestamp;

/// Column title and metric.
const STATS: [(&str, &str); 8] = [
    ("found", "node_nf_conntrack_stat_found"),
    ("invalid", "node_nf_conntrack_stat_invalid"),
    ("ignore", "node_nf_conntrack_stat_ignore"),
    ("insert", "node_nf_conntrack_stat_insert"),
    ("insert_failed", "node_nf_conntrack_stat_insert_failed"),
    ("drop", "node_nf_conntrack_stat_drop"),
    ("early_drop", "node_nf_conntrack_stat_early_drop"),
    ("search_restart", "node_nf_conntrack_stat_search_restart"),
];

/// Sums the columns we know over the processors' lines; hexadecimal, under a line of titles.
pub(crate) fn parse(text: &str) -> Result<Vec<(&'static str, f64)>, Malformed> {
    let mut lines = text.lines();
    let titles: Vec<&str> = lines.next().unwrap_or("").split_ascii_whitespace().collect();
    let known: Vec<Option<&'static str>> = titles
        .iter()
        .map(|title| STATS.iter().find(|(name, _)| name == title).map(|(_, metric)| *metric))
        .collect();
    let mut sums: Vec<(&'static str, f64)> = known.iter().flatten().map(|metric| (*metric, 0.0)).collect();
    for line in lines {
        let mut sums = sums.iter_mut();
        for (field, known) in line.split_ascii_whitespace().zip(&known) {
            let value = hex(field).ok_or_else(|| Malformed::new("/proc/net/stat/nf_conntrack", line))?;
            if known.is_some()
                && let Some((_, sum)) = sums.next()
            {
                *sum += value as f64;
            }
        }
    }
    Ok(sums)
}

/// The `conntrack` collector.
pub(crate) struct Conntrack {
    entries: KernelFile,
    limit: KernelFile,
    stats: KernelFile,
}

impl Conntrack {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            entries: KernelFile::attribute(roots.proc("sys/net/netfilter/nf_conntrack_count")),
            limit: KernelFile::attribute(roots.proc("sys/net/netfilter/nf_conntrack_max")),
            stats: KernelFile::table(roots.proc("net/stat/nf_conntrack")),
        }
    }
}

impl Source for Conntrack {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let pairs = [
            (&mut self.entries, "node_nf_conntrack_entries"),
            (&mut self.limit, "node_nf_conntrack_entries_limit"),
        ];
        for (file, metric) in pairs {
            let text = file.read().map_err(|error| absent_or(error, "connection tracking"))?;
            let value = number(text.trim()).ok_or_else(|| Malformed::new("nf_conntrack", &text))?;
            out.put(metric, &[], value);
        }
        if let Ok(text) = self.stats.read() {
            for (metric, value) in parse(&text)? {
                out.put(metric, &[], value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_title_and_summed_over_processors() {
        let text =
            "entries  clashres found new invalid insert drop\n01 00 0a 00 01 00 ff\n01 00 01 00 01 00 01\n";
        assert_eq!(
            parse(text).unwrap(),
            [
                ("node_nf_conntrack_stat_found", 11.0),
                ("node_nf_conntrack_stat_invalid", 2.0),
                ("node_nf_conntrack_stat_insert", 0.0),
                ("node_nf_conntrack_stat_drop", 256.0),
            ]
        );
        assert!(parse("found\nzz\n").is_err());
    }
}
