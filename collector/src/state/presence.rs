//! Whether a host is heard, what it is labelled, when it leaves.
//!
//! Silence raises an alert of its own and moves nothing else: the host's other alerts stay as they were.

use tocsin_shared::alert::{AlertSource, ResolveReason};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;

use super::command::{Heard, Refusal};
use super::credentials::check_labels;
use super::decide::Decision;
use super::enrolment;
use crate::alert::{self, Raised};

/// The source of the alert that a silent host raises.
pub(crate) const UNREACHABLE: &str = "host/unreachable";

/// The source of the alert that an agent raises whose series are over its quota.
const SERIES_LIMITED: &str = "host/series-limited";
/// The source of the alert that a host's wrong wall clock raises.
const SKEWED: &str = "host/clock_skew";

/// Smaller changes of the clock offset are slewing and not worth an event.
const OFFSET_NOTED_MS: u64 = 1_000;

pub(super) fn heard(d: &mut Decision<'_>, heard: &Heard) -> Result<(), Refusal> {
    let old = d.host_in_service(heard.agent)?;
    let mut host = Host {
        boot_id: heard.boot_id.clone(),
        agent_version: heard.agent_version.clone(),
        facts: heard.facts.clone(),
        clock_offset_ms: heard.clock_offset_ms.or(old.clock_offset_ms),
        bundle_sha256: heard.bundle_sha256,
        ..old.clone()
    };
    if old.state == HostState::Online {
        if differs(old, &host) {
            d.by_actor(EventKind::HostUpdated, d.now, "", Subject::Host(host));
        }
        return Ok(());
    }
    host.state = HostState::Online;
    host.state_since = d.now;
    host.last_seen = Some(d.now);
    let cause = d.by_actor(EventKind::HostOnline, d.now, "", Subject::Host(host));
    let key = alert::dedup_key(AlertSource::Host, UNREACHABLE, Some(heard.agent), &Labels::empty());
    alert::settle(d, &key, ResolveReason::Source, d.now, Some(cause));
    Ok(())
}

fn differs(old: &Host, new: &Host) -> bool {
    let moved = match (old.clock_offset_ms, new.clock_offset_ms) {
        (Some(old), Some(new)) => old.abs_diff(new) >= OFFSET_NOTED_MS,
        (old, new) => old != new,
    };
    moved
        || old.bundle_sha256 != new.bundle_sha256
        || (&old.boot_id, &old.agent_version, &old.facts) != (&new.boot_id, &new.agent_version, &new.facts)
}

/// A host that was never heard, or is known to be silent, changes nothing.
pub(super) fn silent(d: &mut Decision<'_>, agent: AgentId, since: Timestamp) -> Result<(), Refusal> {
    let old = d.state.host(agent).ok_or_else(|| Refusal::not_found("agent", agent))?;
    if old.state != HostState::Online {
        return Ok(());
    }
    let host =
        Host { state: HostState::Unreachable, state_since: d.now, last_seen: Some(since), ..old.clone() };
    let silent_for = std::time::Duration::from_secs(d.now.since(since).as_secs());
    let silent_for = tocsin_shared::time::format_duration(silent_for);
    let summary = format!("{} has not been heard for {silent_for}", host.instance);
    let labels = alert_labels(&host, "AgentUnreachable", Severity::Critical);
    let env = host.env;
    let cause = d.by_system(EventKind::HostUnreachable, d.now, None, Subject::Host(host));
    let raised = Raised {
        source: AlertSource::Host,
        source_id: UNREACHABLE.into(),
        identity: Labels::empty(),
        labels,
        annotations: Labels::new([("summary", summary)]),
        severity: Severity::Critical,
        env,
        agent: Some(agent),
        since,
        at: d.now,
        value: 1.0,
    };
    alert::raise_now(d, raised, Some(cause));
    Ok(())
}

/// Series were refused: a metric that somebody waits for may be among them, so it is an alert.
pub(super) fn series_refused(
    d: &mut Decision<'_>,
    agent: AgentId,
    series: usize,
    (label, metric): (&str, &str),
) -> Result<(), Refusal> {
    let host = d.host_in_service(agent)?;
    let summary = format!(
        "{} sends too many new series: {series} new series of {metric} and others are not kept, most differ in the \
         label {label}; take that label out of the metric at its source",
        host.instance
    );
    let raised = Raised {
        source: AlertSource::Host,
        source_id: SERIES_LIMITED.into(),
        identity: Labels::empty(),
        labels: alert_labels(host, "SeriesLimited", Severity::Warning),
        annotations: Labels::new([("summary", summary)]),
        severity: Severity::Warning,
        env: host.env,
        agent: Some(agent),
        since: d.now,
        at: d.now,
        value: series as f64,
    };
    alert::raise_now(d, raised, None);
    Ok(())
}

