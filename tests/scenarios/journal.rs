//! The events journal in bad times, with the real programs: a damaged middle, and an older copy that was put back.

use std::path::{Path, PathBuf};

use tocsin_proto::pb;
use tocsin_proto::pb::subscribe_request::From as Since;
use tocsin_proto::pb::subscribe_response::Kind as Item;
use tocsin_tests::feed::Feed;
use tocsin_tests::process;
use tocsin_tests::scrape::Scraper;
use tocsin_tests::site::{SOON, Site, copy_dir, text};
use tocsin_tests::wait::wait_until;
use tonic::Code;

use crate::RULES;

/// Waits for an open incident whose title has these words.
async fn incident(site: &Site, words: &str) -> anyhow::Result<pb::Incident> {
    wait_until(&format!("an incident about {words}"), SOON, async || {
        let request = pb::ListIncidentsRequest::default();
        let incidents = site.api.incidents().list_incidents(request).await.ok()?.into_inner().incidents;
        incidents.into_iter().find(|incident| incident.title.contains(words))
    })
    .await
}

async fn problems(site: &Site) -> anyhow::Result<Vec<String>> {
    Ok(site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner().problems)
}

fn ready(site: &Site) -> anyhow::Result<String> {
    Scraper::connect(&format!("http://{}/-/ready", site.addresses().local))?.fetch_text()
}

fn segments(site: &Site) -> anyhow::Result<Vec<PathBuf>> {
    let dir = site.dir().join("collector").join("journal").join("events");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Flips a bit of the event with this text, the last one that has it.
fn damage(site: &Site, text: &str) -> anyhow::Result<(PathBuf, Vec<u8>)> {
    for path in segments(site)?.into_iter().rev() {
        let mut content = std::fs::read(&path)?;
        if let Some(at) = content.windows(text.len()).rposition(|bytes| bytes == text.as_bytes()) {
            content[at] ^= 1;
            std::fs::write(&path, &content)?;
            return Ok((path, content));
        }
    }
    anyhow::bail!("no event has {text}")
}

fn remove_checkpoints(site: &Site) -> anyhow::Result<()> {
    Ok(std::fs::remove_dir_all(site.dir().join("collector").join("journal").join("checkpoints"))?)
}

async fn note(site: &Site, number: u64, text: &str) -> Result<(), tonic::Status> {
    let request = pb::AddNoteRequest { number, text: text.into() };
    site.api.incidents().add_note(request).await.map(drop)
}

// Cases: C5
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_goes_on_watching_and_waits_for_a_decision_about_incidents() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.start_agent()?;
    host.set("scenario_breach", 1.0)?;
    let before = incident(&site, "web-1").await?.number;
    note(&site, before, "words that a bad disk spoils").await?;
    note(&site, before, "later words").await?;
    site.kill_collector()?;
    let (path, spoiled) = damage(&site, "words that a bad disk spoils")?;
    remove_checkpoints(&site).ok(); // There is none before the first stop.
    site.start_collector().await?;

    let own = incident(&site, "data loss, events").await?;
    assert!(own.number > before, "{own:?}");
    let degraded = problems(&site).await?;
    assert!(degraded.iter().any(|line| line.starts_with("degraded: events")), "{degraded:?}");
    assert!(ready(&site)?.starts_with("ready; degraded"), "it serves, and says so");
    let refused = note(&site, before, "now").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("accept-loss"), "{refused}");
    let ended = host.job("nightly", &["/bin/true"])?;
    assert!(ended.status.success());
    wait_until("the outcome", SOON, async || {
        let jobs = site.api.jobs().list_jobs(pb::ListJobsRequest {}).await.ok()?.into_inner().jobs;
        jobs.into_iter().find(|job| job.job_name == "nightly")
    })
    .await?;

    site.stop_collector().await?;
    site.start_collector().await?;
    assert!(note(&site, before, "again").await.is_err(), "a restart decides nothing");
    let kept = std::fs::read(&path)?;
    assert_eq!(kept[..spoiled.len().min(kept.len())], spoiled[..], "the damaged file is as it was");

    let line =
        problems(&site).await?.into_iter().find(|line| line.starts_with("degraded")).unwrap_or_default();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [first, last, ..] = numbers[..] else { anyhow::bail!("no range in {line}") };
    let wrong = pb::AcceptLossRequest { first, last: last + 1 };
    assert_eq!(site.api.admin().accept_loss(wrong).await.unwrap_err().code(), Code::FailedPrecondition);
    site.api.admin().accept_loss(pb::AcceptLossRequest { first, last }).await?;
    note(&site, before, "it goes on").await?;
    assert!(!problems(&site).await?.iter().any(|line| line.starts_with("degraded")));
    let feed = Feed::follow(site.credential_file());
    let decided = feed.wait_for("journal.loss_accepted", SOON, |_| true).await?;
    assert!(
        decided.event.actor.is_some_and(|actor| format!("{actor:?}").contains("admin")),
        "who decided is written down"
    );
    Ok(())
}

