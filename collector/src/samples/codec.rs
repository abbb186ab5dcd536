//! How one column of values, or of times, becomes bytes, and comes back bit for bit.
//!
//! A column of values takes the first class that holds it exactly: all equal; decimals of at most nine places as
//! integers (or, where these are multiples of something, as those multiples), delta, pco; else pco over the floats themselves. Short columns, and those that pco cannot shrink, are
//! kept as they are. Cells that hold `ABSENT` cost a bit each and are left out of what is compressed. Every class
//! keeps NaN payloads, signed zeros and infinities. A column does not know its length: the caller does.

use std::io::Write as _;

use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::bytes::{Malformed, Reader, put_varint, unzigzag, zigzag};

/// A cell without a value: the series was not there at that row. A NaN of its own bits, never seen outside.
pub const ABSENT: f64 = f64::from_bits(0x7ff0_0000_0000_a85e);

/// Whether a cell holds no value.
#[inline]
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT.to_bits()
}

const CONSTANT: u8 = 0x00;
const FLOATS: u8 = 0x01;
const RAW: u8 = 0x02;
const SPARSE: u8 = 0x03;
/// The low nibble is the count of decimal places.
const DECIMAL: u8 = 0x10;
/// As `DECIMAL`, of which all are as many steps of one size from the first: pages, kilobytes. Since format 2 of blocks.
const STEPS: u8 = 0x30;
const REGULAR_TIMES: u8 = 0x20;
const TIMES: u8 = 0x21;

/// Below this many values the model that pco writes is larger than what it saves.
const PCO_VALUES_MIN: usize = 8;
/// Places after the point that are tried: node metrics have up to 9 (nanoseconds written as seconds).
const PLACES_MAX: usize = 9;
/// Integers up to here are exact in an f64.
pub(crate) const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
pub(crate) const POWERS: [f64; PLACES_MAX + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Every row goes through it soon after it came.
    Sealing,
    /// Once a day, for weeks of keeping.
    Joining,
}

impl Effort {
    fn level(self) -> usize {
        match self {
            Self::Sealing => 4,
            Self::Joining => 8,
        }
    }
}

/// Appends a column of values.
pub(crate) fn encode_values(values: &[f64], effort: Effort, out: &mut Vec<u8>) {
    let absent = values.iter().filter(|value| is_absent(**value)).count();
    if absent == 0 || absent == values.len() {
        return encode_present(values, effort, out);
    }
    out.push(SPARSE);
    let mut bits = vec![0u8; values.len().div_ceil(8)];
    let mut present = Vec::with_capacity(values.len() - absent);
    for (at, value) in values.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
        bits[at / 8] |= 1 << (at % 8);
        present.push(*value);
    }
    out.extend_from_slice(&bits);
    encode_present(&present, effort, out);
}

fn encode_present(values: &[f64], effort: Effort, out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return out.push(RAW) };
    let start = out.len();
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        out.push(CONSTANT);
        return out.extend_from_slice(&first.to_le_bytes());
    }
    let raw_size = 1 + values.len() * 8;
    if values.len() >= PCO_VALUES_MIN {
        let packed = match decimals(values) {
            Some((places, mut integers)) => {
                match step(&integers) {
                    1 => out.push(DECIMAL | places),
                    size => {
                        out.push(STEPS | places);
                        let first = integers[0];
                        put_varint(out, zigzag(first));
                        put_varint(out, size);
                        // All are below 2^53, so are their differences below 2^54.
                        integers.iter_mut().for_each(|integer| *integer = (*integer - first) / size as i64);
                    }
                }
                compress(&integers, &integer_config(effort), out)
            }
            None => {
                out.push(FLOATS);
                compress(values, &ChunkConfig::default().with_compression_level(effort.level()), out)
            }
        };
        if packed && out.len() - start < raw_size {
            return;
        }
        out.truncate(start);
    }
    out.push(RAW);
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

/// The values as integers of the fewest decimal places that give all of them back exactly.
fn decimals(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut places = 0;
    for value in values {
        // What is exact with fewer places stays exact with more: m/10^k and 10m/10^(k+1) round to the same float.
        places = (places..=PLACES_MAX).find(|places| scaled(*value, *places).is_some())?;
    }
    let integers = values.iter().map(|value| scaled(*value, places)).collect::<Option<Vec<_>>>()?;
    Some((places as u8, integers))
}

fn scaled(value: f64, places: usize) -> Option<i64> {
    let integer = (value * POWERS[places]).round();
    let exact =
        integer.abs() < EXACT_MAX && (integer as i64 as f64 / POWERS[places]).to_bits() == value.to_bits();
    exact.then_some(integer as i64)
}

/// The greatest number that divides the differences of integers; one when there is no greater, or no difference.
fn step(integers: &[i64]) -> u64 {
    let mut step = 0;
    for pair in integers.windows(2) {
        step = common(step, pair[1].abs_diff(pair[0]));
        if step == 1 {
            break;
        }
    }
    step.max(1)
}

