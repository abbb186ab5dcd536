//! What is inside a block file, for fuzzing: checksums guard against rot, not against who can write the file.

use super::block::{Footer, Index};
use super::chunk::{self, Head};
use super::codec;

/// Rows of a chunk are far fewer.
const ROWS_MAX: usize = 4_096;

/// Reads bytes as a part of a block; the first says which.
pub fn block(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    match which % 5 {
        0 => drop(Index::from_bytes(data, |key| key)),
        1 => {
            let (header, footer) = data.split_at(data.len().min(12));
            Footer::from_bytes(header, footer).ok();
        }
        2 => {
            if let Ok(head) = Head::from_bytes(data) {
                head.times().ok();
                for index in 0..16 {
                    head.place(index, 1 << 16).ok();
                }
            }
        }
        _ => {
            let Some((rows, data)) = data.split_first_chunk::<2>() else { return };
            let rows = usize::from(u16::from_le_bytes(*rows)) % ROWS_MAX;
            for values in [codec::decode_values(data, rows), chunk::unpack(data, rows)].into_iter().flatten()
            {
                assert_eq!(values.len(), rows);
            }
            if let Ok(times) = codec::decode_times(data, rows) {
                assert_eq!(times.len(), rows);
            }
        }
    }
}

/// Parts of a block, each with its leading byte.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for values in [
        vec![1.0; 40],
        (0..40).map(f64::from).collect(),
        (0..40).map(|n| f64::from(n * n) * 4096.0).collect(),
        (0..40).map(|n| f64::from(n).sqrt()).collect(),
    ] {
        let mut seed = vec![3, 40, 0];
        codec::encode_values(&values, codec::Effort::Sealing, &mut seed);
        seeds.push(seed);
    }
    let times: Vec<i64> = (0..40).map(|n| 1_790_000_000_000 + n * 10_000).collect();
    let mut seed = vec![3, 40, 0];
    codec::encode_times(&times, &mut seed);
    seeds.push(seed);
    let mut builder = chunk::ChunkBuilder::new(&times);
    builder.push_constant(0, 5.0);
    builder.push(1, &times.iter().map(|time| *time as f64).collect::<Vec<_>>());
    if let Some((_, chunk)) = builder.finish() {
        seeds.push([vec![2], chunk.head.to_bytes()].concat());
    }
    seeds
}
