//! Software RAID: which disks of each array work and how far a rebuild is, from `/proc/mdstat`.

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};
use tocsin_shared::time::Timestamp;

/// What an array does; each is a value of the label `state`.
const STATES: [&str; 5] = ["active", "inactive", "recovering", "resync", "check"];

/// One array.
#[derive(Debug, PartialEq)]
pub(crate) struct Array<'a> {
    pub(crate) device: &'a str,
    /// One of `STATES`.
    pub(crate) state: &'static str,
    pub(crate) required: f64,
    pub(crate) active: f64,
    pub(crate) failed: f64,
    pub(crate) spare: f64,
    pub(crate) blocks: f64,
    pub(crate) synced: f64,
}

/// Reads the whole file: an array is a line at the margin and the indented lines under it.
pub(crate) fn parse(text: &str) -> Result<Vec<Array<'_>>, Malformed> {
    let mut arrays = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let at_margin = !line.is_empty() && !line.starts_with(char::is_whitespace);
        if !at_margin || line.starts_with("Personalities") || line.starts_with("unused devices") {
            continue;
        }
        let mut details = Vec::new();
        while let Some(detail) = lines.next_if(|next| next.starts_with(char::is_whitespace)) {
            details.push(detail);
        }
        arrays.push(parse_array(line, &details).ok_or_else(|| Malformed::new("/proc/mdstat", line))?);
    }
    Ok(arrays)
}

fn parse_array<'a>(line: &'a str, details: &[&str]) -> Option<Array<'a>> {
    let (device, rest) = line.split_once(" : ")?;
    let mut words = rest.split_ascii_whitespace();
    let is_active = match words.next()? {
        "active" => true,
        "inactive" => false,
        _ => return None,
    };
    let members: Vec<&str> = words.filter(|word| word.contains('[')).collect();
    let marked = |mark: &str| members.iter().filter(|member| member.contains(mark)).count() as f64;
    let (failed, spare) = (marked("(F)"), marked("(S)"));
    let blocks = details.first().and_then(|line| number(line.split_ascii_whitespace().next()?))?;
    // `[3/2]`: three wanted, two work. Arrays without redundancy have no such word: all members or nothing.
    let whole = members.len() as f64;
    let (required, active) = details
        .iter()
        .find_map(|line| line.split_ascii_whitespace().find_map(wanted_and_working))
        .unwrap_or((whole, if is_active { whole } else { 0.0 }));
    let (state, synced) = match details.iter().find_map(|line| progress(line)) {
        Some((state, synced)) => (state, synced),
        None => (if is_active { "active" } else { "inactive" }, blocks),
    };
    Some(Array { device, state, required, active, failed, spare, blocks, synced })
}

fn wanted_and_working(word: &str) -> Option<(f64, f64)> {
    let (wanted, working) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
    Some((number(wanted)?, number(working)?))
}

/// A line such as `[=>…] recovery = 8.5% (16775552/195310144) finish=…`, or `resync=DELAYED`.
fn progress(line: &str) -> Option<(&'static str, f64)> {
    let names =
        [("recovery", "recovering"), ("reshape", "recovering"), ("resync", "resync"), ("check", "check")];
    let (_, state) = names.into_iter().find(|(word, _)| {
        line.split_ascii_whitespace().any(|is| is == *word || is.starts_with(&format!("{word}=")))
    })?;
    let synced = line.split_once('(').and_then(|(_, rest)| number(rest.split_once('/')?.0));
    Some((state, synced.unwrap_or(0.0)))
}

/// The `mdadm` collector.
pub(crate) struct Mdadm(KernelFile);

impl Mdadm {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::table(roots.proc("mdstat")))
    }
}

impl Source for Mdadm {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let text = self.0.read().map_err(|error| absent_or(error, "software RAID"))?;
        for array in parse(&text)? {
            let device = ("device", array.device);
            out.put("node_md_disks_required", &[device], array.required);
            for (state, disks) in [("active", array.active), ("failed", array.failed), ("spare", array.spare)]
            {
                out.put("node_md_disks", &[device, ("state", state)], disks);
            }
            for state in STATES {
                let is = if state == array.state { 1.0 } else { 0.0 };
                out.put("node_md_state", &[device, ("state", state)], is);
            }
            out.put("node_md_blocks", &[device], array.blocks);
            out.put("node_md_blocks_synced", &[device], array.synced);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_all_kinds_are_read() {
        let text = include_str!("fixtures/proc/mdstat");
        let arrays = parse(text).unwrap();
        let rows: Vec<_> = arrays
            .iter()
            .map(|a| (a.device, a.state, [a.required, a.active, a.failed, a.spare, a.blocks, a.synced]))
            .collect();
        assert_eq!(
            rows,
            [
                ("md0", "active", [2.0, 2.0, 0.0, 0.0, 248_896.0, 248_896.0]),
                ("md1", "recovering", [3.0, 2.0, 1.0, 1.0, 195_310_144.0, 16_775_552.0]),
                ("md2", "active", [2.0, 2.0, 0.0, 0.0, 314_159_265.0, 314_159_265.0]),
                ("md3", "inactive", [1.0, 0.0, 0.0, 1.0, 7_932.0, 7_932.0]),
                ("md4", "resync", [2.0, 2.0, 0.0, 0.0, 4_190_208.0, 0.0]),
                ("md5", "check", [2.0, 2.0, 0.0, 0.0, 1_000.0, 500.0]),
            ]
        );
        assert_eq!(parse("Personalities : \nunused devices: <none>\n"), Ok(vec![]));
        assert!(parse("md0 : odd raid1 sda1[0]\n").is_err());
    }
}
