//! A host's identity over the accidents of its life: it runs out, is copied, set back, refused, or not there yet. What
//! the host measured and what its jobs did is delivered in the end, under one name, once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tocsin_proto::pb;
use tocsin_tests::feed::Feed;
use tocsin_tests::process::{Process, output};
use tocsin_tests::site::{Host, SOON, Site, copy_dir, enrolment, text};
use tocsin_tests::wait::wait_until;

use crate::RULES;

/// Certificates that run out while a test watches.
const SHORT: &str = "[agents]\ncertificate_lifetime = \"10s\"\n";
const LIFETIME: Duration = Duration::from_secs(10);
/// The ceilings of an agent's waits after some refusals, and what a busy machine adds.
const AFTER_REFUSALS: Duration = Duration::from_secs(60);

/// The event times of a host's rows, in milliseconds.
async fn rows(site: &Site, instance: &str) -> anyhow::Result<Vec<i64>> {
    let selector = format!("node_load1{{instance=\"{instance}\"}}[15m]");
    Ok(site.api.stored(&selector).await?.into_iter().map(|point| point.at_ms).collect())
}

/// Waits until so many rows of a host are stored.
async fn rows_of(site: &Site, instance: &str, count: usize) -> anyhow::Result<Vec<i64>> {
    wait_until(&format!("{count} rows of {instance}"), SOON, async || {
        rows(site, instance).await.ok().filter(|rows| rows.len() >= count)
    })
    .await
}

/// The jobs that the collector knows of a host.
async fn jobs(site: &Site, instance: &str) -> anyhow::Result<BTreeSet<String>> {
    let jobs = site.api.jobs().list_jobs(pb::ListJobsRequest {}).await?.into_inner().jobs;
    let runs = jobs.into_iter().filter_map(|job| job.last_run).filter(|run| run.instance == instance);
    Ok(runs.map(|run| run.job_name).collect())
}

async fn job_of(site: &Site, instance: &str, job: &str, within: Duration) -> anyhow::Result<()> {
    wait_until(&format!("{job} of {instance}"), within, async || {
        jobs(site, instance).await.ok()?.contains(job).then_some(())
    })
    .await
}

