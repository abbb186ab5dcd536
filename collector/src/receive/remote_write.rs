//! Prometheus remote write, versions 1.0 and 2.0: a snappy block with a protobuf message, read in place. Pure.
//!
//! Promise: nothing is allocated by what a request claims before it is known to be within bounds; a message that is
//! malformed anywhere is refused as a whole, a series that is not right costs itself alone. Created timestamps are
//! passed over: samples say the same by starting at a low value. Not here: HTTP (`http`), what is taken (`book`).

use tocsin_shared::metric::Kind;

use super::book::{Intake, RawLabel};
use super::refused::Reason;
use super::wire::{Fields, Malformed, Value, varint};

/// Series in one request: two hundred times what Prometheus sends at once.
pub const SERIES_MAX: usize = 100_000;
/// Symbols of a 2.0 request: each has at least one byte in the message, so this bounds the list, not the texts.
const SYMBOLS_MAX: usize = 1 << 20;

/// Which message a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`
    One,
    /// `io.prometheus.write.v2.Request`
    Two,
}

/// Why a block is not unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacked {
    Malformed,
    TooLarge,
}

/// Unpacks a snappy block of at most `bytes_max` bytes; what it claims to be is looked at first.
pub fn unpack(block: &[u8], bytes_max: usize) -> Result<Vec<u8>, Unpacked> {
    let bytes = snap::raw::decompress_len(block).map_err(|_| Unpacked::Malformed)?;
    if bytes > bytes_max {
        return Err(Unpacked::TooLarge);
    }
    snap::raw::Decoder::new().decompress_vec(block).map_err(|_| Unpacked::Malformed)
}

/// What a sender says of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub metric: String,
    pub kind: Kind,
    pub help: String,
    pub unit: String,
}

/// Hands a message's samples to `intake`; gives what it says of metrics. After an error nothing of the intake counts.
pub fn read(version: Version, message: &[u8], intake: &mut Intake<'_>) -> Result<Vec<Described>, Malformed> {
    match version {
        Version::One => read_one(message, intake),
        Version::Two => read_two(message, intake),
    }
}

fn read_one(message: &[u8], intake: &mut Intake<'_>) -> Result<Vec<Described>, Malformed> {
    let (mut described, mut found, mut count) = (Vec::new(), Found::default(), 0);
    for field in Fields::of(message) {
        match field? {
            (1, series) => {
                count_series(&mut count)?;
                found.begin();
                for field in Fields::of(series.bytes(1)?) {
                    match field? {
                        (1, label) => found.labels.push(label_of(label.bytes(1)?)?),
                        (2, sample) => found.samples.push(sample_of(sample.bytes(2)?)?),
                        (3, exemplar) => found.exemplars += exemplar.bytes(3).map(|_| 1)?,
                        (4, histogram) => found.histograms += histogram.bytes(4).map(|_| 1)?,
                        _ => {}
                    }
                }
                found.hand_over(intake);
            }
            (3, metadata) => described.extend(metadata_one(metadata.bytes(3)?)?),
            _ => {}
        }
    }
    Ok(described)
}

fn read_two(message: &[u8], intake: &mut Intake<'_>) -> Result<Vec<Described>, Malformed> {
    let mut symbols: Vec<&[u8]> = Vec::new();
    for field in Fields::of(message) {
        if let (4, symbol) = field? {
            if symbols.len() >= SYMBOLS_MAX {
                return Err(Malformed::Symbols(SYMBOLS_MAX));
            }
            symbols.push(symbol.bytes(4)?);
        }
    }
    let (mut described, mut found, mut count) = (Vec::new(), Found::default(), 0);
    let mut references = Vec::new();
    for field in Fields::of(message) {
        let (5, series) = field? else { continue };
        count_series(&mut count)?;
        found.begin();
        references.clear();
        let mut metadata = None;
        for field in Fields::of(series.bytes(5)?) {
            match field? {
                (1, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        references.push(symbol_of(&symbols, varint(&mut packed)?)?);
                    }
                }
                (1, number) => references.push(symbol_of(&symbols, number.number(1)?)?),
                (2, sample) => found.samples.push(sample_of(sample.bytes(2)?)?),
                (3, histogram) => found.histograms += histogram.bytes(3).map(|_| 1)?,
                (4, exemplar) => found.exemplars += exemplar.bytes(4).map(|_| 1)?,
                (5, said) => metadata = Some(said.bytes(5)?),
                _ => {}
            }
        }
        if references.len() % 2 == 1 {
            return Err(Malformed::OddReferences);
        }
        found.labels.extend(references.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        if let Some(metadata) = metadata {
            described.extend(metadata_two(metadata, &symbols, &found.labels)?);
        }
        found.hand_over(intake);
    }
    Ok(described)
}

fn count_series(count: &mut usize) -> Result<(), Malformed> {
    *count += 1;
    if *count > SERIES_MAX { Err(Malformed::Series(SERIES_MAX)) } else { Ok(()) }
}

