//! The bytes of received samples: each as its steps from the sample before.
//!
//! ```text
//! count          varint
//! for each       series: signed varint, difference of numbers
//!                time: signed varint, difference of milliseconds
//!                value: an even varint is twice the zigzag of an integer; the byte 1, then eight bytes of the float
//! ```
//! Requests bring the series of a scrape in order and with one time, so most samples take two bytes and their value.

use prost::bytes::Buf;
use prost::encoding::{decode_varint, encode_varint};

/// What a frame of the log adds to a payload, at most.
pub(super) const FRAME_BYTES: usize = 128;
/// The bytes of the shortest sample.
const SAMPLE_BYTES_MIN: usize = 3;
/// Integers up to here are exact in a float, and twice their zigzag fits a varint.
const EXACT: f64 = 9_007_199_254_740_992.0;
const FLOAT: u8 = 1;

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The integer that a value is, bit for bit.
fn integer(value: f64) -> Option<i64> {
    let integer = value as i64;
    let is_it = value.abs() <= EXACT && (integer as f64).to_bits() == value.to_bits();
    is_it.then_some(integer)
}

/// Numbers of series, times in milliseconds and values.
pub(super) fn encode(samples: impl ExactSizeIterator<Item = (u64, i64, f64)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + samples.len() * 8);
    encode_varint(samples.len() as u64, &mut out);
    let (mut number, mut time) = (0u64, 0i64);
    for (next, at, value) in samples {
        encode_varint(zigzag(next.wrapping_sub(number) as i64), &mut out);
        encode_varint(zigzag(at.wrapping_sub(time)), &mut out);
        (number, time) = (next, at);
        match integer(value) {
            Some(integer) => encode_varint(zigzag(integer) << 1, &mut out),
            None => {
                out.push(FLOAT);
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
    }
    out
}

/// The way back. Never allocates by a count that its bytes cannot hold.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<(u64, i64, f64)>, String> {
    let input = &mut bytes;
    let count = usize::try_from(number(input)?).unwrap_or(usize::MAX);
    if count > input.len() / SAMPLE_BYTES_MIN {
        return Err(format!("{count} samples in {} bytes", input.len()));
    }
    let mut samples = Vec::with_capacity(count);
    let (mut series, mut time) = (0u64, 0i64);
    for _ in 0..count {
        series = series.wrapping_add(unzigzag(number(input)?) as u64);
        time = time.wrapping_add(unzigzag(number(input)?));
        let value = match input.first() {
            Some(&FLOAT) => {
                input.advance(1);
                f64::from_bits(input.try_get_u64_le().map_err(|_| "it is cut short")?)
            }
            _ => unzigzag(number(input)? >> 1) as f64,
        };
        samples.push((series, time, value));
    }
    if input.is_empty() { Ok(samples) } else { Err(format!("{} bytes too many", input.len())) }
}

fn number(input: &mut &[u8]) -> Result<u64, String> {
    decode_varint(input).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(samples: &[(u64, i64, f64)]) -> Vec<(u64, i64, u64)> {
        samples.iter().map(|(number, at, value)| (*number, *at, value.to_bits())).collect()
    }

    proptest! {
        #[test]
        fn samples_come_back_bit_for_bit(samples in proptest::collection::vec(
            (any::<u64>(), any::<i64>(), prop_oneof![
                any::<u64>().prop_map(f64::from_bits),
                (-1_000i64..1_000).prop_map(|n| n as f64),
                Just(-0.0), Just(EXACT), Just(-EXACT), Just(f64::INFINITY),
            ]), 0..40))
        {
            let bytes = encode(samples.iter().copied());
            prop_assert_eq!(bits(&decode(&bytes).unwrap()), bits(&samples));
            for cut in 0..bytes.len() {
                prop_assert!(decode(&bytes[..cut]).is_err(), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn a_scrape_takes_three_to_eleven_bytes_a_sample() {
        let scrape =
            |value: f64| encode((0..1_000u32).map(|n| (500 + u64::from(n), 1_790_000_000_000, value))).len();
        assert!(scrape(7.0) < 3_020 && scrape(0.1) < 11_020, "{} {}", scrape(7.0), scrape(0.1));
    }
}
