//! Records of the outcomes and the state lane, as commands of the ledger.

use std::time::Duration;

use prost::Message as _;
use tocsin_proto::convert::{Number, epoch_in};
use tocsin_proto::pb;
use tocsin_proto::pb::record::Kind;
use tocsin_shared::fingerprint;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::run::RunResult;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::clock::{self, Reading};
use super::limits;
use super::rows::Mapping;
use crate::jobs::{GapRecord, Place, RunEnd, RunStart};
use crate::state::Command;

/// Two boots are further apart; the drift of a wall clock over a day of backlog is not.
const SAME_BOOT_MS: i64 = 30_000;

/// The range of rows that a gap record says will never come, if it is about rows, and their epoch.
pub(super) fn samples_gap(own: Epoch, record: &pb::Record) -> Option<(Epoch, (u64, u64))> {
    match &record.kind {
        Some(Kind::Gap(gap)) if gap.lane == Lane::Samples.number() => {
            Some((gap_epoch(own, &gap.epoch).ok()?, (gap.first, gap.last)))
        }
        _ => None,
    }
}

/// A gap may be of another epoch than its record: of rows that were in memory only while the spool's disk failed.
fn gap_epoch(own: Epoch, named: &str) -> Result<Epoch, String> {
    if named.is_empty() { Ok(own) } else { epoch_in("gap.epoch", named).map_err(|error| error.to_string()) }
}

/// What tells a record from another one with its number.
pub(super) fn content(record: &pb::Record) -> u32 {
    fingerprint::of_record(&pb::Record { seq: 0, kind: record.kind.clone() }.encode_to_vec())
}

/// What a record asks of the ledger. An error is a record that no agent of ours writes.
pub(super) fn command(
    agent: AgentId,
    place: Place,
    record: pb::Record,
    mapping: &Mapping,
    latest: Timestamp,
) -> Result<Command, String> {
    let epoch = place.epoch;
    Ok(match record.kind.ok_or("a record without content")? {
        Kind::RunStarted(started) => {
            Command::JobStarted { run: run_started(agent, started, (mapping, latest))?, place }
        }
        Kind::RunEnded(ended) => {
            Command::JobEnded { run: run_ended(agent, ended, (mapping, latest))?, place }
        }
        Kind::Gap(pb::Gap { lane, first, last, reason, epoch: named }) => {
            let epoch = gap_epoch(epoch, &named)?;
            let lane = Lane::from_number(lane).map_err(|error| error.to_string())?;
            let reason = pb::GapReason::try_from(reason).unwrap_or_default();
            let reason = reason.as_str_name().trim_start_matches("GAP_REASON_").to_lowercase();
            Command::GapRecorded { gap: GapRecord { agent, epoch, lane, first, last, reason }, place }
        }
        Kind::HostEvent(pb::HostEvent { at, what, step_ms }) => {
            let (at, what) = (event_time(at, mapping, latest)?, limits::note(what));
            Command::HostEventNoted { agent, what, at, step_ms, place }
        }
    })
}

/// When it was, by the clock of the boot in which it was read. Never later than `latest`: a clock that ran ahead before
/// a reboot must not file anything in the future.
fn event_time(
    clock: Option<pb::ClockReading>,
    mapping: &Mapping,
    latest: Timestamp,
) -> Result<Timestamp, String> {
    let pb::ClockReading { wall_ms, boot_ms, boot_id } = clock.ok_or("a record without a time")?;
    let reading = Reading { wall: Timestamp::from_millis(wall_ms), boot_ms };
    if !boot_id.is_empty() {
        return Ok(mapping.event_time(&boot_id, reading).min(latest));
    }
    // Of an older agent, which does not say its boot: a reading that is later than now was taken in another one.
    let of_now = boot_ms <= mapping.reading.boot_ms.saturating_add(60_000);
    let at = if of_now && same_boot(reading, mapping.reading) {
        clock::event_time(mapping.offset_ms, reading)
    } else {
        clock::event_time_of_earlier_boot(mapping.offset_ms, mapping.reading, reading.wall)
    };
    Ok(at.min(latest))
}

/// Whether two readings are of one boot, as far as a wall clock that was set by less than a reboot takes can tell.
fn same_boot(a: Reading, b: Reading) -> bool {
    let booted = |r: Reading| r.wall.as_millis().saturating_sub(i64::try_from(r.boot_ms).unwrap_or(i64::MAX));
    booted(a).saturating_sub(booted(b)).saturating_abs() < SAME_BOOT_MS
}

