//! ⇄ How long each group of rules takes over a row: the clock is read where the group changes, not at each rule.

use std::time::{Duration, Instant};

use super::burden::Burden;

/// Measures the groups of rules one after the other, up to its end.
pub(super) struct Stopwatch<'a> {
    burden: &'a mut Burden,
    group: Option<usize>,
    begun: Instant,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn begin(burden: &'a mut Burden) -> Self {
        Self { burden, group: None, begun: Instant::now() }
    }

    /// Whether a rule of this group has to wait; if not, it runs next.
    pub(super) fn defers(&mut self, group: usize, since: Option<Duration>) -> bool {
        let defers = self.burden.defers(group, since);
        if !defers && self.group != Some(group) {
            self.note();
            self.group = Some(group);
        }
        defers
    }

    fn note(&mut self) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.begun, now);
        if let Some(group) = self.group {
            self.burden.ran(group, took);
        }
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.note();
    }
}
