//! The kernel's pool of randomness.

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_are_said() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("proc/sys/kernel/random");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("entropy_avail"), "250\n").unwrap();
        std::fs::write(folder.join("poolsize"), "256\n").unwrap();
        let mut section = Section::default();
        section.begin();
        Entropy::new(&Roots::new(root.path())).read(Timestamp::default(), &mut section).unwrap();
        section.end();
        let said: Vec<_> = section.slots().iter().map(|slot| (slot.labels.metric(), slot.value)).collect();
        assert_eq!(said, [("node_entropy_available_bits", 250.0), ("node_entropy_pool_size_bits", 256.0)]);
    }
}
