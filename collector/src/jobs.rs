//! Runs of jobs: recorded once, a failure raises an alert, a later success ends it.
//!
//! Every record comes with its place in the agent's spool; the place and what follows from the record are one batch, so
//! that a resend is known. A record takes effect when it comes, also above a hole: what came late moves nothing that is
//! newer, because its own times decide; waiting for the hole would hold up a failure behind an output that is slow. Another
//! record in a place that was taken is refused. A record that makes no sense is taken and noted, never refused: it would come for ever.
//! Not here: when a job should have run.

mod lanes;
mod outcome;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tocsin_shared::event::{EventKind, LaneProgress, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::run::{JobRun, RunResult};
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use crate::state::Refusal;
use crate::state::decide::Decision;

/// The longest job name, command and output that are kept; the agent cuts them first, this is the last word.
const JOB_NAME_BYTES_MAX: usize = 256;
const COMMAND_BYTES_MAX: usize = 4 * 1024;
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Where a record stands in its agent's spool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub epoch: Epoch,
    pub lane: Lane,
    pub seq: u64,
    /// What tells the record from another one in this place.
    pub content: u32,
}

/// A run began. Times are event time.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStart {
    pub run_id: Uuid,
    pub job_name: String,
    pub agent: AgentId,
    pub started_at: Timestamp,
    pub user: String,
    pub uid: u32,
    pub command: String,
}

/// A run ended; its start need not have been seen. Times are event time.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEnd {
    pub run_id: Uuid,
    pub job_name: String,
    pub agent: AgentId,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub duration: Option<Duration>,
    pub result: RunResult,
    pub user: String,
    pub uid: u32,
    pub command: String,
    pub output_tail: String,
    pub output_bytes: u64,
    /// Further runs with the same result that this one stands for.
    pub alike: u64,
    pub output_dropped: bool,
}

/// Records `first` to `last` of a lane will never come.
#[derive(Clone, Debug, PartialEq)]
pub struct GapRecord {
    pub agent: AgentId,
    pub epoch: Epoch,
    pub lane: Lane,
    pub first: u64,
    pub last: u64,
    pub reason: String,
}

pub(crate) fn started(d: &mut Decision<'_>, start: &RunStart, place: &Place) -> Result<(), Refusal> {
    let host = d.host_in_service(start.agent)?;
    let Some(taken) = lanes::take(d, start.agent, place)? else { return Ok(()) };
    if d.state.run(start.run_id).is_none() {
        let RunStart { run_id, job_name, agent, started_at, user, uid, command } = start.clone();
        let run = JobRun {
            run_id,
            job_name: cut_end(job_name, JOB_NAME_BYTES_MAX),
            agent,
            instance: host.instance.clone(),
            env: host.env,
            result: RunResult::Running,
            started_at,
            ended_at: None,
            duration: None,
            user: cut_end(user, JOB_NAME_BYTES_MAX),
            uid,
            command: cut_end(command, COMMAND_BYTES_MAX),
            output_tail: String::new(),
            output_bytes: 0,
            alike: 0,
            output_dropped: false,
        };
        d.by_actor(EventKind::JobStarted, started_at, "", Subject::Run(run));
    }
    moved(d, taken, "");
    Ok(())
}

pub(crate) fn ended(d: &mut Decision<'_>, end: &RunEnd, place: &Place) -> Result<(), Refusal> {
    let host = d.host_in_service(end.agent)?;
    let Some(taken) = lanes::take(d, end.agent, place)? else { return Ok(()) };
    let known = d.state.run(end.run_id);
    let mut note = "";
    if end.result == RunResult::Running || known.is_some_and(|run| run.agent != end.agent) {
        note = "ignored the end of a run that is still running or is another host's";
    } else if known.is_none_or(|run| run.result == RunResult::Running) {
        // The end does not repeat what the start has said.
        let command = known.map(|run| run.command.clone()).filter(|_| end.command.is_empty());
        let run = run_of(end, host);
        outcome::ended(d, host, JobRun { command: command.unwrap_or(run.command.clone()), ..run });
    }
    moved(d, taken, note);
    Ok(())
}

fn run_of(end: &RunEnd, host: &Host) -> JobRun {
    let RunEnd { run_id, job_name, agent, started_at, ended_at, duration, result, .. } = end.clone();
    let RunEnd { user, uid, command, output_tail, output_bytes, alike, output_dropped, .. } = end.clone();
    JobRun {
        run_id,
        job_name: cut_end(job_name, JOB_NAME_BYTES_MAX),
        agent,
        instance: host.instance.clone(),
        env: host.env,
        result: match result {
            RunResult::CouldNotStart { message, errno } => {
                RunResult::CouldNotStart { message: cut_end(message, COMMAND_BYTES_MAX), errno }
            }
            RunResult::Interrupted { reason } => {
                RunResult::Interrupted { reason: cut_end(reason, COMMAND_BYTES_MAX) }
            }
            other => other,
        },
        started_at,
        ended_at: Some(ended_at),
        duration,
        user: cut_end(user, JOB_NAME_BYTES_MAX),
        uid,
        command: cut_end(command, COMMAND_BYTES_MAX),
        output_tail: cut_start(output_tail, OUTPUT_BYTES_MAX),
        output_bytes,
        alike,
        output_dropped,
    }
}

/// Takes a gap record: what it names counts as taken, so that the lane's floor moves on.
pub(crate) fn gap_recorded(d: &mut Decision<'_>, gap: &GapRecord, place: &Place) -> Result<(), Refusal> {
    d.host_in_service(gap.agent)?;
    let Some(mut own) = lanes::take(d, gap.agent, place)? else { return Ok(()) };
    let GapRecord { epoch, lane, first, last, reason, .. } = gap;
    if *first == 0 || last < first {
        moved(d, own, "ignored a gap record without a range");
        return Ok(());
    }
    let note = format!("{} {first} to {last} will not come: {reason}", lane.as_str());
    if (own.epoch, own.lane) == (*epoch, *lane) {
        lanes::skip(&mut own, *first, *last)?;
        moved(d, own, &note);
        return Ok(());
    }
    let mut gapped = lanes::progress(d, gap.agent, *epoch, *lane);
    lanes::skip(&mut gapped, *first, *last)?;
    moved(d, gapped, &note);
    moved(d, own, "");
    Ok(())
}

/// Takes a record about the host itself: it moves nothing, the journal keeps it.
pub(crate) fn host_event(
    d: &mut Decision<'_>,
    agent: AgentId,
    place: &Place,
    note: &str,
) -> Result<(), Refusal> {
    d.host_in_service(agent)?;
    if let Some(taken) = lanes::take(d, agent, place)? {
        moved(d, taken, note);
    }
    Ok(())
}

fn moved(d: &mut Decision<'_>, lane: LaneProgress, note: &str) {
    d.by_actor(EventKind::LaneMoved, d.now, note, Subject::Lane(lane));
}

fn cut_end(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}

fn cut_start(text: String, max: usize) -> String {
    match text.len().checked_sub(max) {
        None | Some(0) => text,
        Some(excess) => text[text.ceil_char_boundary(excess)..].to_owned(),
    }
}
