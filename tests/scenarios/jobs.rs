//! A job that fails is an incident; its next success ends it. The job itself notices nothing.

use tocsin_proto::pb;
use tocsin_tests::feed::Feed;
use tocsin_tests::site::{SOON, Site};

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
