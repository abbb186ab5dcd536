//! Records and rows as the spool keeps them and the wire carries them.
//!
//! The spool holds the wire's own messages, with `seq` left open: the number is the spool's, and is filled in at
//! sending. Beside `client` the only place of the agent that names the wire's types.

use std::sync::Arc;

use prost::Message as _;
use prost::bytes::Bytes;
use tocsin_proto::convert::{Number as _, labels_out};
use tocsin_proto::pb;
use tocsin_proto::pb::record::Kind;
use tocsin_shared::job::{BootId, JobEnded, JobRecord, JobStarted, Outcome};
use tocsin_shared::labels::Labels;
use tocsin_shared::run::RunResult;
use tocsin_shared::time::Timestamp;

use crate::spool::{Gap, Reason};
use crate::tick::Reading;

/// The kinds of frames in the spool's lanes.
pub(crate) const TABLE: u8 = 1;
pub(crate) const ROW: u8 = 2;
pub(crate) const RECORD: u8 = 3;

/// A series table and the boot in which its rows are taken.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub id: u64,
    pub series: Arc<[Labels]>,
    pub boot_id: Arc<str>,
}

impl Table {
    pub(crate) fn to_wire(&self) -> pb::SeriesTable {
        let series = self.series.iter().map(|labels| pb::Series { labels: labels_out(labels) }).collect();
        pb::SeriesTable { table_id: self.id, series, boot_id: self.boot_id.as_ref().to_owned() }
    }
}

/// A row as it stands in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredRow {
    pub table_id: u64,
    pub chain: u64,
    pub index: u32,
    pub data: Bytes,
}

impl StoredRow {
    pub(crate) fn to_wire(&self, seq: u64) -> pb::Row {
        let Self { table_id, chain, index, data } = self.clone();
        pb::Row { seq, table_id, chain, index, data }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.to_wire(0).encode_to_vec()
    }

    pub(crate) fn decode(payload: Vec<u8>) -> Option<Self> {
        let pb::Row { seq: _, table_id, chain, index, data } = pb::Row::decode(Bytes::from(payload)).ok()?;
        Some(Self { table_id, chain, index, data })
    }
}

/// A record of the outcomes or the state lane, `seq` open.
pub(crate) fn encode(kind: Kind) -> Vec<u8> {
    pb::Record { seq: 0, kind: Some(kind) }.encode_to_vec()
}

/// A stored record with its number; none when it cannot be read.
pub(crate) fn decode(seq: u64, payload: &[u8]) -> Option<pb::Record> {
    let record = pb::Record::decode(payload).ok()?;
    record.kind.is_some().then_some(pb::Record { seq, ..record })
}

/// An outcome without its output, if it has any: what the spool gives up before records. It says so.
pub(crate) fn without_output(kind: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let record = (kind == RECORD).then(|| pb::Record::decode(payload).ok()).flatten()?;
    match record.kind {
        Some(Kind::RunEnded(run)) if !run.output_tail.is_empty() => {
            let run = pb::RunEnded { output_tail: String::new(), output_dropped: true, ..run };
            Some(encode(Kind::RunEnded(run)))
        }
        _ => None,
    }
}

/// Both clocks, as the wire says them.
pub(crate) fn clock(Reading { wall, boot_ms }: Reading) -> pb::ClockReading {
    pb::ClockReading { wall_ms: wall.as_millis(), boot_ms, boot_id: String::new() }
}

/// Both clocks of a record, which says their boot: it may be sent in another one.
fn clock_in(boot_id: &str, reading: Reading) -> pb::ClockReading {
    pb::ClockReading { boot_id: boot_id.to_owned(), ..clock(reading) }
}

/// Something that happened to the host: `boot`, `agent_start`, `clock_step`.
pub(crate) fn host_event(boot_id: &str, what: &str, at: Reading, step_ms: i64) -> Kind {
    Kind::HostEvent(pb::HostEvent { at: Some(clock_in(boot_id, at)), what: what.to_owned(), step_ms })
}

/// Records that will never come.
pub(crate) fn gap(gap: &Gap) -> Kind {
    let Gap { lane, first, last, count: _, reason } = *gap;
    let reason = match reason {
        Reason::Evicted => pb::GapReason::Evicted,
        Reason::Corrupt => pb::GapReason::Corrupt,
        Reason::Torn => pb::GapReason::Torn,
    };
    Kind::Gap(pb::Gap { lane: lane.number(), first, last, reason: reason.into(), epoch: String::new() })
}

/// What a wrapper reported.
pub(crate) fn job(record: JobRecord) -> Kind {
    match record {
        JobRecord::Started(started) => Kind::RunStarted(run_started(started)),
        JobRecord::Ended(ended) => Kind::RunEnded(run_ended(ended)),
    }
}

fn at(boot: &BootId, wall: Timestamp, boot_ms: u64) -> Option<pb::ClockReading> {
    Some(clock_in(boot, Reading { wall, boot_ms }))
}

fn run_started(started: JobStarted) -> pb::RunStarted {
    let JobStarted { run_id, job, pid, user, uid, command, started_at, started_boot_ms, started_boot } =
        started;
    pb::RunStarted {
        run_id: run_id.to_string(),
        job_name: job.to_string(),
        started: at(&started_boot, started_at, started_boot_ms),
        pid,
        uid,
        user: user.into_string(),
        command: command.into_string(),
    }
}

