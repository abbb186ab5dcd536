//! Recorded scrapes as the values of many virtual hosts, so that a load looks like hosts and not like a generator.
//!
//! Each host starts at its own moment of the recording and goes round in it. Counters grow by the recorded differences
//! times the host's scale and the step, at the decimals that they were recorded with; over the seam they go on growing.
//! Gauges keep their recorded values plus an offset of the host. Pure but for reading the files once.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use tocsin_shared::labels::Labels;

use crate::exposition;

/// A recording: a table of series and, for each scrape, their values.
pub struct Recording {
    pub series: Vec<Labels>,
    counter: Vec<bool>,
    /// 10 to the power of the decimals that a series was recorded with.
    precision: Vec<f64>,
    /// A row for each scrape, oldest first.
    rows: Vec<Vec<f64>>,
}

/// Recorded decimals beyond this are float noise.
const DECIMALS_MAX: i32 = 9;

impl Recording {
    /// Reads a directory of `<unix_ms>.prom` files, keeps the series of node metrics that every scrape has, and of
    /// these `width` (all for 0): those that dashboards ask for first, the others spread evenly.
    pub fn read(dir: &Path, width: usize) -> anyhow::Result<Self> {
        let scrapes = scrapes(dir)?;
        let mut seen: HashMap<Labels, (usize, bool)> = HashMap::new();
        for reading in scrapes.iter().flatten().filter(|reading| reading.labels.metric().starts_with("node_"))
        {
            seen.entry(reading.labels.clone()).or_insert((0, reading.counter)).0 += 1;
        }
        let mut kept: Vec<(Labels, bool)> = seen
            .into_iter()
            .filter(|(_, (times, _))| *times == scrapes.len())
            .map(|(labels, (_, counter))| (labels, counter))
            .collect();
        kept.sort();
        if width > kept.len() {
            bail!("the scrapes have {} series in common, {width} were asked for", kept.len());
        }
        Ok(Self::of(chosen(kept, width), &scrapes))
    }

    /// Values made up: of ten series six never change, two are counters of whole numbers, two gauges of hundredths.
    /// `extra` series follow, which are always one.
    pub fn synthetic(width: usize, extra: Vec<Labels>) -> Self {
        const ROWS: usize = 64;
        let kind = |at: usize| match at % 10 {
            0..6 => 0,
            6..8 => 1,
            _ => 2,
        };
        let name = |at: usize| {
            let suffix = if kind(at) == 1 { "_total" } else { "" };
            Labels::series(&format!("node_made_{}{suffix}", at / 8), &[("device", &format!("d{}", at % 8))])
        };
        let value = |row: usize, at: usize| match kind(at) {
            0 => (at % 7) as f64,
            1 => (row * (at % 90 + 1)) as f64,
            _ => ((row * 37 + at * 11) % 10_000) as f64 / 100.0,
        };
        let row = |row: usize| (0..width).map(|at| value(row, at)).chain(extra.iter().map(|_| 1.0)).collect();
        let rows = (0..ROWS).map(row).collect();
        let counter = (0..width + extra.len()).map(|at| at < width && kind(at) == 1).collect();
        let precision = vec![100.0; width + extra.len()];
        let series = (0..width).map(name).chain(extra.iter().cloned()).collect();
        Self { series, counter, precision, rows }
    }

    fn of(kept: Vec<(Labels, bool)>, scrapes: &[Vec<exposition::Reading>]) -> Self {
        let places: HashMap<&Labels, usize> =
            kept.iter().enumerate().map(|(at, (labels, _))| (labels, at)).collect();
        let mut rows = vec![vec![0.0; kept.len()]; scrapes.len()];
        for (row, scrape) in rows.iter_mut().zip(scrapes) {
            for reading in scrape {
                if let Some(at) = places.get(&reading.labels) {
                    row[*at] = reading.value;
                }
            }
        }
        let precision = (0..kept.len())
            .map(|at| 10f64.powi(rows.iter().map(|row| decimals(row[at])).max().unwrap_or(0)))
            .collect();
        let (series, counter) = kept.into_iter().unzip();
        Self { series, counter, precision, rows }
    }

    /// How many scrapes there are.
    pub fn scrapes(&self) -> usize {
        self.rows.len()
    }

    /// The values of a scrape as they were recorded.
    pub fn recorded(&self, scrape: usize) -> &[f64] {
        &self.rows[scrape]
    }

    /// How many of the series differ anywhere in the recording.
    pub fn varying(&self) -> usize {
        let varies = |at: usize| self.rows.iter().any(|row| row[at].to_bits() != self.rows[0][at].to_bits());
        (0..self.series.len()).filter(|at| varies(*at)).count()
    }
}

/// One virtual host's way through the recording.
pub struct Host {
    phase: usize,
    scale: f64,
    values: Vec<f64>,
    ticks: usize,
}

