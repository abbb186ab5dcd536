//! Open files of the whole host, from `/proc/sys/fs/file-nr`.

use super::fields::{Malformed, numbers};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};
use tocsin_shared::time::Timestamp;

/// Reads allocated, unused and maximum; says allocated and maximum.
pub(crate) fn parse(text: &str) -> Result<(f64, f64), Malformed> {
    let [allocated, _unused, maximum] =
        numbers(text.split_ascii_whitespace()).ok_or_else(|| Malformed::new("/proc/sys/fs/file-nr", text))?;
    Ok((allocated, maximum))
}

/// The `filefd` collector.
pub(crate) struct Filefd(KernelFile);

impl Filefd {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(KernelFile::attribute(roots.proc("sys/fs/file-nr")))
    }
}

impl Source for Filefd {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let (allocated, maximum) = parse(&self.0.read()?)?;
        out.put("node_filefd_allocated", &[], allocated);
        out.put("node_filefd_maximum", &[], maximum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_numbers_are_read() {
        assert_eq!(parse("596\t0\t2466183\n"), Ok((596.0, 2_466_183.0)));
        assert_eq!(parse("596\t0\t9223372036854775807\n"), Ok((596.0, 9_223_372_036_854_775_807u64 as f64)));
        assert!(parse("596 0").is_err());
    }
}
