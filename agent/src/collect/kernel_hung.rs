//! How often the kernel found a task hung.

use tocsin_shared::time::Timestamp;

use super::fields::{Malformed, number};
use super::file::KernelFile;
use super::section::Section;
use super::source::{CollectError, Roots, Source, absent_or};

/// The `kernel_hung` collector. Kernels before 6.15 do not count.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_said_or_the_kernel_has_none() {
        let root = tempfile::tempdir().unwrap();
        let mut section = Section::default();
        section.begin();
        let mut source = HungTasks::new(&Roots::new(root.path()));
        let result = source.read(Timestamp::default(), &mut section);
        assert!(matches!(result, Err(CollectError::Absent(_))), "{result:?}");
        std::fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/hung_task_detect_count"), "3\n").unwrap();
        source.read(Timestamp::default(), &mut section).unwrap();
        section.end();
        let said: Vec<_> = section.slots().iter().map(|slot| (slot.labels.metric(), slot.value)).collect();
        assert_eq!(said, [("node_kernel_hung_tasks_total", 3.0)]);
    }
}
