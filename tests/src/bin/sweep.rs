//! Kills a collector, and agents, again and again under load, and compares what was promised with what is there.

use std::time::{Duration, Instant};

use clap::Parser;
use tocsin_tests::blow::can_trace;
use tocsin_tests::promises::Counts;
use tocsin_tests::sweep::{Restarts, Starts, Sweep, kill_agents, kill_collector, restarts};

/// Kills of one site: each begins with little data, so that a start is a tenth of a second and not most of the run.
const ROUND: usize = 250;

/// Kills a collector, and agents, again and again under load: TOCSIN_PROGRAMS names the directory of the programs.
#[derive(Parser)]
#[command(after_help = "Examples:
  sweep --kills 5000
  sweep --kills 200 --agents 0 --seed 7
  sweep --kills 0 --agents 0 --restarts 1000")]
struct Arguments {
    /// Kills of a collector.
    #[arg(long, default_value_t = 250)]
    kills: usize,
    /// Kills of agents, eight at a time.
    #[arg(long, default_value_t = 250)]
    agents: usize,
    /// Restarts with two hundred alerts that fire.
    #[arg(long, default_value_t = 0)]
    restarts: usize,
    /// How long a collector lives at most, in milliseconds.
    #[arg(long, default_value_t = 400)]
    longest_ms: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { kills, agents, restarts: again, longest_ms, seed } = Arguments::parse();
    let traced = can_trace();
    let longest = Duration::from_millis(longest_ms);
    let (mut counts, mut starts, begun) = (Counts::default(), Starts::default(), Instant::now());
    for (round, first) in (0..kills).step_by(ROUND).enumerate() {
        let sweep = Sweep { kills: ROUND.min(kills - first), seed: seed + round as u64, traced };
        println!("collector: {} kills with seed {}", sweep.kills, sweep.seed);
        let (of_round, starts_of_round) = kill_collector(sweep, longest).await?;
        println!("  kept: {of_round}; {starts_of_round}");
        counts += of_round;
        starts.extend(starts_of_round);
    }
    if kills > 0 {
        println!("collector: {kills} kills in {} s; kept: {counts}; {starts}", begun.elapsed().as_secs());
    }
    for (round, first) in (0..agents).step_by(ROUND).enumerate() {
        let (begun, seed) = (Instant::now(), seed + round as u64);
        let sweep = Sweep { kills: ROUND.min(agents - first), seed, traced };
        let (jobs, starts) = kill_agents(sweep, 8).await?;
        let seconds = begun.elapsed().as_secs();
        println!(
            "agents: {} kills with seed {seed} in {seconds} s; kept: {jobs} outcomes; {starts}",
            sweep.kills
        );
    }
    if again > 0 {
        let begun = Instant::now();
        let (counts, starts) = restarts(Restarts { restarts: again, seed }).await?;
        println!("restarts: {again} in {} s; kept: {counts}; {starts}", begun.elapsed().as_secs());
    }
    Ok(())
}
