//! What a restart under a fleet costs, as figures.

use std::fmt;
use std::time::Duration;

use super::Options;

/// The figures of a run. Times are from the moment at which the collector answered again, unless they say else.
#[derive(Clone, Debug)]
pub struct Report {
    pub options: Options,
    /// Until the whole fleet was connected for the first time.
    pub first: Duration,
    /// From the end of the last session to the first answer.
    pub down: Duration,
    pub all_back: Duration,
    /// Until every backlog was acknowledged.
    pub filled: Duration,
    /// Of each agent: until its Welcome.
    pub back: Vec<Duration>,
    /// Attempts to connect since the collector went.
    pub attempts: u64,
    /// From sending an outcome to its acknowledgement, since the restart.
    pub outcomes: Vec<Duration>,
    /// The same of live rows.
    pub live: Vec<Duration>,
    /// Of each agent: until its backlog was acknowledged.
    pub filled_each: Vec<Duration>,
    pub rows: u64,
    pub peak_bytes: u64,
    /// Of the collector since its restart.
    pub cpu_seconds: f64,
}

/// What a share of the times lies below.
pub fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = (times.len() as f64 * share).ceil() as usize;
    times.get(at.max(1) - 1).copied().unwrap_or_default()
}

impl Report {
    /// p50, p99 and the longest.
    fn line(f: &mut fmt::Formatter<'_>, name: &str, times: &[Duration]) -> fmt::Result {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(times, share).as_secs_f64());
        writeln!(f, "{name:<25} p50 {p50:.3} s, p99 {p99:.3} s, max {most:.3} s ({})", times.len())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { agents, series, backlog, kill, .. } = self.options;
        let how = if kill { "killed" } else { "stopped" };
        writeln!(
            f,
            "agents                    {agents}, {series} series each, {backlog} rows kept; collector {how}"
        )?;
        writeln!(f, "connected at first        {:.1} s", self.first.as_secs_f64())?;
        writeln!(f, "collector away            {:.1} s", self.down.as_secs_f64())?;
        writeln!(f, "all back after            {:.1} s", self.all_back.as_secs_f64())?;
        Self::line(f, "back", &self.back)?;
        writeln!(f, "attempts                  {:.2} an agent", self.attempts as f64 / agents as f64)?;
        Self::line(f, "outcomes", &self.outcomes)?;
        Self::line(f, "live rows", &self.live)?;
        writeln!(f, "backlogs done after       {:.1} s", self.filled.as_secs_f64())?;
        Self::line(f, "backlog of one", &self.filled_each)?;
        writeln!(f, "rows stored               {}", self.rows)?;
        writeln!(f, "collector RSS peak        {:.0} MB", self.peak_bytes as f64 / 1e6)?;
        writeln!(f, "collector CPU             {:.1} s", self.cpu_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_secs).collect();
        for (share, seconds) in [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)] {
            assert_eq!(quantile(&times, share), Duration::from_secs(seconds), "{share}");
        }
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
