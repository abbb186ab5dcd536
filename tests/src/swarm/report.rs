//! What a run of the swarm measured, as a small table.

use std::fmt;
use std::time::Duration;

use crate::resources::Usage;

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Report {
    pub hosts: usize,
    /// Series of each host.
    pub width: usize,
    /// Rows that the collector has acknowledged.
    pub rows: u64,
    /// On TCP: TLS handshakes, series tables and HTTP/2 included.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub took: Duration,
    /// The collector's, before and after.
    pub usage: Option<(Usage, Usage)>,
}

impl Report {
    /// Samples acknowledged.
    pub fn samples(&self) -> u64 {
        self.rows * self.width as u64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = self.samples() as f64;
        let series = (self.hosts * self.width) as f64;
        writeln!(f, "hosts × series            {} × {} = {series}", self.hosts, self.width)?;
        writeln!(f, "rows acknowledged         {}", self.rows)?;
        writeln!(f, "samples                   {samples}")?;
        writeln!(f, "seconds                   {:.2}", self.took.as_secs_f64())?;
        writeln!(f, "samples/s                 {:.0}", samples / self.took.as_secs_f64())?;
        writeln!(f, "wire bytes/sample up      {:.3}", self.sent_bytes as f64 / samples)?;
        writeln!(f, "wire bytes/sample down    {:.3}", self.received_bytes as f64 / samples)?;
        if let Some((before, after)) = self.usage {
            let cpu = after.cpu_seconds - before.cpu_seconds;
            let resident = after.resident_bytes as f64 / 1e6;
            writeln!(f, "collector CPU-s           {cpu:.2}")?;
            writeln!(f, "collector CPU-s/M samples {:.3}", cpu / samples * 1e6)?;
            writeln!(f, "collector RSS MB          {resident:.0}")?;
            writeln!(f, "collector RSS MB/100k     {:.0}", resident / series * 1e5)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_sample() {
        let usage = |cpu_seconds, resident_bytes| Usage { cpu_seconds, resident_bytes };
        let report = Report {
            hosts: 10,
            width: 100,
            rows: 20,
            sent_bytes: 4_000,
            received_bytes: 500,
            took: Duration::from_secs(2),
            usage: Some((usage(1.0, 1), usage(1.5, 5_000_000))),
        };
        let text = report.to_string();
        for line in [
            "samples/s                 1000",
            "wire bytes/sample up      2.000",
            "wire bytes/sample down    0.250",
            "collector CPU-s/M samples 250.000",
            "collector RSS MB/100k     500",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
