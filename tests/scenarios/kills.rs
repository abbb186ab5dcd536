//! Programs that are killed again and again, at random moments and at their own system calls: whatever was promised to
//! anybody outside of them is kept. The long forms are `sweep` and `powercut`.

use std::time::Duration;

use tocsin_proto::pb;
use tocsin_tests::blow::can_trace;
use tocsin_tests::powercut;
use tocsin_tests::site::{SOON, Site};
use tocsin_tests::sweep::{Restarts, Sweep, agents::ready, kill_agents, kill_collector, restarts};
use tocsin_tests::volume::can_mount;

use crate::RULES;

/// How often each test kills; with the others of this file some minutes on two cores.
const KILLS: usize = 200;
const AGENT_KILLS: usize = 300;
const CUTS: usize = 60;
const AGENT_CUTS: usize = 40;
const RESTARTS: usize = 20;
/// A start after a kill, with the data of a short run, on a busy machine. As much as a gigabyte of journal may take.
const START_WITHIN: Duration = Duration::from_secs(5);

/// Another one for each run, and printed.
fn seed() -> u64 {
    let seed = std::env::var("TOCSIN_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}: TOCSIN_SEED={seed} draws the same");
    seed
}

// Cases: C1, C14, S23, F1, F2, R16, C-D2, C-S1, C-S3, C-I1, C-F1, C-F2
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_killed_again_and_again_keeps_every_promise() -> anyhow::Result<()> {
    let sweep = Sweep { kills: KILLS, seed: seed(), traced: can_trace() };
    let (counts, starts) = kill_collector(sweep, Duration::from_millis(250)).await?;
    println!("{KILLS} kills; kept: {counts}; {starts}");
    assert!(counts.transitions > 200 && counts.acts > 0 && counts.outcomes > 0, "too little was promised");
    assert!(starts.longest() < START_WITHIN, "{starts}");
    Ok(())
}

// Cases: S1, S23, P1, C14, S17, C-A1
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_killed_again_and_again_lose_no_outcome() -> anyhow::Result<()> {
    let sweep = Sweep { kills: AGENT_KILLS, seed: seed(), traced: can_trace() };
    let (jobs, starts) = kill_agents(sweep, 8).await?;
    println!("{AGENT_KILLS} kills; kept: {jobs} outcomes; {starts}");
    assert!(jobs > 100, "too little was promised");
    assert!(starts.longest() < START_WITHIN, "{starts}");
    Ok(())
}

// Cases: C2, C6, F2, C-D1, C-S3
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_that_a_collector_promised() -> anyhow::Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (counts, starts) = powercut::collector(CUTS, seed(), can_trace()).await?;
    println!("{CUTS} cuts; kept: {counts}; {starts}");
    assert!(starts.longest() < START_WITHIN, "{starts}");
    Ok(())
}

// Cases: S2, S9, P1, C-A1
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_no_outcome_that_an_agent_or_the_drop_box_took() -> anyhow::Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let (jobs, starts) = powercut::agent(AGENT_CUTS, seed()).await?;
    println!("{AGENT_CUTS} cuts; kept: {jobs} outcomes; {starts}");
    assert!(jobs > AGENT_CUTS && starts.longest() < START_WITHIN, "{jobs} jobs, {starts}");
    Ok(())
}

// Cases: C15, C14, C-S1
#[tokio::test(flavor = "multi_thread")]
async fn restarts_with_two_hundred_firing_alerts_page_nobody_again() -> anyhow::Result<()> {
    let (counts, starts) = restarts(Restarts { restarts: RESTARTS, seed: seed() }).await?;
    println!("{RESTARTS} restarts; kept: {counts}; {starts}");
    assert_eq!(counts.transitions, 201, "each alert and the silent host's once, and none is resolved");
    Ok(())
}

// Cases: C17, S18
#[tokio::test(flavor = "multi_thread")]
async fn two_on_one_directory_are_refused_and_a_killed_one_leaves_no_lock() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let mut host = site.host("db-1", pb::Env::Test).await?;
    host.start_agent()?;
    ready(&mut host).await?;
    for _ in 0..2 {
        let second = site.second_collector()?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success() && said.contains("in use"), "{}: {said}", second.status);
        let second = host.second_agent()?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success() && said.contains("in use"), "{}: {said}", second.status);

        site.kill_collector()?;
        host.kill_agent()?;
        site.start_collector().await?;
        host.start_agent()?;
        ready(&mut host).await?;
    }
    let job = host.job("after", &["true"])?;
    assert!(job.status.success());
    let feed = tocsin_tests::feed::Feed::follow(site.credential_file());
    feed.wait_for("job.succeeded", SOON, |_| true).await?;
    Ok(())
}
