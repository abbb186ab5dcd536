//! The series of one sub-collector, in the order in which it says them.
//!
//! A sub-collector says the same series in the same order tick after tick, so a cursor walks over the series of the
//! tick before: where name and labels still match, only the value is stored and nothing is allocated. Where they do
//! not, the series is built and the section says that it changed. Order across sections is the table's business.
//!
//! Promise: no label goes out that the collector refuses. It would refuse the whole table, and one odd mount point or
//! text file would make the host unheard.

use std::borrow::Cow;

use tocsin_shared::labels::{Labels, METRIC_NAME};

/// The most series one sub-collector may say: 512 processors with 8 modes are 4,096, and a host with 600 network
/// devices has 16 counters for each. More than this is a host gone wrong, and the collector is failed instead.
pub(crate) const SECTION_SERIES_MAX: usize = 16_384;

/// The longest value of a label that the collector takes.
const VALUE_BYTES_MAX: usize = 1024;
/// What the collector sets; Prometheus keeps such a label of a target as `exported_…`, and so does this.
const SET_BY_COLLECTOR: [(&str, &str); 3] =
    [("instance", "exported_instance"), ("job", "exported_job"), ("env", "exported_env")];

/// A metric's name in up to five pieces that are compared without being joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a>(pub(crate) [&'a str; 5]);

impl<'a> From<&'a str> for Name<'a> {
    fn from(name: &'a str) -> Self {
        Self([name, "", "", "", ""])
    }
}

impl<'a> From<[&'a str; 3]> for Name<'a> {
    fn from([a, b, c]: [&'a str; 3]) -> Self {
        Self([a, b, c, "", ""])
    }
}

impl Name<'_> {
    fn is(&self, text: &str) -> bool {
        let rest = self.0.iter().try_fold(text, |rest, piece| rest.strip_prefix(piece));
        rest == Some("")
    }
}

/// One series and its value.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

impl Slot {
    fn new(name: Name<'_>, labels: &[(&str, &str)], value: f64) -> Self {
        let metric = name.0.concat();
        let labels = labels.iter().map(|(name, value)| (exported(name), printable(value)));
        let pairs = std::iter::once((METRIC_NAME, Cow::Borrowed(metric.as_str()))).chain(labels);
        Self { labels: Labels::new(pairs), value }
    }

