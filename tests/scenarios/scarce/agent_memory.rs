//! An agent whose memory is limited as its unit says, and one that the kernel ends for it.

use std::fmt::Write as _;

use tocsin_tests::memory_group::MemoryGroup;

use super::*;

/// `MemoryMax=` of the agent's unit.
const UNIT_BYTES: u64 = 96 << 20;
/// Series of a text file: a host with many file systems, containers and queues.
const SERIES: usize = 4_000;
/// What is given to an agent that is to be ended, beyond what it has.
const LITTLE: u64 = 256 << 10;

/// A text file of a host that grows out of all bounds.
fn flood(series: usize) -> String {
    (0..series).fold(String::new(), |mut text, number| {
        writeln!(text, "flood{{number=\"{number}\",text=\"{}\"}} {number}", "x".repeat(80)).ok();
        text
    })
}

// Cases: S17, C-A1, C-A4, S23
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_ended_for_its_memory_loses_no_outcome() -> anyhow::Result<()> {
    let Some(group) = MemoryGroup::with_limit(UNIT_BYTES)? else { return Ok(()) };
    let mut site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.write_textfile("many.prom", &flood(SERIES))?;
    host.start_agent_under(&group.under())?;
    wait_until("rows", SOON, async || (rows(&site).await >= 5).then_some(())).await?;
    // It spools, it reports, and stays within what its unit gives it.
    site.kill_collector()?;
    for job in 0..20 {
        assert_eq!(host.job(&format!("kept-{job}"), &["false"])?.status.code(), Some(1));
    }
    let peak = group.peak()?;
    println!("the agent took {} MiB at most", peak >> 20);
    assert!(peak < UNIT_BYTES, "the agent took {peak} bytes");

    group.set_limit((group.used()? + LITTLE).next_multiple_of(4096))?;
    host.write_textfile("flood.prom", &flood(100_000))?;
    let ended = wait_until("an agent that is ended", SOON * 2, async || {
        host.agent().ok()?.still_runs().is_err().then_some(())
    });
    ended.await.with_context(|| format!("{} bytes are used", group.used().unwrap_or(0)))?;
    let how = host.end_agent()?;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&how), Some(9), "{how}");
    // A job that ends meanwhile is told by the drop-box.
    assert_eq!(host.job("meanwhile", &["false"])?.status.code(), Some(1));
    group.set_limit(UNIT_BYTES)?;
    host.write_textfile("flood.prom", "")?;
    host.start_agent_under(&group.under())?;
    site.start_collector().await?;
    for job in (0..20).map(|job| format!("kept-{job}")).chain(["meanwhile".to_owned()]) {
        feed.wait_for("alert.triggered", SOON * 2, |event| is_of_job(event, &job)).await?;
    }
    assert_eq!(feed.of_kind("job.failed").len(), 21, "each once");
    let before = rows(&site).await;
    wait_until("rows again", SOON, async || (rows(&site).await > before).then_some(())).await?;
    host.kill_agent()?;
    Ok(())
}
