//! The kernel's counters of paging, swapping and out-of-memory kills, from `/proc/vmstat`.

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};
use tocsin_shared::time::Timestamp;

/// Whether a field is said: `^(oom_kill|pgpg|pswp|pg.*fault).*`.
fn wanted(field: &str) -> bool {
    ["oom_kill", "pgpg", "pswp"].iter().any(|prefix| field.starts_with(prefix))
        || field.strip_prefix("pg").is_some_and(|rest| rest.contains("fault"))
}

/// Reads the fields that are said.
pub(crate) fn parse(text: &str) -> Result<Vec<(&str, f64)>, Malformed> {
    let wanted = text.lines().filter(|line| wanted(line));
    wanted
        .map(|line| {
            let (field, value) = line.split_once(' ')?;
            Some((field, number(value.trim())?))
        })
        .map(|pair| pair.ok_or(()))
        .collect::<Result<_, ()>>()
        .map_err(|()| Malformed::new("/proc/vmstat", text))
}

/// The `vmstat` collector.
pub(crate) struct Vmstat(KernelFile);

impl Vmstat {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::table(roots.proc("vmstat")))
    }
}

impl Source for Vmstat {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let text = self.0.read()?;
        for (field, value) in parse(&text)? {
            out.put(["node_vmstat_", field, ""], &[], value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_fields_are_said_and_no_others() {
        let text = "nr_free_pages 1\npgpgin 2\npgpgout 3\npswpin 4\npswpout 5\npgfault 6\npgmajfault 7\n\
                    pgalloc_normal 8\noom_kill 9\nnuma_pages_migrated 10\n";
        assert_eq!(
            parse(text).unwrap(),
            [
                ("pgpgin", 2.0),
                ("pgpgout", 3.0),
                ("pswpin", 4.0),
                ("pswpout", 5.0),
                ("pgfault", 6.0),
                ("pgmajfault", 7.0),
                ("oom_kill", 9.0)
            ]
        );
        assert!(parse("oom_kill many\n").is_err());
    }
}
