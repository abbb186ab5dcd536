//! A new certificate authority: hosts that are there follow it without a break, hosts that are away are not forgotten,
//! and whoever was left behind comes back under the same identity with all that it has kept.

use std::collections::BTreeSet;
use std::time::Duration;

use tocsin_proto::pb;
use tocsin_tests::feed::Feed;
use tocsin_tests::process::output;
use tocsin_tests::site::{Host, SOON, Site, text};
use tocsin_tests::wait::wait_until;
use tonic::{Code, Status};

use crate::RULES;

/// Renewals after the change are spread over a tenth of this, and nobody's certificate runs out meanwhile.
const LIFETIME: &str = "[agents]\ncertificate_lifetime = \"90s\"\n";
/// What an agent waits before it asks why nobody knows it, and what a busy machine adds.
const FOLLOWED: Duration = Duration::from_secs(60);

async fn status(site: &Site) -> Option<pb::AuthorityStatus> {
    site.api.admin().get_authority(pb::GetAuthorityRequest {}).await.ok()?.into_inner().status
}

async fn unreported(site: &Site, expected: &[&str]) -> anyhow::Result<()> {
    wait_until(&format!("that only {expected:?} have not reported"), FOLLOWED, async || {
        (status(site).await?.unreported == expected).then_some(())
    })
    .await
}

async fn to_renew(site: &Site, expected: &[&str]) -> anyhow::Result<()> {
    wait_until(&format!("that only {expected:?} have not renewed"), FOLLOWED, async || {
        (status(site).await?.to_renew == expected).then_some(())
    })
    .await
}

async fn begin(site: &Site) -> anyhow::Result<()> {
    site.api.admin().begin_rotation(pb::BeginRotationRequest {}).await?;
    Ok(())
}

async fn switch(site: &Site, strand: Option<u32>) -> Result<(), Status> {
    site.api.admin().switch_rotation(pb::SwitchRotationRequest { strand }).await.map(drop)
}

async fn finish(site: &Site, strand: Option<u32>) -> Result<(), Status> {
    site.api.admin().finish_rotation(pb::FinishRotationRequest { strand }).await.map(drop)
}

fn refused(step: Result<(), Status>, says: &str) {
    let status = step.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains(says), "{says}: {status}");
}