/// Puts a copy of the collector's data back; what listens where is not part of it.
fn put_back(copy: &Path, site: &Site) -> anyhow::Result<()> {
    let data = site.dir().join("collector");
    std::fs::remove_dir_all(&data)?;
    copy_dir(copy, &data)
}

/// Where the feed is now.
async fn last_cursor(site: &Site) -> anyhow::Result<String> {
    let request = pb::SubscribeRequest { from: Some(Since::Snapshot(true)), ..Default::default() };
    let mut items = site.api.feed().subscribe(request).await?.into_inner();
    while let Some(item) = items.message().await? {
        if let Some(Item::SnapshotEnd(_)) = item.kind {
            return Ok(item.cursor);
        }
    }
    anyhow::bail!("the snapshot has no end")
}

async fn subscribe(site: &Site, cursor: &str) -> Result<(), tonic::Status> {
    let from = Some(Since::Cursor(cursor.to_owned()));
    site.api.feed().subscribe(pb::SubscribeRequest { from, ..Default::default() }).await.map(drop)
}

// Cases: C16
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_put_back_and_everything_goes_on_from_it() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.start_agent()?;
    let job = async |site: &Site, name: &str| {
        let ended = host.job(name, &["/bin/true"])?;
        anyhow::ensure!(ended.status.success());
        wait_until(&format!("the job {name}"), SOON, async || {
            let jobs = site.api.jobs().list_jobs(pb::ListJobsRequest {}).await.ok()?.into_inner().jobs;
            jobs.into_iter().find(|job| job.job_name == name).map(drop)
        })
        .await
    };
    host.set("scenario_breach", 1.0)?;
    let opened = incident(&site, "web-1").await?;
    job(&site, "before").await?;
    site.stop_collector().await?;
    let copy = Site::directory()?;
    copy_dir(&site.dir().join("collector"), copy.path())?;

    site.start_collector().await?;
    job(&site, "void").await?;
    let cursor = last_cursor(&site).await?;
    site.stop_collector().await?;
    put_back(copy.path(), &site)?;
    let config = site.dir().join("collector.toml");
    let marked = process::output("tocsin-collector", &["restored", "--config", text(&config)?])?;
    anyhow::ensure!(marked.status.success(), "{}", String::from_utf8_lossy(&marked.stderr));
    site.start_collector().await?;

    let refused = subscribe(&site, &cursor).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    job(&site, "after").await?;
    wait_until("the gap of what is gone", SOON, async || {
        host.log().ok()?.contains("the collector has lost what it had acknowledged").then_some(())
    })
    .await?;
    job(&site, "later").await?;
    let known = incident(&site, "web-1").await?;
    assert_eq!(known.number, opened.number, "the incident goes on and is not opened twice");
    Ok(())
}
