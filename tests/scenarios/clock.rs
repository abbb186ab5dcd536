//! Wall clocks that are set while everything runs: the collector's time goes on, a host's is not followed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tocsin_proto::pb;
use tocsin_tests::feed::{Feed, Received};
use tocsin_tests::process;
use tocsin_tests::site::{Host, SOON, Site, text};
use tocsin_tests::wait::wait_until;
use tocsin_tests::wall::{DAY, Wall, YEAR};

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// How long the rule waits.
const FOR: Duration = Duration::from_secs(3);
const RULES: &str = r#"
groups:
  - name: scenario
    rules:
      - alert: Breached
        expr: scenario_breach > 0
        for: 3s
        labels: {severity: critical}
      - alert: Slow
        expr: scenario_slow > 0
        for: 20s
        labels: {severity: critical}
"#;

fn now_ms() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Names of alerts that fire, with their instances.
async fn firing(site: &Site) -> anyhow::Result<Vec<(String, String)>> {
    let alerts = site.api.alerts().list_alerts(pb::ListAlertsRequest::default()).await?.into_inner().alerts;
    let label = |alert: &pb::Alert, name: &str| {
        let pair = alert.labels.iter().find(|label| label.name == name);
        pair.map(|label| label.value.clone()).unwrap_or_default()
    };
    let firing = alerts.iter().filter(|alert| alert.condition() == pb::Condition::Firing);
    Ok(firing.map(|alert| (label(alert, "alertname"), label(alert, "instance"))).collect())
}

// Cases: T1, T2, T3, T5
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_whose_clock_is_set_goes_on_counting() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(wall) = Wall::new(dir.path())? else { return Ok(()) };
    let site = Site::start_in(RULES, "", wall.environment()).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    wait_until("rows", SOON, async || {
        site.api.stored("scenario_breach[1m]").await.ok().filter(|points| points.len() > 2)
    })
    .await?;
    type Set = fn(&Wall) -> anyhow::Result<()>;
    let cases: [(&str, Set); 6] = [
        ("an hour back", |wall| wall.set(-HOUR_MS)),
        ("an hour ahead", |wall| wall.set(HOUR_MS)),
        ("a strobe", |wall| wall.strobe(4_000, 100)),
        ("1970", Wall::die),
        ("forty years ahead", |wall| wall.set(40 * millis(YEAR))),
        ("right again", |wall| wall.set(0)),
    ];
    for (at, (name, set)) in cases.iter().enumerate() {
        host.set("scenario_breach", 1.0)?;
        let pending = wait_until("the breach in a row", SOON, async || {
            let points = site.api.stored("scenario_breach[1m]").await.ok()?;
            points.last().filter(|point| point.value > 0.0).map(|_| Instant::now())
        });
        let pending = pending.await?;
        set(&wall)?; // While the rule waits.
        let triggered = async || (feed.of_kind("alert.triggered").len() > at).then_some(());
        wait_until(&format!("the alert with {name}"), SOON, triggered).await?;
        let waited = pending.elapsed();
        assert!(waited + Duration::from_secs(1) >= FOR, "{name}: fired after {waited:?}");
        host.set("scenario_breach", 0.0)?;
        let resolved = async || (feed.of_kind("alert.resolved").len() > at).then_some(());
        wait_until(&format!("the end of the alert with {name}"), SOON, resolved).await?;
    }
    for (kind, count) in [
        ("alert.triggered", cases.len()),
        ("alert.resolved", cases.len()),
        ("host.unreachable", 0),
        ("host.clock_step", 0),
    ] {
        assert_eq!(feed.of_kind(kind).len(), count, "{kind}");
    }
    let points = site.api.stored("scenario_breach[5m]").await?;
    let late = points.windows(2).filter(|pair| pair[1].at_ms - pair[0].at_ms > 3_000);
    assert_eq!(late.count(), 0, "rows went on: {points:?}");
    Ok(())
}

