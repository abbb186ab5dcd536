//! The collector's own troubles: an alert of its own while it has no room for rows, on its disk or in memory, and while
//! a consumer of the feed does not follow.
//!
//! They belong to no host that an agent speaks for. A collector that takes no metrics sees nothing, which pages like any
//! critical alert of production. Evidence that comes again says nothing twice.

use tocsin_shared::alert::{AlertSource, Condition, ResolveReason};
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;

use super::decide::Decision;
use crate::alert::{self, Raised};

/// One kind of trouble.
struct Trouble<'a> {
    source: &'a str,
    alertname: &'a str,
    look_first: &'a str,
    severity: Severity,
    /// Whom it is about, beside the collector.
    consumer: Option<&'a str>,
}

/// How the disk stands: short of room, and why, or well.
pub(super) fn disk(d: &mut Decision<'_>, instance: &str, short: Option<&str>) {
    let trouble = Trouble {
        source: "collector/disk",
        alertname: "CollectorDiskFull",
        look_first: "`tocsin status`, then what fills the file system of the collector's data_dir",
        severity: Severity::Critical,
        consumer: None,
    };
    stands(d, &trouble, instance, short);
}

/// How the memory stands: nearly used up, or well.
pub(super) fn memory(d: &mut Decision<'_>, instance: &str, short: Option<&str>) {
    let trouble = Trouble {
        source: "collector/memory",
        alertname: "CollectorMemoryShort",
        look_first: "`tocsin status`: how many series there are, then the memory limit of the collector's service",
        severity: Severity::Critical,
        consumer: None,
    };
    stands(d, &trouble, instance, short);
}

/// How a consumer of the feed stands: far behind, or not. Whoever reads the feed by another way is told.
pub(super) fn consumer(d: &mut Decision<'_>, instance: &str, name: &str, behind: Option<&str>) {
    let trouble = Trouble {
        source: &format!("collector/feed/{name}"),
        alertname: "FeedConsumerLags",
        look_first: "`tocsin status`, then whether that tool runs and reaches the collector",
        severity: Severity::Warning,
        consumer: Some(name),
    };
    stands(d, &trouble, instance, behind);
}

fn stands(d: &mut Decision<'_>, trouble: &Trouble<'_>, instance: &str, short: Option<&str>) {
    let key = alert::dedup_key(AlertSource::Host, trouble.source, None, &Labels::empty());
    let fires = d.alert(&key).is_some_and(|alert| alert.condition == Condition::Firing);
    let Some(why) = short else {
        return alert::settle(d, &key, ResolveReason::Source, d.now, None);
    };
    if fires {
        return;
    }
    let (severity, env) = (trouble.severity, d.config.env_without_label);
    let labels = [
        ("alertname", trouble.alertname),
        ("env", env.as_str()),
        ("instance", instance),
        ("severity", severity.as_str()),
    ];
    let labels = labels.into_iter().chain(trouble.consumer.map(|name| ("consumer", name)));
    let raised = Raised {
        source: AlertSource::Host,
        source_id: trouble.source.into(),
        identity: Labels::empty(),
        labels: Labels::new(labels.collect::<Vec<_>>()),
        annotations: Labels::new([("summary", why), ("look_first", trouble.look_first)]),
        severity,
        env,
        agent: None,
        since: d.now,
        at: d.now,
        value: 1.0,
    };
    alert::raise_now(d, raised, None);
}
