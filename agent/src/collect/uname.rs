//! The kernel's name and version and the host's names, as one series of value 1.

use nix::sys::utsname;
use tocsin_shared::time::Timestamp;

use super::section::Section;
use super::source::{CollectError, Source};

/// The `uname` collector.
pub(crate) struct Uname;

impl Source for Uname {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let uname = utsname::uname().map_err(|source| CollectError::Call { call: "uname", source })?;
        let words = [
            ("sysname", uname.sysname()),
            ("release", uname.release()),
            ("version", uname.version()),
            ("machine", uname.machine()),
            ("nodename", uname.nodename()),
            ("domainname", uname.domainname()),
        ]
        .map(|(label, word)| (label, word.to_string_lossy()));
        let labels = words.each_ref().map(|(label, word)| (*label, word.as_ref()));
        out.put("node_uname_info", &labels, 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_carries_the_names_joins_use() {
        let mut section = Section::default();
        section.begin();
        Uname.read(Timestamp::default(), &mut section).unwrap();
        section.end();
        let [slot] = section.slots() else { panic!("one series") };
        assert_eq!((slot.labels.metric(), slot.labels.get("sysname")), ("node_uname_info", Some("Linux")));
        assert!(slot.labels.get("nodename").is_some());
    }
}
