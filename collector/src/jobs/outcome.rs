//! What the end of a run means: a failure raises an alert, a success that came later ends it.

use tocsin_shared::alert::{AlertSource, Condition, ResolveReason};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::labels::Labels;
use tocsin_shared::run::{JobRun, RunResult, signal_name};
use tocsin_shared::severity::Severity;
use tocsin_shared::time::{Timestamp, format_duration};

use crate::alert::{self, Raised};
use crate::state::decide::Decision;
use crate::state::presence::alert_labels;

pub(super) fn ended(d: &mut Decision<'_>, host: &Host, run: JobRun) {
    let at = run.ended_at.unwrap_or(run.started_at);
    if !run.result.is_failure() {
        succeeded(d, run, at);
        return;
    }
    // Spools deliver late: a success that ended after this failure has settled the matter already.
    let settled = d.state.runs_of_job(run.agent, &run.job_name).any(|other| {
        other.result == RunResult::Succeeded && other.ended_at.is_some_and(|ended_at| ended_at > at)
    });
    let key = alert::dedup_key(AlertSource::Job, &source_id(&run), Some(run.agent), &Labels::empty());
    let old_news = d.alert(&key).is_some_and(|known| at <= alert::moved_at(known));
    let raised = raised(host, &run, at);
    let cause = d.by_actor(EventKind::JobFailed, at, "", Subject::Run(run));
    if !settled && !old_news {
        alert::raise_now(d, raised, Some(cause));
    }
}

fn succeeded(d: &mut Decision<'_>, run: JobRun, at: Timestamp) {
    let key = alert::dedup_key(AlertSource::Job, &source_id(&run), Some(run.agent), &Labels::empty());
    let cause = d.by_actor(EventKind::JobSucceeded, at, "", Subject::Run(run));
    let later = |failure: &tocsin_shared::alert::Alert| {
        failure.condition == Condition::Firing && at > failure.last_true
    };
    if d.alert(&key).is_some_and(later) {
        alert::settle(d, &key, ResolveReason::Source, at, Some(cause));
    }
}

fn source_id(run: &JobRun) -> String {
    format!("job/{}", run.job_name)
}

fn raised(host: &Host, run: &JobRun, at: Timestamp) -> Raised {
    let severity = Severity::Error;
    let run_id = run.run_id.to_string();
    Raised {
        source: AlertSource::Job,
        source_id: source_id(run),
        identity: Labels::empty(),
        labels: alert_labels(host, "JobFailed", severity).with([("job_name", run.job_name.as_str())]),
        annotations: Labels::new([("summary", summary(run).as_str()), ("run_id", run_id.as_str())]),
        severity,
        env: host.env,
        agent: Some(run.agent),
        since: at,
        at,
        value: match run.result {
            RunResult::Failed { exit_code } => f64::from(exit_code),
            RunResult::Killed { signal, .. } => f64::from(128 + signal.clamp(0, 127)),
            _ => 1.0,
        },
    }
}

/// One line for a pager: what happened, and how long it ran.
fn summary(run: &JobRun) -> String {
    let name = &run.job_name;
    let what = match &run.result {
        RunResult::Failed { exit_code } => format!("{name} failed with exit code {exit_code}"),
        RunResult::Killed { out_of_memory: true, .. } => format!("{name} was killed for want of memory"),
        RunResult::Killed { signal, core_dumped, .. } => {
            let core = if *core_dumped { " and dumped core" } else { "" };
            format!("{name} was killed by {}{core}", signal_name(*signal))
        }
        RunResult::CouldNotStart { message, .. } => {
            return format!("{name} could not be started: {message}{}", alike(run));
        }
        RunResult::Interrupted { reason } => format!("{name} was interrupted ({reason})"),
        RunResult::Running | RunResult::Succeeded => return name.clone(),
    };
    let span = run.duration.or_else(|| run.ended_at.map(|end| end.since(run.started_at)));
    let span = span.filter(|_| !matches!(run.result, RunResult::Interrupted { .. }));
    let after = span.map(|span| format!(" after {}", format_duration(span))).unwrap_or_default();
    format!("{what}{after}{}", alike(run))
}

/// How many other runs this one stands for.
fn alike(run: &JobRun) -> String {
    if run.alike == 0 { String::new() } else { format!(", and {} more runs alike", run.alike) }
}
