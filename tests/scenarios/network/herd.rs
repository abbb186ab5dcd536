//! The whole fleet comes back at once. A small one here; `herd --agents 10000` by hand.

use tocsin_tests::herd::{self, Options, quantile};

use super::*;
use crate::RULES;

/// New outcomes during the storm.
const OUTCOME: Duration = Duration::from_secs(10);
/// A collector with 300 agents needs a fraction of it; one that keeps something for each attempt needs more.
const MEMORY_BYTES: u64 = 400 << 20;

// Cases: N19, N20, C-D2, C-D6, C9, C-I4
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_back_at_once_and_brings_what_it_kept() -> anyhow::Result<()> {
    let mut site = Site::start_with(RULES, "heartbeat = \"5s\"\n").await?;
    let feed = Feed::follow(site.credential_file());
    let options = Options {
        agents: 300,
        series: 20,
        interval: Duration::from_secs(2),
        backlog: 200,
        outcome_every: Duration::from_millis(50),
        kill: true,
    };
    let report = herd::run(&mut site, options).await?;
    println!("{report}");
    assert!(report.outcomes.len() > 20, "outcomes were reported meanwhile");
    assert!(quantile(&report.outcomes, 0.99) < OUTCOME, "{report}");
    assert!(report.all_back < Duration::from_secs(60) && report.peak_bytes < MEMORY_BYTES, "{report}");
    // Everybody gets a share: the last is done not long after the one in the middle.
    let [middle, last] = [0.5, 1.0].map(|share| quantile(&report.filled_each, share));
    assert!(last < middle * 3 + Duration::from_secs(10), "{report}");
    assert_eq!(feed.of_kind("host.unreachable").len(), 0, "a restart is nobody's silence");
    Ok(())
}
