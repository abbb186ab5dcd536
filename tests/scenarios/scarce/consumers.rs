//! Consumers of the feed that take nothing: they cost little and hold up nobody.

use std::sync::Arc;

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::subscribe_request::From as Since;
use tocsin_shared::lane::Lane;
use tocsin_tests::api::{Api, CredentialFile};
use tocsin_tests::resources;
use tocsin_tests::virtual_agent::VirtualAgent;
use uuid::Uuid;

use super::*;

/// Consumers that read nothing, each over its own connection.
const STALLED: usize = 24;
/// What one may cost.
const BYTES: u64 = 1 << 20;
/// Outcomes of one agent: as many as its quota lets through at once.
const OUTCOMES: u64 = 1_900;
/// Agents: together they make more events than a client's window takes.
const AGENTS: usize = 3;
/// What a window of a client that reads nothing takes, twice.
const EVENTS_BYTES: u64 = 4 << 20;

/// Many runs of jobs that failed, acknowledged.
async fn report(agent: &VirtualAgent) -> anyhow::Result<()> {
    let clock = pb::ClockReading { wall_ms: now_ms(), boot_ms: 1_000_000, ..Default::default() };
    let mut session = agent.session(clock.clone(), 1_000, Arc::default()).await?;
    let record = |seq: u64| {
        let ended = pb::RunEnded {
            run_id: Uuid::new_v4().to_string(),
            job_name: format!("job-{}", seq % 50),
            started: Some(clock.clone()),
            ended: Some(clock.clone()),
            result: Some((&tocsin_shared::run::RunResult::Failed { exit_code: 1 }).into()),
            command: "x".repeat(400),
            ..pb::RunEnded::default()
        };
        pb::Record { seq, kind: Some(pb::record::Kind::RunEnded(ended)) }
    };
    let mut next = 1;
    while next <= OUTCOMES {
        let last = (next + 99).min(OUTCOMES);
        let records = (next..=last).map(record).collect();
        session.say(Up::Records(pb::Records { lane: Lane::Outcomes.number(), records })).await?;
        while session.outcomes_taken < last {
            session.hear().await?;
        }
        next = last + 1;
    }
    Ok(())
}

// Cases: F3, C-F4
#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_read_nothing_cost_little_and_hold_up_nobody() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    for number in 0..AGENTS {
        let agent = VirtualAgent::enrol(&site.api, pb::Env::Test, &format!("batch-{number}")).await?;
        report(&agent).await?;
    }
    let runs = usize::try_from(OUTCOMES)? * AGENTS;
    let all = async || (feed.of_kind("job.failed").len() >= runs).then_some(());
    wait_until("every run on a feed that is read", SOON * 4, all).await?;
    let status = site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner();
    assert!(status.events_journal_bytes > EVENTS_BYTES, "{} bytes of events", status.events_journal_bytes);
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.start_agent()?;
    feed.wait_for("host.online", SOON, |event| format!("{:?}", event.event).contains("db-1")).await?;
    outcome(&host, &feed, "before").await?;

    let file = CredentialFile::read(&site.credential_file())?;
    let pid = site.pid().context("it runs")?;
    let before = resources::of(pid)?.resident_bytes;
    let mut stalled = Vec::new();
    for number in 0..STALLED {
        let api = Api::connect(&file).await?;
        let from = Some(Since::Earliest(true));
        let request = pb::SubscribeRequest {
            from,
            consumer: format!("stalled-{number}"),
            kinds: Vec::new(),
            ..Default::default()
        };
        stalled.push((api.feed().subscribe(request).await?.into_inner(), api));
    }
    let mut most = Duration::ZERO;
    for job in 0..10 {
        most = most.max(outcome(&host, &feed, &format!("after-{job}")).await?);
    }
    let grown = resources::of(pid)?.resident_bytes.saturating_sub(before);
    println!(
        "{} KiB a consumer that reads nothing; an outcome took {most:?} at most",
        grown / STALLED as u64 / 1024
    );
    assert!(most < OUTCOME, "an outcome took {most:?} while others read nothing");
    assert!(grown <= BYTES * STALLED as u64, "{grown} bytes for {STALLED} consumers");
    drop(stalled);
    Ok(())
}