// Cases: T2
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_ahead_is_followed_and_no_wait_ends_early_or_begins_anew() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(wall) = Wall::new(dir.path())? else { return Ok(()) };
    let site = Site::start_in(RULES, "", wall.environment()).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_slow", 1.0)?;
    host.start_agent()?;
    let rows = async || site.api.stored("scenario_slow[1m]").await.ok().filter(|points| !points.is_empty());
    wait_until("the first row", SOON, rows).await?;
    let pending = Instant::now();
    wall.set(10 * MINUTE_MS)?;
    feed.wait_for("host.clock_step", 2 * SOON, |_| true).await?; // Followed when it has held still for 10 s.
    assert!(pending.elapsed() < Duration::from_secs(19), "while the rule waits");
    let is_slow = |received: &Received| {
        let alert = received.alert();
        alert.is_some_and(|alert| alert.labels.iter().any(|label| label.value == "Slow"))
    };
    feed.wait_for("alert.triggered", 2 * SOON, is_slow).await?;
    let waited = pending.elapsed();
    assert!((18..25).contains(&waited.as_secs()), "neither early nor anew: {waited:?}");
    let (ahead, now) = (rows().await.and_then(|points| points.last().map(|last| last.at_ms)), now_ms()?);
    let ahead = ahead.map_or(0, |at| at - now);
    assert!((ahead - 10 * MINUTE_MS).abs() < 3_000, "rows follow the collector's clock: {ahead}");
    let slow = feed.of_kind("alert.triggered").iter().filter(|received| is_slow(received)).count();
    assert_eq!((slow, feed.of_kind("host.unreachable").len()), (1, 0));
    Ok(())
}

// Cases: T1, T3
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_starts_with_a_dead_clock_takes_rows_and_issues_nothing() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(wall) = Wall::new(dir.path())? else { return Ok(()) };
    let mut site = Site::start_in(RULES, "", wall.environment()).await?;
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    let newest = async |after: i64| {
        wait_until("a younger row", SOON, async || {
            let points = site.api.stored("scenario_breach[10m]").await.ok()?;
            points.last().map(|point| point.at_ms).filter(|at| *at > after)
        })
        .await
    };
    let before = newest(0).await?;
    site.kill_collector()?;
    wall.die()?;
    site.start_collector().await?;
    let newest = async |after: i64| {
        wait_until("a younger row", 2 * SOON, async || {
            let points = site.api.stored("scenario_breach[10m]").await.ok()?;
            points.last().map(|point| point.at_ms).filter(|at| *at > after)
        })
        .await
    };
    newest(before + 3_000).await?;
    let status = site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner();
    assert!(status.problems.iter().any(|line| line.contains("clock says 1970-01-01")), "{status:?}");
    let refused = site.host("db-2", pb::Env::Prod).await.err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|why| why.contains("issues no certificates")), "{refused:?}");
    wall.set(0)?;
    wait_until("certificates again", 2 * SOON, async || site.host("db-3", pb::Env::Prod).await.ok()).await?;
    assert!((newest(before + 5_000).await? - now_ms()?).abs() < 10_000, "the time is right again");
    assert_eq!(firing(&site).await?, []);
    Ok(())
}

// Cases: T3
#[tokio::test(flavor = "multi_thread")]
async fn no_authority_is_made_by_a_dead_clock() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(wall) = Wall::new(dir.path())? else { return Ok(()) };
    wall.die()?;
    let mut command = std::process::Command::new(process::program("tocsin-collector")?);
    let data = dir.path().join("data");
    let config = dir.path().join("collector.toml");
    let any = "127.0.0.1:0";
    std::fs::write(&config, format!("[listen]\nfront = {any:?}\nagents = {any:?}\nlocal = {any:?}\n"))?;
    command.args(["run", "--config", text(&config)?, "--data", text(&data)?]).envs(wall.environment());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("clock says 1970-01-01"), "{said}");
    assert!(!data.join("authority").exists());
    Ok(())
}

