//! Why samples are refused, and how many for each reason.

/// Why a sample is not taken. All but `Disagrees` and `Exemplar` are told to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its labels are out of bounds, without a metric name, or twice in a series.
    InvalidLabels,
    /// Behind the newest sample of its job and instance by more than an hour, or older than samples are kept.
    TooOld,
    /// Ahead of the collector's time by more than ten minutes.
    TooFarInFuture,
    /// It would be read as if it were of a host that has an agent.
    AgentsHost,
    /// A new series beyond what its source may have.
    SeriesLimit,
    /// Native histograms, and exponential ones of OTLP.
    Histogram,
    /// A sum of differences: who adds them up anew at each start would count wrong.
    Delta,
    /// A point without a value, or with one that contradicts itself.
    InvalidPoint,
    /// Exemplars: left out, the samples beside them are taken.
    Exemplar,
    /// Another value at the same time: the first one stays.
    Disagrees,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::InvalidLabels,
        Self::TooOld,
        Self::TooFarInFuture,
        Self::AgentsHost,
        Self::SeriesLimit,
        Self::Histogram,
        Self::Delta,
        Self::InvalidPoint,
        Self::Exemplar,
        Self::Disagrees,
    ];

    /// The word in metrics, status and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidLabels => "invalid_labels",
            Self::TooOld => "too_old",
            Self::TooFarInFuture => "too_far_in_future",
            Self::AgentsHost => "agents_host",
            Self::SeriesLimit => "series_limit",
            Self::Histogram => "histogram",
            Self::Delta => "delta",
            Self::InvalidPoint => "invalid_point",
            Self::Exemplar => "exemplar",
            Self::Disagrees => "disagrees",
        }
    }

    /// Whether the sender is told by an error.
    const fn is_error(self) -> bool {
        !matches!(self, Self::Exemplar | Self::Disagrees)
    }
}

/// How many samples were refused for each reason, and what the first of them was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    counts: [u64; Reason::ALL.len()],
    /// Points that were not taken whole, where a request speaks of points: each may have many samples.
    pub points: u64,
    first: Option<String>,
}

impl Refused {
    /// Counts samples; `why` says what is wrong with them, for the first time.
    pub fn add(&mut self, reason: Reason, samples: u64, why: impl FnOnce() -> String) {
        if samples == 0 {
            return;
        }
        self.counts[reason as usize] += samples;
        if reason.is_error() && self.first.is_none() {
            self.first = Some(why());
        }
    }

    /// Adds what others have counted.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
    }

    /// How many for a reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// How many the sender is told of.
    pub fn errors(&self) -> u64 {
        Reason::ALL.into_iter().filter(|reason| reason.is_error()).map(|reason| self.count(reason)).sum()
    }

    /// For the sender: how many for which reason, and the first one's why. Nothing when nothing is an error.
    pub fn told(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        let counts = Reason::ALL.into_iter().filter(|r| r.is_error() && self.count(*r) > 0);
        let counts = counts.map(|reason| format!("{} {}", self.count(reason), reason.as_str()));
        Some(format!("refused: {}; the first: {first}", counts.collect::<Vec<_>>().join(", ")))
    }
}
