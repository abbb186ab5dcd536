//! Records of the outcomes and the state lane, as commands of the ledger.

use std::time::Duration;

use prost::Message as _;
use tocsin_proto::convert::Number;
use tocsin_proto::pb;
use tocsin_proto::pb::record::Kind;
use tocsin_shared::fingerprint;
use tocsin_shared::identity::AgentId;
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

/// The range of rows that a gap record says will never come, if it is about rows.
pub(super) fn samples_gap(record: &pb::Record) -> Option<(u64, u64)> {
    match &record.kind {
        Some(Kind::Gap(gap)) if gap.lane == Lane::Samples.number() => Some((gap.first, gap.last)),
        _ => None,
    }
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
) -> Result<Command, String> {
    let epoch = place.epoch;
    Ok(match record.kind.ok_or("a record without content")? {
        Kind::RunStarted(started) => {
            Command::JobStarted { run: run_started(agent, started, mapping)?, place }
        }
        Kind::RunEnded(ended) => Command::JobEnded { run: run_ended(agent, ended, mapping)?, place },
        Kind::Gap(pb::Gap { lane, first, last, reason }) => {
            let lane = Lane::from_number(lane).map_err(|error| error.to_string())?;
            let reason = pb::GapReason::try_from(reason).unwrap_or_default();
            let reason = reason.as_str_name().trim_start_matches("GAP_REASON_").to_lowercase();
            Command::GapRecorded { gap: GapRecord { agent, epoch, lane, first, last, reason }, place }
        }
        Kind::HostEvent(pb::HostEvent { at, what, step_ms }) => {
            let (at, what) = (event_time(at, mapping)?, limits::note(what));
            Command::HostEventNoted { agent, what, at, step_ms, place }
        }
    })
}

fn event_time(clock: Option<pb::ClockReading>, mapping: &Mapping) -> Result<Timestamp, String> {
    let pb::ClockReading { wall_ms, boot_ms } = clock.ok_or("a record without a time")?;
    let reading = Reading { wall: Timestamp::from_millis(wall_ms), boot_ms };
    // A record does not say its boot: one that is later than now was taken in another one.
    Ok(if boot_ms <= mapping.reading.boot_ms.saturating_add(60_000) && same_boot(reading, mapping.reading) {
        clock::event_time(mapping.offset_ms, reading)
    } else {
        clock::event_time_of_earlier_boot(mapping.offset_ms, mapping.reading, reading.wall)
    })
}

/// Whether two readings are of one boot, as far as a wall clock that was set by less than a reboot takes can tell.
fn same_boot(a: Reading, b: Reading) -> bool {
    let booted = |r: Reading| r.wall.as_millis().saturating_sub(i64::try_from(r.boot_ms).unwrap_or(i64::MAX));
    booted(a).saturating_sub(booted(b)).saturating_abs() < SAME_BOOT_MS
}

fn run_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| format!("run id {:?} is no uuid", limits::note(text.to_owned())))
}

fn run_started(agent: AgentId, started: pb::RunStarted, mapping: &Mapping) -> Result<RunStart, String> {
    let pb::RunStarted { run_id: id, job_name, started, pid: _, uid, user, command } = started;
    let started_at = event_time(started, mapping)?;
    Ok(RunStart { run_id: run_id(&id)?, job_name, agent, started_at, user, uid, command })
}

fn run_ended(agent: AgentId, ended: pb::RunEnded, mapping: &Mapping) -> Result<RunEnd, String> {
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
    } = ended;
    let result: RunResult =
        result.ok_or("an ended run without a result")?.try_into().map_err(|error| format!("{error}"))?;
    if result == RunResult::Running {
        return Err("an ended run that is running".into());
    }
    let duration = Duration::from_millis(duration_ms);
    let (started_at, ended_at) = (event_time(started, mapping)?, event_time(ended, mapping)?);
    Ok(RunEnd {
        run_id: run_id(&id)?,
        job_name,
        agent,
        started_at,
        ended_at: ended_at.max(started_at),
        duration: Some(duration),
        result,
        user,
        uid,
        command,
        output_tail,
        output_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_boot_keeps_its_wall_time() {
        let reading = Reading { wall: Timestamp::from_millis(10_000_000), boot_ms: 1_200_000 };
        let mapping = Mapping { boot_id: "now".into(), offset_ms: 8_802_000, reading };
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
            let at = event_time(Some(pb::ClockReading { wall_ms, boot_ms }), &mapping).unwrap();
            assert_eq!(at.as_millis(), want, "{why}");
        }
        assert!(event_time(None, &mapping).is_err());
    }
}
