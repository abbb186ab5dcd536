//! How much a message may hold, counted in its bytes before anything is made of them.
//!
//! Two bytes on the wire can be three hundred in memory: an empty record in a list. So an agent's message is walked
//! first, without allocating, and one with more elements than any that is meant is refused. Not here: what is in them.

use crate::pb;

/// Rows in a message.
pub const ROWS_MAX: usize = 512;
/// Records in a message.
pub const RECORDS_MAX: usize = 256;
/// Series in a table: as many as a row has columns.
pub const SERIES_MAX: usize = tocsin_shared::chain::WIDTH_MAX;
/// Labels of a whole table: ten for each of its series.
const LABELS_MAX: usize = 10 * SERIES_MAX;
/// Facts of a host and lanes that wait, and then some.
const FEW_MAX: usize = 256;

/// Why bytes are not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWire {
    #[error("the message is not protobuf")]
    Malformed,
    #[error("the message has more than {max} {what}; send fewer at once")]
    TooMany { what: &'static str, max: usize },
}

/// Elements of one message, however often and in whatever order its fields come: repeated ones are merged.
#[derive(Default)]
struct Counted {
    rows: usize,
    records: usize,
    series: usize,
    labels: usize,
    few: usize,
}

impl Counted {
    fn check(&self) -> Result<(), InvalidWire> {
        for (what, count, max) in [
            ("rows", self.rows, ROWS_MAX),
            ("records", self.records, RECORDS_MAX),
            ("series", self.series, SERIES_MAX),
            ("labels in a table", self.labels, LABELS_MAX),
            ("facts or lanes", self.few, FEW_MAX),
        ] {
            if max < count {
                return Err(InvalidWire::TooMany { what, max });
            }
        }
        Ok(())
    }
}

/// Whether the bytes of a `SessionRequest` hold no more than one may. They need not be a valid one.
pub fn check_session_request(bytes: &[u8]) -> Result<(), InvalidWire> {
    let mut counted = Counted::default();
    each(bytes, |field, inside| {
        match (field, inside) {
            (1, Field::Bytes(hello)) => each(hello, |field, _| {
                counted.few += usize::from(field == 7);
                counted.check()
            }),
            (2, Field::Bytes(table)) => each(table, |field, inside| match (field, inside) {
                (2, Field::Bytes(series)) => {
                    counted.series += 1;
                    each(series, |field, _| {
                        counted.labels += usize::from(field == 1);
                        counted.check()
                    })
                }
                _ => counted.check(),
            }),
            (3, Field::Bytes(rows)) => each(rows, |field, _| {
                counted.rows += usize::from(field == 1);
                counted.check()
            }),
            (4, Field::Bytes(records)) => each(records, |field, _| {
                counted.records += usize::from(field == 2);
                counted.check()
            }),
            (5, Field::Bytes(heartbeat)) => each(heartbeat, |field, inside| {
                counted.few += match (field, inside) {
                    (2, Field::Bytes(packed)) => packed.len(), // A byte each, at least.
                    (2, Field::Number) => 1,
                    _ => 0,
                };
                counted.check()
            }),
            _ => Ok(()),
        }?;
        counted.check()
    })
}

/// Checks the bytes of a message of this type before it is decoded; most types need it not.
pub(crate) fn check<T: 'static>(bytes: &[u8]) -> Result<(), InvalidWire> {
    use std::any::TypeId;
    if TypeId::of::<T>() == TypeId::of::<pb::SessionRequest>() {
        check_session_request(bytes)
    } else {
        Ok(())
    }
}

enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// Calls `see` with each field of a message. Groups, which nobody writes any more, are malformed.
fn each<'a>(
    mut bytes: &'a [u8],
    mut see: impl FnMut(u64, Field<'a>) -> Result<(), InvalidWire>,
) -> Result<(), InvalidWire> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => varint(&mut bytes).map(|_| Field::Number)?,
            1 => taken(&mut bytes, 8).map(|_| Field::Number)?,
            5 => taken(&mut bytes, 4).map(|_| Field::Number)?,
            2 => {
                let length = varint(&mut bytes)?;
                let length = usize::try_from(length).map_err(|_| InvalidWire::Malformed)?;
                Field::Bytes(taken(&mut bytes, length)?)
            }
            _ => return Err(InvalidWire::Malformed),
        };
        see(tag >> 3, field)?;
    }
    Ok(())
}