    fn is(&self, name: Name<'_>, labels: &[(&str, &str)]) -> bool {
        let set = labels.iter().filter(|(_, value)| !value.is_empty());
        self.labels.len() == 1 + set.clone().count()
            && name.is(self.labels.metric())
            && set.clone().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

fn exported(name: &str) -> &str {
    SET_BY_COLLECTOR.iter().find(|(set, _)| *set == name).map_or(name, |(_, instead)| instead)
}

/// The value without control characters and not too long. Such a series is built anew each tick, for it never equals
/// what was said; the table notices that nothing changed.
fn printable(value: &str) -> Cow<'_, str> {
    let kept = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
    if !kept.contains(char::is_control) {
        return Cow::Borrowed(kept);
    }
    // One byte for one, or for a C1 control of two, so that it does not grow.
    Cow::Owned(kept.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

/// The series of one sub-collector.
#[derive(Debug, Default)]
pub(crate) struct Section {
    slots: Vec<Slot>,
    cursor: usize,
    changed: bool,
}

impl Section {
    /// Starts a tick; the series of the tick before stay for comparison.
    pub(crate) fn begin(&mut self) {
        self.cursor = 0;
        self.changed = false;
    }

    /// Says one series. An empty label value is an absent label.
    pub(crate) fn put<'a>(&mut self, name: impl Into<Name<'a>>, labels: &[(&str, &str)], value: f64) {
        let name = name.into();
        match self.slots.get_mut(self.cursor) {
            Some(slot) if slot.is(name, labels) => slot.value = value,
            Some(slot) => {
                *slot = Slot::new(name, labels, value);
                self.changed = true;
            }
            None if self.cursor < SECTION_SERIES_MAX => {
                self.slots.push(Slot::new(name, labels, value));
                self.changed = true;
            }
            None => {}
        }
        self.cursor += 1;
    }

    /// Ends a tick: what was not said again is gone. Whether the set of series differs from the tick before.
    pub(crate) fn end(&mut self) -> bool {
        if self.cursor < self.slots.len() {
            self.slots.truncate(self.cursor);
            self.changed = true;
        }
        self.changed
    }

    /// Ends a tick that failed: a half-read collection is none at all.
    pub(crate) fn fail(&mut self) -> bool {
        self.cursor = 0;
        self.end()
    }

    /// Whether more was said in this tick than a section holds.
    pub(crate) fn overflowed(&self) -> bool {
        self.cursor > SECTION_SERIES_MAX
    }

    /// The series of the last ended tick, as said.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(section: &mut Section, said: &[(&str, &str, f64)]) -> (bool, Vec<String>) {
        section.begin();
        for (metric, device, value) in said {
            section.put(*metric, &[("device", device)], *value);
        }
        let changed = section.end();
        (changed, section.slots().iter().map(|slot| format!("{} {}", slot.labels, slot.value)).collect())
    }

    #[test]
    fn a_section_says_when_its_set_of_series_changes() {
        let mut section = Section::default();
        type Said = &'static [(&'static str, &'static str, f64)];
        let rows: [(&str, Said, bool); 6] = [
            ("the first tick", &[("a", "x", 1.0), ("b", "", 2.0)], true),
            ("only values", &[("a", "x", 3.0), ("b", "", 4.0)], false),
            ("a label", &[("a", "y", 3.0), ("b", "", 4.0)], true),
            ("one fewer", &[("a", "y", 3.0)], true),
            ("the same again", &[("a", "y", 5.0)], false),
            ("a longer name", &[("aa", "y", 5.0)], true),
        ];
        for (why, said, changed) in rows {
            let (is, series) = tick(&mut section, said);
            assert_eq!(is, changed, "{why}");
            let want: Vec<String> = said
                .iter()
                .map(|(metric, device, value)| {
                    format!("{} {value}", Labels::series(metric, &[("device", device)]))
                })
                .collect();
            assert_eq!(series, want, "{why}");
        }
    }

    #[test]
    fn a_failed_tick_leaves_no_series() {
        let mut section = Section::default();
        tick(&mut section, &[("a", "x", 1.0)]);
        section.begin();
        section.put("a", &[("device", "x")], 2.0);
        assert!(section.fail());
        assert!(section.slots().is_empty());
    }

    #[test]
    fn a_label_that_the_collector_would_refuse_goes_out_as_one_that_it_takes() {
        let long = "ä".repeat(600);
        for (name, value, want) in [
            ("device", "größe", r#"m{device="größe"}"#.to_owned()),
            ("mountpoint", "/mnt/a\nb\u{1b}[2J\u{9b}", r#"m{mountpoint="/mnt/a?b?[2J?"}"#.to_owned()),
            ("job", "nightly", r#"m{exported_job="nightly"}"#.to_owned()),
            ("instance", "x", r#"m{exported_instance="x"}"#.to_owned()),
            ("env", "x", r#"m{exported_env="x"}"#.to_owned()),
            ("a", &long, format!(r#"m{{a="{}"}}"#, "ä".repeat(512))),
        ] {
            let mut section = Section::default();
            section.begin();
            section.put("m", &[(name, value)], 1.0);
            section.end();
            assert_eq!(section.slots()[0].labels.to_string(), want);
        }
    }

    #[test]
    fn a_section_is_bounded() {
        let mut section = Section::default();
        section.begin();
        for _ in 0..=SECTION_SERIES_MAX {
            section.put("a", &[], 1.0);
        }
        assert!(section.overflowed());
        section.end();
        assert_eq!(section.slots().len(), SECTION_SERIES_MAX);
    }

    #[test]
    fn a_name_in_pieces_is_the_joined_name() {
        let name = Name(["node_memory_", "Active", "_", "anon", "_bytes"]);
        for (text, is) in [
            ("node_memory_Active_anon_bytes", true),
            ("node_memory_Active_anon_bytes_", false),
            ("node_memory_Active_anon", false),
            ("", false),
        ] {
            assert_eq!(name.is(text), is, "{text}");
        }
    }
}
