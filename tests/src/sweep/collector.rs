//! The collector is killed: at random moments, while it starts too, and at its own calls.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::{SETTLED, Starts, Sweep, by_itself, last_words, loopback};
use crate::blow::Blow;
use crate::dice::Dice;
use crate::load::{self, Load, Shape};
use crate::promises::Counts;
use crate::site::Site;

/// Kills a collector so often; every promise must be kept.
pub async fn collector(sweep: Sweep, longest: Duration) -> anyhow::Result<(Counts, Starts)> {
    let mut dice = Dice::new(sweep.seed);
    let address = loopback(&mut dice);
    let mut site = Site::start_at(&address, Site::directory()?, &load::rules(), load::PATIENT).await?;
    let load = Load::start(&site, Shape::CROWD, &mut dice).await?;
    let mut starts = Starts::default();
    site.end_collector()?;
    for _ in 0..sweep.kills {
        let blow = Blow::draw(&mut dice, sweep.traced, longest);
        strike(&mut site, blow, &mut starts).await?;
    }
    site.start_collector().await?;
    let counts = load.settle(&site, SETTLED).await?;
    site.stop_collector().await?;
    Ok((counts, starts))
}

/// One life of the collector, from its start to its end by this blow.
async fn strike(site: &mut Site, blow: Blow, starts: &mut Starts) -> anyhow::Result<()> {
    let begun = Instant::now();
    site.spawn_collector(&blow.under())?;
    let started = match blow.during_start() {
        Some(moment) => tokio::time::timeout(moment, site.collector_ready()).await.unwrap_or(Ok(())),
        None => site.collector_ready().await,
    };
    if started.is_ok() && blow.under().is_empty() && blow.during_start().is_none() {
        starts.add(begun.elapsed()); // A tracer would be measured with it.
    }
    if let Blow::Stop(moment) = blow {
        started?;
        tokio::time::sleep(moment).await;
        return site.stop_collector().await;
    }
    blow.falls(begun, site.collector()?).await?;
    let status = site.end_collector()?;
    if by_itself(status) {
        bail!("the collector ended by itself with {status}, {blow:?}:\n{}", last_words(&site.log()?));
    }
    Ok(())
}
