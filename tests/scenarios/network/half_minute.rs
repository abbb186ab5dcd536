//! Faults that only time reveals: each end notices within half a minute that the other is gone, and takes nobody for
//! gone that is only slow.

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tocsin_tests::chaos::{How, Line, Way};
use tokio::sync::watch;
use tokio::time::sleep;

use super::packets::Filter;
use super::*;
use crate::RULES;

/// Keep-alive pings every 10 s, answered within 20 s; and what this machine may be late.
const NOTICED: Duration = Duration::from_secs(35);
/// Then the agent waits before it connects again: little, for it was not connected for long and failed once.
const BACK_AGAIN: Duration = Duration::from_secs(45);
/// Outcomes on a link of 64 kbit/s.
const OUTCOME: Duration = Duration::from_secs(5);
const NARROW: Line = Line {
    flow: tocsin_tests::chaos::Flow::Forward,
    latency: Duration::ZERO,
    jitter: Duration::ZERO,
    rate: Some(8_000),
};

fn signal(pid: Option<u32>, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid.context("it does not run")?)?;
    Ok(kill(Pid::from_raw(pid), signal)?)
}

/// A host that runs and has sent its first rows.
async fn running(site: &Site, name: &str, line: Line) -> anyhow::Result<(Host, Chaos)> {
    let (mut host, chaos) = behind(site, name).await?;
    chaos.set_both(line);
    host.start_agent()?;
    rows_after(site, name, 0, 2).await?;
    Ok((host, chaos))
}

/// Cases N3, N4, N2: one way or both of a connection lead nowhere, and nobody says so.
async fn stranded(site: &Site, feed: &Feed, name: &str, ways: &[Way]) -> anyhow::Result<()> {
    let (_host, chaos) = running(site, name, Line::default()).await?;
    ways.iter().for_each(|way| chaos.strand(*way));
    let begun = Instant::now();
    wait_until(&format!("{name} again"), BACK_AGAIN, async || (chaos.reached() == 2).then_some(())).await?;
    println!("{name}: connected again after {:.1} s", begun.elapsed().as_secs_f64());
    whole(site, name).await?;
    // Where nothing came up, the host was unreachable, once; where it did, it never was.
    let expected = usize::from(ways.contains(&Way::Up));
    let resolved = wait_until("the end of it", SOON, async || {
        (times(feed, UNREACHABLE, name) == (expected, expected)).then_some(())
    });
    resolved.await.with_context(|| format!("{name}: {:?}", times(feed, UNREACHABLE, name)))
}