pub(super) fn series_taken(d: &mut Decision<'_>, agent: AgentId) -> Result<(), Refusal> {
    d.host_in_service(agent)?;
    let key = alert::dedup_key(AlertSource::Host, SERIES_LIMITED, Some(agent), &Labels::empty());
    alert::settle(d, &key, ResolveReason::Source, d.now, None);
    Ok(())
}

/// The labels of an alert that is about a host and comes from no rule.
pub(crate) fn alert_labels(host: &Host, alertname: &str, severity: Severity) -> Labels {
    host.labels.with([
        ("instance", host.instance.as_str()),
        ("env", host.env.as_str()),
        ("alertname", alertname),
        ("severity", severity.as_str()),
    ])
}

pub(super) fn clock_stepped(d: &mut Decision<'_>, agent: AgentId, offset_ms: i64) -> Result<(), Refusal> {
    let old = d.host_in_service(agent)?;
    if old.clock_offset_ms == Some(offset_ms) {
        return Ok(());
    }
    let note = match old.clock_offset_ms {
        Some(before) => format!("the host's clock stepped by {} ms", offset_ms.saturating_sub(before)),
        None => "the host's clock stepped".to_owned(),
    };
    let host = Host { clock_offset_ms: Some(offset_ms), ..old.clone() };
    let before = old.clock_offset_ms;
    let cause = d.by_actor(EventKind::HostClockStep, d.now, &note, Subject::Host(host));
    if let Some(before) = before {
        alert::shift(d, agent, offset_ms.saturating_sub(before), cause);
    }
    Ok(())
}

/// A wrong wall clock harms nothing here, but whoever compares that host's logs with others.
pub(super) fn clock_skewed(
    d: &mut Decision<'_>,
    agent: AgentId,
    off_by_ms: Option<i64>,
) -> Result<(), Refusal> {
    let host = d.host_in_service(agent)?;
    let Some(off_by_ms) = off_by_ms else {
        let key = alert::dedup_key(AlertSource::Host, SKEWED, Some(agent), &Labels::empty());
        alert::settle(d, &key, ResolveReason::Source, d.now, None);
        return Ok(());
    };
    let way = if off_by_ms > 0 { "ahead of" } else { "behind" };
    let off_by = std::time::Duration::from_secs(off_by_ms.unsigned_abs() / 1000);
    let off_by = tocsin_shared::time::format_duration(off_by);
    let summary = format!("{}: its clock is {off_by} {way} the collector's", host.instance);
    let advice = "`timedatectl` on the host: is its clock synchronised?";
    let raised = Raised {
        source: AlertSource::Host,
        source_id: SKEWED.into(),
        identity: Labels::empty(),
        labels: alert_labels(host, "HostClockSkewed", Severity::Warning),
        annotations: Labels::new([("summary", summary.as_str()), ("look_first", advice)]),
        severity: Severity::Warning,
        env: host.env,
        agent: Some(agent),
        since: d.now,
        at: d.now,
        value: off_by_ms as f64 / 1000.0,
    };
    alert::raise_now(d, raised, None);
    Ok(())
}

pub(super) fn label(d: &mut Decision<'_>, agent: AgentId, labels: &Labels) -> Result<(), Refusal> {
    let old = d.host_in_service(agent)?;
    check_labels(labels)?;
    if old.labels != *labels {
        let host = Host { labels: labels.clone(), ..old.clone() };
        d.by_actor(EventKind::HostLabelled, d.now, "", Subject::Host(host));
    }
    Ok(())
}

/// Takes a host out of service: its certificates are revoked, its alerts end, its incidents close.
pub(super) fn retire(d: &mut Decision<'_>, agent: AgentId, reason: &str) -> Result<(), Refusal> {
    let old = d.state.host(agent).ok_or_else(|| Refusal::not_found("agent", agent))?;
    if old.state == HostState::Retired {
        return Ok(());
    }
    let host = Host { state: HostState::Retired, state_since: d.now, ..old.clone() };
    let cause = d.by_actor(EventKind::HostRetired, d.now, reason, Subject::Host(host));
    enrolment::revoke(d, agent, reason)?;
    let keys: Vec<String> = d.state.active_of_agent(agent).map(|alert| alert.dedup_key.clone()).collect();
    for key in keys {
        alert::settle(d, &key, ResolveReason::HostRetired, d.now, Some(cause));
    }
    Ok(())
}