fn works(host: &Host, job: &str) -> anyhow::Result<()> {
    let ended = host.job(job, &["/bin/true"])?;
    anyhow::ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

/// Waits until the collector knows exactly these jobs of a host, each with one run.
async fn worked(site: &Site, instance: &str, expected: &[&str]) -> anyhow::Result<()> {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    wait_until(&format!("{expected:?} of {instance}"), FOLLOWED, async || {
        let jobs = site.api.jobs().list_jobs(pb::ListJobsRequest {}).await.ok()?.into_inner().jobs;
        let runs: Vec<_> = jobs.into_iter().filter_map(|job| job.last_run).collect();
        let of_host = runs.iter().filter(|run| run.instance == instance);
        (of_host.map(|run| run.job_name.as_str()).collect::<BTreeSet<_>>() == expected).then_some(())
    })
    .await
}

/// Waits until a host streams.
async fn streams(site: &Site, instance: &str) -> anyhow::Result<()> {
    let selector = format!("node_load1{{instance=\"{instance}\"}}[15m]");
    wait_until(&format!("rows of {instance}"), SOON, async || {
        (site.api.stored(&selector).await.ok()?.len() >= 2).then_some(())
    })
    .await
}

async fn agent_of(site: &Site, instance: &str) -> anyhow::Result<String> {
    let hosts = site.api.query().list_hosts(pb::ListHostsRequest::default()).await?.into_inner().hosts;
    let mut hosts = hosts.into_iter().filter_map(|status| status.host);
    let host = hosts.find(|host| host.instance == instance);
    host.map(|host| host.agent).ok_or_else(|| anyhow::anyhow!("{instance} is not known"))
}

/// What `tocsin authority show` says.
fn shown(site: &Site) -> anyhow::Result<String> {
    let credential = site.credential_file();
    let shown = output("tocsin", &["authority", "show", "--credential", text(&credential)?])?;
    anyhow::ensure!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    Ok(String::from_utf8(shown.stdout)?)
}

// Cases: I6, I4
#[tokio::test(flavor = "multi_thread")]
async fn a_new_authority_takes_over_while_hosts_are_away() -> anyhow::Result<()> {
    let mut site = Site::start_with(RULES, LIFETIME).await?;
    let feed = Feed::follow(site.credential_file());
    let mut hosts = Vec::new();
    for name in ["web-1", "web-2", "web-3", "web-4"] {
        let mut host = site.host(name, pb::Env::Prod).await?;
        host.start_agent()?;
        streams(&site, name).await?;
        hosts.push(host);
    }
    let ids = [agent_of(&site, "web-3").await?, agent_of(&site, "web-4").await?];
    unreported(&site, &[]).await?;

    // Begun while three are away. A kill right after the answer changes nothing.
    for host in &mut hosts[1..] {
        host.stop_agent().await?;
    }
    begin(&site).await?;
    site.kill_collector()?;
    site.start_collector().await?;
    begin(&site).await?;
    works(&hosts[0], "begun")?;
    unreported(&site, &["web-2", "web-3", "web-4"]).await?;
    refused(
        switch(&site, None).await,
        "3 of the hosts have not reported that they trust the new authority: web-2",
    );
    hosts[1].start_agent()?;
    unreported(&site, &["web-3", "web-4"]).await?;
    refused(switch(&site, None).await, "web-3, web-4; bring them back or retire them");
    refused(switch(&site, Some(1)).await, "which is 2: web-3, web-4");
    let said = shown(&site)?;
    assert!(said.contains("incoming") && said.contains("2 of 4 hosts not known to trust all"), "{said}");

    // Two are left behind; the others renew without being asked twice, and nothing of their streams ends.
    switch(&site, Some(2)).await?;
    works(&hosts[1], "switched")?;
    to_renew(&site, &["web-3", "web-4"]).await?;
    refused(finish(&site, None).await, "2 of the hosts still have a certificate of the old authority: web-3");
    for host in &hosts[..2] {
        assert!(host.log()?.contains("renewed before its time"), "{}", host.log()?);
    }

    // Before the end, one that was left behind comes back by itself: the front still shows the old authority.
    hosts[3].start_agent()?;
    works(&hosts[3], "left-behind")?;
    feed.wait_for("host.recovered", FOLLOWED, |_| true).await?;
    worked(&site, "web-4", &["left-behind"]).await?;
    to_renew(&site, &["web-3"]).await?;
    let pin_before = shown(&site)?;

    // After the end the other one says what has to be done, and keeps what it measures until it is.
    finish(&site, Some(1)).await?;
    site.kill_collector()?;
    site.start_collector().await?;
    finish(&site, None).await?;
    hosts[2].start_agent()?;
    works(&hosts[2], "stranded")?;
    let told = wait_until("what web-3 says", FOLLOWED, async || {
        hosts[2].log().ok()?.contains("run `tocsin-agent recover --pin PIN` here").then_some(())
    });
    told.await.map_err(|error| error.context(hosts[2].log().unwrap_or_default()))?;
    let said = shown(&site)?;
    let pin = said.lines().find_map(|line| line.strip_prefix("front pin  ")).unwrap().to_owned();
    assert!(
        said.contains("1 of 4 hosts")
            && said.contains("web-3")
            && !pin_before.contains(&format!("pin  {pin}"))
    );
    let config = hosts[2].config_file();
    let wrong = "0".repeat(64);
    for (pin, says) in [(wrong.as_str(), "is none that this host knows"), (&pin, "recovered as agent")] {
        let ran = output("tocsin-agent", &["recover", "--pin", pin, "--config", text(&config)?])?;
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(says), "{says}: {said}");
    }
    hosts[2].stop_agent().await?;
    hosts[2].start_agent()?;
    worked(&site, "web-3", &["stranded"]).await?;
    assert_eq!([agent_of(&site, "web-3").await?, agent_of(&site, "web-4").await?], ids, "the same agents");

    // All of them trust the new one alone, a new host comes in by it, and nothing of the others is missing.
    to_renew(&site, &[]).await?;
    unreported(&site, &[]).await?;
    let mut fresh = site.host("web-5", pb::Env::Prod).await?;
    fresh.start_agent()?;
    streams(&site, "web-5").await?;
    for host in &hosts[..2] {
        works(host, "finished")?;
    }
    worked(&site, "web-1", &["begun", "finished"]).await?;
    worked(&site, "web-2", &["switched", "finished"]).await?;
    assert_eq!(feed.of_kind("host.recovered").len(), 2, "only those that were left behind");
    Ok(())
}
