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
    let put = |table, key: Vec<u8>, value| Write { table, key, value: Some(value) };
    match &event.subject {
        Subject::Incident(incident) => {
            let number = incident.number.to_be_bytes().to_vec();
            let record = pb::Incident::from(incident).encode_to_vec();
            let mut writes = vec![put(Table::Incidents, number.clone(), record)];
            if event.kind.is_public() {
                let key = [number, event.seq.to_be_bytes().to_vec()].concat();
                writes.push(put(Table::Timeline, key, pb::Event::from(event).encode_to_vec()));
            }
            writes
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
        | Subject::Hole(_) => Vec::new(), // Hot state only: it is small, and read from the ledger.
    }
}

fn project_run(run: &JobRun) -> Vec<Write> {
    let id = run.run_id.as_bytes().to_vec();
    let mut record = pb::JobRun::from(run);
    let output = std::mem::take(&mut record.output_tail);
    let put = |table, key: Vec<u8>, value| Write { table, key, value: Some(value) };
    let mut writes = vec![
        put(Table::Runs, id.clone(), record.encode_to_vec()),
        put(Table::RunsByTime, [time_key(run.started_at), id.clone()].concat(), Vec::new()),
    ];
    for (part, bytes) in (0u8..).zip(output.as_bytes().chunks(OUTPUT_PART_BYTES)) {
        writes.push(put(Table::Outputs, [id.clone(), vec![part]].concat(), bytes.to_vec()));
    }
    writes
}

/// Bytes whose order is that of the instants.
pub(super) fn time_key(at: Timestamp) -> Vec<u8> {
    (at.as_millis() ^ i64::MIN).to_be_bytes().to_vec()
}
