//! Rows as chains: each row holds only what changed against the row before it.
//!
//! A chain is a run of rows over one series table. It opens with a *full* row; a later row names the columns that
//! changed in a bitmap (one bit a series) and gives each change as the difference of exact decimals, two or three
//! bytes for a counter of seconds or bytes. What no short decimal can say exactly is kept bit by bit, so every
//! value comes back as it went in: NaN payloads, -0.0 and infinities too.
//!
//! A row's bytes, all numbers little-endian base-128 varints, signed ones zigzag:
//!
//! ```text
//! flags          one byte; 1: full row
//! at             full: milliseconds, signed;  else: difference to the row before
//! boot           full: milliseconds;          else: difference, less the difference of `at`
//! width          full only: number of columns
//! changed        not full: bitmap, ceil(width / 8) bytes, bit i%8 of byte i/8
//! value…         for each column (full) or each changed column:
//!   t & 1 == 0   the integer grew by zigzag⁻¹(t >> 1), at the scale the column has
//!   t & 3 == 1   new scale (t >> 2) & 15; a signed varint follows: the integer itself
//!   t & 3 == 3   eight bytes follow: the bits of the float
//! ```
//!
//! A value is integer / 10^scale, scale 0 to 9. A full row starts every column at integer 0, scale 0.

use crate::time::Timestamp;

/// Rows in one chain at most: what a lost connection costs is one full row in 64.
pub const CHAIN_ROWS_MAX: u32 = 64;
/// Columns of one table at most; checked before any allocation.
pub const WIDTH_MAX: usize = 20_000;

const FULL: u8 = 1;
const SCALE_MAX: u8 = 9;
const RAW: u8 = 15; // Not a scale: the column's last value was no short decimal.
const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Integers up to here are exact in a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Why bytes are not a row.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRow {
    #[error("row ends early, at byte {0}")]
    Short(usize),
    #[error("row has {0} bytes too many")]
    Long(usize),
    #[error("row has unknown flags {0:#x}")]
    Flags(u8),
    #[error("row has {got} columns, its table has {want}")]
    Width { got: usize, want: usize },
    #[error("row changes a chain that has no full row yet")]
    NoFullRow,
    #[error("row has a number that is out of range, at byte {0}")]
    Number(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Column {
    int: i64,
    scale: u8,
}

/// A chain as its writer or its reader knows it after the last row: both hold the same state.
#[derive(Clone, Debug)]
pub struct Chain {
    at: i64,
    boot_ms: u64,
    columns: Vec<Column>,
    values: Vec<f64>,
    rows: u32,
}

impl Chain {
    /// A chain over a table of this many series; at most `WIDTH_MAX` are ever encoded.
    pub fn new(width: usize) -> Self {
        let width = width.min(WIDTH_MAX);
        let columns = vec![Column { int: 0, scale: 0 }; width];
        Self { at: 0, boot_ms: 0, columns, values: vec![0.0; width], rows: 0 }
    }

    /// Rows encoded or decoded so far.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Wall time of the last row, on the tick's grid.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at)
    }

    /// CLOCK_BOOTTIME of the last row, in milliseconds.
    pub fn boot_ms(&self) -> u64 {
        self.boot_ms
    }

    /// The values of the last row, in the table's order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Appends the next row to `out`: a full one first, changes later. `values` has the table's width.
    pub fn encode(&mut self, at: Timestamp, boot_ms: u64, values: &[f64], out: &mut Vec<u8>) {
        if self.rows == 0 {
            self.encode_full(at, boot_ms, values, out)
        } else {
            self.encode_changes(at, boot_ms, values, out)
        }
        self.rows += 1;
    }

    /// Appends the last row again, as a full one that can be read without the rows before it.
    pub fn encode_again(&self, out: &mut Vec<u8>) {
        let mut fresh = Self::new(self.columns.len());
        fresh.encode_full(self.at(), self.boot_ms, &self.values, out);
    }

    fn encode_full(&mut self, at: Timestamp, boot_ms: u64, values: &[f64], out: &mut Vec<u8>) {
        out.push(FULL);
        put_signed(out, at.as_millis());
        put(out, boot_ms);
        put(out, self.columns.len() as u64);
        (self.at, self.boot_ms) = (at.as_millis(), boot_ms);
        for (at, value) in values.iter().enumerate().take(self.columns.len()) {
            self.columns[at] = Column { int: 0, scale: 0 };
            put_value(&mut self.columns[at], *value, out);
            self.values[at] = *value;
        }
    }

    fn encode_changes(&mut self, at: Timestamp, boot_ms: u64, values: &[f64], out: &mut Vec<u8>) {
        out.push(0);
        let step = at.as_millis().wrapping_sub(self.at);
        put_signed(out, step);
        put_signed(out, (boot_ms.wrapping_sub(self.boot_ms) as i64).wrapping_sub(step));
        (self.at, self.boot_ms) = (at.as_millis(), boot_ms);
        let bitmap = out.len();
        out.resize(bitmap + self.columns.len().div_ceil(8), 0);
        for (at, value) in values.iter().enumerate().take(self.columns.len()) {
            if value.to_bits() != self.values[at].to_bits() {
                out[bitmap + at / 8] |= 1 << (at % 8);
                put_value(&mut self.columns[at], *value, out);
                self.values[at] = *value;
            }
        }
    }

    /// Reads the next row. On an error the chain is as if it had no row: only a full row can follow.
    pub fn decode(&mut self, data: &[u8]) -> Result<(), InvalidRow> {
        let mut input = Input { data, at: 0 };
        let read = self.decode_row(&mut input);
        self.rows = if read.is_ok() { self.rows + 1 } else { 0 };
        read
    }

    fn decode_row(&mut self, input: &mut Input<'_>) -> Result<(), InvalidRow> {
        match input.byte()? {
            FULL => self.decode_full(input)?,
            0 if self.rows == 0 => return Err(InvalidRow::NoFullRow),
            0 => self.decode_changes(input)?,
            flags => return Err(InvalidRow::Flags(flags)),
        }
        match input.data.len() - input.at {
            0 => Ok(()),
            rest => Err(InvalidRow::Long(rest)),
        }
    }

    fn decode_full(&mut self, input: &mut Input<'_>) -> Result<(), InvalidRow> {
        self.at = input.signed()?;
        self.boot_ms = input.number()?;
        let got = usize::try_from(input.number()?).unwrap_or(usize::MAX);
        if got != self.columns.len() {
            return Err(InvalidRow::Width { got, want: self.columns.len() });
        }
        for (column, value) in self.columns.iter_mut().zip(&mut self.values) {
            *column = Column { int: 0, scale: 0 };
            *value = get_value(column, input)?;
        }
        Ok(())
    }

    fn decode_changes(&mut self, input: &mut Input<'_>) -> Result<(), InvalidRow> {
        let step = input.signed()?;
        let boot_step = input.signed()?.wrapping_add(step);
        self.at = self.at.wrapping_add(step);
        self.boot_ms = self.boot_ms.wrapping_add(boot_step as u64);
        let bitmap = input.bytes(self.columns.len().div_ceil(8))?;
        for (byte, bits) in bitmap.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let at = byte * 8 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let column = self.columns.get_mut(at).ok_or(InvalidRow::Number(input.at))?;
                self.values[at] = get_value(column, input)?;
            }
        }
        Ok(())
    }
}

