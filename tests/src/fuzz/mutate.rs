//! A small mutator: the same inputs from the same seed, for ever. It finds no deep paths; it keeps found ones closed.

use std::time::{Duration, Instant};

/// Longer inputs are slow and find nothing more.
const BYTES_MAX: usize = 8 * 1024;
/// Bytes and words that lie at edges.
const EDGES: &[&[u8]] = &[
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\n",
    b" ",
    b"\t",
    b"\"",
    b"{",
    b"}",
    b"(",
    b")",
    b"[",
    b"]",
    b"-",
    b"1e400",
    b"NaN",
    b"-0",
    b"18446744073709551616",
    b"\xe2\x80\xae",
    b"\x1b[",
    b"{{",
    b"}}",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"=",
    b":",
    b",",
    b"5m",
    b"\xc3\xa9",
];

/// Draws numbers and changes bytes.
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).map_or(0, |drawn| drawn % end.max(1))
    }

    /// An input made of one of these, changed in one to eight places.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus.get(self.below(corpus.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(8) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let until = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(8) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 if at < bytes.len() => bytes[at] = self.below(256) as u8,
            3 if at < until => drop(bytes.drain(at..until)),
            4 => {
                let edge = EDGES[self.below(EDGES.len())];
                bytes.splice(at..at, edge.iter().copied());
            }
            5 if at < until => {
                let again = bytes[at..until].repeat(1 + self.below(4));
                bytes.splice(at..at, again);
            }
            6 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len() + 1);
                let taken = &other[from..(from + self.below(64)).min(other.len())];
                bytes.splice(at..at, taken.iter().copied());
            }
            7 => bytes.truncate(at),
            _ => bytes.push(self.below(256) as u8),
        }
    }
}

/// Runs `target` over the corpus, and over what is made of it for as long as told. How many inputs that were.
pub fn play(run: fn(&[u8]), corpus: &[Vec<u8>], seed: u64, within: Duration) -> u64 {
    let mut last = Told(Vec::new());
    let mut inputs = 0;
    for input in corpus {
        last.0.clone_from(input);
        run(input);
        inputs += 1;
    }
    let (mut mutator, begun) = (Mutator::new(seed), Instant::now());
    while begun.elapsed() < within {
        last.0 = mutator.next(corpus);
        run(&last.0);
        inputs += 1;
    }
    inputs
}

/// The input that is tried, told when trying it panics.
struct Told(Vec<u8>);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("the input of {} bytes, in hex, for a file in the corpus: {hex}", self.0.len());
        }
    }
}