fn run_ended(ended: JobEnded) -> pb::RunEnded {
    // A cut tail shows by `output_bytes`; what outlived the job is said in the agent's log only.
    let JobEnded { run_id, job, uid, user, started_at, ended_at, started_boot_ms, ended_boot_ms, .. } =
        &ended;
    let JobEnded {
        duration, outcome, output_tail, output_bytes, truncated: _, background_children: _, ..
    } = &ended;
    let JobEnded { started_boot, ended_boot, alike, .. } = &ended;
    pb::RunEnded {
        run_id: run_id.to_string(),
        job_name: job.to_string(),
        started: at(started_boot, *started_at, *started_boot_ms),
        ended: at(ended_boot, *ended_at, *ended_boot_ms),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        uid: *uid,
        user: user.to_string(),
        command: String::new(),
        result: Some((&result(outcome)).into()),
        output_tail: output_tail.to_string(),
        output_bytes: *output_bytes,
        alike: *alike,
        output_dropped: false,
    }
}

fn result(outcome: &Outcome) -> RunResult {
    match outcome {
        Outcome::Exited(0) => RunResult::Succeeded,
        Outcome::Exited(code) => RunResult::Failed { exit_code: i32::from(*code) },
        Outcome::Signalled { signal, core, out_of_memory } => {
            RunResult::Killed { signal: *signal, core_dumped: *core, out_of_memory: *out_of_memory }
        }
        Outcome::CouldNotStart { errno, message } => {
            RunResult::CouldNotStart { errno: *errno, message: message.to_string() }
        }
        Outcome::Interrupted { reason } => RunResult::Interrupted { reason: reason.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tocsin_shared::job::{JobName, Message, OutputTail, RunId, UserName};
    use tocsin_shared::lane::Lane;
    use uuid::Uuid;

    use super::*;

    fn ended(outcome: Outcome) -> JobRecord {
        JobRecord::Ended(JobEnded {
            run_id: RunId(Uuid::from_u128(7)),
            job: JobName::parse("backup").unwrap(),
            uid: 1000,
            user: UserName::keep_start("ops"),
            started_at: Timestamp::from_millis(1_000),
            ended_at: Timestamp::from_millis(3_000),
            started_boot_ms: 10,
            ended_boot_ms: 2_010,
            duration: Duration::from_secs(2),
            outcome,
            output_tail: OutputTail::keep_end("done\n"),
            output_bytes: 5,
            truncated: false,
            background_children: false,
            started_boot: BootId::keep_start("one"),
            ended_boot: BootId::keep_start("two"),
            alike: 411,
        })
    }

    // Cases: P3
    #[test]
    fn every_outcome_of_a_job_comes_through_the_spool() {
        let could_not = Outcome::CouldNotStart { errno: 2, message: Message::keep_start("no such file") };
        for (outcome, result) in [
            (Outcome::Exited(0), RunResult::Succeeded),
            (Outcome::Exited(3), RunResult::Failed { exit_code: 3 }),
            (
                Outcome::Signalled { signal: 9, core: true, out_of_memory: true },
                RunResult::Killed { signal: 9, core_dumped: true, out_of_memory: true },
            ),
            (
                Outcome::Interrupted { reason: Message::keep_start("gone") },
                RunResult::Interrupted { reason: "gone".into() },
            ),
            (could_not, RunResult::CouldNotStart { errno: 2, message: "no such file".into() }),
        ] {
            let record = decode(42, &encode(job(ended(outcome)))).unwrap();
            let Some(Kind::RunEnded(run)) = record.kind else { panic!("{record:?}") };
            assert_eq!((record.seq, run.uid, run.duration_ms), (42, 1000, 2_000));
            assert_eq!(
                run.ended,
                Some(pb::ClockReading { wall_ms: 3_000, boot_ms: 2_010, boot_id: "two".into() })
            );
            assert_eq!((run.started.clone().unwrap().boot_id.as_str(), run.alike), ("one", 411));
            assert_eq!(RunResult::try_from(run.result.clone().unwrap()).unwrap(), result);
            assert_eq!((run.output_tail.as_str(), run.output_bytes), ("done\n", 5));
            let whole = encode(Kind::RunEnded(run.clone()));
            let shorter = without_output(RECORD, &whole).unwrap();
            let Some(Kind::RunEnded(kept)) = decode(42, &shorter).unwrap().kind else { panic!("an end") };
            let expected = pb::RunEnded { output_tail: String::new(), output_dropped: true, ..run };
            assert_eq!(kept, expected, "everything but its output");
            assert_eq!(without_output(RECORD, &shorter), None);
        }
    }

    #[test]
    fn gaps_name_lane_range_and_reason() {
        for (reason, number) in [(Reason::Evicted, 1), (Reason::Corrupt, 2), (Reason::Torn, 3)] {
            let lost = Gap { lane: Lane::Samples, first: 3, last: 9, count: 7, reason };
            let expected = pb::Gap { lane: 3, first: 3, last: 9, reason: number, epoch: String::new() };
            assert_eq!(gap(&lost), Kind::Gap(expected));
        }
    }

    #[test]
    fn rows_come_through_the_spool_and_noise_does_not() {
        let row = StoredRow { table_id: 3, chain: 5, index: 2, data: Bytes::from_static(b"abc") };
        assert_eq!(StoredRow::decode(row.encode()), Some(row));
        assert_eq!(StoredRow::decode(vec![0xff; 9]), None);
        assert_eq!(decode(1, &[]), None, "a record without a kind");
    }
}
