//! What a start took, by phase, for the log: a slow one says where the time went.

use std::fmt;
use std::time::{Duration, Instant};

/// The phases so far, in order.
pub(super) struct Phases {
    begun: Instant,
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, done: Vec::new() }
    }

    /// A phase ends here, and the next one begins.
    pub(super) fn done(&mut self, phase: &'static str) {
        let now = Instant::now();
        self.done.push((phase, now - std::mem::replace(&mut self.last, now)));
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} s:", (self.last - self.begun).as_secs_f64())?;
        let phases = self.done.iter().map(|(phase, took)| format!(" {phase} {:.2} s", took.as_secs_f64()));
        f.write_str(&phases.collect::<Vec<_>>().join(","))
    }
}