/// What a series of a request has; the lists serve for one after another.
#[derive(Default)]
struct Found<'a> {
    labels: Vec<RawLabel<'a>>,
    samples: Vec<(i64, f64)>,
    exemplars: u64,
    histograms: u64,
}

impl Found<'_> {
    fn begin(&mut self) {
        self.labels.clear();
        self.samples.clear();
        (self.exemplars, self.histograms) = (0, 0);
    }

    fn hand_over(&mut self, intake: &mut Intake<'_>) {
        let Self { labels, samples, exemplars, histograms } = self;
        if !samples.is_empty() {
            intake.take(labels, samples.iter().copied());
        }
        intake.refuse(Reason::Exemplar, *exemplars, String::new);
        intake.refuse(Reason::Histogram, *histograms, || {
            let metric = metric_of(labels);
            let metric = String::from_utf8_lossy(&metric[..metric.len().min(128)]);
            format!("{metric:?}: native histograms are not taken; send classic ones")
        });
    }
}

fn metric_of<'a>(labels: &[RawLabel<'a>]) -> &'a [u8] {
    labels.iter().find(|(name, _)| *name == b"__name__").map_or(&[], |(_, value)| value)
}

/// A sample: its value is field 1, its time in milliseconds field 2.
fn sample_of(bytes: &[u8]) -> Result<(i64, f64), Malformed> {
    let (mut at, mut value) = (0, 0.0);
    for field in Fields::of(bytes) {
        match field? {
            (1, found) => value = found.double(1)?,
            (2, found) => at = found.number(2)? as i64,
            _ => {}
        }
    }
    Ok((at, value))
}

fn label_of(bytes: &[u8]) -> Result<RawLabel<'_>, Malformed> {
    let (mut name, mut value) = (&[][..], &[][..]);
    for field in Fields::of(bytes) {
        match field? {
            (1, found) => name = found.bytes(1)?,
            (2, found) => value = found.bytes(2)?,
            _ => {}
        }
    }
    Ok((name, value))
}

fn symbol_of<'a>(symbols: &[&'a [u8]], number: u64) -> Result<&'a [u8], Malformed> {
    let symbol = usize::try_from(number).ok().and_then(|number| symbols.get(number));
    symbol.copied().ok_or(Malformed::Symbol(number, symbols.len()))
}

/// The kinds as both versions number them.
fn kind_of(number: u64) -> Kind {
    match number {
        1 => Kind::Counter,
        2 => Kind::Gauge,
        3 => Kind::Histogram,
        4 => Kind::GaugeHistogram,
        5 => Kind::Summary,
        6 => Kind::Info,
        7 => Kind::StateSet,
        _ => Kind::Unknown,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn metadata_one(bytes: &[u8]) -> Result<Option<Described>, Malformed> {
    let [mut metric, mut help, mut unit] = [&[][..]; 3];
    let mut kind = Kind::Unknown;
    for field in Fields::of(bytes) {
        match field? {
            (1, found) => kind = kind_of(found.number(1)?),
            (2, found) => metric = found.bytes(2)?,
            (4, found) => help = found.bytes(4)?,
            (5, found) => unit = found.bytes(5)?,
            _ => {}
        }
    }
    let [metric, help, unit] = [metric, help, unit].map(text);
    Ok((!metric.is_empty()).then_some(Described { metric, kind, help, unit }))
}

/// What a 2.0 series says of its metric: repeated with every series, so only what says something is given.
fn metadata_two(
    metadata: &[u8],
    symbols: &[&[u8]],
    labels: &[RawLabel<'_>],
) -> Result<Option<Described>, Malformed> {
    let (mut kind, mut help, mut unit) = (0, 0, 0);
    for field in Fields::of(metadata) {
        match field? {
            (1, found) => kind = found.number(1)?,
            (3, found) => help = found.number(3)?,
            (4, found) => unit = found.number(4)?,
            _ => {}
        }
    }
    let metric = metric_of(labels);
    if metric.is_empty() || (kind, help, unit) == (0, 0, 0) {
        return Ok(None);
    }
    let kind = kind_of(kind);
    let metric = family(&text(metric), kind).to_owned();
    let symbol = |number: u64| if symbols.is_empty() { Ok(&[][..]) } else { symbol_of(symbols, number) };
    Ok(Some(Described { metric, kind, help: text(symbol(help)?), unit: text(symbol(unit)?) }))
}

/// A family's name from that of one of its series: histograms and summaries have several.
fn family(metric: &str, kind: Kind) -> &str {
    let ends: &[&str] = match kind {
        Kind::Histogram | Kind::GaugeHistogram => &["_bucket", "_count", "_sum"],
        Kind::Summary => &["_count", "_sum"],
        _ => &[],
    };
    ends.iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric)
}

#[cfg(test)]
mod tests;