fn succeeds(host: &Host, job: &str) -> anyhow::Result<()> {
    let ended = host.job(job, &["/bin/true"])?;
    anyhow::ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

async fn agent_of(site: &Site, instance: &str) -> anyhow::Result<String> {
    let hosts = site.api.query().list_hosts(pb::ListHostsRequest::default()).await?.into_inner().hosts;
    let mut hosts = hosts.into_iter().filter_map(|status| status.host);
    let host = hosts.find(|host| host.instance == instance);
    host.map(|host| host.agent).ok_or_else(|| anyhow::anyhow!("{instance} is not known"))
}

async fn says(host: &Host, what: &str, within: Duration) -> anyhow::Result<()> {
    let said = wait_until(what, within, async || host.log().ok()?.contains(what).then_some(())).await;
    said.map_err(|error| error.context(host.log().unwrap_or_default()))
}

async fn allow_recovery(site: &Site, name: &str) -> anyhow::Result<()> {
    site.api.admin().allow_recovery(pb::AllowRecoveryRequest { name: name.into() }).await?;
    Ok(())
}

/// Waits until every certificate that was issued before has run out.
async fn run_out() -> anyhow::Result<()> {
    let begun = Instant::now();
    let over = async || (begun.elapsed() > LIFETIME + Duration::from_secs(1)).then_some(());
    wait_until("the end of the certificates", LIFETIME * 2, over).await
}

// Cases: I4
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_certificate_ran_out_comes_back_by_its_key() -> anyhow::Result<()> {
    let mut site = Site::start_with(RULES, SHORT).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    let agent = agent_of(&site, "web-1").await?;
    host.start_agent()?;
    rows_of(&site, "web-1", 2).await?;
    site.stop_collector().await?;
    succeeds(&host, "while-away")?;
    host.stop_agent().await?;
    run_out().await?;
    site.start_collector().await?;
    host.start_agent()?;
    feed.wait_for("host.recovered", SOON, |_| true).await?;
    job_of(&site, "web-1", "while-away", SOON).await?;
    assert_eq!(agent_of(&site, "web-1").await?, agent, "the same agent");
    // A second time within 30 days somebody has to look at it.
    host.stop_agent().await?;
    run_out().await?;
    host.start_agent()?;
    says(&host, "tocsin host allow-recovery web-1", SOON).await?;
    succeeds(&host, "while-refused")?;
    host.stop_agent().await?;
    allow_recovery(&site, "web-1").await?;
    host.start_agent()?;
    job_of(&site, "web-1", "while-refused", SOON).await?;
    assert_eq!(feed.of_kind("host.recovered").len(), 2);
    // And never after it was revoked.
    site.api.admin().revoke_host(pb::RevokeHostRequest { name: "web-1".into() }).await?;
    host.stop_agent().await?;
    run_out().await?;
    host.start_agent()?;
    says(&host, "the certificates of web-1 are revoked", SOON).await
}

// Cases: I1, S19
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_host_is_kept_apart_until_it_has_an_identity_of_its_own() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.start_agent()?;
    rows_of(&site, "web-1", 2).await?;
    host.stop_agent().await?;
    let mut copy = site.stranger("web-2")?;
    copy_dir(&host.data_dir(), &copy.data_dir())?;
    host.start_agent()?;
    copy.start_agent()?;
    let cloned = |alert: Option<&pb::Alert>| {
        alert.is_some_and(|alert| alert.labels.iter().any(|label| label.value == "IdentityCloned"))
    };
    let alert = feed.wait_for("alert.triggered", AFTER_REFUSALS, |received| cloned(received.alert())).await?;
    let description = &alert.alert().unwrap().annotations[0].value;
    assert_eq!(description.matches("127.0.0.1:").count(), 2, "it names both: {description}");
    for host in [&host, &copy] {
        says(host, "cloned identity", AFTER_REFUSALS).await?;
        succeeds(host, &format!("on-{}", host.name))?;
    }
    // Nothing of either is taken: what is measured now stays where it is measured.
    let before = rows(&site, "web-1").await?;
    says(&copy, "cloned identity", SOON).await?;
    assert_eq!(rows(&site, "web-1").await?, before);
    assert!(jobs(&site, "web-1").await?.is_empty());

    copy.stop_agent().await?;
    site.enrol(&copy, pb::Env::Prod, &["--split"]).await?;
    copy.start_agent()?;
    job_of(&site, "web-2", "on-web-2", SOON).await?;
    host.stop_agent().await?;
    allow_recovery(&site, "web-1").await?;
    host.start_agent()?;
    job_of(&site, "web-1", "on-web-1", SOON).await?;
    rows_of(&site, "web-1", before.len() + 2).await?;
    rows_of(&site, "web-2", 2).await?;
    assert_eq!(jobs(&site, "web-2").await?.len(), 1, "each host's jobs are its own");
    assert_eq!(jobs(&site, "web-1").await?.len(), 1);
    feed.wait_for("alert.resolved", SOON, |received| cloned(received.alert())).await?;
    Ok(())
}

// Cases: I1
#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_broken_connections_are_no_copies() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    for round in 0..6 {
        host.start_agent()?;
        says(&host, "connected to the collector", SOON).await?;
        rows_of(&site, "web-1", round + 1).await?;
        if round == 3 {
            site.kill_collector()?;
            site.start_collector().await?;
        }
        host.kill_agent()?;
    }
    assert!(!site.log()?.contains("identity"), "{}", site.log()?);
    assert!(feed.of_kind("host.recovered").is_empty());
    Ok(())
}

// Cases: S20
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_set_back_goes_on_in_a_new_epoch() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.start_agent()?;
    let shared = rows_of(&site, "web-1", 2).await?.len();
    host.stop_agent().await?;
    let snapshot = site.dir().join("snapshot");
    copy_dir(&host.data_dir(), &snapshot)?;
    host.start_agent()?;
    let first_life = rows_of(&site, "web-1", shared + 2).await?.len();
    succeeds(&host, "first-life")?;
    job_of(&site, "web-1", "first-life", SOON).await?;
    host.stop_agent().await?;
    // The second life uses the first one's numbers, and more of them, before anyone sees it.
    site.stop_collector().await?;
    copy_dir(&snapshot, &host.data_dir())?;
    host.start_agent()?;
    let begun = Instant::now();
    let overtaken = Duration::from_secs(first_life as u64 + 2);
    wait_until("more rows than the first life had", overtaken * 2, async || {
        succeeds(&host, "second-life").ok()?;
        (begun.elapsed() > overtaken).then_some(())
    })
    .await?;
    let measured = rows_between(begun.elapsed());
    site.start_collector().await?;
    says(&host, "a new epoch begins", AFTER_REFUSALS).await?;
    job_of(&site, "web-1", "second-life", SOON).await?;
    let rows = rows_of(&site, "web-1", first_life + measured).await?;
    assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "each row once, in order: {rows:?}");
    assert!(jobs(&site, "web-1").await?.contains("first-life"));
    assert_eq!(host.log()?.matches("a new epoch begins").count(), 1, "{}", host.log()?);
    Ok(())
}

