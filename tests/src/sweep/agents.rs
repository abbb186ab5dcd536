//! Agents are killed while jobs end on their hosts: every job that its wrapper has left is told once, with its own
//! exit status, whether the socket took it or the drop-box.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tocsin_proto::pb;

use super::{SETTLED, Starts, Sweep, by_itself, last_words, loopback};
use crate::blow::Blow;
use crate::dice::Dice;
use crate::feed::Feed;
use crate::promises::lock;
use crate::site::{self, Host, START, Site};
use crate::wait::wait_until;

/// An agent is ready far sooner; a kill comes during its start, between two ticks and after some.
const LONGEST: Duration = Duration::from_millis(1_200);
/// Between two jobs of a host.
const PAUSE: Duration = Duration::from_millis(60);

/// Jobs by name, with the exit status that each had.
pub type Jobs = Arc<Mutex<BTreeMap<String, i32>>>;

/// Kills the agents of so many hosts, all in all as often as asked; every outcome must arrive once.
pub async fn agents(sweep: Sweep, hosts: usize) -> anyhow::Result<(usize, Starts)> {
    let mut dice = Dice::new(sweep.seed);
    let address = loopback(&mut dice);
    let site = Site::start_at(&address, Site::directory()?, "groups: []\n", "").await?;
    let (jobs, stop) = (Jobs::default(), Arc::new(AtomicBool::new(false)));
    let (mut killed, mut working) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    for number in 0..hosts {
        let name = format!("batch-{number}");
        let mut host = site.host(&name, pb::Env::Prod).await?;
        host.start_agent()?;
        ready(&mut host).await?; // It makes the drop-box, as the package does.
        host.kill_agent()?;
        let dir = site.dir().join(&name);
        working.spawn_blocking(work(dir, name, Arc::clone(&jobs), Arc::clone(&stop), dice.split()));
        let (kills, dice, runtime) =
            (sweep.kills.div_ceil(hosts), dice.split(), tokio::runtime::Handle::current());
        killed.spawn_blocking(move || runtime.block_on(kill(host, kills, sweep.traced, dice)));
    }
    let (mut starts, mut alive) = (Starts::default(), Vec::new());
    while let Some(ended) = killed.join_next().await {
        let (host, of_host) = ended??;
        starts.extend(of_host);
        alive.push(host);
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    told_once(&site, &jobs, &alive).await?;
    let counted = lock(&jobs).len();
    for mut host in alive {
        host.stop_agent().await?;
    }
    Ok((counted, starts))
}

/// Runs jobs one after another until told to stop.
pub fn work(
    dir: PathBuf,
    name: String,
    jobs: Jobs,
    stop: Arc<AtomicBool>,
    mut dice: Dice,
) -> impl FnOnce() -> anyhow::Result<()> {
    move || {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let job = format!("{name}-{number}");
            let wanted = *dice.one_of(&[0, 0, 1, 17]);
            let ended = site::job(&dir, &job, &["sh", "-c", &format!("exit {wanted}")])?;
            ensure!(ended.status.code() == Some(wanted), "{job} ended with {}, not {wanted}", ended.status);
            // From here on it may not be lost.
            lock(&jobs).insert(job, wanted);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The lives of one host's agent; it runs in the end.
async fn kill(mut host: Host, kills: usize, traced: bool, mut dice: Dice) -> anyhow::Result<(Host, Starts)> {
    let mut starts = Starts::default();
    for _ in 0..kills {
        let blow = Blow::draw(&mut dice, traced, LONGEST);
        let begun = Instant::now();
        host.start_agent_under(&blow.under())?;
        let traced = !blow.under().is_empty();
        let started = match blow.during_start() {
            Some(moment) => tokio::time::timeout(moment, ready(&mut host)).await.unwrap_or(Ok(())),
            None => ready(&mut host).await,
        };
        if started.is_ok() && !traced && blow.during_start().is_none() {
            starts.add(begun.elapsed());
        }
        if let Blow::Stop(moment) = blow {
            started?;
            tokio::time::sleep(moment).await;
            host.stop_agent().await?;
            continue;
        }
        blow.falls(begun, host.agent()?).await?;
        let status = host.end_agent()?;
        if by_itself(status) {
            bail!(
                "the agent of {} ended by itself with {status}, {blow:?}:\n{}",
                host.name,
                last_words(&host.log()?)
            );
        }
    }
    host.start_agent()?;
    Ok((host, starts))
}

/// Waits until an agent serves its job socket; an error with its last words if it has ended.
pub async fn ready(host: &mut Host) -> anyhow::Result<()> {
    let socket = host.socket();
    let mut ended = None;
    wait_until("the job socket", START, async || {
        ended = host.agent().and_then(|agent| agent.still_runs()).err();
        (ended.is_some() || UnixStream::connect(&socket).is_ok()).then_some(())
    })
    .await?;
    ended.map_or(Ok(()), Err)
}

/// Waits until every job is told once as it ended and no outcome waits anywhere.
pub async fn told_once(site: &Site, jobs: &Jobs, hosts: &[Host]) -> anyhow::Result<()> {
    let feed = Feed::follow(site.credential_file());
    let mut wrong = Vec::new();
    let waited = wait_until("every outcome once", SETTLED, async || {
        let waiting = hosts.iter().map(|host| host.dropped().unwrap_or(usize::MAX)).max();
        wrong = differences(&lock(jobs), &feed);
        (wrong.is_empty() && waiting.unwrap_or(0) == 0).then_some(())
    });
    waited
        .await
        .map_err(|error| error.context(format!("{} outcomes differ: {:?}", wrong.len(), shown(&wrong))))?;
    // A fresh one goes all the way: whatever came twice would have come before it.
    for host in hosts {
        let (job, dir) = (format!("{}-last", host.name), site.dir().join(&host.name));
        let ran = tokio::task::spawn_blocking({
            let job = job.clone();
            move || site::job(&dir, &job, &["true"])
        });
        ran.await??;
        lock(jobs).insert(job.clone(), 0);
        feed.wait_for("job.succeeded", SETTLED, |received| name_of(&received.event) == Some(&job)).await?;
    }
    let wrong = differences(&lock(jobs), &feed);
    ensure!(wrong.is_empty(), "{} outcomes differ in the end: {:?}", wrong.len(), shown(&wrong));
    Ok(())
}

fn shown(wrong: &[String]) -> &[String] {
    &wrong[..wrong.len().min(12)]
}

fn name_of(event: &pb::Event) -> Option<&str> {
    match &event.subject {
        Some(pb::event::Subject::Run(run)) => Some(&run.job_name),
        _ => None,
    }
}

/// Jobs that were not told, told twice, told otherwise than they ended; failures without their one alert.
fn differences(jobs: &BTreeMap<String, i32>, feed: &Feed) -> Vec<String> {
    let (mut ends, mut alerts): (BTreeMap<String, Vec<i32>>, BTreeMap<String, i32>) = Default::default();
    for received in feed.received() {
        match (&received.event.subject, received.event.kind.as_str()) {
            (Some(pb::event::Subject::Run(run)), "job.succeeded" | "job.failed") => {
                let kind = run.result.as_ref().and_then(|result| result.kind.as_ref());
                let code = match kind {
                    Some(pb::run_result::Kind::Succeeded(_)) => 0,
                    Some(pb::run_result::Kind::Failed(failed)) => failed.exit_code,
                    _ => -1,
                };
                ends.entry(run.job_name.clone()).or_default().push(code);
            }
            (Some(pb::event::Subject::Alert(alert)), "alert.triggered") => {
                let job = alert.labels.iter().find(|label| label.name == "job_name");
                *alerts.entry(job.map(|label| label.value.clone()).unwrap_or_default()).or_default() += 1;
            }
            _ => {}
        }
    }
    let wrong = jobs.iter().filter_map(|(job, code)| {
        let ends = ends.get(job).cloned().unwrap_or_default();
        let alerts = alerts.get(job).copied().unwrap_or(0);
        let good = ends == [*code] && alerts == i32::from(*code != 0);
        (!good).then(|| format!("{job} ended with {code}: told as {ends:?}, {alerts} alerts"))
    });
    wrong.collect()
}