fn run_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| format!("run id {:?} is no uuid", limits::note(text.to_owned())))
}

fn run_started(
    agent: AgentId,
    started: pb::RunStarted,
    (mapping, latest): (&Mapping, Timestamp),
) -> Result<RunStart, String> {
    let pb::RunStarted { run_id: id, job_name, started, pid: _, uid, user, command } = started;
    let started_at = event_time(started, mapping, latest)?;
    Ok(RunStart { run_id: run_id(&id)?, job_name, agent, started_at, user, uid, command })
}

fn run_ended(
    agent: AgentId,
    ended: pb::RunEnded,
    (mapping, latest): (&Mapping, Timestamp),
) -> Result<RunEnd, String> {
    let pb::RunEnded {
        run_id: id,
        job_name,
        started,
        ended,
        duration_ms,
        uid,
        user,
        command,
        result,
        output_tail,
        output_bytes,
        alike,
        output_dropped,
    } = ended;
    let result: RunResult =
        result.ok_or("an ended run without a result")?.try_into().map_err(|error| format!("{error}"))?;
    if result == RunResult::Running {
        return Err("an ended run that is running".into());
    }
    // Of an interrupted run nobody saw the end: when it was noticed is not how long it ran.
    let duration = Duration::from_millis(duration_ms);
    let duration = (!matches!(result, RunResult::Interrupted { .. })).then_some(duration);
    let (started_at, ended_at) = (event_time(started, mapping, latest)?, event_time(ended, mapping, latest)?);
    Ok(RunEnd {
        run_id: run_id(&id)?,
        job_name,
        agent,
        started_at,
        ended_at: ended_at.max(started_at),
        duration,
        result,
        user,
        uid,
        command,
        output_tail,
        output_bytes,
        alike,
        output_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_boot_keeps_its_wall_time() {
        let reading = Reading { wall: Timestamp::from_millis(10_000_000), boot_ms: 1_200_000 };
        let mapping = Mapping { boot_id: "now".into(), offset_ms: 8_802_000, reading, before: None };
        for (wall_ms, boot_ms, want, why) in [
            (9_400_000, 600_000, 9_402_000, "of this boot: mapped"),
            (9_400_000, 599_000, 9_401_000, "boot time counts, not a wall clock that drifted by a second"),
            (
                8_000_000,
                600_000,
                8_002_000,
                "of the boot before, twenty minutes ago: its wall time, corrected",
            ),
            (9_000_000, 90_000_000, 9_002_000, "of a boot that lasted longer than this one"),
        ] {
            let clock = pb::ClockReading { wall_ms, boot_ms, boot_id: String::new() };
            let at = event_time(Some(clock), &mapping, Timestamp::MAX).unwrap();
            assert_eq!(at.as_millis(), want, "{why}");
        }
        assert!(event_time(None, &mapping, Timestamp::MAX).is_err());
    }

    // Cases: T4, T7, S22
    #[test]
    fn a_record_is_filed_by_the_clock_of_its_boot() {
        let now = Reading { wall: Timestamp::from_millis(10_000_000), boot_ms: 1_200_000 };
        let latest = Timestamp::from_millis(10_062_000);
        let before = Some(("before".to_owned(), -70_000_000));
        let mapping = Mapping { boot_id: "now".into(), offset_ms: 8_802_000, reading: now, before };
        for (boot_id, wall_ms, boot_ms, want, why) in [
            ("now", 9_400_000, 600_000, 9_402_000, "of this boot"),
            ("now", 5_800_000, 600_000, 9_402_000, "the wall clock was set ahead by an hour since"),
            ("now", 13_000_000, 600_000, 9_402_000, "it was set back since"),
            ("now", 9_402_000, 599_000, 9_401_000, "the host slept: boot time counts its sleep"),
            ("before", 3_000_000, 78_000_000, 8_000_000, "of the boot before, whose clock is known"),
            ("other", 9_390_000, 590_000, 9_392_000, "of an unknown boot: its wall time, corrected"),
            ("other", 40_000_000, 590_000, 10_062_000, "nothing is later than now, however wrong the clock"),
            ("", 9_400_000, 600_000, 9_402_000, "an older agent that does not say"),
        ] {
            let clock = pb::ClockReading { wall_ms, boot_ms, boot_id: boot_id.into() };
            let at = event_time(Some(clock), &mapping, latest).unwrap();
            assert_eq!(at.as_millis(), want, "{why}");
        }
    }
}