impl Host {
    /// The host of a number: its phase, its scale (0.5 to 1.5) and its offset follow from it. `step` is how many
    /// recorded differences one tick stands for.
    pub fn new(recording: &Recording, number: usize, step: f64) -> Self {
        let phase = number.wrapping_mul(7_919) % recording.scrapes();
        let share = (number.wrapping_mul(2_654_435_761) % 1_000) as f64 / 1_000.0;
        Self { phase, scale: step * (0.5 + share), values: recording.rows[phase].clone(), ticks: 0 }
    }

    /// The values of the next tick.
    pub fn tick(&mut self, recording: &Recording) -> &[f64] {
        let (last, next) = (self.place(recording, self.ticks), self.place(recording, self.ticks + 1));
        self.ticks += 1;
        for (at, value) in self.values.iter_mut().enumerate() {
            let (before, after) = (recording.rows[last][at], recording.rows[next][at]);
            if recording.counter[at] {
                let growth = (after - before).max(0.0) * self.scale; // Over the seam it would be negative.
                let precision = recording.precision[at];
                *value = ((*value + growth) * precision).round() / precision;
            } else {
                *value = after;
            }
        }
        &self.values
    }

    fn place(&self, recording: &Recording, ticks: usize) -> usize {
        (self.phase + ticks) % recording.scrapes()
    }
}

fn scrapes(dir: &Path) -> anyhow::Result<Vec<Vec<exposition::Reading>>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let at = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let (Some(at), Some("prom")) = (at, path.extension().and_then(|end| end.to_str())) {
            files.push((at, path));
        }
    }
    files.sort();
    if files.len() < 2 {
        bail!("{} holds fewer than two <unix_ms>.prom files", dir.display());
    }
    let read = |path: &Path| -> anyhow::Result<_> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(exposition::parse(&text).with_context(|| path.display().to_string())?.series)
    };
    files.iter().map(|(_, path)| read(path)).collect()
}

/// The series of these metrics are always among those that are kept.
const ASKED_FOR: [&str; 5] = [
    "node_cpu_seconds_total",
    "node_load1",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "node_filesystem_avail_bytes",
];

fn chosen(all: Vec<(Labels, bool)>, width: usize) -> Vec<(Labels, bool)> {
    let asked = |(labels, _): &(Labels, bool)| ASKED_FOR.contains(&labels.metric());
    let (mut kept, others): (Vec<_>, Vec<_>) = all.into_iter().partition(asked);
    let width = if width == 0 { kept.len() + others.len() } else { width };
    kept.truncate(width);
    let rest = width - kept.len();
    kept.extend(if rest == 0 { Vec::new() } else { spread(others, rest) });
    kept.sort();
    kept
}

fn spread<T>(all: Vec<T>, width: usize) -> Vec<T> {
    let of = all.len();
    if width == 0 {
        return all;
    }
    // The i-th of `width` marks; each falls on another place because width <= of.
    let mut marks = (0..width).map(|mark| mark * of / width).peekable();
    all.into_iter()
        .enumerate()
        .filter(|(at, _)| marks.next_if_eq(at).is_some())
        .map(|(_, item)| item)
        .collect()
}

fn decimals(value: f64) -> i32 {
    (0..DECIMALS_MAX)
        .find(|places| {
            let power = 10f64.powi(*places);
            ((value * power).round() / power).to_bits() == value.to_bits()
        })
        .unwrap_or(DECIMALS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        let dir = tempfile::tempdir().unwrap();
        for (at, (counter, gauge)) in [(10.25, 5), (10.5, 5), (11.0, 7)].into_iter().enumerate() {
            let text =
                format!("# TYPE node_a counter\nnode_a {counter}\nnode_b {gauge}\ngo_c 1\nnode_{at} 1\n");
            std::fs::write(dir.path().join(format!("{at}.prom")), text).unwrap();
        }
        Recording::read(dir.path(), 0).unwrap()
    }

    #[test]
    fn what_every_scrape_has_is_kept() {
        let recording = recording();
        let names: Vec<&str> = recording.series.iter().map(Labels::metric).collect();
        assert_eq!(names, ["node_a", "node_b"]);
        assert_eq!((recording.scrapes(), recording.varying()), (3, 2));
        assert_eq!(recording.recorded(1), [10.5, 5.0]);
    }

    #[test]
    fn counters_go_on_growing_over_the_seam() {
        let recording = recording();
        let mut host = Host { phase: 0, scale: 1.0, values: recording.recorded(0).to_vec(), ticks: 0 };
        let rows: Vec<Vec<f64>> = (0..4).map(|_| host.tick(&recording).to_vec()).collect();
        assert_eq!(rows, [[10.5, 5.0], [11.0, 7.0], [11.0, 5.0], [11.25, 5.0]]);
    }

    #[test]
    fn a_spread_is_even() {
        assert_eq!(spread((0..10).collect(), 3), [0, 3, 6]);
        assert_eq!(spread((0..3).collect(), 3), [0, 1, 2]);
        assert_eq!(spread((0..3).collect(), 0), [0, 1, 2]);
    }
}
