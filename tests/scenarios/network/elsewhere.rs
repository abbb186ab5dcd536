//! The address leads to somebody else.

use tocsin_tests::chaos::How;

use super::*;
use crate::RULES;

// Cases: N22, N13, C-A9
#[tokio::test(flavor = "multi_thread")]
async fn another_collector_gets_nothing_and_the_right_one_everything() -> anyhow::Result<()> {
    let (site, other) = tokio::try_join!(Site::start(RULES), Site::start(RULES))?;
    let (mut host, chaos) = behind(&site, "db-1").await?;
    host.start_agent()?;
    rows_after(&site, "db-1", 0, 2).await?;

    chaos.lead_to(&other.addresses().agents)?;
    chaos.end_all(How::Reset);
    let refused = wait_until("a clear word", BACK, async || {
        let log = host.log().ok()?;
        let said =
            |line: &&str| line.contains("ERROR") && line.contains("authority that is not trusted here");
        log.lines().find(said).map(str::to_owned)
    });
    let refused = refused.await?;
    assert!(refused.contains(&chaos.address()) && refused.contains("retry_in_s"), "{refused}");
    let hosts = other.api.query().list_hosts(pb::ListHostsRequest::default()).await?.into_inner().hosts;
    assert!(hosts.is_empty() && !other.log()?.contains("agent connected"), "{}", other.log()?);

    chaos.lead_to(&site.addresses().agents)?;
    whole(&site, "db-1").await?;
    Ok(())
}
