//! What the row encoding alone costs on a recording: no network, no disk.

use prost::Message as _;
use tocsin_proto::pb;
use tocsin_shared::chain::{CHAIN_ROWS_MAX, Chain};
use tocsin_shared::time::Timestamp;

use crate::replay::Recording;

/// What a recording took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub rows: u64,
    pub samples: u64,
    /// Samples that differ from the row before.
    pub changed: u64,
    /// The rows' own bytes.
    pub row_bytes: u64,
    /// The bytes of the `Rows` messages that carry them one by one.
    pub message_bytes: u64,
    /// The series table, sent once.
    pub table_bytes: u64,
    /// Time in `Chain::encode` for all rows.
    pub encode: std::time::Duration,
}

impl Cost {
    /// Bytes of rows a sample.
    pub fn per_sample(&self) -> f64 {
        self.row_bytes as f64 / self.samples as f64
    }
}

/// Encodes every `step`-th scrape of the recording, as an agent with that interval would have.
pub fn measure(recording: &Recording, step: usize) -> Cost {
    let width = recording.series.len();
    let table = crate::virtual_agent::table(1, &recording.series, "");
    let mut cost = Cost {
        rows: 0,
        samples: 0,
        changed: 0,
        row_bytes: 0,
        message_bytes: 0,
        table_bytes: table.encoded_len() as u64,
        encode: std::time::Duration::ZERO,
    };
    let (mut chain, mut opened, mut last) = (Chain::new(width), 1, None::<&[f64]>);
    for (tick, scrape) in (0..recording.scrapes()).step_by(step).enumerate() {
        let seq = tick as u64 + 1;
        if chain.rows() == CHAIN_ROWS_MAX {
            (chain, opened) = (Chain::new(width), seq);
        }
        let values = recording.recorded(scrape);
        let at = 1_795_400_000_000 + (tick * step * 1_000) as i64;
        let (index, mut data) = (chain.rows(), Vec::new());
        let begun = std::time::Instant::now();
        chain.encode(Timestamp::from_millis(at), (tick * step * 1_000) as u64, values, &mut data);
        cost.encode += begun.elapsed();
        cost.rows += 1;
        cost.samples += width as u64;
        let differs =
            |last: &[f64]| values.iter().zip(last).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        cost.changed += last.map_or(0, differs) as u64;
        cost.row_bytes += data.len() as u64;
        let row = pb::Row { seq, table_id: 1, chain: opened, index, data: data.into() };
        cost.message_bytes += crate::virtual_agent::rows(vec![row]).encoded_len() as u64;
        last = Some(values);
    }
    cost
}