fn taken<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], InvalidWire> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(InvalidWire::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, InvalidWire> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = taken(bytes, 1)?[0];
        if shift == 63 && 1 < byte {
            return Err(InvalidWire::Malformed);
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(InvalidWire::Malformed)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::session_request::Kind;

    fn length_delimited(field: u8, inside: &[u8]) -> Vec<u8> {
        let mut bytes = vec![field << 3 | 2];
        prost::encoding::encode_varint(inside.len() as u64, &mut bytes);
        bytes.extend(inside);
        bytes
    }

    // Cases: H9
    #[test]
    fn what_takes_more_memory_than_bytes_is_refused() {
        let table = |labels: usize| length_delimited(2, &length_delimited(2, &[10, 0].repeat(labels)));
        for (name, bytes, want) in [
            ("rows at the limit", length_delimited(3, &[10, 0].repeat(ROWS_MAX)), None),
            ("a row more", length_delimited(3, &[10, 0].repeat(ROWS_MAX + 1)), Some("rows")),
            ("a row in each of many", length_delimited(3, &[10, 0]).repeat(ROWS_MAX + 1), Some("rows")),
            ("two million records", length_delimited(4, &[18, 0].repeat(2_000_000)), Some("records")),
            ("two million series", length_delimited(2, &[18, 0].repeat(2_000_000)), Some("series")),
            ("two million labels", table(2_000_000), Some("labels in a table")),
            ("many tables", table(32).repeat(SERIES_MAX / 32 * 10 + 32), Some("labels in a table")),
            ("facts", length_delimited(1, &[58, 0].repeat(257)), Some("facts or lanes")),
            ("lanes", length_delimited(5, &length_delimited(2, &[0; 257])), Some("facts or lanes")),
            ("unpacked lanes", length_delimited(5, &[16, 0].repeat(257)), Some("facts or lanes")),
            ("unknown fields", length_delimited(9, &[0; 1_000]).repeat(1_000), None),
        ] {
            let got = match check_session_request(&bytes) {
                Ok(()) => None,
                Err(InvalidWire::TooMany { what, .. }) => Some(what),
                Err(InvalidWire::Malformed) => panic!("{name} is malformed"),
            };
            assert_eq!(got, want, "{name}");
        }
    }

    // Cases: H9
    #[test]
    fn what_is_no_message_is_refused_without_a_panic() {
        let nested = (0..200).fold(Vec::new(), |inside, _| length_delimited(2, &inside));
        for (name, bytes, malformed) in [
            ("a length beyond the end", vec![10, 200], true),
            ("a length of 2^64 - 1", [&[10][..], &[0xff; 9], &[1]].concat(), true),
            ("a varint that overflows", [&[8][..], &[0xff; 9], &[2]].concat(), true),
            ("a varint without end", vec![8, 0x80], true),
            ("a group", vec![11, 12], true),
            ("nested two hundred deep", nested, false),
        ] {
            assert_eq!(check_session_request(&bytes) == Err(InvalidWire::Malformed), malformed, "{name}");
            // What passes here may still be refused by the decoder, and never panics there.
            pb::SessionRequest::decode(bytes.as_slice()).ok();
        }
        let invalid_text = length_delimited(1, &length_delimited(2, &[0xff, 0xfe]));
        assert!(pb::SessionRequest::decode(invalid_text.as_slice()).is_err(), "text is UTF-8");
        let twice = [length_delimited(3, &[10, 0]), length_delimited(5, &[])].concat();
        let last = pb::SessionRequest::decode(twice.as_slice()).unwrap().kind;
        assert!(matches!(last, Some(Kind::Heartbeat(_))), "of two kinds the last one counts");
    }
}