/// The greatest common divisor; of zero and another number, the other.
fn common(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn integer_config(effort: Effort) -> ChunkConfig {
    ChunkConfig::default()
        .with_compression_level(effort.level())
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(match effort {
            Effort::Sealing => DeltaSpec::TryConsecutive(1),
            Effort::Joining => DeltaSpec::Auto,
        })
}

/// Appends pco's header, model and page; `false` when pco refuses, and the caller keeps the values as they are.
fn compress<T: Number>(numbers: &[T], config: &ChunkConfig, out: &mut Vec<u8>) -> bool {
    let file = FileCompressor::default();
    let mut write = || {
        file.write_header(&mut *out)?;
        let mut chunk = file.chunk_compressor(numbers, config)?;
        chunk.write_meta(&mut *out)?;
        chunk.write_page(0, &mut *out)?.flush()?;
        Ok::<_, pco::errors::PcoError>(())
    };
    write().is_ok()
}

fn decompress<T: Number + Default>(bytes: &[u8], count: usize) -> Result<Vec<T>, Malformed> {
    let read = || {
        let (file, rest) = FileDecompressor::new(bytes)?;
        let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest)?;
        let mut numbers = vec![T::default(); count];
        let done = chunk.page_decompressor(rest, count)?.read(&mut numbers)?;
        Ok::<_, pco::errors::PcoError>((numbers, done.n_processed))
    };
    match read() {
        Ok((numbers, processed)) if processed == count => Ok(numbers),
        Ok(_) => Err(Malformed("a column has fewer values than rows")),
        Err(_) => Err(Malformed("a compressed column does not decode")),
    }
}

/// Reads a column of `count` values back.
pub(crate) fn decode_values(bytes: &[u8], count: usize) -> Result<Vec<f64>, Malformed> {
    let (&tag, rest) = bytes.split_first().ok_or(Malformed("an empty column"))?;
    match tag {
        CONSTANT => Ok(vec![f64::from_le_bytes(Reader(rest).array()?); count]),
        FLOATS => decompress::<f64>(rest, count),
        RAW => {
            let bytes = Reader(rest).take(count * 8)?;
            let (words, _) = bytes.as_chunks::<8>();
            Ok(words.iter().map(|word| f64::from_le_bytes(*word)).collect())
        }
        SPARSE => decode_sparse(rest, count),
        tag if tag & 0xf0 == DECIMAL && usize::from(tag & 0x0f) <= PLACES_MAX => {
            let power = POWERS[usize::from(tag & 0x0f)];
            let integers = decompress::<i64>(rest, count)?;
            Ok(integers.into_iter().map(|integer| integer as f64 / power).collect())
        }
        tag if tag & 0xf0 == STEPS && usize::from(tag & 0x0f) <= PLACES_MAX => {
            let mut reader = Reader(rest);
            let (first, size) = (unzigzag(reader.varint()?), reader.varint()? as i64);
            let power = POWERS[usize::from(tag & 0x0f)];
            let steps = decompress::<i64>(reader.0, count)?;
            let value = |step: i64| first.wrapping_add(step.wrapping_mul(size)) as f64 / power;
            Ok(steps.into_iter().map(value).collect())
        }
        _ => Err(Malformed("a column of an unknown class")),
    }
}

fn decode_sparse(bytes: &[u8], count: usize) -> Result<Vec<f64>, Malformed> {
    let mut reader = Reader(bytes);
    let bits = reader.take(count.div_ceil(8))?;
    let there = |at: &usize| bits[at / 8] & (1 << (at % 8)) != 0;
    let present = (0..count).filter(there).count();
    if reader.0.first() == Some(&SPARSE) {
        return Err(Malformed("a sparse column within a sparse column"));
    }
    let mut values = decode_values(reader.0, present)?.into_iter();
    Ok((0..count).map(|at| if there(&at) { values.next().unwrap_or(ABSENT) } else { ABSENT }).collect())
}

/// Appends a column of times, milliseconds, ascending.
pub(crate) fn encode_times(times: &[i64], out: &mut Vec<u8>) {
    let (first, second) = (times.first().copied().unwrap_or(0), times.get(1).copied());
    let step = second.map_or(0, |second| second.wrapping_sub(first));
    if times.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
        out.push(REGULAR_TIMES);
        put_varint(out, zigzag(first));
        return put_varint(out, zigzag(step));
    }
    let start = out.len();
    if times.len() >= PCO_VALUES_MIN {
        out.push(TIMES);
        if compress(times, &integer_config(Effort::Sealing), out) {
            return;
        }
        out.truncate(start);
    }
    out.push(RAW);
    times.iter().for_each(|time| out.extend_from_slice(&time.to_le_bytes()));
}