/// How many ticks of a second there are in a time, without the first and the last, which may be cut.
fn rows_between(time: Duration) -> usize {
    usize::try_from(time.as_secs()).unwrap_or(0).saturating_sub(2)
}

// Cases: S28
#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_before_the_enrolment_is_delivered_after_it() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let mut host = site.stranger("web-1")?;
    host.start_agent()?;
    says(&host, "this host is not enrolled", SOON).await?;
    // A job says nothing about whether anybody heard of it.
    let socket = host.config_file().with_file_name("jobs.sock");
    wait_until("a socket for jobs", SOON, async || socket.exists().then_some(())).await?;
    succeeds(&host, "before")?;
    site.enrol(&host, pb::Env::Prod, &[]).await?;
    job_of(&site, "web-1", "before", SOON).await?;
    rows_of(&site, "web-1", 3).await?;
    Ok(())
}

// Cases: I5
#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_that_is_killed_anywhere_is_finished_by_the_same_command() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let mut host = site.stranger("web-1")?;
    let token = site.api.token(pb::Env::Prod, "web-1").await?;
    let arguments = enrolment(&site.addresses().front, &token, "web-1");
    let config = host.config_file();
    let arguments = [&arguments[..], &["--config", text(&config)?]].concat();
    let log = site.dir().join("enrolments.log");
    // Killed a little later each time, until one comes through; a start takes some milliseconds at least.
    let mut lived = Duration::from_millis(1);
    let ended = wait_until("an enrolment that comes through", AFTER_REFUSALS, async || {
        let mut enrolling = Process::start("tocsin-agent", &arguments, &log).ok()?;
        let begun = Instant::now();
        while begun.elapsed() < lived {
            if enrolling.still_runs().is_err() {
                return Some(());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        enrolling.kill().ok();
        lived += Duration::from_millis(2);
        None
    });
    ended.await?;
    let again = output("tocsin-agent", &arguments)?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("already enrolled"), "{said}");
    let hosts = site.api.query().list_hosts(pb::ListHostsRequest::default()).await?.into_inner().hosts;
    assert_eq!(hosts.len(), 1, "one host for one token");
    host.start_agent()?;
    rows_of(&site, "web-1", 2).await?;
    Ok(())
}

// Cases: I9, N22
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_refused_keeps_everything_and_comes_back_by_itself() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let other = Site::start(RULES).await?;
    site.stop_collector().await?;
    let (data, yesterday) = (site.dir().join("collector"), site.dir().join("yesterday"));
    copy_dir(&data, &yesterday)?;
    site.start_collector().await?;
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.start_agent()?;
    rows_of(&site, "web-1", 2).await?;
    // The registry is restored from before the host was there.
    site.stop_collector().await?;
    let today = site.dir().join("today");
    copy_dir(&data, &today)?;
    copy_dir(&yesterday, &data)?;
    site.start_collector().await?;
    says(&host, "may be revoked", AFTER_REFUSALS).await?;
    succeeds(&host, "while-unknown")?;
    site.stop_collector().await?;
    copy_dir(&today, &data)?;
    site.start_collector().await?;
    job_of(&site, "web-1", "while-unknown", AFTER_REFUSALS).await?;
    // And another collector at its address is none.
    host.stop_agent().await?;
    let config = std::fs::read_to_string(host.config_file())?;
    let elsewhere = format!("collector = {:?}\n{config}", other.addresses().agents);
    std::fs::write(host.config_file(), elsewhere)?;
    host.start_agent()?;
    says(&host, "is this another collector", SOON).await?;
    succeeds(&host, "while-misled")?;
    host.stop_agent().await?;
    std::fs::write(host.config_file(), config)?;
    host.start_agent()?;
    job_of(&site, "web-1", "while-misled", SOON).await?;
    assert!(jobs(&other, "web-1").await?.is_empty());
    Ok(())
}
