//! The collector's alerts about itself: about no host that an agent speaks for, and of production, so that they page
//! like any other of their severity. Evidence that comes again says nothing twice.

use tocsin_shared::alert::{AlertSource, Condition, ResolveReason};
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;

use super::command::Matter;
use super::decide::Decision;
use crate::alert::{self, Raised};

/// One alert of the collector's about itself.
pub(super) struct Own<'a> {
    /// Its source, as `collector/disk`.
    pub(super) source: &'static str,
    pub(super) alertname: &'static str,
    /// What tells alerts of this source apart.
    pub(super) identity: Labels,
    pub(super) severity: Severity,
    /// The collector's host.
    pub(super) instance: Option<&'a str>,
    pub(super) look_first: Option<&'a str>,
}

impl Own<'_> {
    /// Raises the alert while there is trouble, and ends it when there is none.
    pub(super) fn stands(self, d: &mut Decision<'_>, trouble: Option<&str>) {
        let key = alert::dedup_key(AlertSource::Host, self.source, None, &self.identity);
        let fires = d.alert(&key).is_some_and(|alert| alert.condition == Condition::Firing);
        match trouble {
            None => alert::settle(d, &key, ResolveReason::Source, d.now, None),
            Some(_) if fires => {}
            Some(summary) => alert::raise_now(d, self.raised(d, summary), None),
        }
    }

    fn raised(self, d: &Decision<'_>, summary: &str) -> Raised {
        let (severity, env) = (self.severity, d.config.env_without_label);
        let own = [("alertname", self.alertname), ("env", env.as_str()), ("severity", severity.as_str())];
        let instance = self.instance.map(|instance| ("instance", instance));
        let look_first = self.look_first.map(|look_first| ("look_first", look_first));
        Raised {
            source: AlertSource::Host,
            source_id: self.source.into(),
            labels: self.identity.with(own.into_iter().chain(instance)),
            identity: self.identity,
            annotations: Labels::new([("summary", summary)].into_iter().chain(look_first)),
            severity,
            env,
            agent: None,
            since: d.now,
            at: d.now,
            value: 1.0,
        }
    }
}

/// How something of the collector's own stands.
pub(super) fn stands(d: &mut Decision<'_>, matter: &Matter, instance: &str, trouble: Option<&str>) {
    let (source, alertname, severity, look_first) = match matter {
        // A collector that takes no metrics sees nothing.
        Matter::Disk => (
            "collector/disk",
            "CollectorDiskFull",
            Severity::Critical,
            "`tocsin status`, then what fills the file system of the collector's data_dir",
        ),
        // Nor does one that takes nothing because its memory is used up.
        Matter::Memory => (
            "collector/memory",
            "CollectorMemoryShort",
            Severity::Critical,
            "`tocsin status`: how many series there are, then the memory limit of the collector's service",
        ),
        // Alerts come late, and some rules run less often than they should.
        Matter::Evaluation => (
            "collector/evaluation",
            "RuleEvaluationLag",
            Severity::Error,
            "tocsin_collector_rule_group_seconds_total of the collector's own metrics: which group of rules takes the time",
        ),
        // Nothing is lost, and questions about the past wait; the disk under it may be failing.
        Matter::Store => (
            "collector/store",
            "StoreRebuilt",
            Severity::Warning,
            "`tocsin status`, then the log of the collector and of its kernel: is the disk failing?",
        ),
        // Whoever reads the feed by another way is told.
        Matter::Consumer(_) => (
            "collector/feed",
            "FeedConsumerLags",
            Severity::Warning,
            "`tocsin status`, then whether that tool runs and reaches the collector",
        ),
        // Its new series are missing, and rules over them say nothing.
        Matter::Source(_) => (
            "collector/receive",
            "SourceSeriesLimit",
            Severity::Warning,
            "the label with the most values: drop or relabel it where the source sends it, or raise receive.series_max",
        ),
    };
    let identity = match matter {
        Matter::Consumer(name) => Labels::new([("consumer", name.as_str())]),
        Matter::Source(name) => Labels::new([("source", name.as_str())]),
        _ => Labels::empty(),
    };
    let (instance, look_first) = (Some(instance), Some(look_first));
    Own { source, alertname, identity, severity, instance, look_first }.stands(d, trouble);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Command;
    use crate::state::testing::Desk;

    // Cases: C3, C7, C9, C-F5, T9
    #[test]
    fn trouble_of_the_collector_is_told_once_and_when_it_is_over() {
        for (matter, alertname, severity) in [
            (Matter::Disk, "CollectorDiskFull", Severity::Critical),
            (Matter::Evaluation, "RuleEvaluationLag", Severity::Error),
            (Matter::Store, "StoreRebuilt", Severity::Warning),
            (Matter::Memory, "CollectorMemoryShort", Severity::Critical),
            (Matter::Consumer("pager".into()), "FeedConsumerLags", Severity::Warning),
            (Matter::Source("prometheus".into()), "SourceSeriesLimit", Severity::Warning),
        ] {
            let mut desk = Desk::default();
            let stands = |trouble: Option<&str>| Command::CollectorStands {
                matter: matter.clone(),
                instance: "collector-1".into(),
                trouble: trouble.map(str::to_owned),
            };
            for (now, trouble, told) in [
                (0, None, &[""; 0][..]),
                (1, Some("it is bad"), &["alert.triggered", "incident.triggered"]),
                (2, Some("it is worse"), &[]),
                (3, None, &["alert.resolved", "incident.updated"]),
                (4, None, &[]),
            ] {
                desk.now = now;
                assert_eq!(desk.done(stands(trouble)), told, "{alertname} at {now}");
            }
            let alert = desk.state.alerts().next().unwrap();
            let label = |name| alert.labels.get(name).unwrap_or_default();
            assert_eq!([label("alertname"), label("instance")], [alertname, "collector-1"]);
            assert_eq!((label("env"), alert.severity), ("prod", severity));
            assert_eq!(desk.incident(1).title, format!("{alertname} on collector-1: it is bad"));
        }
    }
}
