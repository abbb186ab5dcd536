//! Power cuts: the program stands still, the disk as it is without the page cache takes the place of the one it wrote
//! to, and the program starts on that. Every promise must be kept all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tocsin_proto::pb;

use crate::blow;
use crate::dice::Dice;
use crate::load::{self, Load, Shape};
use crate::promises::{Counts, lock};
use crate::site::{Host, Site};
use crate::sweep::{Starts, agents, loopback};
use crate::volume::Volume;

/// The longest a program runs between two cuts.
const LONGEST: u64 = 500;
/// How long each sync of the journals takes in half of the lives: a disk as customers have it. What is promised before it
/// is durable is promised in this time.
const SLOW_SYNC: Duration = Duration::from_millis(30);
/// From the end of the load to the last comparison.
const SETTLED: Duration = Duration::from_secs(40);

/// Cuts the power of a collector's disk so often.
pub async fn collector(cuts: usize, seed: u64, traced: bool) -> anyhow::Result<(Counts, Starts)> {
    let mut dice = Dice::new(seed);
    let dir = Site::directory()?;
    let mut volume = Volume::mount(&dir.path().join("collector"))?; // Before the site: it goes first.
    let mut site = Site::start_at(&loopback(&mut dice), dir, &load::rules(), load::PATIENT).await?;
    let load = Load::start(&site, Shape::CROWD, &mut dice).await?;
    let mut starts = Starts::default();
    for _ in 0..cuts {
        tokio::time::sleep(Duration::from_millis(dice.below(LONGEST))).await;
        site.collector()?.freeze().await?;
        volume.copy()?;
        site.kill_collector()?;
        volume.swap()?;
        let begun = Instant::now();
        let slow = traced && dice.once_in(2);
        site.spawn_collector(&if slow { blow::slow("fdatasync", SLOW_SYNC) } else { Vec::new() })?;
        site.collector_ready().await?;
        if !slow {
            starts.add(begun.elapsed());
        }
    }
    let counts = load.settle(&site, SETTLED).await?;
    site.stop_collector().await?;
    drop(volume);
    Ok((counts, starts))
}

/// Cuts the power of an agent's disk, drop-box and all, so often; the number of jobs that were told.
pub async fn agent(cuts: usize, seed: u64) -> anyhow::Result<(usize, Starts)> {
    let mut dice = Dice::new(seed);
    let site = Site::start_at(&loopback(&mut dice), Site::directory()?, "groups: []\n", "").await?;
    let place = site.dir().join("batch-0");
    let mut volume = Volume::mount(&place)?;
    let mut host = site.host("batch-0", pb::Env::Prod).await?;
    host.start_agent()?;
    agents::ready(&mut host).await?; // It makes the drop-box.
    let jobs = agents::Jobs::default();
    let mut starts = Starts::default();
    for round in 0..cuts {
        let stop = Arc::new(AtomicBool::new(false));
        let name = format!("batch-0-{round}");
        let work = agents::work(place.clone(), name, Arc::clone(&jobs), Arc::clone(&stop), dice.split());
        let working = tokio::task::spawn_blocking(work);
        tokio::time::sleep(Duration::from_millis(dice.below(LONGEST))).await;
        // The wrapper's last job is over before the cut, in whatever way it could be told; the agent is in the middle.
        if dice.once_in(2) {
            host.agent()?.freeze().await?;
        }
        stop.store(true, Ordering::Relaxed);
        working.await??;
        host.agent()?.freeze().await?;
        volume.copy()?;
        host.end_agent()?;
        volume.swap()?;
        let begun = Instant::now();
        host.start_agent()?;
        agents::ready(&mut host).await?;
        starts.add(begun.elapsed());
    }
    agents::told_once(&site, &jobs, std::slice::from_ref(&host)).await?;
    end(host, volume).await?;
    let counted = lock(&jobs).len();
    Ok((counted, starts))
}

async fn end(mut host: Host, volume: Volume) -> anyhow::Result<()> {
    host.stop_agent().await.context("after the last cut")?;
    drop(volume);
    Ok(())
}
