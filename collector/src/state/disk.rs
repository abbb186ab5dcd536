//! The collector's own disk: an alert of its own while it has no room for rows.
//!
//! It belongs to no host that an agent speaks for, and pages like any critical alert of production: a collector that
//! takes no metrics sees nothing. Evidence that comes again says nothing twice.

use tocsin_shared::alert::{AlertSource, Condition, ResolveReason};
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;

use super::decide::Decision;
use crate::alert::{self, Raised};

/// The source of the alert.
const SOURCE: &str = "collector/disk";
const ALERTNAME: &str = "CollectorDiskFull";

pub(super) fn stands(d: &mut Decision<'_>, instance: &str, short: Option<&str>) {
    let key = alert::dedup_key(AlertSource::Host, SOURCE, None, &Labels::empty());
    let fires = d.alert(&key).is_some_and(|alert| alert.condition == Condition::Firing);
    let Some(why) = short else {
        return alert::settle(d, &key, ResolveReason::Source, d.now, None);
    };
    if fires {
        return;
    }
    let (severity, env) = (Severity::Critical, d.config.env_without_label);
    let raised = Raised {
        source: AlertSource::Host,
        source_id: SOURCE.into(),
        identity: Labels::empty(),
        labels: Labels::new([
            ("alertname", ALERTNAME),
            ("env", env.as_str()),
            ("instance", instance),
            ("severity", severity.as_str()),
        ]),
        annotations: Labels::new([
            ("summary", why),
            ("look_first", "`tocsin status`, then what fills the file system of the collector's data_dir"),
        ]),
        severity,
        env,
        agent: None,
        since: d.now,
        at: d.now,
        value: 1.0,
    };
    alert::raise_now(d, raised, None);
}
