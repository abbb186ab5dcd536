//! Restarts while two hundred alerts fire: nobody hears of any of them a second time, no `for` begins anew, and the
//! silence of a host is told once and ends nothing of it.

use std::time::Duration;

use super::{SETTLED, Starts, loopback};
use crate::dice::Dice;
use crate::feed::Feed;
use crate::load::{self, Load, Shape};
use crate::promises::{Counts, lock};
use crate::site::{SOON, Site};
use crate::wait::wait_until;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Restarts {
    pub restarts: usize,
    pub seed: u64,
}

/// The host that falls silent.
const SILENT: &str = "host-0";

/// Restarts a collector so often, killed or stopped.
pub async fn restarts(options: Restarts) -> anyhow::Result<(Counts, Starts)> {
    let mut dice = Dice::new(options.seed);
    let address = loopback(&mut dice);
    let mut site = Site::start_at(&address, Site::directory()?, &load::rules(), "").await?;
    let load = Load::start(&site, Shape::STEADY, &mut dice).await?;
    let mut starts = Starts::default();
    for restart in 0..options.restarts {
        if restart == options.restarts / 2 {
            fires_long(&load).await?;
            load.promises().silence(SILENT);
            Feed::follow(site.credential_file()).wait_for("host.unreachable", SOON, |_| true).await?;
        }
        // Some end while `for` runs, some while the collector still starts, some with everything said.
        tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
        if dice.once_in(4) {
            site.stop_collector().await?;
        } else {
            site.kill_collector()?;
        }
        let begun = std::time::Instant::now();
        site.start_collector().await?;
        starts.add(begun.elapsed());
    }
    let counts = load.settle(&site, SETTLED).await?;
    site.stop_collector().await?;
    Ok((counts, starts))
}

/// Waits until the silent host's rows call for every alert of it, and are acknowledged.
async fn fires_long(load: &Load) -> anyhow::Result<()> {
    let longest = crate::promises::RULES.iter().map(|(_, hold, _)| *hold).max().unwrap_or_default();
    let enough = async || {
        let books = &load.promises().hosts;
        let span = |book: &crate::promises::HostBook| {
            let first = book.rows.first().map_or(0, |row| row.at_ms);
            let taken = usize::try_from(book.rows_acknowledged).unwrap_or(0);
            taken.checked_sub(1).map_or(0, |last| book.rows[last].at_ms - first)
        };
        books.iter().all(|book| span(&lock(book)) > longest).then_some(())
    };
    // One restart may take what a row needed; the rows go on.
    wait_until("rows as long as the longest `for`", SETTLED, enough).await
}
