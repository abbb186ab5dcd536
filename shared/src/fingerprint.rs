//! A short digest of a row or a record, to tell whether two programs mean the same one by one number.
//!
//! Two lives of one spool (a snapshot that was restored, a copy) give the same number to different rows. Thirty-two
//! bits tell them apart but for one time in four billion; nobody gains by forging it.

use crate::time::Timestamp;

/// Of a row's times and values, bit by bit.
pub fn of_row(wall: Timestamp, boot_ms: u64, values: &[f64]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&wall.as_millis().to_le_bytes());
    crc.update(&boot_ms.to_le_bytes());
    for value in values {
        crc.update(&value.to_bits().to_le_bytes());
    }
    crc.finalize()
}

/// Of a record's bytes, its own number left out.
pub fn of_record(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_values_count() {
        let row = |wall, boot_ms, values: &[f64]| of_row(Timestamp::from_millis(wall), boot_ms, values);
        let one = row(1, 2, &[3.0, f64::NAN]);
        assert_eq!(one, row(1, 2, &[3.0, f64::NAN]));
        for other in [
            row(2, 2, &[3.0, f64::NAN]),
            row(1, 3, &[3.0, f64::NAN]),
            row(1, 2, &[3.0]),
            row(1, 2, &[3.0, 0.0]),
        ] {
            assert_ne!(one, other);
        }
    }
}
