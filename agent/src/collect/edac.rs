//! Memory errors that the hardware corrected or could not, per memory controller.

use super::fields::{Malformed, number};
use super::file::{names_in, read_once};
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};
use std::path::Path;
use tocsin_shared::time::Timestamp;

/// Controllers and rows looked at; large servers have 16 and 16.
const PARTS_MAX: usize = 256;

/// The `edac` collector.
pub(crate) struct Edac(Roots);

impl Edac {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(roots.clone())
    }
}

/// The number after a folder's prefix: `0` of `mc0`.
fn index<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix).filter(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

fn count(path: &Path) -> Result<f64, CollectError> {
    let text = read_once(path)?;
    Ok(number(&text).ok_or_else(|| Malformed::new("/sys/devices/system/edac", &text))?)
}

impl Source for Edac {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let root = self.0.sys("devices/system/edac/mc");
        let folders = names_in(&root, PARTS_MAX)
            .map_err(|error| absent_or(error, "memory controller with error detection"))?;
        for (folder, controller) in folders.iter().filter_map(|name| Some((name, index(name, "mc")?))) {
            let folder = root.join(folder);
            let labels = [("controller", controller)];
            out.put("node_edac_correctable_errors_total", &labels, count(&folder.join("ce_count"))?);
            out.put("node_edac_uncorrectable_errors_total", &labels, count(&folder.join("ue_count"))?);
            let unknown = [("controller", controller), ("csrow", "unknown")];
            let (corrected, uncorrected) =
                ("node_edac_csrow_correctable_errors_total", "node_edac_csrow_uncorrectable_errors_total");
            out.put(corrected, &unknown, count(&folder.join("ce_noinfo_count"))?);
            out.put(uncorrected, &unknown, count(&folder.join("ue_noinfo_count"))?);
            let rows = names_in(&folder, PARTS_MAX)?;
            for (row, number) in rows.iter().filter_map(|name| Some((name, index(name, "csrow")?))) {
                let labels = [("controller", controller), ("csrow", number)];
                out.put(corrected, &labels, count(&folder.join(row).join("ce_count"))?);
                out.put(uncorrected, &labels, count(&folder.join(row).join("ue_count"))?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn errors_are_said_per_controller_and_row() {
        let root = tempfile::tempdir().unwrap();
        let mc = root.path().join("sys/devices/system/edac/mc");
        fs::create_dir_all(mc.join("power")).unwrap();
        for (file, text) in [
            ("mc0/ce_count", "7\n"),
            ("mc0/ue_count", "1\n"),
            ("mc0/ce_noinfo_count", "2\n"),
            ("mc0/ue_noinfo_count", "0\n"),
            ("mc0/csrow3/ce_count", "5\n"),
            ("mc0/csrow3/ue_count", "1\n"),
        ] {
            fs::create_dir_all(mc.join(file).parent().unwrap()).unwrap();
            fs::write(mc.join(file), text).unwrap();
        }
        let mut section = Section::default();
        section.begin();
        Edac::new(&Roots::new(root.path())).read(Timestamp::default(), &mut section).unwrap();
        section.end();
        let said: Vec<_> =
            section.slots().iter().map(|slot| format!("{} {}", slot.labels, slot.value)).collect();
        assert_eq!(
            said,
            [
                r#"node_edac_correctable_errors_total{controller="0"} 7"#,
                r#"node_edac_uncorrectable_errors_total{controller="0"} 1"#,
                r#"node_edac_csrow_correctable_errors_total{controller="0", csrow="unknown"} 2"#,
                r#"node_edac_csrow_uncorrectable_errors_total{controller="0", csrow="unknown"} 0"#,
                r#"node_edac_csrow_correctable_errors_total{controller="0", csrow="3"} 5"#,
                r#"node_edac_csrow_uncorrectable_errors_total{controller="0", csrow="3"} 1"#,
            ]
        );
        assert_eq!(index("mc", "mc"), None);
    }
}
