//! Cuts the power of a collector's and of an agent's disk again and again, and compares what was promised with what is
//! there. Needs root, loop devices and ext4.

use std::time::Instant;

use anyhow::ensure;
use clap::Parser;
use tocsin_tests::blow::can_trace;
use tocsin_tests::powercut;
use tocsin_tests::volume::can_mount;

/// Cuts of one site: an image has room for the data of about so many.
const ROUND: usize = 100;

/// Cuts the power of disks again and again: TOCSIN_PROGRAMS names the directory of the programs.
#[derive(Parser)]
#[command(after_help = "Examples:
  powercut --cuts 1000 --agent-cuts 200
  powercut --cuts 10 --agent-cuts 0 --seed 7")]
struct Arguments {
    /// Cuts of a collector's disk.
    #[arg(long, default_value_t = 100)]
    cuts: usize,
    /// Cuts of an agent's disk.
    #[arg(long, default_value_t = 50)]
    agent_cuts: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { cuts, agent_cuts, seed } = Arguments::parse();
    ensure!(can_mount(), "nothing can be cut here");
    let traced = can_trace();
    for (round, first) in (0..cuts).step_by(ROUND).enumerate() {
        let (begun, seed, cuts) = (Instant::now(), seed + round as u64, ROUND.min(cuts - first));
        let (counts, starts) = powercut::collector(cuts, seed, traced).await?;
        let seconds = begun.elapsed().as_secs();
        println!("collector: {cuts} cuts with seed {seed} in {seconds} s; kept: {counts}; {starts}");
    }
    for (round, first) in (0..agent_cuts).step_by(ROUND).enumerate() {
        let (begun, seed, cuts) = (Instant::now(), seed + round as u64, ROUND.min(agent_cuts - first));
        let (jobs, starts) = powercut::agent(cuts, seed).await?;
        let seconds = begun.elapsed().as_secs();
        println!("agent: {cuts} cuts with seed {seed} in {seconds} s; kept: {jobs} outcomes; {starts}");
    }
    Ok(())
}
