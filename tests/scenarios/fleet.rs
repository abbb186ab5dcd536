//! Many hosts at once, and the operator's command line on top of them.

use std::sync::Arc;
use std::time::Duration;

use tocsin_proto::pb;
use tocsin_tests::process::output;
use tocsin_tests::replay::Recording;
use tocsin_tests::site::{Site, text};
use tocsin_tests::swarm::{self, Options};

use crate::RULES;

const HOSTS: usize = 20;
const TICKS: u64 = 100;
const SERIES: usize = 4;

/// A recording of a minute, made up: a counter, a gauge, and two that never change.
pub(crate) fn recording() -> anyhow::Result<Recording> {
    let dir = tempfile::tempdir()?;
    for second in 0..60 {
        let text = format!(
            "# TYPE node_cpu_seconds_total counter\nnode_cpu_seconds_total {}\nnode_load1 {}\nnode_a 1\nnode_b 2.5\n",
            f64::from(second) / 4.0,
            second % 7
        );
        std::fs::write(
            dir.path().join(format!("{}.prom", 1_000 * (1_795_411_806 + i64::from(second)))),
            text,
        )?;
    }
    Recording::read(dir.path(), 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_a_fleet_is_taken_and_can_be_asked_for() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let options = Options {
        credential: site.credential_file(),
        hosts: HOSTS,
        ticks: TICKS,
        interval: Duration::from_secs(1),
        realtime: false,
        backlog: 0,
        collector_pid: site.pid(),
        prefix: "fleet-".into(),
    };
    let report = swarm::run(Arc::new(recording()?), options).await?;
    assert_eq!(report.rows, HOSTS as u64 * TICKS);
    assert_eq!(report.samples(), HOSTS as u64 * TICKS * SERIES as u64);
    assert!(report.sent_bytes > 0 && report.usage.is_some());

    for metric in ["node_cpu_seconds_total", "node_load1", "node_a", "node_b"] {
        let stored = site.api.stored(&format!("sum(count_over_time({metric}[{}s]))", TICKS + 60)).await?;
        let counted: Vec<f64> = stored.iter().map(|point| point.value).collect();
        assert_eq!(counted, [report.rows as f64], "samples of {metric} that can be asked for");
    }

    let credential = site.credential_file();
    let tocsin = |words: &[&str]| output("tocsin", &[words, &["--credential", text(&credential)?]].concat());
    let hosts = tocsin(&["hosts", "-o", "json"])?;
    assert!(hosts.status.success(), "{}", String::from_utf8_lossy(&hosts.stderr));
    assert_eq!(String::from_utf8(hosts.stdout)?.matches("\"instance\": \"fleet-").count(), HOSTS);
    for words in
        [&["status"][..], &["incidents"], &["alerts"], &["jobs"], &["rules", "list"], &["token", "list"]]
    {
        let said = tocsin(words)?;
        assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
        assert!(!said.stdout.is_empty(), "{words:?} says nothing");
    }
    let env = pb::Env::Test as i32;
    let known = site.api.query().list_hosts(pb::ListHostsRequest::default()).await?.into_inner().hosts;
    assert!(known.iter().all(|status| status.host.as_ref().is_some_and(|host| host.env == env)));
    Ok(())
}
