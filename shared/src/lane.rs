//! The three lanes of an agent's spool.

/// A lane: its own log, its own dense sequence. Outcomes go before everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Job runs and gap records.
    Outcomes,
    /// Host events and inventory.
    State,
    /// Rows.
    Samples,
}

impl Lane {
    /// In the order in which they are sent.
    pub const ALL: [Self; 3] = [Self::Outcomes, Self::State, Self::Samples];

    /// The word in directories, metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outcomes => "outcomes",
            Self::State => "state",
            Self::Samples => "samples",
        }
    }
}
