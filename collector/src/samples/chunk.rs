//! A closed chunk: the rows of one host over a stretch of time, one time column and many value columns, packed.
//!
//! `entries` has one word a column: a small whole number that the column always is, or where its bytes begin in
//! `body`. Each packed column ends in its own crc32, so that a single column can be read from a file and trusted.
//! Which series a column belongs to is not known here: the holder keeps that list, shared between chunks.

use super::bytes::{Malformed, Reader, unzigzag, zigzag};
use super::codec::{Effort, decode_times, decode_values, encode_times, encode_values, is_absent};
use super::latest::last_present;

/// Set in an entry that is the constant itself (zigzag, 31 bits) instead of an offset.
const INLINE: u32 = 1 << 31;
/// The most rows of any chunk, in memory or in a file: what is read at once stays small.
pub(crate) const CHUNK_ROWS_MAX: usize = 1024;

/// The part of a chunk that finds its columns: times and entries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) rows: usize,
    pub(crate) times: Box<[u8]>,
    pub(crate) entries: Box<[u32]>,
}

/// A column, as its entry tells.
pub(crate) enum Place {
    Constant(f64),
    /// Bytes of the body from here to there, the crc32 included.
    Packed(std::ops::Range<usize>),
}

impl Head {
    /// The times of the rows, milliseconds.
    pub(crate) fn times(&self) -> Result<Vec<i64>, Malformed> {
        decode_times(&self.times, self.rows)
    }

    /// Where column `index` is in a body of `body` bytes.
    pub(crate) fn place(&self, index: usize, body: usize) -> Result<Place, Malformed> {
        let entry = *self.entries.get(index).ok_or(Malformed("a column that is not in its chunk"))?;
        if entry & INLINE != 0 {
            return Ok(Place::Constant(unzigzag(u64::from(entry & !INLINE)) as f64));
        }
        let next = self.entries[index + 1..].iter().find(|next| **next & INLINE == 0);
        let (start, end) = (entry as usize, next.map_or(body, |next| *next as usize));
        let sound = start < end && end <= body;
        if sound { Ok(Place::Packed(start..end)) } else { Err(Malformed("a column outside its chunk")) }
    }

    /// Where the packed ones of these columns lie in a body of `body` bytes; empty when none is, or all is damaged.
    pub(crate) fn stretch(&self, columns: std::ops::Range<usize>, body: usize) -> std::ops::Range<usize> {
        let packed = |at: &usize| self.entries.get(*at).is_some_and(|entry| entry & INLINE == 0);
        let (first, last) = (columns.clone().find(packed), columns.rev().find(packed));
        let place = |at: Option<usize>| match self.place(at?, body).ok()? {
            Place::Packed(range) => Some(range),
            Place::Constant(_) => None,
        };
        match (place(first), place(last)) {
            (Some(first), Some(last)) if first.start < last.end => first.start..last.end,
            _ => 0..0,
        }
    }

    /// As the bytes of a block file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.entries.len() * 4 + self.times.len());
        out.extend_from_slice(&(self.rows as u32).to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        self.entries.iter().for_each(|entry| out.extend_from_slice(&entry.to_le_bytes()));
        out.extend_from_slice(&self.times);
        out
    }

    /// From the bytes of a block file.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let (rows, columns) = (reader.u32()? as usize, reader.u32()? as usize);
        if rows > CHUNK_ROWS_MAX {
            return Err(Malformed("a chunk of too many rows"));
        }
        let size = columns.checked_mul(4).ok_or(Malformed("too many columns"))?;
        let (words, _) = reader.take(size)?.as_chunks::<4>();
        let entries = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        Ok(Self { rows, entries, times: reader.0.into() })
    }
}

/// Reads a packed column of `rows` values, its crc32 checked.
pub(crate) fn unpack(bytes: &[u8], rows: usize) -> Result<Vec<f64>, Malformed> {
    decode_values(verified(bytes)?, rows)
}

/// The bytes of a column without their crc32, which is checked.
fn verified(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let (column, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed("a column is cut short"))?;
    match crc32fast::hash(column) == u32::from_le_bytes(*crc) {
        true => Ok(column),
        false => Err(Malformed("a column does not match its checksum")),
    }
}

/// A closed chunk in memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    /// The first and the last time, milliseconds.
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Cells that hold a value.
    pub(crate) samples: u64,
    pub(crate) head: Head,
    pub(crate) body: Box<[u8]>,
}

impl Chunk {
    /// The values of column `index`, a cell a row.
    pub(crate) fn values(&self, index: usize) -> Result<Vec<f64>, Malformed> {
        match self.head.place(index, self.body.len())? {
            Place::Constant(value) => Ok(vec![value; self.head.rows]),
            Place::Packed(range) => unpack(&self.body[range], self.head.rows),
        }
    }

    /// A chunk that was read back, with the checksum of every column looked at. How many cells hold a value is taken
    /// from its size: it is counted again where it matters, in a block.
    pub(crate) fn checked(first: i64, last: i64, head: Head, body: Box<[u8]>) -> Result<Self, Malformed> {
        for column in 0..head.entries.len() {
            if let Place::Packed(range) = head.place(column, body.len())? {
                verified(&body[range])?;
            }
        }
        let samples = (head.rows * head.entries.len()) as u64;
        Ok(Self { first, last, samples, head, body })
    }