/// The integer that says `value` exactly at `scale`, if there is one.
fn as_decimal(value: f64, scale: u8) -> Option<i64> {
    let power = POWERS[usize::from(scale)];
    let rounded = (value * power).round();
    let int = rounded as i64; // Through the integer, because -0.0 has none.
    let exact = rounded.abs() <= EXACT && (int as f64 / power).to_bits() == value.to_bits();
    exact.then_some(int)
}

fn put_value(column: &mut Column, value: f64, out: &mut Vec<u8>) {
    let same_scale = if column.scale == RAW { None } else { as_decimal(value, column.scale) };
    if let Some(int) = same_scale {
        put(out, zigzag(int.wrapping_sub(column.int)) << 1);
        column.int = int;
    } else if let Some((scale, int)) =
        (0..=SCALE_MAX).find_map(|scale| Some((scale, as_decimal(value, scale)?)))
    {
        put(out, u64::from(scale) << 2 | 1);
        put_signed(out, int);
        *column = Column { int, scale };
    } else {
        put(out, 3);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
        column.scale = RAW;
    }
}

fn get_value(column: &mut Column, input: &mut Input<'_>) -> Result<f64, InvalidRow> {
    let token = input.number()?;
    if token & 1 == 0 {
        if column.scale == RAW {
            return Err(InvalidRow::Number(input.at));
        }
        column.int = column.int.wrapping_add(unzigzag(token >> 1));
    } else if token & 3 == 1 {
        let scale = (token >> 2) as u8 & 15;
        if scale > SCALE_MAX {
            return Err(InvalidRow::Number(input.at));
        }
        *column = Column { int: input.signed()?, scale };
    } else {
        column.scale = RAW;
        let mut bits = [0; 8];
        bits.copy_from_slice(input.bytes(8)?);
        return Ok(f64::from_bits(u64::from_le_bytes(bits)));
    }
    Ok(column.int as f64 / POWERS[usize::from(column.scale)])
}

fn zigzag(number: i64) -> u64 {
    // Differences of exact integers stay below 2^54, so that the shift by one more bit loses nothing.
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, zigzag(number));
}

