//! The three lanes an agent's records travel in. Each has its own dense sequence numbers within an epoch.

use std::fmt;

/// A lane, most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Job runs and gap records: durable before anyone is told of success.
    Outcomes,
    /// Heartbeats and host events.
    State,
    /// Rows of samples, live and backlog.
    Samples,
}

impl Lane {
    /// Every lane, most important first.
    pub const ALL: [Self; 3] = [Self::Outcomes, Self::State, Self::Samples];

    /// The lane's name in directories, metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outcomes => "outcomes",
            Self::State => "state",
            Self::Samples => "samples",
        }
    }

    /// The lane's place in `ALL`.
    pub const fn index(self) -> usize {
        match self {
            Self::Outcomes => 0,
            Self::State => 1,
            Self::Samples => 2,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
