//! A balancer in between that ends every connection now and then, whatever goes over it.

use tocsin_tests::chaos::How;

use super::*;
use crate::RULES;

/// What is usual at balancers is a minute; a connection's own time is a little less.
const LIFETIME: Duration = Duration::from_secs(50);
/// Hosts behind it.
const HOSTS: u64 = 4;
/// After a connection that was good an agent waits a second or two; what this machine may be late comes on top.
const AGAIN: Duration = Duration::from_secs(10);

// Cases: N18, C-D2
#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_ends_every_connection_costs_no_row_and_no_alert() -> anyhow::Result<()> {
    let site = Site::start_with(RULES, "heartbeat = \"5s\"\n").await?;
    let feed = Feed::follow(site.credential_file());
    let chaos = Chaos::to(&site.addresses().agents)?;
    chaos.end_old(Some(LIFETIME));
    let mut hosts = Vec::new();
    for number in 0..HOSTS {
        let mut host = site.host(&format!("db-{number}"), pb::Env::Prod).await?;
        host.connects_to(&chaos.address())?;
        host.set("scenario_breach", 0.0)?;
        host.start_agent()?;
        hosts.push(host);
    }
    for host in &hosts {
        rows_after(&site, &host.name, 0, 2).await?;
    }
    assert_eq!(chaos.reached(), HOSTS);
    let first_ended = async || (chaos.open() < HOSTS).then_some(());
    wait_until("the end of a connection", LIFETIME + AGAIN, first_ended).await?;
    wait_until("all of them again", AGAIN * 2, async || (chaos.reached() == 2 * HOSTS).then_some(())).await?;
    // And once more all together, as when the balancer itself is started anew: their last connections were short.
    for host in &hosts {
        whole(&site, &host.name).await?;
    }
    assert_eq!(chaos.reached(), 2 * HOSTS, "each came once");
    chaos.end_all(How::Finish);
    for host in &hosts {
        whole(&site, &host.name).await?;
        assert_eq!(times(&feed, "Breached", &host.name), (0, 0));
    }
    assert_eq!(chaos.reached(), 3 * HOSTS, "nobody tried twice");
    assert_eq!(feed.of_kind("host.unreachable").len(), 0, "who comes back at once was never gone");
    Ok(())
}
