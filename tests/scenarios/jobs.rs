//! A job that fails is an incident; its next success ends it. The job itself notices nothing.

use std::process::{Child, Command};
use std::time::Duration;

use tocsin_proto::pb;
use tocsin_tests::feed::Feed;
use tocsin_tests::process;
use tocsin_tests::site::{Host, SOON, Site};
use tocsin_tests::wait::wait_until;

use crate::RULES;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_an_incident_until_it_succeeds() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("batch-1", pb::Env::Prod).await?;
    host.start_agent()?;
    feed.wait_for("host.online", SOON, |_| true).await?;

    let failed = host.job("nightly", &["sh", "-c", "echo the disk is full; exit 3"])?;
    assert_eq!(failed.status.code(), Some(3), "the job's own exit status");
    assert_eq!(failed.stdout, b"the disk is full\n", "the job's own output");
    assert_eq!(failed.stderr, b"");
    let triggered = feed.wait_for("incident.triggered", SOON, |_| true).await?;
    let incident = triggered.incident().unwrap();
    let job = incident.labels.iter().find(|label| label.name == "job_name").map(|label| label.value.as_str());
    assert_eq!(job, Some("nightly"), "{:?}", incident.labels);

    let request = pb::ListRunsRequest { job_name: "nightly".into(), limit: 0 };
    let runs = site.api.jobs().list_runs(request).await?.into_inner().runs;
    let run_id = runs[0].run_id.clone();
    let run = site.api.jobs().get_run(pb::GetRunRequest { run_id }).await?.into_inner().run.unwrap();
    assert!(run.output_tail.contains("the disk is full"), "{:?}", run.output_tail);
    let failed = pb::run_result::Kind::Failed(pb::run_result::Failed { exit_code: 3 });
    assert_eq!(run.result.and_then(|result| result.kind), Some(failed));

    let succeeded = host.job("nightly", &["true"])?;
    assert!(succeeded.status.success());
    feed.wait_for("alert.resolved", SOON, |_| true).await?;
    let number = incident.number;
    let resolved = feed.wait_for("incident.resolved", SOON, |received| {
        received.incident().is_some_and(|incident| incident.number == number)
    });
    let resolution = resolved.await?.incident().and_then(|incident| incident.resolution.clone()).unwrap();
    assert_eq!(resolution.code, "auto");
    assert_eq!(feed.of_kind("job.failed").len(), 1);
    assert_eq!(feed.of_kind("job.succeeded").len(), 1);
    Ok(())
}

// Cases: P1
#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_did_while_the_agent_was_away_is_told_later() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("batch-1", pb::Env::Prod).await?;
    host.start_agent()?;
    feed.wait_for("host.online", SOON, |_| true).await?;
    host.stop_agent().await?;
    let failed = host.job("nightly", &["sh", "-c", "exit 4"])?;
    assert_eq!(failed.status.code(), Some(4));
    host.start_agent()?;
    feed.wait_for("job.failed", SOON, |_| true).await?;
    Ok(())
}

/// A run that is noticed to be over without an outcome: two looks into the drop-box, five seconds apart.
const NOTICED: Duration = Duration::from_secs(30);

/// A job that goes on until it is killed; its wrapper.
fn long_job(host: &Host, name: &str) -> anyhow::Result<Child> {
    let config = host.config_file();
    let mut wrapper = Command::new(process::program("tocsin-agent")?);
    wrapper.args(["exec", "--job", name]);
    wrapper.arg("--socket").arg(config.with_file_name("jobs.sock"));
    wrapper.arg("--drop-box").arg(config.with_file_name("drop-box"));
    Ok(wrapper.args(["--", "sleep", "600"]).spawn()?)
}

/// Kills a wrapper so that it can tell nothing, and then its job.
fn kill_both(mut wrapper: Child) -> anyhow::Result<()> {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", wrapper.id()))?;
    wrapper.kill()?;
    wrapper.wait()?;
    for job in children.split_ascii_whitespace() {
        Command::new("kill").args(["-KILL", job]).status()?;
    }
    Ok(())
}

// Cases: P2
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nobody_can_tell_about_any_more_is_interrupted() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let mut host = site.host("batch-1", pb::Env::Prod).await?;
    host.start_agent()?;
    let kind = async |name: &str| {
        let request = pb::ListRunsRequest { job_name: name.into(), limit: 0 };
        let runs = site.api.jobs().list_runs(request).await.ok()?.into_inner().runs;
        runs.first()?.result.clone()?.kind
    };
    let running = async |name: &str| {
        wait_until("a running job", SOON, async || {
            matches!(kind(name).await?, pb::run_result::Kind::Running(_)).then_some(())
        })
        .await
    };
    wait_until("the job socket", SOON, async || {
        host.config_file().with_file_name("jobs.sock").exists().then_some(())
    })
    .await?;
    let (seen, unseen) = (long_job(&host, "seen")?, long_job(&host, "unseen")?);
    running("seen").await?;
    running("unseen").await?;
    kill_both(seen)?;
    let interrupted = async |name: &str| {
        wait_until("the interruption", NOTICED, async || match kind(name).await? {
            pb::run_result::Kind::Interrupted(interrupted) => Some(interrupted.reason),
            _ => None,
        })
        .await
    };
    assert_eq!(interrupted("seen").await?, "its wrapper is gone and told no outcome");
    running("unseen").await?;
    host.stop_agent().await?;
    kill_both(unseen)?;
    host.start_agent()?;
    interrupted("unseen").await?;
    Ok(())
}
