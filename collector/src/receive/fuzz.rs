//! Requests of bytes from elsewhere, for fuzz targets: whatever they are, what is taken keeps its bounds.

use std::collections::HashSet;
use std::sync::LazyLock;

use prost::Message as _;
use tocsin_shared::time::Timestamp;

use super::book::{AHEAD_MAX, Book, Judge};
use super::remote_write::Version;
use super::{otlp, remote_write};
use crate::samples::Store;

/// When everything here happens.
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const SERIES_MAX: usize = 50;

/// Nothing is written to it: it only shares texts.
static STORE: LazyLock<Store> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("tocsin-fuzz-receive-{}", std::process::id()));
    Store::open(dir).expect("a directory for temporary files can be written to").0
});

/// One request; its first byte says of what kind. Panics when something is taken that must not be.
pub fn request(data: &[u8]) {
    let Some((kind, message)) = data.split_first() else { return };
    let mut book = Book::new("fuzz".into(), SERIES_MAX);
    let agents = HashSet::from(["db-1".into()]);
    let judge = Judge { now: NOW, keep_from: Timestamp::MIN, agents: &agents, store: &STORE };
    let mut intake = book.intake(judge);
    let read = match kind % 5 {
        0 => match remote_write::unpack(message, 1 << 16) {
            Ok(message) => {
                assert!(message.len() <= 1 << 16, "unpacked beyond its bound");
                remote_write::read(Version::One, &message, &mut intake)
            }
            Err(_) => return,
        },
        1 => remote_write::read(Version::One, message, &mut intake),
        2 => remote_write::read(Version::Two, message, &mut intake),
        3 => otlp::decode(otlp::Format::Protobuf, message)
            .and_then(|request| otlp::read(&request, &mut intake)),
        _ => otlp::decode(otlp::Format::Json, message).and_then(|request| otlp::read(&request, &mut intake)),
    };
    if read.is_err() {
        return;
    }
    let (samples, _) = intake.finish();
    let place = |sample: &crate::journal::rows::received::Sample| (sample.series.origin.key, sample.at);
    assert!(samples.is_sorted_by_key(place), "samples of a scrape stand together");
    for sample in &samples {
        let labels = &sample.series.labels;
        assert!(!labels.metric().is_empty() && labels.len() <= 64, "{labels}");
        assert!(
            labels.get("job") != Some("node") || labels.get("instance") != Some("db-1"),
            "an agent's host"
        );
        assert!(sample.at.since(NOW) <= AHEAD_MAX, "ahead: {}", sample.at);
    }
    assert!(book.series() <= SERIES_MAX);
}

/// Requests of each kind to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let at = NOW.as_millis() as u64;
    let mut sample = vec![0x09];
    sample.extend_from_slice(&1.5f64.to_bits().to_le_bytes());
    sample.push(0x10);
    prost::encoding::encode_varint(at, &mut sample);
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let label =
        |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
    let series =
        [label("__name__", "m"), label("instance", "a"), label("job", "j"), field(2, &sample)].concat();
    let described = field(3, &[vec![0x08, 1], field(2, b"m"), field(4, b"help")].concat());
    let one = [field(1, &series), described].concat();
    let symbols = ["", "__name__", "m", "le", "1"].map(|text| field(4, text.as_bytes())).concat();
    let series = [field(1, &[1, 2, 3, 4]), field(2, &sample), field(5, &[8, 1, 0x18, 2])].concat();
    let two = [symbols, field(5, &series)].concat();
    let json = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"a"}}}},{{"key":"b","value":{{"arrayValue":{{"values":[{{"intValue":"1"}}]}}}}}}]}},"scopeMetrics":[{{"metrics":[{{"name":"h","unit":"s","histogram":{{"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"{at}000000","attributes":[],"count":"3","sum":1.5,"bucketCounts":["1","2"],"explicitBounds":[0.5]}}]}}}},{{"name":"s","sum":{{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{{"timeUnixNano":"{at}000000","attributes":[],"asInt":"5"}}]}}}}]}}]}}]}}"#
    );
    let protobuf = otlp::decode(otlp::Format::Json, json.as_bytes()).map(|request| request.encode_to_vec());
    let packed = snap::raw::Encoder::new().compress_vec(&one).unwrap_or_default();
    let all = [packed, one, two, protobuf.unwrap_or_default(), json.into_bytes()];
    all.into_iter().enumerate().map(|(kind, message)| [&[kind as u8][..], &message].concat()).collect()
}