    /// The same columns in another order, as they are packed.
    pub(crate) fn reordered(&self, order: &[usize]) -> Result<Self, Malformed> {
        let (mut entries, mut body) = (Vec::with_capacity(order.len()), Vec::with_capacity(self.body.len()));
        for column in order {
            let entry =
                *self.head.entries.get(*column).ok_or(Malformed("a column that is not in its chunk"))?;
            match self.head.place(*column, self.body.len())? {
                Place::Constant(_) => entries.push(entry),
                Place::Packed(range) => {
                    entries.push(body.len() as u32);
                    body.extend_from_slice(&self.body[range]);
                }
            }
        }
        let head = Head { entries: entries.into(), ..self.head.clone() };
        Ok(Self { head, body: body.into(), ..*self })
    }

    /// The newest sample of column `index` in (from, to].
    pub(crate) fn latest(&self, index: usize, span: (i64, i64)) -> Result<Option<(i64, f64)>, Malformed> {
        let times = self.head.times()?;
        Ok(match self.head.place(index, self.body.len())? {
            Place::Constant(value) => last_present(&times, span, |_| value),
            Place::Packed(range) => {
                let values = unpack(&self.body[range], self.head.rows)?;
                last_present(&times, span, |row| values[row])
            }
        })
    }

    /// Bytes of memory, the list of series not counted.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.head.times.len() + self.head.entries.len() * 4 + self.body.len()
    }
}

/// Packs columns, given in the order of their series.
pub(crate) struct ChunkBuilder<'a> {
    times: &'a [i64],
    series: Vec<u32>,
    entries: Vec<u32>,
    body: Vec<u8>,
    samples: u64,
    effort: Effort,
}

impl<'a> ChunkBuilder<'a> {
    /// A chunk of these rows.
    pub(crate) fn new(times: &'a [i64]) -> Self {
        Self {
            times,
            series: Vec::new(),
            entries: Vec::new(),
            body: Vec::new(),
            samples: 0,
            effort: Effort::Sealing,
        }
    }

    /// Packed with another effort.
    pub(crate) fn with(self, effort: Effort) -> Self {
        Self { effort, ..self }
    }

    /// Adds a series that is `value` in every row.
    pub(crate) fn push_constant(&mut self, series: u32, value: f64) {
        let whole = value as i64;
        let small = zigzag(whole) < u64::from(INLINE) && (whole as f64).to_bits() == value.to_bits();
        if !small {
            return self.push(series, &vec![value; self.times.len()]);
        }
        self.series.push(series);
        self.entries.push(INLINE | zigzag(whole) as u32);
        self.samples += self.times.len() as u64;
    }

    /// Adds a series with a cell for each row; one without any value is left out.
    pub(crate) fn push(&mut self, series: u32, values: &[f64]) {
        let present = values.iter().filter(|value| !is_absent(**value)).count();
        let Some(first) = values.first().filter(|_| present > 0) else { return };
        let (whole, bits) = (*first as i64, first.to_bits());
        let inline = zigzag(whole) < u64::from(INLINE)
            && (whole as f64).to_bits() == bits
            && values.iter().all(|value| value.to_bits() == bits);
        if inline {
            return self.push_constant(series, *first);
        }
        let start = self.body.len();
        self.series.push(series);
        self.entries.push(start as u32);
        encode_values(values, self.effort, &mut self.body);
        let crc = crc32fast::hash(&self.body[start..]);
        self.body.extend_from_slice(&crc.to_le_bytes());
        self.samples += present as u64;
    }

    /// The chunk and the series of its columns; nothing when no row holds a value.
    pub(crate) fn finish(self) -> Option<(Vec<u32>, Chunk)> {
        let (first, last) = (*self.times.first()?, *self.times.last()?);
        if self.series.is_empty() {
            return None;
        }
        let mut times = Vec::new();
        encode_times(self.times, &mut times);
        let head = Head { rows: self.times.len(), times: times.into(), entries: self.entries.into() };
        Some((self.series, Chunk { first, last, samples: self.samples, head, body: self.body.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::ABSENT;
    use super::*;

    #[test]
    fn columns_come_back_alone_and_damage_is_noticed() {
        let times = (0..120).map(|row| row * 10_000).collect::<Vec<i64>>();
        let wave = times.iter().map(|time| (*time as f64).sin()).collect::<Vec<_>>();
        let mut builder = ChunkBuilder::new(&times);
        builder.push_constant(2, -7.0);
        builder.push(3, &wave);
        builder.push(4, &[ABSENT; 120]);
        builder.push_constant(5, 0.5);
        builder.push(6, &[1e9; 120]);
        builder.push_constant(9, -0.0);
        let (series, mut chunk) = builder.finish().unwrap();
        assert_eq!(series, [2, 3, 5, 6, 9]);
        assert_eq!(chunk.samples, 5 * 120);
        assert_eq!(Head::from_bytes(&chunk.head.to_bytes()).unwrap(), chunk.head);
        assert_eq!(chunk.head.times().unwrap(), times);
        let firsts = (0..5).map(|column| chunk.values(column).unwrap()[7].to_bits()).collect::<Vec<_>>();
        assert_eq!(firsts, [-7.0, wave[7], 0.5, 1e9, -0.0].map(f64::to_bits));
        assert!(chunk.values(5).is_err());
        chunk.body[40] ^= 1;
        assert!(chunk.values(1).is_err(), "the damaged column");
        assert!(chunk.values(2).is_ok(), "its neighbour");
    }

    #[test]
    fn small_whole_constants_take_only_their_entry() {
        let times = (0..120).collect::<Vec<i64>>();
        let mut builder = ChunkBuilder::new(&times);
        (0..500).for_each(|series| builder.push_constant(series, f64::from(series)));
        let (_, chunk) = builder.finish().unwrap();
        assert_eq!(chunk.body.len(), 0);
        assert!(chunk.memory() < 500 * 4 + 200, "{} bytes", chunk.memory());
    }
}
