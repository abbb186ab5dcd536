//! Little machine: processors that others have, memory near its limit, strangers and consumers that hold on to theirs.

mod agent_memory;
mod consumers;
mod strangers;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tocsin_proto::pb;
use tocsin_tests::feed::{Feed, Received};
use tocsin_tests::herd::quantile;
use tocsin_tests::site::{Host, SOON, Site};
use tocsin_tests::wait::wait_until;

use crate::RULES;

/// From the end of a job to its event on the feed, while others have all processors.
const OUTCOME: Duration = Duration::from_secs(2);
/// Outcomes that are measured.
const JOBS: usize = 40;
/// Rows are tried again after ten seconds; then the alert has to be gone for ten more.
const HEALED: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn is_of_job(received: &Received, job: &str) -> bool {
    let labels = received.alert().map(|alert| alert.labels.iter());
    labels.is_some_and(|mut labels| labels.any(|label| label.name == "job_name" && label.value == job))
}

/// Runs a job that fails; how long it takes from its end to the feed.
async fn outcome(host: &Host, feed: &Feed, job: &str) -> anyhow::Result<Duration> {
    host.job(job, &["false"])?;
    let ended = now_ms();
    let event = feed.wait_for("alert.triggered", SOON, |event| is_of_job(event, job)).await?;
    Ok(Duration::from_millis(u64::try_from(event.at_ms - ended).unwrap_or(0)))
}

/// Processes that take all the processor time they get; they end with this value.
struct Busy(Vec<Child>);

impl Busy {
    fn on_every_processor() -> anyhow::Result<Self> {
        let loops = (0..std::thread::available_parallelism()?.get())
            .map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn());
        Ok(Self(loops.collect::<Result<_, _>>()?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().and_then(|()| child.wait()).ok(); // One that has ended is what is wanted.
        }
    }
}

// Cases: C20, C-I4
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_known_in_time_while_others_have_all_processors() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    feed.wait_for("host.online", SOON, |_| true).await?;
    outcome(&host, &feed, "warm").await?;
    let busy = Busy::on_every_processor()?;
    let mut took = Vec::new();
    for job in 0..JOBS {
        took.push(outcome(&host, &feed, &format!("job-{job}")).await?);
    }
    drop(busy);
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&took, share));
    println!("from a job's end to the feed: p50 {p50:?}, p99 {p99:?}");
    assert!(p99 <= OUTCOME, "{took:?}");
    assert_eq!(feed.of_kind("host.unreachable").len(), 0, "who is slow is not gone");
    Ok(())
}

async fn rows(site: &Site) -> usize {
    site.api.stored("scenario_breach[15m]").await.map_or(0, |points| points.len())
}

async fn memory_trouble(site: &Site) -> anyhow::Result<Option<String>> {
    let status = site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner();
    Ok(status.problems.into_iter().find(|line| line.contains("memory is nearly used up")))
}

// Cases: C9, C-D5
#[tokio::test(flavor = "multi_thread")]
async fn near_its_memory_limit_metrics_give_way_and_outcomes_go_on() -> anyhow::Result<()> {
    // No program runs in so little: nine tenths of it are used from the start.
    let mut site = Site::start_with(RULES, "\n[limits]\nmemory_max_bytes = \"2MiB\"\n").await?;
    let feed = Feed::follow(site.credential_file());
    let pages = feed.wait_for("incident.triggered", SOON, |event| {
        event.incident().is_some_and(|incident| incident.title.starts_with("CollectorMemoryShort"))
    });
    assert!(pages.await?.incident().is_some_and(|incident| incident.pages), "it pages");
    assert!(memory_trouble(&site).await?.is_some());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 1.0)?;
    host.start_agent()?;
    feed.wait_for("host.online", SOON, |_| true).await?;
    for job in ["first", "second"] {
        outcome(&host, &feed, job).await?;
    }
    wait_until("a refusal", SOON, async || host.log().ok()?.contains("RESOURCE_EXHAUSTED").then_some(()))
        .await?;
    let connected = now_ms();
    let ticks = async || (now_ms() > connected + 3_000).then_some(()); // A row a second, and only the agent knows of them.
    wait_until("rows that are refused", SOON, ticks).await?;
    assert_eq!(rows(&site).await, 0, "rows are refused, not kept");
    site.stop_collector().await?;
    site.configure("")?;
    let began = now_ms();
    site.start_collector().await?;
    feed.wait_for("alert.resolved", HEALED, |event| {
        event.alert().is_some_and(|alert| alert.source_id == "collector/memory")
    })
    .await?;
    let whole = async || {
        let points = site.api.stored("scenario_breach[15m]").await.ok()?;
        // A tick or two may be missed on a busy machine; refused were many more.
        let gaps = points.windows(2).filter(|pair| pair[1].at_ms - pair[0].at_ms > 3_000).count();
        let newest = points.last()?.at_ms;
        (gaps == 0 && points[0].at_ms < began && newest > began).then_some(())
    };
    wait_until("the rows of the whole time", HEALED, whole).await.context("what was refused came again")?;
    assert_eq!(memory_trouble(&site).await?, None);
    Ok(())
}