// Cases: T4, T5, T8, S22
#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_wrong_clock_is_heard_at_the_right_time_and_told() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let site = Site::start(RULES).await?;
    type Set = fn(&Wall) -> anyhow::Result<()>;
    // How the clock is at the start, how it is set later, and whether that is worth an alert.
    let cases: [(&str, Set, Set, bool); 7] = [
        ("right", |wall| wall.set(0), |wall| wall.set(0), false),
        ("year-behind", |wall| wall.set(-millis(YEAR)), |wall| wall.set(-millis(YEAR)), true),
        ("year-ahead", |wall| wall.set(millis(YEAR)), |wall| wall.set(millis(YEAR)), true),
        ("stepping", |wall| wall.set(0), |wall| wall.set(-10 * MINUTE_MS), true),
        ("mended", |wall| wall.set(millis(DAY)), |wall| wall.set(0), false),
        ("strobing", |wall| wall.strobe(4_000, 100), |wall| wall.strobe(-4_000, 100), false),
        ("dead", Wall::die, Wall::die, true),
    ];
    let mut hosts = Vec::new();
    for (name, begin, later, skewed) in cases {
        let own = dir.path().join(name);
        std::fs::create_dir(&own)?;
        let Some(wall) = Wall::new(&own)? else { return Ok(()) };
        begin(&wall)?;
        let mut host = site.host(name, pb::Env::Prod).await?;
        host.environment = wall.environment();
        host.set("scenario_breach", 0.0)?;
        host.start_agent()?;
        hosts.push((name, host, wall, later, skewed));
    }
    let right_rows = async |name: &str, count: usize| {
        let selector = format!("scenario_breach{{instance={name:?}}}[1m]");
        wait_until(&format!("right rows of {name}"), 2 * SOON, async || {
            let points = site.api.stored(&selector).await.ok()?;
            let fresh =
                points.last().is_some_and(|last| now_ms().is_ok_and(|now| (now - last.at_ms).abs() < 3_000));
            (points.len() >= count && fresh).then_some(points)
        })
        .await
    };
    for (name, ..) in &hosts {
        right_rows(name, 3).await?;
    }
    for (_, _, wall, later, _) in &hosts {
        later(wall)?;
    }
    for (name, host, ..) in &hosts {
        let points = right_rows(name, 10).await?;
        let gaps: Vec<i64> = points.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
        assert!(gaps.iter().all(|gap| (1..3_000).contains(gap)), "{name}: {gaps:?}\n{}", host.log()?);
    }
    let mut want: Vec<&str> = hosts.iter().filter(|(.., skewed)| *skewed).map(|(name, ..)| *name).collect();
    want.sort_unstable();
    wait_until("the alerts of the wrong clocks, and no others", 2 * SOON, async || {
        let mut firing = firing(&site).await.ok()?;
        firing.sort();
        let skewed = firing.iter().all(|(alert, _)| alert == "HostClockSkewed");
        (skewed && firing.iter().map(|(_, host)| host.as_str()).eq(want.iter().copied())).then_some(())
    })
    .await?;
    Ok(())
}

/// Runs a job whose wrapper sees the host's wall clock.
fn run_job(host: &Host, wall: &Wall, name: &str) -> anyhow::Result<()> {
    let mut wrapper = std::process::Command::new(process::program("tocsin-agent")?);
    wrapper.args(["exec", "--job", name, "--report-within", "5s"]);
    let config = host.config_file();
    wrapper.arg("--socket").arg(config.with_file_name("jobs.sock"));
    wrapper.arg("--drop-box").arg(config.with_file_name("drop-box"));
    let status = wrapper.args(["--", "true"]).envs(wall.environment()).status()?;
    assert!(status.success(), "{status}");
    Ok(())
}

// Cases: T4, T7, S22
#[tokio::test(flavor = "multi_thread")]
async fn a_job_before_a_step_of_its_hosts_clock_is_filed_when_it_was() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(wall) = Wall::new(dir.path())? else { return Ok(()) };
    let mut site = Site::start(RULES).await?;
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.environment = wall.environment();
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    let rows = async || site.api.stored("scenario_breach[1m]").await.ok().filter(|points| !points.is_empty());
    wait_until("the first row", SOON, rows).await?;
    site.kill_collector()?;
    let ran = now_ms()?;
    run_job(&host, &wall, "before")?;
    wall.set(10 * MINUTE_MS)?; // While its record waits in the spool.
    run_job(&host, &wall, "after")?;
    site.start_collector().await?;
    for name in ["before", "after"] {
        let what = format!("the end of {name}");
        let ended = wait_until(&what, 2 * SOON, async || {
            let request = pb::ListRunsRequest { job_name: name.into(), limit: 0 };
            let runs = site.api.jobs().list_runs(request).await.ok()?.into_inner().runs;
            runs.first().map(|run| run.ended_at_ms).filter(|at| *at > 0)
        });
        let off = ended.await? - ran;
        assert!(off.abs() < 5_000, "{name} is filed {off} ms off");
    }
    Ok(())
}