/// Cases N4, N17: the agent stands still; the collector closes, and the host is called unreachable once.
async fn frozen(site: &Site, feed: &Feed) -> anyhow::Result<()> {
    let (host, chaos) = running(site, "frozen", Line::default()).await?;
    signal(host.pid(), Signal::SIGSTOP)?;
    let begun = Instant::now();
    wait_until("the collector's end of it", NOTICED, async || (chaos.open() == 0).then_some(())).await?;
    println!("frozen: closed by the collector after {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(times(feed, UNREACHABLE, "frozen"), (1, 0));
    let woken = now_ms();
    signal(host.pid(), Signal::SIGCONT)?;
    rows_after(site, "frozen", woken, 3).await?;
    feed.wait_for("alert.resolved", SOON, alert(UNREACHABLE, "frozen")).await?;
    assert_eq!(times(feed, UNREACHABLE, "frozen"), (1, 1));
    // It measured nothing while it stood, and it does not make up for it: one gap, no burst after it.
    let points = stored(site, "frozen").await?;
    assert_eq!(gaps(&points).len(), 1, "{:?}", gaps(&points));
    assert!(points.keys().all(|at| at % TICK_MS == 0), "on the grid");
    Ok(())
}

/// Case N7: far away, and now this long, now that.
async fn far(site: &Site, feed: &Feed, mut ended: watch::Receiver<bool>) -> anyhow::Result<()> {
    let (latency, jitter) = (Duration::from_millis(700), Duration::from_millis(300));
    let (_host, chaos) = running(site, "far", Line { latency, jitter, ..Line::default() }).await?;
    ended.wait_for(|ended| *ended).await?;
    whole(site, "far").await?;
    let newest = stored(site, "far").await?.keys().next_back().copied().unwrap_or(0);
    assert!(now_ms() - newest < 6_000, "live rows are {} ms old", now_ms() - newest);
    assert_eq!((chaos.accepted(), times(feed, UNREACHABLE, "far")), (1, (0, 0)));
    Ok(())
}

/// Case N8: 64 kbit/s. An outcome is there in 5 s, also while all that an outage kept comes after it.
async fn narrow(site: &Site, feed: &Feed) -> anyhow::Result<()> {
    let (host, chaos) = running(site, "narrow", NARROW).await?;
    outcome(&host, feed, "steady").await?;
    chaos.end_all(How::Reset);
    wait_until("a new connection", BACK_AGAIN, async || (chaos.reached() == 2).then_some(())).await?;
    let newest = || async { stored(site, "narrow").await.ok()?.keys().next_back().copied() };
    let before = newest().await.unwrap_or(0);
    wait_until("rows again", BACK, async || newest().await.filter(|at| *at > before)).await?;
    outcome(&host, feed, "backlog").await?;
    whole(site, "narrow").await?;
    assert_eq!(times(feed, UNREACHABLE, "narrow"), (0, 0));
    Ok(())
}

async fn outcome(host: &Host, feed: &Feed, job: &str) -> anyhow::Result<()> {
    let ended = Instant::now();
    host.job(job, &["false"])?;
    let of_job =
        |event: &Received| event.alert().is_some_and(|alert| label(&alert.labels, "job_name") == Some(job));
    feed.wait_for("alert.triggered", BACK, of_job).await?;
    println!("narrow: {job} is known after {:.1} s", ended.elapsed().as_secs_f64());
    anyhow::ensure!(ended.elapsed() < OUTCOME, "{job}: an outcome took {:?}", ended.elapsed());
    Ok(())
}

/// Case N9: two seconds up, two seconds down.
async fn flapping(site: &Site) -> anyhow::Result<()> {
    let (_host, chaos) = running(site, "flapping", Line::default()).await?;
    let (reached, begun) = (chaos.reached(), Instant::now());
    let two = Duration::from_secs(2);
    chaos.flap(two, two, two * 12).await;
    let handshakes = chaos.reached() - reached;
    let most = begun.elapsed().as_secs() / 10 + 1;
    assert!(handshakes <= most, "{handshakes} handshakes in {} s", begun.elapsed().as_secs());
    println!("flapping: {handshakes} handshakes in {} s", begun.elapsed().as_secs());
    whole(site, "flapping").await
}

/// Case N6: three packets of ten are lost on each way.
async fn lossy(site: &Site, feed: &Feed, mut ended: watch::Receiver<bool>) -> anyhow::Result<()> {
    let (_host, chaos) = running(site, "lossy", Line::default()).await?;
    let loss = Filter::drop_at(&chaos.address(), "numgen random mod 100 < 30")?;
    let (begun, since) = (Instant::now(), now_ms());
    rows_after(site, "lossy", since, 5).await?;
    ended.wait_for(|ended| *ended).await?;
    let seconds = begun.elapsed().as_secs();
    assert!(chaos.accepted() <= 2 + seconds / 20, "{} connections in {seconds} s", chaos.accepted());
    drop(loss);
    whole(site, "lossy").await?;
    println!("lossy: {} connections, unreachable {:?}", chaos.accepted(), times(feed, UNREACHABLE, "lossy"));
    Ok(())
}

/// Case N14: small packets pass and large ones vanish, as where somebody forgets to say how large they may be.
async fn small_packets(site: &Site) -> anyhow::Result<()> {
    let (host, chaos) = running(site, "small-packets", Line::default()).await?;
    let Some(hole) = Filter::drop_at(&chaos.address(), "ip length > 400")? else { return Ok(()) };
    let before = host.log()?.len();
    host.set("scenario_other", 1.0)?; // A new series: the next table is a large message.
    let begun = Instant::now();
    let left = wait_until("an agent that leaves", NOTICED, async || {
        let log = host.log().ok()?;
        log.get(before..)?.lines().find(|line| line.contains("not connected")).map(str::to_owned)
    });
    let left = left.await?;
    println!("small packets: left after {:.1} s: {left}", begun.elapsed().as_secs_f64());
    drop(hole);
    whole(site, "small-packets").await
}

/// Case N5: a middlebox forgets connections that are idle for 15 s. The host has nothing to say for a minute.
async fn idle() -> anyhow::Result<()> {
    let site = Site::start_with(RULES, "heartbeat = \"60s\"\n").await?;
    let (mut host, chaos) = behind(&site, "idle").await?;
    host.configure(|config| config.replace("interval = \"1s\"", "interval = \"60s\""))?;
    chaos.end_idle(Some(Duration::from_secs(15)));
    host.start_agent()?;
    wait_until("a connection", SOON, async || (chaos.reached() == 1).then_some(())).await?;
    let begun = Instant::now();
    let kept = wait_until("40 s of a connection", BACK, async || {
        (chaos.accepted() > 1 || begun.elapsed() > Duration::from_secs(40)).then_some(chaos.accepted())
    });
    assert_eq!(kept.await?, 1, "the connection was kept alive: {}", host.log()?);
    Ok(())
}

/// Cases N15, N16, N18: the collector is slow for some seconds, and nobody minds; it stands still for longer than
/// agents wait, and blames nobody for what it did not see.
async fn standstill() -> anyhow::Result<()> {
    let site = Site::start_with(RULES, "heartbeat = \"1s\"\n").await?;
    let feed = Feed::follow(site.credential_file());
    let (_host, chaos) = running(&site, "db-1", Line::default()).await?;
    for (stands, connections) in [(8, 1), (33, 3)] {
        signal(site.pid(), Signal::SIGSTOP)?;
        sleep(Duration::from_secs(stands)).await; // The fault itself, not a wait for anything.
        signal(site.pid(), Signal::SIGCONT)?;
        whole(&site, "db-1").await?;
        assert!(chaos.accepted() <= connections, "{} connections", chaos.accepted());
        assert_eq!(feed.of_kind("host.unreachable").len(), 0, "after {stands} s: {}", site.log()?);
    }
    assert!(site.log()?.contains("the collector stood still"), "{}", site.log()?);
    Ok(())
}

// Cases: N2, N3, N4, N5, N6, N7, N8, N9, N14, N15, N16, N17, C-A8, C-D2, C-S4
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_noticed_in_half_a_minute_and_what_is_slow_is_waited_for() -> anyhow::Result<()> {
    // With the usual heartbeat: what is slow must not be taken for silent.
    let site = Site::start_with(RULES, "heartbeat = \"5s\"\n").await?;
    let feed = Feed::follow(site.credential_file());
    let (end, ended) = watch::channel(false);
    let (both, up, down) = ([Way::Up, Way::Down], [Way::Up], [Way::Down]);
    let faults = async {
        let done = tokio::try_join!(
            stranded(&site, &feed, "half-open", &both),
            stranded(&site, &feed, "up-lost", &up),
            stranded(&site, &feed, "down-lost", &down),
            frozen(&site, &feed),
            narrow(&site, &feed),
            flapping(&site),
            small_packets(&site),
        );
        end.send_replace(true);
        done
    };
    let during =
        async { tokio::try_join!(far(&site, &feed, ended.clone()), lossy(&site, &feed, ended.clone())) };
    tokio::try_join!(faults, during, idle(), standstill())?;
    Ok(())
}
