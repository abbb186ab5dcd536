//! Measures how long a crossed threshold takes to reach a subscriber of the feed, with one real host at 1 s.
//!
//! Two clocks begin: the tick of the row that crosses, which is the program's own time, and the change of the file,
//! which adds the wait for the next tick. Changes come at moments spread evenly over the time between two ticks.
//! Host, collector and subscriber share one machine and its wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Parser;
use tocsin_proto::pb;
use tocsin_tests::feed::{Feed, Received};
use tocsin_tests::site::{Host, SOON, Site};
use tocsin_tests::spread::{HEAD, Spread};

const METRIC: &str = "latency_level";
const UP: &str = "alert.triggered";
const DOWN: &str = "alert.resolved";
const RULES: &str = "
groups:
  - name: latency
    rules:
      - alert: Crossed
        expr: latency_level > 0
";
/// From a change to its event; longer is a failure.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of the agent's ticks.
const INTERVAL: Duration = Duration::from_secs(1);
/// The golden ratio's fraction: its multiples fill the time between two ticks evenly, however many there are.
const STEP: f64 = 0.618_033_988_75;

/// From a crossed threshold to the feed: TOCSIN_PROGRAMS names the directory of the programs.
#[derive(Parser)]
#[command(after_help = "Examples:
  TOCSIN_PROGRAMS=target/release latency
  TOCSIN_PROGRAMS=/usr/bin latency --crossings 1000")]
struct Arguments {
    /// How often the threshold is crossed upwards; it is crossed downwards as often.
    #[arg(long, default_value_t = 100)]
    crossings: u32,
}

/// The times of one direction, in milliseconds.
#[derive(Default)]
struct Times {
    from_tick: Vec<f64>,
    from_change: Vec<f64>,
    /// From the tick to the collector's record: the part before the feed.
    to_record: Vec<f64>,
}

impl Times {
    fn add(&mut self, changed_ms: f64, received: &Received) {
        let (at, event) = (received.at_ms as f64, &received.event);
        let tick = event.occurred_at_ms as f64;
        self.from_tick.push(at - tick);
        self.from_change.push(at - changed_ms);
        self.to_record.push(event.recorded_at_ms as f64 - tick);
    }

    fn print(self, kind: &str) -> anyhow::Result<()> {
        for (what, times) in [
            ("tick to receipt", self.from_tick),
            ("tick to record", self.to_record),
            ("change to receipt", self.from_change),
        ] {
            println!("{kind:<17}{what:<19}{}", Spread::of(times).context("nothing was measured")?);
        }
        Ok(())
    }
}

/// Sets the level and waits for the event that says so, later than `after`; gives the moment of the change, too.
async fn cross(host: &Host, feed: &Feed, up: bool, after: u64) -> anyhow::Result<(f64, Received)> {
    let kind = if up { UP } else { DOWN };
    let changed_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3;
    host.set(METRIC, f64::from(u8::from(up)))?;
    let received = feed.wait_for(kind, DEADLINE, |received| received.event.seq > after).await?;
    Ok((changed_ms, received))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let crossings = Arguments::parse().crossings;
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("latency-1", pb::Env::Prod).await?;
    host.set(METRIC, 1.0)?;
    host.start_agent()?;
    // The first round is not measured: the series has to become known, and the programs warm.
    let mut after = feed.wait_for(UP, SOON, |_| true).await?.event.seq;
    after = cross(&host, &feed, false, after).await?.1.event.seq;
    let (mut up, mut down) = (Times::default(), Times::default());
    for number in 0..2 * crossings {
        tokio::time::sleep(INTERVAL.mul_f64((f64::from(number) * STEP).fract())).await;
        let rises = number % 2 == 0;
        let (changed_ms, received) = cross(&host, &feed, rises, after).await?;
        after = received.event.seq;
        if rises { &mut up } else { &mut down }.add(changed_ms, &received);
    }
    println!("{:<36}{HEAD}", "milliseconds");
    up.print(UP)?;
    down.print(DOWN)?;
    host.stop_agent().await
}
