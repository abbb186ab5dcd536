//! What an event writes into the tables. Pure.

use prost::Message;
use tocsin_proto::pb;
use tocsin_shared::event::{Event, Subject};
use tocsin_shared::run::JobRun;
use tocsin_shared::time::Timestamp;

use super::{Table, Write};

/// sled keeps values inline up to its segment; small ones keep it well behaved.
const OUTPUT_PART_BYTES: usize = 32 * 1024;

/// The key of `applied`.
pub(super) const APPLIED: &[u8] = b"applied";

/// The writes of one event, `applied` excepted.
pub(super) fn project(event: &Event) -> Vec<Write> {
    let mut writes = project_record(&event.subject);
    if let Subject::Incident(incident) = &event.subject
        && event.kind.is_public()
    {
        let key = [incident.number.to_be_bytes(), event.seq.to_be_bytes()].concat();
        let value = Some(pb::Event::from(event).encode_to_vec());
        writes.push(Write { table: Table::Timeline, key, value });
    }
    writes
}

/// The writes of a record alone, as of a state whose events are no longer there.
pub(super) fn project_record(record: &Subject) -> Vec<Write> {
    let put = |table, key: Vec<u8>, value| Write { table, key, value: Some(value) };
    match record {
        Subject::Incident(incident) => {
            let record = pb::Incident::from(incident).encode_to_vec();
            vec![put(Table::Incidents, incident.number.to_be_bytes().to_vec(), record)]
        }
        Subject::Alert(alert) => {
            let record = pb::Alert::from(alert).encode_to_vec();
            vec![put(Table::Alerts, alert.dedup_key.clone().into_bytes(), record)]
        }
        Subject::Run(run) => project_run(run),
        Subject::Host(_)
        | Subject::Token(_)
        | Subject::Certificate(_)
        | Subject::Principal(_)
        | Subject::Consumer(_)
        | Subject::Lane(_)
        | Subject::Sealed(_)
        | Subject::Hole(_)
        | Subject::Authority(_)
        | Subject::Loss(_) => Vec::new(), // Hot state only: it is small, and read from the ledger.
    }
}

fn project_run(run: &JobRun) -> Vec<Write> {
    let id = run.run_id.as_bytes().to_vec();
    let mut record = pb::JobRun::from(run);
    let output = std::mem::take(&mut record.output_tail);
    let put = |table, key: Vec<u8>, value| Write { table, key, value: Some(value) };
    let mut writes = vec![
        put(Table::Runs, id.clone(), record.encode_to_vec()),
        put(Table::RunsByTime, [time_key(run.started_at), id.clone()].concat(), job_key(run)),
    ];
    for (part, bytes) in (0u8..).zip(output.as_bytes().chunks(OUTPUT_PART_BYTES)) {
        writes.push(put(Table::Outputs, [id.clone(), vec![part]].concat(), bytes.to_vec()));
    }
    writes
}

/// Tells the jobs of all hosts apart: 16 bytes of the agent, then the job's name.
fn job_key(run: &JobRun) -> Vec<u8> {
    [run.agent.0.as_bytes(), run.job_name.as_bytes()].concat()
}

/// Bytes whose order is that of the instants.
pub(super) fn time_key(at: Timestamp) -> Vec<u8> {
    (at.as_millis() ^ i64::MIN).to_be_bytes().to_vec()
}
