//! The envelope of job records, for fuzzing: any user of the host may write one.

use super::envelope;

/// Decodes bytes; what is a record is the same record after another round.
pub fn envelope(data: &[u8]) {
    if let Ok(record) = envelope::decode(data) {
        assert_eq!(envelope::decode(&envelope::encode(&record)).as_ref(), Ok(&record));
    }
}
