//! Programs that are killed again and again under load, and the comparison in the end.

pub mod agents;
mod collector;
mod restarts;

use std::net::Ipv4Addr;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt as _;

use crate::dice::Dice;

pub use agents::agents as kill_agents;
pub use collector::collector as kill_collector;
pub use restarts::{Restarts, restarts};

/// From the end of the load to the last comparison, on a machine that is busy.
const SETTLED: Duration = Duration::from_secs(40);

/// How much is killed.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    pub kills: usize,
    pub seed: u64,
    /// Whether strace is used.
    pub traced: bool,
}

/// The times from starts to answers.
#[derive(Clone, Debug, Default)]
pub struct Starts(Vec<Duration>);

impl Starts {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The longest; none when there was no start.
    pub fn longest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Starts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
        let shown = [50, 99, 100].map(|share| at(share).copied().unwrap_or_default().as_millis());
        let [p50, p99, max] = shown;
        write!(f, "{} starts, ready after p50 {p50} ms, p99 {p99} ms, at most {max} ms", sorted.len())
    }
}

/// A loopback address of its own: no other program's connection takes its ports while the collector is away, nor can a
/// client that tries again and again connect to itself, as happens at 127.0.0.1.
pub fn loopback(dice: &mut Dice) -> String {
    let pid = std::process::id();
    let part = |shift: u32| u8::try_from(pid >> shift & 0xff).unwrap_or(1);
    let last = u8::try_from(1 + dice.below(250)).unwrap_or(1);
    Ipv4Addr::new(127, 1 + part(8) % 254, part(0), last).to_string()
}

/// An end that is not ours: the program gave up.
fn by_itself(status: ExitStatus) -> bool {
    status.signal() != Some(Signal::SIGKILL as i32)
}

/// The last lines of a log.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
