//! The host's wall clock as of the tick, and the clock source the kernel uses.
//!
//! `node_time_seconds` is the tick's time on the grid, so that it is exact against the row's own time.

use tocsin_shared::time::Timestamp;

use super::file::read_once;
use super::refresh::Refresh;
use super::section::Section;
use super::source::{CollectError, Roots, Source};

/// The `time` collector.
pub(crate) struct Time {
    roots: Roots,
    available: String,
    current: String,
    refresh: Refresh,
}

impl Time {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            roots: roots.clone(),
            available: String::new(),
            current: String::new(),
            refresh: Refresh::default(),
        }
    }
}

impl Source for Time {
    fn read(&mut self, now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        out.put("node_time_seconds", &[], now.as_secs_f64());
        if self.refresh.due(now) {
            let folder = self.roots.sys("devices/system/clocksource/clocksource0");
            // Containers often hide this; the time itself is said all the same.
            self.available = read_once(&folder.join("available_clocksource")).unwrap_or_default();
            self.current = read_once(&folder.join("current_clocksource")).unwrap_or_default();
        }
        for source in self.available.split_ascii_whitespace() {
            let labels = [("device", "0"), ("clocksource", source)];
            out.put("node_time_clocksource_available_info", &labels, 1.0);
        }
        if !self.current.is_empty() {
            let labels = [("device", "0"), ("clocksource", self.current.as_str())];
            out.put("node_time_clocksource_current_info", &labels, 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_tick_s() {
        let root = tempfile::tempdir().unwrap();
        let mut section = Section::default();
        section.begin();
        Time::new(&Roots::new(root.path())).read(Timestamp::from_millis(1_500), &mut section).unwrap();
        section.end();
        let said: Vec<_> = section.slots().iter().map(|s| (s.labels.to_string(), s.value)).collect();
        assert_eq!(said, [("node_time_seconds".to_owned(), 1.5)]);
    }
}