struct Input<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, InvalidRow> {
        let byte = *self.data.get(self.at).ok_or(InvalidRow::Short(self.at))?;
        self.at += 1;
        Ok(byte)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], InvalidRow> {
        let bytes = self.data.get(self.at..self.at + count).ok_or(InvalidRow::Short(self.at))?;
        self.at += count;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, InvalidRow> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(InvalidRow::Number(self.at))
    }

    fn signed(&mut self) -> Result<i64, InvalidRow> {
        self.number().map(unzigzag)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Encodes rows into chain bytes, decodes them and compares bit by bit; returns the sizes.
    fn round_trip(rows: &[Vec<f64>]) -> Vec<usize> {
        let width = rows[0].len();
        let (mut writer, mut reader) = (Chain::new(width), Chain::new(width));
        let mut sizes = Vec::new();
        for (tick, row) in rows.iter().enumerate() {
            let (at, boot) = (
                Timestamp::from_millis(1_795_428_770_000 + tick as i64 * 10_000),
                55_000 + tick as u64 * 10_000,
            );
            let mut data = Vec::new();
            writer.encode(at, boot, row, &mut data);
            reader.decode(&data).unwrap();
            assert_eq!((reader.at(), reader.boot_ms()), (at, boot));
            assert_eq!(bits(reader.values()), bits(row), "tick {tick}");
            let (mut alone, mut again) = (Chain::new(width), Vec::new());
            writer.encode_again(&mut again);
            alone.decode(&again).unwrap();
            assert_eq!(bits(alone.values()), bits(row), "tick {tick}, alone");
            sizes.push(data.len());
        }
        sizes
    }

    // Cases: R4 (partly)
    #[test]
    fn odd_values_come_back_bit_by_bit() {
        let odd = [
            0.0,
            -0.0,
            f64::NAN,
            crate::sample::STALE_NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            1e300,
            0.1,
            1.0 / 3.0,
            -1e15,
            EXACT,
            -0.05,
            9.999_999_999,
        ];
        let rows: Vec<Vec<f64>> = (0..odd.len())
            .map(|shift| (0..odd.len()).map(|at| odd[(at + shift) % odd.len()]).collect())
            .collect();
        round_trip(&rows);
    }

    #[test]
    fn a_change_costs_two_or_three_bytes_and_sameness_a_bit() {
        // 800 constants, 100 cpu counters (10 s in hundredths), 100 byte counters of 30 kB a tick.
        let row = |tick: u32| -> Vec<f64> {
            let cpu = (0..100).map(|at| f64::from(at * 1000 + tick * 983) / 100.0);
            let bytes = (0..100).map(|at| f64::from(at * 77_777 + tick * 30_011));
            (0..800).map(f64::from).chain(cpu).chain(bytes).collect()
        };
        let sizes = round_trip(&(0..10).map(row).collect::<Vec<_>>());
        for size in &sizes[2..] {
            // The first change also tells the scale.
            let changes = size - 4 - 125; // flags, two times, bitmap
            assert!((200 * 2..=200 * 3).contains(&changes), "{changes} bytes for 200 changes");
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut writer = Chain::new(9);
        let (mut full, mut next) = (Vec::new(), Vec::new());
        writer.encode(Timestamp::from_millis(1), 1, &[1.5; 9], &mut full);
        writer.encode(Timestamp::from_millis(2), 2, &[f64::NAN; 9], &mut next);
        for cut in 0..full.len() {
            assert!(Chain::new(9).decode(&full[..cut]).is_err(), "full row cut at {cut}");
        }
        for cut in 0..next.len() {
            let mut reader = Chain::new(9);
            reader.decode(&full).unwrap();
            assert!(reader.decode(&next[..cut]).is_err(), "row cut at {cut}");
            assert_eq!(reader.decode(&next), Err(InvalidRow::NoFullRow), "a broken chain needs a full row");
        }
        assert_eq!(Chain::new(8).decode(&full), Err(InvalidRow::Width { got: 9, want: 8 }));
        assert_eq!(Chain::new(9).decode(&[2]), Err(InvalidRow::Flags(2)));
    }

    proptest! {
        #[test]
        fn any_floats_come_back(rows in proptest::collection::vec(proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 5), 1..8)) {
            round_trip(&rows);
        }

        #[test]
        fn any_decimals_come_back(rows in proptest::collection::vec(proptest::collection::vec((any::<i32>(), 0..10usize).prop_map(|(int, scale)| f64::from(int) / POWERS[scale]), 5), 1..8)) {
            round_trip(&rows);
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Chain::new(3);
            let first = reader.decode(&data);
            prop_assert_eq!(first.is_ok(), reader.rows() == 1);
        }
    }
}