/// Reads `count` times back.
pub(crate) fn decode_times(bytes: &[u8], count: usize) -> Result<Vec<i64>, Malformed> {
    let mut reader = Reader(bytes);
    match reader.byte()? {
        REGULAR_TIMES => {
            let (first, step) = (unzigzag(reader.varint()?), unzigzag(reader.varint()?));
            Ok((0..count).map(|row| first.wrapping_add(step.wrapping_mul(row as i64))).collect())
        }
        TIMES => decompress(reader.0, count),
        RAW => {
            let (words, _) = reader.take(count * 8)?.as_chunks::<8>();
            Ok(words.iter().map(|word| i64::from_le_bytes(*word)).collect())
        }
        _ => Err(Malformed("times of an unknown class")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tocsin_shared::sample::STALE_NAN;

    use super::*;

    fn there_and_back(values: &[f64]) -> u8 {
        let mut bytes = vec![0xee]; // Columns are appended: what stands before them is not theirs.
        encode_values(values, Effort::Sealing, &mut bytes);
        let mut dearer = Vec::new();
        encode_values(values, Effort::Joining, &mut dearer);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        for bytes in [&bytes[1..], &dearer] {
            let back = decode_values(bytes, values.len()).unwrap();
            assert_eq!(bits(&back), bits(values));
        }
        bytes[1]
    }

    #[test]
    fn each_column_takes_the_class_that_fits() {
        let column = |cell: &dyn Fn(u32) -> f64| (0..120).map(cell).collect::<Vec<_>>();
        for (name, values, class) in [
            ("constant", vec![0.25; 120], CONSTANT),
            ("constant negative zero", vec![-0.0; 120], CONSTANT),
            ("constant staleness", vec![STALE_NAN; 3], CONSTANT),
            ("constant infinity", vec![f64::INFINITY; 9], CONSTANT),
            ("counter", column(&|at| f64::from(at * 37 + at % 3)), DECIMAL),
            ("pages", column(&|at| 4096.0 * f64::from(1000 + (at * at) % 77)), STEPS),
            ("steps from an odd place", column(&|at| -7.0 + 12.0 * f64::from(at)), STEPS),
            ("twentieths", column(&|at| f64::from(at * 3 % 50) / 20.0), STEPS | 2),
            ("hundredths", column(&|at| f64::from(at * at) / 100.0), DECIMAL | 2),
            ("nanoseconds", column(&|at| f64::from(at * at * 7 + at % 3) / 1e9), DECIMAL | 9),
            ("zeros of both signs", column(&|at| if at % 2 == 0 { 0.0 } else { -0.0 }), FLOATS),
            ("thirds", column(&|at| f64::from(at / 16) / 3.0), FLOATS),
            ("an end", column(&|at| if at == 119 { STALE_NAN } else { f64::from(at / 40) / 3.0 }), FLOATS),
            ("a late start", column(&|at| if at < 50 { ABSENT } else { f64::from(at) }), SPARSE),
            ("never there", vec![ABSENT; 120], CONSTANT),
            ("short", vec![1.0, 2.0, f64::NEG_INFINITY], RAW),
            ("empty", vec![], RAW),
        ] {
            assert_eq!(there_and_back(&values), class, "{name}");
        }
    }

    fn cell() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => any::<u64>().prop_map(f64::from_bits), // Every NaN payload and subnormal is in here.
            4 => (-1_000_000i64..1_000_000, 0usize..10).prop_map(|(m, k)| m as f64 / POWERS[k]),
            1 => proptest::sample::select(vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, STALE_NAN,
                ABSENT, f64::MIN_POSITIVE, f64::MAX, EXACT_MAX, -EXACT_MAX, 1e-9, 5e-324]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        // Cases: R4 (partly)
        #[test]
        fn any_column_comes_back_bit_for_bit(values in prop_oneof![
            proptest::collection::vec(cell(), 0..300),
            (proptest::collection::vec(-50i64..50, 0..300), 0usize..10).prop_map(|(steps, places)| steps
                .into_iter()
                .scan(1_000_000i64, |sum, step| { *sum += step; Some(*sum as f64 / POWERS[places]) })
                .collect::<Vec<_>>()),
        ]) {
            there_and_back(&values);
        }

        #[test]
        fn any_times_come_back(mut times in proptest::collection::vec(any::<i64>(), 0..200), step in 0i64..100_000) {
            times.sort_unstable();
            let regular = (0..100).map(|row| row * step - 5).collect::<Vec<_>>();
            for times in [times, regular] {
                let mut bytes = Vec::new();
                encode_times(&times, &mut bytes);
                prop_assert_eq!(decode_times(&bytes, times.len()).unwrap(), times);
            }
        }
    }

    #[test]
    fn a_regular_grid_costs_a_few_bytes() {
        let mut bytes = Vec::new();
        encode_times(&(0..1000).map(|row| 1_795_428_770_000 + row * 10_000).collect::<Vec<_>>(), &mut bytes);
        assert!(bytes.len() <= 12, "{} bytes", bytes.len());
    }
}
